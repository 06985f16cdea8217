"""A disk that is full from any write of a run on: one clear error, nothing lost, and the same command goes on."""

from __future__ import annotations

import io
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from electra.errors import ElectraError, ExitCode
from electra.evaluate.report import write_report
from electra.events import EventLog
from electra.models import network_files
from electra.storage import problem
from electra.train import checkpoint

#: everything that a run writes, and that a write must have failed at
FILES = {
    "recipe.json", "events.jsonl",
    "checkpoints/model.safetensors", "checkpoints/optimizer.safetensors", "checkpoints/state.json", "checkpoints/manifest.json",
    "model/model.safetensors", "model/config.json", "model/tokenizer.json", "model/README.md", "model/manifest.json",
}  # fmt: skip
MORE = {"pretrain": {"model/generator/model.safetensors"}, "finetune": {"model/task.json", "evaluation.json"}}


class Disk:
    """Counts what this process writes below `directory`. From one write on the kernel lets no file grow (RLIMIT_FSIZE), until
    the command has ended.

    Args:
        patch: undoes the counting.
    """

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.full_at, self.writes, self.failed = -1, 0, ""
        patch.setattr(io, "open", self._counting(io.open, 0))
        patch.setattr(EventLog, "emit", self._counting(EventLog.emit, None))
        for module in (checkpoint, network_files):
            patch.setattr(module, "save_file", self._counting(module.save_file, 1))

    @contextmanager
    def full_from(self, write: int) -> Iterator[None]:
        """The disk is full from that write on, counted from 1."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.full_at, self.writes, self.failed = write, 0, ""
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            self.full_at = -1

    def _counting(self, original: Callable[..., Any], place: int | None) -> Callable[..., Any]:
        """`original`, whose argument number `place` is the path that it writes; None = it is the event log."""

        def write(*args: Any, **kwargs: Any) -> Any:
            path = Path(args[place]) if place is not None else self.directory / "events.jsonl"
            reads = place == 0 and not set(str(args[1] if len(args) > 1 else kwargs.get("mode", "r"))) & set("wax")
            if self.full_at > 0 and not reads and path.is_relative_to(self.directory):
                self.writes += 1
                if self.writes == self.full_at:
                    self.failed = self._name(path)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            return original(*args, **kwargs)

        return write

    def _name(self, path: Path) -> str:
        """Below the run; one name for all checkpoints, and for a directory or file and what it is made in."""
        first, *others = path.relative_to(self.directory).parts
        if first.startswith("."):
            first = first[1:].partition(".partial")[0]
        return "/".join([first, *(part for part in others if "step-" not in part)])


def refusal(disk: Disk, number: int, trial: Any) -> ElectraError | None:
    """What a start ends with when the disk is full from a write on; None = it did not come to that write."""
    try:
        with disk.full_from(number):
            trial.run()
    except ElectraError as error:
        return error
    return None


def test_a_full_disk_at_every_write(
    trial: Any, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch, counted: Callable[[str, int], None]
) -> None:
    """Each start fails one write later than the one before, until a step was saved; then the count begins anew."""
    disk, failed, number, newest = Disk(trial.directory, monkeypatch), list[str](), 1, -1
    while True:
        told = refusal(disk, number, trial)
        if told is None:
            break
        assert told.exit_code == ExitCode.RESOURCES, told
        assert told.code in ("E-R001", "E-R300"), told
        failed.append(disk.failed)
        now = trial.newest
        assert now >= newest, "a checkpoint was lost"
        hidden = [path.name for path in trial.directory.rglob(".*")]
        assert hidden == [], "something half-written is left"
        model = trial.directory / "model"
        assert not model.exists() or problem(model) is None
        number, newest = (1 if now > newest else number + 1), now
    assert disk.failed == "", "it ended well on a full disk"
    assert trial.left() == whole[trial.kind].left()
    assert (FILES | MORE[trial.kind]) - set(failed) == set()
    counted(f"full disks, {trial.kind}", len(failed))


def test_a_report_is_written_whole_or_not_at_all(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("recipe.json", "events.jsonl"):
        (tmp_path / name).write_bytes((whole["finetune"].directory / name).read_bytes())
    before = write_report(tmp_path).read_bytes()
    assert before.endswith(b"</html>\n")
    with pytest.raises(ElectraError, match=r"E-R001 .*report"), Disk(tmp_path, monkeypatch).full_from(1):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "recipe.json", "report.html"]
