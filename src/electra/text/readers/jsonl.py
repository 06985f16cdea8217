"""JSON lines -> the text of each row. A field is found by its name, or by its way through objects: `body.text`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from electra.text.readers.lines import row_lines
from electra.text.readers.source import BAD_ROW, NO_TEXT, Source

_FIX = 'write a JSON object a line: {"text": "..."}'


def rows(source: Source) -> Iterator[tuple[int, str]]:
    """(line, text) of each row; several fields are joined by line breaks, null is nothing."""
    for number, line in row_lines(source, "E-D102", _FIX):
        if not line or line.isspace():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = f"{error.msg}: column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
            source.lose(BAD_ROW, "E-D102", number, f"not JSON: {why}", "mend or remove the row, or --errors skip")
            continue
        if not isinstance(row, dict):
            source.lose(BAD_ROW, "E-D102", number, "not a JSON object", _FIX)
            continue
        values = [_value(row, name) for name in source.options.text_field]
        wrong = next((i for i, value in enumerate(values) if not isinstance(value, str | None)), None)
        if wrong is None:
            yield number, "\n".join(value for value in values if isinstance(value, str) and value)
            continue
        name = source.options.text_field[wrong]
        why = f"no field {name!r}" if values[wrong] is _ABSENT else f"field {name!r} is not a string"
        has = ", ".join(list(_names(row))[:20])
        source.lose(NO_TEXT, "E-D103", number, why, f"choose with --text-field; this row has {has}")


_ABSENT = object()


def _value(row: Mapping[str, Any], name: str) -> object:
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return _ABSENT
        value = value[part]
    return value


def _names(row: Mapping[str, Any]) -> Iterator[str]:
    """The names of all fields, as one gives them."""
    for name, value in row.items():
        if isinstance(value, dict) and value:
            yield from (f"{name}.{inner}" for inner in _names(value))
        else:
            yield name
