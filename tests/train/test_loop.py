"""The loop with real networks, loaders and optimisers; faults are injected by hooks on the objective."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from electra.contracts import Batch, Losses, Noise, Objective, Padded, Phase, Term
from electra.errors import ElectraError, ExitCode, Preempted
from electra.events import Event, EventLog
from electra.train import guard
from electra.train.checkpoint import Checkpoints, own_tensors
from electra.train.loop import LoopConfig, Span, Training, train
from electra.train.machine import StopFlag, is_out_of_memory
from electra.train.optim import AdamWConfig, Optimizers
from electra.train.selection import Evaluation

NO_DROPOUT = ("encoder.hidden_dropout_prob=0.0", "encoder.attention_probs_dropout_prob=0.0")
# a rate above 0 from the first update on
AT_ONCE = ("phases.rtd.optimizer.warmup_ratio=0.0", "phases.rtd.optimizer.lr=1e-3")

Build = Callable[..., Training]


@pytest.fixture
def build(training_of: Build) -> Build:
    return lambda *settings, **given: training_of("test-classic", *AT_ONCE, "loop.log_steps=1", *settings, **given)


def run(training: Training, stop: StopFlag | None = None) -> list[Event]:
    """The events of a run from its first step."""
    events: list[Event] = []
    training.log = EventLog(None, [events.append])
    train(training, None, stop or StopFlag())
    return events


def named(events: list[Event], name: str) -> list[Event]:
    return [event for event in events if event["event"] == name]


def weights(training: Training) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in own_tensors(training.module).items()}


def largest_difference(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def on_forward(training: Training, act: Callable[[int, Batch, Losses], Losses | None]) -> None:
    """Call `act` with the number of each forward pass (from 0), its batch and its losses; it may return others."""
    calls = iter(range(1_000_000))
    training.module.register_forward_hook(lambda module, given, losses: act(next(calls), given[0], losses))


def scaled(losses: Losses, factor: float) -> Losses:
    terms = {name: dataclasses.replace(term, total=term.total * factor) for name, term in losses.terms.items()}
    return Losses(terms=terms, totals=losses.totals)


# -- accumulation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("micro_rows", [5, 3, 1])
@pytest.mark.parametrize("recipe", ["test-classic", "test-modern"])
def test_micro_batches_change_nothing(training_of: Build, recipe: str, micro_rows: int) -> None:
    """10 rows at once and in micro-batches, the last of which has 1 row of 3; pair rows have different numbers of tokens."""
    settings = (*AT_ONCE, "loop.log_steps=1", "batch.rows=10", *(NO_DROPOUT if recipe == "test-classic" else ()))
    whole = training_of(recipe, *settings, steps=4, micro_rows=10)
    parts = training_of(recipe, *settings, steps=4, micro_rows=micro_rows)
    assert len(list(parts.loader.micro_batches(0, 0, 1))) == math.ceil(10 / micro_rows)
    together, apart = (named(run(training), "step") for training in (whole, parts))
    for left, right in zip(together, apart, strict=True):
        assert right["figures"] == pytest.approx(left["figures"], abs=2e-5, rel=1e-6)
        assert right["grad_norm"] == pytest.approx(left["grad_norm"], rel=2e-5)
        assert left["tokens"] == right["tokens"]
    assert largest_difference(weights(whole), weights(parts)) < 1e-6


def test_the_gradient_is_that_of_the_global_means(build: Build) -> None:
    training = build(*NO_DROPOUT, "batch.rows=10", steps=1, micro_rows=3)
    [(batch, noise)] = build("batch.rows=10", micro_rows=10).loader.micro_batches(0, 0, 1)
    losses = training.objective(batch, noise, training.objective.phases(0, 1)[0])
    drawn, real = float(batch.targets["drawn_weight"].sum()), float(batch.layout.real.sum())
    loss = losses.terms["mlm"].total / drawn + 50 * losses.terms["rtd"].total / real
    gradients = torch.autograd.grad(loss, list(training.module.parameters()))
    norm = math.hypot(*(float(gradient.norm()) for gradient in gradients))
    [step] = named(run(training), "step")
    assert step["figures"]["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert math.hypot(*step["grad_norm"].values()) == pytest.approx(norm, rel=1e-5)


# -- what is not finite -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_no_weight(build: Build, factor: float) -> None:
    training = build(steps=3, micro_rows=4)
    seen: list[dict[str, Tensor]] = []

    def spoil(call: int, batch: Batch, losses: Losses) -> Losses | None:
        seen.append(weights(training))
        return scaled(losses, factor) if call == 3 else None  # the second micro-batch of step 1

    on_forward(training, spoil)
    events = run(training)
    [warning] = named(events, "warning")
    assert (warning["code"], warning["step"]) == ("E-T401", 1)
    assert largest_difference(seen[2], seen[4]) == 0.0, "step 1 changed weights"
    assert largest_difference(seen[0], seen[2]) > 0.0
    assert largest_difference(seen[4], weights(training)) > 0.0, "the run went on"
    assert all(bool(torch.isfinite(tensor).all()) for tensor in training.optimizers.state_tensors().values())


def test_too_many_in_a_row_end_the_run(build: Build, tmp_path: Path) -> None:
    training = build("loop.max_skipped=2", "loop.max_rewinds=0", "loop.save_minutes=0.0", steps=20, micro_rows=8)
    training.checkpoints = Checkpoints(tmp_path, keep=1)
    events: list[Event] = []
    training.log = EventLog(None, [events.append])
    # two in a row, a good one, then only bad ones
    on_forward(training, lambda call, batch, losses: scaled(losses, math.nan) if call in (1, 2) or call > 3 else None)
    with pytest.raises(ElectraError, match=r"E-T400 step 6: gradients or loss were not finite 3 times in a row") as caught:
        train(training, None, StopFlag())
    assert caught.value.exit_code is ExitCode.DATA
    assert [event["step"] for event in named(events, "warning")] == [1, 2, 4, 5]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights(training).values())
    found = training.checkpoints.newest_state(pytest.fail)
    assert found is not None
    assert (found[1].step, found[1].skipped) == (6, 2)


def test_a_spike_is_clipped(build: Build) -> None:
    training = build(steps=1)
    on_forward(training, lambda call, batch, losses: scaled(losses, 1e6))
    events = run(training)
    assert math.hypot(*named(events, "step")[0]["grad_norm"].values()) > 1e5
    assert named(events, "warning") == []
    moments = [tensor for name, tensor in training.optimizers.state_tensors().items() if name.endswith("exp_avg")]
    # the first moment after one step is .1 of the clipped gradient
    assert math.hypot(*(float(moment.norm()) for moment in moments)) == pytest.approx(0.1, rel=1e-3)


# -- spikes, and the way back -------------------------------------------------------------------------------------------


@pytest.fixture
def short_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spike is measured by 4 updates."""
    monkeypatch.setattr(guard, "WINDOW", 4)


