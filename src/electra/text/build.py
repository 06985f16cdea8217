"""Text files and a tokenizer -> token shards on disk: how a corpus is written; `corpus.py` reads it.

In: text files and a tokenizer. Out: a directory
    manifest.json      counts, tokenizer, shards with sizes and hashes; written last
    sources.jsonl      documents, bytes and counts of each file that was read
    tokenizer/         the tokenizer
    shard-00000.arrow  Arrow IPC file, one record batch, uncompressed: one row a document,
                       `tokens` list<uint16 | uint32>: [CLS] ... [SEP]
                       `sentence_ends` list<uint32>: where its sentences end, exclusive; the last one is the place of [SEP]
                       `word_starts` list<bool>: which tokens begin a word; only after a segmenter (`words.py`)

Documents are read as a stream, and encoded in batches on all cores while the next ones are read; at most one shard is in
memory, twice while it is written, whatever the corpus weighs. Everything is made in a sibling, the workshop, that is renamed at
the end: there is either a whole corpus or none. The same files and seed give the same bytes.

A build that was stopped, or killed, goes on when the same command is given again. After every shard the workshop's journal says
up to which document of which file the shards go. Files before it are not read again; that one is, up to that document, but
not encoded. What was left out in a file is added to the journal when the file is done, and is found again when it is read
again. So nothing needs to be saved but sums, and the bytes are those of a build that was never stopped. Filters that look at
all documents first (`filters.py`) keep what they found in the workshop; with these all files are read again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import dropwhile, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from electra.errors import ElectraError, ExitCode
from electra.storage import MANIFEST, sync, workshop
from electra.text.drops import Drops
from electra.text.filters import NO_FILTERS, FilterOptions, filtered
from electra.text.journal import Begun, Journal, command_of, open_journal
from electra.text.manifest import FORMAT_VERSION, Manifest, shard_name
from electra.text.readers import READ_DEFAULTS, Document, ReadOptions, batches, find_files, read_files, shown, try_files
from electra.text.shards import ShardWriter, write
from electra.text.tokenizer import Tokenizer
from electra.text.words import SegmenterName, segmenter_package
from electra.text.workers import cores, encode_in_order

#: tokens after which a shard is written: so few that the memory for one is nothing beside that of the processes
SHARD_TOKENS = 1 << 21

BATCH_CHARACTERS = 1 << 17
_POWERS = 1 << np.arange(32)
#: in the workshop, what filters keep
_FILTERS = "filters"
_NOTHING_LEFT = "dropped: documents of which the tokenizer leaves nothing"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a build is: documents, tokens and bytes of text stored, and the file being read.

    `resumed` counts those of the documents that an earlier sitting stored.
    """

    documents: int
    tokens: int
    text_bytes: int
    file: str
    resumed: int


