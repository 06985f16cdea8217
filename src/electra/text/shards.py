"""Rows of tokens -> Arrow shards.

In: record batches with a document a row, one after the other. Out: `shard-00000.arrow` ..., each with its size and hash.
Documents wait in memory until there are enough tokens for a shard, are shuffled, keyed by (seed, number of the shard), and
written as one record batch, uncompressed, so that a reader maps each column as one array.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

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
        table = pa.Table.from_batches(self._waiting).combine_chunks()
        number = len(self.shards)
        # raw bits of a counter-based generator: unlike `permutation`, promised never to change
        order = np.argsort(np.random.Philox(key=[self._seed % 2**64, number]).random_raw(len(table)), kind="stable")
        (batch,) = table.take(pa.array(order)).to_batches()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, batch.schema) as file:
            file.write_batch(batch)
        data = memoryview(sink.getvalue())
        name = f"shard-{number:05d}.arrow"
        write(self._directory / name, data)
        digest = hashlib.blake2b(data, digest_size=16).hexdigest()
        self.shards.append(Shard(file=name, documents=len(batch), tokens=self.tokens, bytes=len(data), blake2b=digest))
        self._waiting, self.tokens = [], 0


def write(path: Path, data: bytes | memoryview) -> None:
    """`data` in a file, on the disk and not only in its cache."""
    with path.open("wb") as file:
        file.write(data)
    sync(path)
