"""What a decoder is like, and where its first weights come from (Rothe et al., 2020).

A decoder of a sequence-to-sequence model has the family of its encoder, and the sizes of the network that it starts from: the
encoder, or the generator beside it. Its layers, which are that network's lowest, get its weights. The token table, which says
what is written as well as what is read, and the head above it are the generator's wherever there is one: that of a
discriminator was never asked for a token. The attention to the source has no counterpart: it is drawn at random, or starts as
the self-attention of its layer.

A decoder has the vocabulary of its encoder, or, where outputs have a tokenizer of their own (`Tokenizer.target`), that one's;
then its table is fresh, or the generator's of a model directory that has this tokenizer (`writing_network`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from electra.config import STRICT
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig, ClassicLayer
from electra.models.decoder import CrossAttention, Decoder
from electra.models.encoder import Encoder
from electra.models.model_dir import Generator, ModelDir
from electra.models.modern import ModernConfig, ModernLayer
from electra.text.tokenizer import Tokenizer

_SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
#: the weights of embeddings and heads that have a row for each token
_BY_TOKEN = frozenset({"word_embeddings.weight", "tok_embeddings.weight", "bias"})


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

    def of(self, encoder: ClassicConfig | ModernConfig, target: Tokenizer | None = None) -> ClassicConfig | ModernConfig:
        """The config of the decoder beside an encoder with this one.

        Args:
            target: the tokenizer of outputs, where it is not the encoder's.

        Raises:
            ElectraError: E-C200 sizes that contradict each other.
        """
        given = {name: getattr(self, name) for name in _SIZES if getattr(self, name) is not None}
        if target is not None:
            given |= {"vocab_size": target.vocab_size, "pad_token_id": target.pad_id}
        return dataclasses.replace(encoder, **given)


def _origin(config: DecoderConfig, source: ModelDir) -> Encoder:
    if config.init != "generator":
        return source.encoder
    if source.generator is None:
        raise ElectraError("E-M610", str(source.path), "has no generator to start a decoder from",
                           'set task.decoder.init="encoder", or give the directory of an rtd run')  # fmt: skip
    return source.generator.encoder


def writing_network(model: ModelDir, decoder: ClassicConfig | ModernConfig) -> Generator | None:
    """What `model` says tokens with: its generator, or its main network with a language modelling head.

    Args:
        model: has the tokenizer of the decoder.
        decoder: the sizes of a decoder that is to take the token table; None is returned where it cannot.
    """
    found = model.masked_model
    if model.causal_head is not None:
        found = Generator(encoder=model.encoder, mlm_head=model.causal_head)
    if found is None:
        return None
    config = found.encoder.config
    fits = config.type == decoder.type and config.embedding_size == decoder.embedding_size
    return found if fits and config.vocab_size >= decoder.vocab_size else None


def warm_start(decoder: Decoder, config: DecoderConfig, source: ModelDir, words: Generator | None, *, shared: bool) -> None:
    """Give a decoder its first weights, in place; see the module.

    Args:
        decoder: with fresh weights.
        config: what it starts from.
        source: has the encoder, whose sizes it has.
        words: the network whose token table and head it takes, from `writing_network`; None = there is none.
        shared: it has the vocabulary of its encoder, whose table it takes where there is no other.

    Raises:
        ElectraError: E-M610 `source` has no generator, E-M611 it has not the sizes of the decoder.
    """
    if config.init == "fresh":
        return
    origin, own = _origin(config, source), decoder.encoder
    layers = len(own.layers)
    if layers > len(origin.layers):
        raise _misfit(f"{layers} layers, and the {config.init} has {len(origin.layers)}")
    if words is not None and _fits(own.embeddings, words.encoder.embeddings):
        _fill(own.embeddings, words.encoder.embeddings)
    else:
        _fill(own.embeddings, origin.embeddings, but=() if shared else _BY_TOKEN)
        if words is not None and not shared:
            with torch.no_grad():
                own.embeddings.table.copy_(words.encoder.embeddings.table[: len(own.embeddings.table)])
    for name, module in own.named_children():
        if name not in ("embeddings", "layers"):
            _fill(module, origin.get_submodule(name))
    for layer, given in zip(own.layers, origin.layers, strict=False):
        _fill(layer, given)
    if words is not None and _fits(decoder.head, words.mlm_head):
        _fill(decoder.head, words.mlm_head)
    if config.cross_attention == "self-attention":
        for cross, layer in zip(decoder.cross, own.layers, strict=True):
            _copy_self_attention(cast(CrossAttention, cross), cast(ClassicLayer | ModernLayer, layer))


def _weights(given: nn.Module, target: nn.Module, but: Collection[str]) -> dict[str, Tensor]:
    """Those of `given`; of a table with a row for each token the rows that `target` has."""
    own = target.state_dict()
    rows = {name: len(own[name]) for name in _BY_TOKEN & own.keys()}
    return {name: tensor[: rows.get(name, len(tensor))] if tensor.ndim else tensor
            for name, tensor in given.state_dict().items() if name not in but}  # fmt: skip


def _fits(target: nn.Module, given: nn.Module, but: Collection[str] = ()) -> bool:
    own = {name: tensor.shape for name, tensor in target.state_dict().items() if name not in but}
    return own == {name: tensor.shape for name, tensor in _weights(given, target, but).items()}


@torch.no_grad()
def _fill(target: nn.Module, given: nn.Module, but: Collection[str] = ()) -> None:
    if not _fits(target, given, but):
        raise _misfit("other sizes than what it is to start from")
    for name, tensor in _weights(given, target, but).items():
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
