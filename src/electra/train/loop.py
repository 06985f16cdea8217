"""The one loop: pre-training and every task go through it.

In: an objective, a loader that is a function of the step, optimisers, and where to begin. Out: trained networks, events,
checkpoints. A step is a sequence of phases of the objective (mostly one); in each, the micro-batches are run, every loss is
divided by its *global* count, so that accumulation changes nothing, the gradients are clipped and checked, and the named
networks are updated. Then, in this order: log, judge, evaluate, save, stop. There are no callbacks. An evaluation that is the
best so far is followed by a checkpoint, which is kept; where `patience` is given, too many that are not end the run.

Several processes run it side by side, each with its share of every step (parallel.py). What the clock, a signal or the memory
tells one of them is told to all before it counts, so that they stay in step.

Randomness: dropout is seeded by (seed, step, phase, rank, micro-batch); everything else comes from the loader. So a run that
was stopped and resumed equals one that was not, bit by bit.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from electra.config import STRICT
from electra.contracts import Batch, Loader, Losses, Noise, Objective, Phase
from electra.dist import added, any_of, fold_seed, rank, sum_counts, world_size
from electra.errors import ElectraError, Preempted
from electra.events import EventLog
from electra.train.checkpoint import Checkpoints, State, own_tensors
from electra.train.guard import Fault, Guard, way_back
from electra.train.machine import StopFlag, is_out_of_memory
from electra.train.optim import Optimizers
from electra.train.parallel import Replicas
from electra.train.selection import Evaluation, best, since_best
from electra.train.verdicts import judge

Totals = dict[str, Tensor]

#: the name of what is differentiated, among the totals of a step
_LOSS = ""
#: how many step events a verdict may look back on
HISTORY = 200


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """When the loop logs, saves and gives up.

    Args:
        log_steps: steps between two log lines.
        save_minutes: wall-clock minutes between two checkpoints; the end of a phase and a signal always save.
        keep: checkpoints kept.
        max_skipped: bad steps in a row whose updates are skipped before the run goes back to a checkpoint; see `guard`.
        spike_factor: a step is bad if its loss or a gradient norm is not finite, or its loss more than this times the
            largest of the last 100 updates; 0 = only if not finite.
        max_rewinds: how often a run may go back before it stops instead.
        tensorboard: also write the figures as event files for TensorBoard (extra `tensorboard`).
    """

    __pydantic_config__ = STRICT
    log_steps: int = 20
    save_minutes: float = 10.0
    keep: int = 2
    max_skipped: int = 3
    spike_factor: float = 10.0
    max_rewinds: int = 3
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if self.log_steps < 1 or self.keep < 1 or self.save_minutes < 0 or self.max_skipped < 0:
            raise ElectraError("E-C410", "loop", "log_steps and keep are at least 1, the others at least 0", "raise them")
        if self.max_rewinds < 0 or not (self.spike_factor == 0 or self.spike_factor > 1):
            raise ElectraError("E-C410", "loop", f"max_rewinds {self.max_rewinds}, spike_factor {self.spike_factor}",
                               "give 0 or more rewinds, and a factor above 1, such as 10, or 0 to turn it off")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Span:
    """The steps of one phase of a run, [first, first + steps), counted over the whole run."""

    name: str
    first: int
    steps: int

    @property
    def end(self) -> int:
        return self.first + self.steps


class ObjectiveModule(Objective, Protocol):
    """An objective as the loop uses it: called like a module."""

    def __call__(self, batch: Batch, noise: Noise, phase: Phase) -> Losses: ...


class HalvableLoader(Loader, Protocol):
    """A loader that can cut its micro-batches in two while the global batch stays; `positions` = tokens of one at most."""

    @property
    def positions(self) -> int: ...

    def halved(self) -> HalvableLoader: ...


@dataclass(kw_only=True)
class Training:
    """What one call of `train` works on.

    Args:
        loader: changes only when memory ran out and micro-batches were halved.
        history: the last step events, for the verdicts.
        unigram_entropy: of the corpus, in nats: what a model that knows frequencies alone would lose.
        parallel: how the weights lie in the processes of the run.
        checkpoints: None = nothing is saved.
        evaluate: called with the number of steps done, every `evaluate_steps` steps and at the end; raises `Preempted` where a
            stop is asked for meanwhile.
        patience: evaluations in a row without a better one after which the run ends; None = never.
        evaluations: those made so far.
        guard: judges every update; `train` sets it to what the state says.
    """

    objective: ObjectiveModule
    loader: HalvableLoader
    optimizers: Optimizers
    span: Span
    total_steps: int
    seed: int
    device: torch.device
    bf16: bool
    settings: LoopConfig
    parallel: Replicas = field(default_factory=Replicas)
    log: EventLog = field(default_factory=lambda: EventLog(None))
    checkpoints: Checkpoints | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    history: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=HISTORY))
    unigram_entropy: float | None = None
    evaluate: Callable[[int, StopFlag], Evaluation] | None = None
    evaluate_steps: int = 0
    patience: int | None = None
    evaluations: list[Evaluation] = field(default_factory=list)
    guard: Guard = field(default_factory=Guard)

    @property
    def module(self) -> nn.Module:
        assert isinstance(self.objective, nn.Module)
        return self.objective

    def best_step(self, until: int | None = None) -> int | None:
        """The step of the best evaluation up to step `until` (None = of all)."""
        found = best(self.evaluations, until)
        return None if found is None else found.step

    @property
    def settled(self) -> bool:
        """Patience has run out."""
        return self.patience is not None and since_best(self.evaluations) >= self.patience

    def evaluates_after(self, done: int) -> bool:
        """Whether an evaluation follows step number `done`, counted from 1."""
        due = self.evaluate_steps and done % self.evaluate_steps == 0
        return self.evaluate is not None and done > self.span.first and bool(due or done == self.span.end)


@dataclass(kw_only=True)
class _Meter:
    """Totals and tokens since the last log line (part of a checkpoint) and what the clock says (not part of it).

    Args:
        norms: each network's gradient norm in the last step that updated it; a step may leave networks out.
        untimed: of `tokens`, those from before a restart: their seconds are not known.
    """

    totals: Totals = field(default_factory=dict)
    norms: dict[str, float] = field(default_factory=dict)
    tokens: float = 0.0
    untimed: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    saved: float = field(default_factory=time.perf_counter)

    def add(self, totals: Mapping[str, Tensor]) -> None:
        for name, tensor in totals.items():
            held = tensor.detach().to("cpu", torch.float64)
            self.totals[name] = self.totals[name] + held if name in self.totals else held

    @classmethod
    def of(cls, window: Mapping[str, Any]) -> _Meter:
        totals = {name: torch.tensor(held, dtype=torch.float64) for name, held in window["totals"].items()}
        norms = dict(window.get("norms", {}))  # not in older checkpoints
        return cls(totals=totals, norms=norms, tokens=window["tokens"], untimed=window["tokens"])

    def to_json(self) -> dict[str, Any]:
        totals = {name: tensor.tolist() for name, tensor in self.totals.items()}
        return {"totals": totals, "norms": self.norms, "tokens": self.tokens}

    def restart(self) -> None:
        self.totals, self.norms, self.tokens, self.untimed, self.started = {}, {}, 0.0, 0.0, time.perf_counter()


def train(training: Training, state: State | None, stop: StopFlag) -> None:
    """Run the steps of `training.span`, from `state` if there is one, to the end or until patience has run out.

    Raises:
        Preempted: a signal came; the start of the unfinished step is saved, an unfinished evaluation will be made anew.
        ElectraError: E-T400, E-T830 when steps stayed bad and no way back helped; E-R240 when one row does not fit into memory.
    """
    t, span, meter = training, training.span, _Meter.of(state.window) if state else _Meter()
    t.guard, begin = Guard.of(state), state.step if state else span.first
    _evaluate(t, meter, begin, stop)  # it may have been interrupted
    t.module.train()
    for step in range(begin, begin if t.settled else span.end):
        norms: dict[str, float] = {}
        step_totals: Totals = {}
        fault: Fault | None = None
        for phase in t.objective.phases(step - span.first, span.steps):
            sums = _accumulate(t, step, phase, stop, may_stop=not norms)
            if sums is None:
                raise _preempted(t, meter, step)
            meter.tokens += sums.counts.get("tokens", 0.0)
            own = {name: float(norm) for name, norm in t.optimizers.clip(phase.networks).items()}
            norms |= own
            fault = t.guard.fault(phase.name, sums.loss, own, t.settings.spike_factor)
            if fault is not None:
                break
            t.optimizers.step(phase.networks, step - span.first)
            t.guard.made(phase.name, sums.loss)
            step_totals |= sums.totals
        else:
            t.objective.updated()
            t.guard.skipped = 0
            meter.add(step_totals)
        meter.norms |= norms
        rewound = fault is not None and _skip(t, step, fault)
        done = step + 1
        may_end = done == span.end or (t.patience is not None and t.evaluates_after(done))
        if done % t.settings.log_steps == 0 or may_end:
            _log(t, meter, done)
        better = _evaluate(t, meter, done, stop)
        late = any_of(time.perf_counter() - meter.saved > 60 * t.settings.save_minutes)
        if late or better or rewound or t.settled or done == span.end:
            _save(t, meter, done)
        if t.settled and done < span.end:
            t.log.emit("settled", step=done, evaluations=t.patience)
            break


def _evaluate(t: Training, meter: _Meter, done: int, stop: StopFlag) -> bool:
    """Evaluate if it is due after `done` steps and was not done; whether that was the best so far.

    Raises:
        Preempted: a stop was asked for meanwhile, and the state is saved.
    """
    if t.evaluate is None or not t.evaluates_after(done) or any(each.step == done for each in t.evaluations):
        return False
    began = time.perf_counter()
    try:
        found = t.evaluate(done, stop)
    except Preempted:
        raise _preempted(t, meter, done) from None
    t.evaluations.append(found)
    better = best(t.evaluations) is found
    chosen = {"chosen": found.chosen} if found.chosen else {}
    seconds = round(time.perf_counter() - began, 3)
    t.log.emit("evaluate", step=done, figures=found.figures, best=better, **chosen, seconds=seconds)
    t.module.train()
    meter.started += time.perf_counter() - began  # throughput is that of training
    return better


def _preempted(t: Training, meter: _Meter, step: int) -> Preempted:
    """What is raised when the run stops at the start of `step`, with the state saved."""
    _save(t, meter, step)
    t.log.emit("stop", step=step, reason="signal")
    return Preempted()


@dataclass(frozen=True, kw_only=True)
class _Sums:
    totals: Totals
    counts: dict[str, float]
    loss: float


def _accumulate(t: Training, step: int, phase: Phase, stop: StopFlag, may_stop: bool) -> _Sums | None:
    """Forward and backward of all micro-batches of a phase; None if a stop was asked for before the phase was through.

    A process that is alone looks before each micro-batch; several ask each other before the first.
    """
    while True:
        micro_batches = list(t.loader.micro_batches(step - t.span.first, rank(), world_size()))
        counts = sum_counts(added([batch.counts for batch, _ in micro_batches]))
        if may_stop and any_of(stop.requested):
            return None
        totals: Totals = {}
        full = False
        try:
            loss = torch.zeros((), device=t.device)
            for number, (batch, noise) in enumerate(micro_batches):
                if may_stop and stop.requested and world_size() == 1:
                    t.optimizers.zero_grad()
                    return None
                t.parallel.enter(t.module, last=number == len(micro_batches) - 1)
                torch.manual_seed(fold_seed(t.seed, step, phase.name, rank(), number))
                losses = forward(t, batch, noise, phase)
                share = sum_of_terms(losses, counts)
                share.backward()  # type: ignore[no-untyped-call]
                loss += share.detach()
                for name, tensor in losses.totals.items():
                    totals[name] = totals[name] + tensor.detach() if name in totals else tensor.detach()
            totals[_LOSS] = loss
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            full = True
        if (summed := t.parallel.reduce(t.optimizers, phase.networks, totals, full)) is not None:
            return _Sums(loss=float(summed.pop(_LOSS)), totals=summed, counts=counts)
        t.optimizers.zero_grad()
        t.loader = t.loader.halved()
        t.log.emit("warning", code="E-R402", step=step, message="out of memory: micro-batches were halved, the global "
                   "batch and the losses stay the same; bitwise equality with an unhalved run ends here")  # fmt: skip


def forward(t: Training, batch: Batch, noise: Noise, phase: Phase) -> Losses:
    """The losses of one micro-batch, in the precision of the run."""
    with torch.autocast(t.device.type, dtype=torch.bfloat16, enabled=t.bf16):
        return t.objective(batch.to(t.device), noise, phase)


def sum_of_terms(losses: Losses, counts: Mapping[str, float]) -> Tensor:
    """The scalar to differentiate: each term's sum over its global count, times its weight."""
    return torch.stack([term.weight * term.total / max(counts[term.unit], 1.0) for term in losses.terms.values()]).sum()