def spoil(training: Training, steps: Container[int], factor: float, begin: int = 0) -> dict[int, dict[str, Tensor]]:
    """Multiply the loss of `steps`, of one micro-batch each, by `factor`; returned are the weights before each."""
    seen: dict[int, dict[str, Tensor]] = {}

    def act(call: int, batch: Batch, losses: Losses) -> Losses | None:
        seen[begin + call] = weights(training)
        return scaled(losses, factor) if begin + call in steps else None

    on_forward(training, act)
    return seen


def codes(events: list[Event]) -> list[tuple[str, int]]:
    return [(event["code"], event["step"]) for event in named(events, "warning")]


def test_a_spike_is_passed_over(build: Build, short_window: None) -> None:
    training = build(steps=8)
    seen = spoil(training, {6}, 1e6)
    events = run(training)
    assert codes(events) == [("E-T831", 6)]
    assert "at most" in named(events, "warning")[0]["message"]
    assert largest_difference(seen[6], seen[7]) == 0.0, "step 6 changed weights"
    assert largest_difference(seen[5], seen[6]) > 0.0
    assert largest_difference(seen[7], weights(training)) > 0.0, "the run went on"


def test_without_four_updates_or_a_factor_nothing_is_a_spike(build: Build, short_window: None) -> None:
    for settings, step in (((), 3), (("loop.spike_factor=0",), 6)):
        training = build(*settings, steps=8)
        spoil(training, {step}, 1e6)
        assert codes(run(training)) == []


def test_a_healthy_run_is_the_same_with_and_without_a_guard(build: Build, short_window: None) -> None:
    guarded, free = build(steps=12), build("loop.spike_factor=0", steps=12)
    assert codes(run(guarded)) == codes(run(free)) == []
    assert largest_difference(weights(guarded), weights(free)) == 0.0


def recovering(build: Build, directory: Path) -> Training:
    """16 steps, each saved; after 3 bad ones it goes back."""
    training = build("loop.max_skipped=2", "loop.save_minutes=0.0", steps=16)
    training.checkpoints = Checkpoints(directory, keep=9)
    return training


