"""What has changed under a run is noticed before it goes on, and what will not fit before it begins."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from electra.build import needs
from electra.errors import ElectraError, ExitCode
from electra.events import EventLog
from electra.text import build
from electra.text.tokenizer import load

Usage = namedtuple("Usage", "total used free")


class Crash(Exception):
    """The process is gone."""


def crashed_before_the_first_checkpoint(trial: Any) -> None:
    def crash(*_: object) -> None:
        raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("electra.train.loop.Optimizers.step", lambda *_: crash() if trial.directory.exists() else None)
        with pytest.raises(Crash):
            trial.run()
    assert trial.newest == -1


def refused(trial: Any, match: str) -> None:
    before = {path: path.read_bytes() for path in trial.directory.rglob("*") if path.is_file() and path.name != "events.jsonl"}
    with pytest.raises(ElectraError, match=match) as caught:
        trial.run()
    assert caught.value.exit_code == ExitCode.DATA
    assert {path: path.read_bytes() for path in before} == before


def with_setting(trial: Any, name: str, value: object) -> Any:
    kept = [setting for setting in trial.settings if not setting.startswith(f"{name}=")]
    return dataclasses.replace(trial, settings=(*kept, f"{name}={value}"))


def test_another_corpus_before_and_after_the_first_checkpoint(
    trial_of: Any, text_file: Path, tokenizer_dir: Path, corpus_dir: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(corpus_dir, corpus)
    trial = with_setting(trial_of("pretrain"), "corpus.path", corpus)
    crashed_before_the_first_checkpoint(trial)

    def exchange() -> None:
        shutil.rmtree(corpus)
        build.build([text_file], load(tokenizer_dir), corpus, shard_tokens=8000, seed=7)

    exchange()
    refused(trial, "E-D400 .*the corpus has changed")
    shutil.rmtree(corpus)
    shutil.copytree(corpus_dir, corpus)
    trial.run()
    exchange()
    refused(trial, "E-D400 .*the corpus has changed")


def test_another_training_file_or_tokenizer_before_and_after_the_first_checkpoint(
    trial_of: Any, whole: dict[str, Any], tmp_path: Path
) -> None:
    original = next(Path(s.partition("=")[2]) for s in whole["finetune"].settings if s.startswith("data.train="))
    model = tmp_path / "model"
    shutil.copytree(whole["pretrain"].directory / "model", model)
    shutil.copy(original, tmp_path / "train.tsv")
    trial = with_setting(trial_of("finetune"), "data.train", tmp_path / "train.tsv")
    trial = with_setting(trial, "init.from", model)

    def edit() -> None:
        text = original.read_text(encoding="utf-8")
        (tmp_path / "train.tsv").write_text(text.replace("the", "a", 1), encoding="utf-8")

    crashed_before_the_first_checkpoint(trial)
    edit()
    refused(trial, "E-D400 .*the training data has changed")
    shutil.copy(original, tmp_path / "train.tsv")
    trial.run()
    edit()
    refused(trial, "E-D400 .*the training data has changed")


def test_another_recipe(trial: Any) -> None:
    trial.run()
    before = trial.left()
    with pytest.raises(ElectraError, match=r"E-C420 .*run\.seed was 0, now 5"):
        trial.run("run.seed=5")
    assert trial.left() == before
    trial.run("loop.log_steps=1", "loop.keep=1")  # says how often, not what is learnt


def test_a_second_process_is_kept_out(trial: Any) -> None:
    """The lock belongs to an open file, so that two of them in one process will do."""
    trial.run()
    before = trial.left()
    with EventLog(trial.directory / "events.jsonl"), pytest.raises(ElectraError, match="E-R830") as caught:
        trial.run()
    assert caught.value.exit_code == ExitCode.RESOURCES
    assert trial.left() == before
    trial.run()


def test_room_for_less_than_two_checkpoints_is_refused(
    trial: Any, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is kept while the next is written."""
    newest = whole[trial.kind].checkpoints.paths()[-1]
    two = 2 * sum(file.stat().st_size for file in newest.glob("*.safetensors"))
    monkeypatch.setattr(needs.shutil, "disk_usage", lambda path: Usage(two, 0, two - 1))
    with pytest.raises(ElectraError, match="E-R403") as caught:
        trial.run("loop.keep=1")
    assert caught.value.exit_code == ExitCode.RESOURCES
    assert not trial.directory.exists()


def test_a_run_that_cannot_go_on_leaves_a_report(trial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(losses: Any, counts: Any) -> Any:
        return next(iter(losses.terms.values())).total * math.nan

    monkeypatch.setattr("electra.train.loop.sum_of_terms", spoilt)
    with pytest.raises(ElectraError, match=r"E-T400 .*not finite 2 times in a row.*no checkpoint to go back to") as caught:
        trial.run("loop.max_skipped=1", "loop.save_minutes=100")
    assert caught.value.exit_code == ExitCode.DATA
    last = json.loads((trial.directory / "events.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert last["event"] == "stop"
    assert "E-T400" in last["reason"]
    assert "E-T400" in (trial.directory / "report.html").read_text(encoding="utf-8")
