"""Runs with few labels and many texts: they learn, go on where they were stopped, and refuse what they cannot use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import electra
from electra.build import finetune
from electra.build.finetune import FinetuneRecipe, Setting
from electra.config import load
from electra.errors import ElectraError, Preempted
from electra.storage import file_hash


@pytest.fixture
def latent(learning: list[str], tmp_path: Path) -> list[str]:
    """10 labels, the other texts without; 12 steps, of 5 labelled and 6 unlabelled examples."""
    rows = (tmp_path / "train.tsv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "train.tsv").write_text("\n".join(rows[:11]) + "\n", encoding="utf-8")
    texts = "".join(row.split("\t")[0] + "\n" for row in rows[11:])
    (tmp_path / "texts.txt").write_text(texts, encoding="utf-8")
    own = ["objective.type=latent-adversarial", f"data.unlabelled={tmp_path / 'texts.txt'}", "objective.unlabelled_examples=6"]
    return [*learning, *own, "batch.examples=5", "epochs=6", "loop.log_steps=4"]


def events(run: Path, name: str) -> list[dict[str, Any]]:
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


def test_it_learns_from_ten_labels_and_says_what_it_does(latent: list[str], tmp_path: Path) -> None:
    model = electra.finetune([], [*latent, "epochs=20"])
    run = tmp_path / "run"
    [start], steps = events(run, "start"), events(run, "step")
    assert (start["examples"], start["unlabelled"], start["steps"]) == (10, 30, 40)
    assert events(run, "evaluate")[-1]["figures"]["accuracy"] > 0.9
    assert steps[-1]["figures"]["accuracy"] == 1.0
    assert {"fakes_found", "texts_kept", "generator_loss", "feature_distance"} <= set(steps[-1]["figures"])
    assert set(steps[-1]["grad_norm"]) == {"model", "generator"}
    assert steps[-1]["epochs"] == {"labelled": 20.0, "unlabelled": 8.0}
    assert not any("fake" in name or "generator" in name for name in load_file(model / "model.safetensors"))
    assert {prediction.output["label"] for prediction in electra.load(model).predict(["captain river", "园丁 大门"])} == {
        "en",
        "zh",
    }


def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    latent: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashes(run: str) -> dict[str, str]:
        newest = max((tmp_path / run / "checkpoints").iterdir())
        found = {path.name: file_hash(path) for path in newest.glob("*.safetensors")}
        return {**found, "model": file_hash(tmp_path / run / "model" / "model.safetensors"), "step": newest.name}

    electra.finetune([], [*latent, f"run.dir={tmp_path / 'whole'}", "objective.conditional=true"])
    original = finetune.train

    def stopped(training: Any, state: Any, stop: Any) -> None:
        if training.checkpoints is not None and state is None:  # not the dry batch, and not the second start
            training.objective.register_forward_hook(lambda *_: setattr(stop, "requested", next(calls) >= 5))
        original(training, state, stop)

    calls = iter(range(100))
    monkeypatch.setattr(finetune, "train", stopped)
    with pytest.raises(Preempted):
        electra.finetune([], [*latent, "objective.conditional=true"])
    assert events(tmp_path / "run", "stop")[-1]["step"] < 12
    electra.finetune([], [*latent, "objective.conditional=true"])
    assert hashes("run") == hashes("whole")


def test_the_steps_are_those_of_plain_fine_tuning(latent: list[str]) -> None:
    given = [word for word in latent if not word.startswith(("objective", "data.unlabelled"))]
    setting, plain = (Setting(load(FinetuneRecipe, [], words)) for words in (latent, given))
    survey = setting.survey(0.0)
    assert survey.resolved["steps"] == plain.survey(0.0).resolved["steps"] == 12
    assert (survey.data["rows"], survey.data["unlabelled rows"]) == (10, 30)
    assert set(survey.phases[0].need.parameters) == {"model", "generator"}


def test_labels_of_the_unlabelled_are_not_looked_at_and_that_is_told(latent: list[str], tmp_path: Path) -> None:
    (tmp_path / "more.tsv").write_text("text\tlabel\na river\tno such label\na lamp\t\n", encoding="utf-8")
    dev = (tmp_path / "dev.tsv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "dev.txt").write_text(dev[1].split("\t")[0] + "\n", encoding="utf-8")
    files = [str(tmp_path / name) for name in ("texts.txt", "more.tsv", "dev.txt")]
    setting = Setting(load(FinetuneRecipe, [], [*latent, f"data.unlabelled={json.dumps(files)}"]))
    assert len(setting.unlabelled) == 33
    assert {int(row.targets["label"]) for row in setting.unlabelled} == {-100}
    told = "\n".join(setting.notes)
    assert f"{files[1]}: 2 labels are not looked at" in told
    assert "1 texts of data.dev are learnt from without their labels" in told


def refused(settings: Sequence[str]) -> str:
    with pytest.raises(ElectraError) as caught:
        Setting(load(FinetuneRecipe, [], settings))
    return str(caught.value)


def test_what_cannot_be_used_is_refused_with_its_place(latent: list[str], tmp_path: Path) -> None:
    unlabelled = [word for word in latent if not word.startswith("data.unlabelled")]
    assert refused(unlabelled).startswith("E-C532 data.unlabelled: is required")
    given = [word for word in latent if not word.startswith("objective")]
    assert refused(given).startswith("E-C532 data.unlabelled: objective.type=supervised learns nothing of texts")
    (tmp_path / "texts.txt").write_text("", encoding="utf-8")
    assert refused(latent).startswith(f"E-D307 {tmp_path / 'texts.txt'}: holds no rows")
    odd = tmp_path / "odd.tsv"
    odd.write_text("text\tlabel\na river\ten\na lamp\n", encoding="utf-8")
    assert refused([*latent, f"data.unlabelled={odd}"]).startswith(f"E-D304 {odd}:3")
    odd.write_text("sentence1\tsentence2\na river\ta lamp\n", encoding="utf-8")
    assert refused([*latent, f"data.unlabelled={odd}"]).startswith(f"E-D367 {odd}:2")
    train = (tmp_path / "train.tsv").read_text(encoding="utf-8").replace("\tzh", "\t0.5").replace("\ten", "\t2.25")
    (tmp_path / "train.tsv").write_text(train, encoding="utf-8")
    without_dev = [word for word in latent if not word.startswith("data.dev")]
    assert "E-C531 objective.type" in refused(without_dev)
