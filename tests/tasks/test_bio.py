"""The best legal sequence of BIO classes, against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from electra.tasks import bio, schemes


def test_classes() -> None:
    assert bio.classes(["PER", "LOC"]) == ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


@given(st.data())
def test_no_legal_sequence_is_better(data: st.DataObject) -> None:
    words, labels = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 2))
    width = 1 + 2 * labels
    scores = data.draw(arrays.arrays(np.float64, (words, width), elements=st.floats(-8, 0).map(lambda value: round(value, 2))))
    names = bio.classes([f"L{label}" for label in range(labels)])
    legal = [
        path for path in itertools.product(range(width), repeat=words)
        if not schemes.repairs([names[place] for place in path], "BIO")
    ]  # fmt: skip
    assert [bio.is_legal(np.array(path, dtype=np.int64)) for path in legal] == [True] * len(legal)

    def total(path: tuple[int, ...]) -> float:
        return float(sum(scores[word, place] for word, place in enumerate(path)))

    found = bio.best_path(scores)
    assert tuple(found.tolist()) in legal
    assert total(tuple(found.tolist())) == pytest.approx(max(map(total, legal)))


def test_the_probability_of_a_span_is_that_of_it_alone() -> None:
    """Against the sum over all sequences, words taken as independent, in which the span stands exactly there."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), size=4)
    log = np.log(probabilities)
    expected = sum(
        float(np.prod([probabilities[word, place] for word, place in enumerate(path)]))
        for path in itertools.product(range(3), repeat=4)
        if path[1] == 1 and path[2] == 2 and path[3] != 2
    )
    assert bio.span_probability(log, 1, 3, 0) == pytest.approx(expected)
    assert bio.span_probability(log, 1, 4, 0) == pytest.approx(float(probabilities[1, 1] * probabilities[2:, 2].prod()))
