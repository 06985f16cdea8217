"""Masked language modelling: what is masked, where the loss lies, and what `put` writes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from electra.contracts import Batch, Noise
from electra.objectives.masked import fill, put, sampling_noise
from electra.objectives.mlm import Mlm
from electra.train.loop import Training

MLM = ("phases.rtd.objective.type=mlm",)
NO_DROPOUT = ("encoder.hidden_dropout_prob=0.0", "encoder.attention_probs_dropout_prob=0.0")


@pytest.fixture
def training(training_of: Callable[..., Training]) -> Training:
    return training_of("test-classic", *MLM, *NO_DROPOUT)


def first(training: Training) -> tuple[Mlm, Batch, Noise]:
    [(batch, noise)] = training.loader.micro_batches(0, 0, 1)
    assert isinstance(training.objective, Mlm)
    return training.objective, batch, noise


def test_the_loss_is_the_cross_entropy_at_the_drawn_positions(training: Training) -> None:
    objective, batch, noise = first(training)
    losses = objective(batch, noise, objective.phases(0, 1)[0])
    masked = batch.tokens.clone()
    drawn = [
        (row, int(place) - row * masked.shape[1])
        for row in range(len(masked))
        for place, weight in zip(batch.targets["drawn"][row], batch.targets["drawn_weight"][row], strict=True)
        if weight
    ]
    is_mask = [
        bool(m) for row, w in zip(batch.targets["is_mask"], batch.targets["drawn_weight"], strict=True) for m in row[w > 0]
    ]
    for (row, column), becomes_mask in zip(drawn, is_mask, strict=True):
        if becomes_mask:
            masked[row, column] = objective.mask_id
    model = objective.model
    hidden = model.encoder(masked, batch.positions, batch.types, batch.layout)
    logits = model.head(hidden, model.encoder.embeddings.table)
    expected = sum(F.cross_entropy(logits[row, column], batch.tokens[row, column]) for row, column in drawn)
    assert set(losses.terms) == {"mlm"}
    assert losses.terms["mlm"].unit == "drawn"
    assert batch.counts["drawn"] == len(drawn) == float(losses.totals["mlm_drawn"])
    torch.testing.assert_close(losses.terms["mlm"].total, expected, rtol=1e-5, atol=1e-4)


def test_what_is_not_drawn_has_no_say_in_the_loss(training: Training) -> None:
    """Other originals at positions that are masked change nothing but the target; filling places have weight 0."""
    objective, batch, noise = first(training)
    phase = objective.phases(0, 1)[0]
    loss = objective(batch, noise, phase).terms["mlm"].total
    filler = batch.targets["drawn_weight"] == 0
    moved = dict(batch.targets) | {"drawn": torch.where(filler, 5, batch.targets["drawn"])}
    torch.testing.assert_close(objective(dataclasses.replace(batch, targets=moved), noise, phase).terms["mlm"].total, loss)
    nothing = dict(batch.targets) | {"drawn_weight": torch.zeros_like(batch.targets["drawn_weight"])}
    empty = objective(dataclasses.replace(batch, targets=nothing), noise, phase)
    assert float(empty.terms["mlm"].total.detach()) == 0.0
    assert objective.summarise(empty.totals) == {"loss": 0.0}


def test_the_first_loss_is_ln_v(training: Training) -> None:
    objective, batch, noise = first(training)
    losses = objective(batch, noise, objective.phases(0, 1)[0])
    figures = objective.summarise(losses.totals)
    vocabulary = objective.model.encoder.config.vocab_size
    assert figures["loss"] == figures["mlm_loss"] == pytest.approx(math.log(vocabulary), rel=0.02)


def test_some_drawn_positions_keep_their_token(training_of: Callable[..., Training]) -> None:
    training = training_of("test-classic", *MLM, *NO_DROPOUT, "phases.rtd.objective.masking.mask_token_rate=0.0")
    objective, batch, _ = first(training)
    seen: list[torch.Tensor] = []
    objective.model.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    fill(objective.model, batch, objective.mask_id)
    assert torch.equal(seen[0], batch.tokens)


def test_put_writes_only_where_it_may() -> None:
    tokens = torch.tensor([[5, 6, 7], [8, 9, 10]])
    written = put(tokens, torch.tensor([1, 3, 0]), torch.tensor([50, 60, 70]), torch.tensor([True, True, False]))
    assert written.tolist() == [[5, 50, 7], [60, 9, 10]]
    assert tokens.tolist() == [[5, 6, 7], [8, 9, 10]]


def test_a_position_written_twice_gets_the_floor_of_the_mean() -> None:
    tokens = torch.arange(4)[None]
    places, values = torch.tensor([2, 2, 2, 1, 1, 1]), torch.tensor([10, 20, 21, 7, 8, 1000])
    where = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    assert put(tokens, places, values, where).tolist() == [[0, 7, 17, 3]]


def test_noise_belongs_to_the_row_and_not_to_the_micro_batch(training_of: Callable[..., Training]) -> None:
    whole = training_of("test-classic", *MLM, micro_rows=8).loader
    parts = training_of("test-classic", *MLM, micro_rows=3).loader
    [(batch, noise)] = whole.micro_batches(2, 0, 1)
    apart = [sampling_noise(n, b) for b, n in parts.micro_batches(2, 0, 1)]
    together = sampling_noise(noise, batch)
    assert torch.equal(torch.cat(apart), together)
    assert 0 <= float(together.min()) < float(together.max()) < 1


def test_a_phase_of_the_one_network(training: Training) -> None:
    assert isinstance(training.objective, Mlm)
    [phase] = training.objective.phases(5, 20)
    assert (phase.networks, phase.progress) == (("encoder",), 0.25)
    assert set(training.objective.networks) == {"encoder"}
