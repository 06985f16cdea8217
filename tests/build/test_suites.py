"""A suite that fine-tunes: one table for several tasks, that goes on where it was and names what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from electra.build import suites
from electra.build.suites import run_suite, shipped_suites, to_lines
from electra.cli import app
from electra.errors import ElectraError

SUITE = """recipe = "finetune-small"

[tasks.language]
train = "language/train.tsv"
test = "language/test.tsv"
settings = ["task=classify", "task.metric=f1", "epochs=2"]

[tasks.length]
train = "length/train.tsv"
test = "length/test.tsv"
settings = ["task=regression", "epochs=1", "task.range=[0, 1]"]
"""
FAST = ["batch.examples=8", "task.max_length=32", "precision=fp32", "optimizer.layer_decay=1.0", "optimizer.lr=0.01"]


@pytest.fixture
def place(learning: list[str], tmp_path: Path) -> Path:
    """A suite file, and the folder `data` with its tasks."""
    assert learning
    rows = {
        split: (tmp_path / f"{file}.tsv").read_text(encoding="utf-8") for split, file in (("train", "train"), ("test", "dev"))
    }
    for task in ("language", "length"):
        (tmp_path / "data" / task).mkdir(parents=True)
        for split, text in rows.items():
            numbers = text.replace("\tzh\n", "\t0\n").replace("\ten\n", "\t1\n")
            (tmp_path / "data" / task / f"{split}.tsv").write_text(text if task == "language" else numbers, encoding="utf-8")
    (tmp_path / "mine.toml").write_text(SUITE, encoding="utf-8")
    return tmp_path


def settings(place: Path, *others: str) -> list[str]:
    return [f"data={place / 'data'}", f"run.dir={place / 'suite'}", *FAST, *others]


def test_one_table_over_seeds_that_is_taken_up_again(place: Path, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = str(place / "mine.toml")
    table = run_suite(encoder_dir, suite, settings(place, "seeds=2", "tasks=['language']"))
    assert list(table["tasks"]) == ["language"]
    whole = run_suite(encoder_dir, suite, settings(place))
    assert json.loads((place / "suite" / "suite.json").read_text(encoding="utf-8")) == whole
    assert [(run["task"], run["seed"]) for run in whole["runs"]] == [("language", 0), ("length", 0)]
    assert whole["runs"][0] == table["runs"][0]  # taken over
    row = whole["tasks"]["language"]
    assert row["metric"] == "f1"
    assert row["median"] == whole["runs"][0]["metrics"]["f1"]
    assert row["examples"] == 24
    lines = to_lines(whole)
    assert lines[0].split() == ["task", "metric", "median", "range", "seeds", "examples"]
    assert lines[1].startswith("language")
    assert f"{row['median']:.4f}" in lines[1]

    monkeypatch.setattr(suites, "finetune", lambda *given: pytest.fail("a finished run was made again"))
    assert run_suite(encoder_dir, suite, settings(place)) == whole
    with (place / "data" / "length" / "test.tsv").open("a", encoding="utf-8") as file:
        file.write("the river\t1\n")
    with pytest.raises(pytest.fail.Exception, match="made again"):
        run_suite(encoder_dir, suite, settings(place))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (["tasks=['language', 'weather']"], r"E-C588 tasks: the suite has no weather; choose from language, length"),
        (["seeds=0"], "E-C588"),
        (["epoch=2"], r"E-C004 .*epoch"),
        (["data=nowhere"], r"E-D587 nowhere: files are missing: language/train.tsv, .*length/test.tsv"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(place: Path, encoder_dir: Path, change: list[str], match: str) -> None:
    with pytest.raises(ElectraError, match=match):
        run_suite(encoder_dir, str(place / "mine.toml"), [*settings(place), *change])
    assert not (place / "suite").exists()


def test_suites_that_are_none(place: Path, encoder_dir: Path) -> None:
    with pytest.raises(ElectraError, match=r"E-C586 .*shipped: blimp, clue, glue"):
        run_suite(encoder_dir, "superglue", settings(place))
    for text in ("recipe = ", 'recipe = "finetune-small"\ntasks = {}'):
        (place / "broken.toml").write_text(text, encoding="utf-8")
        with pytest.raises(ElectraError, match="E-C586"):
            run_suite(encoder_dir, str(place / "broken.toml"), settings(place))
    (place / "broken.toml").write_text('[tasks.a]\ntrain = "a.tsv"\ntest = "a.tsv"\n', encoding="utf-8")
    with pytest.raises(ElectraError, match=r"E-C586 .*broken\.toml: recipe: is required"):
        run_suite(encoder_dir, str(place / "broken.toml"), settings(place))


@pytest.mark.parametrize("name", list(shipped_suites()))
def test_shipped_suites_have_recipes_that_load(name: str, tmp_path: Path) -> None:
    suite = suites._read(shipped_suites()[name])
    for task in suite.tasks.values():
        for file in (task.train, task.test):
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_text("x\n", encoding="utf-8")
    config = suites.load(suites.SuiteConfig, [], [f"data={tmp_path}", "run.dir=run"])
    assert {run.task for run in suites._runs(tmp_path, suite, config, [])} == set(suite.tasks)


def test_the_verb(place: Path, encoder_dir: Path) -> None:
    suite = f"suite={place / 'mine.toml'}"
    shown = CliRunner().invoke(app, ["evaluate", str(encoder_dir), suite, *settings(place, "tasks=['length']", "epochs=0.2")])
    assert shown.exit_code == 0, shown.exception
    assert ["length", "spearman"] in [line.split()[:2] for line in shown.stdout.splitlines()]
    for words in ([suite], [str(encoder_dir), "two", suite], [str(encoder_dir)], [str(encoder_dir), suite, "--task", "x"]):
        failed = CliRunner().invoke(app, ["evaluate", *words])
        assert isinstance(failed.exception, ElectraError)
        assert failed.exception.code == "E-C580"
