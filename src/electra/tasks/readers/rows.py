"""Files whose rows have named or numbered fields -> rows: tables, JSON lines, a JSON list of objects, parquet.

Tab-separated files know no quoting (as GLUE's), comma-separated ones quote as RFC 4180. Empty lines between the rows of a table
of several columns are no rows; they are counted. Anything else that is odd is an error that names file and line.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from electra.errors import ElectraError
from electra.tasks.readers.columns import Column
from electra.tasks.readers.reading import Mended
from electra.tasks.readers.source import Kind, LabelledFile
from electra.text.readers.source import reason

Row = tuple[str, Mapping[Column, Any]]
"""Where it is (`file:line`), and its fields."""

_LISTED = 20


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rows of a file, which can be read any number of times.

    Args:
        file: the file.
        kind: how it holds them.
        names: of the columns: strings, or numbers from 1 in a table without header. Of JSON lines, those of the first row.
        headed: the first line of the table names the columns.
        empty: counts empty lines between rows.
    """

    file: LabelledFile
    kind: Kind
    names: Sequence[Column]
    headed: bool
    empty: Mended = field(default_factory=lambda: Mended(what="empty lines between rows"))

    def rows(self) -> Iterator[Row]:
        """The rows in order."""
        if self.kind in _TABLES:
            return self._table_rows()
        return _object_rows(self.file, self.kind)

    def require(self, column: Column, role: str) -> Column:
        """`column`, if there is one of that name and only one.

        Raises:
            ElectraError: E-D303 missing, E-D331 two columns of that name, E-C312 a number where columns have names.
        """
        if isinstance(column, int) and self.kind not in _TABLES:
            raise ElectraError("E-C312", str(self.file.path), f"columns.{role} is a number, but {self.kind} has names",
                               f"set columns.{role} to a field's name")  # fmt: skip
        count = Counter(self.names)[column]
        where = self.file.at(1)
        if count == 0:
            raise ElectraError("E-D303", where, f"no column {column!r} among {self.listed()}",
                               f"set columns.{role} to one of these, or to a number if the file has no header")  # fmt: skip
        if count > 1:
            raise ElectraError("E-D331", where, f"{count} columns are called {column!r}", "rename them in the first line")
        return column

    def listed(self) -> str:
        """The names, for messages."""
        more = f" and {len(self.names) - _LISTED} more" if len(self.names) > _LISTED else ""
        return ", ".join(map(repr, self.names[:_LISTED])) + more

    def _table_rows(self) -> Iterator[Row]:
        self.empty.count, self.empty.first = 0, ""
        rows = _TABLES[self.kind](self.file)
        if self.headed:
            next(rows, None)
        for number, cells in rows:
            where = self.file.at(number)
            if len(cells) == len(self.names):
                yield where, dict(zip(self.names, cells, strict=True))
            elif cells == [""]:
                self.empty.add(where)
            else:
                raise ElectraError("E-D304", where, f"{len(cells)} columns where the first line has {len(self.names)}",
                                   "mend the row; a text must not hold the separator unquoted")  # fmt: skip


def open_table(file: LabelledFile, kind: Kind, named: Sequence[Column], known: Callable[[Sequence[str]], bool]) -> Table:
    """The table in `file`. Its first line is a header where columns are named, and where none are but `known` knows the names.

    Args:
        file: the file.
        kind: how it holds its rows; `lines` are those of `labelled_lines`.
        named: the columns that the user gave: all names, or all numbers, or none.
        known: whether the cells of a line are names of columns.

    Raises:
        ElectraError: E-D307 no rows.
    """
    if kind not in _TABLES:
        first = next(_object_rows(file, kind), None)
        if first is None:
            raise _no_rows(file)
        return Table(file=file, kind=kind, names=list(first[1]), headed=False)
    cells = next((cells for _, cells in _TABLES[kind](file)), None)
    if cells is None:
        raise _no_rows(file)
    headed = isinstance(named[0], str) if named else known(cells)
    names: Sequence[Column] = cells if headed else range(1, len(cells) + 1)
    return Table(file=file, kind=kind, names=list(names), headed=headed)


def _no_rows(file: LabelledFile) -> ElectraError:
    return ElectraError("E-D307", str(file.path), "holds no rows", "give a file with at least one")


# -- the kinds ----------------------------------------------------------------------------------------------------------


def _tsv(file: LabelledFile) -> Iterator[tuple[int, list[str]]]:
    return ((number, line.split("\t")) for number, line in file.lines())


def _csv(file: LabelledFile) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(2**31 - 1)  # the default refuses long texts
    reader = csv.reader((f"{line}\n" for _, line in file.lines()), strict=True)
    first_line = 1
    try:
        for row in reader:
            yield first_line, row or [""]
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise ElectraError(
            "E-D305", file.at(first_line), f"malformed CSV: {error}", "quote the field as RFC 4180 asks"
        ) from None


def _labelled_lines(file: LabelledFile) -> Iterator[tuple[int, list[str]]]:
    for number, line in file.lines():
        label, space, text = line.partition(" ")
        if not label or not space:
            raise ElectraError("E-D304", file.at(number), f"no label before a space in {line[:60]!r}",
                               "write a label, a space and a text a line, or set columns.format")  # fmt: skip
        yield number, [label, text]


_TABLES: dict[Kind, Callable[[LabelledFile], Iterator[tuple[int, list[str]]]]] = {
    "tsv": _tsv, "csv": _csv, "lines": _labelled_lines
}  # fmt: skip


def _object_rows(file: LabelledFile, kind: Kind) -> Iterator[Row]:
    match kind:
        case "jsonl":
            return ((file.at(number), row) for number, row in file.objects())
        case "parquet":
            return _parquet(file)
        case _:
            return _json_list(file)


def _json_list(file: LabelledFile) -> Iterator[Row]:
    value = file.value
    if not isinstance(value, list):
        raise ElectraError("E-D306", str(file.path), f"a JSON {type(value).__name__}, not a list of objects",
                           "write a list of objects, or one object a line")  # fmt: skip
    for number, row in enumerate(value, start=1):
        where = f"{file.path}#{number}"
        if not isinstance(row, dict):
            raise ElectraError("E-D306", where, f"a JSON {type(row).__name__}, not an object", "write a list of objects")
        yield where, row


def _parquet(file: LabelledFile) -> Iterator[Row]:
    number = 0
    try:
        with pq.ParquetFile(file.path) as table:
            for batch in table.iter_batches(1024, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield file.at(number), row
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        where = file.at(number + 1) if number else str(file.path)
        raise ElectraError("E-D302", where, f"cannot be read as parquet: {reason(error)}", "bring the whole file") from None
