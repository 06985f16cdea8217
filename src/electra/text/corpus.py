"""The reader of a corpus that `build.py` wrote, whose docstring tells what lies in the directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from electra.errors import ElectraError
from electra.storage import file_hash
from electra.text.columns import Lists, columns_of, damaged
from electra.text.manifest import Manifest, Shard, read_manifest
from electra.text.tokenizer import Tokenizer
from electra.text.tokenizer import load as load_tokenizer
from electra.text.words import continues_word


class Corpus:
    """A corpus on disk. Opening it reads the manifest only; of a shard nothing is held but where its columns lie.

    Args:
        path: the directory that `build` wrote.

    Raises:
        ElectraError: E-D121 no corpus there, E-D122 a manifest that is broken or of another version; when a shard is used
            E-D123 it is missing or not what the manifest says.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = read_manifest(self.path)
        self._opened: dict[int, Mapping[str, Lists]] = {}

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
        """[stop - start] tokens of the stream in which all documents of a shard follow each other."""
        return self._lists(shard, "tokens").values[start:stop]

    def offsets(self, shard: int, start: int = 0, stop: int | None = None) -> npt.NDArray[np.int32]:
        """[stop - start], where documents start in the shard's stream; [documents + 1], if none are named, the last its end."""
        return self._lists(shard, "tokens").offsets[start:stop]

    def document_starts(self, shard: int, start: int, stop: int) -> npt.NDArray[np.int32]:
        """Where documents start in the tokens start < i < stop of a shard's stream."""
        offsets = self._lists(shard, "tokens").offsets
        first = offsets.first_above(start)
        inner = offsets[first : first + stop - start]  # a document has at least one token
        return inner[: np.searchsorted(inner, inner.dtype.type(stop))]

    def sentence_ends(self, shard: int, document: int) -> npt.NDArray[np.uint32]:
        """Where the document's sentences end, exclusive, counted from its [CLS]; the last one is the place of its [SEP]."""
        ends = self._lists(shard, "sentence_ends")
        start, stop = ends.offsets[document : document + 2].tolist()
        return ends.values[start:stop]

    def word_starts(self, shard: int, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """[stop - start], which tokens of a shard's stream begin a word: as stored, else as the vocabulary says."""
        if self.manifest.segmenter is None:
            return ~self._continues_word[self.tokens(shard, start, stop)]
        bits = self._lists(shard, "word_starts").values[start >> 3 : (stop + 7) >> 3]
        spread = np.unpackbits(bits, bitorder="little").view(np.bool_)
        return spread[start & 7 :][: stop - start]

    @cached_property
    def _continues_word(self) -> npt.NDArray[np.bool_]:
        return continues_word(self.tokenizer())

    def verify(self, part: int = 0, parts: int = 1) -> None:
        """Read every shard, or part `part` of `parts` of them, and compare its hash.

        Raises:
            ElectraError: E-D123, names the first one that differs.
        """
        for shard in self.shards[part::parts]:
            self._check_size(shard)
            if file_hash(self.path / shard.file) != shard.blake2b:
                raise damaged(self.path / shard.file, "its content is not what was written (hash differs)")

    def _lists(self, number: int, column: str) -> Lists:
        if number not in self._opened:
            shard, path = self.shards[number], self.path / self.shards[number].file
            self._check_size(shard)
            try:
                columns = columns_of(path)
                tokens = columns["tokens"]
                _ = columns["sentence_ends"], columns["word_starts"] if self.manifest.segmenter else None
            except (OSError, KeyError, ValueError, pa.ArrowException) as error:
                raise damaged(path, f"not a shard: {error}") from None
            if len(tokens.values) != shard.tokens or len(tokens.offsets) != shard.documents + 1:
                raise damaged(path, f"holds {len(tokens.values)} tokens, the manifest says {shard.tokens}")
            self._opened[number] = columns
        return self._opened[number][column]

    def _check_size(self, shard: Shard) -> None:
        path = self.path / shard.file
        size = path.stat().st_size if path.is_file() else None
        if size != shard.bytes:
            raise damaged(path, "is missing" if size is None else f"has {size} bytes, the manifest says {shard.bytes}")


# -- looking at it -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What `electra corpus inspect` shows: the manifest and the beginnings of some documents, decoded from their tokens."""

    manifest: Manifest
    samples: tuple[str, ...]


def inspect(path: str | Path, *, samples: int = 3, sample_tokens: int = 64) -> Summary:
    """A corpus at a glance, at a cost that does not grow with it."""
    corpus = Corpus(path)
    tokenizer, offsets = corpus.tokenizer(), corpus.offsets(0, 0, samples + 1)
    starts = offsets[:-1]
    stops = np.minimum(offsets[1:], starts + sample_tokens)
    texts = tuple(tokenizer.decode(corpus.tokens(0, start, stop)) for start, stop in zip(starts, stops, strict=True))
    return Summary(manifest=corpus.manifest, samples=texts)
