from __future__ import annotations

import numpy as np
import pytest
import tokenizers as hf
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from electra.text.boundaries import word_starts
from electra.text.tokenizer import Tokenizer

TEXTS = [
    "The café opens (today) at seven.\nNobody 中国人 came; 我们去公园散步。",
    "สวัสดีครับ is Thai, かな is not.",
    "don't — 12345 x\u3000y",
]


def cut(text: str, encoding: hf.Encoding) -> list[str]:
    """The words, as pieces of the text."""
    starts = [start for (start, _), begins in zip(encoding.offsets, word_starts(text, encoding), strict=True) if begins]
    return [text[start:end].strip(" \u3000") for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def bytes_alone() -> hf.Tokenizer:
    """Byte-level, a token a byte."""
    backend = hf.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator([], trainers.BpeTrainer(vocab_size=256, initial_alphabet=alphabet, show_progress=False))
    return backend


def characters_alone() -> hf.Tokenizer:
    """Unigram, a token a character, `▁` before words."""
    characters = sorted(set("▁" + "".join(TEXTS)))
    backend = hf.Tokenizer(models.Unigram([("[UNK]", 0.0), *((character, -1.0) for character in characters)], 0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return backend


@pytest.mark.parametrize("backend", [bytes_alone(), characters_alone()], ids=["bytes", "characters"])
def test_words_of_small_pieces(backend: hf.Tokenizer) -> None:
    words = cut(TEXTS[0], backend.encode(TEXTS[0]))
    assert " ".join(words) == "The café opens ( today ) at seven . \n Nobody 中 国 人 came ; 我 们 去 公 园 散 步 。"
    assert " ".join(cut(TEXTS[2], backend.encode(TEXTS[2]))) == "don ' t — 12345 x y"


def test_marks_stay_with_their_letter_and_unspaced_scripts_have_a_word_a_token() -> None:
    words = cut(TEXTS[1], bytes_alone().encode(TEXTS[1]))
    assert words == ["ส", "วั", "ส", "ดี", "ค", "รั", "บ", "is", "Thai", ",", "か", "な", "is", "not", "."]


def test_pieces_of_several_characters_are_words_in_chinese_only() -> None:
    pieces = ["▁", "公园", "散步", "▁open", "ed", "."]
    backend = hf.Tokenizer(models.Unigram([("[UNK]", 0.0), *((piece, -1.0) for piece in pieces)], 0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    assert cut("opened 公园散步.", backend.encode("opened 公园散步.")) == ["opened", "公园", "散步", "."]


def test_special_tokens_are_words_of_their_own(tokenizer: Tokenizer) -> None:
    encoding = tokenizer.encode("heldword")
    assert len(encoding) > 4
    assert word_starts("heldword", encoding).tolist() == [True, True, *[False] * (len(encoding) - 3), True]
    assert word_starts("", tokenizer.encode("")).tolist() == [True, True]
    assert word_starts("", tokenizer.encode_documents([""])[0]).shape == (0,)


@given(text=st.text(st.sampled_from("abcé 中国,.!'\"$-（。\n\t1 Ωж"), max_size=60))
def test_wordpiece_begins_words_where_its_word_number_changes(tokenizer: Tokenizer, text: str) -> None:
    (encoding,) = tokenizer.encode_documents([text])
    numbers = np.array([-1, *(number for number in encoding.word_ids if number is not None)])
    assert word_starts(text, encoding).tolist() == (np.diff(numbers) > 0).tolist()


@pytest.mark.parametrize("backend", [bytes_alone(), characters_alone()], ids=["bytes", "characters"])
@given(text=st.text(max_size=40))
def test_any_text_has_a_word_at_its_first_token(backend: hf.Tokenizer, text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    starts = word_starts(text, backend.encode(text))
    assert starts.shape == (len(backend.encode(text)),)
    assert not len(starts) or starts[0]
