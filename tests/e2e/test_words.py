"""Masking by words, from the corpus to the run, by the verbs alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Done = Callable[..., str]


def warnings(run: Path) -> list[dict[str, Any]]:
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == "warning"]


@pytest.mark.parametrize("unit", ["word", "span"])
def test_a_corpus_with_words_is_trained_on_words(place: Any, done: Done, tmp_path: Path, unit: str) -> None:
    pytest.importorskip("rjieba")
    corpus, run = tmp_path / "corpus", tmp_path / "run"
    told = done("corpus", "build", place.text, "--tokenizer", place.tokenizer, "--out", corpus, "--segmenter", "jieba")
    assert "words begin where jieba says" in told
    rows = "rows.type=packed" if unit == "span" else "rows.type=pairs"
    done("pretrain", "test-modern", f"corpus.path={corpus}", f"run.dir={run}", rows, "stop.steps=4",
         f"phases.mlm.objective.masking.unit={unit}", f"phases.rtd.objective.masking.unit={unit}")  # fmt: skip
    assert warnings(run) == []
    assert (run / "model" / "config.json").is_file()


def test_a_chinese_corpus_without_words_is_trained_on_characters_and_it_is_said_once(
    place: Any, done: Done, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done("pretrain", "test-modern", f"corpus.path={place.corpus}", f"run.dir={run}", "stop.steps=4",
         "phases.rtd.objective.masking.unit=word", "phases.rtd.objective.masking.unit.ngrams=[0.4, 0.3, 0.2, 0.1]")  # fmt: skip
    (warning,) = warnings(run)
    assert warning["code"] == "E-D242"
    assert "built without --segmenter" in warning["message"]
    done("pretrain", "test-modern", f"corpus.path={place.corpus}", f"run.dir={tmp_path / 'tokens'}", "stop.steps=4")
    assert warnings(tmp_path / "tokens") == []
