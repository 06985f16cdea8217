"""What training on scored pairs does to vectors of texts: recorded arms on STS-B.

    DATA=dir python benchmarks/embed.py WORK_DIR --model NAME=MODEL_DIR [--model ...] [--limit N] [--set KEY=VALUE ...]

DATA is a directory with `stsb/train.tsv` and `stsb/dev.tsv` as GLUE has them. Of every model two arms: `raw`, the mean over the
encoder's tokens as it is, and `trained`, after `electra finetune task=embed` on the training file. One JSON per finished arm in
benchmarks/results/embed/, with Spearman and Pearson on the development file; an arm that has one is skipped. With `--limit`
only so many rows of each file are used, and nothing is recorded: to see that it runs.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from electra.evaluate.run import examination
from electra.predict.search import load_embedder
from electra.train import machine

RESULTS = Path(__file__).parent / "results" / "embed"
#: a sentence encoder keeps what it knows at these; an encoder from pre-training alone wants a higher rate
SETTINGS = ["epochs=2", "optimizer.lr=5e-5", "optimizer.layer_decay=1.0", "batch.examples=32"]


def files(data: Path, work: Path, limit: int | None) -> list[Path]:
    """Training and development file, the first rows of each if there is a limit."""
    found = []
    for name in ("train.tsv", "dev.tsv"):
        path = data / "stsb" / name
        if limit is not None:
            with path.open(encoding="utf-8") as whole:
                head = list(itertools.islice(whole, limit + 1))
            path = work / name
            path.write_text("".join(head), encoding="utf-8")
        found.append(path)
    return found


def figures(model: Path, dev: Path) -> dict[str, float]:
    predictor = load_embedder(model)
    return dict(examination(predictor, predictor.task.read(dev).examples).to_json(resamples=0)["metrics"])


def trained(model: Path, train: Path, run: Path, settings: list[str]) -> Path:
    command = ["finetune", "task=embed", f"init.from={model}", f"data.train={train}", f"run.dir={run}", "run.fresh=true"]
    subprocess.run([sys.executable, "-m", "electra", *command, *settings], check=True, stdout=subprocess.DEVNULL)
    return run / "model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--model", action="append", required=True, metavar="NAME=DIR")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings on top of the script's")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    train, dev = files(Path(os.environ["DATA"]), given.work, given.limit)
    settings = [*SETTINGS, *given.set]
    for named, arm in itertools.product(given.model, ("raw", "trained")):
        name, _, place = named.partition("=")
        path = (given.work if given.limit else RESULTS) / f"{name}-{arm}.json"
        if not path.is_file():
            began = time.perf_counter()
            model = Path(place) if arm == "raw" else trained(Path(place), train, given.work / name, settings)
            result: dict[str, Any] = {
                "model": name, "arm": arm, "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
                "settings": settings if arm == "trained" else [], "figures": figures(model, dev),
                "seconds": round(time.perf_counter() - began), "machine": machine.describe(),
            }  # fmt: skip
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        told = json.loads(path.read_text(encoding="utf-8"))["figures"]
        print(f"{name:20} {arm:8} spearman {100 * told['spearman']:5.1f}  pearson {100 * told['pearson']:5.1f}")


if __name__ == "__main__":
    main()