def _skip(t: Training, step: int, fault: Fault) -> bool:
    """Leave out the update of a bad step; after too many in a row, go back to good weights. Whether that was done.

    Raises:
        ElectraError: E-T400, E-T830 there is no way back, or it was gone too often; no weight was touched.
    """
    guard, settings = t.guard, t.settings
    t.optimizers.zero_grad()
    guard.skipped += 1
    if guard.skipped <= settings.max_skipped:
        t.log.emit("warning", code=fault.skipped, step=step, message=f"update skipped: {fault.kind} ({fault.measure})")
        return False
    first_bad = step + 1 - guard.skipped
    found = way_back(t.checkpoints, t.span.name, first_bad) if t.checkpoints and guard.rewinds < settings.max_rewinds else None
    if t.checkpoints is None or found is None:
        why = f"{guard.rewinds} times back to a checkpoint did not help" if guard.rewinds else "no checkpoint to go back to"
        told = f"{fault.kind} {guard.skipped} times in a row ({fault.measure}); {why}"
        raise ElectraError(
            fault.stopped, f"step {step}", told, "lower optimizer.lr or set precision=fp32; the last checkpoint is intact"
        )
    path, state = found
    t.checkpoints.load(path, t.module, t.optimizers)
    guard.recall(state)
    guard.skipped, guard.rewinds = 0, guard.rewinds + 1
    t.log.emit("warning", code="E-T832", step=step, message=f"{fault.kind} {settings.max_skipped + 1} times in a row "
               f"({fault.measure}): back to the weights of {path.name}; the data of steps {state.step} to {step} is passed "
               "over; bitwise equality with a run that saved at other moments ends here")  # fmt: skip
    return True


