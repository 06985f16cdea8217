"""A labelled file: its lines with their numbers, its JSON, and what kind of file it is.

Bytes become text as for corpora (`text.readers`): UTF-8 unless the user names another encoding, byte order marks understood,
CRLF and lone CR are line breaks, `.gz` and `.zst` are unpacked. The kind is the one that is named, else that of the suffix; a
name that says little (`.txt`, `.json`, unknown ones) leaves it to the content, see `kind_of`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from electra.errors import ElectraError
from electra.text.drops import Drops
from electra.text.readers.decode import text_blocks
from electra.text.readers.find import COMPRESSION
from electra.text.readers.lines import LONGEST_ROW, lines
from electra.text.readers.options import ReadOptions
from electra.text.readers.source import Source

#: how a file holds its rows: tables, JSON lines, one JSON value, parquet, or lines of text whose form depends on the task
Kind = Literal["tsv", "csv", "jsonl", "json", "parquet", "lines"]

_SUFFIXES: dict[str, Kind] = {".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_ROW_FIX = 'write one JSON object a line: {"text": "..."}'


@dataclass(frozen=True)
class LabelledFile:
    """One file, readable any number of times.

    Args:
        path: where it is.
        encoding: by Python's names; None = UTF-8.

    Raises:
        ElectraError: E-D300 no such file, E-C107 an encoding that is not known.
    """

    path: Path
    encoding: str | None = None

    def __post_init__(self) -> None:
        if not self.path.is_file():
            raise ElectraError("E-D300", str(self.path), "no such file", "give a file: .tsv, .csv, .jsonl, .parquet, .txt ...")

    def at(self, line: int) -> str:
        """`file:line`, for errors and examples."""
        return f"{self.path}:{line}"

    @property
    def suffix(self) -> str:
        """The suffix in small letters, that of a compression left out."""
        path = self.path.with_suffix("") if self.path.suffix.lower() in COMPRESSION else self.path
        return path.suffix.lower()

    def lines(self) -> Iterator[tuple[int, str]]:
        """(number from 1, line without its end), split at \\n, \\r\\n and \\r only (not at U+2028 and its like).

        Raises:
            ElectraError: E-D302 bytes of another encoding, or a file that cannot be read; E-D330 a line without end.
        """
        source = Source(self.path, ReadOptions(encoding=self.encoding), Drops())
        try:
            for number, line, ended in lines(text_blocks(source), LONGEST_ROW):
                if not ended:
                    raise ElectraError("E-D330", self.at(number), f"a line of more than {LONGEST_ROW:,} characters",
                                       "is it a text file? Break the line")  # fmt: skip
                yield number, line
        except ElectraError as error:
            if error.code not in ("E-D100", "E-D101"):
                raise
            advice = error.fix.partition(", or go on with")[0].partition("--encoding ")[2]
            fix = "convert the file to UTF-8, or set columns.encoding" + (f"; likely: {advice}" if advice else "")
            raise ElectraError("E-D302", error.where, error.cause, fix) from None

    def objects(self) -> Iterator[tuple[int, dict[Any, Any]]]:
        """(line, object) of each JSON line.

        Raises:
            ElectraError: E-D306 a line that is no JSON object.
        """
        for number, line in self.lines():
            row = _parsed(self.at(number), line, _ROW_FIX)
            if not isinstance(row, dict):
                raise ElectraError("E-D306", self.at(number), f"a JSON {type(row).__name__}, not an object", _ROW_FIX)
            yield number, row

    @cached_property
    def value(self) -> Any:
        """The one JSON value that the file holds; parsed once, and held as long as this is.

        Raises:
            ElectraError: E-D306 anything else.
        """
        text = "\n".join(line for _, line in self.lines())
        return _parsed(str(self.path), text, "is the file whole? Write one JSON value, or one object a line")


def kind_of(file: LabelledFile) -> Kind:
    """How `file` holds its rows. The suffix says it, but for `.json`: one value, or a value a line; and for `.txt` and unknown
    suffixes, which are lines, unless the first one begins a JSON object."""
    known = _SUFFIXES.get(file.suffix)
    if known is not None:
        return known
    first = next((line for _, line in file.lines() if line.strip()), "")
    if file.suffix != ".json" and not first.startswith(("{", "[{")):
        return "lines"
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        return "json"
    return "jsonl" if isinstance(row, dict) and not isinstance(row.get("data"), list) else "json"


def _parsed(where: str, text: str, fix: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ElectraError("E-D306", where, f"not a JSON value: {error}", fix) from None
