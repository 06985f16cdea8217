"""Labelled files: every kind, and what is wrong in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from electra.config import build
from electra.contracts import Example
from electra.errors import ElectraError
from electra.tasks.readers import Columns, read_texts


def read_examples(path: Path, columns: Columns) -> list[Example]:
    return list(read_texts(path, columns).examples)


def write(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def triples(path: Path, columns: Columns | None = None) -> list[tuple[str, object, int]]:
    examples = read_examples(path, columns or Columns())
    assert all(example.where.startswith(f"{path}:") for example in examples)
    return [(example.text, example.target, int(example.where.rpartition(":")[2])) for example in examples]


def test_a_table_with_a_header_is_read_by_names(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", "label\ttext\npos\tgood film\nneg\tbad film\n")
    assert triples(path) == [("good film", "pos", 2), ("bad film", "neg", 3)]


def test_a_table_without_header_is_read_by_numbers_and_its_first_line_is_an_example(tmp_path: Path) -> None:
    path = write(tmp_path, "cola.tsv", "x\t1\t\tgood\nx\t0\t*\tbad\n")
    assert triples(path, Columns(text=4, label=2)) == [("good", "1", 1), ("bad", "0", 2)]


def test_tab_separated_files_know_no_quoting(tmp_path: Path) -> None:
    path = write(tmp_path, "glue.tsv", 'text\tlabel\n"open quote\tpos\n""\tneg\n')
    assert triples(path) == [('"open quote', "pos", 2), ('""', "neg", 3)]


def test_comma_separated_files_quote_and_count_lines_within_quotes(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'text,label\r\n"one, ""two""\r\nthree",pos\r\nfour,neg\r\n')
    assert triples(path) == [('one, "two"\nthree', "pos", 2), ("four", "neg", 4)]


def test_json_lines_take_names_and_labels_of_any_plain_kind(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"s": "x", "y": 1}\n{"s": "", "y": " b "}\n{"s": "z", "y": true}\n{"s": "w"}\n')
    columns = Columns(text="s", label="y")
    assert triples(path, columns) == [("x", "1", 1), ("", "b", 2), ("z", "true", 3), ("w", None, 4)]


def test_numbers_are_for_tables_without_header(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", "label\ttext\npos\tgood film\n")
    with pytest.raises(ElectraError, match=r"E-D369 .*a\.tsv:1: the first row has the names 'text' and 'label'"):
        read_examples(path, Columns(text=2, label=1))


def test_ids_are_given_where_a_column_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 7, "text": "a", "label": "x"}\n{"id": null, "text": "b"}\n', encoding="utf-8")
    assert [one.given for one in read_texts(tmp_path / "a.jsonl").examples] == [{"id": "7"}, {}]
    (tmp_path / "a.tsv").write_text("id\ttext\nq1\ta\n", encoding="utf-8")
    assert [one.given for one in read_texts(tmp_path / "a.tsv").examples] == [{"id": "q1"}]


def test_plain_text_is_one_example_a_line_and_empty_lines_count(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "one\n\nthree\u2028still three\x0bthree")
    assert triples(path) == [("one", None, 1), ("", None, 2), ("three\u2028still three\x0bthree", None, 3)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_byte_order_mark_and_line_ends_do_not_show(tmp_path: Path, end: str) -> None:
    data = b"\xef\xbb\xbf" + end.join(["text\tlabel", "caf\u00e9\tpos", "tea\tneg", ""]).encode()
    assert triples(write(tmp_path, "a.tsv", data)) == [("caf\u00e9", "pos", 2), ("tea", "neg", 3)]


def test_a_file_without_the_label_column_is_unlabelled(tmp_path: Path) -> None:
    assert triples(write(tmp_path, "a.tsv", "text\nx\n")) == [("x", None, 2)]
    assert triples(write(tmp_path, "b.tsv", "x\ny\n"), Columns(text=1, label=2)) == [("x", None, 1), ("y", None, 2)]


def test_pairs(tmp_path: Path) -> None:
    columns = Columns(text="a", pair="b")
    [table] = read_examples(write(tmp_path, "a.tsv", "a\tb\tlabel\nx\ty\tno\n"), columns)
    [row] = read_examples(write(tmp_path, "a.jsonl", '{"a": "x", "b": "y", "label": "no"}'), columns)
    assert (table.text, table.pair, table.target) == (row.text, row.pair, row.target) == ("x", "y", "no")


@pytest.mark.parametrize(
    ("name", "data", "code", "place"),
    [
        ("a.tsv", b"text\tlabel\nx\ty\nz\n", "E-D304", ":3"),
        ("a.tsv", b"text\tlabel\nx\ty\tz\n", "E-D304", ":2"),
        ("a.jsonl", b'{"sentance": "x", "label": "y"}\n', "E-D303", ":1"),
        ("a.tsv", b"text\tlabel\nx\ty\n\xff\ty\n", "E-D302", ":3"),
        ("a.tsv", b"text\tlabel\n", "E-D307", ""),
        ("a.csv", b"", "E-D307", ""),
        ("a.csv", b'text,label\nx,y\n"never closed,y\n', "E-D305", ":3"),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', "E-D306", ":2"),
        ("a.jsonl", b'{"text": "x"}\n[1]\n', "E-D306", ":2"),
        ("a.jsonl", b'{"text": "x"}\n\n', "E-D306", ":2"),
        ("a.jsonl", b"[" * 100_000, "E-D306", ":1"),
        ("a.jsonl", b'{"txt": "x"}\n', "E-D303", ":1"),
        ("a.jsonl", b'{"text": 7}\n', "E-D303", ":1"),
        ("a.jsonl", b'{"text": "x", "label": [[1]]}\n', "E-D306", ":1"),
        ("a.txt", b"", "E-D307", ""),
        ("a.xlsx", b"x", "E-D301", ""),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(tmp_path: Path, name: str, data: bytes, code: str, place: str) -> None:
    path = write(tmp_path, name, data)
    with pytest.raises(ElectraError) as caught:
        read_examples(path, Columns())
    assert (caught.value.code, caught.value.where) == (code, f"{path}{place}")


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.tsv", tmp_path):
        with pytest.raises(ElectraError, match="E-D300"):
            read_examples(path, Columns())


def test_a_long_csv_field_is_read(tmp_path: Path) -> None:
    text = "x" * 300_000
    assert triples(write(tmp_path, "a.csv", f"text,label\n{text},pos\n")) == [(text, "pos", 2)]


@pytest.mark.parametrize(
    "tree", [{"text": 1, "label": "x"}, {"text": 0, "label": 1}, {"text": 2, "label": 2}, {"text": "x", "pair": "x"}]
)
def test_columns_that_make_no_sense_are_refused(tree: dict[str, object]) -> None:
    with pytest.raises(ElectraError, match="E-C31"):
        build(Columns, tree)


def test_columns_are_names_or_numbers_in_a_recipe() -> None:
    assert build(Columns, {"text": 4, "label": 2}) == Columns(text=4, label=2)
    assert build(Columns, {"text": "sentence"}) == Columns(text="sentence")
