"""Text files -> documents: the whole file, lines up to an empty line, or a line each."""

from __future__ import annotations

from collections.abc import Iterator

from electra.text.readers.decode import text_blocks
from electra.text.readers.lines import LONGEST, SPLIT, lines
from electra.text.readers.source import Source


def documents(source: Source) -> Iterator[tuple[int, str]]:
    """(first line, text) of each document of a text file, none over `LONGEST` characters."""
    kind, counts = source.options.document, source.counts
    begun, size, first = list[str](), 0, 1
    for number, line, ended in lines(text_blocks(source), LONGEST):
        separates = kind == "block" and (not line or line.isspace())
        overflows = size + len(line) > LONGEST
        if begun and (separates or overflows):
            counts.update([SPLIT] if not separates else [])
            yield first, "\n".join(begun)
            begun, size = [], 0
        if separates:
            continue
        first = first if begun else number
        begun.append(line)
        size += len(line) + 1
        if kind == "line" or not ended:
            counts.update([SPLIT] if not ended else [])
            yield first, "\n".join(begun)
            begun, size = [], 0
    if begun:
        yield first, "\n".join(begun)
