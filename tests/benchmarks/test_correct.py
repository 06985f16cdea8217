"""The errors that benchmarks/correct.py plants, and how it counts what becomes of them."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

from electra.contracts import Prediction


def _load() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "correct.py"
    spec = importlib.util.spec_from_file_location("benchmarks_correct", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


bench = _load()
ENGLISH = "The man walks to the old house and the dogs walk with him. She was walking when they were away, Anna said. " * 3
CHINESE = "他在车站等着火车，她的心里想着那本书。老师说他们再来一次，哪一个也不能少。" * 3
TEXTS = {"en": ENGLISH, "zh": CHINESE}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("kind", bench.KINDS)
def test_one_error_is_planted_and_known(name: str, kind: str) -> None:
    language, text = bench.language_of(TEXTS[name], name), TEXTS[name]
    chosen = bench.drawn(text, name, 50, random.Random(0))
    assert len(chosen) == len(set(chosen)) == 2
    for seed in range(30):
        for sentence in chosen:
            error = bench.KINDS[kind](sentence, language, random.Random(seed))
            assert error == bench.KINDS[kind](sentence, language, random.Random(seed))
            assert error.text != sentence
            assert error.text[: error.start] + error.old + error.text[error.end :] == sentence
            before, after = language.word.findall(error.old), language.word.findall(error.text[error.start : error.end])
            assert all(word in language.counts for word in after)
            if kind == "order":
                assert before == after[::-1]
            else:
                assert len(before) == len(after) == 1
                assert kind == "word" or after[0] in language.forms[before[0]]


def test_forms_of_words() -> None:
    forms = bench.language_of(ENGLISH, "en").forms
    assert forms["walk"] == ["walking", "walks"]
    assert forms["was"] == ["were"]
    assert "anna" not in forms
    assert bench.language_of("tries try making make " * 2, "en").forms == {
        "tries": ["try"], "try": ["tries"], "making": ["make"], "make": ["making"]
    }  # fmt: skip
    assert bench.language_of(CHINESE, "zh").forms["他"] == ["她"]


def said(*edits: tuple[int, int, str]) -> Prediction:
    made = [{"start": start, "end": end, "new": new} for start, end, new in edits]
    return Prediction(text="", output={"edits": made, "token_count": 100})


def test_errors_are_found_or_mended_by_edits_that_lie_on_them() -> None:
    error = bench.Planted(text="the cat dog big", start=8, end=15, old="big dog")
    found = bench.counted(
        [error] * 4,
        [said(), said((0, 3, "a")), said((8, 11, "big")), said((0, 3, "a"), (8, 11, "big"), (12, 15, "dog"))],
    )
    assert found == {
        "planted": 4, "edits": 5, "found": 2, "mended": 1, "found_precision": 3 / 5, "found_recall": 1 / 2,
        "mended_precision": 2 / 5, "mended_recall": 1 / 4,
    }  # fmt: skip
    assert bench.per_thousand([said((0, 3, "a")), said()]) == 5.0
