"""Checkpoints: what is loaded is what was saved, damage is found and passed over, a crash never costs the last good one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from electra.errors import ElectraError, ExitCode
from electra.storage import problem, sealed_directory, write_json
from electra.train import checkpoint
from electra.train.checkpoint import Checkpoints, State, own_tensors
from electra.train.optim import AdamWConfig, Optimizers

FIXTURES = Path(__file__).parents[1] / "fixtures" / "checkpoints"
FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


class Tied(nn.Module):
    """Two networks with a shared table and a buffer."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 4))
        self.second = nn.Sequential(self.first[0], nn.BatchNorm1d(4))

    def optimizers(self) -> Optimizers:
        return Optimizers({"first": self.first, "second": self.second}, AdamWConfig(lr=0.1, warmup_ratio=0.0), steps=20)


def train_a_step(module: Tied, optimizers: Optimizers, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizers.step(["first", "second"], step)


def state_at(step: int, **changes: Any) -> State:
    window = {"totals": {"sum": 0.1 + step, "histogram": [[1.0, 2.0], [3.0, 4.0]]}, "tokens": 7.0}
    return State(**{"step": step, "phase": "rtd", "fingerprints": {"corpus": "c"}, "window": window, "skipped": 1} | changes)


def everything(module: nn.Module, optimizers: Optimizers) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in {**own_tensors(module), **optimizers.state_tensors()}.items()}


def newest(checkpoints: Checkpoints) -> tuple[int | None, list[str]]:
    broken: list[str] = []
    found = checkpoints.newest_state(broken.append)
    return (found[1].step if found else None), broken


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoints:
    """Checkpoints of steps 1, 2 and 3."""
    checkpoints = Checkpoints(tmp_path, keep=3)
    module = Tied()
    optimizers = module.optimizers()
    for step in (1, 2, 3):
        train_a_step(module, optimizers, step)
        checkpoints.save(module, optimizers, state_at(step))
    return checkpoints


def test_round_trip(tmp_path: Path) -> None:
    module, other = Tied(0), Tied(1)
    ours, theirs = module.optimizers(), other.optimizers()
    train_a_step(module, ours, 3)
    checkpoints = Checkpoints(tmp_path / "new" / "folder", keep=2)
    path = checkpoints.save(module, ours, state_at(4))
    found = checkpoints.newest_state(pytest.fail)
    assert found == (path, state_at(4))
    checkpoints.load(path, other, theirs)
    expected, loaded = everything(module, ours), everything(other, theirs)
    assert expected.keys() == loaded.keys()
    assert all(torch.equal(expected[name], loaded[name]) for name in expected)
    assert other.first[0] is other.second[0], "sharing survives"
    for module_, optimizers in ((module, ours), (other, theirs)):
        train_a_step(module_, optimizers, 5)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))


def test_a_shared_tensor_is_stored_once() -> None:
    names = set(own_tensors(Tied()))
    assert "first.0.weight" in names
    assert "second.0.weight" not in names
    assert "second.1.running_mean" in names


def test_without_a_checkpoint(tmp_path: Path) -> None:
    assert newest(Checkpoints(tmp_path / "none", keep=1)) == (None, [])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damage_is_named_and_the_checkpoint_before_is_taken(saved: Checkpoints, name: str, damage: str) -> None:
    file = saved.paths()[-1] / name
    data = file.read_bytes()
    if damage == "flip":
        # in the manifest: within a hash
        place = data.index(b'"blake2b": "') + 15 if name == "manifest.json" else len(data) // 2
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    elif damage == "truncate":
        file.write_bytes(data[:-3])
    else:
        file.unlink()
    step, broken = newest(saved)
    assert step == 2
    assert len(broken) == 1
    assert "step-00000003 is broken and was passed over" in broken[0]
    assert name in broken[0] or (name == "manifest.json" and "another hash" in broken[0])


def test_two_broken_ones_are_passed_over_and_none_may_be_left(saved: Checkpoints) -> None:
    for number, expected in ((3, 2), (2, 1), (1, None)):
        (saved.directory / f"step-{number:08d}" / "state.json").write_text("", encoding="utf-8")
        step, broken = newest(saved)
        assert step == expected
        assert len(broken) == 4 - number


def test_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    checkpoints, module = Checkpoints(tmp_path, keep=2), Tied()
    optimizers = module.optimizers()
    for step in range(5):
        checkpoints.save(module, optimizers, state_at(step))
        assert [path.name for path in checkpoints.paths()] == [f"step-{s:08d}" for s in range(max(0, step - 1), step + 1)]


