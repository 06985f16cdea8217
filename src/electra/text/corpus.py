"""Documents -> token shards on disk, and the memory-mapped reader of them.

In: text files and a tokenizer. Out: a directory
    manifest.json      counts, tokenizer, shards with sizes and hashes; written last
    sources.jsonl      documents and bytes of each file that was read
    tokenizer/         the tokenizer
    shard-00000.arrow  Arrow IPC file, one record batch, uncompressed: one row a document,
                       `tokens` list<uint16 | uint32>: [CLS] ... [SEP]
                       `sentence_ends` list<uint32>: where its sentences end, exclusive; the last one is the place of [SEP]

Documents are read as a stream and tokenised in batches on all cores, while the next batch is read; at most one shard is in
memory, whatever the corpus weighs. Everything goes into a temporary sibling that is renamed at the end: there is either a
whole corpus or none. The same files and seed give the same bytes.

A sentence ends at a line break, and behind sentence punctuation. It is found in the text and carried over to tokens by their
offsets, so a document is tokenised whole, whatever the kind of tokenizer.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from electra.errors import ElectraError
from electra.storage import MANIFEST, file_hash, published, sync
from electra.text.clean import Counts
from electra.text.drops import Drops
from electra.text.filters import NO_FILTERS, FilterOptions, filtered
from electra.text.manifest import FORMAT_VERSION, Manifest, Shard, read_manifest
from electra.text.readers import DecodingErrors, Document, DocumentKind, read
from electra.text.shards import Row, ShardWriter, write
from electra.text.tokenizer import Tokenizer
from electra.text.tokenizer import load as load_tokenizer

#: tokens after which a shard is written
SHARD_TOKENS = 1 << 22

_BATCH_CHARACTERS = 1 << 18
_SENTENCE_END = re.compile(r"""[\n.!?…。！？]+["'”’)\]」』）】》]*(?:(?=\s)|(?<=[\n…。！？”’」』）】》]))""")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a build is: documents, tokens and bytes of text stored, and the file being read."""

    documents: int
    tokens: int
    text_bytes: int
    file: str


# -- writing -------------------------------------------------------------------------------------------------------------


def build(
    paths: Sequence[str | Path],
    tokenizer: Tokenizer,
    out: str | Path,
    *,
    document: DocumentKind = "block",
    text_field: str = "text",
    errors: DecodingErrors = "strict",
    filters: FilterOptions = NO_FILTERS,
    shard_tokens: int = SHARD_TOKENS,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Manifest:
    """Write the corpus of `paths` to the directory `out`.

    Args:
        paths, document, text_field, errors: see `readers.read`.
        filters: which documents stay; see `filters.filtered`.
        shard_tokens: a shard is written as soon as it has this many tokens.
        seed: keys the order of the documents within a shard.
        overwrite: replace a corpus that is at `out`; anything else there is never touched.
        progress: called after every batch; may raise to stop, which leaves nothing behind.

    Raises:
        ElectraError: E-C102 `out` holds something, E-C106 shard_tokens, E-D120 no document at all, E-R001 the disk is full,
            E-R002 `out` cannot be written, and those of `readers.read` and
            `filters.filtered`.
    """
    if not 0 < shard_tokens <= 1 << 30:
        raise ElectraError("E-C106", "shard_tokens", f"{shard_tokens} is not in 1 .. 2^30", f"leave it at {SHARD_TOKENS}")
    drops = Drops()
    _require_place(Path(out), overwrite)
    with published(Path(out)) as directory:
        writer = _Writer(directory, tokenizer, shard_tokens, seed)

        def from_beginning(drops: Drops) -> Iterator[Document]:
            return read(paths, drops.begin(""), document=document, text_field=text_field, errors=errors)

        documents = filtered(from_beginning, filters, directory / "filters", drops)
        batches = _batches(documents, min(_BATCH_CHARACTERS, shard_tokens))
        for batch, rows in _ahead(batches, tokenizer):
            writer.add(batch, rows)
            if progress is not None:
                progress(writer.progress(batch[-1].file))
        manifest = writer.finish(drops, filters)
        sync(directory)
    return manifest


def _require_place(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / "shard-00000.arrow").is_file():
        raise ElectraError("E-C102", str(out), "something that is no corpus is already there", "choose another directory")
    if not overwrite:
        raise ElectraError("E-C102", str(out), "a corpus is already there", "choose another directory or allow overwriting")


def _batches(documents: Iterable[Document], characters: int) -> Iterator[list[Document]]:
    batch, size = list[Document](), 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _ahead(batches: Iterator[list[Document]], tokenizer: Tokenizer) -> Iterator[tuple[list[Document], list[Row]]]:
    """Each batch with its rows; the next batch is read while this one is tokenised."""
    with ThreadPoolExecutor(max_workers=1) as worker:
        batch = next(batches, None)
        while batch is not None:
            rows = worker.submit(_rows, batch, tokenizer)
            following = next(batches, None)
            yield batch, rows.result()
            batch = following


def _rows(batch: Sequence[Document], tokenizer: Tokenizer) -> list[Row]:
    rows = []
    for document, encoding in zip(batch, tokenizer.encode_documents([document.text for document in batch]), strict=True):
        tokens = np.array([tokenizer.cls_id, *encoding.ids, tokenizer.sep_id], dtype=np.uint32)
        starts = [start for start, _ in encoding.offsets]
        rows.append(Row(tokens, sentence_ends(document.text, starts)))
    return rows


def sentence_ends(text: str, starts: Sequence[int]) -> npt.NDArray[np.uint32]:
    """Where sentences end in [CLS] ... [SEP], exclusive and increasing; sentence i begins where i - 1 ends, the first at 1.

    Args:
        text: a clean document.
        starts: n, for each of its tokens the character where it starts.

    Returns:
        uint32; the last one is n + 1, the place of [SEP]; empty without tokens.
    """
    ends, token = list[int](), 0
    for match in _SENTENCE_END.finditer(text):
        after = bisect_left(starts, match.end(), lo=token)
        if after > token:
            ends.append(after + 1)
            token = after
    if token < len(starts):
        ends.append(len(starts) + 1)
    return np.array(ends, dtype=np.uint32)


class _Writer:
    """Hands rows to the shards, and counts what the manifest tells."""

    def __init__(self, directory: Path, tokenizer: Tokenizer, shard_tokens: int, seed: int) -> None:
        self._directory, self._tokenizer, self._seed = directory, tokenizer, seed
        self._shards = ShardWriter(directory, tokenizer.vocab_size, shard_tokens, seed)
        self._counts = Counts()
        self._lengths = Counter[int]()
        self._sources = 0
        self._source = ("", 0, 0)
        self._documents = self._tokens = self._unknown = self._text_bytes = 0

    def add(self, batch: Sequence[Document], rows: Sequence[Row]) -> None:
        for document, row in zip(batch, rows, strict=True):
            size = len(document.text.encode())
            self._count_source(document.file, size)
            if not len(row.sentence_ends):
                self._counts["dropped: documents of which the tokenizer leaves nothing"] += 1
                continue
            self._shards.add(row)
            self._documents += 1
            self._text_bytes += size
            self._tokens += len(row.tokens)
            self._unknown += int(np.count_nonzero(row.tokens == self._tokenizer.unk_id))
            self._lengths[1 << (len(row.tokens) - 1).bit_length()] += 1

    def progress(self, file: str) -> Progress:
        return Progress(documents=self._documents, tokens=self._tokens, text_bytes=self._text_bytes, file=file)

    def finish(self, drops: Drops, filters: FilterOptions) -> Manifest:
        """Writes what is left, the tokenizer and, last, the manifest."""
        counts = drops.total + self._counts
        if not self._documents:
            told = "; ".join(f"{cause}: {count}" for cause, count in sorted(counts.items()))
            raise ElectraError("E-D120", "corpus", f"no document with text ({told or 'no file'})", "check paths and files")
        shards = self._shards.finish()
        self._count_source("", 0)
        sync(self._directory / "sources.jsonl")
        self._tokenizer.save(self._directory / "tokenizer")
        for path in (*(self._directory / "tokenizer").iterdir(), self._directory / "tokenizer"):
            sync(path)
        tokenizer = self._tokenizer
        hashes = [tokenizer.fingerprint, *(shard.blake2b for shard in shards)]
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            fingerprint=hashlib.blake2b("\n".join(hashes).encode(), digest_size=16).hexdigest(),
            tokenizer=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
            pad_id=tokenizer.pad_id,
            unk_id=tokenizer.unk_id,
            cls_id=tokenizer.cls_id,
            sep_id=tokenizer.sep_id,
            mask_id=tokenizer.mask_id,
            seed=self._seed,
            sources=self._sources,
            documents=self._documents,
            tokens=self._tokens,
            unknown_tokens=self._unknown,
            text_bytes=self._text_bytes,
            filters=filters,
            counts=dict(sorted(counts.items())),
            samples={cause: tuple(places) for cause, places in sorted(drops.samples.items())},
            lengths=dict(sorted(self._lengths.items())),
            shards=shards,
        )
        write(self._directory / MANIFEST, manifest.to_json())
        return manifest

    def _count_source(self, file: str, size: int) -> None:
        """One more document of `file`; a file that is done goes to sources.jsonl, so that a million files cost no memory."""
        name, documents, text_bytes = self._source
        if name == file:
            self._source = (name, documents + 1, text_bytes + size)
            return
        if documents:
            self._sources += 1
            with (self._directory / "sources.jsonl").open("a", encoding="utf-8") as sources:
                sources.write(json.dumps({"file": name, "documents": documents, "bytes": text_bytes}) + "\n")
        self._source = (file, 1, size)


# -- reading -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Mapped:
    """A shard as arrays on mapped memory; offsets have one entry more than there are documents."""

    tokens: npt.NDArray[np.uint16 | np.uint32]
    offsets: npt.NDArray[np.int32]
    sentence_ends: npt.NDArray[np.uint32]
    sentence_offsets: npt.NDArray[np.int32]


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
                mapped = _Mapped(
                    tokens.values.to_numpy(zero_copy_only=True), tokens.offsets.to_numpy(zero_copy_only=True),
                    ends.values.to_numpy(zero_copy_only=True), ends.offsets.to_numpy(zero_copy_only=True),
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