def _log(t: Training, meter: _Meter, done: int) -> None:
    seconds = time.perf_counter() - meter.started
    figures = t.objective.summarise(meter.totals) if meter.totals else {}
    fields = {
        "step": done,
        "steps": t.total_steps,
        "phase": t.span.name,
        "figures": figures,
        "lr": t.optimizers.learning_rates(done - 1 - t.span.first),
        "grad_norm": dict(meter.norms),
        "epochs": {name: round(epochs, 6) for name, epochs in t.loader.epochs(done - t.span.first).items()},
        "tokens": int(meter.tokens),
        "tokens_per_second": round((meter.tokens - meter.untimed) / max(seconds, 1e-9), 1),
        "seconds": round(seconds, 3),
    }
    t.log.emit("step", **fields)
    t.history.append(fields)
    warm = done - t.span.first > t.optimizers.warmup
    for verdict in judge(list(t.history), list(t.objective.networks), warmup_done=warm, unigram_entropy=t.unigram_entropy):
        t.log.emit("verdict", step=done, network=verdict.network, verdict=verdict.state, reason=verdict.reason)
    meter.restart()


def _save(t: Training, meter: _Meter, step: int) -> None:
    began = time.perf_counter()
    if t.checkpoints is not None:
        t.parallel.require_same(own_tensors(t.module) | t.optimizers.state_tensors(), step)
        t.log.sync()  # a resumed run reads its evaluations up to this step there
        state = State(step=step, phase=t.span.name, fingerprints=t.fingerprints, window=meter.to_json(),
                      skipped=t.guard.skipped, guard=t.guard.to_json())  # fmt: skip
        path = t.checkpoints.save(t.module, t.optimizers, state, t.best_step)
        t.log.emit("checkpoint", step=step, path=path.name, seconds=round(time.perf_counter() - began, 3))
    meter.saved = time.perf_counter()
    meter.started += meter.saved - began  # throughput is that of training
