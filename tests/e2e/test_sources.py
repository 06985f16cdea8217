"""Two corpora in one run: from a recipe file or the command line to the log, the report and the card."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

Done = Callable[..., str]
Verb = Callable[..., Any]

RECIPE = """
extends = "test-classic"

[rows]
type = "packed"
length = 16

[loop]
log_steps = 4

[stop]
steps = 8

[[corpus.sources]]
name = "main"
path = "{main}"
weight = 3

[[corpus.sources]]
name = "songs"
path = "{songs}"
weight = 1
"""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Two corpora and a run on both."""

    main: Path
    songs: Path
    recipe: Path
    run: Path


def rebuild(done: Done, place: Any, sources: Sources, *options: object) -> None:
    done("corpus", "build", sources.songs.with_suffix(".txt"), "--tokenizer", place.tokenizer, "--out", sources.songs, *options)


@pytest.fixture(scope="module")
def sources(place: Any, done: Done, tmp_path_factory: pytest.TempPathFactory) -> Sources:
    root = tmp_path_factory.mktemp("sources")
    made = Sources(main=place.corpus, songs=root / "songs", recipe=root / "mix.toml", run=root / "run")
    (root / "songs.txt").write_text("\n\n".join("the song is " + "very " * n + "lovely." for n in range(30)), encoding="utf-8")
    rebuild(done, place, made)
    made.recipe.write_text(RECIPE.format(main=made.main, songs=made.songs), encoding="utf-8")
    done("pretrain", made.recipe, f"run.dir={made.run}")
    return made


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def test_a_run_tells_of_its_sources_and_of_their_epochs(sources: Sources, done: Done) -> None:
    (start,) = events(sources.run, "start")
    assert [(source["name"], source["share"]) for source in start["corpus"]] == [("main", 0.75), ("songs", 0.25)]
    steps = events(sources.run, "step")
    resolved = json.loads((sources.run / "recipe.json").read_text(encoding="utf-8"))["resolved"]
    rows = {source["name"]: -(-source["tokens"] // 16) for source in resolved["corpus"]}  # each has one shard
    for step in steps:
        seen = step["step"] * 8  # rows of a step
        assert step["epochs"] == pytest.approx(
            {"main": seen * 0.75 / rows["main"], "songs": seen * 0.25 / rows["songs"]}, abs=1e-6
        )
    told = f"main {steps[-1]['epochs']['main']:.4f}, songs {steps[-1]['epochs']['songs']:.4f}"
    assert f"  epochs {told}" in done("report", sources.run)
    page = (sources.run / "report.html").read_text(encoding="utf-8")
    assert "epochs of main" in page
    assert "epochs of songs" in page
    card = (sources.run / "model" / "README.md").read_text(encoding="utf-8")
    assert f"| 75.00% | {steps[-1]['epochs']['main']:.4f} |" in card
    assert "| songs | 30 | " in card


def test_sources_can_be_given_on_the_command_line(sources: Sources, done: Done, tmp_path: Path) -> None:
    value = f"[{{name='main', path='{sources.main}', weight=3}}, {{name='songs', path='{sources.songs}', weight=1}}]"
    settings = ["rows={type='packed', length=16}", "loop.log_steps=4", "stop.steps=8", f"run.dir={tmp_path / 'run'}"]
    told = done("pretrain", "test-classic", f"corpus.sources={value}", *settings)
    assert "epochs songs 0." in told
    figures = [[step["figures"] for step in events(run, "step")] for run in (sources.run, tmp_path / "run")]
    assert figures[0] == figures[1]


def test_one_source_is_a_corpus_by_its_path(sources: Sources, done: Done, tmp_path: Path) -> None:
    common = ["pretrain", "test-classic", "stop.steps=4", "loop.log_steps=2"]
    done(*common, f"corpus.path={sources.main}", f"run.dir={tmp_path / 'path'}")
    done(*common, f"corpus.sources=[{{name='main', path='{sources.main}'}}]", f"run.dir={tmp_path / 'named'}")
    figures = [[step["figures"] for step in events(tmp_path / name, "step")] for name in ("path", "named")]
    assert figures[0] == figures[1]


def test_a_changed_source_is_named_at_resume(sources: Sources, place: Any, done: Done, electra: Verb, tmp_path: Path) -> None:
    done("pretrain", sources.recipe, f"run.dir={tmp_path / 'run'}")
    rebuild(done, place, sources, "--seed", "7", "--overwrite")
    outcome = electra("pretrain", sources.recipe, f"run.dir={tmp_path / 'run'}")
    assert outcome.code == 3
    assert "error: E-D400" in outcome.err
    assert "the source songs has changed since the run was started; bring the source songs back" in outcome.err
    rebuild(done, place, sources, "--overwrite")
    done("pretrain", sources.recipe, f"run.dir={tmp_path / 'run'}")


def test_sources_that_cannot_be_mixed_leave_nothing_behind(sources: Sources, electra: Verb, tmp_path: Path) -> None:
    for settings, code, told in (
        ([f"corpus.path={sources.main}"], "E-C470", "path and sources are both given"),
        (["corpus.temperature=3"], "E-C473", "the sources have weights already"),
        (["batch.rows=4000"], "E-D240", "source main: "),
    ):
        outcome = electra("pretrain", sources.recipe, f"run.dir={tmp_path / 'run'}", *settings)
        assert f"error: {code}" in outcome.err
        assert told in outcome.err
    assert not (tmp_path / "run").exists()
