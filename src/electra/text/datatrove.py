"""Text on many machines -> the corpus that `electra corpus build` makes on one: pipelines of datatrove.

In: the files, on a file system that all machines share, and a tokenizer. Out: the same directory with the same documents, in
the same order but for the one within shards.

    signatures   read, clean, filter, MinHash signatures of every document; datatrove's block
    buckets      documents that agree in a bucket; datatrove's block, a task each
    clusters     those that hang together; datatrove's block, and of each the first in reading order stays
    shards       read, clean, filter again; without the others; encode; each task writes a part with its own sums
    merge        the shards of all parts under one manifest

The first three are left out where no duplicates are looked for. A task reads whole files, a stretch of all of them: so (task,
number of the document) is the reading order, and "the first" means what it means on one machine. Reading again is cheaper than
storing the clean text.

Everything is done by the code of the one-machine build: reading, cleaning, filters, encoding, shards. A part is there whole or
not, a task that was killed is done again by the executor, one that is done is not; the command (files, options, tokenizer,
versions, tasks) lies in the working directory, so that no corpus is made by two.

Duplicates. Copies share one hash of their text, so `exact` gives what one machine gives. For `near`, the one-machine build
compares the signatures of candidates; datatrove's blocks do not: what agrees in one bucket is one cluster. Their shingles are
ours (`shingles.py`), so no word tokenizer of a language is needed.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from electra.errors import ElectraError
from electra.storage import published
from electra.text.build import SHARD_TOKENS
from electra.text.clean import Counts
from electra.text.disksort import text_keys
from electra.text.drops import Drops
from electra.text.duplicates import SHINGLE
from electra.text.filters import EXACT_DUPLICATES, NEAR_DUPLICATES, NO_FILTERS, FilterOptions, filtered
from electra.text.parts import Job, begin, merge, share, write_part
from electra.text.readers import READ_DEFAULTS, Document, ReadOptions, cleaned, read_files, shown
from electra.text.shingles import shingles
from electra.text.words import SegmenterName

try:
    from datatrove.data import Document as Piped
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.word_tokenizers import WhitespaceTokenizer
except ImportError as error:
    raise ElectraError("E-R860", "electra.text.datatrove", str(error), "make datatrove-env, and use its Python") from None

#: what a pipeline consists of: (documents, number of the task, tasks) -> documents
Step = Callable[..., Any]

_SIGNATURES, _BUCKETS, _CLUSTERS, _FIRST = "signatures", "buckets", "clusters", "first"
#: buckets and hashes in them: two numbers of 61 bits tell all texts apart
_OF_COPIES = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one executor runs.

    Args:
        name: of the stage; one for its logs, too.
        tasks: how many there have to be.
        pipeline: its steps.
    """

    name: str
    tasks: int
    pipeline: list[Step]