@pytest.mark.parametrize(("factor", "code"), [(1e6, "E-T831"), (math.nan, "E-T401")])
def test_too_many_bad_steps_go_back_and_pass_the_data_over(
    build: Build, short_window: None, tmp_path: Path, factor: float, code: str
) -> None:
    training = recovering(build, tmp_path)
    seen = spoil(training, range(10, 13), factor)
    events = run(training)
    assert codes(events) == [(code, 10), (code, 11), ("E-T832", 12)]
    told = named(events, "warning")[-1]["message"]
    assert "back to the weights of step-00000006; the data of steps 6 to 12 is passed over" in told
    assert largest_difference(seen[13], seen[6]) == 0.0
    assert [event["step"] for event in named(events, "step")] == list(range(1, 17)), "no step is made twice"
    other = recovering(build, tmp_path)
    assert other.checkpoints is not None
    [(path, state)] = [found for found in other.checkpoints.states() if found[1].step == 13]
    other.checkpoints.load(path, other.module, other.optimizers)
    assert largest_difference(weights(other), seen[6]) == 0.0
    assert (state.skipped, state.guard["rewinds"]) == (0, 1)
    train(other, state, StopFlag())
    assert largest_difference(weights(other), weights(training)) == 0.0


@pytest.mark.parametrize("place", [10, 11, 12, 14])
def test_a_run_stopped_around_the_way_back_ends_as_one_that_was_not(
    build: Build, short_window: None, tmp_path: Path, place: int
) -> None:
    whole, first, second = (recovering(build, tmp_path / name) for name in ("whole", "parts", "parts"))
    spoil(whole, range(10, 13), 1e6)
    expected, stop, events = run(whole), StopFlag(), list[Event]()
    spoil(first, range(10, 13), 1e6)
    on_forward(first, lambda call, batch, losses: setattr(stop, "requested", call >= place))
    first.log = second.log = EventLog(None, [events.append])
    with pytest.raises(Preempted):
        train(first, None, stop)
    assert second.checkpoints is not None
    found = second.checkpoints.newest_state(pytest.fail)
    assert found is not None
    second.checkpoints.load(found[0], second.module, second.optimizers)
    spoil(second, range(10, 13), 1e6, begin=found[1].step)
    train(second, found[1], StopFlag())
    assert codes(events) == codes(expected)
    assert largest_difference(weights(second), weights(whole)) == 0.0


def test_going_back_without_end_is_no_help(build: Build, short_window: None, tmp_path: Path) -> None:
    training = build("loop.max_skipped=1", "loop.max_rewinds=2", "loop.save_minutes=0.0", steps=40)
    training.checkpoints = Checkpoints(tmp_path, keep=9)
    spoil(training, range(10, 40), 1e6)
    with pytest.raises(ElectraError, match=r"E-T830 step 15: .*2 times in a row.*2 times back to a checkpoint did not help"):
        run(training)
    found = training.checkpoints.newest_state(pytest.fail)
    assert found is not None
    assert found[1].guard["rewinds"] == 2


def test_without_a_checkpoint_there_is_no_way_back(build: Build, short_window: None) -> None:
    training = build("loop.max_skipped=1", steps=40)
    seen = spoil(training, range(10, 40), 1e6)
    with pytest.raises(ElectraError, match=r"E-T830 step 11: .*no checkpoint to go back to"):
        run(training)
    assert largest_difference(seen[10], weights(training)) == 0.0


# -- memory -------------------------------------------------------------------------------------------------------------


def refuse(training: Training, rows: int, error: type[RuntimeError] = torch.OutOfMemoryError) -> None:
    """Memory for at most `rows` rows; what is too large fails after the forward pass."""

    def check(call: int, batch: Batch, losses: Losses) -> None:
        if len(batch.tokens) > rows:
            raise error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    on_forward(training, check)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_out_of_memory_halves_the_micro_batch_and_keeps_the_losses(build: Build, error: type[RuntimeError]) -> None:
    roomy, tight = build(*NO_DROPOUT, steps=3), build(*NO_DROPOUT, steps=3)
    refuse(tight, 2, error)
    expected, events = run(roomy), run(tight)
    assert [(event["code"], event["step"]) for event in named(events, "warning")] == [("E-R402", 0), ("E-R402", 0)]
    assert len(list(tight.loader.micro_batches(0, 0, 1))) == 4
    for left, right in zip(named(expected, "step"), named(events, "step"), strict=True):
        assert right["figures"] == pytest.approx(left["figures"], abs=2e-5, rel=1e-6)
    assert largest_difference(weights(roomy), weights(tight)) < 1e-6


