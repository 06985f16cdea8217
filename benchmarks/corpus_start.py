"""What it takes to start a run on a corpus of a billion documents: time and memory until the first batch is there.

    python benchmarks/corpus_start.py WORK_DIR [--shards 715] [--no-save]

The corpus is synthetic: shards of 1.4 million documents of three tokens, all of them hard links to one file of 25 MB, which is
18 GB to whoever reads them. In a process that has imported everything, timed is what a fresh run does before its networks:
open the corpus and its tokenizer, number the rows, the entropy of the first tokens, the batches of ten steps at random places.
Memory is what the process holds more than after its imports (`VmRSS`, at its peak and in the end), mapped files included.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

DOCUMENTS, ROWS, LENGTH, STEPS = 1_400_000, 128, 128, 10


def make(corpus: Path, shards: int) -> None:
    """A corpus of `shards` equal shards."""
    import pyarrow as pa

    from electra.text.build import build
    from electra.text.manifest import read_manifest
    from electra.text.shards import ShardWriter
    from electra.text.train_tokenizer import train

    words = [f"{left}{right}" for left in "bcdfghklmnpr" for right in "aeiou"]
    tokenizer = train([" ".join(words)] * 9, 500)
    (corpus.parent / "a.txt").write_text("\n\n".join(words))
    build([corpus.parent / "a.txt"], tokenizer, corpus)
    tokens = np.tile(np.array([tokenizer.cls_id, 0, tokenizer.sep_id], dtype=np.uint16), DOCUMENTS)
    tokens[1::3] = np.random.default_rng(0).integers(5, tokenizer.vocab_size, DOCUMENTS)
    offsets = np.arange(DOCUMENTS + 1, dtype=np.int32)
    ends = np.full(DOCUMENTS, 2, dtype=np.uint32)
    rows = pa.record_batch({
        "tokens": pa.ListArray.from_arrays(3 * offsets, tokens), "sentence_ends": pa.ListArray.from_arrays(offsets, ends)
    })  # fmt: skip
    writer = ShardWriter(corpus, seed=0)
    writer.add(rows, len(tokens))
    writer.write()
    (shard,) = writer.shards
    tree = json.loads(read_manifest(corpus).to_json())
    tree["shards"] = []
    for number in range(shards):
        name = f"shard-{number:05d}.arrow"
        if number:
            os.link(corpus / shard.file, corpus / name)
        tree["shards"].append({"file": name, "documents": DOCUMENTS, "tokens": len(tokens), "bytes": shard.bytes,
                               "blake2b": shard.blake2b})  # fmt: skip
    tree |= {"documents": shards * DOCUMENTS, "tokens": shards * len(tokens), "lengths": {"4": shards * DOCUMENTS}}
    (corpus / "manifest.json").write_text(json.dumps(tree))


def start(corpus_path: Path) -> dict[str, Any]:
    """What a run does with its corpus; seconds of each part and megabytes."""
    from electra.build.corpora import Corpora, CorpusConfig
    from electra.data.loader import PretrainLoader
    from electra.data.rows import PackedRowsConfig

    imports, marks = megabytes("VmRSS"), [time.perf_counter()]
    corpora = Corpora(CorpusConfig(path=corpus_path), PackedRowsConfig(length=LENGTH), seed=0)
    marks.append(time.perf_counter())
    corpora.unigram_entropy()
    marks.append(time.perf_counter())
    tokenizer = corpora.tokenizer
    loader = PretrainLoader(
        mixture=corpora.mixture, cls_id=tokenizer.cls_id, sep_id=tokenizer.sep_id, mask_id=tokenizer.mask_id,
        pad_id=tokenizer.pad_id, batch_rows=ROWS, micro_rows=ROWS, steps=1000,
    )  # fmt: skip
    for step in range(STEPS):
        for _ in loader.micro_batches(step, 0, 1):
            marks += [time.perf_counter()] if step == 0 else []
    marks.append(time.perf_counter())
    names = ("open", "entropy", "first batch", f"{STEPS - 1} more")
    (corpus,) = corpora.corpora
    return {
        "documents": corpus.manifest.documents, "tokens": corpus.manifest.tokens, "shards": len(corpus.shards),
        "seconds": {name: round(after - mark, 3) for name, mark, after in zip(names, marks[:-1], marks[1:], strict=True)},
        "seconds_to_first_batch": round(marks[3] - marks[0], 3),
        "imports_mb": round(imports), "peak_more_mb": round(megabytes("VmHWM") - imports),
        "more_mb": round(megabytes("VmRSS") - imports),
    }  # fmt: skip


def megabytes(field: str) -> float:
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--shards", type=int, default=715)
    parser.add_argument("--no-save", action="store_true")
    parser.add_argument("--start", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.start:
        print(json.dumps(start(given.work / "billion")))
        return
    given.work.mkdir(parents=True, exist_ok=True)
    make(given.work / "billion", given.shards)
    answer = subprocess.run([sys.executable, __file__, str(given.work), "--start"], check=True, stdout=subprocess.PIPE)
    shutil.rmtree(given.work / "billion")
    result = json.loads(answer.stdout)
    print(json.dumps(result, indent=1))
    if not given.no_save:
        date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        path = Path(__file__).parent / "results" / f"corpus_start-{date}.json"
        path.write_text(json.dumps({"date": date, "load_average": os.getloadavg()} | result, indent=1) + "\n", encoding="utf-8")
        print(f"written: {path}")


if __name__ == "__main__":
    main()
