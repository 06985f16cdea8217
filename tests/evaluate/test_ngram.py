"""The n-gram floor: its probabilities are Kneser-Ney's, and do not see the order of words where n is 1."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import pytest

from electra.errors import ElectraError
from electra.evaluate.ngram import log_probabilities

TEXT = "the dog barks. the dog sleeps. a cat sleeps. the cat sees a dog\nthe cat sleeps"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "text.txt"


def by_hand(words: list[str], order: int) -> float:
    """The same formulas, counted word by word in dictionaries."""
    sentences = [["<s>"] * (order - 1) + re.findall(r"\w+|\.", part) + ["</s>"] for part in re.split(r"(?<=\.) |\n", TEXT)]
    vocabulary = {word for sentence in sentences for word in sentence} - {"<s>"} | {"<unk>"}
    grams = {k: Counter(tuple(s[i - k + 1 : i + 1]) for s in sentences for i in range(order - 1, len(s)))
             for k in range(1, order + 1)}  # fmt: skip
    weights = {order: grams[order]} | {k: Counter(gram[1:] for gram in grams[k + 1]) for k in range(1, order)}

    def probability(context: tuple[str, ...], word: str) -> float:
        k, weight = len(context) + 1, weights[len(context) + 1]
        ones, twos = (sum(value == n for value in weight.values()) for n in (1, 2))
        discount = ones / (ones + 2 * twos) if ones else 0.5
        behind = {gram: value for gram, value in weight.items() if gram[:-1] == context}
        lower = probability(context[1:], word) if k > 1 else 1 / len(vocabulary)
        if not behind:
            return lower
        total = sum(behind.values())
        return max(weight[(*context, word)] - discount, 0) / total + discount * len(behind) / total * lower

    whole = ["<s>"] * (order - 1) + words + ["</s>"]
    return sum(math.log(probability(tuple(whole[i - order + 1 : i]), whole[i])) for i in range(order - 1, len(whole)))


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_the_formula_counted_by_hand(text: Path, order: int) -> None:
    asked = ["the dog sleeps.", "a cat barks", "sees the the", "the whale sleeps"]
    expected = [by_hand(re.findall(r"\w+|\.", sentence), order) for sentence in asked]
    assert log_probabilities(text, asked, order) == pytest.approx(expected)


def test_word_frequency_is_blind_to_order(text: Path) -> None:
    one, other = log_probabilities(text, ["the dog sees a cat sleeps barks", "barks cat a the sleeps dog sees"], 1)
    assert one == other


def test_a_text_without_words(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n", encoding="utf-8")
    with pytest.raises(ElectraError, match="E-D585"):
        log_probabilities(tmp_path / "empty.txt", ["a"], 2)
    with pytest.raises(ElectraError, match="E-C100"):
        log_probabilities(tmp_path / "nowhere.txt", ["a"], 2)
