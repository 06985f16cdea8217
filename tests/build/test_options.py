"""Muon, averages, a late decay and a growing batch in a whole run: what is exported, counted and resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from electra.build import pretrain
from electra.config import load
from electra.errors import Preempted
from electra.models.model_dir import load_model_dir
from electra.train.checkpoint import Checkpoints, own_tensors
from electra.train.loop import Training, train
from electra.train.machine import StopFlag

Build = Callable[..., Training]
OPTIONS = (
    "phases.mlm.optimizer={type='muon', lr=1e-2, warmup_ratio=0.0, decay_ratio=0.5}", "phases.mlm.average=0.5",
    "phases.rtd.optimizer={type='muon', lr=1e-2, warmup_ratio=0.0, decay_ratio=0.5}", "phases.rtd.average=0.5",
    "batch.first_rows=2",
)  # fmt: skip


def test_a_run_exports_the_averages_and_counts_its_rows(
    corpus_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain, "write_report", lambda directory: directory)
    settings = [
        f"corpus.path={corpus_dir}",
        f"run.dir={tmp_path / 'run'}",
        "stop.steps=8",
        "phases.rtd.share=0",
        "precision=fp32",
    ]
    recipe = load(pretrain.PretrainRecipe, ["test-modern"], [*settings, *OPTIONS, "loop.log_steps=1"])
    model = load_model_dir(pretrain.pretrain(recipe))
    state = load_file(tmp_path / "run" / "checkpoints" / "step-00000008" / "optimizer.safetensors")
    weights = load_file(tmp_path / "run" / "checkpoints" / "step-00000008" / "model.safetensors")
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, state[f"encoder.encoder.{name}.average"]), name
        assert not torch.equal(tensor, weights[f"model.encoder.{name}"]), name
    lines = (tmp_path / "run" / "events.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [event for event in map(json.loads, lines) if event["event"] == "step"]
    rows = [event["epochs"]["corpus"] for event in steps]
    assert [count / rows[0] for count in rows] == pytest.approx([1, 2, 4, 6, 9, 12, 16, 20], rel=1e-3)


def test_stopped_and_resumed_equals_uninterrupted(training_of: Build, tmp_path: Path) -> None:
    def fresh() -> Training:
        return training_of("test-modern", *OPTIONS, "loop.log_steps=1", steps=6, micro_rows=3)

    whole, begun, stop = fresh(), fresh(), StopFlag()
    train(whole, None, StopFlag())
    begun.checkpoints = Checkpoints(tmp_path, keep=1)
    step = begun.optimizers.step

    def counted(networks: tuple[str, ...], number: int) -> None:
        step(networks, number)
        stop.requested = number == 3

    begun.optimizers.step = counted  # type: ignore[assignment, method-assign]
    with pytest.raises(Preempted):
        train(begun, None, stop)
    resumed = fresh()
    found = begun.checkpoints.newest_state(pytest.fail)
    assert found is not None
    assert found[1].step == 4
    begun.checkpoints.load(found[0], resumed.module, resumed.optimizers)
    train(resumed, found[1], StopFlag())
    assert all(torch.equal(tensor, own_tensors(whole.module)[name]) for name, tensor in own_tensors(resumed.module).items())
    states = whole.optimizers.state_tensors(), resumed.optimizers.state_tensors()
    assert any(name.endswith("momentum_buffer") for name in states[0])
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
