from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra.config import build
from electra.data.pairs import PairRows, PairRowsConfig
from electra.errors import ElectraError

CLS, SEP = 1, 2
LENGTHS = st.lists(st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=5), max_size=5), max_size=3)


def rows_of(corpus, seed=0, **config):
    return PairRows(corpus, PairRowsConfig(**config), seed, cls_id=CLS, sep_id=SEP)


class Segments(NamedTuple):
    first: list[int]
    second: list[int]


def parts(item):
    """A and B of a row, after checking that it is [CLS] A [SEP] B [SEP] or [CLS] A [SEP] with its types."""
    tokens = item.tokens.tolist()
    assert tokens[0] == CLS
    assert tokens[-1] == SEP
    split = tokens.index(SEP)
    assert item.types.tolist() == [0] * (split + 1) + [1] * (len(tokens) - split - 1)
    assert item.segments is None  # both segments see each other
    return Segments(tokens[1:split], tokens[split + 1 : -1])


def inner_rows(rows, document_size):
    """Numbers of the rows that do not end a document, in a corpus of documents of one size."""
    return [row for row in range(len(rows)) if (rows[row].tokens.max() - 9) % document_size]


@settings(deadline=None, max_examples=60)
@given(lengths=LENGTHS, length=st.integers(5, 40), seed=st.integers(0, 99), short=st.sampled_from([0.0, 0.5, 1.0]))
def test_paper_rows_hold_every_text_token_once_and_in_order(corpus_of, lengths, length, seed, short):
    corpus = corpus_of(lengths)
    rows = rows_of(corpus, seed, length=length, short=short)
    items = [rows[row] for row in range(len(rows))]
    assert [token for item in items for token in (*parts(item).first, *parts(item).second)] == corpus.text.tolist()
    assert rows.lengths.tolist() == [len(item.tokens) for item in items]
    assert all(parts(item).first and item.truncated == 0 and len(item.tokens) <= length for item in items)
    assert rows.dropped == 0


@settings(deadline=None, max_examples=60)
@given(lengths=LENGTHS, length=st.integers(5, 40), seed=st.integers(0, 99), short=st.sampled_from([0.0, 0.5, 1.0]))
def test_reference_rows_count_what_they_lose(corpus_of, lengths, length, seed, short):
    corpus = corpus_of(lengths)
    rows = rows_of(corpus, seed, length=length, short=short, builder="reference")
    items = [rows[row] for row in range(len(rows))]
    kept = [token for item in items for token in (*parts(item).first, *parts(item).second)]
    assert len(kept) == len(set(kept))
    assert set(kept) <= set(corpus.text.tolist())
    assert len(kept) + rows.dropped == len(corpus.text)
    assert rows.dropped == sum(item.truncated for item in items)
    assert all(len(item.tokens) <= length for item in items)


@settings(deadline=None, max_examples=60)
@given(lengths=LENGTHS, length=st.integers(5, 40), builder=st.sampled_from(["paper", "reference"]))
def test_words_go_with_their_tokens(corpus_of, lengths, length, builder):
    config = PairRowsConfig(length=length, builder=builder, short=0.5)
    rows = PairRows(corpus_of(lengths), config, 1, cls_id=CLS, sep_id=SEP, words=True)
    for row in range(len(rows)):
        assert rows[row].targets["word_starts"].dtype == np.bool_
        assert rows[row].targets["word_starts"].tolist() == (rows[row].tokens % 3 != 0).tolist()
    plain = rows_of(corpus_of(lengths), 1, length=length, builder=builder, short=0.5)
    assert [plain[row].tokens.tolist() for row in range(len(rows))] == [rows[row].tokens.tolist() for row in range(len(rows))]
    assert not any(plain[row].targets for row in range(len(rows)))


def test_rows_come_from_single_documents(corpus_of):
    corpus = corpus_of([[[30], [9, 9]], [[50]]])
    for builder in ("paper", "reference"):
        rows = rows_of(corpus, length=16, builder=builder)
        for row in range(len(rows)):
            text = [token for segment in parts(rows[row]) for token in segment]
            assert len({int(np.searchsorted([40, 58], token, side="right")) for token in text}) == 1


def test_paper_splits_at_the_sentence_across_the_middle(corpus_of):
    corpus = corpus_of([[[12, 15, 3, 20]] * 200])  # length 43: text of 40, so A stays below 20
    rows = rows_of(corpus, length=43, single_segment=0.0, short=0.0)
    sizes = [tuple(map(len, parts(rows[row]))) for row in range(len(rows))]
    assert set(sizes[::2]) == {(27, 13), (12, 28)}  # the sentence of 15 goes to A or to B
    assert 70 < sizes[::2].count((27, 13)) < 130
    assert set(sizes[1::2]) == {(10, 0)}  # the rest of the document, one sentence


