"""The commands of docs/scale.md as a user gives them: torchrun on one machine, and two hosts on a network that is cut.

A host is a network namespace; the two are joined by a virtual cable.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Events = Callable[[Path, str], list[dict[str, Any]]]
LIMIT = 300.0


def wait_for(what: Callable[[], bool], processes: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < deadline, "it does not come"
        assert all(process.poll() is None for process in processes), "one has ended"
        time.sleep(0.05)


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in run.glob("checkpoints/step-*"))


def command(corpus: Path, run: Path, steps: int) -> list[str]:
    settings = ["precision=fp32", f"stop.steps={steps}", "loop.log_steps=1", "loop.save_minutes=0", "phases.mlm.share=0"]
    return ["-m", "electra", "pretrain", "test-modern", f"corpus.path={corpus}", f"run.dir={run}", *settings]


def variables() -> dict[str, str]:
    source = str(Path(__file__).parents[2] / "src")
    return os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def process_of_rank(rank: int, run: Path) -> int:
    """The number of the process that is `rank` of `run`, as Linux tells it."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            told, line = (place / "environ").read_bytes().split(b"\0"), (place / "cmdline").read_bytes()
        except OSError:
            continue
        if f"RANK={rank}".encode() in told and f"run.dir={run}".encode() in line and b"distributed" not in line:
            return int(place.name)
    raise AssertionError("it does not run")


@pytest.mark.soak
def test_torchrun_starts_again_what_was_killed(corpus_dir: Path, tmp_path: Path, events: Events) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    subprocess.run([*torchrun, *command(corpus_dir, whole, 60)], env=variables(), check=True, timeout=LIMIT)
    agent = subprocess.Popen([*torchrun, "--max-restarts", "1", *command(corpus_dir, run, 60)], env=variables())
    wait_for(lambda: len(checkpoints(run)) > 0 and checkpoints(run)[-1] >= "step-00000010", [agent])
    os.kill(process_of_rank(1, run), 9)
    assert agent.wait(LIMIT) == 0
    assert [start["resumed"] for start in events(run, "start")] == [False, True]
    for file in whole.glob("model/**/*.safetensors"):
        assert (run / file.relative_to(whole)).read_bytes() == file.read_bytes()


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two network namespaces with addresses 10.99.0.1 and 10.99.0.2 on their ends, `wire`, of a virtual cable."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and iproute2")
    names = [f"e{uuid.uuid4().hex[:6]}{side}" for side in "ab"]
    if subprocess.run(["ip", "netns", "add", names[0]], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us make network namespaces")
    try:
        subprocess.run(["ip", "netns", "add", names[1]], check=True)
        cable = ["ip", "link", "add", "wire", "netns", names[0], "type", "veth", "peer", "name", "wire", "netns", names[1]]
        if subprocess.run(cable, check=False, capture_output=True).returncode:
            pytest.skip("this machine has no virtual cables (veth)")
        for number, name in enumerate(names, start=1):
            inside = ["ip", "-n", name]
            subprocess.run([*inside, "address", "add", f"10.99.0.{number}/24", "dev", "wire"], check=True)
            subprocess.run([*inside, "link", "set", "wire", "up"], check=True)
            subprocess.run([*inside, "link", "set", "lo", "up"], check=True)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def start_on(host: str, rank: int, argv: list[str], log: Path) -> subprocess.Popen[bytes]:
    told = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "10.99.0.1",
            "MASTER_PORT": "29400", "GLOO_SOCKET_IFNAME": "wire"}  # fmt: skip
    with log.open("wb") as out:
        return subprocess.Popen(
            ["ip", "netns", "exec", host, sys.executable, *argv], env=variables() | told, stdout=out, stderr=out
        )


@pytest.mark.soak
def test_a_host_that_is_cut_off_ends_the_run_on_both(
    hosts: list[str], corpus_dir: Path, tmp_path: Path, events: Events
) -> None:
    run = tmp_path / "run"
    argv = [*command(corpus_dir, run, 100_000), "parallel.timeout_minutes=0.1"]
    logs = [tmp_path / f"{rank}.log" for rank in range(2)]
    started = [start_on(host, rank, argv, logs[rank]) for rank, host in enumerate(hosts)]
    wait_for(lambda: len(checkpoints(run)) > 0 and checkpoints(run)[-1] >= "step-00000010", started)
    subprocess.run(["ip", "-n", hosts[1], "link", "set", "wire", "down"], check=True)
    assert [process.wait(LIMIT) for process in started] == [4, 4], [log.read_text() for log in logs]
    for rank, log in enumerate(logs):
        assert (
            f"error: E-R801 process {rank} of 2" in log.read_text() or f"error: E-R800 process {rank} of 2" in log.read_text()
        )
    assert any("E-R801" in log.read_text() for log in logs)
    reached = checkpoints(run)[-1]
    subprocess.run(["ip", "-n", hosts[1], "link", "set", "wire", "up"], check=True)
    started = [start_on(host, rank, argv, logs[rank]) for rank, host in enumerate(hosts)]
    wait_for(lambda: checkpoints(run)[-1] > reached, started)
    started[1].terminate()
    assert [process.wait(LIMIT) for process in started] == [75, 75], [log.read_text() for log in logs]
    assert events(run, "start")[-1]["resumed"]
