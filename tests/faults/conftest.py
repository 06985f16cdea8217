"""Two tiny commands, pre-training and fine-tuning, that are disturbed: what they leave must be what undisturbed ones leave.

They run in this process, which a fault may not outlive; SIGKILL is for children: kill_saves.py here, and tests/resume.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import electra
from electra.build import finetune, pretrain, sweep
from electra.errors import Preempted
from electra.storage import file_hash
from electra.train.checkpoint import Checkpoints

KINDS = ("pretrain", "finetune")
#: counts of injected faults, which docs/reliability.md tells
COUNTS = json.loads(Path(__file__).with_name("counts.json").read_text(encoding="utf-8"))
# what the clock says
CLOCK = {"time", "seconds", "tokens_per_second"}


@dataclass(frozen=True)
class Trial:
    """A command with its run directory.

    Args:
        settings: all but run.dir.
    """

    kind: str
    settings: tuple[str, ...]
    directory: Path

    def run(self, *more: str) -> None:
        """Start it, or start it again, with `more` settings."""
        settings = [*self.settings, f"run.dir={self.directory}", *more]
        if self.kind == "pretrain":
            electra.pretrain(["test-classic"], settings)
        else:
            electra.finetune([], settings)

    def was_stopped(self, *more: str) -> bool:
        """Run it; whether it was stopped before it was through, with its state saved."""
        try:
            self.run(*more)
        except Preempted:
            return True
        return False

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = (self.directory / "events.jsonl").read_text(encoding="utf-8").splitlines()
        found = [event for event in map(json.loads, lines) if event["event"] == name]
        return [{key: value for key, value in event.items() if key not in CLOCK} for event in found]

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.directory / "checkpoints", keep=2)

    @property
    def newest(self) -> int:
        """The step of the newest whole checkpoint; -1 = there is none."""
        found = self.checkpoints.newest_state(pytest.fail)
        return -1 if found is None else found[1].step

    def left(self) -> dict[str, Any]:
        """All that it has left behind, but for the clock."""
        newest = self.checkpoints.paths()[-1]
        files = [*newest.glob("*.safetensors"), *(self.directory / "model").rglob("*.safetensors")]
        return {
            "files": {str(path.relative_to(self.directory)): file_hash(path) for path in files},
            "steps": self.events("step"),
            "evaluations": self.events("evaluate"),
        }


@pytest.fixture(scope="session")
def quiet() -> Iterator[None]:
    """No report is drawn: pictures take longer than the run."""
    with pytest.MonkeyPatch.context() as patch:
        for room in (pretrain, finetune, sweep):
            patch.setattr(room, "write_report", lambda directory: directory)
        yield


@pytest.fixture(scope="session")
def whole(corpus_dir: Path, documents: list[str], tmp_path_factory: pytest.TempPathFactory, quiet: None) -> dict[str, Trial]:
    """Of each kind a run to which nothing happened."""
    place = tmp_path_factory.mktemp("whole")
    # numbers to learn, so that no two answers are the same
    rows = [f"{len(document)}\t{number} {document[:10]}" for number, document in enumerate(documents[:24])]
    (place / "train.tsv").write_text("label\ttext\n" + "\n".join(rows[:16]) + "\n", encoding="utf-8")
    (place / "dev.tsv").write_text("label\ttext\n" + "\n".join(rows[16:]) + "\n", encoding="utf-8")
    shared = ("precision=fp32", "loop.log_steps=2", "loop.save_minutes=0.0")
    first = Trial("pretrain", (f"corpus.path={corpus_dir}", "stop.steps=4", "batch.micro_rows=4", *shared), place / "pretrain")
    first.run()
    files = (f"init.from={first.directory / 'model'}", f"data.train={place / 'train.tsv'}", f"data.dev={place / 'dev.tsv'}")
    sizes = ("task.max_length=32", "epochs=2", "batch.examples=8", "batch.micro_tokens=128", "optimizer.lr=0.002")
    second = Trial("finetune", ("task=regression", *files, *sizes, *shared), place / "finetune")
    second.run()
    assert [trial.newest for trial in (first, second)] == [4, 4]
    return {"pretrain": first, "finetune": second}


@pytest.fixture
def trial_of(whole: dict[str, Trial], tmp_path: Path) -> Callable[[str], Trial]:
    """The same command as that of `whole`, with a directory of its own."""
    return lambda kind: dataclasses.replace(whole[kind], directory=tmp_path / "run")


@pytest.fixture(params=KINDS)
def trial(request: pytest.FixtureRequest, trial_of: Callable[[str], Trial]) -> Trial:
    """One of either kind."""
    return trial_of(request.param)


@pytest.fixture(scope="session")
def counted() -> Callable[[str, int], None]:
    """Asserts that so many faults of a sort were injected as docs/reliability.md says."""

    def compare(sort: str, count: int) -> None:
        assert COUNTS[sort] == count, f"{count} {sort}, {COUNTS[sort]} in counts.json"

    return compare
