from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra.config import build
from electra.data.rows import PackedRows, PackedRowsConfig, epoch_order
from electra.errors import ElectraError, ExitCode

CLS, SEP = 1, 2
LENGTHS = st.lists(st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=4), max_size=5), max_size=3)


@settings(deadline=None, max_examples=60)
@given(lengths=LENGTHS, length=st.integers(5, 40))
def test_every_stored_token_is_in_exactly_one_row_and_in_order(corpus_of, lengths, length):
    corpus = corpus_of(lengths)
    rows = PackedRows(corpus, length)
    stream = [token for shard, about in enumerate(corpus.shards) for token in corpus.tokens(shard, 0, about.tokens)]
    assert [token for row in range(len(rows)) for token in rows[row].tokens] == stream
    assert rows.lengths.tolist() == [len(rows[row].tokens) for row in range(len(rows))]
    assert len(rows) == sum(math.ceil(shard.tokens / length) for shard in corpus.shards)
    assert rows.tokens_per_row * len(rows) == pytest.approx(len(stream))


@settings(deadline=None, max_examples=60)
@given(lengths=LENGTHS, length=st.integers(5, 40))
def test_a_new_segment_begins_exactly_where_a_document_begins(corpus_of, lengths, length):
    rows = PackedRows(corpus_of(lengths), length)
    for row in range(len(rows)):
        item = rows[row]
        begins = item.tokens == CLS
        begins[0] = True  # a piece of a document that began in the row before
        assert item.segments.tolist() == (np.cumsum(begins) - 1).tolist()
        assert not item.types.any()


@settings(deadline=None, max_examples=30)
@given(lengths=LENGTHS, length=st.integers(5, 40))
def test_words_go_with_their_tokens(corpus_of, lengths, length):
    rows = PackedRows(corpus_of(lengths), length, words=True)
    for row in range(len(rows)):
        assert rows[row].targets["word_starts"].tolist() == (rows[row].tokens % 3 != 0).tolist()
    assert not any(PackedRows(corpus_of(lengths), length)[row].targets for row in range(len(rows)))


def test_rows_do_not_cross_shards(corpus_of):
    rows = PackedRows(corpus_of([[[4]], [[7]]]), 5)
    assert rows.lengths.tolist() == [5, 1, 5, 4]


@pytest.mark.parametrize("index", [-1, 2])
def test_a_row_that_is_not_there(corpus_of, index):
    with pytest.raises(IndexError, match=str(index)):
        PackedRows(corpus_of([[[8]]]), 5)[index]


def test_rows_too_short_to_hold_anything_are_refused():
    with pytest.raises(ElectraError, match=r"E-C240 rows.length: 4 tokens") as caught:
        build(PackedRowsConfig, {"length": 4})
    assert caught.value.exit_code == ExitCode.USAGE


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 99))
def test_an_epoch_visits_everything_once(size, seed, epoch):
    order = epoch_order(np.arange(size), size, seed, epoch)
    assert np.array_equal(np.sort(order), np.arange(size))


def test_a_place_holds_the_same_item_however_it_is_asked():
    whole = epoch_order(np.arange(1000), 1000, 7, 3)
    assert np.array_equal(epoch_order(np.array([999, 5, 5]), 1000, 7, 3), whole[[999, 5, 5]])


def test_a_huge_epoch_needs_no_memory():
    size = 2**45 + 1
    items = epoch_order(np.arange(size - 1000, size), size, 0, 0)
    assert len(set(items.tolist())) == 1000
    assert 0 <= items.min() < size // 4 < 3 * size // 4 < items.max() < size


def test_all_orders_of_four_are_equally_likely():
    seen = Counter(tuple(epoch_order(np.arange(4), 4, 1, epoch).tolist()) for epoch in range(2400))
    chi_square = sum((seen[order] - 100) ** 2 / 100 for order in seen) + 100 * (24 - len(seen))
    assert chi_square < 49.7  # 23 degrees of freedom, p = .001


def test_where_an_item_lands_says_nothing_about_where_it_was():
    table = np.zeros((10, 10))
    for epoch in range(30):
        np.add.at(table, (np.arange(1000) // 100, epoch_order(np.arange(1000), 1000, 2, epoch) // 100), 1)
    assert ((table - 300) ** 2 / 300).sum() < 126  # 81 degrees of freedom, p = .001


def test_neighbours_are_separated_and_epochs_differ():
    first, second = (epoch_order(np.arange(1000), 1000, 0, epoch) for epoch in (0, 1))
    assert (np.abs(np.diff(first)) == 1).mean() < 0.01
    assert (first == second).mean() < 0.01
