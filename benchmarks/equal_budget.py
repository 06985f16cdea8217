"""Arms of pre-training that have the same text, network and budget, scored the same way: what options.py and distil.py share.

An arm is a list of settings of `electra pretrain`. It is scored on the last hundredth of the text, which neither it nor a model
of ladder.py has seen: the loss of its masked language
model, and the prior gain and AUC of its discriminator against its own generator, with the same masks for all arms; and by
fine-tuning on the first labels of SST-2, scored on the development file. One JSON per finished arm; an arm that has one is
skipped, so that a script can be stopped and run again.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from electra.build.pretrain import PretrainRecipe, Setting
from electra.config import load
from electra.demo import outcome
from electra.models.model_dir import load_model_dir
from electra.train.loop import Span
from ladder import parted
from small_budgets import electra

RESULTS = Path(__file__).parent / "results"
RECIPE = "modern-tiny"


@dataclass(frozen=True, kw_only=True)
class Place:
    """What the arms share, made once: corpora of training and held-out text, and labelled files."""

    corpus: Path
    held_out: Path
    train: Path
    dev: Path


def prepare(data: Path, work: Path, tokenizer: Path | None, documents: int | None, labels: int) -> Place:
    """Split and encode DATA/text/en_wiki.txt; cut DATA/sst2.

    Args:
        tokenizer: a directory that holds one; None = one of 8,000 entries is trained on the training text.
        documents: of the training text, its first ones; None = all.
        labels: examples to fine-tune on.
    """
    work.mkdir(parents=True, exist_ok=True)
    train, held = parted((data / "text/en_wiki.txt").read_bytes())
    train = b"\n\n".join(train.split(b"\n\n")[:documents])
    for name, text in (("text", train), ("held-out", held)):
        (work / f"{name}.txt").write_bytes(text)
    if tokenizer is None:
        tokenizer = work / "tokenizer"
        if not tokenizer.is_dir():
            electra("tokenizer", "train", work / "text.txt", "--vocab-size", 8000, "--out", tokenizer)
    for name in ("text", "held-out"):
        if not (work / f"{name}-corpus" / "manifest.json").is_file():
            electra("corpus", "build", work / f"{name}.txt", "--tokenizer", tokenizer, "--out", work / f"{name}-corpus")
    lines = (data / "sst2/train.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    (work / "sst2.tsv").write_text("".join(lines[: labels + 1]), encoding="utf-8")
    return Place(
        corpus=work / "text-corpus", held_out=work / "held-out-corpus", train=work / "sst2.tsv", dev=data / "sst2/dev.tsv"
    )


@torch.no_grad()
def held_out(models: Mapping[str, Path], shape: Sequence[str], corpus: Path) -> dict[str, dict[str, float]]:
    """Figures by phase of the recipe, over all whole batches of a corpus, of the model that each phase made.

    Args:
        models: model directory by phase, `mlm` or `rtd`.
        shape: settings of the encoder that differ from the recipe's.
        corpus: of text that they have not seen.
    """
    settings = [f"corpus.path={corpus}", "run.dir=nowhere", "run.seed=1", *shape]
    setting = Setting(load(PretrainRecipe, [RECIPE], settings))
    steps = max(1, int(setting.corpora.counts()["rows"]) // setting.recipe.batch.rows)
    found = {}
    for phase, path in models.items():
        span = Span(name=phase, first=0, steps=steps)
        t = setting.training(span, load_model_dir(path), setting.recipe.batch.rows, False, card=str)
        t.module.eval()
        sums: dict[str, torch.Tensor] = {}
        for step in range(steps):
            for batch, noise in t.loader.micro_batches(step, 0, 1):
                totals = t.objective(batch.to(t.device), noise, t.objective.phases(steps - 1, steps)[0]).totals
                sums = {name: sums[name] + total if sums else total for name, total in totals.items()}
        figures = t.objective.summarise(sums)
        wanted = ("mlm_loss", "mlm_accuracy", "rtd_loss", "prior_gain", "auc", "replaced_share")
        found[phase] = {name: figures[name] for name in wanted if name in figures}
    return found


def fine_tuned(model: Path, place: Place, run: Path) -> dict[str, float]:
    """Metrics on the development file of SST-2 after one fine-tuning, the last epoch's model."""
    electra("finetune", "finetune-demo", "task=classify", "epochs=3", f"init.from={model}", f"data.train={place.train}",
            f"run.dir={run}", "run.fresh=true")  # fmt: skip
    return dict(json.loads(electra("evaluate", run / "model", place.dev))["metrics"])


