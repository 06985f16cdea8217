"""A part of the text that represents all of it, for work that needs no more: training, extending and inspecting a tokenizer.

In: files, and how many bytes of clean text are wanted. Out: lines of text in memory, and how much of each file they are.

If all there is fits, all is taken. Otherwise each file gets the same number of bytes, and what small files leave goes to the
others, so a big file does not crowd out small ones: files below a common level are taken whole, the others are cut to it.
What is taken from a file is spread over it: line after line, a share of its bytes is owed, and a line is taken as soon as at
least half of it is owed. What is owed at a file's end goes on to the next one that is cut, so that many files of one line
are sampled too. Nothing is random: the same files give the same sample.

The files are read once to measure them, and a second time if they do not fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from electra.errors import ElectraError
from electra.text.drops import Drops, Losses
from electra.text.readers import READ_DEFAULTS, ReadOptions, read


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file, the bytes of clean text that it holds, and how many of them were taken."""

    file: str
    bytes: int
    used: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Lines of text, where they come from, and what was skipped, dropped or removed while the files were read."""

    texts: tuple[str, ...]
    sources: tuple[Source, ...]
    documents: int
    losses: Losses

    @property
    def bytes(self) -> int:
        """Of all sources."""
        return sum(source.bytes for source in self.sources)

    @property
    def used(self) -> int:
        """Of the sample."""
        return sum(source.used for source in self.sources)


def take_sample(paths: Sequence[str | Path], most: int, options: ReadOptions = READ_DEFAULTS) -> Sample:
    """At most about `most` bytes of the text of `paths`: off by less than a line for each file that is cut.

    Args:
        paths, options: see `readers.read`, whose errors it raises.
        most: bytes of UTF-8, line breaks not counted.

    Raises:
        ElectraError: E-C130 `most` is below 1, or so small that nothing is taken; E-D112 there is no text.
    """
    if most < 1:
        raise ElectraError("E-C130", "sample bytes", f"{most} bytes hold no text", "give a positive number")
    lines = _Lines(paths, options)
    sizes, kept, total = dict[str, int](), list[str](), 0
    for file, line, size in lines:
        sizes[file] = sizes.get(file, 0) + size
        total += size
        if total <= most:
            kept.append(line)
        else:
            kept.clear()
    documents, losses = lines.documents, lines.drops.total
    if not total:
        told = "; ".join(f"{cause}: {count}" for cause, count in sorted(losses.counts.items()))
        raise ElectraError(
            "E-D112", ", ".join(map(str, paths)), f"there is no text ({told or 'no file'})", "give files with text"
        )
    used = dict(sizes)
    if total > most:
        kept, used = _cut(lines, sizes, most)
    if not kept:
        raise ElectraError("E-C130", "sample bytes", f"{most} bytes are less than half a line", "give more bytes")
    sources = tuple(Source(file=file, bytes=size, used=used[file]) for file, size in sizes.items())
    return Sample(texts=tuple(kept), sources=sources, documents=documents, losses=losses)


class _Lines:
    """(file, line, bytes) of the clean text of files, to be iterated more than once; figures are those of the latest pass."""

    def __init__(self, paths: Sequence[str | Path], options: ReadOptions) -> None:
        self._paths, self._options = paths, options
        self.documents, self.drops = 0, Drops()

    def __iter__(self) -> Iterator[tuple[str, str, int]]:
        self.documents, self.drops = 0, Drops()
        for document in read(self._paths, self.drops, self._options):
            self.drops.take(before=document.file)
            self.documents += 1
            for line in document.text.split("\n"):
                yield document.file, line, len(line.encode())


def _cut(lines: _Lines, sizes: Mapping[str, int], most: int) -> tuple[list[str], dict[str, int]]:
    """The lines that are taken, and their bytes by file."""
    level = common_level(sizes.values(), most)
    kept, used, owed = list[str](), dict.fromkeys(sizes, 0), 0.0
    for file, line, size in lines:
        if sizes[file] > level:
            owed += size * level / sizes[file]
            if owed < size / 2:
                continue
            owed -= size
        kept.append(line)
        used[file] += size
    return kept, used


def common_level(sizes: Iterable[int], most: int) -> float:
    """The level at which all sizes, cut to it, add up to `most`; what they add up to must be more."""
    remaining, rest = most, sorted(sizes)
    for place, size in enumerate(rest):
        level = remaining / (len(rest) - place)
        if size > level:
            break
        remaining -= size
    return level
