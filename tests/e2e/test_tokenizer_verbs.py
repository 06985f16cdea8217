"""`electra tokenizer` as a user types it: three kinds, samples, inspection, extension."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Verb = Callable[..., Any]


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_any_kind_goes_through_corpus_training_and_prediction(
    place: Any, done: Callable[..., str], tmp_path: Path, kind: str
) -> None:
    tok, corpus, run = tmp_path / "tok", tmp_path / "corpus", tmp_path / "run"
    told = done("tokenizer", "train", place.text, "--kind", kind, "--vocab-size", 300, "--out", tok)
    assert told.startswith(f"{tok}: 300 entries, {kind}\nused: ")
    assert "documents.txt: " in told
    assert "(100.0%)" in told
    done("corpus", "build", place.text, "--tokenizer", tok, "--out", corpus)
    done("pretrain", "test-modern", f"corpus.path={corpus}", f"run.dir={run}", "stop.steps=2")
    filled = done("predict", run / "model" / "generator", "--task", "fill-mask", stdin=b"the dog is [MASK].")
    assert '"sequence": "the dog is' in filled


def test_a_sample_says_what_it_used(place: Any, done: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_text("a small file\n", encoding="utf-8")
    options = ["--sample-bytes", 2000, "--vocab-size", 100, "--out", tmp_path / "tok"]
    told = done("tokenizer", "train", place.text, tmp_path / "small.txt", *options)
    assert f"{tmp_path / 'small.txt'}: 12 of 12 bytes (100.0%)" in told
    (big,) = [line for line in told.splitlines() if "documents.txt" in line]
    assert 1900 < int(big.split(": ")[1].split(" ")[0].replace(",", "")) < 2100


def test_inspection_by_text_and_by_files(place: Any, done: Callable[..., str]) -> None:
    told = done("tokenizer", "inspect", place.tokenizer, place.text, "--text", "the dog 花园")
    assert told.startswith("WordPiece, ")
    assert "[CLS] the dog 花 园 [SEP]" in told
    assert "Latin" in told
    assert "tokens per character" in told
    assert "used: " in told
    assert "used: " not in done("tokenizer", "inspect", place.tokenizer)


def test_bad_input(place: Any, electra: Verb, tmp_path: Path) -> None:
    def refused(code: int, text: str, *words: object) -> None:
        outcome = electra("tokenizer", *words)
        assert outcome.code == code, outcome.out
        assert text in outcome.err
        assert not (tmp_path / "out").exists()

    train = ["train", place.text, "--out", tmp_path / "out"]
    refused(2, "E-C103 vocab_size: 260 is too few tokens; 256 bytes", *train, "--kind", "bpe", "--vocab-size", 260)
    refused(2, "E-C130 sample bytes", *train, "--sample-bytes", 0)
    refused(2, "Invalid value for '--kind'", *train, "--kind", "words")
    (tmp_path / "empty.txt").write_text("")
    refused(3, "E-D112", "train", tmp_path / "empty.txt", "--out", tmp_path / "out")
    refused(3, "E-D112", "inspect", place.tokenizer, tmp_path / "empty.txt")
    extend = ["extend", place.tokenizer, place.text, "--out", tmp_path / "out"]
    refused(2, "E-C131", *extend, "--words", 0)
    (tmp_path / "known.txt").write_text("the dog is good\n" * 9)
    refused(3, "E-D113", "extend", place.tokenizer, tmp_path / "known.txt", "--out", tmp_path / "out")
    refused(2, "E-C104", "extend", tmp_path, place.text, "--out", tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    outcome = electra("tokenizer", *extend)
    assert "E-C460" in outcome.err
