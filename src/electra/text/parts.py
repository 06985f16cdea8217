"""A corpus in parts: each task encodes a stretch of the files by itself, and the shards of all are put under one manifest.

In: files on a file system that all tasks see, and a tokenizer. Out: the corpus that `build.build` makes of them, with the same
documents in the same order but for the one within shards.

Which documents a task writes is up to whoever calls: `datatrove.py`. A part has its shards, its sources, and a journal with
the sums of what it holds; it is there whole or not. The command (files, options, tokenizer, versions, tasks) lies in the
working directory and in each part, so that no corpus is made by two.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from electra.errors import ElectraError
from electra.storage import MANIFEST, published, sync, workshop, write_json
from electra.text.build import BATCH_CHARACTERS, MadeOf, Writer, fingerprint_of, require_place, seal, texts_of
from electra.text.drops import Drops
from electra.text.encode import Encoder
from electra.text.filters import FilterOptions
from electra.text.journal import Journal, command_of, read_journal
from electra.text.manifest import read_manifest
from electra.text.readers import Document, ReadOptions, batches, find_files, try_files
from electra.text.tokenizer import load
from electra.text.words import SegmenterName, segmenter_package

_PARTS, _COMMAND = "parts", "command.json"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is made of what; plain values, since it goes from machine to machine.

    Args:
        paths, options, filters, segmenter, shard_tokens, seed: as in `build.build`.
        tokenizer: where it lies.
        out: directory of the corpus.
        work: directory of the parts.
        tasks: how many.
        source: in words, what documents come from where it is not `paths`, and how duplicates are found.
        packages: whose versions decide what stays, besides those that are always used.
    """

    paths: tuple[Path, ...]
    tokenizer: Path
    out: Path
    work: Path
    tasks: int
    options: ReadOptions
    filters: FilterOptions
    segmenter: SegmenterName | None
    shard_tokens: int
    seed: int
    source: str
    packages: tuple[str, ...]

    @property
    def made_of(self) -> MadeOf:
        """As the one-machine build has it."""
        return MadeOf(
            tokenizer=load(self.tokenizer), options=self.options, filters=self.filters, segmenter=self.segmenter,
            shard_tokens=self.shard_tokens, seed=self.seed,
        )  # fmt: skip

    def files(self, found: Drops) -> list[Path]:
        """All that are read, in order."""
        return find_files(self.paths, found, self.options) if self.paths else []

    def command(self) -> dict[str, str]:
        """What the corpus depends on, by name."""
        against = [path for path in map(Path, self.filters.against) if path.is_file()]
        own = {name: getattr(self, name) for name in ("segmenter", "shard_tokens", "seed", "tasks", "source")}
        packages = [*self.packages, *([segmenter_package(self.segmenter)] if self.segmenter else [])]
        options = dataclasses.asdict(self.options) | dataclasses.asdict(self.filters) | own
        return command_of([*self.files(Drops()), *against], load(self.tokenizer).fingerprint, options, packages)

    def part(self, rank: int) -> Path:
        """What a task makes."""
        return self.work / _PARTS / f"{rank:05d}"


def share(sizes: Sequence[int], rank: int, tasks: int) -> slice:
    """Which files, of these sizes in bytes, a task reads: a stretch, so that tasks in order read all of them in order."""
    ends = np.cumsum(np.array([*sizes, 0], dtype=np.int64) + 1)  # an empty file counts, too
    middles = ends[:-1] - (np.diff(ends, prepend=0)[:-1] + 1) // 2
    of_task = middles * tasks // int(ends[-1])
    first, last = np.searchsorted(of_task, [rank, rank + 1]).tolist()
    return slice(first, last)


def begin(job: Job) -> None:
    """Look at what can be seen before the first task, and write down the command.

    Raises:
        ElectraError: E-C863 `work` was begun with another command; those of `build.build` about paths, tokenizer and `out`.
    """
    load(job.tokenizer)
    _ = job.made_of
    if job.paths:
        try_files(job.files(Drops()), job.options)
    job.work.mkdir(parents=True, exist_ok=True)
    note, command = job.work / _COMMAND, job.command()
    if note.is_file() and json.loads(note.read_text(encoding="utf-8")) != command:
        raise ElectraError("E-C863", str(job.work), "was begun with other values, files or versions",
                           "give those again, or another directory")  # fmt: skip
    if not note.is_file():
        require_place(job.out, overwrite=False)
    write_json(note, command)


def write_part(job: Job, rank: int, documents: Iterable[Document], drops: Drops) -> None:
    """Encode the documents of a task and write its part, unless it is there.

    Args:
        rank: number of the task.
        documents: those that stay, in order.
        drops: what was left out on the way, by cause and file; read when documents were.

    Raises:
        ElectraError: E-D127 the files are not those of the command that was begun; E-R001 and E-R002.
    """
    part, command = job.part(rank), job.command()
    if command != json.loads((job.work / _COMMAND).read_text(encoding="utf-8")):
        cause = "the files hold other documents than when the first task was begun"
        raise ElectraError("E-D127", "corpus", cause, "begin again in another `work`, while nobody writes to the files")
    if (there := read_journal(part)) is not None and there.command == command:
        return  # killed behind the last line of an earlier sitting
    found = Drops()
    if rank == 0:
        job.files(found)
    made_of, journal = job.made_of, Journal(command=command, losses=found.total)
    encode = Encoder(made_of.tokenizer, made_of.segmenter)
    with published(part) as shop:
        (shop / "made").mkdir()
        writer = Writer(shop, made_of, journal, drops)
        for batch in batches(documents, min(BATCH_CHARACTERS, made_of.shard_tokens)):
            writer.add(batch, encode(texts_of(batch)))
        writer.close()
        journal.save(shop)


def merge(job: Job) -> None:
    """Put the shards of all parts under one manifest. Files are linked, not copied, where the file system has links.

    Raises:
        ElectraError: E-D860 a part is missing, E-D861 a part is of another command, E-C102, E-D120, E-R001, E-R002, E-R003.
    """
    total, made_of = Journal(command=job.command()), job.made_of
    shards, sources = dict[str, Path](), list[Path]()
    for number in range(job.tasks):
        part = job.part(number)
        journal = read_journal(part)
        if journal is None:
            raise ElectraError("E-D860", str(part), "this part is not there, or not whole", "run the stage `shards` again")
        if journal.command != total.command:
            raise ElectraError("E-D861", str(part), "this part is of other values, files or versions",
                               "begin again in another `work`")  # fmt: skip
        before = len(total.shards)
        total.add(journal)
        shards |= {new.file: part / "made" / old.file for new, old in zip(total.shards[before:], journal.shards, strict=True)}
        sources.append(part / "made" / "sources.jsonl")
    if (job.out / MANIFEST).is_file() and read_manifest(job.out).fingerprint == fingerprint_of(made_of, total):
        return  # killed behind the last line of an earlier sitting
    require_place(job.out, overwrite=False)
    with workshop(job.out) as shop:
        shutil.rmtree(shop / "made", ignore_errors=True)
        (made := shop / "made").mkdir()
        _gather(made, shards, sources)
        made_of.tokenizer.save(made / "tokenizer")
        seal(made, made_of, total)


def _gather(made: Path, shards: Mapping[str, Path], sources: Sequence[Path]) -> None:
    for name, shard in shards.items():
        try:
            os.link(shard, made / name)
        except OSError:
            shutil.copyfile(shard, made / name)
            sync(made / name)
    with (made / "sources.jsonl").open("wb") as file:
        for source in sources:
            file.write(source.read_bytes())
    sync(made / "sources.jsonl")
