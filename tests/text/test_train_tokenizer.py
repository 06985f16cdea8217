from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra.errors import ElectraError
from electra.text.tokenizer import SPECIAL_TOKENS, Tokenizer
from electra.text.train_tokenizer import SMALLEST_VOCABULARY, Kind, train

KINDS = get_args(Kind)


@pytest.fixture(scope="module")
def trained(texts: list[str]) -> dict[Kind, Tokenizer]:
    """One of each kind."""
    return {kind: train(texts, 400, kind=kind, min_frequency=1) for kind in KINDS}


# -- training ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_vocabulary_begins_with_the_special_tokens(trained: dict[Kind, Tokenizer], kind: Kind) -> None:
    tokenizer = trained[kind]
    assert [tokenizer.token_text(token) for token in range(5)] == list(SPECIAL_TOKENS)
    assert tokenizer.special_ids == (0, 1, 2, 3, 4)
    assert sorted(tokenizer.backend.get_vocab().values()) == list(range(tokenizer.vocab_size))
    assert 200 < tokenizer.vocab_size <= 400
    # WordPiece's alphabet is handed to the library's trainer as special tokens; it must not stay special
    assert len(tokenizer.backend.get_added_tokens_decoder()) == 5


def test_training_is_the_same_in_every_process_whatever_its_hash_seed_and_threads(
    texts: list[str], trained: dict[Kind, Tokenizer]
) -> None:
    program = (
        "import sys, json; from electra.text.train_tokenizer import train; texts = json.load(sys.stdin);"
        f"print(*(train(texts, 400, kind=kind, min_frequency=1).fingerprint for kind in {KINDS}))"
    )
    printed = set()
    for seed, threads in (("0", "1"), ("1", "2"), ("2", "4")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads}
        command = [sys.executable, "-c", program]
        run = subprocess.run(
            command, input=json.dumps(texts), capture_output=True, text=True, check=True, env=environment
        )  # fmt: skip
        printed.add(run.stdout.strip())
    assert printed == {" ".join(trained[kind].fingerprint for kind in KINDS)}


def test_accents_and_case_are_kept_by_default(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("The café").ids) == "The café"


def test_lowercase_and_accent_stripping_are_separate(texts: list[str]) -> None:
    lower = train(texts, 400, min_frequency=1, lowercase=True)
    assert lower.decode(lower.encode("The CAFÉ").ids) == "the café"
    stripped = train(texts, 400, min_frequency=1, strip_accents=True)
    assert stripped.decode(stripped.encode("The café").ids) == "The cafe"


def test_chinese_characters_stand_alone(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("我们去公园").tokens[1:-1] == list("我们去公园")
    assert not any(token.startswith("##") and "\u4e00" <= token[2] <= "\u9fff" for token in tokenizer.backend.get_vocab())


def test_alphabet_leaves_room_and_keeps_the_frequent() -> None:
    characters = [chr(0x4E00 + number) for number in range(500)]
    texts = ["".join(character * (1000 - number) for number, character in enumerate(characters))]
    trained = train(texts, 205)
    assert [token for token in characters if trained.backend.token_to_id(token) is not None] == characters[:150]
    assert trained.vocab_size <= 205


def test_rare_characters_do_not_get_a_token() -> None:
    trained = train(["common words " * 20_000 + "龘龘"], 64)
    assert trained.backend.token_to_id("龘") is None
    assert trained.encode("common words").ids[1:-1] != [trained.unk_id] * 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [[], [""], [" \n"]])
def test_no_text_is_an_error(kind: Kind, texts: list[str]) -> None:
    with pytest.raises(ElectraError) as caught:
        train(texts, 300, kind=kind)
    assert caught.value.code == "E-D112"


@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_vocabulary_and_one_less(texts: list[str], kind: Kind) -> None:
    smallest = SMALLEST_VOCABULARY[kind]
    assert train(texts, smallest, kind=kind).vocab_size <= smallest
    with pytest.raises(ElectraError, match="too few tokens") as caught:
        train(texts, smallest - 1, kind=kind)
    assert caught.value.code == "E-C103"
    assert ("256 bytes" in caught.value.cause) == (kind == "bpe")


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_too_short_for_any_piece(kind: Kind) -> None:
    if kind == "unigram":
        with pytest.raises(ElectraError, match="no character occurs 2 times"):
            train(["ab"], 300, kind=kind)
    else:
        assert train(["ab"], 300, kind=kind).vocab_size <= 300


def test_wrong_arguments_of_training() -> None:
    with pytest.raises(ElectraError, match=r"E-C103.* 10 is too few"):
        train(["a"], 10)
    with pytest.raises(ElectraError, match="E-C105"):
        train(iter(["a"]), 64)


# -- what the kinds are for -----------------------------------------------------------------------------------------------


@given(text=st.text(max_size=40))
def test_bpe_loses_nothing(trained: dict[Kind, Tokenizer], text: str) -> None:
    (encoding,) = trained["bpe"].encode_documents([text.encode("utf-8", "replace").decode()])
    assert trained["bpe"].unk_id not in encoding.ids
    assert trained["bpe"].decode(encoding.ids) == unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())


def test_unigram_loses_line_breaks_and_what_is_outside_of_its_alphabet(trained: dict[Kind, Tokenizer]) -> None:
    tokenizer = trained["unigram"]
    text = "The café  opens\nat seven, 我们去公园。"
    (encoding,) = tokenizer.encode_documents([text])
    assert tokenizer.decode(encoding.ids) == " ".join(text.split())
    assert tokenizer.encode("龘").ids[1:-1] == [tokenizer.backend.token_to_id("\u2581"), tokenizer.unk_id]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_case_and_accents_of_the_other_kinds(texts: list[str], kind: Kind) -> None:
    folded = train(texts, 400, kind=kind, min_frequency=1, lowercase=True, strip_accents=True)
    assert folded.decode(folded.encode("The CAFÉ").ids) == "the cafe"
    kept = train(texts, 400, kind=kind, min_frequency=1)
    assert kept.decode(kept.encode("The cafe\u0301").ids) == "The café"


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_written_in_documents_are_text(trained: dict[Kind, Tokenizer], kind: Kind) -> None:
    (document,) = trained[kind].encode_documents(["a [MASK] b [SEP]"])
    assert not set(document.ids) & {2, 3, 4}


@pytest.mark.parametrize(("kind", "tokens"), [("wordpiece", ["The"]), ("bpe", ["The"]), ("unigram", ["\u2581The"])])
def test_the_mask_stands_for_a_word_and_its_space(trained: dict[Kind, Tokenizer], kind: Kind, tokens: list[str]) -> None:
    assert trained[kind].encode("The [MASK]").ids[1:-1] == [*map(trained[kind].backend.token_to_id, tokens), 4]


@pytest.mark.parametrize(("kind", "surfaces"), [("wordpiece", "rivers"), ("bpe", " rivers"), ("unigram", " rivers")])
def test_surfaces_of_tokens_are_their_text(trained: dict[Kind, Tokenizer], kind: Kind, surfaces: str) -> None:
    ids = trained[kind].encode_documents(["the rivers"])[0].ids
    text = "".join(map(trained[kind].surface, ids))
    assert text.endswith(surfaces)
    assert trained[kind].surface(4) == "[MASK]"
