"""Fine-tuning as a command: one run, or several of the same recipe, and the best of them.

In: a recipe. Out: a run directory with a model. Where there is one seed and one learning rate, that is the run of finetune.py.
Else each run has a directory of its own below run.dir, is an ordinary run, and resumes as one: first `lr-RATE` for each rate
that is tried, with the first seed; then, with the rate that did best, `seed-N` for each other seed. Finished ones are not
touched again. A run whose model gives every example the same answer has collapsed; it is kept, and run once more
beside itself, in `retry`, with another seed. A rate that collapses while rates are tried is merely not chosen.

At the end `summary.json`, the log and the report have every run, and median and spread over the seeds; a seed that was run
twice counts by the better of the two. The model of the best run is copied to `run.dir/model`; a stop leaves the best so far
there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra.build.finetune import FinetuneRecipe, Setting, run
from electra.build.finetune_settings import SearchConfig
from electra.config import to_tree
from electra.console import ConsoleSink
from electra.dist import first, on_first, processes, rank
from electra.errors import Preempted
from electra.evaluate.report import write_report
from electra.events import EventLog, read_events
from electra.metrics import spread
from electra.storage import MANIFEST, clear_leftovers, json_text, problem, read_manifest, sealed_directory, write_whole
from electra.train import machine
from electra.train.machine import StopFlag
from electra.train.run import Opened, RunConfig, open_run, run_to_resume
from electra.train.selection import Evaluation, best

SUMMARY = "summary.json"
#: added to the seed of a run that collapsed
_ANOTHER_SEED = 1000


def finetune(recipe: FinetuneRecipe, console: ConsoleSink | None = None) -> Path:
    """Run `recipe`, or resume it where it was stopped.

    Returns:
        The model directory, `run.dir/model`.

    Raises:
        ElectraError: anything the user can mend; all files are read and checked before step 0.
        Preempted: a signal came and the state is saved; the best model so far, if there is one, is in its place.
    """
    with processes(recipe.parallel.timeout_minutes):
        return _finetune(recipe, console)


def _finetune(recipe: FinetuneRecipe, console: ConsoleSink | None) -> Path:
    if recipe.is_single:
        opened = run(recipe, console)
        first = Result.of(opened.directory, opened.directory)
        if first is not None and first.collapsed:
            _Runs(recipe, opened, console).run_again(first)
        return opened.model
    machine.keep_large_buffers()
    opened = open_run(recipe.run, to_tree(recipe), lambda: Setting(recipe).resolve())
    _Runs(recipe, opened, console).run_all()
    return opened.model


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run has come to so far.

    Args:
        name: its directory below run.dir; `.` = run.dir itself.
        seed, lr: what it was run with.
        best: its best evaluation, whose model it keeps.
    """

    name: str
    seed: int
    lr: float
    best: Evaluation

    @classmethod
    def of(cls, directory: Path, root: Path) -> Result | None:
        """Of the run in `directory`; None where there was no evaluation."""
        recipe = json.loads((directory / "recipe.json").read_text(encoding="utf-8"))["recipe"]
        events, _ = read_events(directory / "events.jsonl")
        found = best([Evaluation.of(event) for event in events if event["event"] == "evaluate"])
        if found is None:
            return None
        name = directory.relative_to(root).as_posix()
        return cls(name=name, seed=recipe["run"]["seed"], lr=recipe["optimizer"]["lr"], best=found)

    @property
    def collapsed(self) -> bool:
        """Its model gives every example the same answer."""
        return self.best.figures.get("collapsed") == 1

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, flat."""
        return {"name": self.name, "seed": self.seed, "lr": self.lr, "collapsed": self.collapsed,
                "step": self.best.step, "figures": dict(self.best.figures)}  # fmt: skip


class _Runs:
    """The runs of a recipe in its directory."""

    def __init__(self, recipe: FinetuneRecipe, opened: Opened, console: ConsoleSink | None) -> None:
        self.recipe, self.opened, self.console = recipe, opened, console
        self.results = list[Result]()
        self.stop = StopFlag()  # one for all: a signal between two runs is not lost

    def run_all(self) -> None:
        """Rates, then seeds, then the summary."""
        recipe, seeds = self.recipe, self.recipe.all_seeds
        on_first(lambda: self.opened.events.unlink(missing_ok=True))  # it is told anew from the logs of the runs
        with self._logging() as log, self.stop:
            clear_leftovers(self.opened.directory)
            resolved = self.opened.resolved
            precision = "bf16" if resolved["bf16"] else "fp32"
            log.emit(
                "start",
                recipe=self.opened.directory.resolve().name,
                step=0,
                steps=resolved["steps"],
                resumed=self.opened.resuming,
                runs=recipe.run_names,
                examples=resolved["examples"],
                precision=precision,
            )
            tried = [self._result(f"lr-{lr!r}", seeds[0], lr, log) for lr in recipe.search.lr]
            lr = _best(tried).lr if tried else recipe.optimizer.lr
            counted = []
            for seed in seeds:
                known = _best(tried) if tried and seed == seeds[0] else None
                first = known or self._result(f"seed-{seed}", seed, lr, log)
                counted.append(_best([first, self._retry(first, log)]) if first.collapsed else first)
            self._conclude(counted, log)

    def run_again(self, collapsed: Result) -> None:
        """The one run of a recipe has collapsed: once more, then the summary of both."""
        self.results.append(collapsed)
        with self._logging() as log, self.stop:
            self._conclude([_best([collapsed, self._retry(collapsed, log)])], log)

    def _logging(self) -> EventLog:
        return EventLog(None) if rank() > 0 else EventLog(self.opened.events, [self.console] if self.console else [])

    def _retry(self, collapsed: Result, log: EventLog) -> Result:
        seed = collapsed.seed + _ANOTHER_SEED
        name = "the run" if collapsed.name == "." else collapsed.name
        log.emit("warning", code="E-T412", message=f"{name} has collapsed: its model gives every example of data.dev the same "
                 f"answer; it is run once more, with seed {seed}")  # fmt: skip
        return self._result((Path(collapsed.name) / "retry").as_posix(), seed, collapsed.lr, log)

    def _result(self, name: str, seed: int, lr: float, log: EventLog) -> Result:
        """Of the run `name`, which is made, resumed, or finished already."""
        directory = self.opened.directory / name
        resolved = self.opened.resolved
        recipe = dataclasses.replace(
            self.recipe,
            run=RunConfig(dir=directory, seed=seed),
            seeds=1,
            search=SearchConfig(),
            optimizer=dataclasses.replace(self.recipe.optimizer, lr=lr),
            batch=dataclasses.replace(self.recipe.batch, micro_tokens=resolved["micro_tokens"]),
            precision="bf16" if resolved["bf16"] else "fp32",  # probed once: the runs are to differ in nothing else
        )
        try:
            if not first(lambda: _is_finished(recipe)):
                run(recipe, self.console, self.stop)
        except Preempted:
            partial = Result.of(directory, self.opened.directory)
            if partial is not None:
                self._take(partial)
            log.emit("stop", reason="signal")
            raise
        result = Result.of(directory, self.opened.directory)
        assert result is not None, "a recipe of several runs has a development set"
        self._take(result)
        log.emit("run", **result.to_json())
        return result

    def _take(self, result: Result) -> None:
        """One more result; if it is the best so far, its model is put in place: there may never be another."""
        self.results.append(result)
        if _best(self.results) is result:
            on_first(lambda: self._publish(result))

    def _conclude(self, counted: Sequence[Result], log: EventLog) -> None:
        """Summary, model, report. `counted` has one result for each seed."""
        on_first(lambda: self._write(counted, log))

    def _write(self, counted: Sequence[Result], log: EventLog) -> None:
        chosen = _best(counted)
        summary = {
            "metric": next(iter(chosen.best.figures)),
            "runs": [result.to_json() for result in self.results],
            "counted": [result.name for result in counted],
            "spread": _spread(counted),
            "model": chosen.name,
        }
        self._publish(chosen)
        write_whole(self.opened.directory / SUMMARY, json_text(_strict(summary)))
        log.emit("summary", **summary)
        with self.console or contextlib.nullcontext():
            kept = {"run": chosen.name, "step": chosen.best.step, "figures": chosen.best.figures}
            log.emit("done", step=self.opened.resolved.get("steps", chosen.best.step), best=kept, model=self.opened.model)
        write_report(self.opened.directory)

    def _publish(self, chosen: Result) -> None:
        """The model of a run in the place where everybody looks for it."""
        source, place = self.opened.directory / chosen.name / "model", self.opened.model
        manifest = read_manifest(source)
        if source == place or (place.is_dir() and problem(place) is None and read_manifest(place) == manifest):
            return
        del manifest["files"]
        with sealed_directory(place, manifest) as temporary:
            shutil.copytree(source, temporary, dirs_exist_ok=True)
            (temporary / MANIFEST).unlink()


def _is_finished(recipe: FinetuneRecipe) -> bool:
    """Whether there is nothing left to do for a single run."""
    opened = run_to_resume(recipe.run, to_tree(recipe))
    if opened is None:
        return False
    events, _ = read_events(opened.events)
    return bool(events) and events[-1]["event"] == "done" and problem(opened.model) is None


def _best(results: Sequence[Result]) -> Result:
    """By the main metric, the first of equals; one that collapsed only where all did."""
    return max(results, key=lambda result: (not result.collapsed, result.best.value))


def _spread(results: Sequence[Result]) -> dict[str, Mapping[str, float]]:
    """Of each figure, in the order of the first result."""
    names = results[0].best.figures
    return {name: vars(spread([result.best.figures[name] for result in results])) for name in names}


def _strict(value: Any) -> Any:
    """A value for JSON that any program reads: a figure that is not a number is null."""
    if isinstance(value, Mapping):
        return {name: _strict(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
