from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
import tokenizers as hf
from hypothesis import given
from hypothesis import strategies as st

from electra.errors import ElectraError, ExitCode
from electra.text.tokenizer import SPECIAL_TOKENS, Tokenizer, load
from electra.text.train_tokenizer import Kind, train

SENTENCES = [
    "The café opens at seven; NOBODY came.",
    "今天天气很好，我们去公园散步。",
    "unseen: ЖЫШ 龘 🙂 x" + "y" * 200,
    "[CLS] written [MASK] out [SEP]",
    "cafe\u0301 İstanbul ß",
    '(in brackets), "quoted"\nand  spaced ',
    "",
]

VOCABULARY = [*SPECIAL_TOKENS, "the", "cafe", "caf", "##é", "opens", "##s", "中", "国"]


# -- encoding ------------------------------------------------------------------------------------------------------------


def test_specials_types_offsets_words(tokenizer: Tokenizer) -> None:
    encoding = tokenizer.encode("The bridges", "held.")
    assert encoding.ids[0] == tokenizer.cls_id
    assert [place for place, token in enumerate(encoding.ids) if token == tokenizer.sep_id][-1] == len(encoding) - 1
    first = encoding.ids.index(tokenizer.sep_id)
    assert encoding.type_ids == [0] * (first + 1) + [1] * (len(encoding) - first - 1)
    assert encoding.offsets[1] == (0, 3)
    assert encoding.word_ids[0] is None
    assert encoding.word_ids[1] == 0


def test_special_tokens_in_a_document_are_text(tokenizer: Tokenizer) -> None:
    (document,) = tokenizer.encode_documents(["[CLS] a [MASK] b [SEP]"])
    assert not set(document.ids) & {tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id}
    assert tokenizer.encode("a [MASK] b").ids.count(tokenizer.mask_id) == 1


@given(text=st.text(st.characters(categories=["L", "P", "Z", "M", "Cs"]), max_size=50))
def test_offsets_stay_within_any_text(tokenizer: Tokenizer, text: str) -> None:
    encoding = tokenizer.encode(text)
    assert all(0 <= start <= end <= len(text) for start, end in encoding.offsets)


def test_documents_and_single_texts_have_the_same_tokens(tokenizer: Tokenizer, texts: list[str]) -> None:
    documents = tokenizer.encode_documents(texts)
    assert [document.ids for document in documents] == [tokenizer.encode(text).ids[1:-1] for text in texts]


