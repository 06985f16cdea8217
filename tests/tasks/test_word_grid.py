"""Words of a text and the tokens they are read at, for tokenizers of every kind."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra.contracts import Mention
from electra.tasks.word_grid import WordGrid, word_grid
from electra.text.tokenizer import Tokenizer, well_formed
from electra.text.train_tokenizer import train

TEXTS = ["Ada Lovelace's engine cost £5.50.", "我们去北京的公园散步，我们很高兴。", "北京的公园 in Beijing: A-B, don't!"]
TOKENIZERS = {
    "wordpiece": train(TEXTS * 3, 200, min_frequency=1),
    "bpe": train(TEXTS * 3, 400, kind="bpe", min_frequency=1),
    "unigram": train(TEXTS * 3, 160, kind="unigram"),
}
everyone = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())


def grid_of(tokenizer: Tokenizer, text: str, words: list[tuple[int, int]] | None = None) -> WordGrid:
    return word_grid(well_formed(text), tokenizer.encode(text).offsets[1:-1], words or ())


def surfaces(text: str, grid: WordGrid) -> list[str]:
    return [text[start:end] for start, end in zip(grid.starts, grid.ends, strict=True)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ada Lovelace's", ["Ada", "Lovelace", "'", "s"]),
        ("我们 in Beijing.", ["我", "们", "in", "Beijing", "."]),
        ("a\u2003b\u3000c\nd", ["a", "b", "c", "d"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_wordpiece_cuts_as_bert_does(text: str, words: list[str]) -> None:
    assert surfaces(text, grid_of(TOKENIZERS["wordpiece"], text)) == words


@everyone
def test_english_is_cut_alike_by_all(tokenizer: Tokenizer) -> None:
    text = "Ada, engine: 5.50 (in Beijing)"
    assert surfaces(text, grid_of(tokenizer, text)) == ["Ada", ",", "engine", ":", "5", ".", "50", "(", "in", "Beijing", ")"]


def test_characters_in_one_token_are_one_word() -> None:
    text = "我们很"
    assert TOKENIZERS["bpe"].encode(text).offsets[1:-1] == [(0, 3)]
    assert surfaces(text, grid_of(TOKENIZERS["bpe"], text)) == [text]
    assert surfaces(text, grid_of(TOKENIZERS["bpe"], text, [(0, 2), (2, 3)])) == [text]


def test_borders_of_given_words_are_added_and_theirs_are_found_again() -> None:
    text, words = "U.S.A rocks", [(0, 3), (3, 5), (6, 11)]
    grid = grid_of(TOKENIZERS["wordpiece"], text, words)
    assert surfaces(text, grid)[:5] == ["U", ".", "S", ".", "A"]
    of = grid.of(words)
    assert surfaces(text, of) == ["U.S", ".A", "rocks"]
    assert of.tokens.tolist() == [grid.tokens[0], grid.tokens[3], grid.tokens[5]]


def test_a_given_word_takes_characters_that_no_token_holds_and_without_any_it_is_left_out() -> None:
    text, words = "B\u200ba \u200b b\u200b", [(0, 1), (1, 3), (4, 5), (6, 8)]
    grid = grid_of(TOKENIZERS["wordpiece"], text, words)
    assert surfaces(text, grid.of(words)) == ["B", "\u200ba", "b\u200b"]
    assert grid.touched([Mention(start=start, end=end, label="X") for start, end in words])[2].tolist() == [
        True,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("start", "end", "fits", "touched"),
    [(0, 3, True, (0, 1)), (0, 12, True, (0, 2)), (1, 3, False, (0, 1)), (3, 12, False, (1, 2)), (3, 4, False, (1, 1))],
)
def test_mentions_are_made_of_whole_words_or_not(start: int, end: int, fits: bool, touched: tuple[int, int]) -> None:
    grid = grid_of(TOKENIZERS["wordpiece"], "Ada Lovelace wrote")
    first, behind, whole = grid.touched([Mention(start=start, end=end, label="PER")])
    assert (whole.tolist(), (first[0], behind[0])) == ([fits], touched)


@everyone
@given(
    text=st.text(st.sampled_from("abÉ 中国我们,.!'$（。\n\t1 ß\u200b\u0301\U0001f600\u2003かแ\ud800"), max_size=30),
    data=st.data(),
)
def test_any_text_and_any_words(tokenizer: Tokenizer, text: str, data: st.DataObject) -> None:
    borders = data.draw(st.lists(st.integers(0, len(text)), unique=True, max_size=12).map(sorted))
    words = [pair for pair in itertools.pairwise(borders) if data.draw(st.booleans())]
    offsets = tokenizer.encode(text).offsets[1:-1]
    grid = grid_of(tokenizer, text, words)
    assert len(grid.starts) == len(grid.ends) == len(grid.tokens)
    flat = [place for pair in zip(grid.starts, grid.ends, strict=True) for place in pair]
    assert flat == sorted(flat), "words overlap"
    assert all(start < end for start, end in zip(grid.starts, grid.ends, strict=True))
    assert grid.tokens.tolist() == sorted(set(grid.tokens.tolist())), "two words are read at one token"
    for start, end, token in zip(grid.starts, grid.ends, grid.tokens, strict=True):
        assert offsets[token][0] < end
        assert start < offsets[token][1]
    if not words:
        assert [surface.strip() for surface in surfaces(text, grid)] == surfaces(text, grid)
        read = {place for start, end in offsets for place in range(start, end) if not text[place].isspace()}
        assert read <= {place for start, end in zip(grid.starts, grid.ends, strict=True) for place in range(start, end)}
    of = grid.of(words)
    assert set(zip(of.starts.tolist(), of.ends.tolist(), strict=True)) <= set(words)
    assert set(of.tokens.tolist()) <= set(grid.tokens.tolist())
