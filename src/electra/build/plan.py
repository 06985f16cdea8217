"""`electra plan`: what a command would do, need and write, found out without starting it.

In: recipes and assignments, as `electra pretrain` and `electra finetune` take them. Out: a `Plan`, in lines for a person or as
JSON. Every check is the run's own: the recipe is loaded, the directory judged, data and models read, and each phase run for
some seconds on networks that are thrown away (needs.py). So a plan that ends with an error is a run that would have ended
with it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from electra import config
from electra.build import finetune, pretrain
from electra.build.needs import PhasePlan, Room, Survey, free_disk
from electra.build.parts import newest_state
from electra.events import duration, number, size
from electra.train.checkpoint import Checkpoints
from electra.train.machine import keep_large_buffers
from electra.train.run import Opened, run_to_resume

#: seconds of timed steps for each phase
_PROBE_SECONDS = 6.0
#: share of a run's time that goes to logs, checkpoints and exports
_BESIDE_STEPS = 0.05


class Setting(Protocol):
    """A recipe with its data, of either kind of run."""

    fingerprints: dict[str, str]

    def verify(self) -> None: ...

    def survey(self, budget: float, known: Mapping[str, Any] | None = None) -> Survey: ...


@dataclass(frozen=True, kw_only=True)
class Value:
    """A setting as the run will have it, and where it came from: a recipe, `command line`, `default`, `tokenizer`, `probe`."""

    path: str
    value: Any
    origin: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a command would do.

    Args:
        verb: `pretrain` or `finetune`.
        directory: of the run.
        step: where it would begin; above 0 for a run that is resumed. Of several runs, the steps of all are counted.
        steps: where it would end.
        settings: in the order of docs/recipes.md.
        data: counts of what is learnt from.
        phases: with memory and the time of a step.
        room: memory before anything was built.
        writes: bytes by path below `directory`.
        free_disk: bytes.
        seconds: of all that is left to do; evaluations are not in it.
    """

    verb: str
    directory: Path
    step: int
    steps: int
    settings: Sequence[Value]
    data: Mapping[str, int | float]
    phases: Sequence[PhasePlan]
    room: Room
    writes: Mapping[str, int]
    free_disk: int
    seconds: float


def plan(sources: Sequence[str | Path], assignments: Sequence[str] = ()) -> Plan:
    """The plan of `electra pretrain`, or, where a setting of fine-tuning is given (`task=classify`), of `electra finetune`.

    Raises:
        ElectraError: what the run would end with before step 0.
    """
    keep_large_buffers()
    recipe: pretrain.PretrainRecipe | finetune.FinetuneRecipe
    setting: Setting
    if _finetunes(config.tables(sources, assignments)):
        verb, recipe = "finetune", finetune.load_recipe(sources, assignments)
        opened = run_to_resume(recipe.run, config.to_tree(recipe))
        setting = finetune.Setting(recipe)
    else:
        verb, recipe = "pretrain", config.load(pretrain.PretrainRecipe, sources, assignments)
        opened = run_to_resume(recipe.run, config.to_tree(recipe))
        setting = pretrain.Setting(recipe)
    runs = recipe.run_names if isinstance(recipe, finetune.FinetuneRecipe) else []
    step = _step(opened, setting, recipe.loop.keep, runs) if opened else 0
    survey = setting.survey(_PROBE_SECONDS, opened.resolved if opened else None)
    left = sum(_steps_left(phase, step) * phase.need.seconds for phase in survey.phases)
    return Plan(
        verb=verb,
        directory=recipe.run.dir,
        step=step,
        steps=survey.phases[-1].first + survey.phases[-1].steps,
        settings=_values(recipe, config.origins(recipe, sources, assignments), survey.derived),
        data=survey.data,
        phases=survey.phases,
        room=survey.room,
        writes=survey.writes,
        free_disk=free_disk(recipe.run.dir),
        seconds=left / (1 - _BESIDE_STEPS),
    )


def _finetunes(tables: Mapping[str, Any]) -> bool:
    """Whether there is a table that only fine-tuning has."""
    ours, theirs = (
        {field.name for field in dataclasses.fields(cls)} for cls in (finetune.FinetuneRecipe, pretrain.PretrainRecipe)
    )
    return not (ours - theirs).isdisjoint(tables)


