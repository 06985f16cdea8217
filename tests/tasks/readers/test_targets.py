"""Sources and targets of every kind of file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from electra.errors import ElectraError
from electra.tasks.readers import TargetColumns, read_targets

ROWS = [("ein Haus", "a house"), ("[SEP] ja", "yes")]


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("t.tsv", "source\ttarget\nein Haus\ta house\n[SEP] ja\tyes\n", {}),
        ("t.txt", "ein Haus\ta house\n[SEP] ja\tyes\n", {}),
        ("t.csv", "id,Content,Title\n1,ein Haus,a house\n2,[SEP] ja,yes\n", {}),
        ("t.tsv", "a house\tein Haus\tCC-BY\nyes\t[SEP] ja\tCC-BY\n", {"text": 2, "target": 1}),
        ("t.jsonl", "\n".join(json.dumps({"abst": one, "title": two}) for one, two in ROWS), {}),
        ("t.json", json.dumps([{"de": one, "en": two} for one, two in ROWS]), {"text": "de", "target": "en"}),
    ],
)
def test_sources_and_targets(tmp_path: Path, name: str, content: str, columns: dict[str, str | int]) -> None:
    reading = read_targets(write(tmp_path / name, content), TargetColumns(**columns))  # type: ignore[arg-type]
    found = list(reading.examples)
    assert [(one.text, one.target) for one in found] == ROWS
    assert "columns: text = " in reading.notes[0]
    assert found[1].where.startswith(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "content"), [("t.txt", "ein Haus\n\n"), ("t.tsv", "source\nein Haus\n"), ("t.jsonl", '{"source": "ein Haus"}\n')]
)
def test_sources_alone(tmp_path: Path, name: str, content: str) -> None:
    found = list(read_targets(write(tmp_path / name, content)).examples)
    assert (found[0].text, found[0].target) == ("ein Haus", None)


@pytest.mark.parametrize(
    ("content", "columns", "code"),
    [
        ("a\tb\tc\n", {}, r"E-D332 .*t\.tsv:1"), ("x\ty\n1\t2\n", {"text": "z"}, "E-D303"), ("a\tb\nc\n", {}, r"E-D304 .*:2"),
        ("", {}, "E-D307"),
    ],
)  # fmt: skip
def test_what_is_left_open_is_an_error(tmp_path: Path, content: str, columns: dict[str, str], code: str) -> None:
    with pytest.raises(ElectraError, match=code):
        list(read_targets(write(tmp_path / "t.tsv", content), TargetColumns(**columns)).examples)  # type: ignore[arg-type]
