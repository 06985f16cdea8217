from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import tokenizers as hf
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from electra.errors import ElectraError
from electra.text.extend_tokenizer import Extended, extend, pieces_of_new_tokens
from electra.text.tokenizer import SPECIAL_TOKENS, Tokenizer, complete, load
from electra.text.train_tokenizer import Kind, train

KINDS = get_args(Kind)
DOMAIN = ["the cardiologist reads the electrocardiogram, the cardiologist waits."] * 5 + ["a stent opens the artery."] * 8


@pytest.fixture(scope="module")
def general(texts: list[str]) -> dict[Kind, Tokenizer]:
    return {kind: train(texts, 400, kind=kind, min_frequency=1) for kind in KINDS}


@pytest.fixture(scope="module")
def extended(general: dict[Kind, Tokenizer]) -> dict[Kind, Extended]:
    return {kind: extend(tokenizer, DOMAIN, 4) for kind, tokenizer in general.items()}


@pytest.mark.parametrize(("kind", "space"), [("wordpiece", ""), ("bpe", "\u0120"), ("unigram", "\u2581")])
def test_words_that_save_the_most_tokens_are_added_behind_the_old_ones(
    general: dict[Kind, Tokenizer], extended: dict[Kind, Extended], kind: Kind, space: str
) -> None:
    old, new = general[kind], extended[kind]
    assert new.tokenizer.vocab_size == old.vocab_size + 4
    tokens = [new.tokenizer.token_text(old.vocab_size + number) for number in range(4)]
    assert tokens == [word.token for word in new.words]
    assert set(tokens[:2]) == {f"{space}cardiologist", f"{space}electrocardiogram"}
    saved = [word.count * (len(word.pieces) - 1) for word in new.words]
    assert saved == sorted(saved, reverse=True)
    assert new.tokens_before == sum(map(len, old.encode_documents(DOMAIN)))
    assert new.tokens_before - new.tokens_after >= sum(saved)
    encoding = new.tokenizer.encode("we see the cardiologist, electrocardiogram")
    assert {f"{space}cardiologist", f"{space}electrocardiogram"} <= set(encoding.tokens)
    assert new.tokenizer.decode(encoding.ids[-4:]).split() == ["cardiologist,", "electrocardiogram"]


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(st.sampled_from("the carb\u00e9om,. 我们é\n"), max_size=60))
def test_texts_without_new_words_have_their_old_tokens(
    general: dict[Kind, Tokenizer], extended: dict[Kind, Extended], kind: Kind, text: str
) -> None:
    (old,), (new,) = general[kind].encode_documents([text]), extended[kind].tokenizer.encode_documents([text])
    assert max(new.ids, default=0) >= general[kind].vocab_size or new.ids == old.ids


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_are_what_the_old_tokenizer_cuts_a_new_word_into(
    general: dict[Kind, Tokenizer], extended: dict[Kind, Extended], kind: Kind
) -> None:
    old, new = general[kind], extended[kind]
    pieces = pieces_of_new_tokens(old, new.tokenizer)
    assert pieces is not None
    assert [tuple(map(old.token_text, own)) for own in pieces] == [word.pieces for word in new.words]
    middle = old.encode_documents(["a cardiologist"])[0].ids
    assert pieces[[word.token[-12:] for word in new.words].index("cardiologist")] == middle[-len(pieces[0]) :] or kind == "bpe"


