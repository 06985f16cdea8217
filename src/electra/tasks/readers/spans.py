"""JSON lines with a text and its spans -> mentions.

Three forms, told apart by their fields, line by line:

    {"text": "...", "spans": [{"start": 0, "end": 4, "label": "PER"}]}      also called `entities` or `ents`, end exclusive
    {"text": "...", "label": [[0, 4, "PER"]]}                                triples, as doccano's, under any of these names
    {"text": "...", "label": {"name": {"surface": [[0, 3]]}}}                CLUE's, end inclusive

Where a span brings its surface (`text` or `surface`; CLUE's always), it must be the text at the span. A line without any of
these fields is unlabelled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from electra.contracts import Example, Mention, Reading
from electra.errors import ElectraError
from electra.tasks.readers.reading import Mended, in_order, reading
from electra.tasks.readers.rows import Row

_NAMES = ("spans", "entities", "ents", "label", "labels")
_FIX = 'write {"start": 0, "end": 4, "label": "PER"}, characters counted from 0, end exclusive'


def read(where: str, rows: Iterator[Row]) -> Reading:
    """The texts of JSON lines with their mentions, in the order of the text.

    Raises:
        ElectraError: E-D303 no text, E-D337 spans that cannot be read, E-D338 a span that does not fit its text.
    """
    twice = Mended(what="spans that were listed twice left out")
    overlap = Mended(what="spans overlap another one")

    def examples() -> Iterator[Example]:
        for place, row in rows:
            text = row.get("text")
            if not isinstance(text, str):
                raise ElectraError("E-D303", place, f"no text in field 'text' among {list(row)[:20]}", "name the field `text`")
            found = mentions_of(place, text, row)
            target = None if found is None else in_order(found)
            if found is not None and target is not None and len(target) < len(found):
                twice.add(place, len(found) - len(target))
            taken = 0
            for mention in target or ():
                overlap.add(place, int(mention.start < taken))
                taken = max(taken, mention.end)
            yield Example(text=text, target=target, where=place, given={"id": str(row["id"])} if "id" in row else {})

    return reading(where, examples(), ["JSON spans"], twice, overlap)


def mentions_of(where: str, text: str, row: Mapping[Any, Any]) -> list[Mention] | None:
    """The mentions in a row, in its order; None where it has none of the fields."""
    name = next((name for name in _NAMES if row.get(name) is not None), None)
    if name is None:
        return None
    value = row[name]
    if isinstance(value, dict):
        return list(_clue(where, text, value))
    if isinstance(value, list):
        return [span(where, text, one) for one in value]
    raise ElectraError("E-D337", where, f"{name!r} is {value!r:.80}, neither a list of spans nor CLUE's object", _FIX)


def span(where: str, text: str, one: Any) -> Mention:
    """One span, an object or a triple."""
    if isinstance(one, list) and len(one) == 3:
        one = dict(zip(("start", "end", "label"), one, strict=True))
    if not isinstance(one, dict) or not all(_whole(one.get(name)) for name in ("start", "end")):
        raise ElectraError("E-D337", where, f"not a span: {one!r:.80}", _FIX)
    label = one.get("label", one.get("type"))
    if not isinstance(label, str) or not label:
        raise ElectraError("E-D337", where, f"a span without label: {one!r:.80}", _FIX)
    start, end = checked(where, text, one["start"], one["end"], one.get("text", one.get("surface")))
    return Mention(start=start, end=end, label=label)


def checked(where: str, text: str, start: int, end: int, surface: object) -> tuple[int, int]:
    """The ends of a span that lies in its text and, where a surface is given, has it.

    Raises:
        ElectraError: E-D338.
    """
    if not 0 <= start < end <= len(text):
        raise ElectraError("E-D338", where, f"span {start}:{end} of {len(text)} characters", _FIX)
    if isinstance(surface, str) and text[start:end] != surface:
        raise ElectraError("E-D338", where, f"{surface!r} does not stand at {start}:{end}, but {text[start:end]!r}",
                           "mend the span; characters count from 0, the end is exclusive")  # fmt: skip
    return start, end


def _clue(where: str, text: str, value: dict[str, Any]) -> Iterator[Mention]:
    for label, surfaces in value.items():
        if not isinstance(surfaces, dict):
            raise ElectraError("E-D337", where, f"{label!r} is {surfaces!r:.80}, not {{surface: [[start, end]]}}", _FIX)
        for surface, places in surfaces.items():
            for place in places if isinstance(places, list) else [places]:
                if not isinstance(place, list) or len(place) != 2 or not all(map(_whole, place)):
                    raise ElectraError("E-D337", where, f"{place!r:.40} of {surface!r} is not [start, end]", _FIX)
                start, end = checked(where, text, place[0], place[1] + 1, surface)
                yield Mention(start=start, end=end, label=label)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
