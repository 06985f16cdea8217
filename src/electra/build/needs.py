"""What a run needs, found before step 0: memory, time, disk; and a refusal where they are not there.

In: the training of each phase, on networks that are thrown away. Out: a `Survey`, which `electra plan` prints and whose
`resolved` a new run writes to recipe.json: one function for both, so that a plan is what the run will do.

Memory is estimated first. Weights, gradients and optimiser follow from the parameters. Activations, what autograd keeps for
the backward pass, are counted on the two smallest micro-batches and carried on in a straight line to the full one: some of
it (weights in another precision) is kept once, the rest for each position. Micro-batches are halved until the estimate fits
into what is free, for on a CPU nobody else says no: the kernel ends a process that takes too much. Then the loop runs
full-size steps, which it halves further if it must; they are timed, and their peak is measured beside the estimate.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from electra.contracts import Batch, Noise, Objective
from electra.dist import gather, on_this_machine, own_part, world_size
from electra.errors import ElectraError, Preempted
from electra.events import Event, EventLog, size
from electra.storage import standing
from electra.train import machine
from electra.train.loop import HalvableLoader, LoopConfig, Training, forward, train
from electra.train.machine import StopFlag
from electra.train.optim import OptimizerConfig, copies_of_state, owned_parameters

#: what a CPU's heap holds beyond the activations that are alive, as a share of them: holes between buffers of many sizes, from
#: step to step; measured on six recipes, 0.6 to 2.7
_HEAP = 1.5
#: bytes of a line of events.jsonl, and of a report: generous
_LINE, _REPORT = 1500, 500_000


@dataclass(frozen=True, kw_only=True)
class Room:
    """Memory before anything was built: bytes that are free, and bytes that the program takes; None = not known here."""

    free: int | None
    program: int | None

    @classmethod
    def now(cls) -> Room:
        """Of this process: on a CPU, those of the same machine share what is free."""
        free = machine.free_memory()
        shared = 1 if machine.device().type == "cuda" else on_this_machine()
        return cls(free=None if free is None else free // shared, program=machine.used_memory())


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one phase of a run needs.

    Args:
        parameters: by network, shared ones under the first that has them.
        weights, gradients, optimizer: bytes.
        activations: bytes kept for the backward pass of a micro-batch; estimated.
        heap: bytes lost between them on a CPU; a rough figure.
        positions: tokens of a micro-batch at most, padding included.
        peak: bytes taken at most during full-size steps, program included; measured, None where the system does not tell.
        seconds: of a step.
    """

    parameters: Mapping[str, int]
    weights: int
    gradients: int
    optimizer: int
    activations: int
    heap: int
    positions: int
    peak: int | None
    seconds: float

    @property
    def memory(self) -> int:
        """Bytes in all, without the program; estimated."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.heap


@dataclass(frozen=True, kw_only=True)
class PhasePlan:
    """One phase: steps [first, first + steps), passes over each source of data in them, and what they need."""

    name: str
    first: int
    steps: int
    epochs: Mapping[str, float]
    need: Need


@dataclass(frozen=True, kw_only=True)
class Survey:
    """All that is known of a run before step 0.

    Args:
        data: counts of what is learnt from, by name.
        phases: in order.
        room: memory at the beginning.
        writes: bytes by path below run.dir.
        derived: settings that the recipe leaves open, by path: (value, what it was taken from).
        resolved: what recipe.json keeps, JSON-ready.
    """

    data: Mapping[str, int | float]
    phases: Sequence[PhasePlan]
    room: Room
    writes: Mapping[str, int]
    derived: Mapping[str, tuple[Any, str]]
    resolved: dict[str, Any]


def examine(training: Training, budget: float, room: Room) -> Need:
    """Find out what a phase needs, by running it; micro-batches of `training.loader` are halved until they fit.

    Args:
        training: not saving, with a log that goes nowhere; its networks are spoilt afterwards.
        budget: seconds after which no further step is begun; 0 = one step only.
        room: memory before `training` was built.

    Raises:
        ElectraError: E-R240 not even one row or example fits.
    """
    training.settings = dataclasses.replace(training.settings, log_steps=1)
    weights, gradients, optimizer = _fixed_bytes(training.objective, training.optimizers.config, training.optimizers.average)
    sharded = training.parallel.sharded  # then the full-size steps alone say what fits
    once, each = (0.0, 0.0) if sharded else _activations(training)
    fixed, heap = weights + gradients + optimizer, _HEAP if training.device.type == "cpu" else 0.0
    while room.free is not None and fixed + (1 + heap) * (once + each * training.loader.positions) > room.free:
        training.loader = training.loader.halved()
    least = min(gather(training.loader.positions))
    while training.loader.positions > least:  # all processes take what fits into the smallest
        training.loader = training.loader.halved()
    activations = once + each * training.loader.positions
    machine.restart_peak_memory()
    seconds = seconds_per_step(training, budget)
    return Need(
        parameters={name: sum(p.numel() for p in own.values()) for name, own in training.optimizers.parameters.items()},
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=round(activations),
        heap=round(heap * activations),
        positions=training.loader.positions,
        peak=machine.peak_memory(),
        seconds=seconds,
    )


def seconds_per_step(training: Training, budget: float) -> float:
    """Let the loop run full-size steps of throw-away networks, and time them.

    It shows before step 0 whether a micro-batch fits into memory: the loop halves `training.loader`'s until it does.

    Args:
        training, budget: as in `examine`.

    Returns:
        The median time of a step, without the first two (which allocate and choose kernels) if there are more.
    """
    stop, times = StopFlag(), list[float]()

    def watch(event: Event) -> None:
        if event["event"] == "step":
            times.append(event["seconds"])
            stop.requested = sum(times) >= budget

    training.log = EventLog(None, [watch])
    with contextlib.suppress(Preempted):
        train(training, None, stop)
    return statistics.median(times[2:] or times)


# -- memory -------------------------------------------------------------------------------------------------------------


def require_memory(objective: Objective, config: OptimizerConfig, average: float | None, room: Room, parts: int = 1) -> None:
    """Refuse networks that are too large whatever the batch; they may lie on the meta device, so nothing need be built.

    Args:
        objective: owns them.
        config, average: as in `Optimizers`.
        room: memory that there is.
        parts: in how many the networks will be sharded.

    Raises:
        ElectraError: E-R404 there is less memory.
    """
    needed = sum(_fixed_bytes(objective, config, average)) // parts
    if room.free is not None and needed > room.free:
        raise ElectraError("E-R404", "memory", f"weights, gradients and optimiser take {size(needed)}, {size(room.free)} are "
                           "free", "take a smaller encoder, or free memory")  # fmt: skip


def _fixed_bytes(objective: Objective, config: OptimizerConfig, average: float | None) -> tuple[int, int, int]:
    """Weights (those that are not trained, too), gradients, optimiser state."""
    assert isinstance(objective, nn.Module)
    owned = [pair for own in owned_parameters(objective.networks).values() for pair in own.items()]
    sizes = [own_part(p).numel() * p.element_size() for _, p in owned]
    state = sum(copies_of_state(*pair, config, average) * size for pair, size in zip(owned, sizes, strict=True))
    distinct = {id(t): t for t in (*objective.parameters(), *objective.buffers())}
    return sum(own_part(t).numel() * t.element_size() for t in distinct.values()), sum(sizes), state


def _activations(t: Training) -> tuple[float, float]:
    """Bytes that autograd keeps of a micro-batch: once, and for each of its positions."""
    points = []
    t.module.train()
    for loader in list(_halvings(t.loader))[-2:]:
        batch, noise = next(iter(loader.micro_batches(0, 0, world_size())))  # the first process always has one
        points.append((batch.tokens.numel(), _kept_bytes(t, batch, noise)))
    (more, large), (few, small) = points[0], points[-1]
    each = (large - small) / (more - few) if more > few else small / few
    return max(0.0, small - each * few), max(0.0, each)


def _halvings(loader: HalvableLoader) -> Iterator[HalvableLoader]:
    """The loader and its ever smaller versions."""
    with contextlib.suppress(ElectraError):  # says that there is no smaller one
        while True:
            yield loader
            loader = loader.halved()


def _kept_bytes(t: Training, batch: Batch, noise: Noise) -> int:
    """Bytes that autograd keeps of one forward pass, without the weights themselves."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in t.module.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = forward(t, batch, noise, t.objective.phases(0, t.span.steps)[0])
    del losses  # only now may an address be used again
    return sum(kept.values())


