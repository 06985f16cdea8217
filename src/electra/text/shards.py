"""Rows of tokens -> Arrow shards.

In: record batches with a document a row, one after the other. Out: `shard-00000.arrow` ..., each with its size and hash.
Documents wait in memory until there are enough tokens for a shard, are shuffled, keyed by (seed, number of the shard), and
written as one record batch, uncompressed, so that a reader maps each column as one array.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from electra.storage import sync
from electra.text.manifest import Shard


class ShardWriter:
    """Collects the documents of one shard after the other.

    Args:
        directory: where the files go.
        seed: keys the order of the documents within each shard.
        shards: those that lie there already.
    """

    def __init__(self, directory: Path, seed: int, shards: Iterable[Shard] = ()) -> None:
        self._directory, self._seed = directory, seed
        self.shards = list(shards)
        self.tokens = 0
        self._waiting: list[pa.RecordBatch] = []

    def add(self, rows: pa.RecordBatch, tokens: int) -> None:
        """Documents for the shard that is not written yet, `tokens` in all."""
        self._waiting.append(rows)
        self.tokens += tokens

    def write(self) -> None:
        """The documents that were added since the last time become a shard."""
        batch, name = self._shuffled(), f"shard-{len(self.shards):05d}.arrow"
        with (self._directory / name).open("wb") as file:
            hashing = _Hashing(file)
            with pa.ipc.new_file(pa.PythonFile(hashing, "w"), batch.schema) as shard:
                shard.write_batch(batch)
            size, digest = file.tell(), hashing.digest.hexdigest()
        sync(self._directory / name)
        self.shards.append(Shard(file=name, documents=len(batch), tokens=self.tokens, bytes=size, blake2b=digest))
        self.tokens = 0

    def _shuffled(self) -> pa.RecordBatch:
        """What is waiting, in the shard's order; it waits no longer, so that memory holds it twice at most."""
        table = pa.Table.from_batches(self._waiting).combine_chunks()
        self._waiting = []
        # raw bits of a counter-based generator: unlike `permutation`, promised never to change
        bits = np.random.Philox(key=[self._seed % 2**64, len(self.shards)]).random_raw(len(table))
        (batch,) = table.take(pa.array(np.argsort(bits, kind="stable"))).to_batches()
        return batch


class _Hashing:
    """A file that is hashed while it is written."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest = file, hashlib.blake2b(digest_size=16)

    def write(self, data: bytes | memoryview) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def write(path: Path, data: bytes | memoryview) -> None:
    """`data` in a file, on the disk and not only in its cache."""
    with path.open("wb") as file:
        file.write(data)
    sync(path)
