"""Columns that nobody named: what is inferred, that it is shown, and where it stops."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from electra.contracts import Example
from electra.errors import ElectraError
from electra.tasks.readers import Columns, PairColumns, read_pairs, read_texts

Write = Callable[[str, object], Path]

_TEXTS = ["a fine film", "a dull film", "the cast is warm", "nobody laughed", "it ends well", "what a bore"]
_LABELS = ["1", "0", "1", "0", "1", "0"]


def read(path: Path, columns: Columns | None = None) -> tuple[list[Example], list[str]]:
    reading = read_texts(path, columns or Columns())
    return list(reading.examples), reading.notes


def table(*columns: list[str], header: str = "") -> str:
    return header + "".join("\t".join(row) + "\n" for row in zip(*columns, strict=True))


@pytest.mark.parametrize(
    ("header", "text", "pair", "label"),
    [
        ("sentence\tlabel", "sentence", None, "label"),
        ("index\tsentence1\tsentence2\tlabel", "sentence1", "sentence2", "label"),
        ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", "#1 String", "#2 String", "Quality"),
        ("index\tgenre\tsentence1\tsentence2\tscore", "sentence1", "sentence2", "score"),
        ("id\tquestion1\tquestion2\tis_duplicate", "question1", "question2", "is_duplicate"),
        ("index\tquestion\tsentence\tlabel", "question", "sentence", "label"),
        ("Text\tCategory", "Text", None, "Category"),
        ("text", "text", None, None),
    ],
)
def test_usual_names_are_known(write: Write, header: str, text: str, pair: str | None, label: str | None) -> None:
    names = header.lstrip("\ufeff").split("\t")
    [example], notes = read(write("a.tsv", f"{header}\n" + "\t".join(f"<{name}>" for name in names) + "\n"))
    assert (example.text, example.pair) == (f"<{text}>", pair and f"<{pair}>")
    assert example.target == (label and f"<{label}>")
    shown = {"text": text} | ({"pair": pair} if pair else {}) | ({"label": label} if label else {})
    assert notes[0] == "tsv; columns: " + ", ".join(f"{r} = {c!r}" for r, c in shown.items()) + ("" if label else ", no label")


def test_a_table_without_header_is_looked_through(write: Write) -> None:
    examples, notes = read(write("a.tsv", table(_TEXTS, _LABELS)))
    assert [(example.text, example.target) for example in examples] == list(zip(_TEXTS, _LABELS, strict=True))
    assert notes == ["tsv; columns: text = 1, label = 2 (no header)"]
    examples, notes = read(write("pairs.txt", table(_LABELS, _TEXTS, _TEXTS[::-1])))
    assert [(e.text, e.pair, e.target) for e in examples] == list(zip(_TEXTS, _TEXTS[::-1], _LABELS, strict=True))
    assert notes == ["tsv; columns: text = 2, pair = 3, label = 1 (no header)"]


def test_codes_that_count_are_the_label_among_others(write: Write) -> None:
    """CoLA's columns: a source, the label, a mark that may be empty, the sentence."""
    sources, marks = ["gj04", "bc01", "gj04", "bc01", "gj04", "bc01"], ["", "*", "", "*", "", "*"]
    _, notes = read(write("a.tsv", table(sources, _LABELS, marks, _TEXTS)))
    assert notes == ["tsv; columns: text = 4, label = 2 (no header)"]


def test_numbers_are_the_label_where_there_are_no_codes_and_an_index_is_nothing(write: Write) -> None:
    index, scores = ["10", "11", "12", "13", "14", "15"], ["0.5", "3.8", "5", "2.25", "1", "4.75"]
    examples, notes = read(write("a.tsv", table(index, _TEXTS, _TEXTS[::-1], scores)))
    assert notes == ["tsv; columns: text = 2, pair = 3, label = 4 (no header)"]
    assert [example.target for example in examples] == scores


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (table(_TEXTS, _TEXTS[::-1]), "E-D332", "2 columns look like texts, none like a label; the first row has 1 = 'a fine"),
        (table(["x", "y"] * 3, ["a", "b"] * 3, _TEXTS), "E-D332", "columns 1 and 2 may each be the label"),
        (table(_TEXTS, _TEXTS[::-1], _TEXTS, _LABELS), "E-D332", "3 columns look like texts"),
        (table(_TEXTS[:2], _LABELS[:2]), "E-D332", "no header"),
        (table(_TEXTS, _LABELS, header="utterance\tmood\n"), "E-D333", "label 'mood' occurs in the first row alone"),
        (table(_TEXTS, ["up", "down"] * 3, header="utterance\tmood\n"), "E-D333", "label 'mood' occurs in the first row alone"),
        (table(_TEXTS, _LABELS, _LABELS, header="text\tlabel\tscore\n"), "E-D332", "'label' and 'score' may each be the label"),
        (table(_TEXTS, _TEXTS, header="text\treview\n"), "E-D332", "'text' and 'review' may each be the text"),
        (table(_TEXTS, _TEXTS, _LABELS, header="text\ttext\tlabel\n"), "E-D331", "2 columns are called 'text'"),
    ],
)
def test_what_is_left_open_stops_and_says_how_to_go_on(write: Write, data: str, code: str, says: str) -> None:
    path = write("a.tsv", data)
    with pytest.raises(ElectraError) as caught:
        read(path)
    assert (caught.value.code, caught.value.where) == (code, f"{path}:1")
    assert says in caught.value.cause
    assert "columns." in caught.value.fix or code == "E-D331"


