"""Documents -> token shards on disk: how a corpus is written; `corpus.py` reads it.

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

from electra.errors import ElectraError
from electra.storage import MANIFEST, published, sync
from electra.text.clean import Counts
from electra.text.manifest import FORMAT_VERSION, Manifest
from electra.text.readers import DecodingErrors, Document, DocumentKind, read
from electra.text.shards import Row, ShardWriter, write
from electra.text.tokenizer import Tokenizer

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


def build(
    paths: Sequence[str | Path],
    tokenizer: Tokenizer,
    out: str | Path,
    *,
    document: DocumentKind = "block",
    text_field: str = "text",
    errors: DecodingErrors = "strict",
    shard_tokens: int = SHARD_TOKENS,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Manifest:
    """Write the corpus of `paths` to the directory `out`.

    Args:
        paths, document, text_field, errors: see `readers.read`.
        shard_tokens: a shard is written as soon as it has this many tokens.
        seed: keys the order of the documents within a shard.
        overwrite: replace a corpus that is at `out`; anything else there is never touched.
        progress: called after every batch; may raise to stop, which leaves nothing behind.

    Raises:
        ElectraError: E-C102 `out` holds something, E-C106 shard_tokens, E-D120 no document at all, E-R001 the disk is full,
            E-R002 `out` cannot be written, and those of `readers.read`.
    """
    if not 0 < shard_tokens <= 1 << 30:
        raise ElectraError("E-C106", "shard_tokens", f"{shard_tokens} is not in 1 .. 2^30", f"leave it at {SHARD_TOKENS}")
    counts = Counts()
    _require_place(Path(out), overwrite)
    with published(Path(out)) as directory:
        writer = _Writer(directory, tokenizer, shard_tokens, seed)
        documents = read(paths, counts, document=document, text_field=text_field, errors=errors)
        batches = _batches(documents, min(_BATCH_CHARACTERS, shard_tokens))
        for batch, rows in _ahead(batches, tokenizer):
            writer.add(batch, rows)
            if progress is not None:
                progress(writer.progress(batch[-1].file))
        manifest = writer.finish(counts)
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

    def finish(self, counts: Counts) -> Manifest:
        """Writes what is left, the tokenizer and, last, the manifest."""
        counts = counts + self._counts
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
            counts=dict(sorted(counts.items())),
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
