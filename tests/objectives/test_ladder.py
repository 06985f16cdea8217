"""The paper's ladder between masked language modelling and ELECTRA: what each rung reads, and where its loss lies."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from electra.contracts import Batch, Losses, Noise
from electra.events import EventLog
from electra.models import vocabulary
from electra.models.model_dir import load_model_dir
from electra.models.vocabulary import guess, guess_in_parts
from electra.objectives.all_tokens_mlm import AllTokensMlm, copying_nll
from electra.objectives.fixed_generator import FixedGenerator
from electra.objectives.masked import fill, put, sampling_noise
from electra.objectives.replace_mlm import ReplaceMlm
from electra.objectives.rtd import Rtd
from electra.train.loop import ObjectiveModule, Training, train
from electra.train.machine import StopFlag

NO_DROPOUT = ("encoder.hidden_dropout_prob=0.0", "encoder.attention_probs_dropout_prob=0.0")
OBJECTIVE = "phases.rtd.objective"

Build = Callable[..., Training]


def first(training: Training) -> tuple[Batch, Noise]:
    [(batch, noise)] = training.loader.micro_batches(0, 0, 1)
    return batch, noise


def losses_of(objective: ObjectiveModule, batch: Batch, noise: Noise) -> Losses:
    return objective(batch, noise, objective.phases(0, 1)[0])


def filled_by(generator: torch.nn.Module, batch: Batch, noise: Noise, mask_id: int) -> Tensor:
    """`batch.tokens` with the generator's samples."""
    sampled = fill(generator, batch, mask_id, sampling_noise(noise, batch)).guess.sampled_N  # type: ignore[arg-type]
    assert sampled is not None
    return put(batch.tokens, batch.targets["drawn"].view(-1), sampled, batch.targets["drawn_weight"].view(-1))


# -- ELECTRA 15 % -------------------------------------------------------------------------------------------------------


def test_the_loss_on_drawn_positions_is_the_mean_over_them(training_of: Build) -> None:
    training = training_of("test-classic", *NO_DROPOUT, f"{OBJECTIVE}.loss_on=drawn")
    objective, (batch, noise) = training.objective, first(training)
    assert isinstance(objective, Rtd)
    tokens = filled_by(objective.generator, batch, noise, objective.mask_id)
    logits, _ = objective.discriminator(batch, tokens)
    places = batch.targets["drawn"][batch.targets["drawn_weight"] > 0]
    labels = (tokens != batch.tokens).view(-1)[places].float()
    expected = F.binary_cross_entropy_with_logits(logits.view(-1)[places], labels)
    losses = losses_of(objective, batch, noise)
    term, count = losses.terms["rtd"], batch.counts["drawn"]
    assert term.unit == "drawn"
    torch.testing.assert_close(term.total / count, expected)
    figures = objective.summarise(losses.totals)
    assert figures["rtd_loss"] == pytest.approx(float(expected.detach()), rel=1e-5)
    assert figures["replaced_share"] == pytest.approx(float(labels.mean()))


# -- Replace MLM --------------------------------------------------------------------------------------------------------


def test_replace_mlm_reads_samples_and_predicts_the_originals(training_of: Build) -> None:
    training = training_of("test-classic", *NO_DROPOUT, f"{OBJECTIVE}.type=replace-mlm")
    objective, (batch, noise) = training.objective, first(training)
    assert isinstance(objective, ReplaceMlm)
    tokens, model = filled_by(objective.generator, batch, noise, objective.mask_id), objective.model
    assert objective.mask_id not in tokens
    hidden = model.encoder(tokens, batch.positions, batch.types, batch.layout)
    logits = model.head(hidden, model.encoder.embeddings.table).view(-1, model.encoder.config.vocab_size)
    places = batch.targets["drawn"][batch.targets["drawn_weight"] > 0]
    expected = F.cross_entropy(logits[places], batch.tokens.view(-1)[places])
    losses = losses_of(objective, batch, noise)
    assert {term.unit for term in losses.terms.values()} == {"drawn"}
    torch.testing.assert_close(losses.terms["replace_mlm"].total / batch.counts["drawn"], expected, rtol=1e-5, atol=1e-5)
    figures = objective.summarise(losses.totals)
    assert figures["encoder_loss"] == pytest.approx(float(expected.detach()), rel=1e-5)
    assert figures["loss"] == pytest.approx(figures["mlm_loss"] + figures["encoder_loss"])


