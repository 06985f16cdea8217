"""The demo: the whole way on real text, by the public verbs alone, each printed before it runs.

Tokenizer, corpus, pre-training under the live display; then what it bought: a classifier fine-tuned on 1,000 labels from the
pre-trained encoder against the same network from scratch, three seeds each; sentences with their per-token "replaced"
probabilities; gaps filled in by the generator; the verdict on the run.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra.demo.texts import DemoText, prepare
from electra.errors import ElectraError
from electra.events import read_events
from electra.storage import write_json


@dataclass(frozen=True, kw_only=True)
class _Size:
    """How much of everything."""

    vocab_size: int
    pretraining: tuple[str, ...]
    finetuning: tuple[str, ...]
    seeds: tuple[int, ...]
    documents: int | None
    labelled: int
    held_out: int


_FULL = _Size(
    vocab_size=8000,
    pretraining=("modern-demo",),
    finetuning=("finetune-demo",),
    seeds=(0, 1, 2),
    documents=None,
    labelled=1000,
    held_out=2000,
)
_SHORT = _Size(
    vocab_size=2000,
    pretraining=("test-modern",),
    finetuning=("finetune-demo", "epochs=1"),
    seeds=(0,),
    documents=2000,
    labelled=100,
    held_out=100,
)


def run(language: str, out: Path, short: bool) -> None:
    """Run the demo in `out`; a second run in the same place resumes.

    Raises:
        ElectraError: E-R450 the demo's text is not installed, E-T450 one of its verbs failed.
    """
    began, size = time.perf_counter(), _SHORT if short else _FULL
    place = out / (f"{language}-short" if short else language)
    texts = prepare(language, place, documents=size.documents, labelled=size.labelled, held_out=size.held_out)
    tokenizer, corpus, first = place / "tokenizer", place / "corpus", place / "runs" / "first"
    if not (corpus / "manifest.json").is_file():
        _verb("tokenizer", "train", texts.text, "--vocab-size", size.vocab_size, "--document", "line", "--out", tokenizer,
              "--overwrite")  # fmt: skip
        _verb("corpus", "build", texts.text, "--tokenizer", tokenizer, "--document", "line", "--out", corpus, "--overwrite")
    _verb("pretrain", *size.pretraining, f"corpus.path={corpus}", f"run.dir={first}")
    accuracies = _compare(size, texts, place, first / "model")
    _verb("predict", first / "model", texts.doubtful, "--task", "replaced", "--format", "text")
    _verb("predict", first / "model", texts.gaps, "--task", "fill-mask", "--format", "text")
    _verb("report", first)
    medians = {arm: statistics.median(values) for arm, values in accuracies.items()}
    gain, minutes = medians["pre-trained"] - medians["from scratch"], round((time.perf_counter() - began) / 60, 1)
    write_json(place / "results.json", {
        "labels": size.labelled, "held_out": size.held_out, "accuracy": accuracies, "gain": gain, "minutes": minutes,
        **outcome(first),
    })  # fmt: skip
    print()
    for arm, values in accuracies.items():
        seeds = ", ".join(f"{value:.1f}" for value in values)
        print(f"{arm:>12}: {medians[arm]:.1f} % right on held-out texts (seeds: {seeds})")
    print(f"pre-training gained {gain:+.1f} points with {size.labelled:,} labels")
    print(f"{minutes} minutes in all; open {first / 'report.html'}")


def _compare(size: _Size, texts: DemoText, place: Path, model: Path) -> dict[str, list[float]]:
    """Fine-tune from the pre-trained encoder and from scratch: accuracy on the held-out examples in per cent, by seed."""
    accuracies: dict[str, list[float]] = {"pre-trained": [], "from scratch": []}
    for arm, weights in (("pre-trained", "loaded"), ("from scratch", "fresh")):
        for seed in size.seeds:
            run_dir = place / "runs" / f"{arm.replace(' ', '-')}-{seed}"
            _verb("finetune", *size.finetuning, "task=classify", f"init.from={model}", f"init.weights={weights}",
                  f"data.train={texts.train}", f"run.dir={run_dir}", f"run.seed={seed}")  # fmt: skip
            figures = json.loads(_verb("evaluate", run_dir / "model", texts.test, capture=True))
            accuracies[arm].append(100 * float(figures["metrics"]["accuracy"]))
    return accuracies


def outcome(run_dir: Path) -> dict[str, Any]:
    """What the log of the pre-training run says at its end."""
    events, _ = read_events(run_dir / "events.jsonl")
    steps = [event for event in events if event["event"] == "step"]
    return {
        "tokens": sum(event["tokens"] for event in steps),
        "training_seconds": round(sum(event["seconds"] for event in steps)),
        "figures": steps[-1]["figures"],
        "verdicts": {event["network"]: event["verdict"] for event in events if event["event"] == "verdict"},
    }


def _verb(*words: object, capture: bool = False) -> str:
    """Print and run one verb; returns what it printed if `capture`, which is then shown as well."""
    arguments = [str(word) for word in words]
    print(f"\n$ electra {shlex.join(arguments)}", flush=True)
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "electra", *arguments], env=environment, check=False, text=True,
        stdout=subprocess.PIPE if capture else None,
    )  # fmt: skip
    if done.returncode:
        raise ElectraError("E-T450", f"electra {arguments[0]}", f"ended with exit code {done.returncode}",
                           "see its message above; the same command goes on from there")  # fmt: skip
    if capture:
        print(done.stdout, end="", flush=True)
    return done.stdout or ""
