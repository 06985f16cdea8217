"""(key, document) records sorted on disk, in memory that does not grow with their number.

In: records in batches, documents ascending. Out: the same records in blocks, by key and then by document.

A radix sort, since keys are hashes and spread evenly: what is too large to be sorted in memory is dealt out into 64 files by
the highest six bits of the key that were not looked at yet, in one sequential pass, and each of these is sorted the same way.
Records that share all 64 bits are in order of their documents already. A file is deleted as soon as it is dealt out or done,
so the disk holds at most twice the records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

RECORD = np.dtype([("key", "<u8"), ("document", "<u8")])
Records = npt.NDArray[np.void]
Keys = npt.NDArray[np.uint64]

_IN_MEMORY = 1 << 16  # records: 4 MB, and twice as much again while they are sorted
_DEALT_BITS = 6


class DiskSort:
    """Records that wait on disk to be sorted.

    Args:
        path: a file to be made; others beside it begin with its name.
        in_memory: records held in memory at once.
    """

    def __init__(self, path: Path, in_memory: int = _IN_MEMORY) -> None:
        self._path, self._in_memory = path, in_memory

    def add(self, keys: Keys, documents: Keys) -> None:
        """More records; no document is below one that was added before."""
        records = np.empty(len(keys), dtype=RECORD)
        records["key"], records["document"] = keys, documents
        _append(self._path, records)

    def blocks(self) -> Iterator[Records]:
        """All records in order; once. Only a key with more than `in_memory` records reaches over several blocks."""
        if self._path.is_file():
            yield from self._sorted(self._path, 64 - _DEALT_BITS)

    def _sorted(self, path: Path, shift: int) -> Iterator[Records]:
        fits = path.stat().st_size <= self._in_memory * RECORD.itemsize
        one_key = shift <= -_DEALT_BITS
        if fits or one_key:
            for records in _blocks(path, self._in_memory):
                # documents ascend already, so a stable sort by key is one by (key, document)
                yield records if one_key else records[np.argsort(records["key"], kind="stable")]
            path.unlink()
        else:
            for part in self._deal(path, max(0, shift)):
                yield from self._sorted(part, shift - _DEALT_BITS)

    def _deal(self, path: Path, shift: int) -> list[Path]:
        """The files into which the records of `path` go, by six bits of their keys; those that get any, rising."""
        parts = dict[int, Path]()
        for records in _blocks(path, self._in_memory):
            digits = (records["key"] >> np.uint64(shift) & np.uint64((1 << _DEALT_BITS) - 1)).astype(np.uint8)
            order = np.argsort(digits, kind="stable")
            found, firsts = np.unique(digits[order], return_index=True)
            for digit, dealt in zip(found.tolist(), np.split(records[order], firsts[1:]), strict=True):
                parts[digit] = path.with_name(f"{path.name}-{digit:02}")
                _append(parts[digit], dealt)
        path.unlink()
        return [parts[digit] for digit in sorted(parts)]


def text_keys(texts: Sequence[str]) -> Keys:
    """[n] blake2b of each text, 64 bits: the key by which equal texts are found."""
    digests = b"".join([hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts])
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def is_among(keys: Keys, among: Keys) -> npt.NDArray[np.bool_]:
    """[n] whether each key is one of `among`, which rise."""
    if not len(among):
        return np.zeros(len(keys), np.bool_)
    places = np.searchsorted(among, keys)
    found: npt.NDArray[np.bool_] = among[np.minimum(places, len(among) - 1)] == keys
    return found


def _append(path: Path, records: Records) -> None:
    with path.open("ab") as file:  # opened each time: so nothing needs to be closed, and there are never too many open files
        file.write(records.data)


def _blocks(path: Path, records: int) -> Iterator[Records]:
    with path.open("rb") as file:
        while data := file.read(records * RECORD.itemsize):
            yield np.frombuffer(data, dtype=RECORD)