# -- All-Tokens MLM -----------------------------------------------------------------------------------------------------


def test_all_tokens_mlm_is_the_mixture_of_copy_and_softmax(training_of: Build) -> None:
    training = training_of("test-classic", *NO_DROPOUT, f"{OBJECTIVE}.type=all-tokens-mlm")
    objective, (batch, noise) = training.objective, first(training)
    assert isinstance(objective, AllTokensMlm)
    real = batch.layout.real
    assert not bool(real.all()), "the batch has padding"
    tokens, copier = filled_by(objective.generator, batch, noise, objective.mask_id), objective.copier
    model = copier.model
    hidden = model.encoder(tokens, batch.positions, batch.types, batch.layout)
    softmax = torch.softmax(model.head(hidden, model.encoder.embeddings.table), -1)
    copies = torch.sigmoid(copier.gate(hidden))
    mixture = copies * F.one_hot(tokens, softmax.shape[-1]) + (1 - copies) * softmax
    expected = -mixture.gather(-1, batch.tokens[..., None])[..., 0].log()
    losses = losses_of(objective, batch, noise)
    term = losses.terms["all_tokens_mlm"]
    assert term.unit == "tokens"
    torch.testing.assert_close(term.total, expected[real].sum(), rtol=1e-5, atol=1e-4)
    figures = objective.summarise(losses.totals)
    places = batch.targets["drawn"][batch.targets["drawn_weight"] > 0]
    assert figures["token_loss"] == pytest.approx(float(expected[real].mean().detach()), rel=1e-5)
    assert figures["encoder_loss"] == pytest.approx(float(expected.view(-1)[places].mean().detach()), rel=1e-5)


