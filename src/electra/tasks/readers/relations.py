"""Relations between two mentions of a sentence: SemEval-2010 task 8, tables, JSON lines, Label Studio's export.

Out: `Example(text=sentence, target=relation)` with `given["head"]` and `given["tail"]`, each (start, end, type or None) in
characters of the sentence, which has no markers.

A table has the two mentions, the relation and the sentence in columns; without header, the sentence is the column that holds
two others in every row, which are head and tail in their order, and the relation is the one of few values. A mention that
occurs several times is taken at its first place that does not overlap the other mention, which is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from electra.contracts import Example, Reading
from electra.errors import ElectraError
from electra.tasks.readers import label_studio, spans
from electra.tasks.readers.columns import Column, RelationColumns
from electra.tasks.readers.infer import fold
from electra.tasks.readers.reading import Mended, reading
from electra.tasks.readers.rows import Table, open_table
from electra.tasks.readers.source import LabelledFile, kind_of
from electra.tasks.readers.texts import text_field

_DEFAULTS = RelationColumns()
#: rows that it takes to see which column of four is the relation
_FEWEST = 3
_HEADS = ("head", "subject", "subj", "e1", "entity1", "head_text")
_TAILS = ("tail", "object", "obj", "e2", "entity2", "tail_text")
_RELATIONS = ("relation", "label", "predicate", "rel")
_TEXTS = ("sentence", "text")
_SENTENCE = re.compile(r"(\d+)\t(.+)", re.DOTALL)
_MARKED = re.compile(r"(.*)<e1>(.+)</e1>(.*)<e2>(.+)</e2>(.*)", re.DOTALL)
_SWAPPED = re.compile(r"(.*)<e2>(.+)</e2>(.*)<e1>(.+)</e1>(.*)", re.DOTALL)
_MARKS_FIX = "mark the mentions with <e1>...</e1> and <e2>...</e2>, once each, not within each other"


def read_relations(path: Path, columns: RelationColumns = _DEFAULTS) -> Reading:
    """Sentences with two mentions and the relation between them.

    Args:
        path: SemEval's text form; a table; JSON lines {"text", "head": {"start", "end", "type"}, "tail": {...}, "relation"};
            Label Studio's export with relations. The content says which; `columns.format` can.
        columns: where a table has what; None = inferred.

    Returns:
        Examples as described above; target None where the file has no relations.

    Raises:
        ElectraError: E-D300 to E-D307 as `read_texts`; E-D332 columns that cannot be inferred; E-D337, E-D338 mentions that
            cannot be read or do not fit; E-D343 a mention that is not in its sentence, or only within the other; E-D344 a row
            of SemEval's form that is not in it.
    """
    file = LabelledFile(path, columns.encoding)
    form = columns.format or kind_of(file)
    if form == "lines":
        first = next((line for _, line in file.lines() if line.strip()), "")
        form = "semeval" if _SENTENCE.match(first) and "<e1>" in first else "tsv"
    if form == "semeval":
        return reading(str(path), _semeval(file), ["SemEval-2010 task 8; head = e1, tail = e2"])
    if form == "json" and label_studio.is_export(value := file.value):
        return label_studio.relations(path, value)
    if form in ("json", "jsonl"):
        return reading(str(path), _objects(open_table(file, form, (), lambda _: False)), ["JSON relations"])
    if form == "parquet":
        raise ElectraError("E-D301", str(path), "relations are not read from parquet", "give a table or JSON lines")
    return _read_table(file, form, columns)


# -- SemEval's text form ------------------------------------------------------------------------------------------------


def _semeval(file: LabelledFile) -> Iterator[Example]:
    block = list[tuple[int, str]]()
    for number, line in file.lines():
        if line.strip():
            block.append((number, line.strip()))
        elif block:
            yield _of_block(file, block)
            block = []
    if block:
        yield _of_block(file, block)


def _of_block(file: LabelledFile, block: Sequence[tuple[int, str]]) -> Example:
    number, line = block[0]
    where, found = file.at(number), _SENTENCE.fullmatch(line)
    rest = [line for _, line in block[1:] if not line.startswith("Comment:")]
    if found is None or len(rest) > 1:
        raise ElectraError("E-D344", where, f"not a number, a tab, a sentence, and a relation below: {line[:60]!r}",
                           "write three lines (sentence, relation, Comment:) and an empty one")  # fmt: skip
    sentence = found[2][1:-1] if found[2].startswith('"') and found[2].endswith('"') else found[2]
    text, first, second = _unmarked(where, sentence)
    given = {"head": first, "tail": second, "id": found[1]}
    return Example(text=text, target=rest[0] if rest else None, where=where, given=given)


def _unmarked(where: str, sentence: str) -> tuple[str, tuple[int, int, None], tuple[int, int, None]]:
    """The sentence without markers, and where e1 and e2 stand in it."""
    found = _MARKED.fullmatch(sentence)
    swapped = None if found else _SWAPPED.fullmatch(sentence)
    match = found or swapped
    parts = match.groups() if match else ()
    if not parts or any(mark in part for part in parts for mark in ("<e1>", "</e1>", "<e2>", "</e2>")):
        raise ElectraError("E-D344", where, f"no two marked mentions in {sentence[:60]!r}", _MARKS_FIX)
    starts = [sum(map(len, parts[:number])) for number in (1, 3)]
    places = [(start, start + len(parts[number]), None) for start, number in zip(starts, (1, 3), strict=True)]
    first, second = places if found else places[::-1]
    return "".join(parts), first, second


# -- JSON lines ---------------------------------------------------------------------------------------------------------


def _objects(table: Table) -> Iterator[Example]:
    for where, row in table.rows():
        text = text_field(where, row, "text" if "text" in row else "sentence")
        given = {role: _mention(where, text, row, role) for role in ("head", "tail")}
        relation = next((row[name] for name in ("relation", "label") if row.get(name) is not None), None)
        if relation is not None and not isinstance(relation, str):
            raise ElectraError("E-D306", where, f"relation {relation!r:.60} is no text", "mend the row")
        yield Example(text=text, target=relation, where=where, given=given | ({"id": str(row["id"])} if "id" in row else {}))


def _mention(where: str, text: str, row: Mapping[Column, Any], role: str) -> tuple[int, int, str | None]:
    value = row.get(role)
    if not isinstance(value, dict) or not all(type(value.get(end)) is int for end in ("start", "end")):
        raise ElectraError("E-D337", where, f"{role} is {value!r:.60}, not an object with start and end",
                           f'write "{role}": {{"start": 0, "end": 4, "type": "ORG"}}')  # fmt: skip
    start, end = spans.checked(where, text, value["start"], value["end"], value.get("text"))
    kind = value.get("type", value.get("label"))
    return start, end, None if kind is None else str(kind)


# -- tables -------------------------------------------------------------------------------------------------------------


def _read_table(file: LabelledFile, form: Any, columns: RelationColumns) -> Reading:
    named = [c for c in (columns.text, columns.head, columns.tail, columns.label) if c is not None]
    table = open_table(file, form, named, _known_header)
    if columns.text is not None and columns.head is not None and columns.tail is not None:
        places = [
            table.require(c, role) for c, role in ((columns.text, "text"), (columns.head, "head"), (columns.tail, "tail"))
        ]
        label = columns.label if columns.label in table.names else None
    elif isinstance(table.names[0], int):
        places, label = _by_content(table)
    else:
        places, label = _by_name(table)
    several = Mended(what="sentences in which a mention occurs several times; the first places that do not overlap are taken")
    notes = [f"{form}; columns: text = {places[0]!r}, head = {places[1]!r}, tail = {places[2]!r}, label = {label!r}"
             f"{'' if table.headed else ' (no header)'}"]  # fmt: skip
    return reading(str(file.path), _rows(table, places, label, several), notes, several, table.empty)


def _known_header(cells: Sequence[str]) -> bool:
    names = {fold(cell) for cell in cells}
    return all(any(name in names for name in known) for known in (_HEADS, _TAILS, _TEXTS))


def _by_name(table: Table) -> tuple[list[Column], Column | None]:
    names = {fold(name): name for name in table.names}
    found = [next((names[name] for name in known if name in names), None) for known in (_TEXTS, _HEADS, _TAILS, _RELATIONS)]
    places = [place for place in found[:3] if place is not None]
    if len(places) < 3:
        raise ElectraError("E-D303", table.file.at(1), f"no text, head and tail among {table.listed()}",
                           "set columns.text, columns.head, columns.tail and columns.label")  # fmt: skip
    return places, found[3]


def _by_content(table: Table) -> tuple[list[Column], Column | None]:
    """The only column that holds two others in every row, these two, and what is left of four."""
    if len(table.names) == 1:
        raise ElectraError("E-D368", table.file.at(1), "a text whose two mentions are not marked",
                           "mark them (<e1>Ann</e1> met <e2>Bo</e2>), or let --tagger find them")  # fmt: skip
    fits = {
        (text, head, tail)
        for text in table.names
        for head, tail in combinations([name for name in table.names if name != text], 2)
    }
    rows = 0
    for _, row in table.rows():
        rows += 1
        fits = {one for one in fits if row[one[1]] in row[one[0]] and row[one[2]] in row[one[0]]}
        if not fits:
            break
    left = [name for name in table.names if len(fits) == 1 and name not in next(iter(fits))]
    if len(fits) != 1 or len(left) > 1 or (left and rows < _FEWEST):
        shown = ", ".join(f"{column} = {value[:40]!r}" for column, value in next(table.rows())[1].items())
        raise ElectraError("E-D332", table.file.at(1),
                           f"no header, and after {rows} rows there are {len(fits)} ways to see sentence, head and tail; "
                           f"the first row has {shown}",
                           "set columns.text, columns.head, columns.tail and columns.label to numbers")  # fmt: skip
    return list(next(iter(fits))), left[0] if left else None


def _rows(table: Table, places: Sequence[Column], label: Column | None, several: Mended) -> Iterator[Example]:
    for where, row in table.rows():
        text, head, tail = (text_field(where, row, place) for place in places)
        target = None if label is None else text_field(where, row, label).strip()
        found = first_places(text, head, tail)
        if found is None:
            raise ElectraError("E-D343", where, f"{head!r} and {tail!r} do not both stand in {text[:60]!r} without overlap",
                               "mend the row: mentions are written as in the sentence")  # fmt: skip
        first, second, only = found
        if not only:
            several.add(where)
        given = {"head": (first, first + len(head), None), "tail": (second, second + len(tail), None)}
        yield Example(text=text, target=target, where=where, given=given)


def first_places(text: str, head: str, tail: str) -> tuple[int, int, bool] | None:
    """Where head and tail stand first without overlap, and whether that is the only way; None if there is no way."""
    if not head or not tail:
        return None
    ways = (
        (first, second)
        for first in _occurrences(text, head)
        for second in _occurrences(text, tail)
        if first + len(head) <= second or second + len(tail) <= first
    )
    found = next(ways, None)
    return None if found is None else (*found, next(ways, None) is None)


def _occurrences(text: str, part: str) -> Iterator[int]:
    place = text.find(part)
    while place >= 0:
        yield place
        place = text.find(part, place + 1)
