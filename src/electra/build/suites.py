"""Fine-tuning suites: one encoder, several tasks, one table.

In: a model directory, a suite (a TOML file that names each task's files, column settings and metric), a folder of data and a
run directory. For each task the encoder is fine-tuned by the suite's recipe and the model after the last epoch is scored on
the task's test file, so nothing is chosen on it; several seeds give a median. Out: `suite.json` in the run directory, written
after every run, and lines for the terminal.

Every run is one of `electra finetune`, in `TASK/seed-N` below the run directory, so an interrupted suite goes on where it was.
A score is taken over from `suite.json` where recipe, weights and test file are what they were.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from electra.build.finetune import FinetuneRecipe, load_recipe
from electra.build.sweep import finetune
from electra.config import STRICT, build, fingerprint, load, to_tree
from electra.console import ConsoleSink
from electra.errors import ElectraError
from electra.evaluate.run import evaluate_file
from electra.metrics import spread
from electra.storage import file_hash, json_text, write_whole
from electra.train.run import RunConfig, recipe_fingerprint

TABLE = "suite.json"


@dataclass(frozen=True, kw_only=True)
class SuiteTask:
    """One task of a suite.

    Args:
        train, test: files below the folder of data.
        settings: `key=value` of `electra finetune`, on top of the suite's recipe.
    """

    __pydantic_config__ = STRICT
    train: Path
    test: Path
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A suite file.

    Args:
        recipe: of fine-tuning, for all tasks.
        tasks: by name, in order.
    """

    __pydantic_config__ = STRICT
    recipe: str
    tasks: dict[str, SuiteTask]


@dataclass(frozen=True, kw_only=True)
class SuiteConfig:
    """Settings of `suite=NAME` and `suite=FILE.toml`; any other is one of `electra finetune`, for every task.

    Args:
        data: the folder of data.
        run: `run.dir`; `run.seed`, the first seed.
        tasks: names of those to run; none = all.
        seeds: runs of each task.
    """

    __pydantic_config__ = STRICT
    data: Path
    run: RunConfig
    tasks: tuple[str, ...] = ()
    seeds: int = 1

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.run.fresh:
            raise ElectraError("E-C588", "suite", f"seeds is {self.seeds}, run.fresh {self.run.fresh}",
                               "give 1 seed or more; remove run.dir to start over")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A fine-tuning run of a task, the file it is scored on, and what says whether its score still holds."""

    task: str
    recipe: FinetuneRecipe
    test: Path
    key: str


def shipped_suites() -> dict[str, Path]:
    """The suites that come with the package, by name."""
    folder = Path(str(resources.files("electra") / "suites"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"), key=lambda path: path.stem)}


def run_suite(model: Path, suite: str, assignments: Sequence[str], console: ConsoleSink | None = None) -> dict[str, Any]:
    """Fine-tune `model` on every task of a suite, or go on with it; what `suite.json` holds.

    Args:
        model: a model directory.
        suite: a shipped name or a TOML file.
        assignments: `key=value` of `SuiteConfig` and of fine-tuning.

    Raises:
        ElectraError: E-C586 no such suite, or a broken one, E-C588 no such task, or a setting out of range, E-D587
            missing files, all of them named; and what `finetune` and `evaluate_file` raise.
    """
    own, others = _divided(assignments)
    config, path = load(SuiteConfig, [], own), shipped_suites().get(suite, Path(suite))
    tasks = _chosen(_read(path), config)
    runs = _runs(model, tasks, config, others)
    file = config.run.dir / TABLE
    earlier = {run["key"]: run for run in _stored(file)}
    done = list[dict[str, Any]]()
    config.run.dir.mkdir(parents=True, exist_ok=True)
    table: dict[str, Any] = {}
    for run in runs:
        done.append(earlier.get(run.key) or _score(run, console))
        table = {"suite": path.stem, "model": str(model), "tasks": _table(done, tasks), "runs": done}
        write_whole(file, json_text(table))
    return table


def to_lines(table: Mapping[str, Any]) -> list[str]:
    """The table for people: task, metric, median and range over the seeds, examples."""
    head = ("task", "metric", "median", "range", "seeds", "examples")
    rows = [head] + [
        (name, row["metric"], f"{row['median']:.4f}", f"{row['minimum']:.4f} - {row['maximum']:.4f}", str(row["seeds"]),
         f"{row['examples']:,}")
        for name, row in table["tasks"].items()
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _divided(assignments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Settings of the suite, and those of fine-tuning."""
    own = [each for each in assignments if each.partition("=")[0].split(".")[0] in ("data", "run", "tasks", "seeds")]
    ours = [each for each in own if not each.startswith("data.")]
    return ours, [each for each in assignments if each not in ours]


