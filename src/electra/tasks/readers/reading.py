"""What every reader returns, and the annotations that targets are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from electra.contracts import Example
from electra.errors import ElectraError


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A labelled file that is being read.

    Args:
        examples: in the order of the file, to be taken once; they stream, unless the whole file is one JSON value.
        notes: sentences about what was inferred or mended, complete once `examples` is exhausted.
    """

    examples: Iterator[Example]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, order=True, slots=True)
class Mention:
    """A labelled part of a text: characters [start, end)."""

    start: int
    end: int
    label: str


@dataclass(kw_only=True)
class Mended:
    """Counts what was mended while a file was read; `note` tells it with the first place."""

    what: str
    count: int = 0
    first: str = ""

    def add(self, where: str, times: int = 1) -> None:
        self.first = self.first or where
        self.count += times

    def notes(self) -> list[str]:
        """One sentence, or none where nothing was mended: `12 tags repaired, first at f.txt:9`."""
        return [f"{self.count:,} {self.what}, first at {self.first}"] if self.count else []


def reading(where: str, examples: Iterable[Example], notes: list[str], *mended: Mended) -> Reading:
    """A `Reading` whose notes get those of `mended` when the examples are exhausted.

    Raises:
        ElectraError: E-D307 at the end of a file without rows.
    """

    def checked() -> Iterator[Example]:
        some = False
        for example in examples:
            some = True
            yield example
        if not some:
            raise ElectraError("E-D307", where, "holds no rows", "give a file with at least one")
        for one in mended:
            notes.extend(one.notes())

    return Reading(examples=checked(), notes=notes)
