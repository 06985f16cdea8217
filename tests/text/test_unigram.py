from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra.text.unigram import _graph, _seeds, _text_of, _text_of_seeds, unigram_pieces

WORDS = {"banana": 5, "bandana": 3, "ban": 7, "ana": 2, "can": 4}
ALPHABET = "abcdn"


def cuts(word: str, pieces: list[str]) -> Iterator[list[str]]:
    """Every way to cut a word into pieces."""
    if not word:
        yield []
    for piece in pieces:
        if word.startswith(piece):
            yield from ([piece, *rest] for rest in cuts(word[len(piece) :], pieces))


@settings(max_examples=30)
@given(words=st.dictionaries(st.text("abc", min_size=1, max_size=7), st.integers(1, 5), min_size=1, max_size=5))
def test_expected_uses_and_best_cuts_are_those_of_all_cuts(words: dict[str, int]) -> None:
    text = _text_of(words, "abc")
    seeds, frequency = _seeds(text, 3, 20, 1)
    pieces = ["".join("abc"[code] for code in seed) for seed in seeds]
    scores = np.log((frequency + 1) / (frequency + 1).sum())
    probability = dict(zip(pieces, np.exp(scores).tolist(), strict=True))
    expected, best = Counter[str](), []
    for word in sorted(words):
        weighed = [(math.prod(probability[piece] for piece in cut), cut) for cut in cuts(word, pieces)]
        total = sum(weight for weight, _ in weighed)
        for weight, cut in weighed:
            for piece in cut:
                expected[piece] += words[word] * weight / total
        best.append(max(weight for weight, _ in weighed))
    graph = _graph(text, seeds, 3)
    np.testing.assert_allclose(graph.expected_uses(scores), [expected[piece] for piece in pieces], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.exp(graph.best(scores)), best, rtol=1e-9)


def test_seeds_are_frequent_substrings_that_do_not_always_go_on_alike() -> None:
    seeds, frequency = _seeds(_text_of(WORDS, ALPHABET), len(ALPHABET), 100, 4)
    found = {"".join(ALPHABET[code] for code in seed): int(often) for seed, often in zip(seeds, frequency, strict=True)}
    assert found["ban"] == 15
    assert found["an"] == 5 * 2 + 3 * 2 + 7 + 2 + 4
    assert "anan" not in found  # always goes on as "anana"
    assert "dana" not in found  # three times only
    assert found["banana"] == 5


def test_graph_without_pieces_as_a_whole_spells_them_with_others() -> None:
    seeds, _ = _seeds(_text_of(WORDS, ALPHABET), len(ALPHABET), 100, 4)
    spelled = _graph(_text_of_seeds(seeds), seeds, len(ALPHABET)).without_whole_segments()
    scores = np.full(len(seeds), -1.0)
    lengths = [len(seed) for seed in seeds]
    best = spelled.best(scores)
    assert best[:5].tolist() == [-1.0] * 5
    assert all(score < -1.0 for score, length in zip(best.tolist(), lengths, strict=True) if length > 1)


def test_number_order_and_probabilities_of_pieces() -> None:
    pieces = unigram_pieces(WORDS, ALPHABET, 8)
    assert len(pieces) == 8
    assert set(ALPHABET) < {piece for piece, _ in pieces}
    assert [score for _, score in pieces] == sorted((score for _, score in pieces), reverse=True)
    assert sum(math.exp(score) for _, score in pieces) == pytest.approx(1, abs=1e-4)
    assert "ban" in dict(pieces)


def test_words_are_cut_at_characters_outside_of_the_alphabet_and_when_they_are_long() -> None:
    text = _text_of({"abxba": 2, "x": 9, "xxb": 1, "a" * 130: 3}, "ab")
    lengths = text.length_G.tolist()
    assert sorted(lengths) == [1, 2, 2, 2, 64, 64]
    assert dict(zip(lengths, text.weight_G.tolist(), strict=True)) == {64: 3.0, 2: 2.0, 1: 1.0}


def test_fewer_pieces_where_there_are_no_more() -> None:
    assert sorted(piece for piece, _ in unigram_pieces({"ab": 1, "ba": 1}, "ab", 50)) == ["a", "b"]


def test_a_better_text_model_than_its_characters() -> None:
    """The likelihood of the words rises with the pieces."""

    def loss(count: int) -> float:
        scores = dict(unigram_pieces(WORDS, ALPHABET, count))
        return -sum(
            often * math.log(sum(math.exp(sum(scores[p] for p in cut)) for cut in cuts(word, list(scores))))
            for word, often in WORDS.items()
        )

    assert loss(12) < loss(8) < loss(5)