def _read(path: Path) -> Suite:
    if not path.is_file():
        raise ElectraError("E-C586", str(path), "no shipped suite and no file of this name",
                           f"shipped: blimp, {', '.join(shipped_suites())}")  # fmt: skip
    try:
        suite = build(Suite, tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ElectraError("E-C586", str(path), f"not valid TOML: {error}", "mend the file") from None
    except ElectraError as error:  # of the file, not of the command line
        raise ElectraError("E-C586", f"{path}: {error.where}", error.cause, error.fix) from None
    if not suite.tasks:
        raise ElectraError("E-C586", str(path), "it has no tasks", "give it [tasks.NAME] with train, test and settings")
    return suite


def _chosen(suite: Suite, config: SuiteConfig) -> Suite:
    """The suite with the tasks that are asked for, whose files are there."""
    if unknown := [name for name in config.tasks if name not in suite.tasks]:
        raise ElectraError("E-C588", "tasks", f"the suite has no {', '.join(unknown)}", f"choose from {', '.join(suite.tasks)}")
    tasks = {name: task for name, task in suite.tasks.items() if not config.tasks or name in config.tasks}
    missing = {str(file): name for name, task in tasks.items() for file in (task.train, task.test)
               if not (config.data / file).is_file()}  # fmt: skip
    if missing:
        there = [name for name in tasks if name not in missing.values()]
        raise ElectraError("E-D587", str(config.data), f"files are missing: {', '.join(missing)}",
                           f"bring them, or give tasks={json.dumps(there)}")  # fmt: skip
    return Suite(recipe=suite.recipe, tasks=tasks)


def _runs(model: Path, suite: Suite, config: SuiteConfig, others: Sequence[str]) -> list[_Run]:
    """Every run, its recipe checked before the first of them starts."""
    weights = model / "model.safetensors"
    known, found = file_hash(weights) if weights.is_file() else "", list[_Run]()
    for name, task in suite.tasks.items():
        test = config.data / task.test
        train_hash, test_hash = file_hash(config.data / task.train), file_hash(test)
        for seed in range(config.run.seed, config.run.seed + config.seeds):
            recipe = load_recipe([suite.recipe], [
                *task.settings, *others, f"init.from={model}", f"data.train={config.data / task.train}",
                f"run.dir={config.run.dir / name / f'seed-{seed}'}", f"run.seed={seed}",
            ])  # fmt: skip
            key = fingerprint([recipe_fingerprint(to_tree(recipe)), known, train_hash, test_hash])
            found.append(_Run(task=name, recipe=recipe, test=test, key=key))
    return found


def _stored(file: Path) -> list[dict[str, Any]]:
    return list(json.loads(file.read_text(encoding="utf-8"))["runs"]) if file.is_file() else []


def _score(run: _Run, console: ConsoleSink | None) -> dict[str, Any]:
    """Fine-tune, or go on, and score on the test file."""
    found = evaluate_file(finetune(run.recipe, console), run.test)
    kept = ("metrics", "intervals", "examples", "truncated", "warnings", "notes")
    main = next(iter(found["metrics"]))  # written down, for JSON's keys are sorted
    return {"task": run.task, "seed": run.recipe.run.seed, "key": run.key, "metric": main,
            **{name: found[name] for name in kept}}  # fmt: skip


def _table(done: Sequence[Mapping[str, Any]], suite: Suite) -> dict[str, Any]:
    """A row for each task that has a run: its main metric, over the seeds."""
    table = {}
    for name in suite.tasks:
        runs = [run for run in done if run["task"] == name]
        if not runs:
            continue
        metric = runs[0]["metric"]
        over = spread([run["metrics"][metric] for run in runs])
        table[name] = {"metric": metric, **asdict(over), "seeds": len(runs), "examples": runs[0]["examples"]}
    return table
