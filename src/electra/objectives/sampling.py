"""From vocabulary logits to a loss and to samples, in one pass over the largest tensor of a step.

N drawn positions, V vocabulary. The softmax is computed once in fp32; the cross entropy, its gradient and the inverse-CDF
sample all read it. Half-precision sampling noise would be wrong (ELECTRA_SPEC, pre-training step).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Rows of the vocabulary softmax that are summed up at once: 16 x 30,522 fp32 values stay in a core's second-level cache.
_ROWS_AT_ONCE = 16


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor]:
        probability_NV = torch.softmax(logits_NV, dim=-1, dtype=torch.float32)
        picked_N = probability_NV.gather(1, target_N[:, None])[:, 0]
        # the gradient has the type of the logits, and so has what is kept for it: half of the memory under bf16
        ctx.save_for_backward(probability_NV.to(logits_NV.dtype), target_N)
        ctx.mark_non_differentiable(probability_NV)
        # a softmax can underflow to 0 where a log-softmax would not; 1e-38 is the smallest normal number of fp32
        return -torch.log(picked_N.clamp_min(1e-38)), probability_NV

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        probability_NV, target_N = ctx.saved_tensors
        grad_N1 = grads[0][:, None].to(probability_NV.dtype)
        grad_NV = probability_NV * grad_N1
        grad_NV.scatter_add_(1, target_N[:, None], -grad_N1)
        return grad_NV, None


def cross_entropy(logits_NV: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy of each position and the probabilities it was read from.

    Returns:
        nll_N: fp32 [N], with gradient to the logits.
        probability_NV: fp32 [N, V], without gradient.
    """
    nll_N, probability_NV = _CrossEntropy.apply(logits_NV, target_N)  # type: ignore[no-untyped-call]
    return nll_N, probability_NV


@torch.no_grad()
def sample(probability_NV: Tensor, uniform_N: Tensor) -> Tensor:
    """One token for each row by inverse CDF: the first v with cumsum[v] > u * cumsum[-1].

    Args:
        probability_NV: fp32 [N, V], need not sum to one.
        uniform_N: fp32 [N] in [0, 1).

    Returns:
        int64 [N].
    """
    sampled = []
    for probability, uniform in zip(*(torch.split(x, _ROWS_AT_ONCE) for x in (probability_NV, uniform_N)), strict=True):
        cumulative = torch.cumsum(probability, dim=-1)
        threshold = uniform[:, None] * cumulative[:, -1:]
        sampled.append(torch.searchsorted(cumulative, threshold, right=True)[:, 0])
    return torch.cat(sampled).clamp_(max=probability_NV.shape[1] - 1)


def warm(probability_NV: Tensor, temperature: float) -> Tensor:
    """The (unnormalised) distribution of the same logits divided by `temperature`."""
    return probability_NV if temperature == 1.0 else probability_NV.pow(1.0 / temperature)
