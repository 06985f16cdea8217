"""A signal in every phase of a run: it stops within a micro-batch, with its state saved, or has nothing left to stop."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import reduce
from types import FrameType
from typing import Any

import pytest

#: phase of the run -> the call that the signal comes at: module, name, number of the call (from 1); whether it stops the run
MOMENTS: dict[str, dict[str, tuple[str, str, int, bool]]] = {
    "pretrain": {
        "first batch": ("electra.objectives.rtd", "Rtd.forward", 1, True),
        "accumulation": ("electra.objectives.rtd", "Rtd.forward", 4, True),
        "update": ("electra.train.loop", "Optimizers.step", 2, True),
        "log": ("electra.train.loop", "judge", 1, True),
        "save, tensors": ("electra.train.checkpoint", "save_file", 4, True),
        "save, state": ("electra.train.checkpoint", "write_json", 2, True),
        "save, rename": ("electra.storage", "_replace", 2, True),
        "retention": ("electra.train.checkpoint", "Checkpoints._prune", 3, True),
        "last save": ("electra.train.checkpoint", "Checkpoints._prune", 4, False),
        "export": ("electra.objectives.rtd", "Rtd.export", 1, False),
        "report": ("electra.build.pretrain", "write_report", 1, False),
    },
    "finetune": {
        "first batch": ("electra.objectives.supervised", "Supervised.forward", 1, True),
        "accumulation": ("electra.objectives.supervised", "Supervised.forward", 4, True),
        "update": ("electra.train.loop", "Optimizers.step", 1, True),
        "evaluation": ("electra.build.finetune", "judged", 1, True),
        "last evaluation": ("electra.build.finetune", "judged", 2, True),
        "save, tensors": ("electra.train.checkpoint", "save_file", 4, True),
        "save, state": ("electra.train.checkpoint", "write_json", 2, True),
        "save, rename": ("electra.storage", "_replace", 2, True),
        "retention": ("electra.train.checkpoint", "Checkpoints._prune", 3, True),
        "export": ("electra.objectives.supervised", "Supervised.export", 1, True),
        "examination": ("electra.build.finetune", "examination", 1, True),
        "report": ("electra.build.finetune", "write_report", 1, False),
    },
}  # fmt: skip


def arm(patch: pytest.MonkeyPatch, trial: Any, module: str, name: str, call: int) -> list[int]:
    """Send SIGTERM to this process at a call of `module.name` once the run has begun; returned is where all calls are noted."""
    *owners, attribute = name.split(".")
    owner = reduce(getattr, owners, importlib.import_module(module))
    original, calls = getattr(owner, attribute), list[int]()

    def counted(*args: Any, **kwargs: Any) -> Any:
        if (trial.directory / "recipe.json").exists():  # behind the dry batch
            calls.append(len(calls) + 1)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    patch.setattr(owner, attribute, counted)
    return calls


@pytest.mark.parametrize(("kind", "phase"), [(kind, phase) for kind, moments in MOMENTS.items() for phase in moments])
def test_a_signal_in_every_phase(
    kind: str, phase: str, trial_of: Callable[[str], Any], whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, (module, name, call, stops) = trial_of(kind), MOMENTS[kind][phase]
    calls, before = arm(monkeypatch, trial, module, name, call), signal.getsignal(signal.SIGTERM)
    assert trial.was_stopped() == stops
    assert len(calls) >= call, "the call never came"
    assert len(calls) == call or name == "_replace", "something was begun after the signal"  # a stop renames, too
    assert signal.getsignal(signal.SIGTERM) == before
    if stops:
        assert trial.newest >= 0
        trial.run()
    assert trial.left() == whole[kind].left()
    assert trial.events("done")


def test_a_signal_before_step_0_leaves_nothing(trial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line turns it into an exit; see `cli.main`."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    def ask(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        monkeypatch.setattr(f"electra.build.{trial.kind}.examine", ask)
        with pytest.raises(SystemExit):
            trial.run()
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert not trial.directory.exists()


def test_counts(counted: Callable[[str, int], None]) -> None:
    counted("signals", sum(map(len, MOMENTS.values())) + 2)


def names(moments: Sequence[str]) -> set[str]:
    return {moment.split(",")[0] for moment in moments}


def test_both_kinds_are_stopped_in_the_same_phases() -> None:
    common = {"first batch", "accumulation", "update", "save", "retention", "export", "report"}
    assert all(common <= names(list(moments)) for moments in MOMENTS.values())
