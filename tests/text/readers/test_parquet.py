from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from electra.errors import ElectraError
from electra.text.readers import parquet

Read = Callable[..., Any]


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_kinds_of_text(reading: Read, tmp_path: Path, kind: pa.DataType) -> None:
    plain = pa.array(["one", None, "", "中文"])
    column = plain.dictionary_encode() if pa.types.is_dictionary(kind) else plain.cast(kind)
    found = reading(write(tmp_path / "a.parquet", {"id": [1, 2, 3, 4], "text": column}))
    assert found.texts == ["one", "中文"]
    assert found.places == [("a.parquet", 1), ("a.parquet", 4)]
    assert found.lost == {"dropped: empty documents": 2}


def test_nested_fields_and_several(reading: Read, tmp_path: Path) -> None:
    body = [{"text": "a", "by": {"name": "A"}}, None, {"text": None, "by": {"name": "C"}}]
    path = write(tmp_path / "a.parquet", {"title": ["T", "U", None], "body": body, "a.b": ["x", "y", "z"]})
    assert reading(path, text_field=("body.text",)).texts == ["a"]
    assert reading(path, text_field=("body.by.name",)).texts == ["A", "C"]
    assert reading(path, text_field=("a.b", "title", "body.text")).texts == ["x\nT\na", "y\nU", "z"]


def test_rows_of_many_batches_and_row_groups_come_in_order(
    reading: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_MOST_ROWS", 7)
    path = write(tmp_path / "a.parquet", {"text": [f"row {number}" for number in range(1, 101)]}, row_group_size=33)
    found = reading(path)
    assert found.texts == [f"row {line}" for _, line in found.places]
    assert len(found.texts) == 100


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("text", "no column 'text'"),
        ("body.txt", "no column 'body.txt'"),
        ("body", "column 'body' is not text, but struct<text: string>"),
        ("id", "column 'id' is not text, but int64"),
        ("id.x", "no column 'id.x'"),
    ],
)
def test_a_missing_column_is_an_error_before_anything_is_read(reading: Read, tmp_path: Path, field: str, told: str) -> None:
    (tmp_path / "a.txt").write_text("fine")
    write(tmp_path / "b.parquet", {"id": [1], "body": [{"text": "x"}]})
    with pytest.raises(ElectraError) as caught:
        reading(tmp_path, text_field=(field,))
    assert caught.value.code == "E-D105"
    assert f"b.parquet: {told}" in str(caught.value)
    assert "this file has id, body.text" in str(caught.value)
    found = reading(tmp_path, text_field=(field,), errors="skip")
    assert (found.texts, found.lost) == (["fine"], {"dropped: files without the text field": 1})


def test_text_that_is_not_utf_8(reading: Read, tmp_path: Path) -> None:
    raw = pa.array([b"fine", b"caf\xe9", b"good"])
    text = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    path = write(tmp_path / "a.parquet", {"text": text})
    with pytest.raises(ElectraError, match=r"a\.parquet:2: byte 3 \(0xe9\) is not UTF-8") as caught:
        reading(path)
    assert caught.value.code == "E-D100"
    assert reading(path, errors="skip").texts == ["fine", "good"]
    assert reading(path, errors="skip").lost == {"dropped: documents with undecodable bytes": 1}
    replaced = reading(path, errors="replace")
    assert (replaced.texts, replaced.lost) == (["fine", "caf\ufffd", "good"], {"replaced: undecodable bytes": 1})


def test_damaged_files(reading: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_MOST_ROWS", 500)
    path = write(tmp_path / "a.parquet", {"text": [f"row {number}" * 50 for number in range(2000)]}, row_group_size=500,
                 compression="zstd", use_dictionary=False)  # fmt: skip
    whole = path.read_bytes()
    for data in (whole[:1000], b"PAR1", b""):
        path.write_bytes(data)
        with pytest.raises(ElectraError, match=r"a\.parquet: cannot be read: ") as caught:
            reading(path)
        assert caught.value.code == "E-D101"
        assert reading(path, errors="skip").lost == {"dropped: files that cannot be read": 1}
    group = pq.ParquetFile(pa.BufferReader(whole)).metadata.row_group(2).column(0)
    start = group.data_page_offset
    path.write_bytes(whole[:start] + b"\xff" * 20 + whole[start + 20 :])
    with pytest.raises(ElectraError, match=r"a\.parquet:1000: cannot be read beyond row 1,000: ") as caught:
        reading(path)
    assert caught.value.code == "E-D101"
    found = reading(path, errors="skip")
    assert (len(found.texts), found.lost) == (1000, {"dropped: rests of files that cannot be read": 1})
