"""Several runs of one recipe: seeds, rates that are tried, runs that collapse."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import electra
from electra.build import finetune
from electra.build.plan import plan
from electra.build.sweep import finetune as run_recipe
from electra.config import load
from electra.console import PlainLines
from electra.errors import Preempted
from electra.evaluate.report import report_page, text_summary
from electra.metrics import spread
from electra.storage import file_hash, problem
from electra.train.selection import Evaluation


def events(run: Path, name: str) -> list[dict[str, Any]]:
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


def weights(directory: Path) -> str:
    return file_hash(directory / "model" / "model.safetensors")


def summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture
def score(monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[float, float]]:
    """(accuracy, collapsed) of every evaluation of the runs with a seed, in place of what the model is worth."""
    by_seed: dict[int, tuple[float, float]] = {}
    original = finetune.Setting._evaluator

    def evaluator(self: finetune.Setting, objective: Any) -> Any:
        accuracy, collapsed = by_seed[self.recipe.run.seed]
        figures = {"accuracy": accuracy, "collapsed": collapsed}
        return original(self, objective) and (lambda step, stop: Evaluation(step=step, figures=figures))

    monkeypatch.setattr(finetune.Setting, "_evaluator", evaluator)
    return by_seed


def test_seeds_run_apart_and_the_best_model_is_left(
    learning: list[str], score: dict[int, tuple[float, float]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    score |= {4: (0.7, 0.0), 5: (0.9, 0.0), 6: (0.8, 0.0)}
    settings = [*learning, "run.seed=4", "seeds=3"]
    recipe = load(finetune.FinetuneRecipe, [], settings)
    assert run_recipe(recipe, PlainLines(every=1e9)) == run / "model"
    found = summary(run)
    assert (found["metric"], found["model"], found["counted"]) == ("accuracy", "seed-5", ["seed-4", "seed-5", "seed-6"])
    assert found["spread"]["accuracy"] == vars(spread([0.7, 0.9, 0.8]))
    assert [(each["name"], each["seed"], each["figures"]["accuracy"]) for each in found["runs"]] == [
        ("seed-4", 4, 0.7), ("seed-5", 5, 0.9), ("seed-6", 6, 0.8),
    ]  # fmt: skip
    assert weights(run) == weights(run / "seed-5") != weights(run / "seed-4")
    assert problem(run / "model") is None
    told = "accuracy over 3 seeds: median 0.8000, 0.7000 to 0.9000, s.d. 0.1000"
    assert told in capsys.readouterr().out
    assert told in text_summary(run)
    page = report_page(run)
    assert "<td>0.8000</td><td>0.7000</td><td>0.9000</td><td>0.1000</td>" in page
    assert "seed-5 (kept)" in page
    before = {path: path.stat().st_mtime_ns for path in run.glob("seed-*/**/*")}
    run_recipe(recipe)
    assert {path: path.stat().st_mtime_ns for path in run.glob("seed-*/**/*")} == before
    assert summary(run) == found


def test_each_run_is_what_the_command_alone_would_make(learning: list[str], tmp_path: Path) -> None:
    electra.finetune([], [*learning, "seeds=[7,3]", "epochs=1"])
    electra.finetune([], [*learning, "run.seed=3", "epochs=1", f"run.dir={tmp_path / 'alone'}"])
    ends = [tmp_path / name / "checkpoints" / "step-00000005" for name in ("run/seed-3", "alone")]
    assert file_hash(ends[0] / "model.safetensors") == file_hash(ends[1] / "model.safetensors")


def test_the_rate_that_does_best_is_taken_for_the_seeds(learning: list[str], tmp_path: Path) -> None:
    electra.finetune([], [*learning, "epochs=4", "seeds=2", "search.lr=[1e-7,0.01]"])
    found = summary(tmp_path / "run")
    assert [(each["name"], each["lr"], each["seed"]) for each in found["runs"] if "retry" not in each["name"]] == [
        ("lr-1e-07", 1e-7, 0), ("lr-0.01", 0.01, 0), ("seed-1", 0.01, 1),
    ]  # fmt: skip
    assert found["counted"] == ["lr-0.01", "seed-1"], "the first seed has run while rates were tried"
    assert found["spread"]["accuracy"]["minimum"] > 0.9


def test_a_run_that_collapsed_is_kept_and_run_once_more(
    learning: list[str], score: dict[int, tuple[float, float]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    score |= {0: (0.5, 1.0), 1000: (0.4, 0.0)}  # the commonest label is more often right, and still no model
    for _ in range(2):
        electra.finetune([], [*learning, "epochs=1"])
        assert weights(run) == weights(run / "retry")
        found = summary(run)
        assert [(each["name"], each["seed"], each["collapsed"]) for each in found["runs"]] == [
            (".", 0, True), ("retry", 1000, False),
        ]  # fmt: skip
        assert (found["model"], found["counted"]) == ("retry", ["retry"])
    warning = events(run, "warning")[-1]
    assert (warning["code"], "it is run once more, with seed 1000" in warning["message"]) == ("E-T412", True)
    assert len(events(run / "retry", "start")) == 1, "finished runs are not touched"
    assert "retry" in text_summary(run)


def test_only_once(learning: list[str], score: dict[int, tuple[float, float]], tmp_path: Path) -> None:
    score |= {0: (0.5, 1.0), 1: (0.8, 0.0), 1000: (0.4, 1.0)}
    electra.finetune([], [*learning, "epochs=1", "seeds=2"])
    found = summary(tmp_path / "run")
    assert [each["name"] for each in found["runs"]] == ["seed-0", "seed-0/retry", "seed-1"]
    assert (found["counted"], found["model"]) == (["seed-0", "seed-1"], "seed-1")


def test_a_stop_between_two_runs_is_not_lost(
    learning: list[str], score: dict[int, tuple[float, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score |= {0: (0.8, 0.0), 1: (0.9, 0.0)}
    original = finetune.Setting.survey

    def survey(self: finetune.Setting, *arguments: Any) -> Any:
        if self.recipe.run.seed == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments)

    monkeypatch.setattr(finetune.Setting, "survey", survey)
    with pytest.raises(Preempted):
        electra.finetune([], [*learning, "epochs=1", "seeds=2"])
    run = tmp_path / "run"
    assert weights(run) == weights(run / "seed-0")
    assert events(run / "seed-1", "stop")[0]["step"] == 0
    electra.finetune([], [*learning, "epochs=1", "seeds=2"])
    assert weights(run) == weights(run / "seed-1")


def test_figures_that_are_no_numbers_are_null_in_json(
    learning: list[str], score: dict[int, tuple[float, float]], tmp_path: Path
) -> None:
    score |= {0: (math.nan, 0.0), 1: (0.9, 0.0)}
    electra.finetune([], [*learning, "epochs=1", "seeds=2"])
    assert "NaN" not in (tmp_path / "run" / "summary.json").read_text(encoding="utf-8")
    assert (summary(tmp_path / "run")["model"], summary(tmp_path / "run")["spread"]["accuracy"]["median"]) == ("seed-1", None)
    assert "seed-0" in report_page(tmp_path / "run")


def test_starting_over_removes_all_runs(learning: list[str], tmp_path: Path) -> None:
    electra.finetune([], [*learning, "epochs=1", "seeds=2"])
    alone = [setting for setting in learning if not setting.startswith("data.dev")]
    electra.finetune([], [*alone, "epochs=1", "run.fresh=true"])
    assert not [*(tmp_path / "run").glob("seed-*"), *(tmp_path / "run").glob("summary.json")]


def test_a_plan_has_every_run(learning: list[str], tmp_path: Path) -> None:
    settings = [*learning, "seeds=2", "search.lr=[1e-3,1e-2]", "epochs=1"]
    found = plan([], settings)
    assert [(phase.name, phase.first, phase.steps) for phase in found.phases] == [
        ("lr-0.001", 0, 5), ("lr-0.01", 5, 5), ("seed-1", 10, 5),
    ]  # fmt: skip
    assert not (tmp_path / "run").exists()
    electra.finetune([], settings)
    written = {path.name for path in (tmp_path / "run").iterdir()} | {"report.html"}
    assert written == {path.split("/")[0] for path in found.writes}
    assert plan([], settings).step == 15
