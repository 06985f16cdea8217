"""The soak of benchmarks/kill_soak.py, a minute of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.soak
def test_a_run_that_is_killed_and_resumed_in_a_loop(tmp_path: Path) -> None:
    script, out = Path(__file__).parents[2] / "benchmarks" / "kill_soak.py", tmp_path / "result.json"
    ended = subprocess.run(
        [sys.executable, script, "--minutes", "1", "--out", out], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["losses"] == 0
    assert set(result["equal"].values()) == {True}
    assert result["kills"] > 0
