"""Who may attend to whom in a batch: rows of equal length with padding, or documents one behind the other without.

Shapes: B rows, L positions of a row, T = tokens of a packed batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

#: which tokens of its document a token sees: all, those up to itself (left to right), or those from itself on (right to left)
Order = Literal["both", "forward", "backward"]


@dataclass(frozen=True, kw_only=True)
class Padded:
    """Rows of equal length, [B, L]. A token sees the tokens of its own row that carry the same segment number.

    Args:
        segments: int [B, L], the number of the document within the row; -1 marks padding.
        whole: every row is one document without padding, so that no mask of documents is needed.
        order: which of these tokens it sees.
    """

    segments: Tensor
    whole: bool = False
    order: Order = "both"

    @cached_property
    def mask(self) -> Tensor | None:
        """bool [B or 1, 1, L, L], True = may attend; None where all may. Padding attends to padding (rows stay finite)."""
        same = None if self.whole else (self.segments[:, None, :, None] == self.segments[:, None, None, :])
        if self.order == "both":
            return same
        length = self.segments.shape[1]
        every = torch.ones(1, 1, length, length, dtype=torch.bool, device=self.segments.device)
        seen = every.tril() if self.order == "forward" else every.triu()
        return seen if same is None else same & seen

    @cached_property
    def real(self) -> Tensor:
        """bool [B, L]: not padding."""
        return self.segments >= 0

    @cached_property
    def continued(self) -> Tensor:
        """bool [B, L]: the token before is of the same document."""
        same = torch.zeros_like(self.segments, dtype=torch.bool)
        same[:, 1:] = (self.segments[:, 1:] == self.segments[:, :-1]) & self.real[:, 1:]
        return same

    def to(self, device: torch.device | str) -> Padded:
        return replace(self, segments=self.segments.to(device, non_blocking=True))


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Documents one behind the other without padding, [T].

    Args:
        cu_seqlens: int32 [documents + 1], where each document starts; the last entry is T.
        max_seqlen: the longest document, in tokens.
        order: which tokens of its document a token sees.
    """

    cu_seqlens: Tensor
    max_seqlen: int
    order: Order = "both"

    @cached_property
    def real(self) -> Tensor:
        """bool [T]: all True."""
        return torch.ones(int(self.cu_seqlens[-1]), dtype=torch.bool, device=self.cu_seqlens.device)

    @cached_property
    def continued(self) -> Tensor:
        """bool [T]: the token before is of the same document."""
        return self.real.index_fill(0, self.cu_seqlens[:-1].long(), False)

    def to(self, device: torch.device | str) -> Packed:
        return replace(self, cu_seqlens=self.cu_seqlens.to(device, non_blocking=True))


Layout = Padded | Packed
