"""What every network is made of: dropout, embeddings, rotary positions, and the initialisation of all parameters.

Shapes: ... any leading shape, H heads, D head size.
"""

from __future__ import annotations

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

    On a CPU the mask comes from 16 random bits an element, four elements to a draw of torch's default generator: a
    quarter of the time of torch's own dropout. p is met to 2^-17. Reproducible under `torch.manual_seed`.
    """
    if p == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    keep = words.view(torch.int16)[: x.numel()].view(x.shape).ge_(round(p * 2**16) - 2**15)
    return x * keep.to(x.dtype).mul_(1.0 / (1.0 - p))


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


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + D/2) of the heads in `x` [..., H, D] by `rotary_angles`, computed in fp32."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)
