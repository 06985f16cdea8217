"""Batches that grow: the rows of each step, what came before, and a loader that takes every row once an epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from electra.build.pretrain import PretrainRecipe, Setting
from electra.config import load
from electra.data.loader import PretrainLoader
from electra.data.step_rows import BatchConfig, StepRows
from electra.errors import ElectraError
from electra.train.loop import Span, Training

Build = Callable[..., Training]
GROWING = ("batch.rows=8", "batch.first_rows=2")


@pytest.mark.parametrize("steps", [1, 3, 4, 10, 97])
@pytest.mark.parametrize("first", [None, 1, 2, 4, 8])
def test_rows_rise_to_the_batch_and_are_counted(first: int | None, steps: int) -> None:
    rows = StepRows(rows=8, first_rows=first, steps=steps)
    each = [rows.at(step) for step in range(steps)]
    assert each == sorted(each)
    assert each[0] == (first or 8)
    assert [rows.before(step) for step in range(steps + 1)] == [sum(each[:step]) for step in range(steps + 1)]
    if steps >= 8:
        assert each[-1] == 8
        assert len(set(each)) == 8 // (first or 8)


@pytest.mark.parametrize("first", [0, 3, 16])
def test_a_batch_that_cannot_grow(first: int) -> None:
    with pytest.raises(ElectraError, match="E-C553"):
        BatchConfig(rows=8, first_rows=first)


def loader_of(training: Training) -> PretrainLoader:
    assert isinstance(training.loader, PretrainLoader)
    return training.loader


def test_every_row_comes_once_in_an_epoch(training_of: Build) -> None:
    loader = loader_of(training_of("test-modern", *GROWING, steps=400, micro_rows=3))
    source, seen, keys, step = loader.mixture.sources[0], 0, list[int](), 0
    while seen < len(source.rows):
        for batch, noise in loader.micro_batches(step, 0, 1):
            assert len(batch.tokens) <= 3
            keys += noise.row_keys.tolist()
            seen += int(batch.counts["rows"])
        step += 1
        assert loader.epochs(step)["corpus"] * len(source.rows) == pytest.approx(seen)
    assert len(set(keys[: len(source.rows)])) == len(source.rows)


def test_two_processes_share_each_step(training_of: Build) -> None:
    loader = loader_of(training_of("test-modern", *GROWING, steps=12, micro_rows=8))
    for step in (0, 5, 11):
        [(whole, _)] = loader.micro_batches(step, 0, 1)
        parts = [batch.tokens for rank in range(2) for batch, _ in loader.micro_batches(step, rank, 2)]
        assert torch.equal(torch.cat(parts), whole.tokens)
    with pytest.raises(ElectraError, match="E-C242"):
        list(loader.micro_batches(0, 0, 4))


def test_phases_take_the_rows_one_after_the_other(corpus_dir: Path) -> None:
    """The plan's epochs are those of the rows that the phases take: 2 + 4 + 6 + 8, three steps each, twice."""
    settings = [
        f"corpus.path={corpus_dir}",
        "run.dir=nowhere",
        *GROWING,
        "stop.steps=24",
        "phases.mlm.share=1",
        "phases.rtd.share=1",
    ]
    setting = Setting(load(PretrainRecipe, ["test-modern"], settings))
    survey = setting.survey(0.0)
    count = len(setting.corpora.mixture.sources[0].rows)
    assert [phase.epochs["corpus"] * count for phase in survey.phases] == pytest.approx([60, 60])
    second = setting.training(Span(name="rtd", first=12, steps=12), None, 8, False, card=str, first_row=60)
    ordered = np.concatenate([noise.row_keys for step in range(12) for _, noise in second.loader.micro_batches(step, 0, 1)])
    assert ordered.tolist() == setting.corpora.mixture.at(np.arange(60, 120)).noise_keys.tolist()
