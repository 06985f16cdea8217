"""A network as it predicts on a CPU: the same outputs, sooner.

In: a network of ours, loaded and in evaluation mode. Out: the same network, its encoders ready for inference. What changes:

    weights    those of linear layers are laid out once as oneDNN's matrix products want them; torch's own `linear` lays them
               out anew in every call, which counts where a text is short. In bf16 they are also rounded, and take half the
               memory; then attention and feed-forward run in bf16, embeddings and heads in fp32, as under autocast.
    decoders   in bf16 they are laid out as encoders are, and keys and values of the tokens so far are kept in bf16; in fp32
               torch's own layout is the best for the few rows of a step. The product with the output table and what is
               summed over the vocabulary stay fp32.
    shapes     oneDNN makes a kernel for each shape it meets, about a millisecond each in bf16. A packed batch is filled up with
               padding that nothing attends to, so that its tokens are one of some ninety numbers.

Recurrent encoders, and networks on a GPU, stay as they are.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from electra.contracts import Layout, Packed
from electra.errors import ElectraError
from electra.models.classic import ClassicEncoder, ClassicLayer
from electra.models.decoder import Decoder
from electra.models.modern import ModernEncoder
from electra.train import machine

#: what linear layers compute in: exactly; faster where the machine has instructions for it; whichever of both is faster here
Precision = Literal["fp32", "bf16", "auto"]


class PackedLinear(nn.Module):
    """`nn.Linear` without gradients, its weights laid out for oneDNN.

    `mkldnn::_linear_pointwise` is what torch's compiler calls; where a build of torch has none, weights stay as they are.

    Args:
        linear: the layer; what it has of weights is not kept.
        dtype: of products and outputs; inputs are rounded to it.
        gelu: apply GELU to the outputs, in the same pass over them.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, gelu: bool = False) -> None:
        super().__init__()
        self.dtype, self.gelu = dtype, gelu
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().to(dtype)
        self.bias = None if linear.bias is None else linear.bias.detach().to(dtype)
        self.packed = _has_onednn()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, None) if self.packed else weight

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] of any float type -> [..., out] of `dtype`."""
        x = x.to(self.dtype)
        if not self.packed:
            product = F.linear(x, self.weight, self.bias)
            return F.gelu(product) if self.gelu else product
        then, how = ("gelu", "none") if self.gelu else ("none", "")
        fused: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, self.weight, self.bias, then, [], how)
        return fused


class EvenEncoder(nn.Module):
    """An encoder whose packed batches are filled up to one of a few numbers of tokens; its hidden states are fp32.

    Called as the encoder is.
    """

    def __init__(self, encoder: ClassicEncoder | ModernEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.config, self.embeddings = encoder.config, encoder.embeddings
        self.hidden_size, self.embedding_size = encoder.hidden_size, encoder.embedding_size

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        types: Tensor,
        layout: Layout,
        embeddings: Tensor | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """Hidden states, see `ClassicEncoder.forward`."""
        given = len(tokens)
        if isinstance(layout, Packed) and embeddings is None:
            filling = (0, even(given) - given)
            tokens, positions, types = (F.pad(numbers, filling) for numbers in (tokens, positions, types))
        hidden: Tensor = self.encoder(tokens, positions, types, layout, embeddings, at)
        return (hidden if at is not None else hidden[:given]).float()


def even(tokens: int) -> int:
    """The next of the numbers 4, 8 ... 128, 136 ... 256, 288 ... 1024, 1152 ...: the filling is a few per cent."""
    step = next((step for most, step in ((128, 4), (256, 8), (1024, 32)) if tokens <= most), 128)
    return -(-tokens // step) * step


def ready(network: nn.Module, precision: str) -> str:
    """Make `network` ready, in place.

    Args:
        network: in evaluation mode, or several of them; it is not trained any more. An encoder or decoder that is ready for
            another task stays as it is.
        precision: see `Precision`.

    Returns:
        The precision that it computes in, `fp32` or `bf16`.

    Raises:
        ElectraError: E-C700 no such precision, E-C701 bf16 for a network without linear layers to round.
    """
    if precision not in get_args(Precision):
        raise ElectraError("E-C700", "precision", f"{precision!r} is not known", f"give {', '.join(get_args(Precision))}")
    roots = [*network.children()] if isinstance(network, nn.ModuleDict) else [network]
    decoders = [module for module in network.modules() if isinstance(module, Decoder)]
    readers = [root for root in roots if isinstance(getattr(root, "encoder", None), ClassicEncoder | ModernEncoder)]
    readers = [root for root in readers if not isinstance(root, Decoder)]
    if not (readers or decoders) or next(network.parameters(), torch.empty(0)).is_cuda:
        if precision == "bf16":
            raise ElectraError("E-C701", "precision", "this network computes in fp32 only", "give fp32 or auto")
        return "fp32"
    chosen = machine.faster_precision() if precision == "auto" else precision
    dtype = torch.bfloat16 if chosen == "bf16" else torch.float32
    for root in readers:
        encoder = cast(ClassicEncoder | ModernEncoder, root.encoder)
        packed = next((module for module in encoder.modules() if isinstance(module, PackedLinear)), None)
        if packed is not None:  # for another task of the same model
            chosen = "bf16" if packed.dtype == torch.bfloat16 else "fp32"
        elif dtype == torch.bfloat16 or _has_onednn():
            _pack(encoder, dtype)
        root.encoder = EvenEncoder(encoder)
    for decoder in decoders:
        if dtype == torch.bfloat16 and decoder.cache_dtype is None:
            _pack(decoder.encoder, dtype)
            _pack(decoder.cross, dtype)
            decoder.cache_dtype = dtype
    return chosen


def _pack(module: nn.Module, dtype: torch.dtype) -> None:
    """Every linear layer below `module`, with the GELU behind it."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            gelu = isinstance(module, ClassicLayer) and child is module.up
            setattr(module, name, PackedLinear(child, dtype, gelu))
        else:
            _pack(child, dtype)
    if isinstance(module, ClassicLayer):
        module.activation = nn.Identity()


def _has_onednn() -> bool:
    return torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
