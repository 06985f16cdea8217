"""Rows of numbers side by side in numpy, and how they become a `Batch`, padded or packed.

Shapes: B rows, L positions, T tokens without padding, K drawn positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from electra.contracts import Batch, Encoded, Layout, Packed, Padded

Array = npt.NDArray[np.generic]
T = TypeVar("T", bound=np.generic)

_NO_LABEL = -100  # what torch's losses ignore


@dataclass(frozen=True, kw_only=True)
class Grid:
    """B rows of numbers side by side, [B, L], in numpy.

    Args:
        tokens, types: int64 [B, L].
        segments: int64 [B, L], number of the document within the row; -1 marks padding.
        packed: whether `batch` removes the padding.
    """

    tokens: npt.NDArray[np.int64]
    types: npt.NDArray[np.int64]
    segments: npt.NDArray[np.int64]
    packed: bool

    @classmethod
    def of(cls, items: Sequence[Encoded], length: int, pad_id: int, packed: bool = False) -> Grid:
        """The items as rows of `length`, none of them longer."""
        shape = (len(items), length)
        tokens, types, segments = (
            np.full(shape, pad_id, dtype=np.int64),
            np.zeros(shape, np.int64),
            np.full(shape, -1, np.int64),
        )
        for row, item in enumerate(items):
            size = len(item.tokens)
            tokens[row, :size] = item.tokens
            types[row, :size] = item.types
            segments[row, :size] = 0 if item.segments is None else item.segments
        return cls(tokens=tokens, types=types, segments=segments, packed=packed)

    @cached_property
    def real(self) -> npt.NDArray[np.bool_]:
        """bool [B, L]: not padding."""
        return self.segments >= 0

    @cached_property
    def first(self) -> npt.NDArray[np.bool_]:
        """bool [B, L]: a segment (or the padding) begins here."""
        first = np.ones(self.segments.shape, dtype=np.bool_)
        np.not_equal(self.segments[:, 1:], self.segments[:, :-1], out=first[:, 1:])
        return first

    @cached_property
    def positions(self) -> npt.NDArray[np.int64]:
        """int64 [B, L]: the position within the segment; 0 in padding."""
        columns = np.arange(self.tokens.shape[1])
        begun = np.maximum.accumulate(np.where(self.first, columns, 0), axis=1)
        return np.where(self.real, columns - begun, 0)

    @cached_property
    def index(self) -> npt.NDArray[np.int64]:
        """int64 [B, L]: where each real token stands in the `tokens.view(-1)` of the batch."""
        flat = np.cumsum(self.real) - 1 if self.packed else np.arange(self.tokens.size)
        return flat.reshape(self.tokens.shape)

    def flat(self, array: Array) -> Array:
        """An array of one item per token, [B, L], without its padding where the grid is packed, [T]."""
        return array[self.real] if self.packed else array

    def batch(self, targets: Mapping[str, Array], counts: Mapping[str, float]) -> Batch:
        """The rows as a `Batch`, with targets taken as they are and the counts `rows` and `tokens` added."""
        return Batch(
            tokens=torch.from_numpy(self.flat(self.tokens)),
            positions=torch.from_numpy(self.flat(self.positions)),
            types=torch.from_numpy(self.flat(self.types)),
            layout=self._layout(),
            targets={name: torch.from_numpy(array) for name, array in targets.items()},
            counts={"rows": float(len(self.tokens)), "tokens": float(self.real.sum()), **counts},
        )

    def _layout(self) -> Layout:
        if not self.packed:
            whole = bool((self.segments == 0).all())
            return Padded(segments=torch.from_numpy(self.segments), whole=whole)
        bounds = np.append(self.index[self.first & self.real], int(self.real.sum())).astype(np.int32)
        return Packed(cu_seqlens=torch.from_numpy(bounds), max_seqlen=int(np.diff(bounds).max()))


def collate(items: Sequence[Encoded], length: int, pad_id: int, packed: bool = False) -> Batch:
    """The items as one `Batch` of rows of `length`, none of them longer, with their targets.

    Targets of shape [] become [B]; targets of shape [n], one per token, become [B, L] filled up with -100 (whole numbers)
    or 0 (others), or [T] where `packed`; targets of shape [1, K] become [B, longest K], filled up alike. Floats become float32.
    Counts: `rows`, `examples`, `tokens`, and of each target of whole numbers how many are not -100, under its name.
    """
    grid = Grid.of(items, length, pad_id, packed)
    targets = {name: _stack([item.targets[name] for item in items], grid) for name in items[0].targets}
    counts = {name: float((array != _NO_LABEL).sum()) for name, array in targets.items() if array.dtype == np.int64}
    return grid.batch(targets, {**counts, "examples": float(len(items))})


def _stack(arrays: Sequence[Array], grid: Grid) -> Array:
    kind = arrays[0].dtype
    dtype = (
        np.dtype(np.int64) if np.issubdtype(kind, np.integer) else np.dtype(bool) if kind == np.bool_ else np.dtype(np.float32)
    )
    if arrays[0].ndim == 0:
        return np.array(arrays, dtype=dtype)
    filling = _NO_LABEL if dtype == np.int64 else 0
    if arrays[0].ndim == 2:
        widest = np.full((len(arrays), max(array.shape[1] for array in arrays)), filling, dtype=dtype)
        return filled(widest, [array[0] for array in arrays])
    return grid.flat(filled(np.full(grid.tokens.shape, filling, dtype=dtype), arrays))


def filled(padding: npt.NDArray[T], arrays: Sequence[Array]) -> npt.NDArray[T]:
    """`padding` [B, L] with an array at the beginning of each row."""
    for row, array in enumerate(arrays):
        padding[row, : len(array)] = array
    return padding
