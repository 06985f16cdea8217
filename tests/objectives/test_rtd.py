"""Replaced token detection: labels, both terms, gradients between the networks, tying."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from electra.contracts import Batch, Losses, Noise
from electra.errors import ElectraError
from electra.objectives import masked, rtd
from electra.objectives.rtd import Rtd, RtdConfig
from electra.train.loop import Training

NO_DROPOUT = ("encoder.hidden_dropout_prob=0.0", "encoder.attention_probs_dropout_prob=0.0")
TYING = "phases.rtd.objective.tying"
SAME_SIZE = ("generator.width=1.0",)

Build = Callable[..., Training]


@dataclass(frozen=True)
class Seen:
    """What went through the discriminator in one forward pass."""

    corrupted: Tensor
    logits: Tensor
    losses: Losses


def parts(training: Training) -> tuple[Rtd, Batch, Noise]:
    [(batch, noise)] = training.loader.micro_batches(0, 0, 1)
    assert isinstance(training.objective, Rtd)
    return training.objective, batch, noise


def watch(objective: Rtd, batch: Batch, noise: Noise, progress: float = 0.0) -> Seen:
    corrupted, logits = list[Tensor](), list[Tensor]()

    def note(module: nn.Module, given: tuple[Batch, Tensor], out: tuple[Tensor, Tensor]) -> None:
        corrupted.append(given[1])
        logits.append(out[0])

    hook = objective.discriminator.register_forward_hook(note)
    phase = dataclasses.replace(objective.phases(0, 1)[0], progress=progress)
    losses = objective(batch, noise, phase)
    hook.remove()
    return Seen(corrupted=corrupted[0], logits=logits[0], losses=losses)


@contextmanager
def samples(monkeypatch: pytest.MonkeyPatch, given: Tensor) -> Iterator[None]:
    """The generator fills in `given`, int64 [N]."""

    def filled(*arguments: Any) -> masked.Filled:
        found = masked.fill(*arguments)
        return dataclasses.replace(found, guess=dataclasses.replace(found.guess, sampled_N=given))

    with monkeypatch.context() as patch:
        patch.setattr(rtd, "fill", filled)
        yield


@pytest.fixture
def classic(training_of: Build) -> Training:
    return training_of("test-classic", *NO_DROPOUT)


def drawn_places(batch: Batch) -> Tensor:
    """bool as tokens: drawn positions."""
    places = torch.zeros(batch.tokens.numel(), dtype=torch.bool)
    places[batch.targets["drawn"][batch.targets["drawn_weight"] > 0]] = True
    return places.view_as(batch.tokens)


# -- labels and terms ---------------------------------------------------------------------------------------------------


def test_replaced_is_what_was_sampled_and_differs(classic: Training) -> None:
    objective, batch, noise = parts(classic)
    seen = watch(objective, batch, noise)
    changed = seen.corrupted != batch.tokens
    assert bool(changed.any())
    assert not bool((changed & ~drawn_places(batch)).any()), "only drawn positions are filled"
    negatives, positives = seen.losses.totals["rtd_histogram"].sum(1).tolist()
    assert positives == int(changed.sum())
    assert negatives == int(batch.layout.real.sum()) - positives


def test_a_token_that_was_guessed_right_counts_as_original(classic: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    objective, batch, noise = parts(classic)
    originals = batch.tokens.view(-1)[batch.targets["drawn"].view(-1)]
    half = torch.arange(len(originals)) % 2 == 0
    wrong = torch.where(originals == 7, 8, 7)
    with samples(monkeypatch, originals):
        right = watch(objective, batch, noise)
    assert torch.equal(right.corrupted, batch.tokens)
    assert int(right.losses.totals["rtd_histogram"][1].sum()) == 0
    with samples(monkeypatch, torch.where(half, originals, wrong)):
        mixed = watch(objective, batch, noise)
    weight = batch.targets["drawn_weight"].view(-1)
    assert int(mixed.losses.totals["rtd_histogram"][1].sum()) == int(weight[~half].sum())


def test_the_term_is_the_bce_over_all_real_tokens(classic: Training) -> None:
    objective, batch, noise = parts(classic)
    real = batch.layout.real
    assert not bool(real.all()), "the batch has padding"
    seen = watch(objective, batch, noise)
    labels = (seen.corrupted != batch.tokens).float()
    expected = F.binary_cross_entropy_with_logits(seen.logits[real], labels[real], reduction="sum")
    term = seen.losses.terms["rtd"]
    torch.testing.assert_close(term.total, expected)
    assert (term.unit, term.weight) == ("tokens", 50.0)
    assert batch.counts["tokens"] == int(real.sum())
    gradient = torch.autograd.grad(term.total, seen.logits)[0]
    assert bool((gradient[~real] == 0).all()), "padding"
    # [CLS], [SEP] and all that was never drawn have a say
    assert bool((gradient[real] != 0).all())


def test_padding_changes_nothing(classic: Training) -> None:
    """The same rows with four more columns of padding, which holds other tokens."""
    objective, batch, noise = parts(classic)
    rows, length = batch.tokens.shape

    def wider(tensor: Tensor, value: int) -> Tensor:
        return F.pad(tensor, (0, 4), value=value)

    drawn = batch.targets["drawn"]
    targets = dict(batch.targets) | {
        "drawn": torch.where(batch.targets["drawn_weight"] > 0, drawn + drawn // length * 4, 0),
        "candidates": F.pad(batch.targets["candidates"], (0, 4)),
    }
    padded = dataclasses.replace(
        batch,
        tokens=wider(batch.tokens, 9),
        positions=wider(batch.positions, 0),
        types=wider(batch.types, 1),
        layout=dataclasses.replace(batch.layout, segments=wider(batch.layout.segments, -1), whole=False),  # type: ignore[call-arg, union-attr]
        targets=targets,
    )
    assert padded.tokens.shape == (rows, length + 4)
    narrow, wide = watch(objective, batch, noise), watch(objective, padded, noise)
    for name, term in narrow.losses.terms.items():
        torch.testing.assert_close(wide.losses.terms[name].total, term.total, rtol=1e-5, atol=1e-4)


def test_the_first_loss_is_ln_v_and_50_ln_2(classic: Training) -> None:
    objective, batch, noise = parts(classic)
    vocabulary = objective.generator.encoder.config.vocab_size
    figures = objective.summarise(watch(objective, batch, noise).losses.totals)
    assert figures["mlm_loss"] == pytest.approx(math.log(vocabulary), rel=0.02)
    assert figures["rtd_loss"] == pytest.approx(math.log(2), rel=0.1)
    nn.init.zeros_(objective.discriminator.head.output.weight)  # the bias is zero
    nn.init.zeros_(objective.generator.encoder.embeddings.table)
    figures = objective.summarise(watch(objective, batch, noise).losses.totals)
    assert figures["loss"] == pytest.approx(math.log(vocabulary) + 50 * math.log(2), rel=1e-6)


def test_the_weight_of_the_term_is_data(training_of: Build) -> None:
    losses = {}
    for weight in (1.0, 50.0):
        objective, batch, noise = parts(training_of("test-classic", *NO_DROPOUT, f"phases.rtd.objective.weight={weight}"))
        seen = watch(objective, batch, noise)
        losses[weight] = seen.losses.terms["rtd"]
        figures = objective.summarise(seen.losses.totals)
        assert figures["loss"] == pytest.approx(figures["mlm_loss"] + weight * figures["rtd_loss"])
    assert torch.equal(losses[1.0].total, losses[50.0].total)
    assert (losses[1.0].weight, losses[50.0].weight) == (1.0, 50.0)


def test_the_generator_trains_on_the_drawn_positions_only(classic: Training) -> None:
    objective, batch, noise = parts(classic)
    seen = watch(objective, batch, noise)
    assert seen.losses.terms["mlm"].unit == "drawn"
    assert float(seen.losses.totals["mlm_drawn"]) == batch.counts["drawn"] == float(drawn_places(batch).sum())
    assert sorted(seen.losses.terms) == ["mlm", "rtd"]


def test_a_row_of_special_tokens_alone(training_of: Build) -> None:
    """Nothing can be drawn; both figures stay defined."""
    objective, batch, noise = parts(training_of("test-classic", *NO_DROPOUT))
    targets = dict(batch.targets) | {"drawn_weight": torch.zeros_like(batch.targets["drawn_weight"])}
    seen = watch(objective, dataclasses.replace(batch, targets=targets), noise)
    assert torch.equal(seen.corrupted, batch.tokens)
    figures = objective.summarise(seen.losses.totals)
    assert figures["loss"] == pytest.approx(50 * figures["rtd_loss"])


# -- sampling -----------------------------------------------------------------------------------------------------------


def test_the_sample_belongs_to_the_row(training_of: Build) -> None:
    whole, halves = (training_of("test-classic", *NO_DROPOUT, micro_rows=rows) for rows in (8, 3))
    objective, batch, noise = parts(whole)
    together = watch(objective, batch, noise).corrupted
    apart = [watch(objective, b, n).corrupted for b, n in halves.loader.micro_batches(0, 0, 1)]
    assert torch.equal(torch.cat(apart), together)


def test_the_temperature_decays_to_one(training_of: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ("phases.rtd.objective.temperature=3.0", "phases.rtd.objective.temperature_decay=0.2")
    objective, batch, noise = parts(training_of("test-classic", *NO_DROPOUT, *settings))
    given: list[float] = []
    monkeypatch.setattr(rtd, "fill", lambda *arguments: given.append(arguments[-1]) or masked.fill(*arguments))
    for progress in (0.0, 0.2, 0.999):
        watch(objective, batch, noise, progress)
    assert given == pytest.approx([3.0, 1 + 2 * math.exp(-1), 1 + 2 * math.exp(-4.995)])
    assert [phase.progress for phase in objective.phases(30, 40)] == [0.75]


def test_the_temperature_flattens_what_is_sampled(classic: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    objective, batch, noise = parts(classic)
    with torch.no_grad():
        objective.generator.head.bias[11] = 6.0  # a generator that is rather sure
    shares = {}
    for temperature in (1.0, 10.0):
        objective.temperature = temperature
        shares[temperature] = float((watch(objective, batch, noise).corrupted[drawn_places(batch)] == 11).float().mean())
    assert shares[1.0] > 0.4
    assert shares[10.0] < 0.1


# -- gradients between the networks, tying ------------------------------------------------------------------------------


def gradients(loss: Tensor, module: nn.Module) -> dict[str, Tensor]:
    """Gradient by name of those parameters that have one, as far as it is not zero."""
    named = dict(module.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    return {name: grad for name, grad in zip(named, found, strict=True) if grad is not None and bool(grad.any())}


def test_no_gradient_flows_through_the_sample(training_of: Build) -> None:
    objective, batch, noise = parts(training_of("test-classic", *NO_DROPOUT, f"{TYING}=none"))
    losses = watch(objective, batch, noise).losses
    assert gradients(losses.terms["rtd"].total, objective.generator) == {}
    assert gradients(losses.terms["mlm"].total, objective.discriminator) == {}
    assert len(gradients(losses.terms["mlm"].total, objective.generator)) > 10
    assert len(gradients(losses.terms["rtd"].total, objective.discriminator)) > 10


def test_tied_embeddings_learn_from_both(classic: Training) -> None:
    objective, batch, noise = parts(classic)
    losses = watch(objective, batch, noise).losses
    for name in ("mlm", "rtd"):
        assert "encoder.embeddings.word_embeddings.weight" in gradients(losses.terms[name].total, objective.generator)
    alone = gradients(losses.terms["rtd"].total, objective.generator)
    assert all(name.startswith("encoder.embeddings.") for name in alone)


def test_with_gdes_the_rtd_term_leaves_the_generator_alone(training_of: Build) -> None:
    objective, batch, noise = parts(training_of("test-modern", f"{TYING}=gdes"))
    losses = watch(objective, batch, noise).losses
    assert gradients(losses.terms["rtd"].total, objective.generator) == {}
    learns = gradients(losses.terms["rtd"].total, objective.discriminator)
    difference = [name for name in learns if "delta" in name]
    assert difference, "the difference of the tables learns"
    assert gradients(losses.terms["mlm"].total, objective.discriminator) == {}
    table = objective.generator.encoder.embeddings.table
    assert torch.equal(objective.discriminator.encoder.embeddings.table, table), "the difference starts at 0"


def names_of(training: Training) -> dict[str, set[str]]:
    """Owned parameters by network."""
    return {network: set(owned) for network, owned in training.optimizers.parameters.items()}


def shares(training: Training) -> set[str]:
    """Names, in the discriminator, of parameters that the generator has, too."""
    objective = training.objective
    assert isinstance(objective, Rtd)
    generator = {id(parameter) for parameter in objective.generator.parameters()}
    return {name for name, parameter in objective.discriminator.named_parameters() if id(parameter) in generator}


def test_tying_says_which_parameters_exist(training_of: Build) -> None:
    def build(*tying: str) -> Training:
        return training_of("test-classic", *SAME_SIZE, *(f"phases.rtd.objective.{setting}" for setting in tying))

    none, embeddings, everything = build("tying=none"), build("tying=embeddings"), build("tying=all")
    lowest, gdes = build("tying=bottom-layers", "shared_layers=1"), build("tying=gdes")
    assert shares(none) == set()
    assert {name.split(".")[1] for name in shares(embeddings)} == {"embeddings"}
    assert {".".join(name.split(".")[1:3]) for name in shares(lowest) if ".layers." in name} == {"layers.0"}
    assert shares(everything) == {name for name in names_of(none)["discriminator"] if name.startswith("encoder.")}
    assert shares(gdes) == set()
    for tied in (embeddings, everything, lowest):
        owned = names_of(tied)
        assert owned["generator"] == names_of(none)["generator"], "the generator owns what is shared"
        assert owned["discriminator"] == names_of(none)["discriminator"] - shares(tied)
    assert any("delta" in name for name in names_of(gdes)["discriminator"])


def test_tying_and_number_of_layers_go_together() -> None:
    for wrong in ({"tying": "bottom-layers"}, {"tying": "embeddings", "shared_layers": 2}):
        with pytest.raises(ElectraError, match="E-C430"):
            RtdConfig(**wrong)  # type: ignore[arg-type]
    for temperature in (0.0, -1.0):
        with pytest.raises(ElectraError, match="E-C431"):
            RtdConfig(temperature=temperature)
