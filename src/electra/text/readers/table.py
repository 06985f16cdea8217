"""Comma- and tab-separated tables -> the text of each row.

The first line has the names of the columns, unless they are given by numbers. Comma-separated files quote as RFC 4180, line
breaks included; tab-separated ones know no quoting. Empty lines are no rows; every row has as many columns as the first.

A quote that is not closed would swallow what follows. So a row over `LONGEST_ROW` characters is bad, and where bad rows are
left out, only the line is lost in which one begins: reading goes on with the line behind it.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from itertools import chain

from electra.text.readers.lines import LONGEST_ROW, row_lines
from electra.text.readers.source import BAD_ROW, NO_COLUMN, Source

_FIX = "mend or remove the row, or --errors skip"

Cells = Iterator[tuple[int, list[str]]]


def csv_rows(source: Source) -> Iterator[tuple[int, str]]:
    """(first line, text) of each row of a comma-separated file; several columns are joined by line breaks."""
    return _texts(source, _csv_cells(source))


def tsv_rows(source: Source) -> Iterator[tuple[int, str]]:
    """(line, text) of each row of a tab-separated file; several columns are joined by line breaks."""
    return _texts(source, _tsv_cells(source))


def _texts(source: Source, cells: Cells) -> Iterator[tuple[int, str]]:
    fields = source.options.text_field
    first = next(cells, None)
    if first is None:
        return
    line, names = first
    numbered = all(field.isdecimal() for field in fields)
    places = [[int(field) - 1] if numbered else [i for i, name in enumerate(names) if name == field] for field in fields]
    for field, found in zip(fields, places, strict=True):
        if len(found) != 1 or not 0 <= found[0] < len(names):
            why = f"{len(found)} columns are called {field!r}" if len(found) > 1 else f"no column {field!r}"
            has = ", ".join(name[:40] for name in names[:20])
            fix = f"choose with --text-field, by name, or by number if there is no header; this line has {len(names)}: {has}"
            source.lose(NO_COLUMN, "E-D105", line, why, fix)
            return
    for line, row in chain([first], cells) if numbered else cells:
        yield line, "\n".join(row[place] for (place,) in places if row[place])


def _tsv_cells(source: Source) -> Cells:
    width = 0
    for number, line in row_lines(source, "E-D104", _FIX):
        row = line.split("\t")
        if not line:
            continue
        width = width or len(row)
        if len(row) == width:
            yield number, row
        else:
            source.lose(BAD_ROW, "E-D104", number, _of_another_width(len(row), width), _FIX)


def _csv_cells(source: Source) -> Cells:
    csv.field_size_limit((1 << 31) - 1)  # the default refuses long texts; here `LONGEST_ROW` bounds them
    lines, width = _Lines(row_lines(source, "E-D104", _FIX)), 0
    while True:
        try:
            for row in csv.reader(lines, strict=True):
                width = width or len(row)
                if row and len(row) != width:
                    raise csv.Error(_of_another_width(len(row), width))
                if row:
                    yield lines.first, row
                lines.begin()
            return
        except csv.Error as error:
            source.lose(BAD_ROW, "E-D104", lines.first, f"malformed CSV: {error}", _FIX)
            lines.back()


def _of_another_width(found: int, width: int) -> str:
    return f"{found} columns where the first row has {width}"


class _Lines:
    """The lines that csv takes, of which those of the row in progress are kept, so that they can be read again."""

    def __init__(self, lines: Iterator[tuple[int, str]]) -> None:
        self._lines = lines
        self._row, self._again = list[tuple[int, str]](), deque[tuple[int, str]]()
        self._size = 0

    @property
    def first(self) -> int:
        """Where the row in progress begins."""
        return self._row[0][0]

    def begin(self) -> None:
        """A row is done."""
        self._row.clear()
        self._size = 0

    def back(self) -> None:
        """The row's first line is given up; the others come again."""
        self._again.extendleft(reversed(self._row[1:]))
        self.begin()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, line = self._again.popleft() if self._again else next(self._lines)
        self._row.append((number, line))
        self._size += len(line)
        if self._size > LONGEST_ROW:
            raise csv.Error(f"a quoted field that does not end within {LONGEST_ROW:,} characters")
        return f"{line}\n"
