"""Corpora by datatrove are those of one machine, document for document; a task that is killed loses nothing.

Runs in an environment of its own: `make datatrove-test`.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

pytest.importorskip("datatrove", reason="datatrove has an environment of its own: make datatrove-test")

import dill
from datatrove.data import Document as Piped
from datatrove.executor import LocalPipelineExecutor, SlurmPipelineExecutor

from electra.errors import ElectraError
from electra.text import build
from electra.text.corpus import inspect
from electra.text.datatrove import Stage, stages
from electra.text.filters import EXACT_DUPLICATES, NEAR_DUPLICATES, FilterOptions
from electra.text.readers import ReadOptions
from electra.text.tokenizer import load

SHARD_TOKENS = 2000
#: a manifest's, that do not depend on where shards end
SUMS = (
    "documents",
    "tokens",
    "unknown_tokens",
    "text_bytes",
    "sources",
    "lengths",
    "tokenizer",
    "seed",
    "filters",
    "segmenter",
)


def varied(documents: Sequence[str]) -> list[str]:
    """Texts of words and of characters by chance: two of them share nothing, for the two ways to near duplicates agree only
    where it is plain what is one."""
    chance, several = random.Random(1), list[str]()
    characters = sorted({one for text in documents for one in text if one >= "\u4e00"} - set("，。！"))
    words = sorted({word for text in documents for word in text.split() if word.isascii()})
    for number in range(len(documents)):
        least = 120 if 400 <= number < 408 else 10
        several.append("".join(chance.choices(characters, k=chance.randint(least, 150))) if number % 2
                       else " ".join(chance.choices(words, k=chance.randint(least, 150))))  # fmt: skip
    return several


@pytest.fixture(scope="module")
def texts(documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven files of five kinds, with copies and near copies in other files, and with much that is left out."""
    place = tmp_path_factory.mktemp("texts")
    documents = varied(documents)
    long = documents[400:408]
    near = [text[:-20] + text[-19:] for text in long]
    (place / "a.txt").write_text("\n\n".join([*documents[:120], *long, "!!! ???", "\x00\u200b"]) + "\n", encoding="utf-8")
    (place / "b.txt").write_text("\n\n".join([documents[3], near[0], "!!! ???", *documents[120:140]]), encoding="utf-8")
    (place / "c.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in [*documents[140:260], near[1], long[0], " "]), encoding="utf-8"
    )
    with gzip.open(place / "d.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n\n".join([*documents[260:380], documents[3], documents[141]]))
    (place / "e.txt").write_text("")
    (place / "below").mkdir()
    rows = ["text\tnumber", *(f"{text}\t1" for text in [*documents[380:400], *documents[408:], *near[2:], documents[390]])]
    (place / "below" / "f.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (place / "g.pdf").write_text("of another kind")
    (place / ".hidden.txt").write_text("hidden")
    return place


def run(found: Sequence[Stage], logs: Path) -> None:
    executor = None
    for stage in found:
        executor = LocalPipelineExecutor(
            stage.pipeline, tasks=stage.tasks, workers=1, logging_dir=str(logs / stage.name), depends=executor
        )
    assert executor is not None
    executor.run()


def rows(corpus: Path) -> Counter[tuple[Any, ...]]:
    """The documents, with every column."""
    found: Counter[tuple[Any, ...]] = Counter()
    for shard in corpus.glob("shard-*.arrow"):
        with pa.memory_map(str(shard)) as file:
            table = pa.ipc.open_file(file).read_all()
            found.update(zip(*[map(tuple, column.to_pylist()) for column in table.columns], strict=True))
    return found


def lost(counts: dict[str, int]) -> dict[str, int]:
    """Copies and near copies in one sum: datatrove's blocks do not tell them apart."""
    both = counts.get(EXACT_DUPLICATES, 0) + counts.get(NEAR_DUPLICATES, 0)
    return {cause: count for cause, count in counts.items() if cause not in (EXACT_DUPLICATES, NEAR_DUPLICATES)} | {
        "copies": both
    }


def sources(corpus: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (corpus / "sources.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line | {"counts": lost(line["counts"])} for line in lines]


def assert_equal(one: Path, other: Path) -> None:
    mine, theirs = inspect(one, samples=0).manifest, inspect(other, samples=0).manifest
    assert {name: getattr(mine, name) for name in SUMS} == {name: getattr(theirs, name) for name in SUMS}
    assert lost(mine.counts) == lost(theirs.counts)
    assert sources(one) == sources(other)
    assert rows(one) == rows(other)


FILTERS = {
    "none": FilterOptions(),
    "exact": FilterOptions(duplicates="exact", min_characters=30),
    "near": FilterOptions(duplicates="near", max_repeated=0.9),
}


@pytest.mark.parametrize(("kind", "tasks"), [("none", 4), ("exact", 9), ("near", 4)])  # of nine, some have no file
def test_the_corpus_is_that_of_one_machine(kind: str, tasks: int, texts: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    filters = FILTERS[kind]
    manifest = build.build(
        [texts], load(tokenizer_dir), tmp_path / "one", filters=filters, shard_tokens=SHARD_TOKENS, workers=1
    )
    found = stages(
        [texts], tokenizer=tokenizer_dir, out=tmp_path / "many", work=tmp_path / "work", tasks=tasks, filters=filters,
        shard_tokens=SHARD_TOKENS,
    )  # fmt: skip
    assert [stage.name for stage in found] == (["signatures", "buckets", "clusters"] if kind != "none" else []) + [
        "shards",
        "merge",
    ]
    run(found, tmp_path / "logs")
    assert_equal(tmp_path / "many", tmp_path / "one")
    copies = lost(manifest.counts)["copies"]
    assert copies >= {"none": 0, "exact": 4, "near": 7}[kind]  # or nothing was compared
    assert len(manifest.shards) > 4


def test_a_task_that_is_killed_is_done_again_and_nothing_else(texts: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("child.py")), str(texts), str(tokenizer_dir), str(tmp_path)]
    parts, completions = tmp_path / "work" / "parts", tmp_path / "logs" / "shards" / "completions"
    with (tmp_path / "first.log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        until(lambda: (tmp_path / "pid").exists(), child)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        until(lambda: all((completions / f"{rank:05d}").exists() for rank in (0, 1, 3)), child)
    finally:
        os.killpg(child.pid, signal.SIGKILL)  # it would wait for the task for ever
        child.wait()
    assert sorted(path.name for path in parts.iterdir() if not path.name.startswith(".")) == ["00000", "00001", "00003"]
    assert not (tmp_path / "corpus").exists()
    times = {path: path.stat().st_mtime_ns for path in parts.glob("*/journal.json")}
    (tmp_path / "open").touch()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in times} == times
    build.build(
        [texts], load(tokenizer_dir), tmp_path / "one", filters=FilterOptions(duplicates="exact", min_characters=30),
        shard_tokens=SHARD_TOKENS, workers=1,
    )  # fmt: skip
    assert_equal(tmp_path / "corpus", tmp_path / "one")


def until(reached: Callable[[], bool], child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while not reached():
        assert child.poll() is None, "it ended"
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_slurms_executor_hands_the_stages_to_jobs(
    texts: Path, tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an `sbatch` that takes scripts and starts nothing; what a job does is done here."""
    (tmp_path / "bin").mkdir()
    for name, told in {"sbatch": "Submitted batch job 7", "scontrol": "node1"}.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\necho {told}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for name, value in {"NODELIST": "node1", "CPUS_PER_TASK": "1", "MEM_PER_CPU": "2048"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    previous = None
    for stage in stages([texts], tokenizer=tokenizer_dir, out=tmp_path / "many", work=tmp_path / "work", tasks=2):
        previous = SlurmPipelineExecutor(
            pipeline=stage.pipeline, tasks=stage.tasks, time="01:00:00", partition="cpu", job_name=stage.name,
            logging_dir=str(tmp_path / "logs" / stage.name), depends=previous, requeue_signals=None,
        )  # fmt: skip
    assert previous is not None
    previous.run()
    for name, tasks in (("shards", 2), ("merge", 1)):
        for rank in range(tasks):
            monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(rank))
            dill.loads((tmp_path / "logs" / name / "executor.pik").read_bytes()).run()
    build.build([texts], load(tokenizer_dir), tmp_path / "one", workers=1)
    assert_equal(tmp_path / "many", tmp_path / "one")


class Rows:
    """A reader that is not ours: a list of raw texts, dealt out in stretches."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    def __repr__(self) -> str:
        return f"rows {len(self.texts)}"

    def __call__(self, data: object = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        length = -(-len(self.texts) // world_size)
        for number, text in enumerate(self.texts[rank * length : (rank + 1) * length]):
            yield Piped(text=text, id=str(number), metadata={"file_path": f"piece {rank}"})


def test_documents_of_another_reader_are_cleaned_and_built_the_same(
    documents: list[str], tokenizer_dir: Path, tmp_path: Path
) -> None:
    raw = [*documents[:60], "  two\u200b  spaces \x00", "\x00", documents[5]]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in raw), encoding="utf-8")
    filters = FilterOptions(duplicates="exact")
    build.build([tmp_path / "texts.jsonl"], load(tokenizer_dir), tmp_path / "one", filters=filters, workers=1)
    found = stages(
        reader=[Rows(raw)], tokenizer=tokenizer_dir, out=tmp_path / "many", work=tmp_path / "work", tasks=3, filters=filters
    )
    run(found, tmp_path / "logs")
    assert rows(tmp_path / "many") == rows(tmp_path / "one")
    mine, theirs = (inspect(tmp_path / name, samples=0).manifest for name in ("many", "one"))
    assert mine.documents == theirs.documents == 61
    assert {cause: count for cause, count in theirs.counts.items() if not cause.startswith("read:")} == mine.counts
    assert [line["file"] for line in sources(tmp_path / "many")] == ["piece 0", "piece 1", "piece 2"]


def test_another_command_does_not_go_on_in_the_same_place(texts: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    def begin(tasks: int, out: str = "corpus") -> list[Stage]:
        return stages([texts / "a.txt"], tokenizer=tokenizer_dir, out=tmp_path / out, work=tmp_path / "work", tasks=tasks)

    run(begin(2), tmp_path / "logs")
    run(begin(2), tmp_path / "other logs")  # whose marks are lost: made again, or found to be there
    with pytest.raises(ElectraError, match="E-C863"):
        begin(3)
    again = begin(2, out="again")
    part = tmp_path / "work" / "parts" / "00001"
    (part / "journal.json").rename(part / "elsewhere")
    with pytest.raises(ElectraError, match="E-D860"):
        run(again[-1:], tmp_path / "third logs")
    (part / "journal.json").write_text((part / "elsewhere").read_text().replace('"seed":"0"', '"seed":"1"'))
    with pytest.raises(ElectraError, match="E-D861"):
        run(again[-1:], tmp_path / "third logs")


def test_files_that_change_between_stages_are_noticed(documents: list[str], tokenizer_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join(documents[:20]), encoding="utf-8")
    found = stages(
        [file], tokenizer=tokenizer_dir, out=tmp_path / "corpus", work=tmp_path / "work", tasks=1,
        filters=FilterOptions(duplicates="exact"),
    )  # fmt: skip
    run(found[:3], tmp_path / "logs")
    file.write_text("\n\n".join(documents[1:22]), encoding="utf-8")
    with pytest.raises(ElectraError, match="E-D127"):
        run(found[3:4], tmp_path / "logs")


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"tasks": 0}, "E-C860"),
        ({"buckets": 0}, "E-C860"),
        ({"reader": [print]}, "E-C861"),
        ({"filters": FilterOptions(max_line_documents=3)}, "E-C862"),
        ({"filters": FilterOptions(duplicates="near", similarity=0.7)}, "E-C862"),
        ({"shard_tokens": 0}, "E-C106"),
        ({"options": ReadOptions(text_field=("body",))}, "E-D105"),
    ],
)
def test_what_cannot_be_is_said_before_the_first_task(
    given: dict[str, Any], code: str, texts: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    values: dict[str, Any] = {"tokenizer": tokenizer_dir, "out": tmp_path / "o", "work": tmp_path / "w", "tasks": 2} | given
    with pytest.raises(ElectraError, match=code):
        stages([texts], **values)
    assert not (tmp_path / "w").exists()
