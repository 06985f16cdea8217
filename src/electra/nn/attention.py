"""Attention, and the one place that knows layouts and kernels.

In: queries, keys and values as [B, L, H, D] (`Padded`) or [T, H, D] (`Packed`), and a `Reach`: who may attend to whom.
Out: mixed values of the same shape. A `Reach` is made once per batch and window and used by every layer, so that no layer
builds a mask again.

    Padded, CPU, rows up to 256 or any row with dropout: two matrix products and a softmax. The CPU flash kernel's backward
        takes 2-3 times as long there. The softmax kernel adds in fp32 whatever the type of the scores.
    Padded otherwise: torch's scaled_dot_product_attention with a boolean mask.
    Packed, CUDA, half precision, no dropout: torch's varlen attention, which needs no mask.
    Packed otherwise: the documents are laid out as padded rows, attended, and packed again. It is the reference of the
        varlen kernel and what a CPU does.

Shapes: B rows, L positions, T packed tokens, N documents, M longest document, H heads, D head size.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from electra.contracts import Layout, Packed, Padded
from electra.nn.layers import dropout as drop

#: rows up to this length take the matrix-product path on a CPU
_SHORT = 256


class Reach:
    """Who may attend to whom in a batch, for one window.

    Args:
        layout: documents and padding of the batch.
        window: a token sees tokens at most `window // 2` away (ModernBERT's `local_attention`); None = no limit.
    """

    def __init__(self, layout: Layout, window: int | None = None) -> None:
        self.layout = layout
        self.half = None if window is None else window // 2
        self._biases: dict[torch.dtype, Tensor] = {}

    @cached_property
    def mask(self) -> Tensor | None:
        """bool, broadcastable to [B, H, L, L], True = may attend; None where everything may. Every token sees itself."""
        assert isinstance(self.layout, Padded)
        length = self.layout.segments.shape[1]
        if self.half is None or self.half >= length - 1:
            return self.layout.mask
        index = torch.arange(length, device=self.layout.segments.device)
        near = ((index[:, None] - index[None, :]).abs() <= self.half)[None, None]
        return near if self.layout.mask is None else self.layout.mask & near

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        """`mask` as something to add to scores: 0 or -inf. Adding costs the backward pass nothing; filling would."""
        if self.mask is None:
            return None
        if dtype not in self._biases:
            zeros = torch.zeros(self.mask.shape, dtype=dtype, device=self.mask.device)
            self._biases[dtype] = zeros.masked_fill_(~self.mask, float("-inf"))
        return self._biases[dtype]

    @cached_property
    def unpacked(self) -> _Unpacked:
        """A packed batch as padded rows, one document a row."""
        assert isinstance(self.layout, Packed)
        return _Unpacked(self.layout, None if self.half is None else 2 * self.half)


class _Unpacked:
    """Index maps between [T] and [N, M], and the reach of the padded rows."""

    def __init__(self, layout: Packed, window: int | None) -> None:
        starts_N, lengths_N = layout.cu_seqlens[:-1].long(), layout.cu_seqlens.diff()
        column_M = torch.arange(layout.max_seqlen, device=starts_N.device)
        real_NM = column_M[None, :] < lengths_N[:, None]
        self.token_NM = torch.where(real_NM, starts_N[:, None] + column_M, 0)
        self.slot_T = real_NM.flatten().nonzero()[:, 0]
        self.reach = Reach(Padded(segments=real_NM.int() - 1), window)


def attend(q: Tensor, k: Tensor, v: Tensor, reach: Reach, *, dropout: float = 0.0) -> Tensor:
    """Scaled dot-product attention.

    Args:
        q, k, v: [B, L, H, D] or [T, H, D], as the layout of `reach` says.
        reach: who may attend to whom.
        dropout: probability that an attention weight is dropped; 0 outside training.

    Returns:
        The shape of `q`.
    """
    layout = reach.layout
    if isinstance(layout, Padded):
        if not q.is_cuda and (q.shape[1] <= _SHORT or dropout):
            return _attend_by_products(q, k, v, reach, dropout)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=reach.mask, dropout_p=dropout).transpose(1, 2)
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and not dropout:
        from torch.nn.attention.varlen import varlen_attn  # takes a second to import, and only CUDA has it

        window = (-1, -1) if reach.half is None else (reach.half, reach.half)
        cu, longest = layout.cu_seqlens, layout.max_seqlen
        mixed = varlen_attn(q, k, v, cu, cu, longest, longest, window_size=window)
        assert isinstance(mixed, Tensor)
        return mixed
    rows = reach.unpacked
    padded = attend(q[rows.token_NM], k[rows.token_NM], v[rows.token_NM], rows.reach, dropout=dropout)
    return padded.flatten(0, 1)[rows.slot_T]


def _attend_by_products(q: Tensor, k: Tensor, v: Tensor, reach: Reach, dropout: float) -> Tensor:
    q_BHLD = q.transpose(1, 2) * q.shape[-1] ** -0.5  # scaling the queries touches D / L of what scaling the scores would
    scores_BHLL = torch.matmul(q_BHLD, k.transpose(1, 2).transpose(2, 3))
    bias = reach.bias(scores_BHLL.dtype)
    if bias is not None:
        scores_BHLL = scores_BHLL + bias
    weights_BHLL = torch.softmax(scores_BHLL, dim=-1)
    return torch.matmul(drop(weights_BHLL, dropout), v.transpose(1, 2)).transpose(1, 2)
