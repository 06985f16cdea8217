"""Rows of tokens -> Arrow shards.

In: record batches with a document a row, one after the other. Out: `shard-00000.arrow` ..., each with its size and hash.
Documents wait in memory until there are enough tokens for a shard, are shuffled, keyed by (seed, number of the shard), and
written as one record batch, uncompressed, so that a reader maps each column as one array.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from electra.storage import file_hash, sync
from electra.text.manifest import Shard, shard_name


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
        batch, path = self._shuffled(), self._directory / shard_name(len(self.shards))
        with path.open("wb") as file, pa.ipc.new_file(file, batch.schema) as shard:
            shard.write_batch(batch)
        sync(path)
        self.shards.append(
            Shard(
                file=path.name, documents=len(batch), tokens=self.tokens, bytes=path.stat().st_size, blake2b=file_hash(path)
            )
        )  # fmt: skip
        self.tokens = 0

    def _shuffled(self) -> pa.RecordBatch:
        """What is waiting, in the shard's order; it waits no longer."""
        waiting, self._waiting = pa.Table.from_batches(self._waiting), []
        # raw bits of a counter-based generator: unlike `permutation`, promised never to change
        order = np.argsort(np.random.Philox(key=[self._seed % 2**64, len(self.shards)]).random_raw(len(waiting)), kind="stable")
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        return pa.record_batch([_placed(column.chunks, places) for column in waiting.columns], schema=waiting.schema)


def _placed(parts: Sequence[pa.ListArray], places: npt.NDArray[np.int64]) -> pa.ListArray:
    """The lists of all parts as one array in which each has its place; part by part, so that memory holds nothing thrice."""
    lengths = np.concatenate([part.value_lengths().to_numpy() for part in parts])
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    offsets[1:][places] = lengths
    np.cumsum(offsets, out=offsets)
    values = np.empty(offsets[-1], dtype=parts[0].type.value_type.to_pandas_dtype())
    first = 0
    for part in parts:
        own, starts = lengths[first : first + len(part)], offsets[places[first : first + len(part)]]
        within = np.cumsum(own) - own
        values[np.repeat(starts - within, own) + np.arange(own.sum())] = part.flatten().to_numpy(zero_copy_only=False)
        first += len(part)
    return pa.ListArray.from_arrays(offsets, values)


def write(path: Path, data: bytes | memoryview) -> None:
    """`data` in a file, on the disk and not only in its cache."""
    with path.open("wb") as file:
        file.write(data)
    sync(path)
