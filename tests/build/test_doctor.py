"""What `electra doctor` finds where something is wrong, for real wherever that can be had: ports that are held, file systems
that are full or read-only, a training that runs."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from electra.build.doctor import Check, examine, hardware, packages, places, training
from electra.build.doctor.packages import EXTRAS, REQUIRED
from electra.cli import app
from electra.errors import ElectraError
from electra.train import machine


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte, in memory."""
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", place], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    yield place
    subprocess.run(["umount", place], check=True)


# -- packages --------------------------------------------------------------------------------------------------------------


def bare(requirement: str) -> str:
    return re.split(r"[><=]", requirement)[0].lower().replace("_", "-")


def test_the_ranges_are_those_of_the_project() -> None:
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = dict(
        line.split("==") for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line
    )
    tested = {bare(name): version for name, version in pins.items()}
    wanted = {"": project["dependencies"], **project["optional-dependencies"]}
    del wanted["dev"]
    known = {"": REQUIRED, **{extra: list(of) for extra, (_, of) in EXTRAS.items()}}
    assert known.keys() == wanted.keys()
    for extra, requirements in wanted.items():
        floors = {bare(one): re.split(r">=|==", one)[1] if re.search("[>=]=", one) else "0" for one in requirements}
        assert {bare(one.name): one.floor for one in known[extra]} == floors, extra
        assert {bare(one.name): one.tested for one in known[extra]} == {name: tested[name] for name in floors}, extra


def test_the_floors_of_safety() -> None:
    of = {one.name: one.safe for one in [*REQUIRED, *(one for _, several in EXTRAS.values() for one in several)] if one.safe}
    assert of == {"torch": "2.10", "transformers": "5.10", "starlette": "1.3.1", "onnx": "1.21"}


