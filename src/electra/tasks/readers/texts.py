"""Labelled texts and pairs of texts, as tables, JSON lines, parquet, lines of text, or Label Studio's export.

Out: `Example(text, pair, target)`, where the target is what stands in the file: a string, a number with a fraction (JSON 3.5;
the cells of tables are strings), a tuple of strings where there are several labels, None without a label. The task makes of
them what it needs. Whole numbers and booleans of JSON are names of labels: 1 is "1", true is "true".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from electra.contracts import Example, Reading
from electra.errors import ElectraError
from electra.tasks.readers import label_studio
from electra.tasks.readers.columns import Column, Columns, PairColumns
from electra.tasks.readers.infer import LABELS, TEXTS, Roles, by_content, by_name, fold, known_header, label_by_name
from electra.tasks.readers.reading import Mended, reading
from electra.tasks.readers.rows import Table, open_table
from electra.tasks.readers.source import Kind, LabelledFile, kind_of

_DEFAULTS = Columns()
_PAIR_DEFAULTS = PairColumns()


def read_texts(path: Path, columns: Columns = _DEFAULTS) -> Reading:
    """Texts or pairs of texts, labelled or not: for classification, regression, and tasks that take a text alone.

    Args:
        path: a file of any kind that `columns.format` names.
        columns: where texts and label are; None = inferred, see `readers.infer`.

    Returns:
        Examples with text, pair, target (see the module), where, and `given["id"]` if there is a column of that name.

    Raises:
        ElectraError: E-D300 no such file, E-D301 unknown kind, E-D302 another encoding, E-D303 missing column, E-D304 a row of
            another width, E-D305 malformed CSV, E-D306 malformed JSON, E-D307 no rows, E-D332 columns that cannot be inferred,
            E-D333, E-D369 a first row that may be a header; each with file and line.
    """
    file = LabelledFile(path, columns.encoding)
    form = columns.format or _form(file, columns.text)
    if form == "txt":
        lines = (Example(text=line, where=file.at(number)) for number, line in file.lines())
        return _counted(path, lines, ["one text a line, without labels"])
    kind: Kind = "lines" if form == "labelled-lines" else form
    if kind == "json" and label_studio.is_export(value := file.value):
        return label_studio.choices(path, value)
    named = [column for column in (columns.text, columns.pair, columns.label) if column is not None]
    table = open_table(file, kind, named, known_header)
    roles = _given(table, columns) if columns.text is not None else _inferred(table, columns)
    identified = "id" not in vars(roles).values()
    read = _counted(path, _examples(table, roles, columns.separator, identified), [_note(table, roles, form)], table.empty)
    inferred = vars(roles) if columns.text is None and table.kind in ("tsv", "csv") and not table.headed else {}
    return replace(read, inferred={role: column for role, column in inferred.items() if isinstance(column, int)})


def read_pairs(path: Path, columns: PairColumns = _PAIR_DEFAULTS) -> Reading:
    """Texts that belong together, for embeddings: pairs, triplets, pairs with a score or a label.

    Args:
        path: a table, JSON lines, a JSON list or parquet.
        columns: where the texts are; None = inferred: by name (`sentence1`/`sentence2`, `query`/`passage`,
            `anchor`/`positive`/`negative`, `score` ...), else two or three columns of text, and one of numbers or labels.

    Returns:
        Examples with text, pair, target (the score as it stands in the file, or None) and `given["negative"]` if there is one;
        without a pair where the file has single texts, to be embedded.

    Raises:
        ElectraError: as `read_texts`.
    """
    file = LabelledFile(path, columns.encoding)
    kind = columns.format or kind_of(file)
    kind = "tsv" if kind == "lines" else kind
    named = [c for c in (columns.text, columns.pair, columns.negative, columns.score) if c is not None]
    table = open_table(file, kind, named, known_header)
    if columns.text is not None:
        given = {"text": columns.text, "pair": columns.pair, "negative": columns.negative, "label": columns.score}
        known = {role: table.require(column, role) for role, column in given.items() if column is not None}
        roles = Roles(**known)
    else:
        roles = by_content(table, texts_only=True) if isinstance(table.names[0], int) else by_name(table)
    return _counted(path, _examples(table, roles, None), [_note(table, roles, kind)], table.empty)


def _counted(path: Path, examples: Iterable[Example], notes: list[str], *mended: Mended) -> Reading:
    """A `Reading` that counts empty texts."""
    empty = Mended(what="texts are empty")

    def looked_at() -> Iterator[Example]:
        for example in examples:
            if not example.text.strip() or (example.pair is not None and not example.pair.strip()):
                empty.add(example.where)
            yield example

    return reading(str(path), looked_at(), notes, empty, *mended)


# -- what kind of file, which columns -----------------------------------------------------------------------------------


def _form(file: LabelledFile, text: Column | None) -> Any:
    """The kind of a file by suffix and content.

    Lines are a table where all of them have the same number of tabs, two lines at least (and the first one names the column
    `text`, if it is given by name); else plain text if the name is `.txt`; else labelled lines, where what stands before the
    first space is a code.
    """
    kind = kind_of(file)
    if kind != "lines":
        return kind
    plain, widths, first_words, count = file.suffix == ".txt", set[int](), set[str](), 0
    for _, line in file.lines():
        if count == 0 and isinstance(text, str) and text not in line.split("\t"):
            widths.add(0)  # no table with this column
        if line:
            count += 1
            widths.add(line.count("\t"))
            first_words.add(line.partition(" ")[0] if " " in line else "")
        if plain and (len(widths) > 1 or 0 in widths):
            return "txt"
    if len(widths) == 1 and 0 not in widths and count > 1:
        return "tsv"
    if plain:
        return "txt"
    if count >= 4 and "" not in first_words and 2 <= len(first_words) <= max(2, count // 10):
        return "labelled-lines"
    raise ElectraError("E-D301", str(file.path), f"unknown kind of file {file.suffix!r}",
                       "known: .tsv, .csv, .jsonl, .json, .parquet, .txt; say what it is with columns.format")  # fmt: skip


def _given(table: Table, columns: Columns) -> Roles:
    """The columns that the user gave; the label may be absent, and is inferred by its name where it is not given."""
    assert columns.text is not None
    _check_no_header(table, columns)
    pair = None if columns.pair is None else table.require(columns.pair, "pair")
    label = columns.label if columns.label is not None else label_by_name(table)
    return Roles(text=table.require(columns.text, "text"), pair=pair, label=_present(table, label))


def _check_no_header(table: Table, columns: Columns) -> None:
    """A header would become an example, with a label of its own, where columns are numbers."""
    if not isinstance(columns.text, int) or columns.label is None or columns.label not in table.names:
        return
    first = next(table.rows())[1]
    names = [first[column] for column in (columns.text, columns.label) if column in first]
    if len(names) == 2 and fold(names[0]) in TEXTS and fold(names[1]) in LABELS:
        raise ElectraError("E-D369", table.file.at(1), f"the first row has the names {' and '.join(map(repr, names))}, "
                           "but columns are given as numbers", "give names, or take the line out")  # fmt: skip


def _inferred(table: Table, columns: Columns) -> Roles:
    if table.kind == "lines":
        return Roles(text=2, label=1)
    kept = columns.inferred or {}
    if "text" in kept and isinstance(table.names[0], int) and len(table.names) > 1:
        label = columns.label if columns.label is not None else kept.get("label")
        return _given(table, replace(columns, text=kept["text"], pair=kept.get("pair"), label=label))
    given = columns.label if columns.label in table.names else None
    roles = by_content(table, given) if isinstance(table.names[0], int) else by_name(table, given)
    label = columns.label if columns.label is not None else roles.label
    pair = None if roles.pair is None else table.require(roles.pair, "pair")
    return Roles(text=table.require(roles.text, "text"), pair=pair, label=_present(table, label))


def _present(table: Table, label: Column | None) -> Column | None:
    """A label that a table lacks is none; JSON lines may have it in later rows."""
    if label is None and table.kind in ("jsonl", "json"):
        return "label"
    return label if label in table.names or table.kind in ("jsonl", "json") else None


def _note(table: Table, roles: Roles, form: str) -> str:
    found = {"text": roles.text, "pair": roles.pair, "negative": roles.negative, "label": roles.label}
    shown = ", ".join(f"{role} = {column!r}" for role, column in found.items() if column is not None)
    without = "" if roles.label is not None else ", no label"
    header = "" if table.headed or table.kind not in ("tsv", "csv") else " (no header)"
    return f"{form}; columns: {shown}{without}{header}"


# -- rows -> examples ---------------------------------------------------------------------------------------------------


def _examples(table: Table, roles: Roles, separator: str | None, identified: bool = False) -> Iterator[Example]:
    for where, row in table.rows():
        pair = None if roles.pair is None else text_field(where, row, roles.pair)
        given = {} if roles.negative is None else {"negative": text_field(where, row, roles.negative)}
        if identified and row.get("id") not in (None, ""):
            given["id"] = str(row["id"])
        value = None if roles.label is None else row.get(roles.label)
        target = None if value is None else _target(where, value, separator)
        yield Example(text=text_field(where, row, roles.text), pair=pair, target=target, where=where, given=given)


def text_field(where: str, row: Mapping[Column, Any], name: Column) -> str:
    """The text in a field of a row.

    Raises:
        ElectraError: E-D303 there is none.
    """
    value = row.get(name)
    if not isinstance(value, str):
        cause = f"field {name!r} is {value!r:.80}, not a text" if name in row else f"no field {name!r} among {list(row)[:20]}"
        raise ElectraError("E-D303", where, cause, "mend the row, or set columns to the fields that hold text")
    return value


def _target(where: str, value: Any, separator: str | None) -> str | float | tuple[str, ...]:
    """Labels are names; several are a tuple; a number with a fraction is a number."""
    if isinstance(value, list):
        return tuple(_name(where, one) for one in value)
    if isinstance(value, float):
        return value
    name = _name(where, value)
    return name if separator is None else tuple(one.strip() for one in name.split(separator) if one.strip())


def _name(where: str, value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int):
        return json.dumps(value)
    raise ElectraError("E-D306", where, f"label {value!r:.80} is neither text nor number", "mend the row")
