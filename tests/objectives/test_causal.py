"""Causal language modelling: what is predicted from what, the mixture of steps, and what is exported."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from electra.contracts import Batch, Noise, Packed, Padded, Phase
from electra.models.model_dir import load_model_dir
from electra.objectives.causal import Causal
from electra.train.loop import Training

Build = Callable[..., Training]
SETTINGS = ('phases.rtd.objective={type="causal",masked_share=0.25}',)
CAUSAL, MASKED = Phase(name="causal", networks=("encoder",)), Phase(name="masked", networks=("encoder",))


@pytest.fixture(params=["test-classic", "test-modern"])
def training(request: pytest.FixtureRequest, training_of: Build) -> Training:
    built = training_of(request.param, *SETTINGS)
    built.module.eval()
    return built


def parts(training: Training) -> tuple[Causal, Batch, Noise]:
    [(batch, noise)] = training.loader.micro_batches(0, 0, 1)
    assert isinstance(training.objective, Causal)
    return training.objective, batch, noise


def test_the_loss_is_that_of_each_token_from_those_before_it_in_its_document(training: Training) -> None:
    objective, batch, noise = parts(training)
    encoder, head = objective.model.encoder, objective.model.head
    expected, count = 0.0, 0
    assert isinstance(batch.layout, Padded)
    for row, segments in zip(batch.tokens, batch.layout.segments, strict=True):
        for document in set(segments.tolist()) - {-1}:
            text = row[segments == document]  # alone, unpadded
            bounds = torch.tensor([0, len(text)], dtype=torch.int32)
            alone = Packed(cu_seqlens=bounds, max_seqlen=len(text), order="forward")
            hidden = encoder(text, torch.arange(len(text)), torch.zeros_like(text), alone)
            nll = F.cross_entropy(head(hidden[:-1], encoder.embeddings.table), text[1:], reduction="sum")
            expected, count = expected + float(nll.detach()), count + len(text) - 1
    losses = objective(batch, noise, CAUSAL)
    assert losses.terms["lm"].unit == "continued"
    assert float(losses.terms["lm"].total.detach()) == pytest.approx(expected, rel=1e-4)
    assert int(losses.totals["lm_tokens"]) == int(batch.counts["continued"]) == count


def test_steps_are_mixed_evenly(training: Training) -> None:
    objective, _, _ = parts(training)
    names = [objective.phases(step, 40)[0].name for step in range(40)]
    assert names.count("masked") == 10
    assert all(names[start : start + 4].count("masked") == 1 for start in range(0, 40, 4))


def test_what_comes_later_changes_no_prediction(training: Training) -> None:
    objective, batch, _ = parts(training)
    position = torch.arange(batch.tokens.numel())
    changed = batch.tokens.clone()
    changed[:, -1] = 7
    layout = dataclasses.replace(batch.layout, order="forward")
    said = [
        objective.model(batch, tokens, layout, position, batch.tokens.view(-1)).nll_N.view_as(batch.tokens)[:, :-1]
        for tokens in (batch.tokens, changed)
    ]
    torch.testing.assert_close(*said)


def test_a_masked_step_says_one_position_earlier(training: Training) -> None:
    objective, batch, noise = parts(training)
    drawn = batch.targets["drawn"].view(-1)
    used = (batch.targets["drawn_weight"].view(-1) > 0) & batch.layout.continued.view(-1)[drawn]
    tokens = batch.tokens.clone()
    tokens.view(-1)[drawn[batch.targets["is_mask"].view(-1)]] = objective.mask_id
    encoder, head = objective.model.encoder, objective.model.head
    hidden = encoder(tokens, batch.positions, torch.zeros_like(tokens), batch.layout).flatten(0, 1)
    logits = head(hidden[drawn[used] - 1], encoder.embeddings.table)
    expected = F.cross_entropy(logits, batch.tokens.view(-1)[drawn[used]], reduction="sum")
    torch.testing.assert_close(objective(batch, noise, MASKED).terms["masked"].total, expected, rtol=1e-4, atol=1e-4)


def test_a_masked_step_divides_by_what_it_says(training_of: Build) -> None:
    """Where a row begins within a document, nobody can say its first token; it is drawn all the same."""
    rate = "phases.rtd.objective.masking.rate=1.0"
    objective, batch, noise = parts(training_of("test-modern", *SETTINGS, "rows={type='packed',length=16}", rate))
    losses = objective(batch, noise, MASKED)
    count = batch.counts[losses.terms["masked"].unit]
    assert int(losses.totals["masked_tokens"]) == count < batch.counts["drawn"]


def test_what_is_exported_is_a_causal_model(training: Training, tmp_path: Path) -> None:
    objective, _, _ = parts(training)
    objective.export(tmp_path / "model")
    model = load_model_dir(tmp_path / "model")
    assert model.causal_head is not None
    assert model.mlm_head is None
    for name, tensor in objective.model.head.state_dict().items():
        assert torch.equal(model.causal_head.state_dict()[name], tensor)
