from __future__ import annotations

import dataclasses

import pytest
import torch

from electra import config as recipes
from electra.contracts import Padded
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.encoder import GeneratorConfig, build_encoder, generator_config
from electra.models.heads import MlmHead, RtdHead
from electra.models.modern import ModernConfig

SMALL = ClassicConfig(
    vocab_size=30522, embedding_size=128, hidden_size=256, num_hidden_layers=12, num_attention_heads=4, intermediate_size=1024
)
BASE = ClassicConfig(
    vocab_size=30522, embedding_size=768, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072
)


def test_generators_of_the_paper() -> None:
    small = generator_config(SMALL, GeneratorConfig(width=0.25))
    base = generator_config(BASE, GeneratorConfig(width=1 / 3))
    assert isinstance(small, ClassicConfig)
    assert isinstance(base, ClassicConfig)
    assert (small.embedding_size, small.hidden_size, small.intermediate_size, small.num_attention_heads) == (128, 64, 256, 1)
    assert (base.embedding_size, base.hidden_size, base.intermediate_size, base.num_attention_heads) == (768, 256, 1024, 4)
    assert small.num_hidden_layers == base.num_hidden_layers == 12


def test_a_modern_generator_has_fewer_layers(modern: ModernConfig) -> None:
    assert generator_config(modern, GeneratorConfig(layers=1)) == dataclasses.replace(modern, num_hidden_layers=1)


@pytest.mark.parametrize(("width", "code"), [(0.05, "E-C203"), (0.3, "E-C200"), (0.0, "E-C203"), (-1.0, "E-C203")])
def test_a_width_without_whole_heads_is_an_error(width: float, code: str) -> None:
    config = dataclasses.replace(SMALL, hidden_size=252, num_attention_heads=9)
    with pytest.raises(ElectraError, match=code):
        generator_config(config, GeneratorConfig(width=width))


def test_configs_come_from_recipes_and_name_what_is_wrong() -> None:
    tree = {"type": "classic", "embedding_size": 8, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 8}  # fmt: skip
    assert recipes.build(ClassicConfig, tree).hidden_dropout_prob == 0.1
    with pytest.raises(ElectraError, match="num_attention_heads"):
        recipes.build(ClassicConfig, {**tree, "num_attention_heads": 3})
    with pytest.raises(ElectraError, match="hidden_size"):
        recipes.build(ClassicConfig, {**tree, "hiden_size": 16})


def test_an_encoder_needs_its_vocabulary() -> None:
    with pytest.raises(ElectraError, match="E-C202"):
        build_encoder(dataclasses.replace(SMALL, vocab_size=0))


def test_initial_values(classic: ClassicConfig, modern: ModernConfig) -> None:
    torch.manual_seed(0)
    wide = dataclasses.replace(classic, hidden_size=64, embedding_size=32)
    encoder = build_encoder(wide)
    for name, parameter in encoder.named_parameters():
        if "norm" in name:
            assert (parameter == (0 if name.endswith("bias") else 1)).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif name == "embeddings_project.weight":
            bound = (6 / (64 + 32)) ** 0.5
            assert 0.8 * bound < parameter.abs().max() <= bound
        else:
            assert 0.03 < parameter.abs().max() <= 0.04, name
    deep = build_encoder(dataclasses.replace(modern, num_hidden_layers=8, hidden_size=64))
    for name, parameter in deep.named_parameters():
        if name.endswith("Wo.weight"):
            assert 0.008 < parameter.abs().max() <= 0.04 / 16**0.5, name  # two deviations of .02 / sqrt(2 L)


def test_heads_start_as_they_should(config: ClassicConfig | ModernConfig) -> None:
    torch.manual_seed(0)
    head = RtdHead(config, -1.73)
    assert head.output.bias.item() == pytest.approx(-1.73)
    assert 0.04 < head.output.weight.abs().max() <= (6 / 17) ** 0.5  # Glorot: wider than the cut normal
    mlm = MlmHead(config)
    assert (mlm.bias == 0).all()
    assert mlm.dense.out_features == config.embedding_size


def test_dropout_acts_in_training_only(config: ClassicConfig | ModernConfig) -> None:
    torch.manual_seed(0)
    names = [field.name for field in dataclasses.fields(config) if "dropout" in field.name]
    assert len(names) == {"classic": 2, "modern": 3, "recurrent": 1}[config.type]
    tokens = torch.randint(5, 40, (2, 9))
    inputs = (tokens, torch.arange(9).expand(2, 9), tokens * 0, Padded(segments=tokens * 0, whole=True))
    for name in names:
        only = dataclasses.replace(config, **{other: 0.5 if other == name else 0.0 for other in names})  # type: ignore[arg-type]
        encoder = build_encoder(only)
        assert not torch.equal(encoder(*inputs), encoder(*inputs)), name
        encoder.eval()
        assert torch.equal(encoder(*inputs), encoder(*inputs)), name
    encoder = build_encoder(dataclasses.replace(config, **dict.fromkeys(names, 0.0)))  # type: ignore[arg-type]
    assert torch.equal(encoder(*inputs), encoder.eval()(*inputs))


@pytest.mark.parametrize("p", [0.0, 0.1])
def test_half_precision_is_near_full(config: ClassicConfig | ModernConfig, p: float) -> None:
    torch.manual_seed(0)
    names = [field.name for field in dataclasses.fields(config) if "dropout" in field.name]
    encoder = build_encoder(dataclasses.replace(config, **dict.fromkeys(names, p)))  # type: ignore[arg-type]
    tokens = torch.randint(5, 40, (3, 9))
    segments = torch.tensor([[0] * 9, [0] * 4 + [1] * 5, [0] * 3 + [-1] * 6])
    inputs = (tokens, torch.arange(9).expand(3, 9), tokens * 0, Padded(segments=segments))
    torch.manual_seed(1)
    full = encoder(*inputs)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = encoder(*inputs)
    half.float().square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())
    torch.testing.assert_close(half.float(), full, atol=0.1, rtol=0.1)