@pytest.mark.parametrize("keep", [1, 2])
def test_a_broken_later_one_is_never_kept_in_place_of_a_good_one(saved: Checkpoints, keep: int) -> None:
    for step in (2, 3):
        (saved.directory / f"step-{step:08d}" / "model.safetensors").unlink()
    checkpoints, module = Checkpoints(saved.directory, keep), Tied()
    optimizers = module.optimizers()
    checkpoints.load(checkpoints.paths()[0], module, optimizers)
    broken = saved.directory / "step-00000002"
    checkpoints.save(module, optimizers, state_at(2))  # where a broken one stands
    assert problem(broken) is None
    assert newest(checkpoints) == (2, [])
    assert len(checkpoints.paths()) == keep


def test_nothing_is_removed_before_its_successor_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed, remove = list[str](), shutil.rmtree

    def watched(path: Path, **others: Any) -> None:
        if path.name.startswith("step-"):
            whole = [other for other in checkpoints.paths() if other > path and problem(other) is None]
            assert len(whole) == 2
            removed.append(path.name)
        remove(path, **others)

    monkeypatch.setattr(shutil, "rmtree", watched)
    checkpoints, module = Checkpoints(tmp_path, keep=2), Tied()
    optimizers = module.optimizers()
    for step in range(5):
        checkpoints.save(module, optimizers, state_at(step))
    assert removed == [f"step-{step:08d}" for step in range(3)]


def test_what_a_killed_process_left_is_removed(saved: Checkpoints) -> None:
    leftover = saved.directory / ".step-00000009.1.partial"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    assert newest(saved) == (3, [])
    module = Tied()
    saved.save(module, module.optimizers(), state_at(4))
    assert not leftover.exists()


def test_a_good_checkpoint_of_the_same_step_is_not_written_again(saved: Checkpoints) -> None:
    before = (saved.paths()[-1] / "model.safetensors").stat().st_mtime_ns
    module = Tied(5)
    saved.save(module, module.optimizers(), state_at(3))
    assert (saved.paths()[-1] / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("version", [0, 3, "new", None])
def test_an_unknown_format_is_refused_by_name(saved: Checkpoints, version: object) -> None:
    with sealed_directory(saved.directory / "step-00000004", {}) as temporary:
        for name in FILES[:2]:
            shutil.copy(saved.paths()[0] / name, temporary)
        write_json(temporary / "state.json", {"format_version": version, **vars(state_at(4))})
    with pytest.raises(ElectraError, match=f"E-M400 .*step-00000004.*format_version {version} is not known") as caught:
        newest(saved)
    assert caught.value.exit_code is ExitCode.DATA


def test_a_checkpoint_of_other_networks_is_refused(saved: Checkpoints) -> None:
    class Another(Tied):
        def __init__(self) -> None:
            super().__init__()
            self.first[1] = nn.Linear(4, 5)

    other = Another()
    before = [parameter.detach().clone() for parameter in other.parameters()]
    with pytest.raises(ElectraError, match=r"E-M402 .*first\.1\.bias, first\.1\.weight"):
        saved.load(saved.paths()[-1], other, other.optimizers())
    assert all(torch.equal(a, b) for a, b in zip(before, other.parameters(), strict=True))


@pytest.mark.parametrize("failing", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_a_full_disk_leaves_the_last_checkpoint(saved: Checkpoints, failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        path = next(argument for argument in args if isinstance(argument, Path))
        path.write_bytes(b"half")
        if path.name == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for module in (checkpoint, sys.modules["electra.storage"]):
        monkeypatch.setattr(module, "write_json", full)
    if "safetensors" in failing:
        monkeypatch.setattr(checkpoint, "save_file", full)
    networks = Tied()
    with pytest.raises(ElectraError, match="E-R001"):
        saved.save(networks, networks.optimizers(), state_at(4))
    assert newest(saved) == (3, [])
    assert [path.name for path in sorted(saved.directory.iterdir())] == [f"step-{step:08d}" for step in (1, 2, 3)]


@pytest.mark.parametrize("version", [1, 2])
def test_a_checkpoint_of_every_version_keeps_loading(tmp_path: Path, version: int) -> None:
    """Each written once by `Checkpoints.save` of that format, and never again."""
    shutil.copytree(FIXTURES / str(version), tmp_path / "old")
    checkpoints, module = Checkpoints(tmp_path / "old", keep=2), Tied(9)
    optimizers = module.optimizers()
    found = checkpoints.newest_state(pytest.fail)
    assert found is not None
    assert found[1] == state_at(4, guard={} if version == 1 else GUARD)
    checkpoints.load(found[0], module, optimizers)
    assert json.loads((found[0] / "manifest.json").read_text(encoding="utf-8"))["format_version"] == version
    assert float(module.first[1].bias.detach().sum()) == pytest.approx(SUMS["bias"], abs=1e-6)
    assert float(optimizers.state_tensors()["second.1.weight.exp_avg"].sum()) == pytest.approx(SUMS["moment"], abs=1e-6)


GUARD = {"recent": {"loss (rtd)": [0.1, 1 / 3]}, "rewinds": 1}
SUMS = {"bias": -0.596128, "moment": -0.097041}
