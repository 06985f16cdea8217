"""The account of what is lost between files and documents: how often, by cause and file, and a few places of each cause.

Whoever leaves something out adds it here under a cause, `dropped: empty documents` say; whoever writes documents takes the
losses of the files that it is through with, so that a million files cost no memory. Causes begin with one of `read`, `skipped`,
`dropped`, `split`, `removed` and `replaced`; docs/corpus.md lists them.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass, field

from electra.config import STRICT
from electra.text.clean import Counts

#: places that are kept for each cause
SAMPLES = 3

_SAMPLE_CHARACTERS = 100


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What was left out, of one file or of many.

    Args:
        counts: how often, by cause.
        samples: by cause, the first places, each with what it was or why.
    """

    __pydantic_config__ = STRICT
    counts: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, cause: str, file: str, line: int | None, text: str) -> None:
        """One more; see `Drops.add`."""
        self.counts[cause] += 1
        samples = self.samples.setdefault(cause, [])
        if len(samples) < SAMPLES:
            place = file if line is None else f"{file}:{line}"
            what = " ".join(text[:_SAMPLE_CHARACTERS].split())
            samples.append(printable(f"{place}: {what}" if what else place))

    def update(self, later: Losses) -> None:
        """Those that came later are added."""
        self.counts.update(later.counts)
        for cause, samples in later.samples.items():
            own = self.samples.setdefault(cause, [])
            own += samples[: SAMPLES - len(own)]


class Drops:
    """What happened, by cause and file."""

    def __init__(self) -> None:
        self._taken = Losses()
        self._files: dict[str, Losses] = {}

    def begin(self, file: str) -> Counts:
        """The counts of a file that is read from now on, to be added to by cause; see `take`."""
        return self._files.setdefault(file, Losses()).counts

    def add(self, cause: str, file: str, line: int | None = None, text: str = "") -> None:
        """Something was left out.

        Args:
            cause: why, in words that are the same for all of its kind.
            file: the file; what lies in none that was begun counts towards the total alone.
            line: where, counted from 1.
            text: what was left out, or what was wrong with it.
        """
        self._files.get(file, self._taken).add(cause, file, line, text)

    def take(self, before: str | None = None) -> list[tuple[str, Losses]]:
        """(file, losses) of the files that were begun before the file `before` was, in order; of all, without one.

        Each file is taken once, and is to be added to no more.
        """
        taken = []
        while self._files and (file := next(iter(self._files))) != before:
            taken.append((file, self._files.pop(file)))
            self._taken.update(taken[-1][1])
        return taken

    @property
    def total(self) -> Losses:
        """Of all files."""
        total = Losses()
        for losses in (self._taken, *self._files.values()):
            total.update(losses)
        return total


def printable(text: str) -> str:
    r"""`text` as one line that any terminal and any file takes: line breaks, lone surrogates and their like as `\n`."""
    return "".join(one if one.isprintable() or unicodedata.category(one) == "Zs" else ascii(one)[1:-1] for one in text)