@pytest.mark.parametrize("kind", KINDS)
def test_an_extension_can_be_saved_extended_again_and_loaded_by_transformers(
    general: dict[Kind, Tokenizer], extended: dict[Kind, Extended], kind: Kind, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    once = extended[kind].tokenizer
    once.save(tmp_path)
    assert load(tmp_path).fingerprint == once.fingerprint
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in [*DOMAIN[::6], "The cardiologist\n[MASK] x"]:
        assert theirs(text)["input_ids"] == once.encode(text).ids
    twice = extend(load(tmp_path), ["unseen bicycles everywhere"] * 5, 2).tokenizer
    assert pieces_of_new_tokens(once, twice) is not None
    pieces = pieces_of_new_tokens(general[kind], twice)
    assert pieces is not None
    assert len(pieces) == 6


def test_the_same_texts_give_the_same_extension(general: dict[Kind, Tokenizer], extended: dict[Kind, Extended]) -> None:
    for kind in KINDS:
        assert extend(general[kind], DOMAIN, 4).tokenizer.fingerprint == extended[kind].tokenizer.fingerprint


def test_unknown_words_and_characters_are_added(general: dict[Kind, Tokenizer]) -> None:
    new = extend(general["wordpiece"], ["龘 жук"] * 6, 5)
    assert [word.token for word in new.words] == ["жук", "龘"]
    assert new.words[0].pieces == ("[UNK]",)
    assert general["wordpiece"].unk_id not in new.tokenizer.encode("龘жук").ids[-2:]


def test_runs_without_spaces_numbers_and_rare_words_are_no_words(general: dict[Kind, Tokenizer]) -> None:
    for kind in KINDS:
        with pytest.raises(ElectraError, match=r"E-D113.* 5 times"):
            extend(general[kind], ["我们去公园散步 123456"] * 9 + ["thermometer"] * 4, 5)


def changed(tokenizer: Tokenizer, change: Any) -> Tokenizer:
    tree = json.loads(tokenizer.backend.to_str())
    change(tree)
    return complete(hf.Tokenizer.from_str(json.dumps(tree)), "test")


def test_other_tokenizers_are_no_extensions(general: dict[Kind, Tokenizer], extended: dict[Kind, Extended]) -> None:
    old, new = general["wordpiece"], extended["wordpiece"].tokenizer
    assert pieces_of_new_tokens(old, old) is None
    assert pieces_of_new_tokens(new, old) is None
    assert pieces_of_new_tokens(old, extended["bpe"].tokenizer) is None
    assert pieces_of_new_tokens(old, changed(new, lambda tree: tree["normalizer"].update(lowercase=True))) is None

    def swap(tree: dict[str, Any]) -> None:
        vocabulary = tree["model"]["vocab"]
        vocabulary["the"], vocabulary["cardiologist"] = vocabulary["cardiologist"], vocabulary["the"]

    assert pieces_of_new_tokens(old, changed(new, swap)) is None
    probable = changed(extended["unigram"].tokenizer, lambda tree: tree["model"]["vocab"][9].__setitem__(1, -0.5))
    assert pieces_of_new_tokens(general["unigram"], probable) is None


def test_kinds_that_cannot_be_extended(texts: list[str], general: dict[Kind, Tokenizer]) -> None:
    whole = hf.Tokenizer(models.WordLevel({token: number for number, token in enumerate(SPECIAL_TOKENS)}, unk_token="[UNK]"))
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ElectraError, match=r"E-D114.*WordLevel"):
        extend(complete(whole, "test"), DOMAIN, 5)
    characters = hf.Tokenizer(models.BPE({token: number for number, token in enumerate([*SPECIAL_TOKENS, "a"])}, []))
    with pytest.raises(ElectraError, match=r"E-D114.*byte-level"):
        extend(complete(characters, "test"), DOMAIN, 5)

    def orphan(tree: dict[str, Any]) -> None:
        tree["model"]["vocab"]["\u0120orphan"] = len(tree["model"]["vocab"])

    with pytest.raises(ElectraError, match=r"E-D114.*merges"):
        extend(changed(general["bpe"], orphan), DOMAIN, 5)
    added = changed(general["unigram"], lambda tree: None)
    added.backend.add_tokens(["addedword"])
    with pytest.raises(ElectraError, match=r"E-D114.*numbers"):
        extend(added, DOMAIN, 5)


def test_tokens_beside_the_vocabulary_keep_their_numbers(general: dict[Kind, Tokenizer]) -> None:
    for kind in ("wordpiece", "bpe"):
        added = changed(general[kind], lambda tree: None)
        added.backend.add_tokens(["addedword"])
        new = extend(added, DOMAIN, 1)
        assert new.tokenizer.backend.token_to_id("addedword") == general[kind].vocab_size
        assert new.tokenizer.vocab_size == general[kind].vocab_size + 2
        assert new.tokenizer.encode("addedword").ids[1:-1] == [general[kind].vocab_size]


def test_at_least_one_word(general: dict[Kind, Tokenizer]) -> None:
    with pytest.raises(ElectraError, match="E-C131"):
        extend(general["bpe"], DOMAIN, 0)
