"""From a model directory back to an objective: the networks compute what they computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from electra.build.networks import PretrainInitConfig, build_objective
from electra.errors import ElectraError
from electra.models.encoder import GeneratorConfig
from electra.models.model_dir import load_model_dir
from electra.models.tying import plain_state
from electra.objectives.rtd import Rtd, RtdConfig
from electra.train.loop import Training


def test_a_pair_with_gdes_that_is_continued_keeps_both_tables(training_of: Callable[..., Training], tmp_path: Path) -> None:
    first = training_of("test-modern").objective
    assert isinstance(first, Rtd)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    first.export(tmp_path / "model")
    source = load_model_dir(tmp_path / "model")
    second = build_objective(
        RtdConfig(tying="gdes"), source.encoder.config, GeneratorConfig(layers=1), PretrainInitConfig(), source,
        source.tokenizer(), seed=1, card=str,
    )  # fmt: skip
    assert isinstance(second, Rtd)
    for mine, theirs in (
        (second.discriminator.encoder, first.discriminator.encoder),
        (second.generator.encoder, first.generator.encoder),
    ):
        expected = plain_state(theirs)
        for name, tensor in plain_state(mine).items():
            torch.testing.assert_close(tensor, expected[name], msg=name)
    tables = second.discriminator.encoder.embeddings.table, second.generator.encoder.embeddings.table
    assert not torch.allclose(*tables, atol=0.01)


def test_a_generator_of_other_sizes_is_told_with_the_settings_that_mend_it(
    training_of: Callable[..., Training], tmp_path: Path
) -> None:
    training_of("test-classic", "generator.width=0.5", "generator.layers=1").objective.export(tmp_path / "pair")
    training_of("test-classic", "phases.rtd.objective.type=mlm").objective.export(tmp_path / "alone")

    def fill(name: str, generator: GeneratorConfig) -> None:
        source = load_model_dir(tmp_path / name)
        build_objective(RtdConfig(tying="none"), source.encoder.config, generator, PretrainInitConfig(), source,
                        source.tokenizer(), seed=1, card=str)  # fmt: skip

    fill("pair", GeneratorConfig(width=0.5, layers=1))
    fill("alone", GeneratorConfig(width=1.0, layers=1))
    with pytest.raises(ElectraError, match=r"E-M452.*; set generator\.width=0\.5 generator\.layers=1$"):
        fill("pair", GeneratorConfig(width=1.0))
    with pytest.raises(ElectraError, match=r'E-M452.*; set generator\.width=1, or init\.generator="fresh"$'):
        fill("alone", GeneratorConfig(width=0.5, layers=1))
