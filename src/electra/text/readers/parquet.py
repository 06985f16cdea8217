"""Parquet -> the text of each row, by batches of the text's columns alone. `body.text` is a field of the struct `body`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from electra.text.readers.decode import decoded
from electra.text.readers.source import BROKEN_OFF, NO_COLUMN, UNREADABLE, Source, reason

#: bytes of text in a batch, about
_BATCH_BYTES = 1 << 22
_MOST_ROWS = 4096
#: buffered, or the column of a row group would be read whole, however large its writer made it
_OPTIONS = {"buffer_size": 1 << 20, "pre_buffer": False, "page_checksum_verification": True}
_TEXTS = ("string", "large_string", "string_view", "null")


def rows(source: Source) -> Iterator[tuple[int, str]]:
    """(row, text) of each row, counted from 1; several columns are joined by line breaks, null is nothing."""
    number = 0
    try:
        with source.path.open("rb") as raw, pq.ParquetFile(raw, **_OPTIONS) as file:
            fields = [(name, _way(file.schema_arrow, name)) for name in source.options.text_field]
            if not _all_text(source, file.schema_arrow, fields):
                return
            source.counts["read: files in utf-8"] += 1
            columns, size = [".".join(way) for _, way in fields], _batch_rows(file.metadata)
            for batch in file.iter_batches(size, columns=columns, use_threads=False):
                for values in zip(*(_values(batch, way) for _, way in fields), strict=True):
                    number += 1
                    texts = (decoded(source, value, number) for value in values if value)
                    yield number, "\n".join(texts)
    except (OSError, pa.ArrowException) as error:
        cause, where = (BROKEN_OFF, f" beyond row {number:,}") if number else (UNREADABLE, "")
        why = f"cannot be read{where}: {reason(error)}"
        source.lose(cause, "E-D101", number or None, why, "bring the whole file, remove it, or --errors skip")


def _way(schema: pa.Schema, name: str) -> list[str]:
    """From a column to the field within it; a column of that very name comes first."""
    return [name] if name in schema.names else name.split(".")


def _all_text(source: Source, schema: pa.Schema, fields: Iterable[tuple[str, list[str]]]) -> bool:
    for name, way in fields:
        kind: Any = pa.struct(list(schema))
        for part in way:
            kind = kind.field(part).type if pa.types.is_struct(kind) and kind.get_field_index(part) >= 0 else None
        leaf = kind.value_type if kind is not None and pa.types.is_dictionary(kind) else kind
        if leaf is None or str(leaf) not in _TEXTS:
            why = f"no column {name!r}" if kind is None else f"column {name!r} is not text, but {kind}"
            fix = f"choose with --text-field; this file has {', '.join(_names(schema))}"
            source.lose(NO_COLUMN, "E-D105", None, why, fix)
            return False
    return True


def _names(fields: Iterable[pa.Field]) -> Iterator[str]:
    """The names of all columns, as one gives them."""
    for field in fields:
        inner = list(field.type) if pa.types.is_struct(field.type) else []
        yield from (f"{field.name}.{name}" for name in _names(inner)) if inner else [field.name]


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """So many rows have about `_BATCH_BYTES`, all columns counted."""
    size = sum(int(metadata.row_group(i).total_byte_size) for i in range(metadata.num_row_groups))
    return max(1, min(_MOST_ROWS, _BATCH_BYTES * int(metadata.num_rows) // max(1, size)))


def _values(batch: pa.RecordBatch, way: list[str]) -> list[bytes | None]:
    """The text of a column as bytes: that a file calls them text does not make them UTF-8."""
    column = batch.column(way[0])
    for part in way[1:]:
        column = pc.struct_field(column, part)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values: list[bytes | None] = column.cast(pa.large_binary()).to_pylist()
    return values
