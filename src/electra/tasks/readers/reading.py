"""How every reader ends: the count of what was mended, the notes, the file without rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from electra.contracts import Example, Mention, Reading
from electra.errors import ElectraError


@dataclass(kw_only=True)
class Mended:
    """Counts what was mended while a file was read; `note` tells it with the first place."""

    what: str
    count: int = 0
    first: str = ""

    def add(self, where: str, times: int = 1) -> None:
        self.first = self.first or (where if times else "")
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


def in_order(mentions: Iterable[Mention]) -> tuple[Mention, ...]:
    """Each mention once, in the order of the text."""
    return tuple(sorted(set(mentions), key=lambda one: (one.start, one.end, one.label)))
