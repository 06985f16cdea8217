from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor

from electra.contracts import Padded
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.encoder import Encoder, GeneratorConfig, build_encoder, generator_config
from electra.models.modern import ModernConfig
from electra.models.tying import DeltaEmbeddings, TyingMode, plain_state, tie

AnyConfig = ClassicConfig | ModernConfig


def pair(config: AnyConfig, **scale: float) -> tuple[Encoder, Encoder]:
    """A generator of its own depth (and width, where the family can share embeddings all the same) and a discriminator."""
    torch.manual_seed(0)
    width = 0.5 if isinstance(config, ClassicConfig) else 1.0
    small = generator_config(config, GeneratorConfig(**{"width": width, "layers": 2, **scale}))  # type: ignore[arg-type]
    no_dropout = {field.name: 0.0 for field in dataclasses.fields(config) if "dropout" in field.name}
    generator, discriminator = (build_encoder(dataclasses.replace(c, **no_dropout)) for c in (small, config))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in [*generator.parameters(), *discriminator.parameters()]:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return generator, discriminator


def run(encoder: Encoder) -> Tensor:
    tokens = torch.arange(5, 17).view(2, 6)
    layout = Padded(segments=torch.zeros_like(tokens), whole=True)
    hidden: Tensor = encoder(tokens, torch.arange(6).expand(2, 6), tokens % 2, layout)
    return hidden


def shared(generator: Encoder, discriminator: Encoder) -> set[str]:
    """Names in the discriminator of the parameters that both have."""
    theirs = {id(parameter) for parameter in generator.parameters()}
    return {name for name, parameter in discriminator.named_parameters() if id(parameter) in theirs}


def count(*encoders: Encoder) -> int:
    return sum(p.numel() for p in {id(p): p for encoder in encoders for p in encoder.parameters()}.values())


def names(encoder: Encoder, *prefixes: str) -> set[str]:
    return {name for name, _ in encoder.named_parameters() if name.startswith(prefixes)}


@pytest.mark.parametrize(("mode", "prefixes"), [("none", ()), ("embeddings", ("embeddings.",)), ("gdes", ())])
def test_what_is_shared(config: AnyConfig, mode: TyingMode, prefixes: tuple[str, ...]) -> None:
    generator, discriminator = pair(config)
    before, size = run(discriminator), count(generator, discriminator)
    tie(generator, discriminator, mode)
    expected = names(discriminator, *prefixes) if prefixes else set()
    assert shared(generator, discriminator) == expected
    own = dict(discriminator.named_parameters())
    assert count(generator, discriminator) == size - sum(own[name].numel() for name in expected)
    torch.testing.assert_close(run(discriminator), before)


def test_all_shares_everything_of_like_encoders(config: AnyConfig) -> None:
    generator, discriminator = pair(config, width=1.0, layers=3)
    before = run(discriminator)
    tie(generator, discriminator, "all")
    assert shared(generator, discriminator) == names(discriminator, "")
    assert torch.equal(run(generator), before)
    assert generator.state_dict().keys() == discriminator.state_dict().keys()


def test_bottom_layers(config: AnyConfig) -> None:
    generator, discriminator = pair(config, width=1.0)
    tie(generator, discriminator, "bottom-layers", 1)
    assert shared(generator, discriminator) == names(discriminator, "embeddings.", "layers.0.")


@pytest.mark.parametrize(
    ("mode", "layers", "scale"),
    [("all", 0, {"width": 1.0, "layers": 2}), ("bottom-layers", 0, {"width": 1.0}), ("bottom-layers", 3, {"width": 1.0})],
)
def test_what_cannot_be_shared_is_an_error(config: AnyConfig, mode: TyingMode, layers: int, scale: dict[str, float]) -> None:
    with pytest.raises(ElectraError, match="E-C204"):
        tie(*pair(config, **scale), mode, layers)


def test_widths_that_differ_are_named(classic: ClassicConfig, modern: ModernConfig) -> None:
    with pytest.raises(ElectraError, match=r"tok_embeddings.weight.*\(80, 8\).*\(80, 16\)|norm.weight is \(8,\)"):
        tie(*pair(modern, width=0.5), "embeddings")
    with pytest.raises(ElectraError, match=r"layers\.0"):
        tie(*pair(classic), "bottom-layers", 1)


def test_gdes_gives_the_generator_no_gradient_and_a_fresh_one_starts_at_its_tables(config: AnyConfig) -> None:
    generator, discriminator = pair(config)
    tie(generator, discriminator, "gdes")
    assert isinstance(discriminator.embeddings, DeltaEmbeddings)
    assert not torch.allclose(discriminator.embeddings.table, generator.embeddings.table)
    discriminator.embeddings.start_at_source()
    assert torch.equal(discriminator.embeddings.table, generator.embeddings.table)
    run(discriminator).square().sum().backward()
    assert all(parameter.grad is None for parameter in generator.parameters())
    assert all(parameter.grad is not None for parameter in discriminator.parameters())
    tables = {name for name in discriminator.state_dict() if name.startswith("embeddings.delta.")}
    assert len(tables) == (3 if isinstance(config, ClassicConfig) else 1)
    assert {name for name in discriminator.state_dict() if name.startswith("embeddings.norm.")}
    discriminator.embeddings.table.sum().backward()  # the discriminator's own share of the token table has a gradient too
    assert generator.embeddings.table.grad is None


def test_gdes_follows_the_generator_and_merges(config: AnyConfig) -> None:
    generator, discriminator = pair(config)
    tie(generator, discriminator, "gdes")
    before = run(discriminator)
    with torch.no_grad():
        for parameter in [*generator.parameters(), *discriminator.parameters()]:
            parameter.add_(torch.randn_like(parameter) * 0.05)
    assert not torch.allclose(run(discriminator), before)
    plain = build_encoder(config)
    plain.load_state_dict(plain_state(discriminator))
    torch.testing.assert_close(run(plain.eval()), run(discriminator))
    embeddings = discriminator.embeddings
    assert isinstance(embeddings, DeltaEmbeddings)
    torch.testing.assert_close(embeddings.merged().table, embeddings.table)


def test_a_copy_of_a_tied_pair_is_tied_to_itself(config: AnyConfig) -> None:
    generator, discriminator = pair(config)
    tie(generator, discriminator, "gdes")
    before = discriminator.embeddings.table.detach().clone()
    twin_generator, twin = copy.deepcopy((generator, discriminator))
    with torch.no_grad():
        twin_generator.embeddings.table.add_(1.0)
    assert torch.equal(discriminator.embeddings.table, before)
    torch.testing.assert_close(twin.embeddings.table, before + 1.0)


@pytest.mark.parametrize("mode", ["none", "embeddings", "gdes"])
def test_plain_state_has_the_names_of_an_untied_encoder(config: AnyConfig, mode: TyingMode) -> None:
    generator, discriminator = pair(config)
    tie(generator, discriminator, mode)
    for encoder in (generator, discriminator):
        assert plain_state(encoder).keys() == build_encoder(encoder.config).state_dict().keys()
