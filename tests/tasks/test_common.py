"""What becomes of long texts: cut and counted, or windowed."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from electra.contracts import Encoded, Example
from electra.tasks.common import EncodedExamples, cut_windows, encode_text, joined
from electra.text.train_tokenizer import train as train_tokenizer

WORDS = ["a", "good", "film", "bad", "play", "indeed", "very"]
TOKENIZER = train_tokenizer([" ".join(WORDS)] * 4, vocab_size=80)


def texts(most: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(WORDS), max_size=most).map(" ".join)


@given(text=texts(30), pair=st.none() | texts(30), max_length=st.integers(8, 40))
def test_cutting_keeps_the_beginning_of_each_text_and_counts_the_rest(text: str, pair: str | None, max_length: int) -> None:
    encoded = encode_text(TOKENIZER, Example(text=text, pair=pair), max_length)
    full = encode_text(TOKENIZER, Example(text=text, pair=pair), 10_000)
    assert full.truncated == 0
    assert len(encoded.tokens) == min(len(full.tokens), max_length)
    assert encoded.truncated == len(full.tokens) - len(encoded.tokens)
    kept: list[int] = []
    for segment in (0, 1) if pair is not None else (0,):
        part, whole = encoded.tokens[encoded.types == segment], full.tokens[full.types == segment]
        assert part[-1] == TOKENIZER.sep_id
        assert part[:-1].tolist() == whole[: len(part) - 1].tolist()
        if len(part) < len(whole):
            kept.append(len(part) - 1 - (segment == 0))
    assert encoded.tokens[0] == TOKENIZER.cls_id
    if pair is not None:
        assert all(count >= (max_length - 3) // 2 for count in kept), "a text was cut below half of the room"


@given(content=st.integers(0, 400), max_length=st.integers(8, 64))
def test_windows_lose_nothing_and_show_context(content: int, max_length: int) -> None:
    tokens = np.array([-1, *range(content), -2], dtype=np.int64)
    whole = Encoded(tokens=tokens, types=np.zeros_like(tokens), targets={"place": np.arange(len(tokens))})
    windows = cut_windows(whole, max_length)
    for name in ("tokens", "place"):
        parts = [torch.from_numpy(row.tokens if name == "tokens" else row.targets["place"]) for row in windows]
        assert joined(windows, parts).tolist() == (tokens if name == "tokens" else whole.targets["place"]).tolist()
    margin = (max_length - 2) // 4
    for window in windows:
        row = window.tokens
        assert len(row) == len(window.types) == len(window.targets["keep"]) <= max_length
        assert (row[0], row[-1]) == (-1, -2)
        for place in np.flatnonzero(window.targets["keep"]):
            if 0 <= (token := row[place]) < content:
                assert place - 1 >= min(margin, token)
                assert len(row) - 2 - place >= min(margin, content - 1 - token)


def test_encoded_examples_tell_their_lengths() -> None:
    items = [encode_text(TOKENIZER, Example(text=text), 16) for text in ("", "good", "a good film")]
    examples = EncodedExamples(items)
    assert len(examples) == 3
    assert examples.lengths.tolist() == [len(item.tokens) for item in items]
    assert examples[2] is items[2]
    assert EncodedExamples([]).lengths.dtype == np.int64


SPECIALS = ["[SEP]", "[MASK]", "[CLS]", "[PAD]", "[UNK]", "[sep]"]


@given(text=texts(12), pair=st.none() | texts(12))
def test_the_template_is_the_usual_one(text: str, pair: str | None) -> None:
    encoded, usual = encode_text(TOKENIZER, Example(text=text, pair=pair), 100), TOKENIZER.encode(text, pair)
    assert (encoded.tokens.tolist(), encoded.types.tolist()) == (usual.ids, usual.type_ids)


@given(words=st.lists(st.sampled_from(WORDS + SPECIALS), max_size=12), pair=st.none() | st.sampled_from(SPECIALS))
def test_special_tokens_that_are_written_out_are_text(words: list[str], pair: str | None) -> None:
    encoded = encode_text(TOKENIZER, Example(text=" ".join(words), pair=pair), 100)
    tokens, count = encoded.tokens.tolist(), 1 if pair is None else 2
    assert (tokens.count(TOKENIZER.cls_id), tokens.count(TOKENIZER.sep_id)) == (1, count)
    assert not {TOKENIZER.mask_id, TOKENIZER.pad_id} & set(tokens)
    assert (tokens[0], tokens[-1], int(encoded.types[-1])) == (TOKENIZER.cls_id, TOKENIZER.sep_id, count - 1)
