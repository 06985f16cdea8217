"""JSON lines and tables: which text they give, and which of their rows are bad."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from electra.errors import ElectraError
from electra.text.clean import Counts, clean
from electra.text.readers import lines, table

Read = Callable[..., Any]


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def refused(reading: Read, path: Path, code: str, *told: str, **options: Any) -> None:
    with pytest.raises(ElectraError) as caught:
        reading(path, **options)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    for words in told:
        assert words in str(caught.value)


# -- JSON lines ----------------------------------------------------------------------------------------------------------

ROWS = [
    {"id": 1, "title": "One", "body": {"text": "first", "by": {"name": "A"}}},
    {"id": 2, "title": None, "body": {"text": "second", "by": {"name": "B"}}},
]


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        (["title"], ["One"]),
        (["body.text"], ["first", "second"]),
        (["body.by.name"], ["A", "B"]),
        (["title", "body.text"], ["One\nfirst", "second"]),
    ],
)
def test_fields_of_json_lines(reading: Read, tmp_path: Path, fields: list[str], texts: list[str]) -> None:
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    found = reading(path, text_field=tuple(fields))
    assert found.texts == texts
    assert found.lost == ({} if len(texts) == 2 else {"dropped: empty documents": 1})


def test_a_name_with_a_dot_is_a_name_first(reading: Read, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"a.b": "name", "a": {"b": "way"}}')
    assert reading(path, text_field=("a.b",)).texts == ["name"]


def test_a_missing_field_tells_which_there_are(reading: Read, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps(ROWS[0]))
    refused(reading, path, "E-D103", "a.jsonl:1: no field 'text'", "this row has id, title, body.text, body.by.name")
    refused(reading, path, "E-D103", "no field 'title.x'", text_field=("title.x",))
    refused(reading, path, "E-D103", "field 'body' is not a string", text_field=("body",))
    refused(reading, path, "E-D103", "field 'id' is not a string", text_field=("title", "id"))


def test_bad_rows_of_json_lines_are_left_out_and_counted(reading: Read, tmp_path: Path) -> None:
    rows = b'{"text": "a"}\n{"text": \n\n[]\n{"txt": "b"}\n{"text": "c\xff"}\n{"text": "d"}\n'
    path = write(tmp_path / "a.jsonl", rows)
    found = reading(path, errors="skip")
    assert found.places == [("a.jsonl", 1), ("a.jsonl", 7)]
    assert found.lost == {
        "dropped: rows that cannot be parsed": 2,
        "dropped: rows without the text field": 1,
        "dropped: documents with undecodable bytes": 1,
    }
    assert [place.split("a.jsonl:")[1] for places in found.drops.total.samples.values() for place in places] == [
        "2: not JSON: Expecting value: column 10",
        "4: not a JSON object",
        "5: no field 'text'",
        "6: c\ufffd",
    ]


def test_a_bad_byte_in_another_field_does_no_harm(reading: Read, tmp_path: Path) -> None:
    found = reading(write(tmp_path / "a.jsonl", b'{"name": "\xff", "text": "fine"}'), errors="skip")
    assert (found.texts, found.lost) == (["fine"], {})


# -- tables --------------------------------------------------------------------------------------------------------------


def test_columns_by_name(reading: Read, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", 'id,text,title\r\n1,"a, ""b""\r\nc",T\r\n\r\n2,d,\r\n')
    write(tmp_path / "b.tsv", 'id\ttext\ttitle\n1\t"a, b\tT\n')
    found = reading(tmp_path, text_field=("title", "text"))
    assert found.texts == ['T\na, "b"\nc', "d", 'T\n"a, b']
    assert found.places == [("a.csv", 2), ("a.csv", 5), ("b.tsv", 2)]
    assert found.lost == {}


def test_columns_by_number_in_a_table_without_header(reading: Read, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "x,one\ny,two\n")
    write(tmp_path / "b.tsv", "x\tthree\n\ny\tfour\n")
    found = reading(tmp_path, text_field=("2",))
    assert found.texts == ["one", "two", "three", "four"]
    assert found.places == [("a.csv", 1), ("a.csv", 2), ("b.tsv", 1), ("b.tsv", 3)]
    assert reading(tmp_path / "a.csv", text_field=("2", "1")).texts == ["one\nx", "two\ny"]


@pytest.mark.parametrize(
    ("header", "field", "told"),
    [
        ("id,body", "text", "a.csv:1: no column 'text'; choose with --text-field, by name, or by number"),
        ("id,body", "3", "no column '3'"),
        ("id,body", "0", "no column '0'"),
        ("text,text", "text", "2 columns are called 'text'"),
    ],
)
def test_a_table_without_the_column(reading: Read, tmp_path: Path, header: str, field: str, told: str) -> None:
    # before the first document: the good file is never begun
    write(tmp_path / "A.txt", "fine")
    write(tmp_path / "a.csv", f"{header}\n1,2\n")
    refused(reading, tmp_path, "E-D105", told, header.replace(",", ", "), text_field=(field,))
    found = reading(tmp_path, text_field=(field,), errors="skip")
    assert (found.texts, found.lost) == (["fine"], {"dropped: files without the text field": 1})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(st.text('ab ,"\n\r。', max_size=8), min_size=2, max_size=2), max_size=6),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_what_is_written_as_csv_is_read(reading: Read, tmp_path: Path, rows: list[list[str]], newline: str) -> None:
    written = io.StringIO()
    csv.writer(written, lineterminator=newline, quoting=csv.QUOTE_ALL).writerows([["id", "text"], *rows])
    found = reading(write(tmp_path / "a.csv", written.getvalue()))
    assert found.texts == [text for _, raw in rows if (text := clean(raw, Counts()))]


def test_fields_longer_than_the_csv_module_allows(reading: Read, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f'id,text\n1,"{"word " * 60_000}"\n2,b\n')
    found = reading(path)
    assert "".join(found.texts).count("word") == 60_000
    assert found.texts[-1] == "b"
    assert found.lost == {"split: documents too long for one": len(found.texts) - 2}


@pytest.mark.parametrize(
    ("bad", "line", "told", "kept"),
    [
        ("3,b,c\n", 4, "3 columns where the first row has 2", 5),
        ("3\n", 4, "1 columns where the first row has 2", 5),
        ('3,"b"c\n', 4, "malformed CSV: ',' expected after '\"'", 5),
        ('3,"b\n', 4, "malformed CSV: unexpected end of data", 5),
        ('3,"b\n4,c\n5,d",e\n', 4, "3 columns where the first row has 2", 6),  # 4,c is read again, and fine; 5,d",e is bad
    ],
)
@pytest.mark.parametrize("compression", ["", ".gz"])
def test_a_broken_row_in_the_middle(
    reading: Read, tmp_path: Path, bad: str, line: int, told: str, kept: int, compression: str
) -> None:
    import gzip

    text = "id,text\n1,a\n2,b\n" + bad + "7,x\n8,y\n9,z\n"
    path = write(tmp_path / f"a.csv{compression}", gzip.compress(text.encode()) if compression else text)
    refused(reading, path, "E-D104", f"a.csv{compression}:{line}: ", told)
    found = reading(path, errors="skip")
    assert found.texts[:2] + found.texts[-3:] == ["a", "b", "x", "y", "z"]
    assert len(found.texts) == kept
    (cause,) = found.lost
    assert cause == "dropped: rows that cannot be parsed"
    assert found.lost[cause] == 1 + (kept == 6)
    assert f"a.csv{compression}:{line}: " in found.drops.total.samples[cause][0]


def test_a_quote_that_is_not_closed_costs_no_memory(reading: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (lines, table):
        monkeypatch.setattr(module, "LONGEST_ROW", 1 << 17)
    rows = "".join(f"{number},some text that is not very long\n" for number in range(5_000))
    path = write(tmp_path / "a.csv", f'id,text\n0,"broken\n{rows}')
    tracemalloc.start()
    refused(reading, path, "E-D104", "a.csv:2: ", "does not end within 131,072 characters")
    found = reading(path, errors="skip")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.texts) == 5_000
    assert found.lost == {"dropped: rows that cannot be parsed": 1}
    assert peak < 5_000_000


@pytest.mark.parametrize(("name", "code"), [("a.jsonl", "E-D102"), ("a.tsv", "E-D104"), ("a.csv", "E-D104")])
def test_a_file_without_lines(reading: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> None:
    monkeypatch.setattr(lines, "LONGEST_ROW", 1000)
    path = write(tmp_path / name, "text\n" * (name != "a.jsonl") + "x" * 5000)
    refused(reading, path, code, "a row of more than 1,000 characters")
    assert reading(path, errors="skip").lost == {"dropped: rows that cannot be parsed": 1}


def test_tab_separated_files_know_no_quotes(reading: Read, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'text\tn\n"a\t1\n5" b\t2\nc\n')
    refused(reading, path, "E-D104", "a.tsv:4: 1 columns where the first row has 2")
    found = reading(path, errors="skip")
    assert (found.texts, found.lost) == (['"a', '5" b'], {"dropped: rows that cannot be parsed": 1})


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_an_empty_file_and_one_of_a_header_alone(reading: Read, tmp_path: Path, name: str) -> None:
    assert reading(write(tmp_path / name, "")).lost == {"skipped: empty files": 1}
    if name != "a.jsonl":
        found = reading(write(tmp_path / name, "text\n"))
        assert (found.texts, found.lost) == ([], {})
