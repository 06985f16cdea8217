"""One fine-tuning run: which model it leaves, what it refuses and tells before step 0."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import electra
from electra.build import finetune
from electra.build.finetune import FinetuneRecipe, Setting
from electra.config import load
from electra.contracts import Judgement
from electra.errors import ElectraError, Preempted
from electra.storage import file_hash
from electra.tasks.classify import Classify


def events(run: Path, name: str) -> list[dict[str, Any]]:
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


def recipe(*assignments: str) -> FinetuneRecipe:
    return load(FinetuneRecipe, [], assignments)


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the next evaluations shall come to, in place of what the model is worth."""
    left: list[float] = []
    monkeypatch.setattr(finetune, "figures", lambda task, judgements: {"accuracy": left.pop(0), "collapsed": 0.0})
    return left


# -- which model is left ------------------------------------------------------------------------------------------------


def test_the_model_is_that_of_the_best_evaluation(learning: list[str], scores: list[float], tmp_path: Path) -> None:
    run = tmp_path / "run"
    scores += [0.5, 0.9, 0.7, 0.8, 0.9]
    electra.finetune([], [*learning, "evaluation.steps=2", "loop.keep=1"])
    assert [event["best"] for event in events(run, "evaluate")] == [True, True, False, False, False]
    [done] = events(run, "done")
    assert (done["step"], done["best"]) == (10, {"step": 4, "figures": {"accuracy": 0.9, "collapsed": 0.0}})
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-00000004", "step-00000010"]
    kept = load_file(run / "checkpoints" / "step-00000004" / "model.safetensors")["model.head.classifier.weight"]
    head: Any = electra.load(run / "model").network.head
    assert torch.equal(head.classifier.weight, kept)
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert "the model of step 4, which was the best of 5 evaluations" in card
    before = file_hash(run / "model" / "model.safetensors")
    electra.finetune([], [*learning, "evaluation.steps=2", "loop.keep=1"])
    assert file_hash(run / "model" / "model.safetensors") == before


def test_labels_that_ask_for_another_task_end_in_a_model_for_it(learning: list[str], tmp_path: Path) -> None:
    for name in ("train", "dev"):
        file = tmp_path / f"{name}.tsv"
        file.write_text(file.read_text(encoding="utf-8").replace("\tzh", "\t0.5").replace("\ten", "\t2.25"), encoding="utf-8")
    model = electra.finetune([], learning)
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text(encoding="utf-8"))["metrics"]["spearman"]
    assert set(electra.load(model).predict(["a captain"])[0].output) == {"score"}


def test_without_development_data_the_last_model_is_left(learning: list[str], tmp_path: Path) -> None:
    electra.finetune([], [setting for setting in learning if not setting.startswith("data.dev")])
    assert events(tmp_path / "run", "evaluate") == []
    assert "best" not in events(tmp_path / "run", "done")[0]
    assert (tmp_path / "run" / "model" / "task.json").is_file()


def test_patience_ends_a_run_and_the_same_command_leaves_it_ended(
    learning: list[str], scores: list[float], tmp_path: Path
) -> None:
    settings = [*learning, "evaluation.steps=1", "evaluation.patience=2"]
    scores += [0.5, 0.6, 0.6, 0.1]
    electra.finetune([], settings)
    assert [event["step"] for event in events(tmp_path / "run", "settled")] == [4]
    electra.finetune([], settings)  # an evaluation would find no score
    assert [event["step"] for event in events(tmp_path / "run", "done")] == [4, 4]


