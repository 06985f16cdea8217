"""Figures of answers, computed by hand from the definitions of the official scripts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra.tasks.answers import alike, best_threshold, written_in


@pytest.mark.parametrize(
    ("right", "given_", "exact", "f1"),
    [
        (["the Eiffel Tower"], "Eiffel  tower!", 1, 1),  # articles, case, white space, punctuation
        (["Denver Broncos"], "The Denver Broncos team", 0, 0.8),  # 2 common, precision 2/3, recall 1
        (["to be or not to be"], "to be", 0, 0.5),  # bags of words: 2 of 2, 2 of 6
        (["be to"], "to be", 0, 1),
        (["U.S."], "us", 1, 1),  # punctuation goes, what is around it joins
        (["A-bomb"], "a bomb", 0, 0),  # punctuation goes before articles do
        (["theatre"], "atre", 0, 0),  # articles are words of their own
        (["“Paris”"], "Paris", 0, 0),  # ASCII punctuation only
        (["Paris", "the city of Paris"], "city of Paris", 1, 1),  # the best of all
        (["Paris", "a large city"], "large", 0, 2 / 3),
        ([], "", 1, 1),
        ([], "Paris", 0, 0),
        (["Paris"], "", 0, 0),
        (["the", "Paris"], "", 0, 0),  # an answer of which nothing remains does not count beside others
        (["the"], "", 1, 1),
    ],
)
def test_by_words(right: list[str], given_: str, exact: float, f1: float) -> None:
    assert alike(right, given_, "words") == (exact, pytest.approx(f1))


@pytest.mark.parametrize(
    ("right", "given_", "exact", "f1"),
    [
        (["北京大学"], "北京", 0, 2 / 3),  # 2 of 2, 2 of 4
        (["《红楼梦》"], "红楼梦", 1, 1),
        (["甲乙丙丁"], "甲乙丁", 0, 4 / 7),  # the longest common run, no bag: 2 of 3, 2 of 4
        (["使用Python语言"], "python", 0, 1 / 3),  # a word is one piece
        (["1998年5月"], "1998年", 0, 2 / 3),
        (["3.5米"], "35米", 0, 0.5),
        ([], "", 1, 1),
        (["北京"], "", 0, 0),
    ],
)
def test_by_characters(right: list[str], given_: str, exact: float, f1: float) -> None:
    assert alike(right, given_, "characters") == (exact, pytest.approx(f1))


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("1998年，北京", "characters"),
        ("In 1998, 北京", "words"),
        ("東京タワーは", "characters"),
        ("", "words"),
        ("서울은", "words"),
    ],
)
def test_the_script_decides(text: str, unit: str) -> None:
    assert written_in(text) == unit


def threshold(rows: list[tuple[float, bool, float]]) -> tuple[float, float]:
    score, answerable, null = zip(*rows, strict=True)
    return best_threshold(np.array(score), np.array(answerable), np.array(null))


def test_the_best_threshold_by_hand() -> None:
    rows = [(1.0, True, -2.0), (0.0, False, 1.0), (0.5, True, 2.0), (0.0, False, 3.0)]
    assert threshold(rows) == (-0.5, 0.75)  # one question answered: 1 + 2 of 4
    assert threshold([(0.0, True, 1.0), (0.0, False, 2.0)])[1] == 0.5
    assert threshold([(1.0, True, 0.0), (0.0, False, 0.0)]) == (-1.0, 0.5)  # equal scores cannot be told apart


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.booleans(), st.integers(-3, 3)), min_size=1))
def test_no_threshold_is_better(rows: list[tuple[float, bool, float]]) -> None:
    rows = [(score if answerable else 0.0, answerable, float(null)) for score, answerable, null in rows]

    def mean(at: float) -> float:
        return sum(float(not answerable) if null > at else score for score, answerable, null in rows) / len(rows)

    best, value = threshold(rows)
    assert value == pytest.approx(mean(best))
    assert value == pytest.approx(max(mean(at) for at in np.arange(-4.5, 5)))