def test_the_mixture_keeps_its_digits_at_both_ends() -> None:
    gate = torch.tensor([200.0, 200.0, -200.0, -200.0], requires_grad=True)
    nll = torch.tensor([300.0, 300.0, 300.0, 1e-6], requires_grad=True)
    found = copying_nll(gate, nll, torch.tensor([True, False, True, True]))
    torch.testing.assert_close(found.detach(), torch.tensor([0.0, 500.0, 200.0, 1e-6]), rtol=1e-5, atol=1e-7)
    found.sum().backward()
    assert gate.grad is not None
    assert nll.grad is not None
    torch.testing.assert_close(gate.grad, torch.tensor([0.0, 1.0, -1.0, 0.0]), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(nll.grad, torch.tensor([0.0, 1.0, 0.0, 1.0]), atol=1e-5, rtol=0.0)


def test_in_parts_everything_is_as_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, table, bias = (torch.randn(*shape, generator=generator) for shape in ((50, 8), (300, 8), (300,)))
    target = torch.randint(0, 300, (50,), generator=generator)
    whole, parts = ([x.clone().requires_grad_() for x in (hidden, table, bias)] for _ in range(2))
    at_once, apart = guess(*whole, target), guess_in_parts(*parts, target, size=16)
    torch.testing.assert_close(apart.nll_N, at_once.nll_N)
    assert torch.equal(apart.correct_N, at_once.correct_N)
    for found in (at_once, apart):
        (found.nll_N * torch.linspace(0, 1, 50)).sum().backward()
    for left, right in zip(parts, whole, strict=True):
        torch.testing.assert_close(left.grad, right.grad)


def test_no_logits_are_kept_between_the_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part is computed anew, on its own, for the gradient."""
    made: list[torch.Size] = []
    original = vocabulary._Guess.forward

    def watched(ctx: Any, hidden: Tensor, *rest: Any) -> Any:
        made.append(hidden.shape)
        return original(ctx, hidden, *rest)

    monkeypatch.setattr(vocabulary._Guess, "forward", staticmethod(watched))
    hidden, table = torch.randn(400, 4, requires_grad=True), torch.randn(5000, 4, requires_grad=True)
    found = guess_in_parts(hidden, table, torch.zeros(5000), torch.zeros(400, dtype=torch.long), size=20)
    assert made == [torch.Size((20, 4))] * 20
    found.nll_N.sum().backward()
    assert made == [torch.Size((20, 4))] * 40


# -- generators without weights -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("distribution", ["unigram", "uniform"])
def test_a_fixed_generator_draws_as_it_says(training_of: Build, distribution: str) -> None:
    training = training_of("test-classic", f"{OBJECTIVE}.type=fixed-generator", f"{OBJECTIVE}.distribution={distribution}")
    objective, (batch, noise) = training.objective, first(training)
    assert isinstance(objective, FixedGenerator)
    samples = objective.sample((torch.arange(200_000) + 0.5) / 200_000)
    size = len(objective.cumulated_V)
    counts = torch.bincount(samples, minlength=size).double()
    specials = [0, 1, 2, 3, 4]
    assert counts[specials].sum() == 0
    if distribution == "uniform":
        assert counts[5:].min() > 0
        assert counts[5:].max() / counts[5:].min() == pytest.approx(1, rel=0.02)
    else:
        batches = [batch for step in range(20) for batch, _ in training.loader.micro_batches(step, 0, 1)]
        seen = torch.bincount(torch.cat([each.tokens[each.layout.real] for each in batches]), minlength=size).double()
        seen[specials] = 0
        assert float((counts / counts.sum() - seen / seen.sum()).abs().sum()) < 0.15, "other rows, the same corpus"
    assert int(objective.sample(torch.tensor([1 - 2.0**-24]))) < size
    changed = int(losses_of(objective, batch, noise).totals["rtd_histogram"][1].sum())
    assert 0 < changed <= batch.counts["drawn"]
    assert set(objective.networks) == {"discriminator"}


# -- all of them --------------------------------------------------------------------------------------------------------

RUNGS = {
    "electra-15": [f"{OBJECTIVE}.loss_on=drawn"],
    "replace-mlm": [f"{OBJECTIVE}.type=replace-mlm"],
    "all-tokens-mlm": [f"{OBJECTIVE}.type=all-tokens-mlm"],
    "unigram": [f"{OBJECTIVE}.type=fixed-generator"],
}


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("recipe", ["test-classic", "test-modern"])
def test_micro_batches_and_the_packed_layout_change_nothing(training_of: Build, recipe: str, rung: str) -> None:
    dropout = NO_DROPOUT if recipe == "test-classic" else ()
    events: dict[str, dict[str, float]] = {}
    for name, micro_rows, packed in (("whole", 8, False), ("parts", 3, False), ("packed", 3, True)):
        t = training_of(recipe, *dropout, *RUNGS[rung], "loop.log_steps=1", steps=2, micro_rows=micro_rows)
        t.loader = dataclasses.replace(t.loader, packed=packed)  # type: ignore[type-var]
        seen: list[dict[str, float]] = []
        t.log = EventLog(None, [lambda event, seen=seen: seen.append(event["figures"]) if event["event"] == "step" else None])
        train(t, None, StopFlag())
        apart = ("drawn_at", "position", "token_rms")  # which the layout and the number of rows change
        events[name] = {
            figure: value
            for figure, value in seen[-1].items()
            if not figure.startswith(apart) and isinstance(value, float)  # not "NaN"
        }
        assert math.isfinite(events[name]["loss"])
    assert events["parts"] == pytest.approx(events["whole"], abs=1e-4, rel=1e-5)
    assert events["packed"] == pytest.approx(events["whole"], abs=1e-4, rel=1e-5)


@pytest.mark.parametrize("tying", ["none", "embeddings", "all"])
@pytest.mark.parametrize("rung", ["replace-mlm", "all-tokens-mlm"])
def test_what_is_exported_has_both_language_models(training_of: Build, tmp_path: Path, rung: str, tying: str) -> None:
    t = training_of("test-classic", f"{OBJECTIVE}.type={rung}", f"{OBJECTIVE}.tying={tying}", "generator.width=1.0")
    shared = {id(p) for p in t.objective.networks["generator"].parameters()} & {
        id(p) for p in t.objective.networks["encoder"].parameters()
    }
    assert (len(shared) > 0) == (tying != "none")
    assert (len(shared) > 10) == (tying == "all")
    t.objective.export(tmp_path / "model")
    saved = load_model_dir(tmp_path / "model")
    assert saved.mlm_head is not None
    assert saved.generator is not None
