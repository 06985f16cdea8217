"""Which source stands at row n of a run, and which of its rows.

In come sources: the rows of a corpus with a name and a weight. Out come, for any row numbers of the run, the source, the row of
it, and the key of that row's noise. A single corpus is a mixture of one source.

Weights become quotas, whole numbers of rows in a period of 277,200 rows (less where they have a common divisor: 2 to 1 is a
period of 3). That number is divisible by 1 to 12, by 16 and by 100, so thirds, sevenths or per cent are exact, and other shares
are off by less than 4 in a million. The order within a period is made once: row j of a source may not stand before place
j / share, nor behind (j + 1) / share, and of the rows that may come next, the one that must come earliest does. This always
works out, so after n rows of a run every source has had share * n of them, within 1 (Baruah, Cohen, Plaxton and Varvel,
"Proportionate progress", 1996). A place in the period also knows how many rows of its source stand before it. That is all
there is to know, and it costs a fraction of a second and a few megabytes for any number of rows.

Each source has its own epochs: it is visited in its own keyed order, and its noise has its own keys.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from electra.data.rows import Rows, noise_key, order_key, permuted
from electra.errors import ElectraError

Ints = npt.NDArray[np.int64]

#: rows of the longest period
PERIOD = 277_200  # 2**4 * 3**2 * 5**2 * 7 * 11


@dataclass(frozen=True, kw_only=True)
class Source:
    """A part of the text.

    Args:
        name: for events and errors.
        rows: its rows.
        weight: its part of all rows, relative to the other sources.
        seed: key of its order, masks and noise.
    """

    name: str
    rows: Rows
    weight: float = 1.0
    seed: int


@dataclass(frozen=True)
class Picks:
    """What stands at n places of a run.

    Args:
        sources: int64 [n], the number of the source.
        rows: int64 [n], the number of the row within its source.
        noise_keys: uint64 [n], keyed by (seed of the source, epoch, row).
    """

    sources: Ints
    rows: Ints
    noise_keys: npt.NDArray[np.uint64]


class Mixture:
    """Rows of several sources in exact proportions, endlessly.

    Args:
        sources: at least one; rows of the same length; positive weights.

    Raises:
        ElectraError: E-D471, a weight so small that the source has no row in a period.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)
        self._quotas = _quotas(self.sources)
        self._order, self._turns = _period(self._quotas)
        self._sizes = np.array([len(source.rows) for source in self.sources], dtype=np.int64)

    @property
    def length(self) -> int:
        """Tokens of a row at most."""
        return self.sources[0].rows.length

    @property
    def shares(self) -> tuple[float, ...]:
        """The part of all rows that each source has; they sum to 1."""
        return tuple((self._quotas / len(self._order)).tolist())

    @property
    def tokens_per_row(self) -> float:
        """Mean real tokens of a row."""
        return sum(share * source.rows.tokens_per_row for share, source in zip(self.shares, self.sources, strict=True))

    def at(self, numbers: Ints) -> Picks:
        """What stands at `numbers`, int64 [n], of the rows of the run, counted from 0."""
        periods, places = np.divmod(numbers, len(self._order))
        sources = self._order[places]
        epochs, within = np.divmod(periods * self._quotas[sources] + self._turns[places], self._sizes[sources])
        # one key for each epoch of a source that occurs, then everything for all rows at once
        codes, which = np.unique(epochs * len(self.sources) + sources, return_inverse=True)
        met = [(self.sources[code % len(self.sources)].seed, code // len(self.sources)) for code in codes.tolist()]
        orders, noises = (np.array([key(*each) for each in met], dtype=np.uint64)[which] for key in (order_key, noise_key))
        rows = permuted(within, self._sizes[sources], orders)
        return Picks(sources, rows, rows.astype(np.uint64) ^ noises)

    def epochs(self, count: int) -> dict[str, float]:
        """By name, how often the rows of each source are seen in the first `count` rows of the run."""
        periods, rest = divmod(count, len(self._order))
        seen = periods * self._quotas + np.bincount(self._order[:rest], minlength=len(self.sources))
        return {source.name: float(epochs) for source, epochs in zip(self.sources, seen / self._sizes, strict=True)}

    def require_rows(self, batch_rows: int) -> None:
        """Raises E-D240 where a source does not fill one row, or has fewer rows than its share of a batch."""
        for source, quota in zip(self.sources, self._quotas.tolist(), strict=True):
            count, length, whole = len(source.rows), source.rows.length, quota == len(self._order)
            if count * len(self._order) < quota * batch_rows:
                share = "" if whole else "its share of "
                cause = f"{count} rows of {length} tokens are fewer than {share}one batch of {batch_rows} rows"
            elif count * source.rows.tokens_per_row < length:
                cause = f"its text does not fill one row of {length} tokens"
            else:
                continue
            fix = f"add text, or give a smaller batch or shorter rows{'' if whole else ', or less weight'}"
            raise ElectraError("E-D240", source.name if whole else f"source {source.name}", cause, fix)


def _quotas(sources: Sequence[Source]) -> Ints:
    """int64 [sources]: rows of each in a period, by largest remainders, without a common divisor."""
    weights = np.array([source.weight for source in sources], dtype=np.float64)
    wanted = weights / weights.sum() * PERIOD
    quotas = np.floor(wanted).astype(np.int64)
    quotas[np.argsort(quotas - wanted, kind="stable")[: PERIOD - quotas.sum()]] += 1
    for source, quota in zip(sources, quotas.tolist(), strict=True):
        if not quota:
            cause = f"its weight gives it less than one row in {PERIOD:,}"
            raise ElectraError("E-D471", f"source {source.name}", cause, "raise its weight or the temperature, or leave it out")
    least: Ints = quotas // np.gcd.reduce(quotas)
    return least


def _period(quotas: Ints) -> tuple[Ints, Ints]:
    """The source at each place of a period, and how many rows of that source come before: int64 [sum of `quotas`] both."""
    size, wanted = int(quotas.sum()), quotas.tolist()
    order, turns = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)
    came = [0] * len(wanted)
    later = [(0, source) for source in range(len(wanted))]  # (begin, source) of rows that may not come yet
    due: list[tuple[int, int]] = []  # (end, source) of rows that may
    for place in range(size):
        while later and later[0][0] <= place:
            source = heapq.heappop(later)[1]
            heapq.heappush(due, (-(-(came[source] + 1) * size // wanted[source]), source))
        source = heapq.heappop(due)[1]
        order[place], turns[place] = source, came[source]
        came[source] += 1
        if came[source] < wanted[source]:
            heapq.heappush(later, (came[source] * size // wanted[source], source))
    return order, turns
