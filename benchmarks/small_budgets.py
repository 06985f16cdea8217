"""What a few minutes of pre-training are worth, by objective: recorded arms on the demo's text.

    python benchmarks/small_budgets.py WORK_DIR [--arms NAME ...] [--language zh] [--minutes 6 | --steps 2700]

Every arm pre-trains the demo's encoder for the same wall-clock time, or for the same number of steps, then fine-tunes it on
1,000 labels with three seeds and scores held-out texts. One JSON per finished arm in benchmarks/results/small_budgets/; an arm
that has one is skipped, so the script can be stopped and run again. Equal time wants an otherwise idle machine. Needs the
extra `demo`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from electra.demo import outcome
from electra.demo.texts import prepare

RESULTS = Path(__file__).parent / "results" / "small_budgets"
SEEDS = (0, 1, 2)
#: what each arm changes of the recipe `modern-demo`
ARMS: dict[str, list[str]] = {
    "scratch": [],  # no pre-training: the same network with fresh weights
    "default": [],
    "mlm": ["phases.rtd.share=0"],
    "rtd": ["phases.mlm.share=0"],
    "mlm-30": ["phases.mlm.share=0.3", "phases.rtd.share=0.7"],
    "mlm-80": ["phases.mlm.share=0.8", "phases.rtd.share=0.2"],
    "rtd-rate-2e-3": ["phases.rtd.optimizer.lr=2e-3"],
    "rtd-rate-5e-4": ["phases.rtd.optimizer.lr=5e-4"],
    "rtd-discriminator-half-rate": ["phases.rtd.optimizer.lr_scale.discriminator=0.5"],
    "bottom-layers-2": ["phases.rtd.objective.tying=bottom-layers", "phases.rtd.objective.shared_layers=2"],
    "embeddings-tied": ["phases.rtd.objective.tying=embeddings"],
    "generator-3": ["generator.layers=3"],
    "mask-30": ["phases.mlm.objective.masking.rate=0.3"],
    "rtd-mask-30": ["phases.rtd.objective.masking.rate=0.3"],
}


def electra(*words: object) -> str:
    """One verb of the command line; its standard output."""
    command = [sys.executable, "-m", "electra", *map(str, words)]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def accuracies(model: Path, weights: str, texts: Any, place: Path) -> list[float]:
    """Held-out accuracy in per cent for each seed."""
    found = []
    for seed in SEEDS:
        run = place / f"{weights}-{seed}"
        electra("finetune", "finetune-demo", "task=classify", f"init.from={model}", f"init.weights={weights}",
                f"data.train={texts.train}", f"run.dir={run}", f"run.seed={seed}", "run.fresh=true")  # fmt: skip
        found.append(100 * json.loads(electra("evaluate", run / "model", texts.test))["metrics"]["accuracy"])
    return found


def measure(arm: str, place: Path, corpus: Path, texts: Any, stop: list[str]) -> dict[str, Any]:
    """Pre-train, fine-tune, score."""
    settings = [*ARMS[arm], *(["stop.steps=1"] if arm == "scratch" else stop)]
    began = datetime.datetime.now(tz=datetime.UTC)
    electra("pretrain", "modern-demo", f"corpus.path={corpus}", f"run.dir={place / 'run'}", "run.fresh=true", *settings)
    seconds = (datetime.datetime.now(tz=datetime.UTC) - began).total_seconds()
    values = accuracies(place / "run" / "model", "fresh" if arm == "scratch" else "loaded", texts, place)
    recipe = json.loads((place / "run" / "recipe.json").read_text(encoding="utf-8"))
    return {
        "arm": arm, "date": began.date().isoformat(), "settings": settings, "seconds": round(seconds),
        **outcome(place / "run"),
        "accuracy": values, "median": statistics.median(values), "spread": max(values) - min(values),
        "machine": recipe["resolved"]["machine"], "spans": recipe["resolved"]["spans"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--language", default="zh", choices=("zh", "en"))
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=6.0)
    length.add_argument("--steps", type=int)
    given = parser.parse_args()
    stop = [f"stop.hours={given.minutes / 60}"] if given.steps is None else [f"stop.steps={given.steps}", "stop.hours=1000"]
    budget = f"{given.minutes:g}min" if given.steps is None else f"{given.steps}steps"
    work = given.work / given.language
    texts = prepare(given.language, work, documents=None, labelled=1000, held_out=3000)
    if not (work / "corpus" / "manifest.json").is_file():
        shape = ("--document", "line", "--overwrite", "--out")
        electra("tokenizer", "train", texts.text, "--vocab-size", 8000, *shape, work / "tokenizer")
        electra("corpus", "build", texts.text, "--tokenizer", work / "tokenizer", *shape, work / "corpus")
    RESULTS.mkdir(parents=True, exist_ok=True)
    for arm in given.arms:
        path = RESULTS / f"{given.language}-{budget}-{arm}.json"
        if not path.is_file():
            result = measure(arm, work / f"{budget}-{arm}", work / "corpus", texts, stop)
            path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        result = json.loads(path.read_text(encoding="utf-8"))
        figures = result["figures"]
        gained = f"auc {figures.get('auc', float('nan')):.3f}  gain {figures.get('prior_gain', float('nan')):.3f}"
        print(f"{arm:28} {result['median']:5.1f} % (spread {result['spread']:.1f})  {result['tokens']:>11,} tokens  {gained}")


if __name__ == "__main__":
    main()
