"""Encoders by their config, and the config of a generator from that of its discriminator."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from electra.config import STRICT
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig, ClassicEncoder
from electra.models.modern import ModernConfig, ModernEncoder
from electra.models.recurrent import RecurrentConfig, RecurrentEncoder

EncoderConfig = Annotated[ClassicConfig | ModernConfig | RecurrentConfig, Field(discriminator="type")]
Encoder = ClassicEncoder | ModernEncoder | RecurrentEncoder


def build_encoder(config: EncoderConfig) -> Encoder:
    """A freshly initialised encoder.

    Raises:
        ElectraError: E-C202 the vocabulary size is not known yet.
    """
    if config.vocab_size < 1:
        raise ElectraError("E-C202", "vocab_size", "is not known", "set it, or resolve the recipe with a tokenizer")
    match config:
        case ClassicConfig():
            return ClassicEncoder(config)
        case ModernConfig():
            return ModernEncoder(config)
        case RecurrentConfig():
            return RecurrentEncoder(config)


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """The generator as a part of its discriminator (paper, section 3.2).

    Args:
        width: factor of hidden size, feed-forward size and heads; the embedding size of a classic or recurrent encoder stays.
            The paper has 1/4 (Small, Large) and 1/3 (Base). Modern generators share embeddings only at width 1.
        layers: number of layers; None = as many as the discriminator.
    """

    __pydantic_config__ = STRICT
    width: float = 1.0
    layers: int | None = None


def generator_config(discriminator: EncoderConfig, generator: GeneratorConfig) -> EncoderConfig:
    """The config of the generator of `discriminator`; sizes are rounded to the nearest integer.

    Raises:
        ElectraError: E-C203 the width leaves no whole head; E-C200 hidden size and heads do not fit after scaling.
    """
    layers = discriminator.num_hidden_layers if generator.layers is None else generator.layers
    if isinstance(discriminator, RecurrentConfig):
        size = 2 * round(discriminator.hidden_size * generator.width / 2)
        return dataclasses.replace(discriminator, hidden_size=size, num_hidden_layers=layers)
    heads = round(discriminator.num_attention_heads * generator.width)
    if heads < 1:
        raise ElectraError(
            "E-C203", "generator.width", f"{generator.width:g} of {discriminator.num_attention_heads} heads is less than one",
            "give a larger width",
        )  # fmt: skip
    return dataclasses.replace(
        discriminator,
        hidden_size=round(discriminator.hidden_size * generator.width),
        intermediate_size=round(discriminator.intermediate_size * generator.width),
        num_attention_heads=heads,
        num_hidden_layers=layers,
    )
