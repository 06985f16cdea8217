"""The vocabulary softmax at the drawn positions: loss, gradient and samples in one pass over the largest tensor of a step.

In: a transformed hidden state for each drawn position, the token table and the bias. Out: the cross entropy against the
original token, whether that was the most likely one, and, where a random number is given, a sampled token and its own negative
log-probability, which has a gradient, too (policy gradients need it).

The logits are one matrix product. They are then read once, a few rows at a time so that the rows stay in the cores' caches:
made fp32, shifted by their maximum, exponentiated, summed. Everything else comes from there: the loss is log(sum) - logit, a
sample is the inverse of the cumulated exponentials, and what the backward pass needs is kept in the type of the logits, not
normalised. The gradient (softmax - one-hot) is never written down: its factors scale the two small matrices of the backward
products, and the one-hot part is a lookup; so a second token a position, the sampled one, costs a second lookup and no second
softmax. Samples are drawn in fp32: half-precision sampling noise is wrong.

At all tokens of a batch the logits would be too large to keep: `guess_in_parts` takes some positions at a time and makes their
logits anew in the backward pass.

Shapes: N drawn positions, E embedding size, V vocabulary, K blocks of the vocabulary, W their width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

#: rows of logits that are read at once: 16 x 30,522 fp32 values stay in two cores' second-level caches, so there are more of a
#: smaller vocabulary; a GPU wants many more
_CPU_VALUES, _GPU_ROWS = 16 * 30_522, 1024
#: tokens whose exponentials are summed before they are cumulated (W)
_BLOCK = 256
#: positions whose logits exist at once in `guess_in_parts`: 2,048 x 30,522 of them are 125 MB in bf16
PART = 2048


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What a masked language model says at N positions.

    Args:
        nll_N: fp32, cross entropy against the original token, in nats, with gradient.
        correct_N: bool, no token is more likely than the original.
        sampled_N: int64, a token drawn from the distribution; None where no random numbers were given.
        sampled_nll_N: fp32, cross entropy against the sampled token, with gradient; its mean over many samples of temperature 1
            is the entropy of the distribution. None where no random numbers were given.
    """

    nll_N: Tensor
    correct_N: Tensor
    sampled_N: Tensor | None
    sampled_nll_N: Tensor | None


def guess(
    hidden_NE: Tensor,
    table_VE: Tensor,
    bias_V: Tensor,
    target_N: Tensor,
    uniform_N: Tensor | None = None,
    temperature: float = 1.0,
) -> Guess:
    """Loss and sample at every position.

    Args:
        hidden_NE: transformed hidden states.
        table_VE, bias_V: logits = hidden x table^T + bias, in autocast's type where it is on.
        target_N: int64, the original tokens.
        uniform_N: fp32 in [0, 1), one number for each sample.
        temperature: the logits are divided by it for sampling; the loss does not see it.
    """
    device = hidden_NE.device.type
    compute = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_NE.dtype
    with torch.autocast(device, enabled=False):
        nll_N, correct_N, sampled_N, sampled_nll_N = _Guess.apply(  # type: ignore[no-untyped-call]
            hidden_NE.to(compute), table_VE, bias_V, target_N, uniform_N, temperature
        )
    if uniform_N is None:
        return Guess(nll_N=nll_N, correct_N=correct_N, sampled_N=None, sampled_nll_N=None)
    return Guess(nll_N=nll_N, correct_N=correct_N, sampled_N=sampled_N, sampled_nll_N=sampled_nll_N)


def guess_in_parts(
    hidden_NE: Tensor, table_VE: Tensor, bias_V: Tensor, target_N: Tensor, uniform_N: Tensor | None = None, size: int = PART
) -> Guess:
    """As `guess` at temperature 1, with the logits of `size` positions in memory; the backward pass computes them again."""
    if len(hidden_NE) <= size:
        return guess(hidden_NE, table_VE, bias_V, target_N, uniform_N)
    parts = [
        checkpoint(
            guess, hidden_NE[part], table_VE, bias_V, target_N[part], None if uniform_N is None else uniform_N[part],
            use_reentrant=False, preserve_rng_state=False,
        )
        for part in (slice(begin, begin + size) for begin in range(0, len(hidden_NE), size))
    ]  # fmt: skip
    nll, correct, sampled, sampled_nll = (
        [getattr(part, name) for part in parts] for name in ("nll_N", "correct_N", "sampled_N", "sampled_nll_N")
    )
    return Guess(
        nll_N=torch.cat(nll), correct_N=torch.cat(correct), sampled_N=None if uniform_N is None else torch.cat(sampled),
        sampled_nll_N=None if uniform_N is None else torch.cat(sampled_nll),
    )  # fmt: skip