def measure(settings: Sequence[str], shape: Sequence[str], stop: Sequence[str], place: Place, work: Path) -> dict[str, Any]:
    """Pre-train one arm, or go on with it, and score it."""
    run = work / "run"
    began = datetime.datetime.now(tz=datetime.UTC)
    electra("pretrain", RECIPE, f"corpus.path={place.corpus}", f"run.dir={run}", *stop, *shape, *settings)
    seconds = (datetime.datetime.now(tz=datetime.UTC) - began).total_seconds()
    resolved = json.loads((run / "recipe.json").read_text(encoding="utf-8"))["resolved"]
    names = [span["name"] for span in resolved["spans"]]
    models = {name: run / "phases" / name for name in names[:-1]} | {names[-1]: run / "model"}
    return {
        "date": began.date().isoformat(), "settings": [*shape, *settings], "stop": list(stop), "seconds": round(seconds),
        **outcome(run),
        "held_out": held_out(models, shape, place.held_out), "sst2": fine_tuned(run / "model", place, work / "tuned"),
        "machine": resolved["machine"], "spans": resolved["spans"],
    }  # fmt: skip


def parser(about: str) -> argparse.ArgumentParser:
    """The options that both scripts have."""
    made = argparse.ArgumentParser(description=about.splitlines()[0])
    made.add_argument("data", type=Path, help="the folder with text/en_wiki.txt and sst2/")
    made.add_argument("work", type=Path)
    made.add_argument("--arms", nargs="*", help="names; all if none are given")
    made.add_argument("--list", action="store_true", help="say which arms have no result, and do nothing")
    made.add_argument("--documents", type=int, help="take the first documents of the text only")
    made.add_argument("--labels", type=int, default=10_000)
    made.add_argument("--results", type=Path, help="where the JSON files go; to try the script, some place of your own")
    length = made.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=10.0)
    length.add_argument("--steps", type=int)
    return made


def run_arms(
    given: argparse.Namespace,
    arms: Mapping[str, Sequence[str]],
    shape: Sequence[str],
    folder: str,
    tokenizer: Path | None = None,
) -> None:
    """Measure the arms that have no result yet.

    Args:
        given: the options of `parser`.
        arms: settings by name.
        shape: settings of all arms.
        folder: of the results.
        tokenizer: as in `prepare`.
    """
    results = (given.results or RESULTS) / folder
    budget = f"{given.minutes:g}min" if given.steps is None else f"{given.steps}steps"
    stop = [f"stop.hours={given.minutes / 60}"] if given.steps is None else [f"stop.steps={given.steps}", "stop.hours=1000"]
    missing = [arm for arm in given.arms or arms if not (results / f"{budget}-{arm}.json").is_file()]
    if given.list:
        print("\n".join(f"{budget}-{arm}" for arm in missing))
        return
    work = given.work.resolve()
    place = prepare(given.data.resolve(), work, tokenizer, given.documents, given.labels)
    results.mkdir(parents=True, exist_ok=True)
    for arm in missing:
        result = {"arm": arm, **measure(arms[arm], shape, stop, place, work / f"{budget}-{arm}")}
        (results / f"{budget}-{arm}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"{arm:16} {result['held_out']}  SST-2 {result['sst2']['accuracy']:.3f}", flush=True)
