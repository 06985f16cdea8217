"""What a frozen generator sampled, on disk, so that runs that ask for the same samples compute them once.

In: a key for each micro-batch, and the tokens that were sampled for it. Out: the same tokens, or None where nobody has put any.

    DIRECTORY/CONTEXT/NAME.samples      one file for each process that computed samples
      magic, context                    32 bytes
      key, count, tokens, checksum      a record for each micro-batch: 16 + 4 + 2 or 4 bytes a token + 8

CONTEXT is a hash of all that samples depend on and that stays the same in a run, so samples of another generator are never met.
Nobody writes into a file that another process has made: runs that write at once do not meet, and at worst compute the same
record twice. A record is one write at the end of a file, so that a crash leaves at most one torn record, the last of its file,
which is passed over. What another run adds later is seen at the next start. Every record that is used is compared with its
checksum, which covers context and key; one that differs ends the run.
"""

from __future__ import annotations

import hashlib
import os
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from electra.errors import ElectraError
from electra.storage import unwritable

_MAGIC = b"electra samples1"
_RECORD = struct.Struct("<16sI")
_CHECKSUM = 8


def digest(*parts: bytes, size: int = 16) -> bytes:
    """blake2b of `parts`, each with its length, so that no two lists of parts are taken for one another."""
    whole = hashlib.blake2b(digest_size=size)
    for part in parts:
        whole.update(struct.pack("<Q", len(part)) + part)
    return whole.digest()


class SampleCache:
    """The samples of one context.

    Args:
        directory: shared by all contexts; made when something is to be written.
        context: 16 bytes, what all samples depend on.
        vocabulary: number of tokens, which says how many bytes each takes.

    Raises:
        ElectraError: E-D510 a file is not what its place says, E-R002 one cannot be read.
    """

    def __init__(self, directory: Path, context: bytes, vocabulary: int) -> None:
        self._place, self._context = directory / context.hex(), context
        self._type = np.dtype("<u2" if vocabulary <= 1 << 16 else "<u4")
        self._records: dict[bytes, tuple[Path, int, int]] = {}
        #: this process's own; made when there is something to write
        self._file = self._place / f"{uuid.uuid4().hex}.samples"
        #: bytes of the files that were found, and of what was added
        self.size = 0
        try:
            for path in sorted(self._place.glob("*.samples")):
                self._records |= self._index(path)
        except OSError as error:
            raise unwritable(self._place, error) from None

    def __len__(self) -> int:
        """Micro-batches."""
        return len(self._records)

    def find(self, key: bytes, count: int) -> npt.NDArray[np.int64] | None:
        """The samples under `key`, int64 [count]; None where there are none.

        Raises:
            ElectraError: E-D510 they are damaged.
        """
        known = self._records.get(key)
        if known is None:
            return None
        path, begin, stored = known
        with path.open("rb") as file:
            file.seek(begin)
            tokens = file.read(stored * self._type.itemsize)
            checksum = file.read(_CHECKSUM)
        if stored != count or checksum != self._checksum(key, tokens):
            raise _damaged(path, f"the samples at byte {begin} are not as they were written")
        return np.frombuffer(tokens, self._type).astype(np.int64)

    def keep(self, key: bytes, tokens_N: npt.NDArray[np.int64]) -> None:
        """Store samples under a `key` that has none.

        Raises:
            ElectraError: E-R001 the disk is full, E-R002 the directory cannot be written.
        """
        data = tokens_N.astype(self._type).tobytes()
        record = _RECORD.pack(key, len(tokens_N)) + data + self._checksum(key, data)
        try:
            if not self._file.exists():
                self._place.mkdir(parents=True, exist_ok=True)
                record = _MAGIC + self._context + record
            with self._file.open("ab", buffering=0) as file:  # one write
                end = file.tell() + file.write(record)
        except OSError as error:
            raise unwritable(self._place, error) from None
        self._records[key] = self._file, end - _CHECKSUM - len(data), len(tokens_N)
        self.size += len(record)

    def _index(self, path: Path) -> dict[bytes, tuple[Path, int, int]]:
        """Where the records of a file are."""
        size = path.stat().st_size
        with path.open("rb") as file:
            begun = file.read(len(_MAGIC) + len(self._context))
            if not (_MAGIC + self._context).startswith(begun):
                raise _damaged(path, "it holds samples of something else, or is no file of samples")
            found = dict(self._walk(file, path, size))
        self.size += size
        return found

    def _walk(self, file: BinaryIO, path: Path, size: int) -> Iterator[tuple[bytes, tuple[Path, int, int]]]:
        """Records from the file's place on; a torn one at the end is left out."""
        while len(head := file.read(_RECORD.size)) == _RECORD.size:
            key, count = _RECORD.unpack(head)
            begin = file.tell()
            end = begin + count * self._type.itemsize + _CHECKSUM
            if end > size:
                return
            yield key, (path, begin, count)
            file.seek(end)

    def _checksum(self, key: bytes, tokens: bytes) -> bytes:
        return digest(self._context, key, tokens, size=_CHECKSUM)


def bytes_of(count: int, vocabulary: int) -> int:
    """What a cache takes for `count` samples of a vocabulary, without the few bytes of each micro-batch."""
    return count * (2 if vocabulary <= 1 << 16 else 4)


def _damaged(path: Path, cause: str) -> ElectraError:
    return ElectraError("E-D510", os.fspath(path), cause, "remove this file: its samples are computed again")
