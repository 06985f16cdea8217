from __future__ import annotations

import gzip
import io
import json
import os
import re
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra.errors import ElectraError, ExitCode
from electra.text.drops import Drops
from electra.text.readers import ReadOptions, read
from electra.text.readers.lines import LONGEST, cut
from electra.text.readers.options import DocumentKind

Read = Callable[..., Any]


def texts_of(path: Path, drops: Drops | None = None, document: DocumentKind = "block") -> list[str]:
    return [found.text for found in read([path], drops or Drops(), ReadOptions(document=document))]


def lost(drops: Drops) -> dict[str, int]:
    """What was counted, but for the files that were read."""
    return {cause: count for cause, count in drops.total.counts.items() if not cause.startswith("read: ")}


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
    assert [(found.text, found.line) for found in read([path], Drops(), ReadOptions(document=document))] == expected


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_breaks_and_byte_order_mark(tmp_path: Path, newline: str) -> None:
    drops = Drops()
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbf" + newline.join(["a", "b", "", "c"]).encode())
    assert texts_of(path, drops) == ["a\nb", "c"]
    assert not lost(drops)


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
    drops = Drops()
    assert [(found.text, found.line) for found in read([path], drops)] == [("a\nb", 1), ("c", 3)]
    assert lost(drops) == {
        "dropped: empty documents": 1,
        "removed: nul characters": 1,
        "removed: lone surrogates": 1,
    }


def test_text_field(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"body": "x"}')
    assert [found.text for found in read([path], Drops(), ReadOptions(text_field=("body",)))] == ["x"]


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


@pytest.mark.parametrize(
    ("document", "unit"),
    # where a line without spaces is cut and where one with spaces is: every kind of document has its lines from one place
    [("block", "word "), *((document, unit) for document in ("file", "block", "line") for unit in ("字", "x"))],
)
def test_one_very_long_line(tmp_path: Path, unit: str, document: DocumentKind) -> None:
    length = 20_000_000 // len(unit)
    path = write(tmp_path / "a.txt", "before\n" + unit * length + "\nafter\n")
    drops = Drops()
    tracemalloc.start()
    started = time.process_time()
    found = sizes = 0
    for text in (document.text for document in read([path], drops, ReadOptions(document=document))):
        found += text.count(unit.strip())
        sizes = max(sizes, len(text))
    seconds = time.process_time() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == length
    assert sizes <= LONGEST
    assert drops.total.counts["split: documents too long for one"] >= 20_000_000 // len(unit) * len(unit) // LONGEST
    assert peak < 12_000_000  # bytes: a few copies of what is read at once, and never the whole line
    assert seconds < 10


def test_long_documents_of_short_lines_are_split(tmp_path: Path) -> None:
    lines = ["line of a long file"] * 120_000
    path = write(tmp_path / "a.txt", "\n".join(lines))
    drops = Drops()
    found = texts_of(path, drops, "file")
    assert "\n".join(found).split("\n") == lines
    assert lost(drops) == {"split: documents too long for one": len(found) - 1}
    assert max(map(len, found)) <= LONGEST


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_many_empty_documents(tmp_path: Path, name: str) -> None:
    empty = "\n" if name == "a.txt" else '{"text": ""}\n'
    path = write(tmp_path / name, empty * 200_000)
    drops = Drops()
    started = time.process_time()
    assert texts_of(path, drops, "line") == []
    assert time.process_time() - started < 5
    assert lost(drops) == {"dropped: empty documents": 200_000}


# -- bad bytes -----------------------------------------------------------------------------------------------------------


def test_empty_file_is_counted(tmp_path: Path) -> None:
    drops = Drops()
    assert texts_of(write(tmp_path / "a.txt", ""), drops) == []
    assert lost(drops) == {"skipped: empty files": 1}


@pytest.mark.parametrize("offset", [0, 5, (1 << 20) - 1, (1 << 20) + 7])
def test_invalid_utf8_is_named_by_file_and_byte(tmp_path: Path, offset: int) -> None:
    path = write(tmp_path / "a.txt", b"a" * offset + b"\xff" + b"b" * 10)
    with pytest.raises(ElectraError, match=rf"a\.txt:1: byte {offset} \(0xff\) is not UTF-8") as caught:
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
    path, drops = write(tmp_path / "a.txt", data), Drops()
    assert [found.text for found in read([path], drops, ReadOptions(errors="replace"))] == [text]
    assert lost(drops) == {"replaced: undecodable bytes": replaced}


