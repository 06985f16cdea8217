"""What every network is made of: dropout, embeddings, rotary positions, and the initialisation of all parameters.

Shapes: ... any leading shape, H heads, D head size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: modules (by the last part of their name) that are drawn Glorot-uniform: the projection of the embeddings, output layers
_GLOROT = ("embeddings_project", "output", "classifier")
#: modules whose output is added to the residual stream of a pre-norm network
_RESIDUAL = ("Wo",)


@torch.no_grad()
def initialise(network: nn.Module, *, std: float = 0.02, residual_std: float | None = None) -> None:
    """Draw every parameter of `network`: the one place where initial values are chosen.

    Tables and matrices: normal with standard deviation `std`, cut at two of them (BERT). Output layers and
    `embeddings_project`: Glorot-uniform, as the reference's TF layers default to. Biases 0, norms 1.

    Args:
        network: an encoder or a head.
        std: standard deviation in the weights' own units.
        residual_std: that of the output projections of residual branches; None = `std`.
    """
    for name, module in network.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, nn.Linear | nn.Embedding):
            if last in _GLOROT:
                nn.init.xavier_uniform_(module.weight)
            else:
                scale = residual_std if residual_std is not None and last in _RESIDUAL else std
                nn.init.trunc_normal_(module.weight, std=scale, a=-2 * scale, b=2 * scale)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


def dropout(x: Tensor, p: float) -> Tensor:
    """`x` with each element set to 0 with probability `p` < 1 and the others divided by 1 - p; `x` itself at p = 0.

    On a CPU: see `draw_kept`.
    """
    if p == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    dropped: Tensor = _Dropout.apply(x, *draw_kept(x, p))  # type: ignore[no-untyped-call]
    return dropped


def draw_kept(x: Tensor, p: float) -> tuple[Tensor, float]:
    """Which elements of the CPU tensor `x` a dropout of probability `p` keeps, and what they are multiplied by.

    Eight random bits an element, from numpy's SFC64 that is seeded by torch's default generator, so that `torch.manual_seed`
    repeats them: a tenth of the time of torch's own dropout. Within a call the share is a multiple of 1/256, chosen at random
    next to `p` so that its mean is `p`; the factor belongs to that share, so every call keeps the expectation.

    Returns:
        An integer mask shaped as `x`, of its element size, all bits set where kept, and the factor 1 / (1 - share).
    """
    seed = int(torch.empty((), dtype=torch.int64).random_())
    below = min(255, int(256 * p + (seed >> 24) * 2.0**-39))  # the upper 39 of the 63 bits are a uniform number
    words = torch.from_numpy(np.random.SFC64(seed).random_raw((x.numel() + 7) // 8).view(np.uint8))
    kept = words[: x.numel()].view(x.shape).ge_(below).neg_().view(torch.int8)  # 1 becomes 255, as int8 -1: all bits
    return kept.to(_INTEGER_OF_SIZE[x.element_size()]), 256 / (256 - below)


_INTEGER_OF_SIZE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def masked_bits(x: Tensor, kept: Tensor) -> Tensor:
    """`x` with 0 where `kept` is 0: an AND of bits, cheaper than a product in half precision."""
    return x.view(kept.dtype).bitwise_and(kept).view(x.dtype)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.factor = factor
        return masked_bits(x, kept).mul_(factor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return masked_bits(grads[0].contiguous(), ctx.saved_tensors[0]).mul_(ctx.factor), None, None


def take(hidden: Tensor, at: Tensor | None) -> Tensor:
    """The hidden states [N, D] at flat positions `at`, int64 [N], of [..., D]; all of them, as they are, without positions."""
    return hidden if at is None else hidden.flatten(0, -2).index_select(0, at)


class Embeddings(nn.Module):
    """Tokens in, what the first layer sees out: tables, LayerNorm, dropout. The families say which tables there are.

    Args:
        norm: over the embedding size E.
        p: dropout probability.
    """

    def __init__(self, norm: nn.LayerNorm, p: float) -> None:
        super().__init__()
        self.norm = norm
        self.dropout = p

    @property
    def table(self) -> Tensor:
        """[V, E], the token table, for the tied output layer of an MLM head."""
        raise NotImplementedError

    def look_up(self, tokens: Tensor, positions: Tensor, types: Tensor) -> Tensor:
        """[..., E], the sum of the tables' rows."""
        raise NotImplementedError

    def forward(self, tokens: Tensor, positions: Tensor, types: Tensor) -> Tensor:
        """[..., E] from int64 [...]."""
        return dropout(self.norm(self.look_up(tokens, positions, types)), self.dropout if self.training else 0.0)


def rotary_angles(positions: Tensor, head_size: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of rotary positions (Su et al., 2021), in fp32.

    Args:
        positions: int64 [...].
        head_size: D, even.
        theta: the base; the wavelengths go from 2 pi to 2 pi theta.

    Returns:
        Two of [..., 1, D/2]; the 1 stands for the heads.
    """
    exponents = torch.arange(0, head_size, 2, dtype=torch.float32, device=positions.device) / head_size
    angles = (positions[..., None].float() * (1.0 / theta**exponents))[..., None, :]
    return angles.cos(), angles.sin()


def rotate(qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + D/2) of queries and keys by `rotary_angles`, computed in fp32; values stay.

    Args:
        qkv: [..., 3, H, D].
        cos, sin: [..., 1, D/2].
    """
    rotated: Tensor = _Rotate.apply(qkv, cos[..., None, :, :], sin[..., None, :, :])  # type: ignore[no-untyped-call]
    return rotated


class _Rotate(torch.autograd.Function):
    """A rotation's gradient is the rotation back; one buffer for all three, instead of slices that autograd would add up."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(qkv, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grads[0], cos, -sin), None, None


def _turned(qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = qkv[..., :2, :, :].float().chunk(2, dim=-1)
    turned = torch.empty(qkv.shape, dtype=qkv.dtype, device=qkv.device)
    half = turned.shape[-1] // 2
    turned[..., :2, :, :half] = first * cos - second * sin
    turned[..., :2, :, half:] = second * cos + first * sin
    turned[..., 2, :, :] = qkv[..., 2, :, :]
    return turned
