from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra.text.boundaries import first_solid, starts_of_text
from electra.text.tokenizer import Tokenizer


def begins(text: str) -> list[int]:
    """The characters at which the words of a text begin."""
    places = np.arange(len(text))
    return places[starts_of_text(text)[:-1] & (first_solid(text)[:-1] == places)].tolist()


def cut(text: str) -> list[str]:
    starts = begins(text)
    return [text[start:end].strip(" \u3000") for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The café opens (today) at 7.\nNo 中国人; 散步。", "The café opens ( today ) at 7 . \n No 中 国 人 ; 散 步 。"),
        ("don't — 12345 x\u3000y", "don ' t — 12345 x y"),
        ("สวัสดีครับ is Thai, かな is not.", "ส วั ส ดี ค รั บ is Thai , か な is not ."),
    ],
)
def test_words_of_a_text(text: str, words: str) -> None:
    assert " ".join(cut(text)) == words


@given(text=st.text(st.sampled_from("abcé 中国,.!'\"$-（。\n\t1 Ωж"), max_size=60))
def test_words_begin_where_bert_cuts(tokenizer: Tokenizer, text: str) -> None:
    (encoding,) = tokenizer.encode_documents([text])
    first = dict(zip(reversed(encoding.word_ids), reversed(encoding.offsets), strict=True))
    assert sorted(start for start, _ in first.values()) == [place for place in begins(text) if text[place] != "\n"]


@given(text=st.text(max_size=40))
def test_any_text_has_a_word_at_its_first_character(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    assert starts_of_text(text).shape == first_solid(text).shape == (len(text) + 1,)
    assert not text or starts_of_text(text)[first_solid(text)[0]]