def test_truncated_character_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(ElectraError, match="byte 1 "):
        texts_of(write(tmp_path / "a.txt", b"a\xe4\xb8"))


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
    drops = Drops()
    assert texts_of(tmp_path, drops) == ["a/b/c.txt", "a/z.txt", "b.txt", "c.txt"]
    assert lost(drops) == {"skipped: files of another kind": 1, "skipped: hidden files and folders": 1}


def test_globs(tmp_path: Path) -> None:
    for name in ["b.txt", "a.txt", "sub/c.txt", "d.md"]:
        write(tmp_path / name, name)
    drops = Drops()
    assert texts_of(tmp_path / "*", drops) == ["a.txt", "b.txt", "sub/c.txt"]
    assert lost(drops) == {"skipped: files of another kind": 1}
    assert texts_of(tmp_path / "**" / "c.txt") == ["sub/c.txt"]


def test_a_name_with_brackets_is_a_name(tmp_path: Path) -> None:
    assert texts_of(write(tmp_path / "a[1].txt", "x")) == ["x"]


def test_symlink_loops_end_and_nothing_is_read_twice(tmp_path: Path) -> None:
    write(tmp_path / "a" / "x.txt", "x")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "y.txt").symlink_to(tmp_path / "a" / "x.txt")
    drops = Drops()
    assert [found.text for found in read([tmp_path, tmp_path / "a" / "x.txt"], drops)] == ["x"]
    assert lost(drops) == {"skipped: files and folders met a second time": 3}


@pytest.mark.parametrize(
    ("name", "code"), [("none.txt", "E-C100"), ("*.txt", "E-C100"), ("a.pdf", "E-C101"), ("b.gz", "E-C101")]
)
def test_paths_that_cannot_be_meant(tmp_path: Path, name: str, code: str) -> None:
    write(tmp_path / "a.pdf", "x")
    write(tmp_path / "b.gz", "x")
    with pytest.raises(ElectraError) as caught:
        read([tmp_path / name], Drops())
    assert caught.value.code == code
    assert caught.value.exit_code == ExitCode.USAGE


def test_dangling_link_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to(tmp_path / "nowhere.txt")
    with pytest.raises(ElectraError) as caught:
        texts_of(tmp_path)
    assert caught.value.code == "E-D101"


# -- folders of everything -----------------------------------------------------------------------------------------------


def everything(folder: Path) -> dict[str, str]:
    """A folder with a file of every kind and compression, and the text of each."""
    contents = {
        "txt": "{}\n\n",
        "jsonl": '{{"text": "{}"}}\n',
        "csv": 'id,text\n1,"{}"\n',
        "tsv": "text\tid\n{}\t1\n",
    }
    texts = {}
    for kind, content in contents.items():
        for end, pack in (("", bytes), (".gz", gzip.compress), (".zst", zstd)):
            name = f"{kind}{end[1:]}/some.{kind}{end}"
            texts[name] = f"text of {name}"
            write(folder / name, pack(content.format(texts[name]).encode()))
    texts["p.parquet"] = "text of p.parquet"
    pq.write_table(pa.table({"text": [texts["p.parquet"]]}), folder / "p.parquet")
    texts["Q.TXT"] = "text of Q.TXT"
    write(folder / "Q.TXT", texts["Q.TXT"])
    return texts


def zstd(data: bytes) -> bytes:
    packed: bytes = pa.compress(data, codec="zstd", asbytes=True)
    return packed


def test_a_folder_of_every_kind(reading: Read, tmp_path: Path) -> None:
    texts = everything(tmp_path)
    found = reading(tmp_path)
    assert found.texts == [texts[name] for name in sorted(texts)]
    assert found.drops.total.counts == {"read: files in utf-8": len(texts)}
    assert [file for file, _ in found.drops.take()] == [str(tmp_path / name) for name in sorted(texts)]


def test_the_kind_is_said_where_names_do_not(reading: Read, tmp_path: Path) -> None:
    write(tmp_path / "a.json", '{"text": "a"}')
    write(tmp_path / "b", gzip.compress(b'{"text": "b"}')).rename(tmp_path / "b.data.gz")
    with pytest.raises(ElectraError, match=r"E-C101 .*a\.json: .*--format"):
        reading(tmp_path / "a.json")
    assert reading(tmp_path).lost == {"skipped: files of another kind": 2}
    assert reading(tmp_path, format="jsonl").texts == ["a", "b"]


