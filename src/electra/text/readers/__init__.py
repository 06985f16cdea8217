"""Files -> clean documents, as a generator.

In: files, folders (read recursively in sorted order) and globs of `.txt`, `.jsonl`, `.csv`, `.tsv`, each also as `.gz` or
`.zst`, and `.parquet`. Out: one clean, non-empty `Document` after the other, with the place it came from; whatever was skipped,
dropped or removed is counted.

    find     paths -> files
    decode   bytes -> text in blocks, of an encoding that is given or certain
    plain, jsonl, table, parquet     -> (line, text) of each document, one format a file
    here     -> cut, cleaned, counted

Everything goes block by block. Text has no upper bound, memory has: whatever grows beyond `LONGEST` characters is cut at a line
break, a space or a sentence's end and goes on as the next document. So a line of 200 MB costs linear time and a few MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from electra.text.clean import Counts, clean
from electra.text.drops import Drops
from electra.text.readers import jsonl, plain, table
from electra.text.readers.decode import BAD
from electra.text.readers.find import find_files, kind_of
from electra.text.readers.lines import LONGEST, SPLIT, cut
from electra.text.readers.options import FileKind, ReadOptions
from electra.text.readers.source import Source, shown

__all__ = ["READ_DEFAULTS", "Document", "ReadOptions", "cleaned", "find_files", "read", "read_files", "shown", "try_files"]

READ_DEFAULTS = ReadOptions()


def _parquet_rows(source: Source) -> Iterator[tuple[int, str]]:
    from electra.text.readers import parquet  # not before there is such a file: its libraries take 20 MB of memory

    return parquet.rows(source)


_FORMATS: dict[FileKind, Callable[[Source], Iterator[tuple[int, str]]]] = {
    "txt": plain.documents,
    "jsonl": jsonl.rows,
    "csv": table.csv_rows,
    "tsv": table.tsv_rows,
    "parquet": _parquet_rows,
}


@dataclass(frozen=True, slots=True)
class Document:
    """Clean text, one sentence or paragraph a line, and where it begins: line, or row of a parquet file, counted from 1."""

    text: str
    file: str
    line: int


def batches(documents: Iterable[Document], characters: int) -> Iterator[list[Document]]:
    """The documents in lists of about `characters`, for calls that are worth it with many only."""
    batch, size = list[Document](), 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def read(paths: Sequence[str | Path], drops: Drops, options: ReadOptions = READ_DEFAULTS) -> Iterator[Document]:
    """The clean, non-empty documents of `paths`, in order.

    Every path is looked up before the first document is read, and unless bad rows are skipped the first row of every file with
    fields, so that a wrong name is not found at the end of a long reading.

    Args:
        paths: files, folders and globs (`**` too).
        drops: what was skipped, dropped, removed and cut is added here; a file is begun before its first document comes.
        options: how files become documents.

    Raises:
        ElectraError: E-C100 nothing at a path, E-C101 a kind of file that is not known, E-D100 bytes of another encoding,
            E-D101 cannot be read, E-D102 a row that is no JSON object, E-D103 a row without text, E-D104 malformed CSV or a
            row of another width than the first, E-D105 a table without the column.
    """
    files = find_files(paths, drops, options)
    try_files(files, options)
    return read_files(files, drops, options)


def try_files(files: Iterable[Path], options: ReadOptions) -> None:
    """Reads the first row of every file with fields, unless bad rows are skipped. Raises as `read`."""
    for path in files:
        kind = kind_of(path, options)
        if options.errors != "skip" and kind is not None and kind != "txt":
            next(_FORMATS[kind](Source(path, options, Drops())), None)


def read_files(files: Iterable[Path], drops: Drops, options: ReadOptions) -> Iterator[Document]:
    """The same of files that `find_files` found."""
    for path in files:
        source, kind = Source(path, options, drops), kind_of(path, options)
        assert kind is not None
        for line, text in _FORMATS[kind](source):
            if options.errors == "skip" and BAD in text:
                drops.add("dropped: documents with undecodable bytes", source.name, line, text.replace(BAD, "\ufffd"))
                continue
            yield from cleaned(text, source.name, line, source.counts, drops)


def cleaned(text: str, file: str, line: int, counts: Counts, drops: Drops) -> Iterator[Document]:
    """What was read as one document, as the clean ones that it makes: none, one, or several if it is very long.

    Args:
        text: as it was decoded.
        file, line: where it begins.
        counts: those of the file.
        drops: which the file was begun in.
    """
    pieces = cut(text, LONGEST)
    if len(pieces) > 1:
        counts[SPLIT] += len(pieces) - 1
    for piece in pieces:
        if remaining := clean(piece, counts):
            yield Document(remaining, file, line)
        else:
            drops.add("dropped: empty documents", file, line)
