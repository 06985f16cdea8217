"""What tasks make of stretches of the files is, put together, the corpus that one process makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from electra.errors import ElectraError
from electra.text import build
from electra.text.corpus import inspect
from electra.text.drops import Drops
from electra.text.filters import NO_FILTERS
from electra.text.parts import Job, begin, merge, share, write_part
from electra.text.readers import READ_DEFAULTS, read_files
from electra.text.tokenizer import load


@pytest.mark.parametrize(
    "sizes", [[], [0], [5], [0, 0, 0], [1, 1, 1, 1], [100, 1, 1, 1], [1, 1, 1, 100], [7, 3, 9, 2, 2, 8, 1]]
)
@pytest.mark.parametrize("tasks", [1, 2, 3, 4, 9])
def test_the_shares_of_tasks_are_all_files_in_order(sizes: list[int], tasks: int) -> None:
    files = list(range(len(sizes)))
    assert [file for rank in range(tasks) for file in files[share(sizes, rank, tasks)]] == files


def test_shares_weigh_about_the_same() -> None:
    assert [share([10] * 8, rank, 4) for rank in range(4)] == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)]


def job_of(texts: Path, tokenizer: Path, place: Path, tasks: int) -> Job:
    return Job(
        paths=(texts,), tokenizer=tokenizer, out=place / "corpus", work=place / "work", tasks=tasks, options=READ_DEFAULTS,
        filters=NO_FILTERS, segmenter=None, shard_tokens=2000, seed=3, source="", packages=(),
    )  # fmt: skip


def write(job: Job, rank: int) -> None:
    files, drops = job.files(Drops()), Drops()
    own = files[share([file.stat().st_size for file in files], rank, job.tasks)]
    write_part(job, rank, read_files(own, drops, job.options), drops)


@pytest.fixture
def texts(documents: list[str], tmp_path: Path) -> Path:
    place = tmp_path / "texts"
    place.mkdir()
    for number in range(5):
        own = documents[number * 40 : number * 40 + 40]
        (place / f"{number}.txt").write_text("\n\n".join([*own, "\x00"]), encoding="utf-8")
    (place / "other.pdf").touch()
    return place


def test_parts_make_the_corpus_of_one_process(texts: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    job = job_of(texts, tokenizer_dir, tmp_path, tasks=8)  # more than files
    begin(job)
    for rank in (5, 0, 7, 1, 6, 2, 3, 4):
        write(job, rank)
    merge(job)
    one = build.build([texts], load(tokenizer_dir), tmp_path / "one", shard_tokens=2000, seed=3, workers=1)
    many = inspect(job.out, samples=0).manifest
    for name in ("documents", "tokens", "text_bytes", "sources", "lengths", "counts", "unknown_tokens"):
        assert getattr(many, name) == getattr(one, name), name
    lines = [(place / "sources.jsonl").read_text(encoding="utf-8") for place in (job.out, tmp_path / "one")]
    assert lines[0] == lines[1]
    merge(job)  # once more: it is there
    (texts / "0.txt").write_text("something else")
    with pytest.raises(ElectraError, match="E-D127"):
        write(job, 0)


def test_parts_that_are_missing_or_of_another_command(texts: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    job = job_of(texts, tokenizer_dir, tmp_path, tasks=2)
    begin(job)
    write(job, 1)
    with pytest.raises(ElectraError, match="E-D860"):
        merge(job)
    write(job, 0)
    with pytest.raises(ElectraError, match="E-C863"):
        begin(job_of(texts, tokenizer_dir, tmp_path, tasks=3))
    journal = job.part(1) / "journal.json"
    before = journal.stat().st_mtime_ns
    write(job, 1)
    assert journal.stat().st_mtime_ns == before  # it was there
    changed = json.loads(journal.read_text())
    changed["command"]["seed"] = "4"
    journal.write_text(json.dumps(changed))
    with pytest.raises(ElectraError, match="E-D861"):
        merge(job)
    assert not job.out.exists()
