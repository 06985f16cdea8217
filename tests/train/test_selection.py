"""Which evaluation is the best."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra.errors import ElectraError
from electra.train.selection import Evaluation, EvaluationConfig, best, since_best

values = st.lists(st.floats(-1, 1) | st.just(math.nan), max_size=8)


def evaluations(found: list[float]) -> list[Evaluation]:
    return [Evaluation(step=10 * (n + 1), figures={"main": value, "other": -n}) for n, value in enumerate(found)]


@given(values)
def test_the_best_is_the_first_of_the_greatest(found: list[float]) -> None:
    all_of_them = evaluations(found)
    chosen = best(all_of_them)
    if chosen is None:
        assert not found
        return
    number = all_of_them.index(chosen)
    assert all(not value >= chosen.figures["main"] for value in found[:number])
    assert all(not value > chosen.figures["main"] for value in found[number:])
    assert since_best(all_of_them) == len(found) - 1 - number
    assert not math.isnan(chosen.figures["main"]) or all(math.isnan(value) for value in found)


@given(values, st.integers(0, 90))
def test_of_those_up_to_a_step(found: list[float], until: int) -> None:
    all_of_them = evaluations(found)
    assert best(all_of_them, until) == best(all_of_them[: until // 10])


def test_an_evaluation_is_read_from_the_log() -> None:
    event = {"event": "evaluate", "step": 3, "figures": {"spearman": "NaN", "pearson": 0.5}, "best": True}
    read = Evaluation.of(event)
    assert (read.step, list(read.figures), read.value) == (3, ["spearman", "pearson"], -math.inf)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"patience": 0}, {"patience": -1}])
def test_settings_out_of_range(wrong: dict[str, int]) -> None:
    with pytest.raises(ElectraError, match=r"E-C452 evaluation\."):
        EvaluationConfig(**wrong)
