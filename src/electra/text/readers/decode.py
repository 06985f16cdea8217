"""Bytes -> text in blocks, of an encoding that is given or certain, with line breaks as LF.

A byte order mark is certain and comes first, then what the user says, then UTF-8, which other encodings do not pass for.
Anything else is an error that names the byte and says which encodings would do: nothing is guessed.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from electra.errors import ElectraError
from electra.text.drops import printable
from electra.text.readers.encodings import certain, plausible
from electra.text.readers.find import COMPRESSION
from electra.text.readers.source import BROKEN_OFF, UNREADABLE, Source, reason

#: stands for bytes that cannot be decoded, until their document is left out; no text holds it
BAD = "\udcff"

_BLOCK_BYTES = 1 << 16
_MARKED = "electra.bad"
#: zero bytes that even places have more than odd ones, or less, per byte: UTF-16 and UTF-32 have them, UTF-8 does not
_NUL_SHARE = 0.2
_ON = "or go on with --errors replace or skip"
_REPLACED = "replaced: undecodable bytes"

codecs.register_error(_MARKED, lambda error: (BAD, cast(UnicodeDecodeError, error).end))


def text_blocks(source: Source) -> Iterator[str]:
    """The text of a file in blocks, without byte order mark."""
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    decoder, line = None, 1
    try:
        with _opened(source.path) as file:
            while raw := file.read(_BLOCK_BYTES):
                if decoder is None and (decoder := _decoder(source, raw)) is None:
                    return
                text = newlines.decode(decoder.decode(raw, line))
                line += text.count("\n")
                yield text
            if decoder is None:
                source.counts["skipped: empty files"] += 1
            else:
                yield newlines.decode(decoder.decode(b"", line), final=True)
    except (OSError, pa.ArrowException) as error:
        read = 0 if decoder is None else decoder.read
        cause, where = (BROKEN_OFF, f" beyond byte {read:,} of its text") if read else (UNREADABLE, "")
        why = f"cannot be read{where}: {reason(error)}"
        source.lose(cause, "E-D101", line if read else None, why, "bring the whole file, remove it, or --errors skip")


def decoded(source: Source, value: bytes, line: int) -> str:
    """The text of bytes that ought to be UTF-8, bad ones dealt with as the user says."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        if source.options.errors == "strict":
            raise ElectraError("E-D100", f"{source.name}:{line}", _what(error, error.start), f"mend the row, {_ON}") from None
    return _mended(source, value.decode(errors=_MARKED))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file without its compression. It is opened here: Arrow knows no paths that are not UTF-8."""
    compression = COMPRESSION.get(path.suffix.lower())
    with path.open("rb") as file:
        if compression is None:
            yield file
        else:
            with pa.input_stream(file, compression=compression) as plain:
                yield plain


def _decoder(source: Source, raw: bytes) -> _Decoder | None:
    """The decoder of a file that begins with `raw`, if its encoding is known; else the file is lost."""
    given = source.options.encoding
    encoding, mark = certain(raw) or (codecs.lookup(given or "utf-8").name, b"")
    why = fix = ""
    if not mark and encoding in ("utf-16", "utf-32"):
        why, fix = f"{encoding} without a byte order mark", f"--encoding {encoding}-le or {encoding}-be"
    elif not mark and given is None and abs(raw[::2].count(0) - raw[1::2].count(0)) > _NUL_SHARE * len(raw):
        why, fix = "so many zero bytes are in no UTF-8 text", f"if it is text, give its --encoding{plausible(raw, 0)}"
    elif not mark and given is None and b"\x1b$" in raw:
        why, fix = "escape sequences of ISO-2022 are in no UTF-8 text", "give its --encoding, iso2022_jp say"
    if why:
        source.lose("dropped: files of unknown encoding", "E-D100", None, why, fix)
        return None
    source.counts[f"read: files in {encoding}"] += 1
    return _Decoder(source, encoding, len(mark))


class _Decoder:
    """Decodes blocks and knows how many bytes they were."""

    def __init__(self, source: Source, encoding: str, skip: int) -> None:
        self.read = 0
        self._source, self._encoding, self._skip = source, encoding, skip
        self._strict = source.options.errors == "strict"
        self._decoder = codecs.getincrementaldecoder(encoding)("strict" if self._strict else _MARKED)
        self._ascii = True

    def decode(self, raw: bytes, line: int) -> str:
        """The text of the next bytes, of which the first stands in `line`; of what is left over, without any."""
        body = raw[self._skip :]
        self.read, self._skip = self.read + len(raw), 0
        try:
            text = self._decoder.decode(body, not raw)
        except UnicodeDecodeError as error:
            raise self._refusal(error, line) from None
        self._ascii = self._ascii and text.isascii()
        return text if self._strict else _mended(self._source, text)

    def _refusal(self, error: UnicodeDecodeError, line: int) -> ElectraError:
        before = io.IncrementalNewlineDecoder(None, translate=True).decode(
            error.object[: error.start].decode(self._encoding, "replace")
        )
        where = f"{self._source.name}:{line + before.count(chr(10))}"
        why = _what(error, self.read - len(error.object) + error.start)
        if self._source.options.encoding is not None:
            fix = f"is it of another encoding? Else mend the file, {_ON}"
        elif not (self._ascii and before.isascii()):
            fix = f"it is UTF-8 up to there: mend the file, {_ON}"
        else:
            fix = f"say what it is with --encoding{plausible(error.object, error.start)}, {_ON}"
        return ElectraError("E-D100", where, why, printable(fix))


def _what(error: UnicodeDecodeError, byte: int) -> str:
    return f"byte {byte} (0x{error.object[error.start]:02x}) is not {codecs.lookup(error.encoding).name.upper()}"


def _mended(source: Source, text: str) -> str:
    """`text` with U+FFFD in place of bad bytes, counted, if the user wants to keep it."""
    if source.options.errors != "replace" or BAD not in text:
        return text
    source.counts[_REPLACED] += text.count(BAD)
    return text.replace(BAD, "\ufffd")
