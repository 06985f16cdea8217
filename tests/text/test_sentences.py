"""Sentences: rules by example, and what holds for any text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra.text.sentences import sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Smith paid $3.50 (a lot!). \"Why?\" he asked.", ["Dr. Smith paid $3.50 (a lot!).", '"Why?" he asked.']),
        ("J. R. Tolkien wrote it. I did not. You?", ["J. R. Tolkien wrote it.", "I did not.", "You?"]),
        ("A line\nand another\r\n\nlast.", ["A line", "and another", "last."]),
        ("他说：“好！”然后走了……真的？是的。", ["他说：“好！”", "然后走了……", "真的？", "是的。"]),
        ("提出新方法.仿真结果表明3.5倍.", ["提出新方法.", "仿真结果表明3.5倍."]),
        ("See notes.txt... Then go. Costs rose 3.5%. 5 died.", ["See notes.txt...", "Then go.", "Costs rose 3.5%.", "5 died."]),
        ("e.g. this, cf. that", ["e.g. this, cf. that"]),
        ("", []),
        (" \n ", []),
    ],
)  # fmt: skip
def test_where_sentences_end(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in sentences(text)] == expected


@settings(max_examples=60)
@given(st.text(st.sampled_from('aA1 .!?。！…\n\t"”)中國e\u2028'), max_size=60) | st.text(max_size=40))
def test_all_that_is_no_white_space_is_in_one_sentence(text: str) -> None:
    spans = sentences(text)
    assert "".join("".join(text[start:end].split()) for start, end in spans) == "".join(text.split())
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_long_texts_take_linear_time() -> None:
    assert len(sentences("word " * 100_000)) == 1
    assert len(sentences("." * 100_000)) == 1
    assert len(sentences("J. " * 50_000)) == 1
