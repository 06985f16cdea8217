"""The memory-mapped reader of a corpus that `build.py` wrote, whose docstring tells what lies in the directory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from electra.errors import ElectraError
from electra.storage import file_hash
from electra.text.manifest import Manifest, Shard, read_manifest
from electra.text.tokenizer import Tokenizer
from electra.text.tokenizer import load as load_tokenizer
from electra.text.words import continues_word


@dataclass(frozen=True, slots=True)
class _Mapped:
    """A shard as arrays on mapped memory; offsets have one entry more than there are documents, word starts are bits."""

    tokens: npt.NDArray[np.uint16 | np.uint32]
    offsets: npt.NDArray[np.int32]
    sentence_ends: npt.NDArray[np.uint32]
    sentence_offsets: npt.NDArray[np.int32]
    word_starts: npt.NDArray[np.uint8] | None


class Corpus:
    """A corpus on disk. Opening it reads the manifest only; a shard is mapped when it is first used, and costs no memory.

    Args:
        path: the directory that `build` wrote.

    Raises:
        ElectraError: E-D121 no corpus there, E-D122 a manifest that is broken or of another version; when a shard is used
            E-D123 it is missing or not what the manifest says.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = read_manifest(self.path)
        self._mapped: dict[int, _Mapped] = {}

    @property
    def fingerprint(self) -> str:
        """Changes with any token, document or shard."""
        return self.manifest.fingerprint

    @property
    def shards(self) -> tuple[Shard, ...]:
        return self.manifest.shards

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the tokens. Raises ElectraError E-D124 if it was changed since."""
        tokenizer = load_tokenizer(self.path / "tokenizer")
        if tokenizer.fingerprint != self.manifest.tokenizer:
            where = str(self.path / "tokenizer")
            raise ElectraError(
                "E-D124", where, "is not the tokenizer that this corpus was built with", "build the corpus again"
            )
        return tokenizer

    def tokens(self, shard: int, start: int, stop: int) -> npt.NDArray[np.uint16 | np.uint32]:
        """[stop - start] tokens of the stream in which all documents of a shard follow each other; a read-only view."""
        return self._map(shard).tokens[start:stop]

    def offsets(self, shard: int) -> npt.NDArray[np.int32]:
        """[documents + 1], where each document starts in the shard's stream, and its end; a read-only view."""
        return self._map(shard).offsets

    def sentence_ends(self, shard: int, document: int) -> npt.NDArray[np.uint32]:
        """Where the document's sentences end, exclusive, counted from its [CLS]; the last one is the place of its [SEP]."""
        mapped = self._map(shard)
        start, stop = mapped.sentence_offsets[document : document + 2]
        return mapped.sentence_ends[start:stop]

    def word_starts(self, shard: int, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """[stop - start], which tokens of a shard's stream begin a word: as stored, else as the vocabulary says."""
        bits = self._map(shard).word_starts
        if bits is None:
            return ~self._continues_word[self.tokens(shard, start, stop)]
        spread = np.unpackbits(bits[start >> 3 : (stop + 7) >> 3], bitorder="little").view(np.bool_)
        return spread[start & 7 :][: stop - start]

    @cached_property
    def _continues_word(self) -> npt.NDArray[np.bool_]:
        return continues_word(self.tokenizer())

    def verify(self) -> None:
        """Read every shard and compare its hash. Raises ElectraError E-D123 that names the first one that differs."""
        for shard in self.shards:
            self._check_size(shard)
            if file_hash(self.path / shard.file) != shard.blake2b:
                raise self._damaged(shard, "its content is not what was written (hash differs)")

    def _map(self, number: int) -> _Mapped:
        if number not in self._mapped:
            shard = self.shards[number]
            self._check_size(shard)
            try:
                # closed at once, or thousands of shards would take a file descriptor each; the mapping lives on in the arrays
                with pa.memory_map(str(self.path / shard.file)) as file:
                    batch = pa.ipc.open_file(file).get_batch(0)
                tokens, ends = batch.column("tokens"), batch.column("sentence_ends")
                words = batch.column("word_starts").values.buffers()[1] if self.manifest.segmenter else None
                mapped = _Mapped(
                    tokens.values.to_numpy(zero_copy_only=True), tokens.offsets.to_numpy(zero_copy_only=True),
                    ends.values.to_numpy(zero_copy_only=True), ends.offsets.to_numpy(zero_copy_only=True),
                    None if words is None else np.frombuffer(words, dtype=np.uint8),
                )  # fmt: skip
            except (OSError, KeyError, pa.ArrowException) as error:
                raise self._damaged(shard, f"not a shard: {error}") from None
            if len(mapped.tokens) != shard.tokens or len(mapped.offsets) != shard.documents + 1:
                raise self._damaged(shard, f"holds {len(mapped.tokens)} tokens, the manifest says {shard.tokens}")
            self._mapped[number] = mapped
        return self._mapped[number]

    def _check_size(self, shard: Shard) -> None:
        path = self.path / shard.file
        size = path.stat().st_size if path.is_file() else None
        if size != shard.bytes:
            raise self._damaged(shard, "is missing" if size is None else f"has {size} bytes, the manifest says {shard.bytes}")

    def _damaged(self, shard: Shard, cause: str) -> ElectraError:
        return ElectraError("E-D123", str(self.path / shard.file), cause, "copy the corpus again or rebuild it")


# -- looking at it -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What `electra corpus inspect` shows: the manifest and the beginnings of some documents, decoded from their tokens."""

    manifest: Manifest
    samples: tuple[str, ...]


def inspect(path: str | Path, *, samples: int = 3, sample_tokens: int = 64) -> Summary:
    """A corpus at a glance, at a cost that does not grow with it."""
    corpus = Corpus(path)
    tokenizer, offsets = corpus.tokenizer(), corpus.offsets(0)
    starts = offsets[:-1][:samples]
    stops = np.minimum(offsets[1:][:samples], starts + sample_tokens)
    texts = tuple(tokenizer.decode(corpus.tokens(0, start, stop)) for start, stop in zip(starts, stops, strict=True))
    return Summary(manifest=corpus.manifest, samples=texts)
