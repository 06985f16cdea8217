"""`electra data inspect`: counts, duplicates, spans that cut tokens, labels that look wrong."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from electra.cli import app
from electra.errors import ElectraError
from electra.evaluate.labelled import inspect, nearest, to_lines
from electra.evaluate.suspects import Sample, suspects
from electra.text.tokenizer import Tokenizer
from electra.text.train_tokenizer import train

_GOOD, _BAD = ["warm", "clever", "lovely", "bright"], ["cold", "dull", "dreadful", "dreary"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(["Ada met Bo in Japanese towns"] * 4, 100, min_frequency=1)


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_duplicates_and_contradictions_across_files(tmp_path: Path) -> None:
    first = _write(tmp_path / "train.tsv", "text\tlabel\na\t1\nb\t0\na\t1\n")
    second = _write(tmp_path / "dev.tsv", "text\tlabel\nb\t1\nc\t0\n")
    found = inspect([first, second], "classify")
    [train_, dev] = found["files"]
    assert (train_["rows"], train_["labels"]) == (3, {"1": 2, "0": 1})
    assert train_["duplicates"] == [{"of": str(first), "count": 1, "first": f"{first}:4 = {first}:2"}]
    assert dev["duplicates"] == [{"of": str(first), "count": 1, "first": f"{second}:2 = {first}:3"}]
    [one] = found["contradictions"]["first"]
    assert (one["where"], one["label"], one["other"], one["other_label"]) == (f"{second}:2", "1", f"{first}:3", "0")
    assert not found["suspects"]["judged"]
    assert "equal rows with different labels: 1" in list(to_lines(found))


def test_lengths_cuts_and_spans_within_tokens(tmp_path: Path, tokenizer: Tokenizer) -> None:
    row = {"text": "Ada met Bo in Japanese towns", "spans": [[0, 3, "PER"], [14, 19, "LOC"]]}
    path = _write(tmp_path / "a.jsonl", json.dumps(row) + "\n" + json.dumps({"text": "Ada", "spans": []}) + "\n")
    whole = len(tokenizer.encode("Ada met Bo in Japanese towns").ids)
    [file] = inspect([path], "tag", tokenizer, max_length=whole - 1)["files"]
    assert file["tokens"] == {
        "median": (whole + 3) // 2,
        "p95": file["tokens"]["p95"],
        "longest": whole,
        "room": whole - 1,
        "longer": 1,
    }
    assert (file["spans"]["count"], file["spans"]["misaligned"]) == (2, 1)
    assert file["spans"]["first"] == [{"where": f"{path}:1", "text": "Japan", "proposed": "Japanese"}]
    assert file["labels"] == {"PER": 1, "LOC": 1}


def test_answers_and_arguments_of_relations_are_spans(tmp_path: Path, tokenizer: Tokenizer) -> None:
    asked = {"id": "a", "question": "Ada met?", "context": "Ada met Bo", "answers": {"text": ["Bo"], "answer_start": [8]}}
    [file] = inspect([_write(tmp_path / "a.jsonl", json.dumps(asked))], "span", tokenizer)["files"]
    assert (file["labels"], file["spans"]["count"], file["spans"]["misaligned"]) == ({"answered": 1}, 1, 0)
    related = {"text": "Ada met Bo", "head": {"start": 0, "end": 2}, "tail": {"start": 8, "end": 10}, "relation": "met"}
    [file] = inspect([_write(tmp_path / "b.jsonl", json.dumps(related))], "relation", tokenizer)["files"]
    assert (file["spans"]["count"], file["spans"]["first"][0]["proposed"]) == (2, "Ada")


@given(st.lists(st.integers(1, 4), min_size=1), st.data())
def test_the_nearest_span_is_made_of_whole_tokens(widths: list[int], data: st.DataObject) -> None:
    ends = [sum(widths[: place + 1]) for place in range(len(widths))]
    offsets = list(zip([0, *ends], ends, strict=False))
    start = data.draw(st.integers(0, ends[-1] - 1))
    end = data.draw(st.integers(start + 1, ends[-1]))
    found = nearest("x" * ends[-1], start, end, offsets)
    assert found is not None
    assert found[0] <= start < end <= found[1]
    assert (found == (start, end)) == (start in {0, *ends} and end in ends)
    assert found[0] in {0, *ends} and found[1] in ends  # noqa: PT018


def test_spaces_at_the_ends_of_tokens_do_not_count() -> None:
    assert nearest("a bc", 2, 4, [(0, 1), (1, 4)]) == (2, 4)
    assert nearest("a  b", 1, 2, [(0, 1), (3, 4)]) is None


def _sample(flipped: int) -> Sample:
    sample, chance = Sample(), random.Random(0)
    for number in range(200):
        words, label = (_GOOD, "good") if number % 2 else (_BAD, "bad")
        text = f"item {number} was {' and '.join(chance.sample(words, 3))}"
        wrong = number < 2 * flipped and number % 2
        sample.add(number.to_bytes(16, "big"), f"f.tsv:{number}", text, "bad" if wrong else label)
    return sample


def test_flipped_labels_are_suspected_and_no_others() -> None:
    found = suspects(_sample(5))
    assert found["judged"]
    flipped = {f"f.tsv:{number}" for number in (1, 3, 5, 7, 9)}
    assert {one["where"] for one in found["first"]} <= flipped  # a bound of means leaves out about half
    assert 2 <= found["count"] <= 5
    assert {(one["label"], one["likely"]) for one in found["first"]} == {("bad", "good")}


def test_a_classifier_that_learns_nothing_says_nothing() -> None:
    sample = Sample()
    for number in range(100):
        sample.add(number.to_bytes(16, "big"), f"f.tsv:{number}", "the same words", "ab"[number * 7919 % 13 % 2])
    found = suspects(sample)
    assert (found["judged"], found["count"]) == (False, 0)
    assert "the classifier is right in" in found["why"]
    assert not suspects(Sample())["judged"]


@pytest.mark.parametrize("text", ["word{}", " "])
def test_texts_without_a_common_word_are_not_judged(text: str) -> None:
    sample = Sample()
    for number in range(100):
        sample.add(number.to_bytes(16, "big"), f"f.tsv:{number}", text.format(number), "ab"[number % 2])
    assert suspects(sample)["why"] == "no two texts have a word in common"


def test_a_sample_is_bounded_and_does_not_depend_on_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("electra.evaluate.suspects.MOST_ROWS", 10)
    keys = [(number * 0x9E3779B97F4A7C15F39CC0605CEDC834 % (1 << 128)).to_bytes(16, "big") for number in range(1, 100)]
    kept = []
    for order in (keys, keys[::-1]):
        sample = Sample()
        for key in order:
            sample.add(key, "f:1", "x", "y")
        kept.append(sorted(row.key for row in sample.rows))
    assert kept[0] == kept[1]
    assert 1 <= len(kept[0]) <= 10


def test_the_verb(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tsv", "x\tone\ny\ttwo\n")
    result = CliRunner().invoke(app, ["data", "inspect", str(path), "--task", "classify", "--column", "text=2", "--json"])
    assert result.exit_code == 0, result.output
    tree: dict[str, Any] = json.loads(result.output)
    assert tree["files"][0]["notes"] == ["tsv; columns: text = 2, no label (no header)"]
    lines = CliRunner().invoke(app, ["data", "inspect", str(path), "--task", "embed"]).output.splitlines()
    assert lines[0] == f"{path}: 2 rows, 2 of them without label"
    with pytest.raises(ElectraError, match="E-C317"):
        inspect([path], "choice", columns={"text": 1})


def test_targets_that_are_texts(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = ["Ada met Bo\tBo in towns", "Bo\tBo", "Ada met Bo\tAda in towns", " \tAda", "Bo\tBo"]
    path = _write(tmp_path / "train.tsv", "source\ttarget\n" + "\n".join(rows) + "\n")
    twice = replace(tokenizer, target=train(["Bo in towns Ada"] * 4, 80, min_frequency=1))
    assert twice.target is not None
    found = inspect([path], "generate", twice, 8, target_length=2)
    [file] = found["files"]
    targets = file["written"]
    wanted = [len(twice.target.encode(row.split("\t")[1]).ids) - 1 for row in rows]
    assert (targets["tokens"]["longest"], targets["tokens"]["room"]) == (max(wanted), 2)
    assert targets["tokens"]["longer"] == sum(length > 2 for length in wanted) > 0
    assert targets["windows"] == {"room": 8 + 7 * 4, "longer": 0}
    assert targets["copies"] == {"count": 2, "first": f"{path}:3"}
    assert targets["empty"] == {"count": 1, "first": f"{path}:5"}
    assert targets["pairs"][0] == {"where": f"{path}:2", "source": "Ada met Bo", "target": "Bo in towns"}
    assert file["duplicates"] == [{"of": str(path), "count": 2, "first": f"{path}:4 = {path}:2"}]
    [several] = found["contradictions"]["first"]
    assert (several["label"], several["other_label"]) == ("Ada in towns", "Bo in towns")
    assert (file["labels"], found["suspects"]) == ({}, None)
    told = CliRunner().invoke(app, ["data", "inspect", str(path), "--task", "generate", "--target-length", "2"])
    assert told.exit_code == 0, told.output
    assert "rows whose target is their source: 2" in told.output
    assert "'Bo' -> 'Bo'" in told.output
    assert "equal sources with different targets: 1" in told.output
    alone = _write(tmp_path / "sources.txt", "Ada met Bo\nBo\n")
    [file] = inspect([alone], "generate")["files"]
    assert (file["rows"], file["unlabelled"], file["written"]["pairs"]) == (2, 2, [])
    with pytest.raises(ElectraError, match="E-C882"):
        inspect([path], "classify", target_length=2)


def test_targets_are_counted_by_a_tokenizer_that_is_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = _write(tmp_path / "train.tsv", "source\ttarget\nAda\tBo in towns\n")
    tokenizer.save(tmp_path / "one")
    other = train(["Bo in towns"] * 4, 64, min_frequency=1)
    other.save(tmp_path / "other")
    asked = ["data", "inspect", str(path), "--task", "generate", "--json", "--target-tokenizer", str(tmp_path / "other")]
    told = CliRunner().invoke(app, [*asked, "--model", str(tmp_path / "one")])
    [file] = json.loads(told.output)["files"]
    assert file["written"]["tokens"]["longest"] == len(other.encode("Bo in towns").ids) - 1
    assert other.encode("Bo in towns").ids != tokenizer.encode("Bo in towns").ids
    alone = CliRunner().invoke(app, asked)
    assert isinstance(alone.exception, ElectraError)
    assert "E-C882" in str(alone.exception)
