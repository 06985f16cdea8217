"""Pieces of a text: they join to it, and none is cut where a reader sees one character."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra.text.highlight import oddity, pieces
from electra.text.train_tokenizer import train as train_tokenizer


@pytest.mark.parametrize(
    ("text", "places", "expected"),
    [
        ("the film", [(0, 3, 0.1), (4, 8, 0.9)], [("the", 0.1), (" ", None), ("film", 0.9)]),
        ("the film", [(0, 3, 0.1), (3, 8, 0.9)], [("the", 0.1), (" ", None), ("film", 0.9)]),  # a space of the token
        ("电影好", [(0, 1, 0.1), (1, 3, 0.9)], [("电", 0.1), ("影好", 0.9)]),
        ("e\u0301t", [(0, 1, 0.9), (2, 3, 0.1)], [("e\u0301", 0.9), ("t", 0.1)]),  # the accent is drawn on the e
        ("a\U0001f600b", [(1, 2, 0.2), (1, 2, 0.7), (1, 2, 0.3)], [("a", None), ("\U0001f600", 0.7), ("b", None)]),
        ("\U0001f469\U0001f3fd\u200d\U0001f680!", [(0, 1, 0.9), (4, 5, 0.1)],
         [("\U0001f469\U0001f3fd\u200d\U0001f680", 0.9), ("!", 0.1)]),
        ("❤\ufe0f!", [(0, 1, 0.9)], [("❤\ufe0f", 0.9), ("!", None)]),
        ("abc", [(0, 0, 0.9), (1, 1, 0.9)], [("abc", None)]),
        ("", [], []),
    ],
)  # fmt: skip
def test_pieces(text: str, places: list[tuple[int, int, float]], expected: list[tuple[str, float | None]]) -> None:
    assert pieces(text, places) == expected


@given(st.text(alphabet=st.sampled_from("ab \u0301\u200d\U0001f600\U0001f3fd电影"), max_size=20))
@settings(max_examples=30)
def test_pieces_join_to_the_text(text: str) -> None:
    for tokenizer in TOKENIZERS:
        places = [(start, end, 0.5) for start, end in tokenizer.encode_literally(text).offsets[1:-1]]
        found = pieces(text, places)
        assert "".join(piece for piece, _ in found) == text
        assert all(piece == piece.strip() for piece, odd in found if odd is not None and piece.isascii())


TOKENIZERS = [train_tokenizer(["ab a b 电影"] * 5, vocab_size=300, kind="bpe"), train_tokenizer(["ab a b 电影"] * 5, 80)]


def test_degrees() -> None:
    assert [oddity(doubt) for doubt in (0.0, 0.09, 0.1, 0.2, 0.49, 0.5, 1.0)] == [0, 0, 1, 2, 2, 3, 3]
