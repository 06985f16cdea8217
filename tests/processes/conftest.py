"""Groups of processes on this machine, forked from a server that has imported torch but never computed anything."""

from __future__ import annotations

import json
import multiprocessing
import runpy
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

CHILD = Path(__file__).parents[1] / "resume" / "child.py"


@pytest.fixture(scope="session")
def server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    ours = ["electra.cli", "electra.build.pretrain", "electra.build.sweep"]
    context.set_forkserver_preload([*ours, "torch.distributed.fsdp", "torch._dynamo", "rich.console", "rich.text"])
    return context


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What a launcher tells a process; nothing where it is alone."""
    if size == 1:
        return {}
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    told = {name: str(number) for name, number in ranks.items()}
    return {**told, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass(frozen=True)
class Group:
    """Starts a script in several processes, as a launcher does.

    Args:
        directory: of what the processes say.
    """

    context: ForkServerContext
    directory: Path
    started: list[int] = field(default_factory=list)

    def start(
        self, script: Path, given: dict[str, Any], size: int, by_rank: dict[int, dict[str, Any]] | None = None
    ) -> list[int]:
        """The exit codes by rank; negative = ended by that signal.

        Args:
            given: the script's global GIVEN, `environment` and `log` apart.
            by_rank: what single ranks are given besides.
        """
        self.started.append(size)
        port = free_port()
        children = []
        for rank in range(size):
            own = {**given, **(by_rank or {}).get(rank, {})}
            own |= {"environment": environment(rank, size, port), "log": str(self.log(rank))}
            child = self.context.Process(target=runpy.run_path, args=(str(script), {"GIVEN": own}, "__main__"))
            child.start()
            children.append(child)
        for child in children:
            child.join(100)
        hanging = [child for child in children if child.exitcode is None]
        for child in hanging:
            child.kill()
            child.join()
        assert not hanging, self.said()
        return [int(child.exitcode or 0) for child in children]

    def electra(self, argv: list[str], size: int, moments: dict[int, list[Any]] | None = None) -> list[int]:
        """Run the command line in `size` processes; `moments` are those of resume/child.py, by rank."""
        given = {"argv": argv, "threads": 1, "file_limit": -1, "moments": [], "no_dropout": ["electra.models.heads"]}
        return self.start(CHILD, given, size, {rank: {"moments": each} for rank, each in (moments or {}).items()})

    def log(self, rank: int) -> Path:
        """What process `rank` of the newest group said."""
        return self.directory / f"{len(self.started)}-{rank}.log"

    def said(self) -> str:
        """What all of them said."""
        return "\n".join(f"{path.name}: {path.read_text()}" for path in sorted(self.directory.glob("*.log")))


@pytest.fixture
def group(server: ForkServerContext, tmp_path: Path) -> Group:
    return Group(server, tmp_path)


def events_of(run: Path, name: str) -> list[dict[str, Any]]:
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


@pytest.fixture(scope="session")
def events() -> Callable[[Path, str], list[dict[str, Any]]]:
    return events_of
