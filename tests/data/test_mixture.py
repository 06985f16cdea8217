"""Sources in exact proportions, each with its own epochs, as a function of the row's number alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra.contracts import Encoded
from electra.data.loader import PretrainLoader
from electra.data.mixture import PERIOD, Mixture, Source
from electra.data.rows import epoch_order, noise_key
from electra.errors import ElectraError

LENGTH = 8


class Rows:
    """`count` rows of `LENGTH` tokens, all of them the number of the row behind `first`."""

    length = LENGTH

    def __init__(self, count: int, first: int = 10, tokens_per_row: float = LENGTH) -> None:
        self._count, self._first, self.tokens_per_row = count, first, tokens_per_row
        self.lengths = np.full(count, LENGTH)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Encoded:
        tokens = np.full(LENGTH, self._first + index)
        return Encoded(tokens=tokens, types=np.zeros_like(tokens))


def mixture(*weights: float, counts: tuple[int, ...] = ()) -> Mixture:
    counts = counts or (50,) * len(weights)
    each = enumerate(zip(weights, counts, strict=True))
    sources = [
        Source(name=f"s{n}", rows=Rows(count, 10 + 1000 * n), weight=weight, seed=100 + n) for n, (weight, count) in each
    ]
    return Mixture(sources)


def counted(sources: np.ndarray, number: int) -> np.ndarray:
    """[n + 1] how often `number` stands in the first n."""
    return np.concatenate([[0], np.cumsum(sources == number)])


# -- proportions ---------------------------------------------------------------------------------------------------------

WEIGHTS = st.lists(st.floats(0.01, 100, allow_nan=False), min_size=1, max_size=12)


@settings(deadline=None, max_examples=6)
@given(weights=WEIGHTS)
def test_after_any_number_of_rows_every_source_has_its_share_within_one(weights: list[float]) -> None:
    mixed = mixture(*weights, counts=(10**6,) * len(weights))
    sources = mixed.at(np.arange(20_000)).sources
    for number, share in enumerate(mixed.shares):
        off = counted(sources, number) - share * np.arange(20_001)
        assert np.abs(off).max() < 1


@settings(deadline=None, max_examples=6)
@given(weights=WEIGHTS, start=st.integers(0, 2**45))
def test_shares_are_those_of_the_weights_however_far_a_run_goes(weights: list[float], start: int) -> None:
    mixed, wanted = mixture(*weights), np.array(weights) / sum(weights)
    assert np.abs(np.array(mixed.shares) - wanted).max() < 4e-6
    assert sum(mixed.shares) == pytest.approx(1)
    before, after = (mixed.epochs(count) for count in (start, start + 3 * PERIOD))
    for number, share in enumerate(mixed.shares):  # whole periods, so exactly
        assert (after[f"s{number}"] - before[f"s{number}"]) * 50 == pytest.approx(share * 3 * PERIOD, abs=0.5)


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ((2, 1), (2 / 3, 1 / 3)),
        ((0.7, 0.2, 0.1), (0.7, 0.2, 0.1)),
        ((1,) * 7, (1 / 7,) * 7),
        ((99, 1), (0.99, 0.01)),
        ((5,), (1,)),
    ],
)
def test_simple_shares_are_exact(weights: tuple[float, ...], shares: tuple[float, ...]) -> None:
    assert mixture(*weights).shares == shares


def test_sources_take_turns() -> None:
    assert mixture(1, 1).at(np.arange(6)).sources.tolist() == [0, 1, 0, 1, 0, 1]
    assert sorted(mixture(2, 1).at(np.arange(3)).sources.tolist()) == [0, 0, 1]
    rare = np.flatnonzero(mixture(97, 3).at(np.arange(1000)).sources)
    assert np.diff(rare).min() > 30
    assert np.diff(rare).max() < 36


def test_a_hundred_sources() -> None:
    weights = [1.05**number for number in range(100)]
    mixed = mixture(*weights, counts=(10**6,) * 100)
    sources = mixed.at(np.arange(PERIOD)).sources
    assert (np.bincount(sources, minlength=100) / PERIOD).tolist() == list(mixed.shares)
    heaviest = counted(sources, 99) - mixed.shares[99] * np.arange(PERIOD + 1)
    assert np.abs(heaviest).max() < 1


def test_a_weight_too_small_for_any_row_is_named() -> None:
    with pytest.raises(ElectraError, match=r"E-D471 source s1: its weight gives it less than one row in 277,200"):
        mixture(1, 1e-7)


# -- epochs --------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(counts=st.lists(st.integers(5, 40), min_size=1, max_size=4), weights=st.lists(st.integers(1, 9), min_size=4, max_size=4))
def test_each_source_visits_each_of_its_rows_once_per_epoch_of_its_own(counts: list[int], weights: list[int]) -> None:
    mixed = mixture(*weights[: len(counts)], counts=tuple(counts))
    picks = mixed.at(np.arange(400))
    for number, count in enumerate(counts):
        rows = picks.rows[picks.sources == number]
        keys = picks.noise_keys[picks.sources == number]
        for epoch in range(len(rows) // count):
            here = slice(epoch * count, (epoch + 1) * count)
            assert sorted(rows[here].tolist()) == list(range(count))
            assert rows[here].tolist() == epoch_order(np.arange(count), count, 100 + number, epoch).tolist()
            assert keys[here].tolist() == [row ^ noise_key(100 + number, epoch) for row in rows[here].tolist()]


@settings(deadline=None, max_examples=30)
@given(weights=st.lists(st.integers(1, 9), min_size=1, max_size=4), count=st.integers(0, 900))
def test_epochs_are_what_was_seen(weights: list[int], count: int) -> None:
    mixed = mixture(*weights)
    seen = Counter(mixed.at(np.arange(count)).sources.tolist())
    assert mixed.epochs(count) == {f"s{number}": seen[number] / 50 for number in range(len(weights))}


def test_one_source_is_a_corpus_as_it_was_without_mixtures() -> None:
    alone = Mixture([Source(name="corpus", rows=Rows(50), seed=3)])
    picks = alone.at(np.arange(95, 130))
    assert picks.rows[:5].tolist() == epoch_order(np.arange(45, 50), 50, 3, 1).tolist()
    assert picks.rows[5:].tolist() == epoch_order(np.arange(30), 50, 3, 2).tolist()
    assert picks.noise_keys[5:].tolist() == [row ^ noise_key(3, 2) for row in picks.rows[5:].tolist()]


def test_the_same_row_of_two_sources_has_other_noise() -> None:
    picks = mixture(1, 1).at(np.arange(100))
    assert len(set(picks.noise_keys.tolist())) == 100


# -- purity --------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(start=st.integers(0, 2**45), size=st.integers(1, 60), cut=st.integers(0, 60))
def test_what_stands_at_a_row_depends_on_its_number_alone(start: int, size: int, cut: int) -> None:
    mixed, numbers = mixture(3, 2, 0.5, counts=(50, 7, 3)), np.arange(start, start + size)
    whole, parts = mixed.at(numbers), [mixed.at(numbers[:cut]), mixed.at(numbers[cut:])]
    for name in ("sources", "rows", "noise_keys"):
        assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))


@pytest.fixture(scope="module")
def loader() -> PretrainLoader:
    return PretrainLoader(
        mixture=mixture(5, 2, 1, counts=(60, 30, 9)), cls_id=1, sep_id=2, mask_id=3, pad_id=0, batch_rows=12, micro_rows=4,
        steps=9,
    )  # fmt: skip


def rows_seen(loader: PretrainLoader, step: int, world_size: int = 1) -> list[tuple[int, list[bool], list[float]]]:
    """The token, the masks and some noise of each row of a step."""
    seen = []
    for rank in range(world_size):
        for batch, noise in loader.micro_batches(step, rank, world_size):
            drawn = noise.uniform("sample", 2).tolist()
            each = zip(batch.tokens[:, 0].tolist(), batch.targets["is_mask"].tolist(), drawn, strict=True)
            seen += list(each)
    return seen


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("micro_rows", [1, 5, 12])
def test_processes_and_micro_batches_see_the_same_rows(loader: PretrainLoader, world_size: int, micro_rows: int) -> None:
    for step in (0, 2, 7):
        assert rows_seen(replace(loader, micro_rows=micro_rows), step, world_size) == rows_seen(loader, step)


def test_a_later_part_of_the_run_goes_on_where_the_earlier_one_ended(loader: PretrainLoader) -> None:
    assert rows_seen(replace(loader, first_row=24), 1) == rows_seen(loader, 3)
    assert replace(loader, first_row=24).epochs(1) == loader.epochs(3)
    assert loader.epochs(8) == {"s0": 1.0, "s1": 0.8, "s2": 12 / 9}  # 96 rows: 60, 24 and 12


def test_tokens_per_step_are_those_of_the_shares() -> None:
    halves = [Source(name=f"s{n}", rows=Rows(50, tokens_per_row=n), weight=3 - n, seed=n) for n in (1, 2)]
    loader = PretrainLoader(
        mixture=Mixture(halves), cls_id=1, sep_id=2, mask_id=3, pad_id=0, batch_rows=3, micro_rows=3, steps=1
    )
    assert loader.tokens_per_step == pytest.approx(2 * 1 + 1 * 2)


# -- too little text -----------------------------------------------------------------------------------------------------


def test_a_source_with_fewer_rows_than_its_share_of_a_batch_is_named() -> None:
    mixed = mixture(1, 3, counts=(50, 8))
    mixed.require_rows(10)
    with pytest.raises(
        ElectraError, match=r"E-D240 source s1: 8 rows of 8 tokens are fewer than its share of one batch of 12 rows; .*weight"
    ):
        mixed.require_rows(12)


def test_a_source_that_does_not_fill_one_row_is_named() -> None:
    tiny = Mixture([Source(name="a", rows=Rows(50), seed=0), Source(name="b", rows=Rows(1, tokens_per_row=5), seed=1)])
    with pytest.raises(ElectraError, match=r"E-D240 source b: its text does not fill one row of 8 tokens"):
        tiny.require_rows(2)
