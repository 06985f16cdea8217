"""Files -> clean documents, as a generator.

In: files, folders (read recursively in sorted order) and globs of `.txt` and `.jsonl`, each also as `.gz` or `.zst`. Out: one
clean, non-empty `Document` after the other, with the place it came from; whatever was skipped, dropped or removed is counted.

A file is read block by block: bytes are decoded as UTF-8 where the first bad byte is known by its offset, line breaks (CRLF,
lone CR) become LF, lines become documents, and each document is cleaned. Text has no upper bound, memory has: whatever grows
beyond `LONGEST` characters is cut at a line break, a space or a sentence's end and goes on as the next document. So a line of
200 MB costs linear time and a few MB.
"""

from __future__ import annotations

import codecs
import glob
import io
import json
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from electra.errors import ElectraError
from electra.text.clean import Counts, clean
from electra.text.drops import Drops
from electra.text.readers.options import DocumentKind, Errors, ReadOptions

__all__ = ["READ_DEFAULTS", "Document", "ReadOptions", "find_files", "read"]

READ_DEFAULTS = ReadOptions()

#: characters; a longer document goes on as the next one
LONGEST = 1 << 17

_BLOCK_BYTES = 1 << 20
_SPLIT = "split: documents too long for one"
_COMPRESSION = {".gz": "gzip", ".zst": "zstd"}
_KNOWN = "known: .txt, .jsonl, each also with .gz or .zst behind it"


@dataclass(frozen=True, slots=True)
class Document:
    """Clean text, one sentence or paragraph a line, and where it begins (line counted from 1)."""

    text: str
    file: str
    line: int


def read(paths: Sequence[str | Path], drops: Drops, options: ReadOptions = READ_DEFAULTS) -> Iterator[Document]:
    """The clean, non-empty documents of `paths`, in order.

    Args:
        paths: files, folders and globs (`**` too). Every path is looked up before the first document is read.
        drops: what was skipped, dropped, removed and cut is added here; a file is begun before its first document comes.
        options: how files become documents.

    Raises:
        ElectraError: E-C100 nothing at a path, E-C101 a kind of file that is not known, E-D100 not UTF-8, E-D101 cannot be
            read, E-D102 a jsonl row that is no JSON object, E-D103 a row without text.
    """
    files = find_files(paths, drops)
    return _documents(files, drops, options)


def _documents(files: Iterable[Path], drops: Drops, options: ReadOptions) -> Iterator[Document]:
    for path in files:
        counts = drops.begin(str(path))
        texts = _decoded(path, options.errors, counts)
        rows = _kind(path) == ".jsonl"
        raw = _rows(path, texts, options.text_field[0], counts) if rows else _text_documents(texts, options.document, counts)
        for line, text in raw:
            if cleaned := clean(text, counts):
                yield Document(cleaned, str(path), line)
            else:
                drops.add("dropped: empty documents", str(path), line)


# -- which files ---------------------------------------------------------------------------------------------------------