# -- disk ---------------------------------------------------------------------------------------------------------------


def files_of_run(
    needs: Sequence[Need], earlier_phases: Sequence[str], steps: int, settings: LoopConfig, best: bool = False
) -> dict[str, int]:
    """Bytes of everything that a run writes, by path below run.dir; estimates, but for the checkpoints.

    Args:
        best: a checkpoint more is kept, that of the best weights.
    """
    checkpoint = max(need.weights + need.optimizer for need in needs)
    lines = (steps // settings.log_steps + 20) * _LINE
    return {
        "recipe.json": 10_000,
        "events.jsonl": lines,
        **({"tensorboard/": lines} if settings.tensorboard else {}),
        "checkpoints/": checkpoint * (settings.keep + best + 1),  # those that are kept, and one that is being written
        **{f"phases/{name}/": checkpoint // 3 for name in earlier_phases},
        "model/": checkpoint // 3,
        "report.html": _REPORT,
    }


def free_disk(directory: Path) -> int:
    """Bytes that can be written where `directory`, of a run, is or will be; what the run has written there counts as free.

    Raises:
        ElectraError: E-R405 nothing may be written there.
    """
    there = standing(directory)
    if not os.access(there, os.W_OK | os.X_OK):
        raise ElectraError("E-R405", str(directory), f"{there} may not be written", "choose another run.dir, or get access")
    ours = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    return shutil.disk_usage(there).free + ours


def require_disk(directory: Path, needed: int) -> None:
    """Refuse to begin where the checkpoints and the model of a run will not fit.

    Args:
        directory: of the run; may not exist yet.
        needed: bytes.

    Raises:
        ElectraError: E-R403 there is less room, E-R405 nothing may be written there.
    """
    free = free_disk(directory)
    if free < needed:
        raise ElectraError("E-R403", str(directory), f"the run writes {size(needed)}, {size(free)} are free",
                           "free space, choose another run.dir, or lower loop.keep")  # fmt: skip