def with_versions(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> dict[str, Check]:
    """The checks of packages where some have other versions; None = is not installed."""
    real = metadata.version

    def version(name: str) -> str:
        if name in versions:
            if (given := versions[name]) is None:
                raise metadata.PackageNotFoundError(name)
            return given
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    return {check.name: check for check in packages.checks()}


@pytest.mark.parametrize(
    ("version", "state", "told"),
    [
        ("2.9.1+cpu", "fail", "known vulnerabilities"),
        ("2.10", "ok", "2.10"),
        ("2.10.0a0+git1234", "ok", "2.10.0a0"),
        ("2.13.7", "ok", "2.13.7"),
        ("2.14.0", "warn", "newer than what was tested, 2.13.0"),
        ("3.0", "warn", "newer than what was tested"),
        (None, "fail", "not installed"),
    ],
)
def test_a_needed_package(version: str | None, state: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check = with_versions(monkeypatch, torch=version)["torch"]
    assert check.state == state
    assert told in check.found
    assert bool(check.mend) == (state != "ok")


def test_a_package_that_is_too_old_to_work(monkeypatch: pytest.MonkeyPatch) -> None:
    check = with_versions(monkeypatch, numpy="1.25.3")["numpy"]
    assert (check.state, check.mend) == ("fail", "pip install 'numpy>=1.26'")


def test_an_extra_that_is_not_there_is_no_fault_and_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    check = with_versions(monkeypatch, transformers=None, huggingface_hub=None)["extra hf"]
    assert check.state == "ok"
    assert "not installed" in check.found
    assert "pip install 'electra-toolkit[hf]'" in check.mend


def test_an_extra_that_is_there_in_part_or_unsafe(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = with_versions(monkeypatch, uvicorn=None, starlette="1.3", transformers="5.9.2", fastapi="0.165.0")
    serve = checks["extra serve"]
    assert serve.state == "fail"
    assert "uvicorn not installed" in serve.found
    assert "pip install 'starlette>=1.3.1'" in serve.mend
    assert "pip install 'electra-toolkit[serve]'" in serve.mend
    assert checks["extra hf"].state == "fail"
    assert with_versions(monkeypatch, uvicorn=None, starlette="1.10.0", fastapi="0.165.0")["extra serve"].state == "warn"


# -- the machine -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "250000 100000", "a/cpu.max": "max 100000"}, [(250000, 100000)]),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, [(150000, 100000)]),
        ("0::/host/job\n", {"cpu.max": "50000 100000"}, [(50000, 100000)]),  # its own group is mounted at the root
        (
            "3:memory:/job\n4:cpu,cpuacct:/job\n",
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "300000",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
                "memory/job/cpu.max": "1 1",
            },
            [(300000, 100000)],
        ),
        ("4:cpu,cpuacct:/\n", {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, []),
    ],
)  # fmt: skip
def test_quotas_of_control_groups(groups: str, files: dict[str, str], expected: list[tuple[int, int]], tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / "sys" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys" / name).write_text(content + "\n")
    (tmp_path / "groups").write_text(groups)
    assert list(machine._quotas(tmp_path / "groups", tmp_path / "sys")) == expected


def test_more_threads_than_cores_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert machine.cores() == 1
        assert hardware.cores().state == "ok"  # tests take one thread
        monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
        check = hardware.cores()
    finally:
        os.sched_setaffinity(0, before)
    assert check.state == "warn"
    assert "OMP_NUM_THREADS=1" in check.mend


def test_little_memory_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware.memory().state == "ok"
    monkeypatch.setattr(machine, "free_memory", lambda: 10_000_000)
    assert hardware.memory().state == "warn"


def test_a_port_that_is_held_and_one_that_is_free() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        number = held.getsockname()[1]
        check = places.port(number)
        assert check.state == "warn"
        assert "--port" in check.mend
    assert places.port(number).state == "ok"


def test_little_shared_memory_is_warned_of(tmpfs: Path, tmp_path: Path) -> None:
    assert places.shared_memory(tmpfs).state == "warn"
    assert places.shared_memory(tmp_path / "none").state == "ok"


# -- the directory of a run ------------------------------------------------------------------------------------------------


def test_a_directory_that_will_do(tmp_path: Path) -> None:
    assert places.rename_and_fsync(tmp_path).state == "ok"
    assert places.locks(tmp_path).state == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_nobody_may_write() -> None:
    there = Path("/proc")
    if not there.is_dir():
        pytest.skip("no directory that is read-only for everybody")
    check = places.rename_and_fsync(there)
    assert check.state == "fail"
    assert "cannot be written" in check.found
    assert places.locks(there).state == "warn"
    assert places.disk(there).state == "fail"


def test_a_file_system_that_is_read_only(tmpfs: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", tmpfs], check=True)
    check = places.rename_and_fsync(tmpfs)
    assert check.state == "fail"
    assert "Read-only" in check.found


def test_a_tiny_file_system_and_a_full_one(tmpfs: Path) -> None:
    assert places.rename_and_fsync(tmpfs).state == "ok"
    assert (places.disk(tmpfs).state, places.file_system(tmpfs).state) == ("fail", "warn")
    (tmpfs / "filler").write_bytes(bytes((1 << 20) - 8192))
    check = places.rename_and_fsync(tmpfs)
    assert check.state == "fail"
    assert "No space left" in check.found
    assert [path.name for path in tmpfs.iterdir()] == ["filler"]


def test_few_files_left_are_a_failure(tmpfs: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=200m,nr_inodes=50", tmpfs], check=True)
    assert "for 4" in places.disk(tmpfs).found


def test_the_sync_of_a_directory_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some network file systems do, none of which is at hand."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112 (of a link that only the kernel knows)
            raise OSError(22, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    check = places.rename_and_fsync(tmp_path)
    assert check.state == "fail"
    assert "Invalid argument" in check.found


def test_a_renaming_that_copies_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As object stores do: who had the old file open reads the new one."""

    def rename(self: Path, target: Path) -> Path:
        target.write_bytes(self.read_bytes())
        self.unlink()
        return target

    monkeypatch.setattr(Path, "rename", rename)
    check = places.rename_and_fsync(tmp_path)
    assert check.state == "fail"
    assert "lost it" in check.found


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("ext4", "ok"),
        ("xfs", "ok"),
        ("nfs4", "warn"),
        ("cifs", "warn"),
        ("fuse.s3fs", "warn"),
        ("tmpfs", "warn"),
        ("overlay", "warn"),
    ],
)
def test_the_kind_of_the_file_system_decides_what_is_said(kind: str, state: str, tmp_path: Path) -> None:
    there = tmp_path / "with blank" / "runs"
    there.mkdir(parents=True)
    point = str(tmp_path / "with blank").replace(" ", r"\040")
    mounts = tmp_path / "mounts"
    mounts.write_text(f"a / ext4 rw 0 0\nb {point}/ru xfs rw 0 0\nserver:/x {point} {kind} rw 0 0\n")
    check = places.file_system(there, mounts)
    assert check.state == state
    assert check.found.startswith(f"{kind} at {tmp_path}")


# -- together --------------------------------------------------------------------------------------------------------------


def test_a_short_training_learns() -> None:
    check = training.training(seconds=1)
    assert check.state in ("ok", "warn"), check.found  # the latter on a machine too busy for 40 steps
    assert "tokens/s" in check.found


def test_a_training_that_cannot_be_run_says_what_the_verb_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tokenizers.py").write_text("raise ImportError('broken library')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]))
    check = training.training(seconds=1)
    assert check.state == "fail"
    assert "electra tokenizer ended with code 1" in check.found
    assert "broken library" in check.found


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken() -> Check:
        raise ImportError("libcudart.so: cannot open shared object file")

    monkeypatch.setattr(hardware, "gpu", broken)
    checks = {check.name: check for check in examine(tmp_path, 0)}
    assert checks["gpu"].state == "fail"
    assert "libcudart" in checks["gpu"].found
    assert "training" not in checks


def test_the_verb_says_what_to_do_and_its_code_whether_all_is_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(places, "PORTS", ())
    run = tmp_path / "runs" / "first"
    fine = CliRunner().invoke(app, ["doctor", str(run), "--seconds", "0"])
    assert fine.exit_code == 0, fine.output
    assert "all is well" in fine.output
    assert not run.parent.exists()
    with_versions(monkeypatch, torch="2.9")
    ill = CliRunner().invoke(app, ["doctor", str(run), "--seconds", "0", "--json"])
    assert isinstance(ill.exception, ElectraError)
    assert (ill.exception.code, int(ill.exception.exit_code)) == ("E-R850", 4)
    told = json.loads(ill.stdout)
    assert told["well"] is False
    assert [check for check in told["checks"] if check["state"] == "fail"] == [
        {
            "name": "torch",
            "state": "fail",
            "found": "2.9: versions below 2.10 have known vulnerabilities",
            "mend": "pip install 'torch>=2.10'",
        }
    ]


def test_a_file_is_no_run_and_a_time_is_not_negative(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ElectraError, match="E-C850"):
        examine(tmp_path / "file", 0)
    with pytest.raises(ElectraError, match="E-C851"):
        examine(tmp_path, -1)
