"""Where the first weights of a decoder come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.decoder import Decoder
from electra.models.encoder import GeneratorConfig, build_encoder, generator_config
from electra.models.heads import MlmHead
from electra.models.model_dir import Generator, ModelDir
from electra.models.modern import ModernConfig
from electra.models.warm_start import DecoderConfig, warm_start, writing_network

Config = ClassicConfig | ModernConfig


FAMILIES = pytest.mark.parametrize("config", ["classic", "modern"], indirect=True)


def source_of(config: Config, generator: GeneratorConfig | None = None) -> ModelDir:
    torch.manual_seed(1)
    beside = None
    if generator is not None:
        sizes = generator_config(config, generator)
        beside = Generator(encoder=build_encoder(sizes), mlm_head=MlmHead(sizes))
    return ModelDir(path=Path("source"), encoder=build_encoder(config), generator=beside)


def decoder_from(source: ModelDir, settings: DecoderConfig) -> Decoder:
    """A decoder that would be all zeros without its warm start."""
    config = settings.of(source.encoder.config)
    decoder = Decoder(build_encoder(config), MlmHead(config), source.encoder.config.hidden_size)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.zero_()
    warm_start(decoder, settings, source, writing_network(source, config), shared=True)
    return decoder


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


@FAMILIES
def test_layers_come_from_the_encoder_and_the_table_from_the_generator(config: Config) -> None:
    source = source_of(config, GeneratorConfig())
    settings = DecoderConfig(num_hidden_layers=2).sized(source)
    decoder = decoder_from(source, settings)
    assert source.generator is not None
    assert same(decoder.encoder.layers, source.encoder.layers[:2])
    assert same(decoder.encoder.embeddings, source.generator.encoder.embeddings)
    assert same(decoder.head, source.generator.mlm_head)
    assert not any(bool(parameter.any()) for parameter in decoder.cross.parameters()), "cross attention is as it was drawn"
    assert decoder.encoder.embeddings.table is not source.generator.encoder.embeddings.table


def test_a_narrow_generator_is_a_narrow_decoder(classic: ClassicConfig) -> None:
    source = source_of(classic, GeneratorConfig(width=0.5))
    settings = DecoderConfig(init="generator").sized(source)
    assert (settings.hidden_size, settings.num_attention_heads, settings.num_hidden_layers) == (8, 2, 3)
    decoder = decoder_from(source, settings)
    assert source.generator is not None
    assert same(decoder.encoder, source.generator.encoder)
    assert decoder.enc_to_dec_proj.weight.shape == (8, 16)


@FAMILIES
def test_cross_attention_may_start_as_self_attention(config: Config) -> None:
    source = source_of(config)
    decoder = decoder_from(source, DecoderConfig(cross_attention="self-attention").sized(source))
    for cross, layer in zip(decoder.cross, decoder.encoder.layers, strict=True):
        own: Tensor = layer.get_submodule("qkv" if isinstance(config, ClassicConfig) else "attn.Wqkv").weight
        assert torch.equal(torch.cat([cross.query.weight, cross.key_value.weight]), own)
    assert not bool(decoder.head.dense.weight.any()), "there is no head to start from"


def test_what_does_not_fit_is_refused(classic: ClassicConfig) -> None:
    source = source_of(classic)
    with pytest.raises(ElectraError, match="E-M610 source"):
        DecoderConfig(init="generator").sized(source)
    for settings in (DecoderConfig(num_hidden_layers=4), DecoderConfig(intermediate_size=8)):
        with pytest.raises(ElectraError, match="E-M611"):
            decoder_from(source, settings.sized(source))
    fresh = decoder_from(source, DecoderConfig(init="fresh", num_hidden_layers=4).sized(source))
    assert not any(bool(parameter.any()) for parameter in fresh.parameters())