def test_memory_for_not_even_one_row(build: Build) -> None:
    training = build(steps=3)
    refuse(training, 0)
    before = weights(training)
    with pytest.raises(ElectraError, match="E-R240") as caught:
        run(training)
    assert caught.value.exit_code is ExitCode.RESOURCES
    assert largest_difference(before, weights(training)) == 0.0


def test_other_errors_pass_through(build: Build) -> None:
    training = build(steps=3)

    def fail(call: int, batch: Batch, losses: Losses) -> None:
        raise RuntimeError("shapes do not fit")

    on_forward(training, fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run(training)
    assert not is_out_of_memory(ValueError("memory"))


# -- stop, save, evaluate -----------------------------------------------------------------------------------------------


def timeless(events: list[Event]) -> list[Event]:
    clock = {"time", "seconds", "tokens_per_second"}
    return [{key: value for key, value in event.items() if key not in clock} for event in events]


@pytest.mark.parametrize("place", range(9))
def test_a_stop_in_every_place(training_of: Build, tmp_path: Path, place: int) -> None:
    """3 steps of 3 micro-batches; the wish comes during forward pass `place`. Stopped and resumed = not stopped."""

    def fresh() -> Training:
        training = training_of("test-classic", *AT_ONCE, "loop.log_steps=2", steps=3, micro_rows=3)
        training.checkpoints = Checkpoints(tmp_path, keep=2)
        return training

    whole = training_of("test-classic", *AT_ONCE, "loop.log_steps=2", steps=3, micro_rows=3)
    expected = named(timeless(run(whole)), "step")
    stop, first, events = StopFlag(), fresh(), list[Event]()
    first.log = EventLog(None, [events.append])

    def ask(call: int, batch: Batch, losses: Losses) -> None:
        stop.requested = stop.requested or call == place

    on_forward(first, ask)
    if place == 8:
        train(first, None, stop)  # nothing is left to do
    else:
        with pytest.raises(Preempted):
            train(first, None, stop)
        # within one micro-batch: a step of which a micro-batch is missing is dropped
        saved = named(events, "stop")[0]["step"]
        assert saved == (place + 1) // 3
        second = fresh()
        assert second.checkpoints is not None
        found = second.checkpoints.newest_state(pytest.fail)
        assert found is not None
        assert found[1].step == saved
        second.checkpoints.load(found[0], second.module, second.optimizers)
        second.log = EventLog(None, [events.append])
        train(second, found[1], StopFlag())
        first = second
    assert largest_difference(weights(first), weights(whole)) == 0.0
    assert named(timeless(events), "step") == expected


def scored(training: Training, *scores: float, stop_at: int = 0) -> list[bool]:
    """Have the evaluations of `training` give `scores` in turn; that of number `stop_at` (from 1) is stopped. Returned is where
    the modes of the module are noted."""
    modes: list[bool] = []
    left = iter(scores)

    def evaluate(step: int, stop: StopFlag) -> Evaluation:
        modes.append(training.module.training)
        stop.requested = len(modes) == stop_at
        if stop.requested:
            raise Preempted
        training.module.eval()
        return Evaluation(step=step, figures={"accuracy": next(left), "other": 1.0})

    training.evaluate = evaluate
    return modes


def test_evaluation_saves_and_log_lines_when_due(build: Build, tmp_path: Path) -> None:
    training = build("loop.log_steps=2", "loop.save_minutes=0.0", steps=7)
    training.checkpoints, training.evaluate_steps = Checkpoints(tmp_path, keep=2), 3
    modes = scored(training, 0.1, 0.2, 0.3)
    events = run(training)
    assert [(e["step"], e["figures"], e["best"]) for e in named(events, "evaluate")] == [
        (3, {"accuracy": 0.1, "other": 1.0}, True), (6, {"accuracy": 0.2, "other": 1.0}, True),
        (7, {"accuracy": 0.3, "other": 1.0}, True),
    ]  # fmt: skip
    assert modes == [True, True, True]
    assert [event["step"] for event in named(events, "step")] == [2, 4, 6, 7]
    assert [event["step"] for event in named(events, "checkpoint")] == [1, 2, 3, 4, 5, 6, 7]
    order = [event["event"] for event in events if event.get("step") == 6]
    assert order == ["step", "verdict", "verdict", "evaluate", "checkpoint"]
    assert [path.name for path in training.checkpoints.paths()] == ["step-00000006", "step-00000007"]


# -- the best evaluation ------------------------------------------------------------------------------------------------


def test_the_weights_of_the_best_evaluation_stay(build: Build, tmp_path: Path) -> None:
    training = build("loop.save_minutes=0.0", steps=8)
    training.checkpoints, training.evaluate_steps = Checkpoints(tmp_path, keep=2), 2
    seen: dict[int, dict[str, Tensor]] = {}
    on_forward(training, lambda call, batch, losses: seen.update({call: weights(training)}))
    scored(training, 0.2, 0.5, 0.5, math.nan)
    events = run(training)
    assert [event["best"] for event in named(events, "evaluate")] == [True, True, False, False]
    assert training.best_step() == 4
    assert [path.name for path in training.checkpoints.paths()] == ["step-00000004", "step-00000007", "step-00000008"]
    assert largest_difference(weights(training), seen[4]) > 0
    training.checkpoints.load_weights(4, training.module)
    assert largest_difference(weights(training), seen[4]) == 0


def test_a_best_evaluation_is_saved_at_once(build: Build, tmp_path: Path) -> None:
    training = build(steps=8)
    training.checkpoints, training.evaluate_steps = Checkpoints(tmp_path, keep=1), 2
    scored(training, 0.2, 0.5, 0.4, 0.3)
    assert [event["step"] for event in named(run(training), "checkpoint")] == [2, 4, 8]
    assert [path.name for path in training.checkpoints.paths()] == ["step-00000004", "step-00000008"]


def test_best_weights_that_are_broken_are_named(build: Build, tmp_path: Path) -> None:
    training = build(steps=2)
    training.checkpoints, training.evaluate_steps = Checkpoints(tmp_path, keep=1), 1
    scored(training, 0.2, 0.1)
    run(training)
    file = training.checkpoints.path(1) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ElectraError, match=r"E-T410 .*step-00000001: .*model\.safetensors has another hash"):
        training.checkpoints.load_weights(1, training.module)


