"""docs/reliability.md names tests that exist, and the counts that the tests assert."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_every_promise_names_tests_and_every_test_exists(root: Path, page: str) -> None:
    rows = re.findall(r"^\| .* \| .* \| (`tests/.*) \|$", page, re.MULTILINE)
    assert len(rows) >= 13
    for row in rows:
        for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row):
            assert f"\ndef {name}(" in (root / file).read_text(encoding="utf-8"), f"{file}::{name}"
        assert "::" in row


def test_the_counts_are_those_of_the_tests(root: Path, page: str) -> None:
    counts = json.loads((root / "tests" / "faults" / "counts.json").read_text(encoding="utf-8"))
    told = re.findall(r"^\| (.+) \| (\d+) \| 0 \|$", page, re.MULTILINE)
    assert len(told) == len(counts)
    for (fault, number), (name, count) in zip(told, counts.items(), strict=True):
        assert fault.startswith(name)
        assert int(number) == count
    asserted = "".join(path.read_text(encoding="utf-8") for path in (root / "tests" / "faults").glob("test_*.py"))
    assert asserted.count("counted(") >= 4
