from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from electra.text.clean import Counts, clean
from electra.text.encode import Encoder, as_wholes, by_words, cuts_at_words
from electra.text.tokenizer import Tokenizer
from electra.text.train_tokenizer import train

# what may stand between words, within them, and what looks as if it did
PIECES = [
    *[
        "The",
        "café",
        "cafe\u0301",
        "don't",
        "3.5",
        "rivers",
        "RIVERS",
        "x" * 120,
        "_",
        "#",
        "##s",
        "[SEP]",
        "[MASK]",
        "…",
        "?!",
    ],
    *[
        "。",
        "”",
        "」",
        "《",
        "】",
        "ー",
        "・",
        "、",
        "我",
        "们公园",
        "㐀",
        "\U00020000",
        "한",
        "ß",
        "İ",
        "ﬁ",
        "\u0301",
        "\u200d",
    ],
    *["\u3000", "\u00a0", " ", " ", " ", "\n", "—", "–", "¡", "$", "€", "😀", "क्ष", "ไทย"],
]
DTYPE = np.dtype(np.uint16)


@pytest.fixture(scope="module")
def tokenizers(texts: list[str]) -> list[Tokenizer]:
    more = "rivers RIVERS _ # [ SEP ] ß e\u0301 ー ・ — 한"
    kinds = [(False, False), (True, True), (True, False)]
    return [train([*texts, more], 500, lowercase=lower, strip_accents=strip, min_frequency=1) for lower, strip in kinds]


@settings(max_examples=300, deadline=None)
@given(raw=st.lists(st.one_of(st.sampled_from(PIECES), st.characters()), max_size=25).map("".join))
def test_words_give_the_tokens_of_the_whole(tokenizers: list[Tokenizer], raw: str) -> None:
    text = clean(raw, Counts())
    for tokenizer in tokenizers:
        (words, word_ends), (wholes, whole_ends) = (next(iter(way(tokenizer, DTYPE)([text]))) for way in (by_words, as_wholes))
        assert words.tolist() == wholes.tolist()
        assert list(word_ends) == list(whole_ends)


def test_words_are_forgotten_and_found_again(
    tokenizers: list[Tokenizer], texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("electra.text.encode._REMEMBERED", 3)
    tokenizer = tokenizers[0]
    few, all_ = ([row.tolist() for row, _ in way(tokenizer, DTYPE)(texts * 2)] for way in (by_words, as_wholes))
    assert few == all_


def test_the_way_goes_by_the_tokenizer(tokenizers: list[Tokenizer]) -> None:
    assert all(map(cuts_at_words, tokenizers))
    whole, extended = (train(["the café"] * 3, 64) for _ in range(2))
    whole.backend.normalizer = normalizers.BertNormalizer(handle_chinese_chars=False)
    extended.backend.add_tokens(["New York"])
    assert not cuts_at_words(whole)
    assert not cuts_at_words(extended)


def test_rows_are_columns_of_a_shard(tokenizers: list[Tokenizer]) -> None:
    encode = Encoder(tokenizers[0])
    rows = encode(["The café. Nobody came.", "\u200d"])
    assert rows.schema == encode.schema
    first, second = rows.column("tokens").to_pylist()
    assert first == tokenizers[0].encode("The café. Nobody came.").ids
    assert second == [tokenizers[0].cls_id, tokenizers[0].sep_id]
    assert rows.column("sentence_ends").to_pylist() == [[4, len(first) - 1], []]