def test_what_is_named_is_not_inferred(write: Write) -> None:
    path = write("a.tsv", table(_TEXTS, _TEXTS[::-1]))
    examples, notes = read(path, Columns(text=1, pair=2))
    assert (examples[0].text, examples[0].pair, examples[0].target) == (_TEXTS[0], _TEXTS[-1], None)
    assert notes == ["tsv; columns: text = 1, pair = 2, no label (no header)"]
    one, _ = read(write("b.tsv", table(_TEXTS, _TEXTS, _LABELS, header="sentence1\tsentence2\tmood\n")), Columns(label="mood"))
    assert (one[0].pair, one[0].target) == (_TEXTS[0], "1")
    assert read(write("c.tsv", table(_TEXTS, ["x", "y"] * 3, ["a", "b"] * 3)), Columns(label=2))[0][0].target == "x"


def test_a_label_a_space_a_text(write: Write) -> None:
    path = write("TREC.all", "".join(f"{label} {text}\n" for label, text in zip(_LABELS, _TEXTS, strict=True)))
    examples, notes = read(path)
    assert [(example.text, example.target) for example in examples] == list(zip(_TEXTS, _LABELS, strict=True))
    assert notes == ["labelled-lines; columns: text = 2, label = 1"]
    plain = write("a.txt", path.read_text())
    assert read(plain)[0][0].target is None
    assert read(plain, Columns(format="labelled-lines"))[0][0].target == "1"


def test_other_encodings_are_proposed_and_taken_and_files_may_be_compressed(write: Write) -> None:
    data = "text\tlabel\nDéjà vu\t1\n".encode("latin-1")
    with pytest.raises(ElectraError, match=r"E-D302 .*:2: byte 12 \(0xe9\) is not UTF-8; .*columns.encoding; likely: cp125"):
        read(write("a.tsv", data))
    assert read(write("a.tsv", data), Columns(encoding="latin-1"))[0][0].text == "Déjà vu"
    assert read(write("a.tsv.gz", gzip.compress(data)), Columns(encoding="latin-1"))[0][0].text == "Déjà vu"


def test_labels_may_be_several_and_numbers(write: Write, tmp_path: Path) -> None:
    path = write("a.jsonl", [{"text": "x", "label": ["b", "a"]}, {"text": "y", "label": []}, {"text": "z", "label": 3.5}])
    assert [example.target for example in read(path)[0]] == [("b", "a"), (), 3.5]
    split, _ = read(write("a.tsv", "text\tlabel\nx\tb, a\ny\t\n"), Columns(separator=","))
    assert [example.target for example in split] == [("b", "a"), ()]
    pq.write_table(pa.table({"text": ["x", "y"], "label": [1, 0], "id": [7, 8]}), tmp_path / "a.parquet")
    examples, notes = read(tmp_path / "a.parquet")
    assert [(e.text, e.target, e.where) for e in examples] == [
        ("x", "1", f"{tmp_path}/a.parquet:1"),
        ("y", "0", f"{tmp_path}/a.parquet:2"),
    ]
    assert notes == ["parquet; columns: text = 'text', label = 'label'"]
    with pytest.raises(ElectraError, match="E-D302"):
        read(write("b.parquet", b"PAR1 but no parquet"))


def test_empty_texts_and_lines_are_counted_with_the_first_place(write: Write) -> None:
    path = write("a.tsv", "text\tlabel\nx\t1\n\n \t0\n\n")
    examples, notes = read(path)
    assert [example.text for example in examples] == ["x", " "]
    assert notes[1:] == [f"1 texts are empty, first at {path}:4", f"2 empty lines between rows, first at {path}:3"]


# -- pairs for embeddings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.tsv", "one\teins\ntwo\tzwei\nthree\tdrei\n", ("one", "eins", None, {})),
        ("a.tsv", "anchor\tpositive\tnegative\nx\ty\tz\n", ("x", "y", None, {"negative": "z"})),
        ("a.jsonl", [{"query": "x", "passage": "y", "score": 0.5}], ("x", "y", 0.5, {})),
        ("a.csv", "sentence1,sentence2,score\nx,y,4.5\n", ("x", "y", "4.5", {})),
        ("a.txt", table(_TEXTS, _TEXTS[::-1], _LABELS), (_TEXTS[0], _TEXTS[-1], "1", {})),
    ],
)
def test_pairs_triplets_and_scored_pairs(write: Write, name: str, data: object, expected: tuple[object, ...]) -> None:
    example = next(iter(read_pairs(write(name, data)).examples))
    assert (example.text, example.pair, example.target, example.given) == expected


def test_texts_without_a_pair_are_read_alone(write: Write) -> None:
    [example] = read_pairs(write("a.tsv", "text\tlabel\nx\ty\n")).examples
    assert (example.text, example.pair) == ("x", None)
    with pytest.raises(ElectraError, match="E-C315"):
        PairColumns(score=3)
    triplets = write("a.tsv", "a\tb\tc\n")
    assert next(iter(read_pairs(triplets, PairColumns(text=1, pair=3, negative=2)).examples)).given == {"negative": "b"}
