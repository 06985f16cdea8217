"""One file on its way from bytes to documents: where it is, how it is read, and where its losses are written down."""

from __future__ import annotations

import os
from pathlib import Path

from electra.errors import ElectraError
from electra.text.drops import Drops, printable
from electra.text.readers.options import ReadOptions

#: causes that several formats have
BAD_ROW = "dropped: rows that cannot be parsed"
NO_TEXT = "dropped: rows without the text field"
NO_COLUMN = "dropped: files without the text field"
UNREADABLE = "dropped: files that cannot be read"
BROKEN_OFF = "dropped: rests of files that cannot be read"


class Source:
    """A file that is being read.

    Attributes:
        name: the path as it is shown and stored.
        counts: what happened in this file, by cause.
    """

    def __init__(self, path: Path, options: ReadOptions, drops: Drops) -> None:
        self.path, self.options, self.name = path, options, shown(path)
        self.counts, self._drops = drops.begin(self.name), drops

    def lose(self, cause: str, code: str, line: int | None, why: str, fix: str) -> None:
        """Something bad is left out and counted under `cause`, if the user says so.

        Raises:
            ElectraError: `code`, at this file and line, otherwise.
        """
        if self.options.errors != "skip":
            where = self.name if line is None else f"{self.name}:{line}"
            raise ElectraError(code, where, printable(why), printable(fix))
        self._drops.add(cause, self.name, line, why)


def shown(path: str | Path) -> str:
    r"""A path that can be printed and stored: bytes that are not UTF-8 as `\xff`, line breaks and their like as `\n`."""
    return printable(os.fsencode(path).decode("utf-8", "backslashreplace"))


def reason(error: Exception) -> str:
    """Why the operating system or a library refused, in one line."""
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable(" ".join(told.split()).rstrip("."))
