"""Which tokens make row i, and in which order an epoch visits the rows.

In comes a `Corpus` (shards of stored documents, each `[CLS] ... [SEP]`), out come rows as `Encoded`, by number.

Packed rows cut each shard's token stream every `length` tokens. A row that begins or ends inside a document holds a piece
of it; each piece is a segment of its own, and the rest goes on in the next row. Every stored token is in exactly one row,
no row crosses a shard, and only a shard's last row may be short. The row table is the shards' token counts: memory
and start cost are O(shards).

An epoch visits every row once, in an order that is a keyed permutation of the row numbers and never held in memory: a
generalised Feistel cipher on the smallest square that holds the numbers, walked until it lands inside (Black and Rogaway,
"Ciphers with arbitrary finite domains", 2002).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from electra.config import STRICT
from electra.contracts import Encoded, Examples, Noise
from electra.dist import fold_seed
from electra.errors import ElectraError
from electra.text.corpus import Corpus

_ROUNDS = 8  # four are the least that theory asks for; small squares mix better with more, and they cost microseconds


@dataclass(frozen=True, kw_only=True)
class PackedRowsConfig:
    """Documents one behind the other, cut every `length` tokens."""

    __pydantic_config__ = STRICT
    type: Literal["packed"] = "packed"
    length: int = 128

    def __post_init__(self) -> None:
        require_length(self.length)


def require_length(length: int) -> None:
    """Raises E-C240 for rows too short to hold anything."""
    if length < 5:
        raise ElectraError("E-C240", "rows.length", f"{length} tokens are too few for a row", "give at least 5")


class Rows(Examples, Protocol):
    """The rows of a corpus: at most `length` tokens each, `tokens_per_row` of them real on average."""

    @property
    def length(self) -> int: ...

    @property
    def tokens_per_row(self) -> float: ...


class PackedRows:
    """Row i is a slice of its shard's token stream; `segments` number the document pieces within the row from 0.

    Args:
        corpus: the stored documents.
        length: tokens of a row.
        words: give each row the target `word_starts`, bool [n]: which tokens begin a word.
    """

    def __init__(self, corpus: Corpus, length: int, *, words: bool = False) -> None:
        self.length = length
        self._corpus = corpus
        self._words = words
        self._tokens = np.array([shard.tokens for shard in corpus.shards], dtype=np.int64)
        self._first_row = running_start(-(-self._tokens // length))

    def __len__(self) -> int:
        return int(self._first_row[-1])

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """int64 [rows]: `length`, except for the last row of a shard."""
        lengths = np.full(len(self), self.length, dtype=np.int64)
        filled = self._tokens > 0
        lengths[self._first_row[1:][filled] - 1] = (self._tokens[filled] - 1) % self.length + 1
        return lengths

    @property
    def tokens_per_row(self) -> float:
        """Mean tokens of a row."""
        return float(self._tokens.sum()) / max(1, len(self))

    def __getitem__(self, index: int) -> Encoded:
        shard, row = locate(self._first_row, index)
        start = row * self.length
        stop = min(start + self.length, int(self._tokens[shard]))
        tokens = self._corpus.tokens(shard, start, stop).astype(np.int64)
        segments = np.zeros(stop - start, dtype=np.int64)
        segments[self._corpus.document_starts(shard, start, stop) - start] = 1
        targets = {"word_starts": self._corpus.word_starts(shard, start, stop)} if self._words else {}
        return Encoded(tokens=tokens, types=np.zeros_like(tokens), segments=np.cumsum(segments), targets=targets)


def running_start(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64 [n + 1]: where each of n consecutive groups of `counts` items starts; the last entry is the total."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])


def locate(starts: npt.NDArray[np.int64], index: int) -> tuple[int, int]:
    """The group that item `index` lies in and its number there, after `running_start`.

    Raises:
        IndexError: no such item.
    """
    if not 0 <= index < starts[-1]:
        raise IndexError(f"{index} is not in 0..{starts[-1] - 1}")
    group = int(np.searchsorted(starts, index, side="right")) - 1
    return group, index - int(starts[group])


def epoch_order(places: npt.NDArray[np.int64], size: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Which items stand at `places` of an epoch that visits each of range(size) once.

    Args:
        places: int64 [n], each in range(size).
        size: number of items, up to 2**48.
        seed, epoch: the key; another key gives an unrelated order.

    Returns:
        int64 [n]; over all places a permutation of range(size).
    """
    sizes = np.full(len(places), size, dtype=np.int64)
    return permuted(places, sizes, np.full(len(places), order_key(seed, epoch), dtype=np.uint64))


def permuted(
    places: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """As `epoch_order` for places of several epochs at once: int64, int64 and uint64 [n], each place with its size and key."""
    sides = np.array([math.isqrt(max(0, size - 1)) + 1 for size in sizes.tolist()], dtype=np.int64)
    items = _shuffle(places, sides, keys)
    while (outside := items >= sizes).any():
        items[outside] = _shuffle(items[outside], sides[outside], keys[outside])
    return items


def order_key(seed: int, epoch: int) -> int:
    """The key of the order of an epoch."""
    return fold_seed(seed, "order", epoch)


def noise_key(seed: int, epoch: int) -> int:
    """The key of the noise of an epoch; `^` the number of an item it is the key of that item's noise."""
    return fold_seed(seed, "noise", epoch)


def _shuffle(
    places: npt.NDArray[np.int64], sides: npt.NDArray[np.int64], keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """A keyed permutation of range(side**2): each round adds a hash of one coordinate to the other."""
    left, right = np.divmod(places, sides)
    for turn in range(_ROUNDS):
        uniform = Noise(right.astype(np.uint64) ^ keys).uniform(f"order-{turn}", 1)[:, 0]
        shift = (uniform.astype(np.float64) * sides).astype(np.int64)
        left, right = right, (left + shift) % sides
    return left * sides + right
