"""100 steps of both families against recorded losses: a change that is not meant to change numbers must not.

Equal to the last digit on the recorded kind of machine and version of torch, to 1e-4 elsewhere. `python tests/golden/record.py`
records anew.
"""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path

import pytest

from electra.build import pretrain

RECORD = runpy.run_path(str(Path(__file__).with_name("record.py")))


@pytest.mark.parametrize("recipe", RECORD["RECIPES"])
def test_losses_are_those_recorded(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "_PROBE_SECONDS", 0.0)
    monkeypatch.setattr(pretrain, "write_report", lambda directory: directory)
    recorded = json.loads(RECORD["file_of"](recipe).read_text(encoding="utf-8"))
    found = RECORD["losses"](recipe, tmp_path)
    assert len(found) == RECORD["STEPS"]
    if recorded["machine"] == RECORD["machine"]():
        assert found == recorded["steps"]
    else:
        assert [step.keys() for step in found] == [step.keys() for step in recorded["steps"]]
        for ours, theirs in zip(found, recorded["steps"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4), f"step {theirs['step']}"


@pytest.mark.parametrize("recipe", RECORD["RECIPES"])
def test_what_is_recorded_has_learnt(recipe: str) -> None:
    """Numbers of a run that does nothing would prove nothing."""
    steps = json.loads(RECORD["file_of"](recipe).read_text(encoding="utf-8"))["steps"]
    masked = [step["mlm_loss"] for step in steps]
    assert masked[0] == pytest.approx(math.log(36), abs=0.3)
    assert sum(masked[-5:]) < 5 * (masked[0] - 0.05)
    assert all("rtd_loss" in step for step in steps[-20:])