def find_files(paths: Sequence[str | Path], drops: Drops) -> list[Path]:
    """The text files among `paths`, each once, folders and globs expanded in sorted order.

    In folders and globs, files of other kinds and hidden files are skipped and counted; a file that is named itself must be of
    a known kind. Symbolic links are followed, each folder and file once, so that loops end.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for path in paths:
        named = Path(path)
        try:
            exists, usable = named.exists(), named.is_dir() or (named.is_file() and _kind(named) is not None)
        except OSError as error:
            raise _unreadable(named, error) from None
        if exists and not usable:
            raise ElectraError("E-C101", str(path), "no kind of text file that is known here", _KNOWN)
        matches = [str(path)] if exists else sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (a pattern may be absolute)
        if not matches:
            raise ElectraError("E-C100", str(path), "no such file or folder, and no file matches", "check the path")
        for match in matches:
            _collect(Path(match), found, seen, drops)
    return found


def _collect(path: Path, found: list[Path], seen: set[tuple[int, int]], drops: Drops) -> None:
    """Adds `path`, or all that is below it, to `found`. `seen` holds (device, inode) of what was met before."""
    pending = [path]
    while pending:
        path = pending.pop()
        try:
            status = path.stat()
            folder = stat.S_ISDIR(status.st_mode)
            below = sorted(path.iterdir(), reverse=True) if folder else []
        except OSError as error:
            raise _unreadable(path, error) from None
        identity = (status.st_dev, status.st_ino)
        if not folder and (_kind(path) is None or not stat.S_ISREG(status.st_mode)):
            drops.add("skipped: files of another kind", str(path))
        elif identity in seen:
            drops.add("skipped: files and folders met a second time", str(path))
        elif folder:
            seen.add(identity)
            for child in below:
                if child.name.startswith("."):
                    drops.add("skipped: hidden files and folders", str(child))
                else:
                    pending.append(child)
        else:
            seen.add(identity)
            found.append(path)


def _kind(path: Path) -> str | None:
    """`.txt` or `.jsonl`, whatever the compression; None for other kinds."""
    name = path.with_suffix("") if path.suffix in _COMPRESSION else path
    return name.suffix if name.suffix in (".txt", ".jsonl") else None


def _unreadable(path: Path, error: Exception) -> ElectraError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ElectraError("E-D101", str(path), f"cannot be read: {reason}", "mend or remove the file")


# -- bytes -> text -------------------------------------------------------------------------------------------------------


def _decoded(path: Path, errors: Errors, counts: Counts) -> Iterator[str]:
    """The text of a file in blocks, without byte order mark, line breaks as LF."""
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    try:
        with _open(path) as file:
            raw = file.read(_BLOCK_BYTES)
            if not raw:
                counts["skipped: empty files"] += 1
            if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise ElectraError("E-D100", str(path), "begins like UTF-16", "convert it: iconv -f UTF-16 -t UTF-8")
            offset = len(codecs.BOM_UTF8) if raw.startswith(codecs.BOM_UTF8) else 0
            raw = raw[offset:]
            while raw:
                following = file.read(_BLOCK_BYTES)
                text, used = _decode(path, raw, offset, not following, errors, counts)
                yield newlines.decode(text, final=not following)
                raw, offset = raw[used:] + following, offset + used
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None


def _open(path: Path) -> BinaryIO:
    compression = _COMPRESSION.get(path.suffix)
    return cast(BinaryIO, pa.input_stream(str(path), compression=compression)) if compression else path.open("rb")


def _decode(path: Path, raw: bytes, offset: int, final: bool, errors: Errors, counts: Counts) -> tuple[str, int]:
    """The text of `raw` and how many bytes it took: a character may go on in the next block."""
    try:
        return codecs.utf_8_decode(raw, "strict", final)
    except UnicodeDecodeError as error:
        if errors == "strict":
            raise ElectraError(
                "E-D100",
                str(path),
                f"byte {offset + error.start} (0x{raw[error.start]:02x}) is not UTF-8",
                "convert the file to UTF-8, or read it with errors=replace",
            ) from None
    text, used = codecs.utf_8_decode(raw, "replace", final)
    counts["replaced: bytes that are not UTF-8"] += text.count("\ufffd") - raw[:used].count("\ufffd".encode())
    return text, used


# -- text -> documents ---------------------------------------------------------------------------------------------------


def _text_documents(texts: Iterator[str], kind: DocumentKind, counts: Counts) -> Iterator[tuple[int, str]]:
    """(first line, text) of each document of a text file."""
    lines, size, first = list[str](), 0, 1
    for number, line, ended in _lines(texts, LONGEST):
        separates = kind == "block" and (not line or line.isspace())
        overflows = size + len(line) > LONGEST
        if lines and (separates or overflows):
            counts.update([_SPLIT] if not separates else [])
            yield first, "\n".join(lines)
            lines, size = [], 0
        if separates:
            continue
        first = first if lines else number
        lines.append(line)
        size += len(line) + 1
        if kind == "line" or not ended:
            counts.update([_SPLIT] if not ended else [])
            yield first, "\n".join(lines)
            lines, size = [], 0
    if lines:
        yield first, "\n".join(lines)


def _rows(path: Path, texts: Iterator[str], text_field: str, counts: Counts) -> Iterator[tuple[int, str]]:
    """(line, text) of each row of a jsonl file."""
    for number, line, _ in _lines(texts, None):
        if not line or line.isspace():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ElectraError("E-D102", where, f"not JSON: {error}", "mend or remove the row") from None
        if not isinstance(row, dict):
            raise ElectraError("E-D102", where, "not a JSON object", 'write rows as {"text": "..."}')
        text = row.get(text_field)
        if not isinstance(text, str):
            cause = f"field {text_field!r} is not a string" if text_field in row else f"no field {text_field!r}"
            raise ElectraError("E-D103", where, cause, f"name the text field; this row has: {', '.join(list(row)[:9])}")
        pieces = cut(text.replace("\r\n", "\n").replace("\r", "\n"), LONGEST)
        counts.update([_SPLIT] * (len(pieces) - 1))
        for piece in pieces:
            yield number, piece


def _lines(texts: Iterable[str], longest: int | None) -> Iterator[tuple[int, str, bool]]:
    """(number, text, whether the line ends here) of each line; lines over `longest` characters come in pieces."""
    number, begun, size = 1, list[str](), 0
    for block in texts:
        head, *others = block.split("\n")
        begun.append(head)
        size += len(head)
        for following in others:
            yield from _finished_line(number, "".join(begun), longest)
            number, begun, size = number + 1, [following], len(following)
        if longest is not None and size > longest:
            *pieces, rest = cut("".join(begun), longest)
            yield from ((number, piece, False) for piece in pieces)
            begun, size = [rest], len(rest)
    if size:
        yield from _finished_line(number, "".join(begun), longest)


def _finished_line(number: int, line: str, longest: int | None) -> Iterator[tuple[int, str, bool]]:
    *pieces, rest = cut(line, longest) if longest is not None else [line]
    yield from ((number, piece, False) for piece in pieces)
    yield number, rest, True


def cut(text: str, longest: int) -> list[str]:
    """`text` in pieces of at most `longest` characters that join to it again.

    A piece ends behind a line break, else a space, else a sentence's end, if there is one in its second half; never before a
    combining mark, unless a piece is made of them.
    """
    pieces, start = [], 0
    while len(text) - start > longest:
        middle, end = start + longest // 2, start + longest
        ends = (max(text.rfind(mark, middle, end) for mark in marks) for marks in ("\n", " ", "。！？.!?"))
        stop = next((position + 1 for position in ends if position >= 0), end)
        while stop > middle and unicodedata.combining(text[stop]):
            stop -= 1
        stop = stop if stop > middle else end
        pieces.append(text[start:stop])
        start = stop
    return [*pieces, text[start:]]