def test_a_megabyte_without_a_space_is_one_unknown_word(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("x" * 1_000_000).ids[1:-1] == [tokenizer.unk_id]


def test_token_outside_of_the_vocabulary(tokenizer: Tokenizer) -> None:
    with pytest.raises(IndexError):
        tokenizer.token_text(tokenizer.vocab_size)


# -- saving and loading --------------------------------------------------------------------------------------------------


def test_saved_and_loaded_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = load(path)
        assert loaded.fingerprint == tokenizer.fingerprint
        assert loaded.special_ids == tokenizer.special_ids
        assert loaded.vocab_size == tokenizer.vocab_size


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize(("lowercase", "strip_accents"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("model_type", [None, "electra", "modernbert"])
def test_transformers_gives_the_same_ids(
    texts: list[str], tmp_path: Path, kind: Kind, lowercase: bool, strip_accents: bool, model_type: str | None
) -> None:
    transformers = pytest.importorskip("transformers")
    ours = train(texts, 300, kind=kind, min_frequency=1, lowercase=lowercase, strip_accents=strip_accents)
    ours.save(tmp_path)
    if model_type:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in SENTENCES:
        assert theirs(text)["input_ids"] == ours.encode(text).ids
    pair = theirs("The café", "opens")
    assert pair["input_ids"] == ours.encode("The café", "opens").ids
    if model_type == "electra":  # ModernBERT knows no token types
        assert pair["token_type_ids"] == ours.encode("The café", "opens").type_ids
    ids = (theirs.pad_token_id, theirs.unk_token_id, theirs.cls_token_id, theirs.sep_token_id, theirs.mask_token_id)
    assert ids == ours.special_ids
    assert len(theirs) == ours.vocab_size
    plain = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert plain(SENTENCES[0])["input_ids"] == ours.encode(SENTENCES[0]).ids


def test_loading_sets_specials_and_removes_cutting(tokenizer: Tokenizer, tmp_path: Path) -> None:
    bare = hf.Tokenizer.from_str(tokenizer.backend.to_str())
    bare.post_processor = None
    bare.enable_truncation(4)
    bare.enable_padding(length=50)
    bare.save(str(tmp_path / "tokenizer.json"))
    loaded = load(tmp_path)
    assert loaded.encode("The café on the corner").ids == tokenizer.encode("The café on the corner").ids
    assert loaded.fingerprint == tokenizer.fingerprint


def write_vocabulary(directory: Path, tokens: list[str], config: dict[str, object] | None = None, newline: str = "\n") -> None:
    (directory / "vocab.txt").write_text(newline.join(tokens) + newline, encoding="utf-8", newline="")
    if config is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_bert_vocabulary(tmp_path: Path, newline: str) -> None:
    write_vocabulary(tmp_path, VOCABULARY, {"do_lower_case": False}, newline)
    for path in (tmp_path, tmp_path / "vocab.txt"):
        loaded = load(path)
        assert loaded.vocab_size == len(VOCABULARY)
        assert loaded.encode("the café opens 中国").tokens == ["[CLS]", "the", "caf", "##é", "opens", "中", "国", "[SEP]"]
        assert loaded.encode("The").ids[1] == loaded.unk_id


@pytest.mark.parametrize(
    ("config", "extra", "tokens"),
    [
        (None, [], ["the", "cafe"]),
        (None, ["[unused0]", "Xy"], ["[UNK]", "caf", "##é"]),
        ({"do_lower_case": True}, ["Xy"], ["the", "cafe"]),
        ({"do_lower_case": True, "strip_accents": False}, [], ["the", "caf", "##é"]),
        ({"do_lower_case": False, "strip_accents": True}, [], ["[UNK]", "cafe"]),
    ],
)
def test_casing_of_a_bert_vocabulary(
    tmp_path: Path, config: dict[str, object] | None, extra: list[str], tokens: list[str]
) -> None:
    write_vocabulary(tmp_path, [*VOCABULARY, *extra], config)
    assert load(tmp_path).encode("The café").tokens[1:-1] == tokens


def test_missing_special_tokens_are_named(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, [token for token in VOCABULARY if token not in ("[SEP]", "[MASK]")])
    with pytest.raises(ElectraError, match=r"no \[SEP\] \[MASK\] in the vocabulary") as caught:
        load(tmp_path)
    assert caught.value.code == "E-D111"


def test_a_directory_that_cannot_be_written(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ElectraError, match="E-R002") as caught:
        tokenizer.save(tmp_path / "file" / "out")
    assert caught.value.exit_code == ExitCode.RESOURCES


def test_nothing_to_load(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        with pytest.raises(ElectraError, match="E-C104") as caught:
            load(path)
        assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b"[]"),
        ("tokenizer.json", b"\xff"),
        ("vocab.txt", b"\xff"),
        ("vocab.txt", b"[PAD]\n[UNK]\n[PAD]\n"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ElectraError, match=name.removesuffix(".txt")) as caught:
        load(tmp_path / name)
    assert caught.value.code == "E-D110"


def test_fingerprint_follows_the_content(texts: list[str], tokenizer: Tokenizer) -> None:
    assert train(texts, 400, min_frequency=1).fingerprint == tokenizer.fingerprint
    assert train(texts, 400, min_frequency=1, lowercase=True).fingerprint != tokenizer.fingerprint
    assert train(texts[:4], 400, min_frequency=1).fingerprint != tokenizer.fingerprint
