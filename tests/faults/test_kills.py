"""SIGKILL at random moments of a loop of saves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from electra.storage import clear_leftovers

KILLS = 120


def test_kills_at_random_moments(whole: dict[str, Any], tmp_path: Path, counted: Callable[[str, int], None]) -> None:
    script = Path(__file__).with_name("kill_saves.py")
    command = [sys.executable, script, tmp_path, whole["pretrain"].directory / "model", str(KILLS)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    checkpoints, others, steps = map(int, ended.stdout.split())
    assert checkpoints >= 15, "too few kills came while a checkpoint was saved"
    assert others >= 5, "too few kills came while a model or a report was written"
    assert steps >= 20, "too few saves came through"
    counted("kills", KILLS)


def test_a_model_that_stood_aside_goes_back(tmp_path: Path) -> None:
    """Killed between two renamings; see `storage.published`."""
    for name in (".model.old-12", ".model.partial-12", ".other.old-7", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name, encoding="utf-8")
    clear_leftovers(tmp_path)
    assert {path.name: (path / "file").read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {
        "model": ".model.old-12",
        "other": "other",
    }