def stages(
    paths: Sequence[str | Path] = (),
    *,
    tokenizer: str | Path,
    out: str | Path,
    work: str | Path,
    tasks: int,
    reader: Sequence[Step] = (),
    options: ReadOptions = READ_DEFAULTS,
    filters: FilterOptions = NO_FILTERS,
    segmenter: SegmenterName | None = None,
    shard_tokens: int = SHARD_TOKENS,
    seed: int = 0,
    buckets: int = 14,
    hashes_per_bucket: int = 8,
) -> list[Stage]:
    """The stages of a corpus, for executors that each depend on the one before. Call it again, with the same values, to go on.

    Args:
        paths: as of `electra corpus build`; seen by all machines.
        tokenizer: where it lies.
        out: directory of the corpus.
        work: directory for what is between; may be removed afterwards.
        tasks: of the stages that read; each takes a stretch of the files.
        reader: instead of `paths`, steps of datatrove that give documents: readers, extractors, filters of its own. Each time a
            task runs, it must give the same documents in the same order.
        options, segmenter, shard_tokens, seed: as in `build.build`.
        filters: as there, but lines that stand in many documents are not looked for, and `similarity` is said by the next two.
        buckets, hashes_per_bucket: of near duplicates. Two documents of similarity s become one cluster with a probability of
            1 - (1 - s ** hashes_per_bucket) ** buckets.

    Raises:
        ElectraError: E-C860 tasks or buckets below 1, E-C861 both or neither of `paths` and `reader`, E-C862 a filter that
            looks at all documents, E-C863 other values than those `work` was begun with; those of `build.build` about paths,
            tokenizer, and `out`.
    """
    for name, number in {"tasks": tasks, "buckets": buckets, "hashes_per_bucket": hashes_per_bucket}.items():
        if number < 1:
            raise ElectraError("E-C860", name, f"{number} is below 1", "give 1 or more")
    if bool(paths) == bool(reader):
        raise ElectraError("E-C861", "paths", "documents come from `paths` or from a `reader`", "give one of the two")
    if filters.max_line_documents is not None or filters.similarity is not None:
        raise ElectraError(
            "E-C862", "filters", "max_line_documents and similarity are those of the one-machine build",
            "leave them out; buckets and hashes_per_bucket say how similar near duplicates are",
        )  # fmt: skip
    blocks = (buckets, hashes_per_bucket) if filters.duplicates == "near" else _OF_COPIES
    names = [getattr(step, "__qualname__", type(step).__qualname__) for step in reader]
    job = Job(
        paths=tuple(map(Path, paths)), tokenizer=Path(tokenizer), out=Path(out), work=Path(work), tasks=tasks, options=options,
        filters=filters, segmenter=segmenter, shard_tokens=shard_tokens, seed=seed, source=f"{names}, blocks {blocks}",
        packages=("datatrove",),
    )  # fmt: skip
    begin(job)
    return list(_stages(job, reader, blocks))


def _stages(job: Job, reader: Sequence[Step], blocks: tuple[int, int]) -> Iterator[Stage]:
    def documents(account: Account) -> list[Step]:
        source: list[Step] = [ReadTexts(job, account)] if job.paths else [*reader, Clean(account)]
        return [*source, Filter(job.filters, account)]

    folders = {name: str((job.work / name).absolute()) for name in (_SIGNATURES, _BUCKETS, _CLUSTERS, _FIRST)}
    account, without = Account(), list[Step]()
    if job.filters.duplicates != "none":
        config = MinhashConfig(
            n_grams=SHINGLE, num_buckets=blocks[0], hashes_per_bucket=blocks[1], hash_config=HashConfig(hash_fc="sha1")
        )
        near = job.filters.duplicates == "near"
        yield Stage(
            name="signatures", tasks=job.tasks, pipeline=[*documents(Account()), Signatures(folders[_SIGNATURES], config, near)]
        )
        # one task a bucket
        compared = MinhashDedupBuckets(folders[_SIGNATURES], folders[_BUCKETS], config=config)
        yield Stage(name="buckets", tasks=config.num_buckets, pipeline=[compared])
        clustered = MinhashDedupCluster(folders[_BUCKETS], folders[_CLUSTERS], config=config, save_cluster_id=True)
        first = KeepFirst(job.work / _CLUSTERS, job.work / _FIRST)
        yield Stage(name="clusters", tasks=1, pipeline=[clustered, first])
        cause = NEAR_DUPLICATES if near else EXACT_DUPLICATES
        without = [MinhashDedupFilter(folders[_FIRST], exclusion_writer=Excluded(account, cause))]
    yield Stage(name="shards", tasks=job.tasks, pipeline=[*documents(account), *without, WriteShards(job, account)])
    yield Stage(name="merge", tasks=1, pipeline=[Merge(job)])


# -- what the steps have in common -----------------------------------------------------------------------------------------


@dataclass
class Account:
    """What the steps of a task leave out, from the one that reads to the one that writes."""

    drops: Drops = field(default_factory=Drops)

    def open(self) -> Drops:
        """A new one, for the task that begins."""
        self.drops = Drops()
        return self.drops


def _piped(documents: Iterable[Document]) -> Iterator[Any]:
    for document in documents:
        metadata = {"file_path": document.file, "line": document.line}
        yield Piped(text=document.text, id=f"{document.file}:{document.line}", metadata=metadata)


