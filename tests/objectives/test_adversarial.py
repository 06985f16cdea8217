"""The adversarial generator: both estimators against exact gradients, which network learns from what, ratio, resume."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from electra.contracts import Batch, Noise, Padded, Phase
from electra.data.masking import MaskingConfig
from electra.errors import ElectraError, Preempted
from electra.events import Event, EventLog
from electra.models.classic import ClassicConfig, ClassicEncoder
from electra.models.heads import MlmHead, RtdHead
from electra.models.model_dir import Provenance
from electra.objectives.adversarial import (
    Adversarial,
    AdversarialConfig,
    GumbelSoftmaxConfig,
    Policy,
    relaxed_sample,
)
from electra.objectives.detection import Discriminator, corrupt, detect
from electra.objectives.electric import ElectricConfig
from electra.objectives.masked import fill
from electra.objectives.rtd import RtdConfig
from electra.train.checkpoint import Checkpoints, own_tensors
from electra.train.loop import Training, train
from electra.train.machine import StopFlag

Build = Callable[..., Training]

VOCABULARY, MASK, TARGET, PLACE = 5, 4, 1, 2
BOTH = Phase(name="both", networks=("generator", "discriminator"))
NO_DROPOUT = ("encoder.hidden_dropout_prob=0.0", "encoder.attention_probs_dropout_prob=0.0")
ESTIMATORS = ("reinforce", "gumbel-softmax")


def settings(estimator: str, *more: str) -> list[str]:
    own = ["type=adversarial", f"estimator={estimator}", *more]
    return ["phases.rtd.optimizer.warmup_ratio=0.0", *(f"phases.rtd.objective.{setting}" for setting in own)]


# -- exact gradients on a vocabulary of 5 ---------------------------------------------------------------------------------


class Given(Noise):
    """The same number everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__(np.zeros(1, np.uint64))
        self.value = value

    def uniform(self, name: str, width: int) -> npt.NDArray[np.float32]:
        return np.full((1, width), self.value, np.float32)


@dataclass(frozen=True)
class Tiny:
    """Networks in fp64 over five tokens, and one text with one drawn position."""

    objective: Adversarial
    generator: Policy
    batch: Batch


def tiny(config: AdversarialConfig) -> Tiny:
    torch.manual_seed(0)
    sizes = ClassicConfig(
        vocab_size=VOCABULARY, embedding_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=12, max_position_embeddings=8, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        initializer_range=0.5,
    )  # fmt: skip
    generator = Policy(ClassicEncoder(sizes), MlmHead(sizes))
    nn.init.normal_(generator.baseline)
    discriminator = Discriminator(ClassicEncoder(sizes), RtdHead(sizes))
    objective = Adversarial(generator, discriminator, config, MASK, cast(Provenance, None)).double()
    tokens = torch.tensor([[2, 0, TARGET, 3, 0, 2]])
    batch = Batch(
        tokens=tokens, positions=torch.arange(6)[None], types=torch.zeros_like(tokens),
        layout=Padded(segments=torch.zeros_like(tokens), whole=True), counts={"drawn": 1.0, "tokens": 6.0},
        targets={"drawn": torch.tensor([[PLACE, 0]]), "drawn_weight": torch.tensor([[1.0, 0.0]]),
                 "is_mask": torch.tensor([[True, False]]), "candidates": tokens != 2},
    )  # fmt: skip
    return Tiny(objective=objective, generator=generator, batch=batch)


def logits_of(generator: Policy, batch: Batch) -> Tensor:
    """[V], at the drawn position, by the plain head."""
    masked = batch.tokens.clone()
    masked[0, PLACE] = MASK
    hidden = generator.encoder(masked, batch.positions, batch.types, batch.layout)[0, PLACE]
    found: Tensor = generator.head(hidden, generator.encoder.embeddings.table)
    return found


