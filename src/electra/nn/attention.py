"""Attention, and the one place that knows layouts and kernels.

In: queries, keys and values as [B, L, 3, H, D] (`Padded`) or [T, 3, H, D] (`Packed`), and a `Reach`: who may attend to whom.
Out: mixed values, [B, L, H, D] or [T, H, D]. A `Reach` is made once per batch and window and used by every layer, so that no
layer builds a mask again.

    Padded, CPU, rows up to 256 or any row with dropout, outside of inference mode: two matrix products and a softmax. The CPU
        flash kernel's backward takes 2-3 times as long there. The softmax kernel adds in fp32 whatever the type of the scores.
    Padded otherwise, and in graphs that are exported: torch's scaled_dot_product_attention with a boolean mask.
    Packed, CUDA, half precision, no dropout: torch's varlen attention, which needs no mask.
    Packed otherwise, where documents of equal length stand side by side: each such run is padded rows without padding, and
        needs neither copy nor mask.
    Packed otherwise: the documents are laid out as padded rows, attended, and packed again. It is the reference of the others.

Shapes: B rows, L positions, T packed tokens, N documents, M longest document, H heads, D head size.
"""

from __future__ import annotations

from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from electra.contracts import Layout, Packed, Padded
from electra.nn.layers import Rotary, draw_kept, masked_bits

#: rows up to this length take the matrix-product path on a CPU
_SHORT = 256
#: tokens that a run of documents of equal length must have in the mean, or the documents are laid out as padded rows
_RUN = 16


class Reach:
    """Who may attend to whom in a batch, for one window.

    Args:
        layout: documents and padding of the batch.
        window: a token sees tokens at most `window // 2` away (ModernBERT's `local_attention`); None = no limit.
        rotary: turns queries and keys by their positions; None = they are not turned.
    """

    def __init__(self, layout: Layout, window: int | None = None, rotary: Rotary | None = None) -> None:
        self.layout, self.rotary = layout, rotary
        self.window, self.half = window, None if window is None else window // 2
        self._biases: dict[torch.dtype, Tensor] = {}

    @cached_property
    def mask(self) -> Tensor | None:
        """bool, broadcastable to [B, H, L, L], True = may attend; None where everything may. Every token sees itself."""
        assert isinstance(self.layout, Padded)
        length = self.layout.segments.shape[1]
        # the mask of an exported graph is one for rows of any length
        if self.half is None or (not torch.compiler.is_exporting() and self.half >= length - 1):
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
    def runs(self) -> list[_Run] | None:
        """A packed batch as documents of equal length side by side; None where these runs are short, so many calls."""
        assert isinstance(self.layout, Packed)
        lengths = [(length, len(list(equal))) for length, equal in groupby(self.layout.cu_seqlens.diff().tolist())]
        if _RUN * len(lengths) > int(self.layout.cu_seqlens[-1]):
            return None
        runs, start = [], 0
        for length, count in lengths:
            tokens, start = slice(start, start + count * length), start + count * length
            segments = self.layout.cu_seqlens.new_zeros(1, length).expand(count, length)
            rows = Padded(segments=segments, whole=True, order=self.layout.order)
            rotary = None if self.rotary is None else self.rotary.rows(tokens, length)
            runs.append(_Run(tokens, count, Reach(rows, self.window, rotary)))
        return runs

    @cached_property
    def unpacked(self) -> _Unpacked:
        """A packed batch as padded rows, one document a row."""
        assert isinstance(self.layout, Packed)
        return _Unpacked(self.layout, self.window, self.rotary)

    def turn(self, x: Tensor) -> Tensor:
        """Queries or keys, [B, H, L, D] or [T, H, D], turned by their positions."""
        return x if self.rotary is None else self.rotary.turn(x)


class _Run(NamedTuple):
    """Documents of equal length side by side: their tokens, how many there are, and their reach as padded rows."""

    tokens: slice
    documents: int
    reach: Reach


class _Unpacked:
    """Index maps between [T] and [N, M], and the reach of the padded rows."""

    def __init__(self, layout: Packed, window: int | None, rotary: Rotary | None) -> None:
        starts_N, lengths_N = layout.cu_seqlens[:-1].long(), layout.cu_seqlens.diff()
        column_M = torch.arange(layout.max_seqlen, device=starts_N.device)
        real_NM = column_M[None, :] < lengths_N[:, None]
        self.token_NM = torch.where(real_NM, starts_N[:, None] + column_M, 0)
        self.slot_T = real_NM.flatten().nonzero()[:, 0]
        placed = None if rotary is None else rotary.at(self.token_NM)
        self.reach = Reach(Padded(segments=real_NM.int() - 1, order=layout.order), window, placed)