def test_what_the_task_chose_belongs_to_the_best_evaluation(
    learning: list[str], scores: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices: Iterator[int] = iter((20, 21, 22, 23, 24))

    def tune(self: Classify, judgements: Sequence[Judgement]) -> Classify:
        return Classify(dataclasses.replace(self.config, max_length=next(choices)), self.tokenizer)

    monkeypatch.setattr(Classify, "tune", tune)
    scores += [0.5, 0.9, 0.7, 0.8, 0.9]
    for _ in range(2):  # the second start only reads the log
        electra.finetune([], [*learning, "evaluation.steps=2"])
        task = json.loads((tmp_path / "run" / "model" / "task.json").read_text(encoding="utf-8"))
        assert (task["max_length"], task["labels"]) == (21, ["en", "zh"])


def test_best_weights_that_were_lost_are_told_and_replaced(learning: list[str], scores: list[float], tmp_path: Path) -> None:
    run = tmp_path / "run"
    scores += [0.5, 0.9, 0.7, 0.8, 0.8]
    electra.finetune([], [*learning, "evaluation.steps=2"])
    file = run / "checkpoints" / "step-00000004" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    electra.finetune([], [*learning, "evaluation.steps=2"])
    [warning] = [event for event in events(run, "warning") if event["code"] == "E-T411"]
    assert "after step 4, cannot be read (model.safetensors has another hash" in warning["message"]
    assert events(run, "done")[-1]["best"]["step"] == 10, "the only other one whose weights are there"


def test_a_stop_leaves_the_best_model_so_far(
    learning: list[str], scores: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores += [0.9, 0.5]
    monkeypatch.setattr(finetune, "train", stopped_after(8))
    with pytest.raises(Preempted):
        electra.finetune([], [*learning, "evaluation.steps=3"])
    run = tmp_path / "run"
    assert events(run, "stop")[-1]["step"] == 8
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step-00000003", "step-00000008"]
    assert "the model of step 3" in (run / "model" / "README.md").read_text(encoding="utf-8")


def stopped_after(step: int) -> Any:
    """`train` with a wish to stop when `step` steps are done."""
    original = finetune.train

    def train(training: Any, state: Any, stop: Any) -> None:
        if training.checkpoints is not None:  # not the dry batch
            update = training.optimizers.step
            training.optimizers.step = lambda networks, number: (
                update(networks, number),
                setattr(stop, "requested", number + 1 >= step),
            )
        original(training, state, stop)

    return train


# -- before step 0 ------------------------------------------------------------------------------------------------------


def test_the_head_is_the_only_weight_that_may_be_missing(learning: list[str], encoder_dir: Path, tmp_path: Path) -> None:
    """The encoder's directory has no head at all; where another weight is missing it is named, and nothing is made up."""
    shutil.copytree(encoder_dir, tmp_path / "broken")
    file = tmp_path / "broken" / "model.safetensors"
    tensors = load_file(file)
    gone = next(name for name in tensors if "layer.1" in name and name.endswith("attention.output.dense.weight"))
    del tensors[gone]
    save_file(tensors, file, {"format": "pt"})
    (tmp_path / "broken" / "manifest.json").unlink()  # as a directory of transformers'
    with pytest.raises(ElectraError, match=rf"E-M\d+ .*{gone.removeprefix('electra.')}"):
        electra.finetune([], [*learning, f"init.from={tmp_path / 'broken'}"])
    assert not (tmp_path / "run").exists()


def test_what_the_files_have_in_common_is_told(learning: list[str], tmp_path: Path) -> None:
    train = (tmp_path / "train.tsv").read_text(encoding="utf-8").splitlines()
    with (tmp_path / "dev.tsv").open("a", encoding="utf-8") as dev:
        dev.write(f"{train[3]}\n")
    electra.finetune([], learning)
    [warning] = [event for event in events(tmp_path / "run", "warning") if event["code"] == "E-D361"]
    assert warning["message"].startswith("1 of 25 examples of data.dev (4.0%) stand in data.train as well")
    shutil.copy(tmp_path / "train.tsv", tmp_path / "dev.tsv")
    with pytest.raises(ElectraError, match="E-D360"):
        electra.finetune([], [*learning, "run.fresh=true"])
    assert (tmp_path / "run" / "model").is_dir(), "what was there is lost for no error"


def test_padding_is_told_before_and_after(learning: list[str], tmp_path: Path) -> None:
    setting = Setting(recipe(*learning))
    loader = setting.training(bf16=False, micro_tokens=8192, card=str).loader
    batches = [batch for step in range(5) for batch, _ in loader.micro_batches(step, 0, 1)]
    positions, real = sum(batch.tokens.numel() for batch in batches), sum(batch.counts["tokens"] for batch in batches)
    share = setting.survey(0.0).data["padding share"]
    assert share == pytest.approx(1 - real / positions, abs=1e-4)
    assert 0 < share < 0.3
    electra.finetune([], learning)
    assert events(tmp_path / "run", "start")[0]["padding_share"] == share


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        (["seeds=0"], "E-C453"), (["seeds=[1,1]"], "E-C453"), (["seeds=[]"], "E-C453"), (["search.lr=[1e-4,1e-4]"], "E-C456"),
        (["search.lr=[0.0]"], "E-C456"), (["evaluation.patience=0"], "E-C452"), (["freeze=bottom"], "E-C004"),
    ],
)  # fmt: skip
def test_settings_out_of_range(learning: list[str], settings: list[str], code: str) -> None:
    with pytest.raises(ElectraError) as caught:
        recipe(*learning, *settings)
    assert caught.value.code == code


@pytest.mark.parametrize("setting", ["seeds=2", "search.lr=[1e-4]", "evaluation.patience=1", "evaluation.steps=5"])
def test_what_needs_scores_needs_a_development_file(learning: list[str], setting: str) -> None:
    given = [each for each in learning if not each.startswith("data.dev")]
    with pytest.raises(ElectraError, match=rf"E-C455 {setting.split('=')[0].split('.')[0]}"):
        recipe(*given, setting)


# -- frozen layers ------------------------------------------------------------------------------------------------------


def test_frozen_layers_have_no_optimiser_state_and_take_less_memory(learning: list[str], tmp_path: Path) -> None:
    needs = {freeze: Setting(recipe(*learning, f"freeze={freeze}")).survey(0.0).phases[0].need for freeze in ("nothing", "2")}
    assert needs["2"].gradients < needs["nothing"].gradients / 2
    assert needs["2"].activations < needs["nothing"].activations * 0.6
    electra.finetune([], [*learning, "freeze=2"])
    state = load_file(max((tmp_path / "run" / "checkpoints").iterdir()) / "optimizer.safetensors")
    assert not any(".embeddings" in name or ".layers.0." in name or ".layers.1." in name for name in state)
    assert any(".layers.2." in name for name in state)
    assert math.isfinite(events(tmp_path / "run", "step")[-1]["figures"]["loss"])