def gradients(loss: Tensor, module: nn.Module) -> dict[str, Tensor]:
    """By name, of those parameters that have one that is not zero."""
    named = dict(module.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    return {name: grad for name, grad in zip(named, found, strict=True) if grad is not None and bool(grad.any())}


def test_the_policy_gradient_is_the_enumerated_one() -> None:
    """Averaged over all five tokens with their exact probabilities, the estimator is the gradient of the expected reward."""
    given = tiny(AdversarialConfig())
    probability = torch.softmax(logits_of(given.generator, given.batch), 0)
    upper = probability.detach().cumsum(0)
    expected_reward, estimate, tokens = torch.zeros((), dtype=torch.float64), dict[str, Tensor](), set[int]()
    for token in range(VOCABULARY):
        losses = given.objective(given.batch, Given(float(upper[token] - probability[token].detach() / 2)), BOTH)
        corrupted = corrupt(given.batch, torch.tensor([token, 0]))
        reward = detect(given.objective.discriminator, given.batch, corrupted).loss[0, PLACE].detach()
        assert float(losses.totals["reward"]) == pytest.approx(float(reward), rel=1e-6)
        tokens.add(token)
        expected_reward = expected_reward + probability[token] * reward
        for name, grad in gradients(losses.terms["adversarial"].total, given.generator).items():
            estimate[name] = estimate.get(name, 0) + probability[token].detach() * grad
    exact = gradients(-expected_reward, given.generator)
    assert len(exact) > 10
    assert set(exact) <= set(estimate)
    for name, grad in estimate.items():
        torch.testing.assert_close(grad, exact.get(name, torch.zeros_like(grad)), rtol=1e-6, atol=1e-9)


def test_the_baseline_learns_the_probability_of_the_truth() -> None:
    """Cross entropy between sigmoid(w . h) and exp(-R); the hidden states get no gradient."""
    given = tiny(AdversarialConfig())
    losses = given.objective(given.batch, Given(0.5), BOTH)
    filled = fill(given.generator, given.batch, MASK)
    logit, truth = filled.hidden_ND[0] @ given.generator.baseline, (-losses.totals["reward"]).exp()
    by_hand = -truth * F.logsigmoid(logit) - (1 - truth) * F.logsigmoid(-logit)
    assert float(losses.terms["baseline"].total.detach()) == pytest.approx(float(by_hand.detach()), rel=1e-6)
    found = gradients(losses.terms["baseline"].total, given.generator)
    assert list(found) == ["baseline"]
    expected = (torch.sigmoid(logit) - truth) * filled.hidden_ND[0]
    torch.testing.assert_close(found["baseline"], expected.detach(), rtol=1e-6, atol=1e-9)


def test_the_straight_through_gradient_is_that_of_a_relaxed_one_hot() -> None:
    """One hot + soft - soft.detach(), multiplied out by hand."""
    temperature = 0.7
    given = tiny(AdversarialConfig(estimator=GumbelSoftmaxConfig(temperature=temperature)))
    noise = Noise(np.array([11], np.uint64))
    losses = given.objective(given.batch, noise, BOTH)
    # the noise is made of 1 - u, which is as uniform as u
    gumbel = -torch.log(-torch.log1p(-torch.from_numpy(noise.uniform("gumbel 0", VOCABULARY)[0]).double()))
    noisy = logits_of(given.generator, given.batch) + gumbel
    soft, token = torch.softmax(noisy / temperature, 0), int(noisy.argmax())
    one_hot = F.one_hot(torch.tensor(token), VOCABULARY) + soft - soft.detach()
    discriminator, tokens = given.objective.discriminator, given.batch.tokens.clone()
    tokens[0, PLACE] = token
    parts = discriminator.encoder.embeddings
    table = parts.look_up(tokens, given.batch.positions, given.batch.types).detach()
    shifted = table.clone()
    shifted[0, PLACE] = table[0, PLACE] - parts.table[token].detach() + one_hot @ parts.table.detach()
    hidden = discriminator.encoder(
        tokens, given.batch.positions, given.batch.types, given.batch.layout, embeddings=parts.norm(shifted)
    )
    label = torch.tensor(float(token != TARGET), dtype=torch.float64)
    reward = F.binary_cross_entropy_with_logits(discriminator.head(hidden)[0, PLACE], label)
    expected, found = gradients(-reward, given.generator), gradients(losses.terms["adversarial"].total, given.generator)
    assert len(expected) > 10
    assert set(found) == set(expected)
    for name, grad in found.items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-4, atol=1e-7)
    assert float(losses.terms["adversarial"].total.detach()) == pytest.approx(-float(reward.detach()), rel=1e-5)


