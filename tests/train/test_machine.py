"""What is known of the machine: the cores that a container's quota leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from electra.train import machine


def quotas(tmp_path: Path, own: str, files: dict[str, str]) -> list[int]:
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", encoding="ascii")
    (tmp_path / "own").write_text(own, encoding="utf-8")
    return machine._quotas(tmp_path / "cgroup", tmp_path / "own")


def test_a_quota_of_the_own_group_and_of_those_above_it(tmp_path: Path) -> None:
    files = {"cpu.max": "max 100000", "pods/cpu.max": "250000 100000", "pods/one/cpu.max": "400000 100000"}
    assert sorted(quotas(tmp_path, "0::/pods/one\n", files)) == [2, 4]


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    assert quotas(tmp_path, "0::/\n", {"cpu.max": "50000 100000"}) == [0]
    assert quotas(tmp_path, "0::/\n", {"cpu.max": "max 100000"}) == []


def test_control_groups_of_version_1(tmp_path: Path) -> None:
    own = "5:memory:/pods\n4:cpu,cpuacct:/pods\n"
    files = {"cpu,cpuacct/pods/cpu.cfs_quota_us": "300000", "cpu,cpuacct/pods/cpu.cfs_period_us": "100000",
             "cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}  # fmt: skip
    assert quotas(tmp_path, own, files) == [3]


def test_a_machine_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert machine._quotas(tmp_path / "none", tmp_path / "none") == []


def test_the_cores_are_those_of_affinity_within_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    (tmp_path / "cpu.max").write_text("300000 100000\n", encoding="ascii")
    (tmp_path / "own").write_text("0::/\n", encoding="ascii")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "_OWN_CGROUP", tmp_path / "own")
    assert machine.available_cores() == 3
    (tmp_path / "cpu.max").write_text("50000 100000\n", encoding="ascii")
    assert machine.available_cores() == 1


def test_threads_are_the_available_cores_unless_the_user_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(machine, "available_cores", lambda: before + 2)
    try:
        machine.prepare_to_predict()  # the tests run with OMP_NUM_THREADS
        assert torch.get_num_threads() == before
        monkeypatch.delenv("OMP_NUM_THREADS")
        machine.prepare_to_predict()
        assert torch.get_num_threads() == before + 2
    finally:
        torch.set_num_threads(before)
