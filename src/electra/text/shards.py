"""Rows of tokens -> Arrow shards.

In: documents as numbers, one after the other. Out: `shard-00000.arrow` ..., each with its size and hash. Documents wait in
memory until there are enough tokens for a shard, are shuffled, keyed by (seed, number of the shard), and written as one record
batch, uncompressed, so that a reader maps each column as one array.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from electra.storage import sync
from electra.text.manifest import Shard


@dataclass(frozen=True, slots=True)
class Row:
    """A document as it is stored: [CLS] ... [SEP], where its sentences end and, if segmented, which tokens begin a word."""

    tokens: npt.NDArray[np.uint32]
    sentence_ends: npt.NDArray[np.uint32]
    word_starts: npt.NDArray[np.bool_] | None = None


class ShardWriter:
    """Writes a shard whenever the rows added have `shard_tokens` tokens; `finish` writes the rest.

    Args:
        directory: where the files go.
        vocab_size: decides between two and four bytes a token.
        shard_tokens: at most 2^30, so that offsets fit into 32 bits.
        seed: keys the order of the documents within each shard.
    """

    def __init__(self, directory: Path, vocab_size: int, shard_tokens: int, seed: int) -> None:
        self._directory, self._shard_tokens, self._seed = directory, shard_tokens, seed
        self._dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
        self._rows: list[Row] = []
        self._tokens = 0
        self._shards: list[Shard] = []

    def add(self, row: Row) -> None:
        self._rows.append(row)
        self._tokens += len(row.tokens)
        if self._tokens >= self._shard_tokens:
            self._write_shard()

    def finish(self) -> tuple[Shard, ...]:
        if self._rows:
            self._write_shard()
        return tuple(self._shards)

    def _write_shard(self) -> None:
        number, rows = len(self._shards), self._rows
        # raw bits of a counter-based generator: unlike `permutation`, promised never to change
        order = np.argsort(np.random.Philox(key=[self._seed % 2**64, number]).random_raw(len(rows)), kind="stable")
        columns = {
            "tokens": _lists([rows[index].tokens for index in order], self._dtype),
            "sentence_ends": _lists([rows[index].sentence_ends for index in order], np.uint32),
        }
        words = [starts for index in order if (starts := rows[index].word_starts) is not None]
        batch = pa.record_batch(columns | ({"word_starts": _lists(words, np.bool_)} if words else {}))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, batch.schema) as file:
            file.write_batch(batch)
        data = memoryview(sink.getvalue())
        name = f"shard-{number:05d}.arrow"
        write(self._directory / name, data)
        digest = hashlib.blake2b(data, digest_size=16).hexdigest()
        self._shards.append(Shard(file=name, documents=len(rows), tokens=self._tokens, bytes=len(data), blake2b=digest))
        self._rows, self._tokens = [], 0


def _lists(arrays: Sequence[npt.NDArray[np.generic]], dtype: type[np.generic]) -> pa.ListArray:
    offsets = np.zeros(len(arrays) + 1, dtype=np.int32)
    np.cumsum([len(array) for array in arrays], out=offsets[1:])
    return pa.ListArray.from_arrays(offsets, np.concatenate(arrays).astype(dtype))


def write(path: Path, data: bytes | memoryview) -> None:
    """`data` in a file, on the disk and not only in its cache."""
    with path.open("wb") as file:
        file.write(data)
    sync(path)
