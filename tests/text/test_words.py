from __future__ import annotations

import importlib.util
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tokenizers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, trainers

from electra.errors import ElectraError, ExitCode
from electra.text.build import build
from electra.text.corpus import Corpus
from electra.text.tokenizer import SPECIAL_TOKENS, Tokenizer, load
from electra.text.words import SegmentedWords, continues_word, unspaced

TEXTS = [
    "The naïve café serves crêpes, 3.5 euros each; don't hurry!",
    "Привет, мир: новости и погода.",
    "今天天气很好，我们去公园散步。A站和B站",
]


def byte_level(texts: list[str], vocab_size: int) -> hf.Tokenizer:
    backend = hf.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def unigram(texts: list[str], vocab_size: int) -> hf.Tokenizer:
    backend = hf.Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), unk_token="[UNK]", show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return backend


@pytest.fixture(scope="module", params=["byte-level", "unigram"])
def spaced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer that marks spaces, of a few pieces more than single characters or bytes; Chinese is in single ones."""
    folder = tmp_path_factory.mktemp("tokenizer")
    backend = byte_level(TEXTS[:2] * 3, 300) if request.param == "byte-level" else unigram(TEXTS * 3, 90)
    backend.save(str(folder / "tokenizer.json"))
    return load(folder)


def words(tokenizer: Tokenizer, text: str, starts: np.ndarray | None = None) -> list[str]:
    """`text` in words, put together from its tokens; a character of several tokens belongs to its first one."""
    (encoding,) = tokenizer.encode_documents([text])
    begins = ~continues_word(tokenizer)[encoding.ids] if starts is None else starts[1:-1]
    places = {0, *(start for (start, _), begin in zip(encoding.offsets, begins, strict=True) if begin), len(text)}
    return [word for start, stop in pairwise(sorted(places)) if (word := text[start:stop].strip())]


# -- by the vocabulary --------------------------------------------------------------------------------------------------


def test_wordpiece_marks_what_goes_on(tokenizer: Tokenizer) -> None:
    goes_on = continues_word(tokenizer)
    texts = [tokenizer.token_text(token) for token in range(tokenizer.vocab_size)]
    assert {text for text, on in zip(texts, goes_on, strict=True) if on} == {text for text in texts if text.startswith("##")}
    assert not goes_on[list(tokenizer.special_ids)].any()
    assert words(tokenizer, "The café opens.") == ["The", "café", "opens", "."]


def test_marks_of_spaces_say_what_begins(spaced: Tokenizer) -> None:
    assert words(spaced, TEXTS[0])[:5] == ["The", "naïve", "café", "serves", "crêpes"]
    assert words(spaced, TEXTS[1]) == ["Привет", ",", "мир", ":", "новости", "и", "погода", "."]
    assert words(spaced, "don't")[0] == "don"
    assert not continues_word(spaced)[list(spaced.special_ids)].any()


def test_every_character_is_a_word_where_there_are_no_spaces(spaced: Tokenizer) -> None:
    assert words(spaced, "公园散步。天气") == list("公园散步。天气")  # byte-level: three tokens a character
    texts = [spaced.token_text(token) for token in range(spaced.vocab_size)]
    assert unspaced(spaced)[spaced.encode(TEXTS[2]).ids].mean() > 0.1
    assert not unspaced(spaced)[[texts.index(text) for text in ("a", "e", ".")]].any()


def test_without_any_mark_every_token_is_a_word() -> None:
    vocabulary = {token: number for number, token in enumerate([*SPECIAL_TOKENS, "a", "b", "天"])}
    backend = hf.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer = Tokenizer(backend, pad_id=0, unk_id=1, cls_id=2, sep_id=3, mask_id=4)
    assert not continues_word(tokenizer).any()
    assert unspaced(tokenizer).tolist() == [False] * 7 + [True]


def test_chinese_tokens_are_known_as_unspaced(tokenizer: Tokenizer) -> None:
    found = unspaced(tokenizer)
    assert found[tokenizer.encode("我们去公园").ids[1:-1]].all()
    assert not found[tokenizer.encode("The rivers rose.").ids].any()


# -- by a segmenter -----------------------------------------------------------------------------------------------------

needs_jieba = pytest.mark.skipif(importlib.util.find_spec("rjieba") is None, reason="rjieba is not installed")


def segmented(tokenizer: Tokenizer, text: str) -> list[str]:
    (encoding,) = tokenizer.encode_documents([text])
    tokens = np.array([tokenizer.cls_id, *encoding.ids, tokenizer.sep_id])
    return words(tokenizer, text, SegmentedWords(tokenizer, "jieba").starts(text, tokens, encoding.offsets))


@needs_jieba
def test_a_segmenter_joins_characters(tokenizer: Tokenizer) -> None:
    assert segmented(tokenizer, "我们去公园散步。") == ["我们", "去", "公园", "散步", "。"]
    assert segmented(tokenizer, "The café, 孩子们") == ["The", "café", ",", "孩子", "们"]


@needs_jieba
def test_a_segmenter_joins_bytes_and_pieces(spaced: Tokenizer) -> None:
    assert segmented(spaced, "我们去公园散步。") == ["我们", "去", "公园", "散步", "。"]
    assert segmented(spaced, "Привет, мир") == ["Привет", ",", "мир"]  # jieba alone takes every letter for a word


@needs_jieba
@settings(max_examples=60, deadline=None)
@given(text=st.text(st.sampled_from("天气很好我们公园 aé。,\n1.Пр한글คน𠀀😀"), max_size=30))
def test_a_segmenter_only_joins(tokenizer: Tokenizer, text: str) -> None:
    (encoding,) = tokenizer.encode_documents([text])
    tokens = np.array([tokenizer.cls_id, *encoding.ids, tokenizer.sep_id])
    starts = SegmentedWords(tokenizer, "jieba").starts(text, tokens, encoding.offsets)
    assert len(starts) == len(tokens)
    assert starts[[0, -1]].all()
    assert not (starts & continues_word(tokenizer)[tokens]).any()


@needs_jieba
@pytest.mark.parametrize("shard_tokens", [1, 37, 10_000])
def test_a_corpus_keeps_what_the_segmenter_said(
    texts: list[str], tokenizer: Tokenizer, tmp_path: Path, shard_tokens: int
) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(texts), encoding="utf-8")
    build([tmp_path / "a.txt"], tokenizer, tmp_path / "plain", shard_tokens=shard_tokens)
    build([tmp_path / "a.txt"], tokenizer, tmp_path / "out", segmenter="jieba", shard_tokens=shard_tokens)
    plain, corpus = Corpus(tmp_path / "plain"), Corpus(tmp_path / "out")
    assert (plain.manifest.segmenter, corpus.manifest.segmenter) == (None, "jieba")
    assert corpus.fingerprint != plain.fingerprint
    corpus.verify()
    joined = 0
    for number, shard in enumerate(corpus.shards):
        table = pa.ipc.open_file(corpus.path / shard.file).read_all()
        assert table.schema.field("word_starts").type == pa.list_(pa.bool_())
        expected = np.array([start for document in table["word_starts"].to_pylist() for start in document])
        stream = corpus.tokens(number, 0, shard.tokens)
        last = shard.tokens
        for start, stop in [(0, last), (3, 4), (5, min(23, last)), (8, min(16, last)), (last - 1, last), (2, 2)]:
            found = corpus.word_starts(number, start, stop)
            assert found.dtype == np.bool_
            assert found.tolist() == expected[start:stop].tolist()
            ours = plain.word_starts(number, start, stop)
            assert ours.tolist() == (~continues_word(tokenizer)[stream[start:stop]]).tolist()
        joined += int((plain.word_starts(number, 0, shard.tokens) & ~expected).sum())
    assert joined > 20


def test_a_segmenter_that_is_not_installed_is_named(
    texts: list[str], tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rjieba", None)
    (tmp_path / "a.txt").write_text(texts[0], encoding="utf-8")
    with pytest.raises(ElectraError, match=r"E-R110 segmenter jieba: the package rjieba is not installed; pip") as caught:
        build([tmp_path / "a.txt"], tokenizer, tmp_path / "out", segmenter="jieba")
    assert caught.value.exit_code == ExitCode.RESOURCES
    assert not (tmp_path / "out").exists()
