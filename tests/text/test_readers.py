from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra.errors import ElectraError, ExitCode
from electra.text.clean import Counts
from electra.text.readers import LONGEST, DocumentKind, cut, read


def texts_of(path: Path, counts: Counts | None = None, document: DocumentKind = "block") -> list[str]:
    return [found.text for found in read([path], Counts() if counts is None else counts, document=document)]


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


# -- documents -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("file", [("a\nb\nc\nd", 1)]),
        ("block", [("a\nb", 1), ("c\nd", 5)]),
        ("line", [("a", 1), ("b", 2), ("c", 5), ("d", 6)]),
    ],
)
def test_what_a_document_is(tmp_path: Path, document: DocumentKind, expected: list[tuple[str, int]]) -> None:
    path = write(tmp_path / "a.txt", "a\nb\n \n\nc\nd\n")
    assert [(found.text, found.line) for found in read([path], Counts(), document=document)] == expected


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_breaks_and_byte_order_mark(tmp_path: Path, newline: str) -> None:
    counts = Counts()
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbf" + newline.join(["a", "b", "", "c"]).encode())
    assert texts_of(path, counts) == ["a\nb", "c"]
    assert not counts


def test_characters_and_line_breaks_across_blocks(tmp_path: Path) -> None:
    # with three bytes a character and blocks of 2^20 bytes, characters and CRLFs are torn
    text = "\r\n".join("中文" * 5 + str(number) for number in range(60_000))
    path = write(tmp_path / "a.txt", text)
    assert path.stat().st_size > 2 << 20
    assert texts_of(path, document="line") == text.split("\r\n")


def test_compressed_files(tmp_path: Path) -> None:
    text = "中文\n\nand English\n" * 1000
    write(tmp_path / "a.txt.gz", gzip.compress(text[:100].encode()) + gzip.compress(text[100:].encode()))
    with pa.CompressedOutputStream(str(tmp_path / "b.txt.zst"), "zstd") as file:
        file.write(text.encode())
    write(tmp_path / "c.txt", text)
    first, second, third = (texts_of(path) for path in sorted(tmp_path.iterdir()))
    assert first == second == third
    assert len(first) == 1001


def test_rows_of_jsonl(tmp_path: Path) -> None:
    rows = [{"text": "a\r\nb\x00", "id": 1}, {"text": ""}, {"text": "c\ud800"}]
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows) + "\n")
    counts = Counts()
    assert [(found.text, found.line) for found in read([path], counts)] == [("a\nb", 1), ("c", 3)]
    assert counts == {
        "dropped: empty documents": 1,
        "removed: nul characters": 1,
        "removed: lone surrogates": 1,
    }


def test_text_field(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"body": "x"}')
    assert [found.text for found in read([path], Counts(), text_field="body")] == ["x"]


# -- too much of something -----------------------------------------------------------------------------------------------


@given(st.text("ab .\n。\u0301", max_size=300), st.integers(2, 50))
def test_cut_loses_nothing(text: str, longest: int) -> None:
    pieces = cut(text, longest)
    assert "".join(pieces) == text
    assert all(len(piece) <= longest for piece in pieces)
    assert all(pieces) or text == ""


def test_cut_prefers_lines_then_spaces_then_sentences() -> None:
    assert cut("aaaa b\nc dd", 8) == ["aaaa b\n", "c dd"]
    assert cut("aaaa. b cd", 9) == ["aaaa. b ", "cd"]
    assert cut("中文中文。中文中", 7) == ["中文中文。", "中文中"]


@pytest.mark.parametrize("unit", ["word ", "字", "x"])
@pytest.mark.parametrize("document", ["file", "block", "line"])
def test_one_very_long_line(tmp_path: Path, unit: str, document: DocumentKind) -> None:
    length = 20_000_000 // len(unit)
    path = write(tmp_path / "a.txt", "before\n" + unit * length + "\nafter\n")
    counts = Counts()
    tracemalloc.start()
    started = time.perf_counter()
    found = sizes = 0
    for text in (document.text for document in read([path], counts, document=document)):
        found += text.count(unit.strip())
        sizes = max(sizes, len(text))
    seconds = time.perf_counter() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == length
    assert sizes <= LONGEST
    assert counts["split: documents too long for one"] >= 20_000_000 // len(unit) * len(unit) // LONGEST
    assert peak < 12_000_000  # bytes: a few copies of what is read at once, and never the whole line
    assert seconds < 10


def test_long_documents_of_short_lines_are_split(tmp_path: Path) -> None:
    lines = ["line of a long file"] * 120_000
    path = write(tmp_path / "a.txt", "\n".join(lines))
    counts = Counts()
    found = texts_of(path, counts, "file")
    assert "\n".join(found).split("\n") == lines
    assert counts == {"split: documents too long for one": len(found) - 1}
    assert max(map(len, found)) <= LONGEST


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_many_empty_documents(tmp_path: Path, name: str) -> None:
    empty = "\n" if name == "a.txt" else '{"text": ""}\n'
    path = write(tmp_path / name, empty * 200_000)
    counts = Counts()
    started = time.perf_counter()
    assert texts_of(path, counts, "line") == []
    assert time.perf_counter() - started < 5
    assert counts == {"dropped: empty documents": 200_000}


# -- bad bytes -----------------------------------------------------------------------------------------------------------


def test_empty_file_is_counted(tmp_path: Path) -> None:
    counts = Counts()
    assert texts_of(write(tmp_path / "a.txt", ""), counts) == []
    assert counts == {"skipped: empty files": 1}