class _Guess(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NE: Tensor,
        table_VE: Tensor,
        bias_V: Tensor,
        target_N: Tensor,
        uniform_N: Tensor | None,
        temperature: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        compute = hidden_NE.dtype
        low_VE = table_VE.to(compute)
        exponential_NV = hidden_NE @ low_VE.t()  # logits at first; the bias is added in fp32, where they are in a cache
        count, size = exponential_NV.shape
        rows = _GPU_ROWS if hidden_NE.is_cuda else max(1, _CPU_VALUES // size)
        exact = torch.promote_types(compute, torch.float32)
        # zeros beyond the vocabulary fill up the last block
        buffer = hidden_NE.new_zeros(min(rows, count), -(-size // _BLOCK) * _BLOCK, dtype=exact)
        total_N, shifted_N = (hidden_NE.new_empty(count, dtype=exact) for _ in range(2))
        weight_N = torch.ones_like(total_N)
        sampled_N = torch.empty_like(target_N)
        for begin in range(0, count, rows):
            part = slice(begin, min(begin + rows, count))
            padded = buffer[: part.stop - begin]
            exponential = padded[:, :size].copy_(exponential_NV[part]).add_(bias_V)
            exponential.sub_(exponential.amax(1, keepdim=True))
            shifted_N[part] = exponential.gather(1, target_N[part, None])[:, 0]
            exponential.exp_()
            exponential_NV[part] = exponential
            sums_NK = padded.view(len(padded), -1, _BLOCK).sum(-1)
            total_N[part] = sums_NK.sum(-1)
            if uniform_N is not None:
                if temperature != 1.0:
                    exponential.pow_(1.0 / temperature)
                    sums_NK = padded.view(len(padded), -1, _BLOCK).sum(-1)
                sampled_N[part] = _sample(padded, sums_NK, uniform_N[part]).clamp_(max=size - 1)
                weight_N[part] = exponential.gather(1, sampled_N[part, None])[:, 0]
        ctx.save_for_backward(hidden_NE, low_VE, exponential_NV, total_N, target_N, sampled_N)
        ctx.types = table_VE.dtype, bias_V.dtype
        ctx.set_materialize_grads(False)
        correct_N = shifted_N == 0
        ctx.mark_non_differentiable(correct_N, sampled_N)
        log_total_N = total_N.log()
        # what was drawn has some weight; should rounding ever draw a token of none, its logarithm stays finite
        sampled_nll_N = log_total_N - temperature * weight_N.clamp_min(torch.finfo(exact).tiny).log()
        return log_total_N - shifted_N, correct_N, sampled_N, sampled_nll_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden_NE, table_VE, exponential_NV, total_N, target_N, sampled_N = ctx.saved_tensors
        table_type, bias_type = ctx.types
        # the losses of one position share their softmax, and differ in the token that is taken off it
        losses = [(index_N, grad_N) for index_N, grad_N in ((target_N, grads[0]), (sampled_N, grads[3])) if grad_N is not None]
        scale_N1 = (sum(grad_N for _, grad_N in losses) / total_N)[:, None]
        grad_hidden_NE = (exponential_NV @ table_VE) * scale_N1.to(table_VE.dtype)
        grad_table_VE = (exponential_NV.t() @ (hidden_NE * scale_N1.to(hidden_NE.dtype))).to(table_type)
        grad_bias_V = (exponential_NV.t() @ scale_N1.to(exponential_NV.dtype))[:, 0].to(bias_type)
        for index_N, grad_N in losses:
            one_hot_N1 = grad_N[:, None]
            grad_hidden_NE -= table_VE.index_select(0, index_N) * one_hot_N1.to(table_VE.dtype)
            grad_table_VE.index_add_(0, index_N, (hidden_NE.to(total_N.dtype) * one_hot_N1).to(table_type), alpha=-1)
            grad_bias_V.index_add_(0, index_N, grad_N.to(bias_type), alpha=-1)
        return grad_hidden_NE, grad_table_VE, grad_bias_V, None, None, None


def _sample(weight_NV: Tensor, sums_NK: Tensor, uniform_N: Tensor) -> Tensor:
    """One token a row by inverse CDF: the first whose cumulated weight exceeds u times the total.

    Found in two steps, first the block, then the token in it, so that K + W weights are cumulated instead of V.

    Args:
        weight_NV: fp32 [N, K * W], not negative, need not sum to one.
        sums_NK: fp32, their sums over blocks.
        uniform_N: fp32 in [0, 1).
    """
    cumulated_NK = sums_NK.cumsum(-1)
    threshold_N1 = uniform_N[:, None] * cumulated_NK[:, -1:]
    block_N1 = torch.searchsorted(cumulated_NK, threshold_N1, right=True).clamp_(max=sums_NK.shape[1] - 1)
    rest_N1 = (threshold_N1 - (cumulated_NK - sums_NK).gather(1, block_N1)).clamp_(min=0)
    index_NW = block_N1 * _BLOCK + torch.arange(_BLOCK, device=weight_NV.device)
    cumulated_NW = weight_NV.gather(1, index_NW).cumsum(-1)
    # a block's own running sum may round to less than what is left of the threshold; its last weight still is in it
    largest_N1 = torch.nextafter(cumulated_NW[:, -1:], cumulated_NW.new_zeros(()))
    within_N1 = torch.searchsorted(cumulated_NW, torch.minimum(rest_N1, largest_N1), right=True)
    return (block_N1 * _BLOCK + within_N1)[:, 0]
