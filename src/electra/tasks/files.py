"""Labelled files: .tsv, .csv, .jsonl or .txt in, `Example`s with the place they came from out.

Files are read by what `Columns` says and nothing is guessed. A column is a name, then the first line of a table must hold
it; or a number counted from 1, then the table has no header. A table without the label column is unlabelled. Tab-separated
files know no quoting (as GLUE's), comma-separated ones quote as RFC 4180. Byte order mark, CRLF and lone CR are understood;
anything else that is odd is an error that names file and line. Nothing is skipped.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from electra.config import STRICT
from electra.contracts import Example
from electra.errors import ElectraError

_LINE_ENDS = re.compile("\r\n|\r")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns of a table, or fields of a JSON line, hold what.

    Args:
        text: name of the column, or its number counted from 1 in a file without header.
        pair: the same for the second text; None = the task has one text.
        label: the same for the label; a file without this column is unlabelled.
    """

    __pydantic_config__ = STRICT
    text: str | int = "text"
    pair: str | int | None = None
    label: str | int | None = "label"

    def __post_init__(self) -> None:
        chosen = [column for column in (self.text, self.pair, self.label) if column is not None]
        if len({type(column) for column in chosen}) > 1:
            raise ElectraError("E-C310", "columns", f"names and numbers are mixed: {chosen}",
                               "give names (file with header) or numbers (file without) for text, pair and label")  # fmt: skip
        if any(isinstance(column, int) and column < 1 for column in chosen) or len(set(chosen)) < len(chosen):
            raise ElectraError(
                "E-C311", "columns", f"numbers start at 1 and no column serves twice: {chosen}", "mend the numbers"
            )


def read_examples(path: Path, columns: Columns) -> list[Example]:
    """The examples of a labelled or unlabelled file, in order; nothing is skipped.

    Args:
        path: .tsv, .csv, .jsonl, or .txt with one text a line (never labelled).
        columns: where the texts and the label are.

    Raises:
        ElectraError: E-D300 no such file, E-D301 unknown kind, E-D302 not UTF-8, E-D303 missing column, E-D304 a row of another
            width, E-D305 malformed CSV, E-D306 malformed JSON line, E-D307 no rows; each with file and line.
    """
    if not path.is_file():
        raise ElectraError("E-D300", str(path), "no such file", "give a .tsv, .csv, .jsonl or .txt file")
    readers = {".tsv": _read_tsv, ".csv": _read_csv, ".jsonl": _read_jsonl, ".txt": _read_txt}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ElectraError("E-D301", str(path), f"unknown kind of file {path.suffix!r}", f"known: {', '.join(readers)}")
    examples = list(reader(path, _decode(path), columns))
    if not examples:
        raise ElectraError("E-D307", str(path), "holds no rows", "give a file with at least one")
    return examples


def _decode(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ElectraError(
            "E-D302", f"{path}:{line}", f"byte {error.start} is not UTF-8", "convert the file to UTF-8"
        ) from None


def _lines(text: str) -> list[str]:
    """Lines at \\n, \\r\\n and \\r only (not at U+2028 and its like, which texts contain); the last line end ends a line."""
    lines = _LINE_ENDS.sub("\n", text).split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _read_txt(path: Path, text: str, columns: Columns) -> Iterator[Example]:
    for number, line in enumerate(_lines(text), start=1):
        yield Example(text=line, where=f"{path}:{number}")


def _read_tsv(path: Path, text: str, columns: Columns) -> Iterator[Example]:
    rows = ((number, line.split("\t")) for number, line in enumerate(_lines(text), start=1))
    return _from_rows(path, rows, columns)


def _read_csv(path: Path, text: str, columns: Columns) -> Iterator[Example]:
    return _from_rows(path, _csv_rows(path, text), columns)


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(2**31 - 1)  # the default refuses long texts; memory is bounded by the file, which is read already
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    first_line = 1
    try:
        for row in reader:
            yield first_line, row or [""]
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise ElectraError(
            "E-D305", f"{path}:{first_line}", f"malformed CSV: {error}", "quote the field as RFC 4180 asks"
        ) from None


def _from_rows(path: Path, rows: Iterator[tuple[int, list[str]]], columns: Columns) -> Iterator[Example]:
    """Tables: the first row is a header exactly when columns are named."""
    number, first = next(rows, (1, [""]))
    index = _column_indices(path, first, columns)
    if isinstance(columns.text, int) and first != [""]:
        yield _example(f"{path}:{number}", first, index)
    for number, row in rows:
        where = f"{path}:{number}"
        if len(row) != len(first):
            raise ElectraError("E-D304", where, f"{len(row)} columns where the first line has {len(first)}",
                               "mend the row; a text must not hold the separator unquoted")  # fmt: skip
        yield _example(where, row, index)


def _column_indices(path: Path, first: Sequence[str], columns: Columns) -> dict[str, int]:
    """Index of each role's column; the label may be absent."""
    index: dict[str, int] = {}
    for role, column in (("text", columns.text), ("pair", columns.pair), ("label", columns.label)):
        found = column - 1 if isinstance(column, int) else first.index(column) if column in first else len(first)
        if column is not None and found < len(first):
            index[role] = found
        elif column is not None and role != "label":
            raise ElectraError("E-D303", f"{path}:1", f"no column {column!r} among {', '.join(map(repr, first[:20]))}",
                               f"set columns.{role} to one of these, or to a number if the file has no header")  # fmt: skip
    return index


def _example(where: str, row: Sequence[str], index: dict[str, int]) -> Example:
    pair = row[index["pair"]] if "pair" in index else None
    label = row[index["label"]].strip() if "label" in index else None
    return Example(text=row[index["text"]], pair=pair, target=label, where=where)


def _read_jsonl(path: Path, text: str, columns: Columns) -> Iterator[Example]:
    if isinstance(columns.text, int):
        raise ElectraError(
            "E-C312", str(path), "columns are numbers, JSON lines have names", "set columns.text to a field's name"
        )
    for number, line in enumerate(_lines(text), start=1):
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ElectraError("E-D306", where, f"not a JSON value: {error}", "write one JSON object a line") from None
        if not isinstance(row, dict):
            raise ElectraError("E-D306", where, f"a JSON {type(row).__name__}, not an object", "write one JSON object a line")
        label = row.get(columns.label)
        pair = None if columns.pair is None else _text_field(where, row, columns.pair)
        target = None if label is None else _label_text(where, label)
        yield Example(text=_text_field(where, row, columns.text), pair=pair, target=target, where=where)


def _text_field(where: str, row: dict[str | int, object], name: str | int) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        cause = f"field {name!r} is {value!r:.80}, not a text" if name in row else f"no field {name!r} among {list(row)[:20]}"
        raise ElectraError("E-D303", where, cause, "mend the row, or set columns to the fields that hold text")
    return value


def _label_text(where: str, label: object) -> str:
    """Labels are names: 1 is "1", true is "true"."""
    if isinstance(label, str):
        return label.strip()
    if isinstance(label, int):
        return json.dumps(label)
    raise ElectraError("E-D306", where, f"label {label!r:.80} is neither text nor integer", "mend the row")
