"""Spans: what is cut out of a row, and that every position is equally likely, proven by all cases and by chance."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra.contracts import Noise
from electra.data.masking import SpanUnit
from electra.data.spans import draw_spans, span_starts


def noise_of(rows, seed=0):
    return Noise(np.random.default_rng(seed).integers(0, 2**63, rows, dtype=np.uint64))


class Given:
    """Noise that says what it is told, by name."""

    def __init__(self, **uniform):
        self._uniform = uniform

    def uniform(self, name, width):
        given = self._uniform[name.replace("-", "_")]
        assert given.shape[1] == width
        return given


def row_of(pattern):
    """Candidates and word starts of one row: `W` begins a word, `w` goes on with it, `.` is no candidate."""
    return np.array([[mark != "." for mark in pattern]]), np.array([[mark != "w" for mark in pattern]])


@st.composite
def rows_of_words(draw):
    """Candidates and word starts of some rows of one length."""
    length = draw(st.integers(1, 40))
    patterns = draw(st.lists(st.text("Www.", min_size=length, max_size=length), min_size=1, max_size=5))
    rows = [row_of(pattern) for pattern in patterns]
    return np.concatenate([allowed for allowed, _ in rows]), np.concatenate([words for _, words in rows])


# -- cutting ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "words", "spans"),
    [
        (".WwwWW.", [1, 1, 1], ".S..SS."),
        (".WwwWWW.WwW.", [2, 1, 2, 9, 9, 9], ".S...SS.S.S."),  # the second span of two words ends at the gap
        (".ww.wWw", [1, 1, 1], ".S..SS."),  # what stands behind no candidate begins a word
        ("WWWWWW", [3, 9], "S..S.."),
        ("...", [1], "..."),
    ],
)
def test_spans_are_words_side_by_side(pattern, words, spans):
    allowed, begins = row_of(pattern)
    uniform = np.full((1, len(pattern)), 0.95)
    uniform[0, : len(words)] = np.array(words) / 10 - 0.05
    starts = span_starts(allowed, begins, [0.1] * 10, Given(span_words=uniform))
    assert "".join("S" if start else "." for start in starts[0]) == spans


def test_spans_are_as_long_as_they_should_be():
    shares = SpanUnit().shares
    allowed = np.ones((300, 200), dtype=bool)
    starts = span_starts(allowed, allowed, shares, noise_of(300))
    lengths = np.concatenate([np.diff(np.flatnonzero(row)) for row in starts])  # without the last, which the row's end cuts
    found = np.bincount(lengths, minlength=11)[1:]
    early = np.concatenate([np.diff(np.flatnonzero(row))[:20] for row in starts])  # 20 spans fit into any row
    expected = np.array(shares) * len(early)
    assert ((np.bincount(early, minlength=11)[1:] - expected) ** 2 / expected).sum() < 27.9  # 9 degrees, p = .001
    assert found.sum() > 10_000
    assert np.mean(early) == pytest.approx(3.8, abs=0.12)  # what SpanBERT's authors report


# -- drawing ------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(rows=rows_of_words(), shares=st.sampled_from([(1.0,), (0.4, 0.3, 0.2, 0.1), SpanUnit().shares]), data=st.data())
def test_exactly_as_many_as_wanted_and_one_span_in_part_at_most(rows, shares, data):
    allowed, words = rows
    available = allowed.sum(axis=1)
    drawn = np.array([data.draw(st.integers(0, int(count))) for count in available])
    noise = noise_of(len(allowed), data.draw(st.integers(0, 99)))
    starts = span_starts(allowed, words, shares, noise)
    numbers = draw_spans(allowed, starts, drawn, noise)
    assert not (starts & ~allowed).any()
    assert not (starts & ~words & np.roll(allowed, 1, axis=1))[:, 1:].any()  # no word is cut
    for row, count in enumerate(drawn):
        assert sorted(numbers[row][numbers[row] >= 0]) == list(range(count))
        assert allowed[row][numbers[row] >= 0].all()
        span = np.cumsum(starts[row])
        sizes, parts = Counter(span[allowed[row]].tolist()), Counter(span[numbers[row] >= 0].tolist())
        assert sum(parts[name] < sizes[name] for name in parts) <= 1


@pytest.mark.parametrize("drawn", range(1, 7))
def test_every_position_is_equally_likely_in_all_cases_together(drawn):
    """Spans of 3, 1 and 2 tokens: every order, turn, window and outcome of the coin once. The counts are equal, not nearly."""
    sizes, length = [3, 1, 2], 7
    cases = list(
        itertools.product(
            itertools.permutations([0.1, 0.2, 0.3]), *([(turn + 0.5) / size for turn in range(size)] for size in sizes),
            [(place + 0.5) / 6 for place in range(6)], [(coin + 0.5) / 60 for coin in range(60)],
        )
    )  # fmt: skip
    allowed, starts = row_of("Www.WWw")
    keys, turns = np.full((len(cases), length), 0.9), np.zeros((len(cases), length))
    keys[:, :3], turns[:, :3] = [case[0] for case in cases], [case[1:4] for case in cases]
    noise = Given(spans=keys, span_turn=turns, span_window=np.array([case[4:] for case in cases]))
    repeated = [np.broadcast_to(array, (len(cases), length)) for array in (allowed, starts & allowed)]
    numbers = draw_spans(*repeated, np.full(len(cases), drawn), noise)
    assert (numbers >= 0).sum(axis=0).tolist() == [len(cases) * drawn // 6 * mark for mark in (1, 1, 1, 0, 1, 1, 1)]


def test_a_word_of_one_token_each_is_drawn_as_tokens_are():
    """Every pair of five equally often."""
    ones = np.ones((6000, 5), dtype=bool)
    numbers = draw_spans(ones, ones, np.full(6000, 2), noise_of(6000))
    pairs = Counter(tuple(np.flatnonzero(row >= 0)) for row in numbers)
    assert len(pairs) == 10
    assert sum((count - 600) ** 2 / 600 for count in pairs.values()) < 27.9  # 9 degrees of freedom, p = .001


def test_long_and_short_words_are_drawn_alike():
    """Two words of twelve tokens among twenty of one: where k is 6, they cannot be drawn whole, and are drawn as often."""
    allowed, starts = row_of("W" * 5 + "W" + "w" * 11 + "W" * 10 + "W" + "w" * 11 + "W" * 5)
    rows = 20_000
    numbers = draw_spans(np.repeat(allowed, rows, 0), np.repeat(starts, rows, 0), np.full(rows, 6), noise_of(rows))
    share = (numbers >= 0).mean(axis=0) / (6 / 44)
    assert np.abs(share - 1).max() < 0.07  # four standard deviations