NAME = os.fsdecode(b"caf\xe9\n.")
SHOWN = r"caf\xe9\n."


@pytest.mark.parametrize("kind", ["txt", "txt.gz", "csv", "parquet"])
def test_names_that_are_not_utf_8(reading: Read, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{NAME}{kind}"
    packed = io.BytesIO()
    pq.write_table(pa.table({"text": ["fine"]}), packed)
    fine = {"txt": b"fine", "txt.gz": gzip.compress(b"fine"), "csv": b"text\nfine\n", "parquet": packed.getvalue()}
    try:
        path.write_bytes(fine[kind])
    except OSError:
        pytest.skip("the file system wants UTF-8")
    found = reading(tmp_path)
    assert found.texts == ["fine"]
    assert found.places[0][0] == f"{SHOWN}{kind}"
    path.write_bytes(b"\xff" * 30)
    with pytest.raises(ElectraError) as caught:
        reading(tmp_path)
    assert f"{SHOWN}{kind}" in str(caught.value)
    assert str(caught.value).isprintable()
    assert f"{SHOWN}{kind}" in next(iter(reading(tmp_path, errors="skip").drops.total.samples.values()))[0]


def test_what_cannot_be_read_is_left_out_where_the_user_says_so(reading: Read, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "fine")
    (tmp_path / "b.txt").symlink_to(tmp_path / "nowhere.txt")
    packed = zstd(b"".join(b"%d a line\n" % number for number in range(300_000)))
    write(tmp_path / "c.txt.zst", packed[: len(packed) // 2])
    write(tmp_path / "d.txt.gz", "no compressed data at all")
    found = reading(tmp_path, errors="skip", document="line")
    assert found.texts[:2] == ["fine", "0 a line"]
    assert len(found.texts) > 10_000
    assert found.lost == {"dropped: files that cannot be read": 2, "dropped: rests of files that cannot be read": 1}
    (rest,) = found.drops.total.samples["dropped: rests of files that cannot be read"]
    told = re.search(r"c\.txt\.zst:(\d+): cannot be read beyond byte [\d,]+ of its text: Truncated", rest)
    assert told is not None
    # the line in which it breaks off; what there is of it, if anything, is the last document
    assert len(found.texts) - 1 <= int(told.group(1)) <= len(found.texts)


# -- the account ---------------------------------------------------------------------------------------------------------


def test_drops_are_counted_by_cause_and_file(tmp_path: Path) -> None:
    for name, rows in (("a", ["x", "", ""]), ("b", [""]), ("c", ["y", ""])):
        write(tmp_path / f"{name}.jsonl", "".join(json.dumps({"text": row}) + "\n" for row in rows))
    drops, taken = Drops(), list[tuple[str, dict[str, int]]]()
    cause = "dropped: empty documents"
    for document in read([tmp_path], drops):
        taken += [(Path(file).name, dict(losses.counts)) for file, losses in drops.take(before=document.file)]
        drops.add("dropped: by someone else", document.file, document.line, document.text)
    taken += [(Path(file).name, dict(losses.counts)) for file, losses in drops.take()]
    other, utf_8 = {"dropped: by someone else": 1}, {"read: files in utf-8": 1}
    assert taken == [("a.jsonl", {**utf_8, **other, cause: 2}), ("b.jsonl", {**utf_8, cause: 1}),
                     ("c.jsonl", {**utf_8, **other, cause: 1})]  # fmt: skip
    assert drops.total.counts == {cause: 4, "dropped: by someone else": 2, "read: files in utf-8": 3}
    assert drops.total.samples["dropped: by someone else"] == [f"{tmp_path}/a.jsonl:1: x", f"{tmp_path}/c.jsonl:1: y"]
    assert len(drops.total.samples[cause]) == 3


def test_samples_can_be_stored() -> None:
    drops = Drops()
    drops.add("dropped: something", "a.txt", 3, "one\ntwo\u3000\ud800\x00" + "x" * 1000)
    (sample,) = drops.total.samples["dropped: something"]
    assert sample.startswith(r"a.txt:3: one two \ud800\x00xxx")
    assert len(sample) < 150
    assert drops.total.counts == {"dropped: something": 1}
