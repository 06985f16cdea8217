"""What is judged a spike, and which checkpoint leads back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from torch import nn

from electra.train import guard
from electra.train.checkpoint import Checkpoints, State
from electra.train.guard import Guard, way_back
from electra.train.optim import AdamWConfig, Optimizers


def watching(*losses: float) -> Guard:
    """A guard that has seen updates with these losses, over and over, until its window is full."""
    found = Guard()
    for number in range(guard.WINDOW):
        found.made("rtd", losses[number % len(losses)])
    return found


@pytest.mark.parametrize(
    ("loss", "norm", "wrong"),
    [(3.0, 1.0, ""), (29.9, 9.9, ""), (30.1, 1.0, "loss (rtd) 30.1"), (-31.0, 1.0, "loss (rtd) -31"),
     (0.0, 0.0, ""), (1.0, 1e6, ""), (math.inf, 1.0, "loss (rtd) inf"), (1.0, math.nan, "(net) nan")],
)  # fmt: skip
def test_the_largest_of_the_window_is_the_measure(loss: float, norm: float, wrong: str) -> None:
    """Losses of either sign, as a reward gives them; a large gradient is clipped."""
    fault = watching(3.0, -1.0, 2.0).fault("rtd", loss, {"net": norm}, 10.0)
    assert (fault is not None) == bool(wrong)
    assert fault is None or wrong in fault.measure


def test_old_updates_are_forgotten_and_other_phases_do_not_count() -> None:
    found = watching(300.0)
    for _ in range(guard.WINDOW - 1):
        found.made("rtd", 1.0)
        found.made("mlm", 8.0)
        assert found.fault("rtd", 50.0, {}, 10.0) is None
    found.made("rtd", 1.0)
    assert found.fault("rtd", 50.0, {}, 10.0) is not None


def test_a_network_that_does_not_move_has_no_spike() -> None:
    """Frozen, or a reward of nothing: any number is beyond 10 times 0."""
    assert watching(0.0).fault("rtd", 1.0, {}, 10.0) is None


def test_what_is_saved_is_what_was_known() -> None:
    found = watching(1 / 3, 0.1)
    found.rewinds = 2
    saved = State(step=9, phase="rtd", fingerprints={}, window={}, skipped=1, guard=json.loads(json.dumps(found.to_json())))
    again = Guard.of(saved)
    assert (again.recent, again.rewinds, again.skipped) == (found.recent, 2, 1)
    assert again.recent["rtd"].maxlen == guard.WINDOW
    assert Guard.of(State(step=9, phase="rtd", fingerprints={}, window={})) == Guard(), "of a checkpoint without"


def test_the_way_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints, module = Checkpoints(tmp_path, keep=9), nn.Linear(2, 2)
    optimizers = Optimizers({"net": module}, AdamWConfig(lr=1.0), steps=9)
    for step, phase, skipped in ((3, "mlm", 0), (5, "rtd", 0), (8, "rtd", 0), (9, "rtd", 0), (10, "rtd", 1)):
        state = State(step=step, phase=phase, fingerprints={}, window={}, skipped=skipped)
        checkpoints.save(module, optimizers, state)

    def back(phase: str, first_bad: int, window: int) -> int | None:
        monkeypatch.setattr(guard, "WINDOW", window)
        found = way_back(checkpoints, phase, first_bad)
        return None if found is None else found[1].step

    assert back("rtd", 9, 1) == 8, "a window older"
    assert back("rtd", 9, 0) == 9
    assert back("rtd", 10, 0) == 9, "none that was saved among bad steps"
    assert back("rtd", 9, 100) == 5, "none is old enough: the oldest"
    assert back("rtd", 4, 1) is None, "all are younger"
    assert back("mlm", 9, 1) == 3
    file = checkpoints.path(8) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    assert back("rtd", 9, 1) == 5, "a broken one is none"