def test_reference_takes_short_later_sentences_back_into_a(corpus_of):
    corpus = corpus_of([[[12, 15, 3, 20]] * 200])  # one row of 50 a document
    rows = rows_of(corpus, length=43, single_segment=0.0, short=0.0, builder="reference")
    assert len(rows) == 200
    seen = {}
    for row in range(200):
        first, second = ([token - 10 - 50 * row for token in segment] for segment in parts(rows[row]))
        seen[len(first)] = (first, second)
    assert set(seen) == {27, 15}
    assert seen[27] == (list(range(27)), list(range(27, 40)))
    assert seen[15] == ([*range(12), *range(27, 30)], [*range(12, 27), *range(30, 40)])
    assert rows.dropped == 200 * 10


def test_reference_ends_rows_at_sentence_ends(corpus_of):
    rows = rows_of(corpus_of([[[20, 20, 20, 7]]]), length=30, single_segment=1.0, short=0.0, builder="reference")
    assert [len(parts(rows[row]).first) for row in range(len(rows))] == [28, 27]  # of 40 and 27
    assert rows.dropped == 12


def test_one_row_in_ten_is_single_and_one_in_twenty_short(corpus_of):
    rows = rows_of(corpus_of([[[4] * 250] * 100]), length=53)  # sentences of 4, so every pair has two segments
    inner = [parts(rows[row]) for row in inner_rows(rows, 1000)]
    single = [not second for _, second in inner]
    full = [len(first) + len(second) == (51 if not second else 50) for first, second in inner]
    assert 1500 < len(inner) < 2500
    assert 0.08 < np.mean(single) < 0.12
    assert 0.035 < 1 - np.mean(full) < 0.065


def test_short_targets_are_uniform_from_five(corpus_of):
    rows = rows_of(corpus_of([[[1] * 2000] * 20]), length=24, short=1.0, single_segment=0.0)
    inner = inner_rows(rows, 2000)
    counts = np.bincount(rows.lengths[inner], minlength=25)
    assert counts[:5].sum() == 0
    expected = len(inner) / 20
    assert ((counts[5:] - expected) ** 2 / expected).sum() < 43.8  # 19 degrees of freedom, p = .001


def test_another_seed_draws_other_rows_and_the_same_seed_the_same(prose):
    first, again, other = (rows_of(prose, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.lengths, again.lengths)
    assert first.lengths.tolist() != other.lengths.tolist()


def test_rows_depend_on_their_document_alone(corpus_of):
    """Text after a document does not change its rows."""
    short, long = (rows_of(corpus_of([[[9] * 40, *more]])) for more in ([], [[5] * 30]))
    assert [short[row].tokens.tolist() for row in range(len(short))] == [long[row].tokens.tolist() for row in range(len(short))]


def test_documents_of_one_token_and_of_many_rows(corpus_of):
    corpus = corpus_of([[[1], [1], [3] * 5000]])
    rows = rows_of(corpus, length=16)
    assert np.concatenate([[*parts(rows[row]).first, *parts(rows[row]).second] for row in range(len(rows))]).tolist() == (
        corpus.text.tolist()
    )
    assert [len(rows[row].tokens) for row in (0, 1)] == [3, 3]


def test_tokens_per_row_is_near_the_truth(prose):
    for builder in ("paper", "reference"):
        rows = rows_of(prose, builder=builder)
        assert rows.lengths.mean() <= rows.tokens_per_row <= rows.lengths.mean() + 1


def test_pairs_of_a_corpus_on_disk(stored):
    """Against its documents, read one by one: nothing lost, and B begins where a sentence does."""
    manifest = stored.manifest
    rows = PairRows(stored, PairRowsConfig(length=48), 0, cls_id=manifest.cls_id, sep_id=manifest.sep_id)
    assert len(stored.shards) > 1
    row = pairs = 0
    for shard, about in enumerate(stored.shards):
        for document in range(about.documents):
            start, stop = stored.offsets(shard)[document : document + 2]
            text = stored.tokens(shard, start + 1, stop - 1).tolist()
            ends = set((stored.sentence_ends(shard, document) - 1).tolist())
            seen = 0
            while seen < len(text):
                kept = rows[row].tokens[1:-1]
                first, *second = np.split(kept, np.flatnonzero(kept == manifest.sep_id))
                if second:
                    assert seen + len(first) in ends
                    pairs += 1
                found = [*first, *(token for segment in second for token in segment[1:])]
                assert found == text[seen : seen + len(found)]
                seen += len(found)
                row += 1
    assert row == len(rows)
    assert pairs > 10


def test_shares_outside_of_0_to_1_are_refused():
    with pytest.raises(ElectraError, match=r"E-C243 rows.short: 1.5 is not a probability"):
        build(PairRowsConfig, {"short": 1.5})
