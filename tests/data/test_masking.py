from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra.config import build
from electra.contracts import Noise
from electra.data.masking import MaskingConfig, SpanUnit, TokenUnit, WordUnit, candidates, draw
from electra.errors import ElectraError

CLS, SEP, MASK = 1, 2, 3


def noise_of(rows, seed=0):
    return Noise(np.random.default_rng(seed).integers(0, 2**63, rows, dtype=np.uint64))


def all_of(rows, length):
    return np.ones((rows, length), dtype=bool), np.full(rows, length)


UNITS = {"word": WordUnit(), "n-gram": WordUnit(ngrams=(0.4, 0.3, 0.2, 0.1)), "span": SpanUnit()}


def words_of(rows, length, seed=0):
    """Where words begin: seven positions of ten."""
    return np.random.default_rng(seed).random((rows, length)) < 0.7


def test_candidates_are_real_tokens_other_than_specials():
    tokens = np.array([[CLS, 5, MASK, 6, SEP, CLS, 7, SEP, 0, 0]])
    allowed = candidates(tokens, tokens != 0, (CLS, SEP, MASK))
    assert np.flatnonzero(allowed[0]).tolist() == [1, 3, 6]


@settings(deadline=None, max_examples=200)
@given(
    data=st.data(),
    rows=st.integers(1, 5),
    length=st.integers(1, 60),
    rate=st.floats(0.01, 1.0),
    how=st.sampled_from(["token", "token, with replacement", *UNITS]),
)
def test_how_many_are_drawn_and_where(data, rows, length, rate, how):
    allowed = np.array(
        data.draw(st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=rows, max_size=rows))
    )
    real = np.minimum(allowed.sum(axis=1) + 2, length)
    replacement = how == "token, with replacement"
    unit = {"unit": UNITS[how]} if how in UNITS else {}
    config = MaskingConfig(rate=rate, with_replacement=replacement, **unit)
    drawn = draw(allowed, real, config, 0.0, noise_of(rows), words_of(rows, length))
    assert drawn.positions.shape == drawn.weight.shape == drawn.is_mask.shape == (rows, max(1, round(rate * length)))
    for row in range(rows):
        used = drawn.weight[row] == 1
        assert used.sum() == min(max(1, round(rate * int(real[row]))), allowed[row].sum())
        assert allowed[row, drawn.positions[row, used]].all()
        assert replacement or len(set(drawn.positions[row, used])) == used.sum()
        assert not drawn.positions[row, ~used].any()
        assert not drawn.weight[row, ~used].any()
        assert not drawn.is_mask[row, ~used].any()
        assert used[: used.sum()].all()


@pytest.mark.parametrize(("real", "drawn"), [(1, 1), (3, 1), (10, 2), (30, 4), (50, 8), (70, 10), (128, 19)])
def test_halves_round_to_even(real, drawn):
    """.15 of 10, 30, 50, 70 = 1.5, 4.5, 7.5, 10.5."""
    allowed = np.arange(128)[None, :] < real
    assert draw(allowed, np.array([real]), MaskingConfig(), 0.0, noise_of(1)).weight.sum() == drawn


@pytest.mark.parametrize("replacement", [False, True])
def test_drawn_positions_are_uniform_over_the_row(replacement):
    drawn = draw(*all_of(4000, 40), MaskingConfig(with_replacement=replacement), 0.0, noise_of(4000))
    counts = np.bincount(drawn.positions.ravel(), minlength=40)
    assert counts.sum() == 4000 * 6
    assert ((counts - 600) ** 2 / 600).sum() < 72.1  # 39 degrees of freedom, p = .001


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
@pytest.mark.parametrize("rate", [0.05, 0.15, 0.5])
def test_positions_are_uniform_whatever_the_words_of_the_row(unit, rate):
    """One row with two documents, drawn 12,000 times; positions of a span are drawn together, so each is tested alone."""
    allowed = np.repeat(np.arange(40)[None, :] % 25 > 1, 12_000, axis=0)  # [CLS] text [SEP] [CLS] text, as it were
    drawn = draw(allowed, np.full(12_000, 40), MaskingConfig(unit=unit, rate=rate), 0.0, noise_of(12_000), words_of(1, 40))
    counts = np.bincount(drawn.positions[drawn.weight > 0], minlength=40)[allowed[0]]
    share = counts.mean() / 12_000
    assert np.abs(counts - counts.mean()).max() < 4 * np.sqrt(12_000 * share * (1 - share))
    assert counts.sum() == 12_000 * round(rate * 40)


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
def test_words_are_drawn_whole_but_for_one_or_two_of_a_row(unit):
    words = words_of(500, 60)
    drawn = draw(*all_of(500, 60), MaskingConfig(unit=unit, mask_token_rate=0.5), 0.0, noise_of(500), words)
    number = np.cumsum(words, axis=1)
    in_part = masked_in_part = 0
    for row in range(500):
        sizes, parts = Counter(number[row].tolist()), Counter(number[row, drawn.positions[row]].tolist())
        masked = Counter(number[row, drawn.positions[row, drawn.is_mask[row]]].tolist())
        cut = [word for word in parts if parts[word] < sizes[word]]
        assert len(cut) <= (1 if unit == WordUnit() else 2)  # of a span drawn in part, the words at both ends may be cut
        in_part += len(cut)
        masked_in_part += sum(0 < masked[word] < parts[word] for word in parts)
    assert in_part < 500
    assert masked_in_part == 0
    assert drawn.is_mask.mean() == pytest.approx(0.5, abs=0.05)


