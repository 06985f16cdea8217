"""The verb that scores texts, and the settings of tasks by the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Done = Callable[..., str]
TEXTS = ["the dog is good and fine", "fine and the is dog <b>", "", "在车站旁边"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    return file


def test_texts_are_scored_one_a_line(place: Any, done: Done, texts: Path) -> None:
    import electra

    printed = done("score", place.run / "model", texts)
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [row["text"] for row in rows] == TEXTS
    assert [row["score"] for row in rows] == pytest.approx([sum(t["score"] for t in row["tokens"]) for row in rows])
    in_python = electra.load(place.run / "model", "score").predict(TEXTS)
    assert [prediction.output["score"] for prediction in in_python] == pytest.approx([row["score"] for row in rows], abs=1e-4)
    assert done("score", place.run / "model", stdin=texts.read_bytes()) == printed
    assert done("predict", place.run / "model", texts, "--task", "score") == printed
    pll = [json.loads(line) for line in done("score", place.run / "model", texts, "--method", "pll", "--reduce", "mean",
                                             "--setting", "max_length=16").splitlines()]  # fmt: skip
    assert [row["method"] for row in pll] == ["pll"] * 4
    assert pll[0]["score"] != rows[0]["score"]
    (begin, *_) = done("score", place.run / "model", texts, "--format", "text").splitlines()
    assert begin == f"{rows[0]['score']:.3f}  {TEXTS[0]}"


def test_odd_tokens_are_shown_in_colour_and_on_a_page(place: Any, done: Done, texts: Path, tmp_path: Path) -> None:
    shown = done("score", place.run / "model", texts, "--highlight", "--html", tmp_path / "page.html")
    assert "\x1b[" in shown
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert all(text in plain for text in TEXTS)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<tr>") == 1 + len(TEXTS)
    assert "<b>" not in page


def test_a_page_that_cannot_be_written_is_told_before_anything_is_scored(
    electra: Callable[..., Any], texts: Path, tmp_path: Path
) -> None:
    for option in ("--html", "--output"):
        ended = electra("score", tmp_path / "no-model", texts, option, tmp_path / "nowhere" / "page")
        assert "E-R002" in ended.err, "the model, which is not there, was looked for first"


def test_candidates_are_reranked(place: Any, done: Done, electra: Callable[..., Any], tmp_path: Path) -> None:
    nbest = tmp_path / "nbest.jsonl"
    candidates = [{"text": text, "score": -number} for number, text in enumerate(TEXTS)]
    nbest.write_text(json.dumps({"id": "u1", "candidates": candidates}) + "\n", encoding="utf-8")
    (line,) = done("score", place.run / "model", "--rerank", nbest, "--weight", "1000").splitlines()
    found = json.loads(line)
    assert [candidate["text"] for candidate in found["candidates"]] == TEXTS
    assert found["id"] == "u1"
    said = done("score", place.run / "model", "--rerank", nbest, "--format", "text")
    totals = [float(line.split()[0]) for line in said.splitlines() if line]
    assert totals == sorted(totals, reverse=True)
    nbest.write_text('{"candidates": [1]}\n', encoding="utf-8")
    wrong = electra("score", place.run / "model", "--rerank", nbest)
    assert wrong.code == 3
    assert "E-D570" in wrong.err
    assert "nbest.jsonl:1" in wrong.err


def test_tasks_take_settings_and_clean_text(place: Any, done: Done, electra: Callable[..., Any], texts: Path) -> None:
    given = b"the [MASK] is [MASK].\n"
    filled = json.loads(done("predict", place.run / "model", "--task", "fill-mask", "--setting", "joint=true", stdin=given))
    assert "[MASK]" not in filled["joint"]["sequence"]
    assert [fill["order"] for fill in filled["joint"]["fills"]] in ([1, 2], [2, 1])
    ours = ("predict", place.run / "model", texts, "--task", "correct", "--setting", "fall=0.001")
    rows = [json.loads(line) for line in done(*ours, "--setting", "suspicion=0.05").splitlines()]
    assert [row["text"] for row in rows] == TEXTS
    for row in rows:
        assert all(row["text"][edit["start"] : edit["end"]] == edit["old"] for edit in row["edits"])
    tuned = electra(*ours, "--clean", texts)
    assert tuned.code == 0
    assert "suspicion = " in tuned.err
    assert all(json.loads(line)["edits"] == [] for line in tuned.out.splitlines())


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["score", "MODEL", "TEXTS", "--method", "plll"], "E-C004"),
        (["score", "MODEL", "TEXTS", "--weight", "1"], "E-C573"),
        (["score", "MODEL", "TEXTS", "--rerank", "TEXTS"], "E-C573"),
        (["score", "MODEL", "TEXTS", "--highlight", "--output", "out.jsonl"], "E-C318"),
        (["predict", "MODEL", "TEXTS", "--setting", "joint=true"], "E-C570"),
        (["predict", "MODEL", "TEXTS", "--task", "replaced", "--clean", "TEXTS"], "E-C572"),
        (["predict", "MODEL", "TEXTS", "--task", "correct", "--clean", "TEXTS", "--setting", "suspicion=0.3"], "E-C572"),
        (["predict", "MODEL", "TEXTS", "--task", "fill-mask", "--setting", "joined=true"], "E-C004"),
    ],
)
def test_what_does_not_go_together_is_refused(
    place: Any, electra: Callable[..., Any], texts: Path, words: list[str], code: str
) -> None:
    places = {"MODEL": place.run / "model", "TEXTS": texts}
    outcome = electra(*(places.get(word, word) for word in words))
    assert code in outcome.err
    assert outcome.code == 2
