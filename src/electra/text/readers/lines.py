"""Text in blocks -> lines, and what is too long in pieces."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator

from electra.text.readers.decode import text_blocks
from electra.text.readers.source import BAD_ROW, Source

#: characters; a longer document goes on as the next one
LONGEST = 1 << 17
#: characters; a row is held whole, so a longer one is taken for a mistake: a quote that is not closed, a file without lines
LONGEST_ROW = 1 << 25

SPLIT = "split: documents too long for one"


def row_lines(source: Source, code: str, fix: str) -> Iterator[tuple[int, str]]:
    """(number, text) of each line. One over `LONGEST_ROW` is a bad row, of which `code` and `fix` tell."""
    whole = True
    for number, line, ended in lines(text_blocks(source), LONGEST_ROW):
        if whole and not ended:
            source.lose(BAD_ROW, code, number, f"a row of more than {LONGEST_ROW:,} characters", fix)
        elif whole:
            yield number, line
        whole = ended


def lines(texts: Iterable[str], longest: int) -> Iterator[tuple[int, str, bool]]:
    """(number, text, whether the line ends here) of each line; lines over `longest` characters come in pieces."""
    number, begun, size = 1, list[str](), 0
    for block in texts:
        head, *others = block.split("\n")
        begun.append(head)
        size += len(head)
        for following in others:
            yield from _finished(number, "".join(begun), longest)
            number, begun, size = number + 1, [following], len(following)
        if size > longest:
            *pieces, rest = cut("".join(begun), longest)
            yield from ((number, piece, False) for piece in pieces)
            begun, size = [rest], len(rest)
    if size:
        yield from _finished(number, "".join(begun), longest)


def _finished(number: int, line: str, longest: int) -> Iterator[tuple[int, str, bool]]:
    *pieces, rest = cut(line, longest)
    yield from ((number, piece, False) for piece in pieces)
    yield number, rest, True


def cut(text: str, longest: int) -> list[str]:
    """`text` in pieces of at most `longest` characters that join to it again.

    A piece ends behind a line break, else a space, else a sentence's end, if there is one in its second half; never before a
    combining mark, unless a piece is made of them.
    """
    pieces, start = [], 0
    while len(text) - start > longest:
        middle, end = start + longest // 2, start + longest
        ends = (max(text.rfind(mark, middle, end) for mark in marks) for marks in ("\n", " ", "。！？.!?"))
        stop = next((position + 1 for position in ends if position >= 0), end)
        while stop > middle and unicodedata.combining(text[stop]):
            stop -= 1
        stop = stop if stop > middle else end
        pieces.append(text[start:stop])
        start = stop
    return [*pieces, text[start:]]