def attend(qkv: Tensor, reach: Reach, *, dropout: float = 0.0) -> Tensor:
    """Scaled dot-product self-attention.

    Args:
        qkv: queries, keys and values, [B, L, 3, H, D] or [T, 3, H, D], as the layout of `reach` says; on a CPU also more
            tokens than a packed layout has documents for, which attend to nothing and get 0.
        reach: who may attend to whom.
        dropout: probability that an attention weight is dropped; 0 outside training.

    Returns:
        [B, L, H, D] or [T, H, D].
    """
    layout = reach.layout
    if isinstance(layout, Padded):
        apart = torch.is_inference_mode_enabled() or torch.compiler.is_exporting()
        if not qkv.is_cuda and (dropout or not (apart or qkv.shape[1] > _SHORT)):
            mixed: Tensor = _Products.apply(qkv, reach.bias(qkv.dtype), reach.rotary, dropout)  # type: ignore[no-untyped-call]
            return mixed
        q, k, v = qkv.transpose(1, 3).unbind(2)
        q, k = reach.turn(q), reach.turn(k)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=reach.mask, dropout_p=dropout).transpose(1, 2)
    if qkv.is_cuda and qkv.dtype in (torch.bfloat16, torch.float16) and not dropout:
        from torch.nn.attention.varlen import varlen_attn  # takes a second to import, and only CUDA has it

        side = -1 if reach.half is None else reach.half
        window = (0 if layout.order == "backward" else side, 0 if layout.order == "forward" else side)
        cu, longest = layout.cu_seqlens, layout.max_seqlen
        q, k, v = qkv.unbind(1)
        packed = varlen_attn(reach.turn(q), reach.turn(k), v, cu, cu, longest, longest, window_size=window)
        assert isinstance(packed, Tensor)
        return packed
    if reach.runs is None:
        rows = reach.unpacked
        mixed = attend(qkv[rows.token_NM], rows.reach, dropout=dropout).flatten(0, 1)[rows.slot_T]
    else:
        parts = [
            attend(qkv[run.tokens].view(run.documents, -1, *qkv.shape[1:]), run.reach, dropout=dropout).flatten(0, 1)
            for run in reach.runs
        ]
        mixed = torch.cat(parts)
    beyond = len(qkv) - len(mixed)
    return F.pad(mixed, (0, 0, 0, 0, 0, beyond)) if beyond else mixed


class _Products(torch.autograd.Function):
    """softmax(q k^T / sqrt(D) + bias) v with its gradient: what autograd would do, with fewer copies.

    Queries, keys and values are laid out once as [3, N, L, D], N = B * H, and turned there; products scale as they multiply.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias_B1LL: Tensor | None, rotary: Rotary | None, dropout: float) -> Tensor:
        rows, length, _, heads, size = qkv.shape
        qkv_3BHLD = qkv.permute(2, 0, 3, 1, 4).contiguous()
        if rotary is not None:
            qkv_3BHLD[:2] = rotary.turn(qkv_3BHLD[:2])
        ctx.rotary = rotary
        q_NLD, k_NLD, v_NLD = qkv_3BHLD.view(3, rows * heads, length, size)
        scores_NLL = _scaled_product(q_NLD, k_NLD.mT, size**-0.5)
        if bias_B1LL is not None:
            scores_NLL.view(rows, heads, length, length).add_(bias_B1LL)
        weights_NLL = torch.softmax(scores_NLL, dim=-1)
        kept_NLL, ctx.factor = draw_kept(weights_NLL, dropout) if dropout else (None, 1.0)
        used_NLL = weights_NLL if kept_NLL is None else masked_bits(weights_NLL, kept_NLL)
        ctx.save_for_backward(q_NLD, k_NLD, v_NLD, weights_NLL, used_NLL, kept_NLL)
        return _scaled_product(used_NLL, v_NLD, ctx.factor).view(rows, heads, length, size).transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        q_NLD, k_NLD, v_NLD, weights_NLL, used_NLL, kept_NLL = ctx.saved_tensors
        rows, length, heads, size = grads[0].shape
        grad_NLD = grads[0].transpose(1, 2).reshape(q_NLD.shape)
        grad_qkv_3NLD = q_NLD.new_empty(3, *q_NLD.shape)
        _scaled_product(used_NLL.mT, grad_NLD, ctx.factor, out=grad_qkv_3NLD[2])
        grad_NLL = _scaled_product(grad_NLD, v_NLD.mT, ctx.factor)
        if kept_NLL is not None:
            grad_NLL = masked_bits(grad_NLL, kept_NLL)
        grad_NLL = torch._softmax_backward_data(grad_NLL, weights_NLL, -1, weights_NLL.dtype)
        _scaled_product(grad_NLL, k_NLD, size**-0.5, out=grad_qkv_3NLD[0])
        _scaled_product(grad_NLL.mT, q_NLD, size**-0.5, out=grad_qkv_3NLD[1])
        grad_3BHLD = grad_qkv_3NLD.view(3, rows, heads, length, size)
        if ctx.rotary is not None:
            grad_3BHLD[:2] = ctx.rotary.turn(grad_3BHLD[:2], back=True)
        return grad_3BHLD.permute(1, 3, 0, 2, 4), None, None, None


def _scaled_product(left: Tensor, right: Tensor, factor: float, out: Tensor | None = None) -> Tensor:
    """factor * (left x right), batched, without a pass of its own for the factor."""
    return torch.baddbmm(left.new_empty(()), left, right, beta=0, alpha=factor, out=out)
