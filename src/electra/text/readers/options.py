"""How files are read, as one value that goes from the command line to the readers."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Literal

from electra.config import STRICT
from electra.errors import ElectraError

#: what makes one document of a text file: the whole file, lines up to an empty line, or a line
DocumentKind = Literal["file", "block", "line"]
#: the kinds of files; each but parquet also with .gz or .zst behind its name
FileKind = Literal["txt", "jsonl", "csv", "tsv", "parquet"]
#: what happens at something bad: stop; or go on, with U+FFFD in place of bad bytes; or go on without it
Errors = Literal["strict", "replace", "skip"]

#: Python's codecs for other things than the text of files
_ESCAPES = ("idna", "punycode", "raw-unicode-escape", "unicode-escape")


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How files become documents.

    Args:
        document: what one document of a text file is; a row of any other file always is one.
        text_field: the fields of a row that hold its text, joined by line breaks; `body.text` lies within `body`. Numbers are
            columns of `.csv` and `.tsv` files without header, counted from 1.
        encoding: of every file without byte order mark, by Python's names; None = UTF-8, and an error where a file is not.
        format: the kind of all files, whatever their names; None = by the name.
        errors: `strict` stops at the first bad byte, row or file; `replace` stops at bad rows and files only, bad bytes become
            U+FFFD; `skip` leaves out documents with bad bytes, bad rows and what cannot be read. All is counted.

    Raises:
        ElectraError: E-C107 an encoding that is not known, E-C108 no text field.
    """

    __pydantic_config__ = STRICT
    document: DocumentKind = "block"
    text_field: tuple[str, ...] = ("text",)
    encoding: str | None = None
    format: FileKind | None = None
    errors: Errors = "strict"

    def __post_init__(self) -> None:
        if not self.text_field or not all(self.text_field):
            raise ElectraError("E-C108", "text_field", "names no field", "name the field that holds the text")
        if self.encoding is not None and not _is_known(self.encoding):
            fix = "see Python's list of standard encodings: gb18030, big5, shift_jis, cp1252, latin-1, utf-16 ..."
            raise ElectraError("E-C107", "encoding", f"{self.encoding!r} is not known", fix)


def _is_known(encoding: str) -> bool:
    try:
        "a".encode(encoding)
    except (LookupError, ValueError):  # `rot13`, which is not of text; `undefined`, which raises a ValueError
        return False
    return codecs.lookup(encoding).name.replace("_", "-") not in _ESCAPES