@pytest.mark.parametrize(("patience", "end"), [(1, 3), (2, 6), (3, 7), (4, 8), (None, 8)])
def test_patience_ends_a_run_for_good(build: Build, tmp_path: Path, patience: int | None, end: int) -> None:
    """The evaluations after steps 1, 2 ... 8 get better at 2, 4 and no more."""
    scores = (0.2, 0.5, 0.5, 0.6, 0.1, 0.6, 0.3, 0.2)
    training = build("loop.log_steps=100", steps=8)
    training.checkpoints, training.evaluate_steps, training.patience = Checkpoints(tmp_path, keep=1), 1, patience
    scored(training, *scores)
    events = run(training)
    assert named(events, "evaluate")[-1]["step"] == end
    assert [event["step"] for event in named(events, "settled")] == ([end] if end < 8 else [])
    assert named(events, "step")[-1]["step"] == end
    found = training.checkpoints.newest_state(pytest.fail)
    assert found is not None
    assert found[1].step == end
    again = dataclasses.replace(training, log=EventLog(None, [pytest.fail]))
    train(again, found[1], StopFlag())  # neither trains nor evaluates nor says anything


def test_a_stopped_evaluation_is_made_anew(build: Build, tmp_path: Path) -> None:
    """In the middle of the run and after its last step; equal to a run that nothing happened to."""
    whole, first = (build("loop.log_steps=2", steps=6) for _ in range(2))
    whole.evaluate_steps = 3
    scored(whole, 0.1, 0.2)
    expected = run(whole)
    events: list[Event] = []
    scores = ([], [0.1], [0.2])
    for number, (left, stop_at, step) in enumerate(zip(scores, (1, 2, 0), (3, 6, 6), strict=True)):
        training = first if number == 0 else build("loop.log_steps=2", steps=6)
        training.evaluate_steps, training.checkpoints = 3, Checkpoints(tmp_path, keep=1)
        training.log = EventLog(None, [events.append])
        found = training.checkpoints.newest_state(pytest.fail)
        if found is not None:
            training.checkpoints.load(found[0], training.module, training.optimizers)
            training.evaluations = [Evaluation.of(event) for event in named(events, "evaluate")]
        scored(training, *left, stop_at=stop_at)
        with pytest.raises(Preempted) if stop_at else contextlib.nullcontext():
            train(training, found[1] if found else None, StopFlag())
        newest = training.checkpoints.newest_state(pytest.fail)
        assert newest is not None
        assert newest[1].step == step
    assert largest_difference(weights(training), weights(whole)) == 0
    for kind in ("step", "evaluate"):
        assert named(timeless(events), kind) == named(timeless(expected), kind)
    assert [event["step"] for event in named(events, "stop")] == [3, 6]


