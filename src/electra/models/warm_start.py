"""What a decoder is like, and where its first weights come from (Rothe et al., 2020).

A decoder of a sequence-to-sequence model has the family and the vocabulary of its encoder, and the sizes of the network that it
starts from: the encoder, or the generator beside it. Its layers, which are that network's lowest, get its weights. The token
table, which says what is written as well as what is read, and the head above it are the generator's wherever there is one: that
of a discriminator was never asked for a token. The attention to the source has no counterpart: it is drawn at random, or starts
as the self-attention of its layer.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import nn

from electra.config import STRICT
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig, ClassicLayer
from electra.models.decoder import CrossAttention, Decoder
from electra.models.encoder import Encoder
from electra.models.heads import MlmHead
from electra.models.model_dir import ModelDir
from electra.models.modern import ModernConfig, ModernLayer

_SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The decoder beside an encoder.

    Args:
        init: what it starts from: the `encoder`, the `generator` beside it, or `fresh` weights.
        cross_attention: the attention to the source starts `fresh`, or as a copy of the `self-attention` of its layer.
        num_hidden_layers, hidden_size, intermediate_size, num_attention_heads: None = as what it starts from; `fresh`: as the
            encoder.
    """

    __pydantic_config__ = STRICT
    init: Literal["encoder", "generator", "fresh"] = "encoder"
    cross_attention: Literal["fresh", "self-attention"] = "fresh"
    num_hidden_layers: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    num_attention_heads: int | None = None

    def __post_init__(self) -> None:
        for name in _SIZES:
            if (size := getattr(self, name)) is not None and size < 1:
                raise ElectraError("E-C610", f"task.decoder.{name}", f"is {size}", "give 1 or more, or leave it out")
        if self.init == "fresh" and self.cross_attention != "fresh":
            raise ElectraError("E-C611", "task.decoder.cross_attention", "the self-attention that it copies is fresh itself",
                               'leave it out, or set task.decoder.init="encoder"')  # fmt: skip

    def sized(self, source: ModelDir) -> DecoderConfig:
        """With every size, that a decoder for the encoder of `source` is to have.

        Raises:
            ElectraError: E-M610 it has no generator.
        """
        like = _origin(self, source).config
        return dataclasses.replace(
            self, **{name: getattr(like, name) if getattr(self, name) is None else getattr(self, name) for name in _SIZES}
        )

    def of(self, encoder: ClassicConfig | ModernConfig) -> ClassicConfig | ModernConfig:
        """The config of the decoder beside an encoder with this one.

        Raises:
            ElectraError: E-C200 sizes that contradict each other.
        """
        given = {name: getattr(self, name) for name in _SIZES if getattr(self, name) is not None}
        return dataclasses.replace(encoder, **given)


def _origin(config: DecoderConfig, source: ModelDir) -> Encoder:
    if config.init != "generator":
        return source.encoder
    if source.generator is None:
        raise ElectraError("E-M610", str(source.path), "has no generator to start a decoder from",
                           'set task.decoder.init="encoder", or give the directory of an rtd run')  # fmt: skip
    return source.generator.encoder


def warm_start(decoder: Decoder, config: DecoderConfig, source: ModelDir) -> None:
    """Give a decoder its first weights, in place; see the module.

    Raises:
        ElectraError: E-M610 `source` has no generator, E-M611 it has not the sizes of the decoder.
    """
    if config.init == "fresh":
        return
    origin, own = _origin(config, source), decoder.encoder
    layers = len(own.layers)
    if layers > len(origin.layers):
        raise _misfit(f"{layers} layers, and the {config.init} has {len(origin.layers)}")
    writer: tuple[Encoder, MlmHead | None] = (source.encoder, source.causal_head or source.mlm_head)
    if source.generator is not None:
        writer = source.generator.encoder, source.generator.mlm_head
    _fill(own.embeddings, writer[0].embeddings if _fits(own.embeddings, writer[0].embeddings) else origin.embeddings)
    for name, module in own.named_children():
        if name not in ("embeddings", "layers"):
            _fill(module, origin.get_submodule(name))
    for layer, given in zip(own.layers, origin.layers, strict=False):
        _fill(layer, given)
    if writer[1] is not None and _fits(decoder.head, writer[1]):
        _fill(decoder.head, writer[1])
    if config.cross_attention == "self-attention":
        for cross, layer in zip(decoder.cross, own.layers, strict=True):
            _copy_self_attention(cast(CrossAttention, cross), cast(ClassicLayer | ModernLayer, layer))


def _fits(target: nn.Module, given: nn.Module) -> bool:
    shapes = ({name: tensor.shape for name, tensor in module.state_dict().items()} for module in (target, given))
    return next(shapes) == next(shapes)


@torch.no_grad()
def _fill(target: nn.Module, given: nn.Module) -> None:
    if not _fits(target, given):
        raise _misfit("other sizes than what it is to start from")
    for name, tensor in given.state_dict().items():
        target.state_dict()[name].copy_(tensor)


def _misfit(cause: str) -> ElectraError:
    return ElectraError("E-M611", "task.decoder", f"the decoder has {cause}",
                        'leave its sizes out, or set task.decoder.init="fresh"')  # fmt: skip


@torch.no_grad()
def _copy_self_attention(cross: CrossAttention, layer: ClassicLayer | ModernLayer) -> None:
    """Queries, keys, values and output. A source of another size is projected to the decoder's before it comes here."""
    norm: nn.Module
    if isinstance(layer, ClassicLayer):
        own, output, norm = layer.qkv, layer.attention_output, layer.attention_norm
    else:
        own, output, norm = cast(nn.Linear, layer.attn["Wqkv"]), cast(nn.Linear, layer.attn["Wo"]), layer.attn_norm
    size = own.weight.shape[1]
    for mine, theirs in ((cross.query, slice(0, size)), (cross.key_value, slice(size, None))):
        mine.weight.copy_(own.weight[theirs])
        if own.bias is not None:
            mine.bias.copy_(own.bias[theirs])
    _fill(cross.Wo, output)
    if isinstance(norm, nn.LayerNorm):  # the first layer of a modern encoder has none
        _fill(cross.norm, norm)