def _ours(piped: Iterable[Any]) -> Iterator[Document]:
    for document in piped:
        yield Document(document.text, document.metadata["file_path"], document.metadata["line"])


# -- steps -----------------------------------------------------------------------------------------------------------------


@dataclass
class ReadTexts:
    """The clean documents of a task's files, as `electra corpus build` reads them."""

    job: Job
    account: Account

    def __call__(self, data: object = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        drops, files = self.account.open(), self.job.files(Drops())
        own = files[share([file.stat().st_size for file in files], rank, world_size)]
        return _piped(read_files(own, drops, self.job.options))


@dataclass
class Clean:
    """Documents that a reader of datatrove gave, cleaned as those of files are."""

    account: Account

    def __call__(self, data: Iterable[Any], rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        return _piped(self._cleaned(data, self.account.open()))

    def _cleaned(self, data: Iterable[Any], drops: Drops) -> Iterator[Document]:
        file, line, counts = "", 0, Counts()
        for document in data:
            path = shown(str(document.metadata.get("file_path", "documents")))
            if path != file:
                file, line, counts = path, 0, drops.begin(path)
            line += 1
            yield from cleaned(document.text, path, line, counts, drops)


@dataclass
class Filter:
    """Documents that fulfil the conditions on a single one, and are not in texts for evaluation."""

    filters: FilterOptions
    account: Account

    def __call__(self, data: Iterable[Any], rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        alone, drops = dataclasses.replace(self.filters, duplicates="none"), self.account.drops
        return _piped(filtered(lambda _: _ours(data), alone, Path("none is made"), drops))


class Signatures(MinhashDedupSignature):  # type: ignore[misc]  # datatrove is not there where types are checked
    """datatrove's signatures of our shingles; copies of a text without letters are copies, too.

    Args:
        folder: where they go.
        config: as datatrove has it.
        near: whether similar texts share shingles; else only copies do.
    """

    def __init__(self, folder: str, config: Any, near: bool) -> None:
        super().__init__(folder, config, language=WhitespaceTokenizer())  # which is not asked
        self.near = near

    def get_shingles(self, text: str) -> npt.NDArray[np.uint64]:
        """[n, 1] hashes."""
        hashes = shingles([text], SHINGLE, SHINGLE)[0] if self.near else np.zeros(0, np.uint64)
        return (hashes if len(hashes) else text_keys([text])).reshape(-1, 1)


@dataclass
class KeepFirst:
    """Of the clusters, which document stays: the first, as on one machine; datatrove keeps the root of its tree.

    Writes, for each task, the numbers of the documents that go, as `MinhashDedupFilter` reads them.
    """

    clusters: Path
    first: Path

    def __call__(self, data: object = None, rank: int = 0, world_size: int = 1) -> None:
        seen = np.zeros(0, np.uint32)
        with published(self.first) as made:
            for file in sorted(self.clusters.glob("*.clusters")):
                documents, cluster = np.fromfile(file, "<u4").reshape(-1, 2).T
                _, places = np.unique(cluster, return_index=True)
                goes = np.isin(cluster, seen)
                goes[np.setdiff1d(np.arange(len(cluster)), places)] = True
                documents[goes].tofile(made / f"{file.stem}.remove")
                seen = np.union1d(seen, cluster)


@dataclass
class Excluded:
    """Counts what `MinhashDedupFilter` leaves out."""

    account: Account
    cause: str

    def __enter__(self) -> Excluded:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def write(self, document: Any, rank: int = 0) -> None:
        """One more."""
        self.account.drops.add(self.cause, document.metadata["file_path"], document.metadata["line"], document.text)


@dataclass
class WriteShards:
    """Encodes documents and writes the part of a task."""

    job: Job
    account: Account

    def __call__(self, data: Iterable[Any], rank: int = 0, world_size: int = 1) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a task has one core
        write_part(self.job, rank, _ours(data), self.account.drops)


@dataclass
class Merge:
    """Makes the corpus of the parts."""

    job: Job

    def __call__(self, data: object = None, rank: int = 0, world_size: int = 1) -> None:
        merge(self.job)