def test_n_grams_have_the_shares_they_are_given():
    """Of words of one token: a token is in an n-gram in proportion to n times the share of n-grams."""
    config = MaskingConfig(unit=WordUnit(ngrams=(0.5, 0.0, 0.5)), rate=0.3, mask_token_rate=0.5)
    drawn = draw(*all_of(2000, 60), config, 0.0, noise_of(2000), np.ones((2000, 60), dtype=bool))
    masked = np.zeros((2000, 62), dtype=int)
    np.put_along_axis(masked[:, 1:-1], drawn.positions, 1, axis=1)
    lengths = Counter()
    for row in masked:
        edges = np.flatnonzero(np.diff(row))
        lengths.update((edges[1::2] - edges[::2]).tolist())
    assert lengths[3] > 1.5 * lengths[2]  # twos are parts of threes or two ones that met
    assert lengths[1] > 1.5 * lengths[2]


def test_every_pair_of_positions_is_equally_likely():
    drawn = draw(*all_of(6000, 5), MaskingConfig(rate=0.4), 0.0, noise_of(6000))
    pairs = Counter(frozenset(row) for row in drawn.positions.tolist())
    assert len(pairs) == 10
    assert sum((count - 600) ** 2 / 600 for count in pairs.values()) < 27.9  # 9 degrees of freedom, p = .001


def test_with_replacement_a_position_comes_twice_as_often_as_chance_says():
    """19 of 126 positions with replacement: a drawn position has another hit with probability 1 - (1 - 1/126)**18."""
    drawn = draw(*all_of(3000, 126), MaskingConfig(with_replacement=True), 0.0, noise_of(3000))
    doubled = np.mean([count > 1 for row in drawn.positions.tolist() for count in Counter(row).values()])
    assert doubled == pytest.approx(0.071, abs=0.005)


@pytest.mark.parametrize("rate", [0.0, 0.85, 1.0])
def test_the_share_that_becomes_mask(rate):
    drawn = draw(*all_of(2000, 40), MaskingConfig(mask_token_rate=rate), 0.0, noise_of(2000))
    assert drawn.is_mask.mean() == pytest.approx(rate, abs=0.012)
    by_place = drawn.is_mask.mean(axis=0)  # early places are not masked more often than late ones
    assert np.abs(by_place - rate).max() < 0.03


@pytest.mark.parametrize("unit", [TokenUnit(), *UNITS.values()], ids=["token", *UNITS])
def test_a_row_draws_the_same_whatever_stands_beside_it(unit):
    allowed, real = all_of(6, 40)
    keys, words, config = np.arange(6, dtype=np.uint64), words_of(6, 40), MaskingConfig(unit=unit)
    whole = draw(allowed, real, config, 0.0, Noise(keys), words)
    part = draw(allowed[2:4], real[2:4], config, 0.0, Noise(keys[2:4]), words[2:4])
    assert np.array_equal(whole.positions[2:4], part.positions)
    assert np.array_equal(whole.is_mask[2:4], part.is_mask)


def test_the_rate_moves_and_the_shape_does_not():
    config = MaskingConfig(rate=0.3, final_rate=0.1)
    draws = [draw(*all_of(2, 100), config, progress, noise_of(2)) for progress in (0.0, 0.5, 1.0)]
    assert [one.weight[0].sum() for one in draws] == [30, 20, 10]
    assert {one.positions.shape for one in draws} == {(2, 30)}


@pytest.mark.parametrize(
    ("setting", "value"), [("rate", 0.0), ("rate", 1.5), ("final_rate", -0.1), ("mask_token_rate", 1.1), ("rate", float("nan"))]
)
def test_what_is_no_rate_is_refused(setting, value):
    with pytest.raises(ElectraError, match=f"E-C241 masking.{setting}"):
        MaskingConfig(**{setting: value})


@pytest.mark.parametrize(
    ("unit", "settings"),
    [
        (WordUnit, {"ngrams": (0.5, 0.4)}), (WordUnit, {"ngrams": ()}), (WordUnit, {"ngrams": (1.5, -0.5)}),
        (SpanUnit, {"p": 0.0}), (SpanUnit, {"p": 1.1}), (SpanUnit, {"longest": 0}),
    ],
)  # fmt: skip
def test_what_is_no_length_of_a_span_is_refused(unit, settings):
    with pytest.raises(ElectraError, match=r"E-C244 masking\.unit"):
        unit(**settings)


def test_words_are_not_drawn_with_replacement():
    with pytest.raises(ElectraError, match=r"E-C245 masking\.with_replacement: a word is drawn once or not at all"):
        MaskingConfig(unit=WordUnit(), with_replacement=True)


def test_a_recipe_names_its_unit():
    assert build(MaskingConfig, {"unit": "word"}) == MaskingConfig(unit=WordUnit())
    assert build(MaskingConfig, {"unit": {"type": "span", "longest": 3}}).unit == SpanUnit(longest=3)
    assert sum(SpanUnit(longest=3).shares) == pytest.approx(1)
    with pytest.raises(ElectraError, match=r"E-C004 unit\.longest: no such setting; known here: type, ngrams"):
        build(MaskingConfig, {"unit": {"type": "word", "longest": 3}})


def test_a_recipe_names_its_rates():
    assert build(MaskingConfig, {"rate": 0.25, "final_rate": 0.15}) == MaskingConfig(rate=0.25, final_rate=0.15)
