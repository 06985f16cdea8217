"""Marked mentions: where the markers stand, whatever the mentions and the tokenizer, and what is cut."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra.contracts import Example
from electra.errors import ElectraError
from electra.tasks.markers import Argument, Markers, arguments
from electra.text.tokenizer import Tokenizer
from electra.text.train_tokenizer import Kind
from electra.text.train_tokenizer import train as train_tokenizer

TEXTS = ["Bill was born in Seattle @ # * ^", "person city 北京 上海 收购"] * 3
TOKENIZERS = {kind: train_tokenizer(TEXTS, 300, kind=kind, lowercase=kind != "bpe") for kind in get_args(Kind)}
WORDPIECE = TOKENIZERS["wordpiece"]
WORDS = st.sampled_from(["Bill", "was", "born", "in", "Seattle", "city"])


def spelled(
    tokenizer: Tokenizer, text: str, head: Argument, tail: Argument, max_length: int = 64
) -> tuple[list[str], str, str]:
    marked = Markers(tokenizer).encode(Example(text=text), head, tail, max_length)
    tokens = [tokenizer.token_text(int(token)) for token in marked.tokens]
    return tokens, tokens[marked.head], tokens[marked.tail]


def test_mentions_stand_between_marks_with_their_types_in_words() -> None:
    text = "Bill was born in Seattle"
    tokens, *opened = spelled(WORDPIECE, text, Argument(start=0, end=4, type="PERSON"), Argument(start=17, end=24, type="CITY"))
    assert " ".join(tokens).replace(" ##", "") == "[CLS] @ * person * bill @ was born in # ^ city ^ seattle # [SEP]"
    assert opened == ["@", "#"]
    plain, *opened = spelled(WORDPIECE, text, Argument(start=17, end=24), Argument(start=0, end=4))
    assert " ".join(plain).replace(" ##", "") == "[CLS] # bill # was born in @ seattle @ [SEP]"
    assert opened == ["@", "#"]


def test_tag_names_become_words() -> None:
    tokens, *_ = spelled(WORDPIECE, "Bill", Argument(start=0, end=4, type="PER"), Argument(start=0, end=4, type="born-in_City"))
    assert " ".join(tokens).replace(" ##", "") == "[CLS] @ * person * # ^ born in city ^ bill # @ [SEP]"


@pytest.mark.parametrize("model", TOKENIZERS)
def test_a_mention_begins_and_ends_with_a_token_in_any_tokenizer(model: str) -> None:
    tokenizer = TOKENIZERS[model]
    text = "北京收购Seattle上海"
    marked = Markers(tokenizer).encode(Example(text=text), Argument(start=2, end=4), Argument(start=5, end=8), 64)
    assert tokenizer.unk_id not in marked.tokens
    without = [token for token in marked.tokens.tolist() if token not in _marks(tokenizer)]
    assert tokenizer.decode(without).replace(" ", "").casefold() == text.casefold()
    assert int(marked.tokens[marked.head]) == tokenizer.encode(" @").ids[-2]
    assert int(marked.tokens[marked.tail]) == tokenizer.encode(" #").ids[-2]


def _marks(tokenizer: Tokenizer) -> set[int]:
    return {token for mark in Markers(tokenizer).marks for token in tokenizer.encode(f" {mark}").ids[1:-1]}


@st.composite
def marked_texts(draw: st.DrawFn) -> tuple[str, Argument, Argument]:
    """Words, and two mentions of whole words that may overlap, with or without types."""
    words = draw(st.lists(WORDS, min_size=1, max_size=60))
    starts = [sum(len(word) + 1 for word in words[:number]) for number in range(len(words) + 1)]
    pair = []
    for _ in range(2):
        first, last = sorted((draw(st.integers(0, len(words) - 1)), draw(st.integers(0, len(words) - 1))))
        kind = draw(st.sampled_from([None, "city", "person"]))
        pair.append(Argument(start=starts[first], end=starts[last + 1] - 1, type=kind))
    return " ".join(words), pair[0], pair[1]


@given(marked_texts(), st.integers(18, 200))
def test_markers_survive_every_cut_and_text_tokens_keep_their_order(case: tuple[str, Argument, Argument], room: int) -> None:
    text, head, tail = case
    markers = Markers(WORDPIECE)
    whole, cut = (markers.encode(Example(text=text), head, tail, length) for length in (10_000, room))
    assert whole.truncated == 0
    tokens, kept = whole.tokens.tolist(), cut.tokens.tolist()
    assert len(kept) == min(room, len(tokens))
    assert cut.truncated == len(tokens) - len(kept)
    for mark, argument in zip("@#*^", (head, tail) * 2, strict=True):
        number = WORDPIECE.encode(mark).ids[1]
        assert kept.count(number) == (2 if mark in "@#" or argument.type else 0)
    assert (kept[cut.head], kept[cut.tail]) == (WORDPIECE.encode("@").ids[1], WORDPIECE.encode("#").ids[1])
    assert kept.index(kept[cut.head]) == cut.head, "the opening one"
    rest = iter(tokens)
    assert all(token in rest for token in kept), "a subsequence"
    plain = markers.encode(Example(text=text), replace(head, type=None), replace(tail, type=None), 10_000).tokens.tolist()
    assert [token for token in plain if token not in _marks(WORDPIECE)] == WORDPIECE.encode(text).ids


def test_a_long_text_is_cut_at_its_ends_first_evenly() -> None:
    text = " ".join(["in"] * 20 + ["Bill", "was", "city"] + ["born"] * 20)
    head, tail = Argument(start=60, end=64), Argument(start=69, end=73)
    tokens, *_ = spelled(WORDPIECE, text, head, tail, max_length=17)
    assert tokens == [
        "[CLS]",
        "in",
        "in",
        "in",
        "in",
        "@",
        "bill",
        "@",
        "was",
        "#",
        "city",
        "#",
        "born",
        "born",
        "born",
        "born",
        "[SEP]",
    ]


def test_mentions_far_apart_lose_what_is_between_them() -> None:
    text = " ".join(["Bill", *["in"] * 50, "city"])
    marked = Markers(WORDPIECE).encode(Example(text=text), Argument(start=0, end=4), Argument(start=155, end=159), 18)
    tokens = [WORDPIECE.token_text(int(token)) for token in marked.tokens]
    assert tokens == ["[CLS]", "@", "bill", "@", *["in"] * 10, "#", "city", "#", "[SEP]"]
    assert marked.truncated == 40


def test_a_mention_longer_than_the_row_keeps_its_ends() -> None:
    text = " ".join(["Bill", *["was"] * 50, "born", "city"])
    marked = Markers(WORDPIECE).encode(Example(text=text), Argument(start=0, end=209), Argument(start=210, end=214), 16)
    tokens = [WORDPIECE.token_text(int(token)) for token in marked.tokens]
    assert tokens[:3] == ["[CLS]", "@", "bill"]
    assert tokens[-6:] == ["born", "@", "#", "city", "#", "[SEP]"]


def test_types_that_leave_no_room_are_an_error() -> None:
    with pytest.raises(ElectraError, match=r"E-D382 a\.tsv:3: the markers of the mentions take 26 tokens of 14"):
        Markers(WORDPIECE).encode(
            Example(text="Bill", where="a.tsv:3"), Argument(start=0, end=2, type="city " * 20), Argument(start=2, end=4), 16
        )


@pytest.mark.parametrize(
    ("value", "code"),
    [(None, "E-D380"), ((0, 5, None), "E-D381"), ((2, 2, None), "E-D381"), ((-1, 2, None), "E-D381"), ((0, 1, 7), "E-D381"),
     ([0, 1], "E-D381"), ("Bill", "E-D381")],
)  # fmt: skip
def test_mentions_that_are_missing_or_do_not_fit_are_named(value: object, code: str) -> None:
    example = Example(
        text="Bill", where="a.tsv:3", given={"head": [0, 4, None], "tail": value} if value else {"head": (0, 4, None)}
    )
    with pytest.raises(ElectraError, match=rf"{code} a\.tsv:3: .*tail") as caught:
        arguments(example)
    assert caught.value.code == code


def test_a_tokenizer_without_punctuation_is_refused_and_one_with_other_marks_takes_these() -> None:
    with pytest.raises(ElectraError, match="E-M325"):
        Markers(train_tokenizer(["a good film"] * 3, vocab_size=80))
    other = train_tokenizer(["a good film, ( ) ; : # !"] * 3, vocab_size=80)
    assert Markers(other).marks == ("#", "!", ";", ":")
