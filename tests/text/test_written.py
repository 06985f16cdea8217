"""Text from tokens: spaces and characters, at once and while the tokens come."""

from __future__ import annotations

import pytest

from electra.text.tokenizer import Tokenizer
from electra.text.train_tokenizer import train
from electra.text.written import Growing

TEXTS = ["the reader opens the wooden gate, slowly.", "老师打开了木头的大门，没有说话。2024年5月3日", "他说 hello 然后走了😀"]


@pytest.fixture(scope="module", params=["wordpiece", "bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return train(TEXTS * 4, 400, kind=request.param)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode_documents([text])[0].ids
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("given", [0, 1, 3])
def test_what_grows_is_the_text_and_never_half_a_character(tokenizer: Tokenizer, given: int) -> None:
    for text in TEXTS:
        ids = tokenizer.encode_documents([text])[0].ids
        before = tokenizer.decode(ids[:given])
        if before.endswith("\ufffd"):
            continue
        growing = Growing(tokenizer, ids[:given])
        pieces = [growing.add(token) for token in ids[given:]]
        assert "".join([before, *pieces]) == text
        assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_of_several_tokens_waits_for_the_last() -> None:
    tokenizer = train(["plain letters only"] * 4, 300, kind="bpe")
    ids = tokenizer.encode_documents(["a门b"])[0].ids
    assert len(ids) > 3
    growing = Growing(tokenizer, [])
    pieces = [growing.add(token) for token in ids]
    assert "".join(pieces) == "a门b"
    assert pieces.count("") == len(ids) - 3


def test_spaces_between_words_of_alphabets_stay_beside_chinese() -> None:
    tokenizer = train(["用 Python 写 3 行 , 好"] * 4, 100)
    ids = tokenizer.encode_documents(["用Python写3行,好"])[0].ids
    assert tokenizer.decode(ids).lower() == "用 python 写3行,好"
