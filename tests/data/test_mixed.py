"""Labelled and unlabelled examples side by side: which step has which, and that nothing else depends on anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from electra.contracts import Encoded
from electra.data.loader import ExampleLoader
from electra.data.mixed import MixedLoader
from electra.errors import ElectraError
from electra.tasks.common import EncodedExamples

LABELLED, UNLABELLED = 10, 23


def examples(lengths: list[int], first: int, label: int) -> EncodedExamples:
    """The first token of an example is its number."""
    items = []
    for number, length in enumerate(lengths, start=first):
        tokens = np.full(length, number, dtype=np.int64)
        target = {"label": np.array(label, dtype=np.int64)}
        items.append(Encoded(tokens=tokens, types=np.zeros(length, np.int64), targets=target))
    return EncodedExamples(items)


@pytest.fixture
def loader() -> MixedLoader:
    chance = np.random.default_rng(0)
    labelled = ExampleLoader(
        examples=examples(chance.integers(3, 30, LABELLED).tolist(), 100, 1), pad_id=0, batch_examples=4, micro_tokens=8, seed=5
    )
    unlabelled = examples(chance.integers(3, 40, UNLABELLED).tolist(), 200, -100)
    return MixedLoader(labelled=labelled, unlabelled=replace(labelled, examples=unlabelled, batch_examples=6, seed=6))


def numbers(batch: Any) -> list[int]:
    return batch.tokens[:, 0].tolist()  # type: ignore[no-any-return]


def test_labelled_batches_and_steps_are_those_of_the_labelled_loader_alone(loader: MixedLoader) -> None:
    assert loader.steps_per_epoch == loader.labelled.steps_per_epoch == 3
    alone = replace(loader.labelled, micro_tokens=10_000)
    for step in range(7):
        [(batch, noise)] = loader.micro_batches(step, 0, 1)
        [(expected, own)] = alone.micro_batches(step, 0, 1)
        known = int(batch.counts["label"])
        assert numbers(batch)[:known] == numbers(expected)
        assert batch.targets["label"].tolist() == [1] * known + [-100] * (len(batch.tokens) - known)
        assert np.array_equal(noise.row_keys[:known], own.row_keys)
        assert len(set(noise.row_keys.tolist())) == len(batch.tokens) == batch.counts["examples"]
    assert loader.epochs(6) == {"labelled": 2.0, "unlabelled": 1.5}


def test_the_unlabelled_go_round_in_epochs_of_their_own(loader: MixedLoader) -> None:
    seen = [n for step in range(4) for batch, _ in loader.micro_batches(step, 0, 1) for n in numbers(batch) if n >= 200]
    assert sorted(seen) == list(range(200, 200 + UNLABELLED)), "23 of them in four steps of six"
    again = [n for step in range(4, 8) for batch, _ in loader.micro_batches(step, 0, 1) for n in numbers(batch) if n >= 200]
    assert sorted(again) == sorted(seen)
    assert again != seen


def test_a_step_is_the_union_of_what_its_processes_get_and_never_cut(loader: MixedLoader) -> None:
    for step in range(3):
        [(whole, _)] = loader.micro_batches(step, 0, 1)
        parts = [numbers(batch) for rank in range(2) for batch, _ in loader.micro_batches(step, rank, 2)]
        assert len(parts) == 2
        assert sorted(n for part in parts for n in part) == sorted(numbers(whole))
        assert whole.tokens.numel() <= loader.positions
        [(packed, _)] = replace(loader, labelled=replace(loader.labelled, packed=True)).micro_batches(step, 0, 1)
        assert torch.equal(packed.tokens, whole.tokens[whole.layout.real])
    with pytest.raises(ElectraError, match=r"E-R240 .*lower batch\.examples, objective\.unlabelled_examples"):
        loader.halved()
    batches = [batch for step in range(3) for batch, _ in loader.micro_batches(step, 0, 1)]
    real, positions = sum(batch.counts["tokens"] for batch in batches), sum(batch.tokens.numel() for batch in batches)
    assert loader.padding == pytest.approx(1 - real / positions)