def test_relaxed_samples_follow_the_distribution() -> None:
    """4,000 rows of one text; 18.5 is exceeded once in a thousand times by chance (4 degrees of freedom)."""
    given = tiny(AdversarialConfig(estimator=GumbelSoftmaxConfig()))
    filled = fill(given.generator, given.batch, MASK)
    rows = 4000
    many = Batch(
        tokens=given.batch.tokens, positions=given.batch.positions, types=given.batch.types, layout=given.batch.layout,
        targets={"drawn": torch.zeros(rows, 1, dtype=torch.long)},
    )  # fmt: skip
    hidden, noise = filled.hidden_ND[:1].expand(rows, -1), Noise(np.arange(rows, dtype=np.uint64))
    table = given.objective.discriminator.encoder.embeddings.table
    sample = relaxed_sample(given.generator, hidden, table, many, noise, 1.0)
    probability = torch.softmax(logits_of(given.generator, given.batch), 0).detach()
    counts = torch.bincount(sample.token_N, minlength=VOCABULARY)
    expected = probability * rows
    assert float(((counts - expected).square() / expected).sum()) < 18.5
    assert float(sample.nll_N.mean()) == pytest.approx(float(-(probability * probability.log()).sum()), rel=0.05)


# -- which network learns from what ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("tying", ["none", "gdes", "embeddings"])
@pytest.mark.parametrize("recipe", ["test-classic", "test-modern"])
def test_each_term_reaches_its_own_network(training_of: Build, estimator: str, tying: str, recipe: str) -> None:
    size = ["generator.width=1.0"] if recipe == "test-modern" else []
    training = training_of(recipe, *size, *settings(estimator, f"tying={tying}", "mle_weight=1"))
    objective = training.objective
    assert isinstance(objective, Adversarial)
    [(batch, noise)] = training.loader.micro_batches(0, 0, 1)
    losses = objective(batch, noise, BOTH)
    shared = {id(p) for p in objective.generator.parameters()} & {id(p) for p in objective.discriminator.parameters()}
    own = {name for name, p in objective.discriminator.named_parameters() if id(p) not in shared}
    for name in {"mlm", "adversarial", "baseline"} & set(losses.terms):
        assert not own & set(gradients(losses.terms[name].total, objective.discriminator)), name
        assert gradients(losses.terms[name].total, objective.generator)
    assert len(gradients(losses.terms["rtd"].total, objective.discriminator)) > 10
    leaked = set(gradients(losses.terms["rtd"].total, objective.generator))
    assert bool(leaked) == (tying == "embeddings")
    assert all(name.startswith("encoder.embeddings.") for name in leaked)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_network_that_is_not_updated_has_no_terms(training_of: Build, estimator: str) -> None:
    training = training_of("test-classic", *settings(estimator, "mle_weight=0.5", "tying=none"))
    objective = training.objective
    [(batch, noise)] = training.loader.micro_batches(0, 0, 1)
    for network, terms in (("generator", {"mlm", "adversarial"}), ("discriminator", {"rtd"})):
        losses = objective(batch, noise, Phase(name=network, networks=(network,)))
        assert set(losses.terms) - {"baseline"} == terms
        torch.stack([term.total for term in losses.terms.values()]).sum().backward()  # type: ignore[no-untyped-call]
        got = {name for name, module in objective.networks.items() if any(p.grad is not None for p in module.parameters())}
        assert got == {network}
        training.optimizers.zero_grad()


# -- the loop -------------------------------------------------------------------------------------------------------------


def run(training: Training, stop: StopFlag | None = None) -> list[Event]:
    events: list[Event] = []
    training.log = EventLog(None, [events.append])
    train(training, None, stop or StopFlag())
    return [event for event in events if event["event"] == "step"]


def weights(training: Training) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in own_tensors(training.module).items()}