def test_a_log_line_speaks_of_all_steps_since_the_last(build: Build) -> None:
    single = named(run(build(steps=4)), "step")
    double = named(run(build("loop.log_steps=4", steps=4)), "step")
    assert double[-1]["tokens"] == sum(event["tokens"] for event in single)
    mean = sum(event["figures"]["rtd_loss"] * event["tokens"] for event in single) / double[-1]["tokens"]
    assert double[-1]["figures"]["rtd_loss"] == pytest.approx(mean, rel=1e-6)


# -- several phases in a step -------------------------------------------------------------------------------------------


class Alternating(nn.Module, Objective):
    """Two networks, each with a phase of its own in every step; counts are rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(2, 1), nn.Linear(2, 1)

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"first": self.first, "second": self.second}

    def phases(self, step: int, steps: int) -> tuple[Phase, ...]:
        return Phase(name="a", networks=("first",)), Phase(name="b", networks=("second",))

    def forward(self, batch: Batch, noise: Noise, phase: Phase) -> Losses:
        outputs = self.networks[phase.networks[0]](batch.tokens.float())
        loss = outputs.square().sum()
        return Losses(terms={phase.name: Term(total=loss, unit="rows")}, totals={phase.name: loss.detach()})

    def summarise(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        return {"loss": float(sum(totals.values()))}

    def export(self, directory: Path) -> None:
        raise NotImplementedError


class Rows:
    """One micro-batch of two rows, always the same."""

    def micro_batches(self, step: int, rank: int, world_size: int) -> Iterator[tuple[Batch, Noise]]:
        tokens = torch.tensor([[1, 2], [3, 4]])
        layout = Padded(segments=torch.zeros_like(tokens), whole=True)
        counts = {"rows": 2.0, "tokens": 4.0}
        yield Batch(tokens=tokens, positions=tokens, types=tokens, layout=layout, counts=counts), Noise(np.zeros(2, np.uint64))

    def epochs(self, step: int) -> dict[str, float]:
        return {"rows": float(step)}

    def halved(self) -> Rows:
        return self


@pytest.fixture
def alternating(build: Build) -> Training:
    objective = Alternating()
    optimizers = Optimizers(objective.networks, AdamWConfig(lr=0.1, warmup_ratio=0.0), steps=3)
    base = build()
    return dataclasses.replace(
        base, objective=objective, loader=Rows(), optimizers=optimizers, span=Span(name="x", first=0, steps=3)
    )


def test_each_phase_updates_its_own_network(alternating: Training) -> None:
    seen: list[dict[str, Tensor]] = []
    on_forward(alternating, lambda call, batch, losses: seen.append(weights(alternating)))
    events = run(alternating)
    assert [sorted(event["grad_norm"]) for event in named(events, "step")] == [["first", "second"]] * 3
    for before, after, moved in ((seen[0], seen[1], "first"), (seen[1], seen[2], "second")):
        changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        assert changed == {moved}


def test_a_stop_in_a_later_phase_waits_for_the_end_of_the_step(alternating: Training, tmp_path: Path) -> None:
    alternating.checkpoints, stop, calls = Checkpoints(tmp_path, keep=1), StopFlag(), list[int]()

    def ask(call: int, batch: Batch, losses: Losses) -> None:
        calls.append(call)
        stop.requested = call >= 2  # the first phase of step 1, whose only micro-batch has begun

    on_forward(alternating, ask)
    with pytest.raises(Preempted):
        run(alternating, stop)
    assert calls == [0, 1, 2, 3]
    found = alternating.checkpoints.newest_state(pytest.fail)
    assert found is not None
    assert found[1].step == 2


def test_settings_out_of_range() -> None:
    wrong: list[dict[str, Any]] = [{"log_steps": 0}, {"keep": 0}, {"save_minutes": -1.0}, {"max_skipped": -1}]
    wrong += [{"spike_factor": 1.0}, {"spike_factor": -2.0}, {"max_rewinds": -1}]
    for settings in wrong:
        with pytest.raises(ElectraError, match="E-C410"):
            LoopConfig(**settings)