def build(
    paths: Sequence[str | Path],
    tokenizer: Tokenizer,
    out: str | Path,
    *,
    options: ReadOptions = READ_DEFAULTS,
    filters: FilterOptions = NO_FILTERS,
    segmenter: SegmenterName | None = None,
    shard_tokens: int = SHARD_TOKENS,
    seed: int = 0,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Manifest:
    """Write the corpus of `paths` to the directory `out`, or go on where the same command was stopped.

    Shards that were finished before an interruption, or before disk or memory ran out, stay in `.NAME.partial` beside `out`;
    after an error in the input nothing does.

    Args:
        paths, options: see `readers.read`.
        filters: which documents stay; see `filters.filtered`.
        segmenter: store where words begin in text without spaces, so that masking can draw whole words.
        shard_tokens: a shard is written as soon as it has this many tokens.
        seed: keys the order of the documents within a shard.
        workers: processes that encode; None = one for each core. The result does not depend on it.
        overwrite: replace a corpus that is at `out`, or an unfinished one of another command; anything else is never touched.
        progress: called after every batch; may raise to stop.

    Raises:
        ElectraError: E-C102 `out` holds something, E-C106 shard_tokens, E-C150 an unfinished corpus of another command is
            there, E-C151 workers, E-D120 no document at all, E-R001 the disk is full, E-R002 `out` cannot be written, E-R003
            another process is building it, E-R110 the segmenter is not installed, E-R150 a worker died, and those
            of `readers.read` and `filters.filtered`.
    """
    made_of = MadeOf(
        tokenizer=tokenizer, options=options, filters=filters, segmenter=segmenter, shard_tokens=shard_tokens, seed=seed
    )
    if workers is not None and workers < 1:
        raise ElectraError("E-C151", "workers", f"{workers} processes encode nothing", "give 1 or more, or leave it out")
    out, found = Path(out), Drops()
    files = find_files(paths, found, options)
    command = made_of.command(files)
    require_place(out, overwrite)
    with workshop(out) as shop:
        require_place(out, overwrite)  # somebody may have finished it meanwhile
        journal = open_journal(shop, command, found.total, start_over=overwrite)
        with _kept_if_of_use(shop, journal):
            try_files(files, options)
            if filters.looks_ahead:
                journal.save(shop)  # what is found before the first shard is of this command
            return _make(files, made_of, shop, journal, workers or cores(), progress or _unseen)


@dataclass(frozen=True, kw_only=True)
class MadeOf:
    """What a corpus is made of besides its text; see `build`.

    Raises:
        ElectraError: E-C106 shard_tokens.
    """

    tokenizer: Tokenizer
    options: ReadOptions
    filters: FilterOptions
    segmenter: SegmenterName | None
    shard_tokens: int
    seed: int

    def __post_init__(self) -> None:
        tokens = self.shard_tokens
        if not 0 < tokens <= 1 << 30:
            raise ElectraError("E-C106", "shard_tokens", f"{tokens} is not in 1 .. 2^30", f"leave it at {SHARD_TOKENS}")

    def command(self, files: Sequence[Path]) -> dict[str, str]:
        """What the corpus of these files depends on, by name. Raises as `segmenter_package` and `FilterOptions.packages`."""
        against = [path for path in map(Path, self.filters.against) if path.is_file()]
        own = {"segmenter": self.segmenter, "shard_tokens": self.shard_tokens, "seed": self.seed}
        packages = [*([segmenter_package(self.segmenter)] if self.segmenter else []), *self.filters.packages]
        return command_of(
            [*files, *against], self.tokenizer.fingerprint, asdict(self.options) | asdict(self.filters) | own, packages
        )


def _make(
    files: Sequence[Path], made_of: MadeOf, shop: Path, journal: Journal, workers: int, progress: Callable[[Progress], None]
) -> Manifest:
    """From where the journal is to the end."""
    drops, resumed = Drops(), journal.documents
    writer = Writer(shop, made_of, journal, drops)
    documents = _documents(files, made_of, shop / _FILTERS, journal.source, drops)
    pieces = batches(documents, min(BATCH_CHARACTERS, made_of.shard_tokens))
    made_of.tokenizer.save(saved := shop / "made" / "tokenizer")
    for batch, rows in encode_in_order(
        pieces, texts_of, made_of.tokenizer, saved, segmenter=made_of.segmenter, workers=workers
    ):
        writer.add(batch, rows)
        progress(
            Progress(
                documents=journal.documents, tokens=journal.tokens, text_bytes=journal.text_bytes, file=batch[-1].file,
                resumed=resumed,
            )
        )  # fmt: skip
    return writer.finish()


def _unseen(progress: Progress) -> None:
    """Nobody looks at it."""


def require_place(out: Path, overwrite: bool) -> None:
    """Raises ElectraError E-C102 if something is at `out` that a corpus must not take the place of."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / shard_name(0)).is_file():
        raise ElectraError("E-C102", str(out), "something that is no corpus is already there", "choose another directory")
    if not overwrite:
        raise ElectraError("E-C102", str(out), "a corpus is already there", "choose another directory, or add --overwrite")


@contextmanager
def _kept_if_of_use(shop: Path, journal: Journal) -> Iterator[None]:
    """Removes what was made if the block ends badly and the same command could not go on from it."""
    try:
        yield
    except BaseException as error:
        wrong_input = isinstance(error, ElectraError) and error.exit_code != ExitCode.RESOURCES
        if wrong_input or not (journal.shards or (shop / _FILTERS).exists()):
            shutil.rmtree(shop)
        raise


# -- reading -------------------------------------------------------------------------------------------------------------


def _documents(files: Sequence[Path], made_of: MadeOf, scratch: Path, begun: Begun, drops: Drops) -> Iterator[Document]:
    """The documents behind those that an earlier sitting stored; `begun` is the file that they end in."""
    options, filters, last, stored = made_of.options, made_of.filters, begun.file, begun.documents
    first = [shown(file) for file in files].index(last) if last and not filters.looks_ahead else 0
    documents = filtered(lambda drops: read_files(files[first:], drops, options), filters, scratch, drops)
    if last:
        documents = dropwhile(lambda document: document.file != last, documents)
        deque(islice(documents, stored), maxlen=0)
        drops.take(last)  # what was lost in the files before it is in the journal
    yield from documents


def texts_of(batch: Sequence[Document]) -> list[str]:
    """Of each document."""
    return [document.text for document in batch]


# -- writing -------------------------------------------------------------------------------------------------------------


class Writer:
    """Hands rows to the shards, and keeps the journal, whose sums become the manifest.

    Args:
        shop: where the journal is kept; what is made goes to `made` there.
        made_of: as in `build`.
        journal: goes on from where it is.
        drops: what was left out before the documents came here.
    """

    def __init__(self, shop: Path, made_of: MadeOf, journal: Journal, drops: Drops) -> None:
        self._shop, self._directory, self._journal, self._drops = shop, shop / "made", journal, drops
        self._made_of = made_of
        self._shards = ShardWriter(self._directory, made_of.seed, journal.shards)
        self._sources = self._directory / "sources.jsonl"
        with self._sources.open("ab") as file:
            file.truncate(journal.sources_bytes)

    def add(self, batch: Sequence[Document], rows: pa.RecordBatch) -> None:
        """The next documents and their rows."""
        lengths = rows.column("tokens").value_lengths().to_numpy()
        kept = rows.column("sentence_ends").value_lengths().to_numpy() > 0
        ends = np.cumsum(np.where(kept, lengths, 0))
        start = tokens = 0
        while start < len(batch):
            # the first document with which the shard is full is its last one
            full = int(np.searchsorted(ends, tokens + self._made_of.shard_tokens - self._shards.tokens))
            stop = min(full + 1, len(batch))
            part = slice(start, stop)
            self._account(batch[part], kept[part])
            self._store(rows.slice(start, stop - start).filter(pa.array(kept[part])), lengths[part][kept[part]])
            start, tokens = stop, int(ends[stop - 1])
            if self._shards.tokens >= self._made_of.shard_tokens:
                self._end_shard()

    def _account(self, batch: Sequence[Document], kept: npt.NDArray[np.bool_]) -> None:
        """Where the documents came from, and what the tokenizer left nothing of."""
        journal = self._journal
        for document, is_kept in zip(batch, kept.tolist(), strict=True):
            if document.file != journal.source.file:
                self._end_sources(document.file)
            size = len(document.text.encode())
            journal.source.documents += 1
            journal.source.text_bytes += size
            if is_kept:
                journal.text_bytes += size
            else:
                journal.source.losses.add(_NOTHING_LEFT, document.file, document.line, document.text)

    def _store(self, rows: pa.RecordBatch, lengths: npt.NDArray[np.int32]) -> None:
        journal, tokens = self._journal, int(lengths.sum())
        self._shards.add(rows, tokens)
        journal.documents += len(lengths)
        journal.tokens += tokens
        unknown = rows.column("tokens").flatten().to_numpy() == self._made_of.tokenizer.unk_id
        journal.unknown += int(np.count_nonzero(unknown))
        powers, counts = np.unique(_POWERS[np.searchsorted(_POWERS, lengths)], return_counts=True)
        journal.lengths.update(dict(zip(powers.tolist(), counts.tolist(), strict=True)))

    def _end_shard(self) -> None:
        self._shards.write()
        sync(self._sources)
        self._journal.shards = tuple(self._shards.shards)
        self._journal.save(self._shop)

    def finish(self) -> Manifest:
        """Writes what is left and, last, the manifest."""
        self.close()
        return seal(self._directory, self._made_of, self._journal)

    def close(self) -> None:
        """Writes what is left, but no manifest."""
        if self._shards.tokens:
            self._end_shard()
        self._end_sources(None)
        for path in (self._sources, self._directory):
            sync(path)

    def _end_sources(self, before: str | None) -> None:
        """Writes down the files that were read before the file `before`, or all, also those that gave no document."""
        journal, begun = self._journal, self._journal.source
        with self._sources.open("ab") as sources:
            for file, losses in self._drops.take(before):
                told = begun if file == begun.file else Begun()
                losses.update(told.losses)
                journal.losses.update(losses)
                line = {
                    "file": file,
                    "documents": told.documents,
                    "bytes": told.text_bytes,
                    "counts": dict(sorted(losses.counts.items())),
                }
                journal.sources_bytes += sources.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
                journal.sources += 1
        journal.source = Begun(file=before or "")


def fingerprint_of(made_of: MadeOf, journal: Journal) -> str:
    """Changes with any token or any document's place."""
    hashes = [made_of.tokenizer.fingerprint, *(shard.blake2b for shard in journal.shards)]
    return hashlib.blake2b("\n".join(hashes).encode(), digest_size=16).hexdigest()


def seal(directory: Path, made_of: MadeOf, journal: Journal) -> Manifest:
    """Write the manifest of what lies in `directory`: shards, sources and tokenizer.

    Raises:
        ElectraError: E-D120 no document at all.
    """
    tokenizer = made_of.tokenizer
    if not journal.documents:
        told = "; ".join(f"{cause}: {count}" for cause, count in sorted(journal.losses.counts.items()))
        raise ElectraError("E-D120", "corpus", f"no document with text ({told or 'no file'})", "check paths and --format")
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        fingerprint=fingerprint_of(made_of, journal),
        tokenizer=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        pad_id=tokenizer.pad_id,
        unk_id=tokenizer.unk_id,
        cls_id=tokenizer.cls_id,
        sep_id=tokenizer.sep_id,
        mask_id=tokenizer.mask_id,
        seed=made_of.seed,
        sources=journal.sources,
        documents=journal.documents,
        tokens=journal.tokens,
        unknown_tokens=journal.unknown,
        text_bytes=journal.text_bytes,
        counts=dict(sorted(journal.losses.counts.items())),
        samples={cause: tuple(places) for cause, places in sorted(journal.losses.samples.items())},
        lengths=dict(sorted(journal.lengths.items())),
        shards=journal.shards,
        segmenter=made_of.segmenter,
        filters=made_of.filters,
    )
    write(directory / MANIFEST, manifest.to_json())
    saved = directory / "tokenizer"
    for path in (*saved.iterdir(), saved, directory):
        sync(path)
    return manifest