@pytest.mark.parametrize(("slow", "fast"), [("generator", "discriminator"), ("discriminator", "generator")])
def test_the_ratio_says_which_network_moves(training_of: Build, slow: str, fast: str) -> None:
    ratio = settings("reinforce", f"{slow}_every=3", "tying=none")
    training = training_of("test-classic", *ratio, "loop.log_steps=1", "phases.rtd.optimizer.weight_decay=0.0", steps=5)
    seen: list[dict[str, Tensor]] = []
    hook = training.module.register_forward_hook(lambda *given: seen.append(weights(training)))
    steps = run(training)
    hook.remove()
    moved = [
        {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        for before, after in zip(seen, [*seen[1:], weights(training)], strict=True)
    ]
    assert moved == [{slow, fast}, {fast}, {fast}, {slow, fast}, {fast}]
    assert [slow in step["grad_norm"] for step in steps] == [True, False, False, True, False]


def test_a_log_line_has_the_last_gradient_norm_of_every_network(training_of: Build) -> None:
    ratio = settings("reinforce", "generator_every=3", "tying=none")
    single = run(training_of("test-classic", *ratio, "loop.log_steps=1", steps=5))
    [line] = run(training_of("test-classic", *ratio, "loop.log_steps=5", steps=5))
    assert line["grad_norm"]["generator"] == pytest.approx(single[3]["grad_norm"]["generator"], rel=1e-6)
    assert line["grad_norm"]["discriminator"] == pytest.approx(single[4]["grad_norm"]["discriminator"], rel=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_micro_batches_change_nothing(training_of: Build, estimator: str) -> None:
    given = [*NO_DROPOUT, *settings(estimator, "mle_weight=0.5"), "generator.width=1.0", "loop.log_steps=1"]
    whole, parts = (training_of("test-classic", *given, steps=3, micro_rows=rows) for rows in (8, 3))
    for left, right in zip(run(whole), run(parts), strict=True):
        assert right["figures"] == pytest.approx(left["figures"], abs=2e-5, rel=1e-5)
        assert right["grad_norm"] == pytest.approx(left["grad_norm"], rel=1e-4)
    assert max(float((a - b).abs().max()) for a, b in zip(weights(whole).values(), weights(parts).values(), strict=True)) < 1e-5


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_resumed_run_equals_an_uninterrupted_one(training_of: Build, tmp_path: Path, estimator: str) -> None:
    """Stopped between two updates of the generator, and between two log lines."""
    given = [*settings(estimator, "mle_weight=0.5", "generator_every=2", "tying=none"), "loop.log_steps=4"]

    def fresh() -> Training:
        training = training_of("test-classic", *given, steps=4)
        training.checkpoints = Checkpoints(tmp_path, keep=1)
        return training

    whole = training_of("test-classic", *given, steps=4)
    [expected] = run(whole)
    first, stop, calls = fresh(), StopFlag(), iter(range(100))

    def ask(*given: object) -> None:
        stop.requested = next(calls) == 2

    first.module.register_forward_hook(ask)
    with pytest.raises(Preempted):
        run(first, stop)
    second, events = fresh(), list[Event]()
    assert second.checkpoints is not None
    found = second.checkpoints.newest_state(pytest.fail)
    assert found is not None
    assert found[1].step == 3
    second.checkpoints.load(found[0], second.module, second.optimizers)
    second.log = EventLog(None, [events.append])
    train(second, found[1], StopFlag())
    [line] = [event for event in events if event["event"] == "step"]
    assert (line["figures"], line["grad_norm"]) == (expected["figures"], expected["grad_norm"])
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(second)[name]), name


def test_figures(training_of: Build) -> None:
    """A fresh generator is nearly uniform, a fresh discriminator nearly undecided."""
    training = training_of("test-classic", *settings("reinforce", "mle_weight=0.5"))
    assert isinstance(training.objective, Adversarial)
    [(batch, noise)] = training.loader.micro_batches(0, 0, 1)
    figures = training.objective.summarise(training.objective(batch, noise, BOTH).totals)
    size = training.objective.generator.encoder.config.vocab_size
    assert figures["generator_entropy"] == pytest.approx(math.log(size), rel=0.03)
    assert figures["reward"] == pytest.approx(math.log(2), rel=0.2)
    expected = 0.5 * figures["mlm_loss"] - figures["reward"] + 50 * figures["rtd_loss"]
    assert figures["loss"] == pytest.approx(expected, rel=1e-6)
    assert "generator_loss" not in figures


def test_without_likelihood_the_reward_is_the_generators_loss(training_of: Build) -> None:
    training = training_of("test-classic", *settings("reinforce"))
    [(batch, noise)] = training.loader.micro_batches(0, 0, 1)
    figures = training.objective.summarise(training.objective(batch, noise, BOTH).totals)
    assert figures["generator_loss"] == -figures["reward"]
    assert "mlm_loss" in figures


@pytest.mark.parametrize(
    ("code", "build"),
    [
        ("E-C520", lambda: GumbelSoftmaxConfig(temperature=0.0)),
        ("E-C521", lambda: AdversarialConfig(mle_weight=-1.0)),
        ("E-C521", lambda: AdversarialConfig(weight=-1.0)),
        ("E-C521", lambda: RtdConfig(weight=-1.0)),
        ("E-C521", lambda: ElectricConfig(weight=-1.0)),
        ("E-C522", lambda: AdversarialConfig(generator_every=2, discriminator_every=2)),
        ("E-C522", lambda: AdversarialConfig(generator_every=0)),
        ("E-C560", lambda: AdversarialConfig(masking=MaskingConfig(with_replacement=True))),
    ],
)
def test_settings_that_make_no_sense(code: str, build: Callable[[], object]) -> None:
    with pytest.raises(ElectraError, match=code):
        build()