@pytest.mark.parametrize("offset", [0, 5, (1 << 20) - 1, (1 << 20) + 7])
def test_invalid_utf8_is_named_by_file_and_byte(tmp_path: Path, offset: int) -> None:
    path = write(tmp_path / "a.txt", b"a" * offset + b"\xff" + b"b" * 10)
    with pytest.raises(ElectraError, match=rf"a\.txt: byte {offset} \(0xff\) is not UTF-8") as caught:
        texts_of(path)
    assert caught.value.code == "E-D100"
    assert caught.value.exit_code == ExitCode.DATA


def test_byte_offset_counts_the_byte_order_mark(tmp_path: Path) -> None:
    with pytest.raises(ElectraError, match="byte 4 "):
        texts_of(write(tmp_path / "a.txt", b"\xef\xbb\xbfa\xff"))


@pytest.mark.parametrize(
    ("data", "text", "replaced"),
    [(b"a\xff\xfeb", "a\ufffd\ufffdb", 2), ("a\ufffd".encode() + b"\xe4\xb8", "a\ufffd\ufffd", 1)],
)
def test_invalid_utf8_replaced_and_counted(tmp_path: Path, data: bytes, text: str, replaced: int) -> None:
    path, counts = write(tmp_path / "a.txt", data), Counts()
    assert [found.text for found in read([path], counts, errors="replace")] == [text]
    assert counts == {"replaced: bytes that are not UTF-8": replaced}


def test_truncated_character_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(ElectraError, match="byte 1 "):
        texts_of(write(tmp_path / "a.txt", b"a\xe4\xb8"))


def test_utf16_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(ElectraError, match="begins like UTF-16"):
        texts_of(write(tmp_path / "a.txt", "text".encode("utf-16")))


@pytest.mark.parametrize(
    ("row", "code", "cause"),
    [
        ("{", "E-D102", "not JSON"),
        ("[1]", "E-D102", "not a JSON object"),
        ("[" * 100_000, "E-D102", "not JSON"),
        ('{"body": "x"}', "E-D103", "no field 'text'.*body"),
        ('{"text": 3}', "E-D103", "field 'text' is not a string"),
    ],
)
def test_bad_rows_are_named_by_file_and_line(tmp_path: Path, row: str, code: str, cause: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "fine"}\n\n' + row)
    with pytest.raises(ElectraError, match=rf"a\.jsonl:3: {cause}") as caught:
        texts_of(path)
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.zst"])
def test_damaged_compression(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pa.CompressedOutputStream(str(path), "gzip" if name.endswith("gz") else "zstd") as file:
        file.write(b"".join(b"%d\n" % number for number in range(10_000)))
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], b"no compressed data at all"):
        path.write_bytes(data)
        with pytest.raises(ElectraError, match="cannot be read") as caught:
            texts_of(path)
        assert caught.value.code == "E-D101"


# -- paths ---------------------------------------------------------------------------------------------------------------


def test_folders_are_read_recursively_in_order(tmp_path: Path) -> None:
    for name in ["b.txt", "a/z.txt", "a/b/c.txt", "c.txt"]:
        write(tmp_path / name, name)
    write(tmp_path / "picture.png", b"\x89PNG")
    write(tmp_path / ".hidden" / "x.txt", "hidden")
    counts = Counts()
    assert texts_of(tmp_path, counts) == ["a/b/c.txt", "a/z.txt", "b.txt", "c.txt"]
    assert counts == {"skipped: files of another kind": 1, "skipped: hidden files and folders": 1}


def test_globs(tmp_path: Path) -> None:
    for name in ["b.txt", "a.txt", "sub/c.txt", "d.md"]:
        write(tmp_path / name, name)
    counts = Counts()
    assert texts_of(tmp_path / "*", counts) == ["a.txt", "b.txt", "sub/c.txt"]
    assert counts == {"skipped: files of another kind": 1}
    assert texts_of(tmp_path / "**" / "c.txt") == ["sub/c.txt"]


def test_a_name_with_brackets_is_a_name(tmp_path: Path) -> None:
    assert texts_of(write(tmp_path / "a[1].txt", "x")) == ["x"]


def test_symlink_loops_end_and_nothing_is_read_twice(tmp_path: Path) -> None:
    write(tmp_path / "a" / "x.txt", "x")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "y.txt").symlink_to(tmp_path / "a" / "x.txt")
    counts = Counts()
    assert [found.text for found in read([tmp_path, tmp_path / "a" / "x.txt"], counts)] == ["x"]
    assert counts == {"skipped: files and folders met a second time": 3}


@pytest.mark.parametrize(
    ("name", "code"), [("none.txt", "E-C100"), ("*.txt", "E-C100"), ("a.pdf", "E-C101"), ("b.gz", "E-C101")]
)
def test_paths_that_cannot_be_meant(tmp_path: Path, name: str, code: str) -> None:
    write(tmp_path / "a.pdf", "x")
    write(tmp_path / "b.gz", "x")
    with pytest.raises(ElectraError) as caught:
        read([tmp_path / name], Counts())
    assert caught.value.code == code
    assert caught.value.exit_code == ExitCode.USAGE


def test_dangling_link_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to(tmp_path / "nowhere.txt")
    with pytest.raises(ElectraError) as caught:
        texts_of(tmp_path)
    assert caught.value.code == "E-D101"
