"""Texts and what is to be written from each: translations, summaries, titles, questions, corrections.

In: a table, JSON lines, a JSON list, parquet; or sources alone, a text a line. Out: `Example(text, target)`, as they stand in
the file. Where the user names no columns, they are those of names that everyone uses (`source` and `target`, `text` and
`summary`, `content` and `title` ...); of a table without header, the two that it has, source first. Anything else is left open,
and is an error that shows the first row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from electra.contracts import Example, Reading
from electra.errors import ElectraError
from electra.tasks.readers.columns import Column, TargetColumns
from electra.tasks.readers.infer import PAIRS, TEXTS, fold
from electra.tasks.readers.reading import reading
from electra.tasks.readers.rows import Table, open_table
from electra.tasks.readers.source import LabelledFile, kind_of
from electra.tasks.readers.texts import text_field

#: names of a source and its target, the most certain first
TARGETS = (
    ("source", "target"), ("src", "tgt"), ("src", "dst"), ("source", "translation"), ("input", "output"), ("input", "target"),
    ("text", "target"), ("text", "summary"), ("document", "summary"), ("article", "highlights"), ("article", "summary"),
    ("dialogue", "summary"), ("content", "title"), ("abstract", "title"), ("abst", "title"), ("text", "title"),
    ("sentence", "correction"), ("prompt", "completion"), ("context", "question"), ("question", "answer"), *PAIRS,
)  # fmt: skip
_SOURCES = (*(name for name, _ in TARGETS), *TEXTS)
_DEFAULTS = TargetColumns()


def read_targets(path: Path, columns: TargetColumns = _DEFAULTS) -> Reading:
    """Texts with what is to be written from them; without it where the file has sources alone.

    Args:
        path: a file of any kind that `columns.format` names.
        columns: where source and target are; None = inferred, see the module.

    Raises:
        ElectraError: E-D300 no such file, E-D302 another encoding, E-D303 missing column, or a field that is no text, E-D304 a
            row of another width, E-D305 malformed CSV, E-D306 malformed JSON, E-D307 no rows, E-D332 columns that cannot be
            inferred; each with file and line.
    """
    file = LabelledFile(path, columns.encoding)
    form = columns.format or kind_of(file)
    if form == "lines":
        form = "tsv" if all("\t" in line for _, line in file.lines()) else "txt"
    if form == "txt":
        lines = (Example(text=line, where=file.at(number)) for number, line in file.lines())
        return reading(str(path), lines, ["one source a line, without targets"])
    table = open_table(file, form, [c for c in (columns.text, columns.target) if c is not None], _known_header)
    text, target = _columns(table, columns)
    headed = "" if table.headed or table.kind not in ("tsv", "csv") else " (no header)"
    shown = f"text = {text!r}, " + ("no target" if target is None else f"target = {target!r}")
    return reading(str(path), _examples(table, text, target), [f"{form}; columns: {shown}{headed}"], table.empty)


def _columns(table: Table, columns: TargetColumns) -> tuple[Column, Column | None]:
    """Source and target; the target may be absent."""
    if columns.text is not None:
        return table.require(columns.text, "text"), columns.target if columns.target in table.names else None
    if isinstance(table.names[0], int):
        return _by_number(table)
    names = {fold(name): name for name in table.names}
    for source, target in TARGETS:
        if source in names and target in names:
            return table.require(names[source], "text"), table.require(names[target], "target")
    found = list(dict.fromkeys(names[known] for known in _SOURCES if known in names))
    if len(found) == 1:
        return table.require(found[0], "text"), None
    raise ElectraError("E-D332", table.file.at(1), f"no source and target are known among {table.listed()}",
                       "set columns.text and columns.target to two of these")  # fmt: skip


def _by_number(table: Table) -> tuple[Column, Column | None]:
    if len(table.names) > 2:
        first = next(table.rows())[1]
        shown = ", ".join(f"{column} = {value[:40]!r}" for column, value in first.items())
        raise ElectraError("E-D332", table.file.at(1), f"no header, and {len(table.names)} columns; the first row has {shown}",
                           "set columns.text and columns.target to numbers, or to names if this row is a header")  # fmt: skip
    return 1, 2 if len(table.names) == 2 else None


def _known_header(cells: Sequence[str]) -> bool:
    names = {fold(cell) for cell in cells}
    return any(set(pair) <= names for pair in TARGETS) or (len(cells) == 1 and cells[0] in _SOURCES)


def _examples(table: Table, text: Column, target: Column | None) -> Iterator[Example]:
    for where, row in table.rows():
        wanted = None if target is None else text_field(where, row, target)
        given = {"id": str(row["id"])} if "id" not in (text, target) and row.get("id") not in (None, "") else {}
        yield Example(text=text_field(where, row, text), target=wanted, where=where, given=given)
