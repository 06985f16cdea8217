"""Columns of an Arrow file, of which pieces are read.

In: an uncompressed Arrow IPC file of one record batch of lists. Out: for each column, where in the file its numbers lie, and
any piece of them as an array.

Pieces are read, not mapped. A run visits rows at random, and each page that it touches in a mapping brings its neighbours
along, up to 2 MB, which count as memory of the run until the kernel wants them back. A file is opened for every piece, which
takes 2 microseconds: a large corpus has more files than a process may keep open.
"""

from __future__ import annotations

import mmap
import os
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from electra.errors import ElectraError


@dataclass(frozen=True, slots=True)
class Numbers:
    """[length] numbers that lie in a file. Reading them raises ElectraError E-D123 where it cannot be read any more."""

    path: Path
    position: int
    dtype: np.dtype[Any]
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, piece: slice) -> npt.NDArray[Any]:
        """Some that follow each other, read-only."""
        start, stop, _ = piece.indices(self.length)
        width = self.dtype.itemsize
        with _File(self.path) as file:
            return np.frombuffer(file.read(self.position + start * width, max(0, stop - start) * width), self.dtype)

    def first_above(self, value: int) -> int:
        """The place of the first number above `value`, if they rise; a number is read for each halving."""
        width = self.dtype.itemsize
        with _File(self.path) as file:
            return bisect_right(
                range(self.length), value,
                key=lambda place: int.from_bytes(file.read(self.position + place * width, width), "little"),
            )  # fmt: skip


class _File:
    """A file that is open within a block."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY)
        except OSError as error:
            raise damaged(self._path, f"cannot be read: {error.strerror}") from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self, position: int, size: int) -> bytes:
        try:
            data = os.pread(self._descriptor, size, position)
        except OSError as error:
            raise damaged(self._path, f"cannot be read: {error.strerror}") from None
        while len(data) < size:  # the system reads 2 GB at a time
            more = os.pread(self._descriptor, size - len(data), position + len(data))
            if not more:
                raise damaged(self._path, "has become shorter")
            data += more
        return data


def damaged(path: Path, cause: str) -> ElectraError:
    """What a user is told of a file that is not what it was when it was written."""
    return ElectraError("E-D123", str(path), cause, "copy the corpus again or rebuild it")


@dataclass(frozen=True, slots=True)
class Lists:
    """A column: list i holds values[offsets[i]:offsets[i + 1]]; those of bools are bits, eight in a number."""

    offsets: Numbers
    values: Numbers


def columns_of(path: Path) -> Mapping[str, Lists]:
    """The columns of a file, by name.

    Raises:
        OSError, ValueError, pyarrow.ArrowException: it cannot be read, or is no such file.
    """
    with path.open("rb") as file:
        whole = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))  # of which only head and foot are touched
    batch = pa.ipc.open_file(whole).get_batch(0)
    return {
        name: Lists(_numbers(path, whole, column.offsets), _numbers(path, whole, column.values))
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }


def _numbers(path: Path, whole: pa.Buffer, array: pa.Array) -> Numbers:
    bits = pa.types.is_boolean(array.type)
    dtype = np.dtype(np.uint8 if bits else array.type.to_pandas_dtype())
    length = (len(array) + 7) // 8 if bits else len(array)
    position = array.buffers()[1].address - whole.address if length else 0  # nothing may lie anywhere
    if not 0 <= position <= whole.size - length * dtype.itemsize:
        raise ValueError("its columns are compressed")
    return Numbers(path, position, dtype, length)
