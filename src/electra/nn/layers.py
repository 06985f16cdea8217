"""What every network is made of: dropout, embeddings, rotary positions; initial values of all parameters, and networks without.

Shapes: ... any leading shape, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

#: modules (by the last part of their name) that are drawn Glorot-uniform: the projection of the embeddings, output layers
_GLOROT = ("embeddings_project", "output", "classifier")
#: modules whose output is added to the residual stream of a pre-norm network
_RESIDUAL = ("Wo",)


@torch.no_grad()
def initialise(network: nn.Module, *, std: float = 0.02, residual_std: float | None = None) -> None:
    """Draw every parameter of `network`: the one place where initial values are chosen.

    Tables and matrices: normal with standard deviation `std`, cut at two of them (BERT). Output layers and
    `embeddings_project`: Glorot-uniform, as the reference's TF layers default to. Biases 0, norms 1. LSTMs: as
    torch has them, uniform up to 1 / sqrt of their size.

    Args:
        network: an encoder or a head.
        std: standard deviation in the weights' own units.
        residual_std: that of the output projections of residual branches; None = `std`.
    """
    for name, module in network.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(module, nn.LayerNorm | nn.LSTM):
            module.reset_parameters()
        elif isinstance(module, nn.Linear | nn.Embedding):
            if last in _GLOROT:
                nn.init.xavier_uniform_(module.weight)
            else:
                scale = residual_std if residual_std is not None and last in _RESIDUAL else std
                nn.init.trunc_normal_(module.weight, std=scale, a=-2 * scale, b=2 * scale)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Modules built within have parameters on the device "meta": shapes that take no memory and have no values.

    torch draws initial values there, too, by functions in Python that import its compiler: two seconds before a model is read.
    """
    with torch.device("meta"), _NothingDrawn():
        yield


class _NothingDrawn(TorchFunctionMode):
    """Leaves every tensor that is to be drawn as it is."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func.__name__ in ("normal_", "uniform_"):
            return args[0] if args else given["tensor"]
        return func(*args, **given)


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

    def forward(self, tokens: Tensor, positions: Tensor, types: Tensor, shift: Tensor | None = None) -> Tensor:
        """[..., E] from int64 [...]; `shift`, [..., E], is added to the sum of the tables' rows."""
        found = self.look_up(tokens, positions, types)
        return dropout(self.norm(found if shift is None else found + shift), self.dropout if self.training else 0.0)


class Rotary:
    """Rotary positions (Su et al., 2021): the pairs (i, i + D/2) of a head are turned by an angle that grows with the position.

    Args:
        cos, sin: fp32 [B, L, D] or [T, D]; the first half of the sines is negative, so that x turned is
            x * cos + (x with its halves exchanged) * sin.
    """

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        self.cos, self.sin = cos, sin

    @classmethod
    def of(cls, positions: Tensor, head_size: int, theta: float) -> Rotary:
        """Of int64 `positions` [B, L] or [T], for heads of an even size; the wavelengths go from 2 pi to 2 pi theta."""
        exponents = torch.arange(0, head_size, 2, dtype=torch.float32, device=positions.device) / head_size
        angles = positions[..., None].float() * (1.0 / theta**exponents)
        cos, sin = angles.cos(), angles.sin()
        return cls(torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1))

    def at(self, index: Tensor) -> Rotary:
        """Of the tokens `index` [N, M] of a packed batch."""
        return Rotary(self.cos[index], self.sin[index])

    def rows(self, tokens: slice, length: int) -> Rotary:
        """Of the documents of `length` tokens that stand side by side at `tokens` of a packed batch, as rows [N, length]."""
        return Rotary(*(table[tokens].view(-1, length, table.shape[-1]) for table in (self.cos, self.sin)))

    def turn(self, x: Tensor, back: bool = False) -> Tensor:
        """`x` [..., B, H, L, D] or [T, H, D] turned, or turned back, computed in fp32 and given in its own type."""
        other = x.roll(x.shape[-1] // 2, dims=-1).float()
        cos, sin = self.cos.unsqueeze(1), self.sin.unsqueeze(1)
        return torch.addcmul(x.float() * cos, other, sin, value=-1 if back else 1).to(x.dtype)


def geglu(both: Tensor) -> Tensor:
    """GELU of the first half of the last axis times the second (Shazeer, 2020); [..., 2 I] -> [..., I]."""
    gated: Tensor = _GeGlu.apply(both)  # type: ignore[no-untyped-call]
    return gated


class _GeGlu(torch.autograd.Function):
    """Both gradients go into one tensor, which the projection before it takes as it is."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        ctx.save_for_backward(both)
        inner, gate = both.chunk(2, dim=-1)
        return F.gelu(inner).mul_(gate)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (both,) = ctx.saved_tensors
        inner, gate = both.chunk(2, dim=-1)
        grad = torch.empty_like(both)
        grad_inner, grad_gate = grad.chunk(2, dim=-1)
        torch.ops.aten.gelu_backward.grad_input(grads[0] * gate, inner, grad_input=grad_inner)
        torch.mul(F.gelu(inner), grads[0], out=grad_gate)
        return grad
