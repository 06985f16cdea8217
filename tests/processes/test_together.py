"""What processes do together, in one group for all checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from electra import dist
from electra.errors import ElectraError


def test_processes_agree(group: Any, corpus_dir: Path) -> None:
    script = Path(__file__).with_name("together.py")
    assert group.start(script, {"corpus": str(corpus_dir)}, 2) == [0, 0], group.said()
    assert group.said().count("check_") == 2 * 7, "every check was made by both"


def test_alone_nobody_is_asked() -> None:
    assert dist.gather("x") == ["x"]
    assert dist.led(lambda ask: ask(), lambda: True) is True


@pytest.mark.parametrize(
    ("variables", "cause"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR is not set"),
        ({"WORLD_SIZE": "two", "RANK": "0", "MASTER_ADDR": "here", "MASTER_PORT": "1"}, "not all numbers"),
    ],
)
def test_an_incomplete_environment_is_refused(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], cause: str) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ElectraError, match=cause) as caught, dist.processes(1.0):
        pass
    assert caught.value.code == "E-C800"
