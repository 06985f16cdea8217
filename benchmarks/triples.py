"""From raw sentences to triples: a tagger and a relation model, trained here, scored strictly on sentences they have not seen.

    python benchmarks/triples.py DATA ENCODER WORK_DIR [--arms NAME ...] [--epochs 3] [--seed 0] [--limit N]

DATA has the folders finre and semeval2010_task8 with the files as their authors publish them. ENCODER is a model directory of
the language. The tagger learns the mentions of the relation data's own training sentences (`mention`, no types); each arm
trains a relation model with one kind of head, and scores it with given mentions and with predicted ones. One JSON per
finished arm in benchmarks/results/triples/; an arm that has one is skipped, and a run that was stopped goes on, so the script
can be stopped and run again. --limit takes the first N sentences of each file, to see that everything works, and leaves its
results in WORK_DIR.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from electra.tasks.markers import arguments
from electra.tasks.readers import read_relations
from electra.train import machine

RESULTS = Path(__file__).parent / "results" / "triples"
#: data set -> training and test file, in its folder
FILES = {
    "semeval2010_task8": ("TRAIN_FILE.TXT", "TEST_FILE_FULL.TXT"),
    "finre": ("train.txt", "test.txt"),
}
ARMS = [f"{data}-{head}" for data in FILES for head in ("mentions", "cls")]


def electra(*words: object) -> str:
    """One verb of the command line; its standard output."""
    command = [sys.executable, "-m", "electra", *map(str, words)]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def trained(run: Path, *settings: object) -> Path:
    """The model of a fine-tuning run, which is made, or resumed, if it is not finished."""
    electra("finetune", *settings, f"run.dir={run}")
    return run / "model"


def limited(source: Path, limit: int | None, place: Path) -> Path:
    """The file itself, or one of its first `limit` records, which empty lines divide in both data sets."""
    if limit is None:
        return source
    records = source.read_text(encoding="utf-8-sig").replace("\r\n", "\n").split("\n\n")
    path = place / source.name
    path.write_text("\n\n".join(records[:limit]) + "\n", encoding="utf-8")
    return path


def mentions_of(relations: Path, path: Path) -> Path:
    """The sentences of relation data with their mentions, as JSON lines for task tag."""
    found = dict[str, set[tuple[int, int]]]()
    for example in read_relations(relations).examples:
        found.setdefault(example.text, set()).update((one.start, one.end) for one in arguments(example))
    lines = [
        json.dumps({"text": text, "spans": [{"start": a, "end": b, "label": "mention"} for a, b in sorted(places)]})
        for text, places in found.items()
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def measure(arm: str, given: argparse.Namespace) -> dict[str, Any]:
    """Train tagger and relation model, score."""
    data, head = arm.rsplit("-", 1)
    place = given.work / f"{data}-{given.limit or 'all'}"
    place.mkdir(parents=True, exist_ok=True)
    train, test = (limited(given.data / data / name, given.limit, place) for name in FILES[data])
    shared = [f"init.from={given.encoder}", f"epochs={given.epochs}", f"run.seed={given.seed}", f"optimizer.lr={given.lr}"]
    began = time.perf_counter()
    mentions = mentions_of(train, place / "mentions.jsonl")
    tagger = trained(place / f"tagger-{given.seed}", "task=tag", f"data.train={mentions}", *shared)
    labels = sorted({str(example.target) for file in (train, test) for example in read_relations(file).examples})
    own = ["task=relation", f"task.head={head}", f"task.labels={json.dumps(labels, ensure_ascii=False)}"]
    model = trained(place / f"{head}-{given.seed}", *own, f"data.train={train}", *shared)
    return {
        "arm": arm, "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(), "seed": given.seed, "settings": own,
        "encoder": given.encoder.name, "epochs": given.epochs, "lr": given.lr, "limit": given.limit,
        "given_mentions": json.loads(electra("evaluate", model, test))["metrics"],
        "predicted_mentions": json.loads(electra("evaluate", model, test, "--tagger", tagger)),
        "seconds": round(time.perf_counter() - began), "machine": machine.describe(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--arms", nargs="*", default=ARMS, choices=ARMS)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int)
    given = parser.parse_args()
    results = RESULTS if given.limit is None else given.work / "results"
    results.mkdir(parents=True, exist_ok=True)
    for arm in given.arms:
        path = results / f"{arm}-{given.encoder.name}-{given.seed}.json"
        if not path.is_file():
            result = measure(arm, given)
            path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        result = json.loads(path.read_text(encoding="utf-8"))
        found = result["predicted_mentions"]
        name, alone = next(iter(result["given_mentions"].items()))
        print(f"{arm:28} {name} {alone:.3f} with given mentions; triple F1 {found['metrics']['triple_f1']:.3f}, mention F1 "
              f"{found['metrics']['mention_f1']:.3f} on {found['sentences']:,} sentences", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