def _step(opened: Opened, setting: Setting, keep: int, runs: Sequence[str]) -> int:
    """Where the run, or the last begun of its `runs`, would go on; what it goes on with is checked as it will be."""
    setting.verify()
    step = 0
    for directory in [opened.directory / name for name in runs] or [opened.directory]:
        one = dataclasses.replace(opened, directory=directory)
        found = newest_state(one, Checkpoints(one.checkpoints, keep), setting.fingerprints, report=lambda message: None)
        step += found[1].step if found else 0
    return step


def _steps_left(phase: PhasePlan, step: int) -> int:
    return max(0, min(phase.steps, phase.first + phase.steps - step))


def _values(recipe: Any, origins: Mapping[str, str], derived: Mapping[str, tuple[Any, str]]) -> list[Value]:
    tree = config.to_tree(recipe)
    given = {".".join(keys): config.leaf(tree, keys) for keys in config.leaves(tree)}
    pairs = {**{path: (value, origins[path]) for path, value in given.items()}, **derived}
    return [Value(path=path, value=value, origin=origin) for path, (value, origin) in pairs.items()]


# -- for a person, and for machines -------------------------------------------------------------------------------------


def to_json(plan: Plan) -> str:
    """All of a plan."""
    return json.dumps(dataclasses.asdict(plan), ensure_ascii=False, indent=1, default=str)


def to_lines(plan: Plan) -> Iterator[str]:
    """A plan for a terminal: settings with their origins, then data, phases, memory, time, disk."""
    does = f"resumes at step {plan.step:,}" if plan.step else "starts"
    nothing = "; it is finished" if plan.step == plan.steps else ""
    yield f"electra {plan.verb} {does} in {plan.directory}: step {plan.steps:,} is the last{nothing}"
    yield from _table([("setting", "value", "from"), *((v.path, _told(v.value), v.origin) for v in plan.settings)])
    yield "data: " + ", ".join(f"{number(count)} {name}" for name, count in plan.data.items())
    for phase in plan.phases:
        need = phase.need
        networks = ", ".join(f"{name} {count:,}" for name, count in need.parameters.items())
        alone = len(phase.epochs) == 1
        epochs = ", ".join(f"{count:.3g}" if alone else f"{name} {count:.3g}" for name, count in phase.epochs.items())
        yield (f"phase {phase.name}: steps {phase.first:,} to {phase.first + phase.steps:,}, {epochs} epochs, "
               f"{need.seconds:.3g} s a step: {duration(phase.steps * need.seconds)}; parameters: {networks}")  # fmt: skip
    yield from _memory(plan)
    yield f"time: about {duration(plan.seconds)}, with a twentieth for logs and checkpoints"
    yield f"disk: {size(sum(plan.writes.values()))} to write, {size(plan.free_disk)} free"
    yield from (f"  {plan.directory / path}{'/' * path.endswith('/')}  {size(count)}" for path, count in plan.writes.items())


def _memory(plan: Plan) -> Iterator[str]:
    """The phase that needs most: the estimate beside what was measured, then its parts."""
    phase = max(plan.phases, key=lambda phase: phase.need.memory)
    need, room = phase.need, plan.room
    parts = {"weights": need.weights, "gradients": need.gradients, "optimiser": need.optimizer,
             "activations": need.activations, "holes in the heap": need.heap, "program": room.program or 0}  # fmt: skip
    peaks = [phase.need.peak for phase in plan.phases if phase.need.peak is not None]
    measured = f"; measured in full-size steps: {size(max(peaks))}" if peaks else ""
    free = f"; {size(room.free)} were free" if room.free is not None else ""
    yield f"memory: about {size(sum(parts.values()))}{measured}{free}"
    told = ", ".join(f"{name} {size(count)}" for name, count in parts.items() if count)
    yield f"  phase {phase.name}, {need.positions:,} tokens at once: {told}"


def _table(rows: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return (f"  {path:{widths[0]}}  {value:{widths[1]}}  {origin}" for path, value, origin in rows)


def _told(value: Any) -> str:
    """A value as it would be written in a recipe; `none` where TOML has no word."""
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
