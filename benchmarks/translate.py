"""Sequence to sequence on public data: pre-trained start against cold, and against transformers' Trainer; one JSON per arm.

    python benchmarks/translate.py DATA WORK_DIR [--arms NAME ...] [--list] [--tiny]

DATA has tatoeba_zh_en/cmn.txt (English, Chinese), csl/ (abstract, title) and text/. Tatoeba is split 90/5/5 by source, so that
no source of the test file is known; CSL's two files are for training and testing. The encoder is classic, of both languages,
pre-trained here by the phases of `modern-tiny`; what is in WORK_DIR is used. Arms, `TASK-START-SEED`:

    warm     encoder, decoder and output table pre-trained          encoder  the decoder fresh
    cold     all fresh: as many steps, which take as long           trainer  the weights of `warm` under transformers' Trainer
    lead     the first words of the source, as many characters as a title has in the mean: nothing is learnt

The Trainer needs `pip install accelerate`. An arm that has a result in benchmarks/results/translate is skipped, so the script
can be stopped and run again. --tiny runs everything in a minute on a few rows, with results in WORK_DIR: does it work?
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "translate"
STARTS = {"warm": [], "encoder": ["task.decoder.init=fresh"], "cold": ["init.weights=fresh"]}
LENGTHS = {
    "zh-en": ["task.max_length=48", "task.target_length=48", "task.decoding.max_new_tokens=48", "task.metric=bleu", "epochs=4"],
    "en-zh": ["task.max_length=48", "task.target_length=48", "task.decoding.max_new_tokens=48", "task.metric=bleu", "epochs=4"],
    "csl": [
        "task.max_length=256",
        "task.max_windows=1",
        "task.target_length=40",
        "task.decoding.max_new_tokens=40",
        "task.metric=rougeL",
        "epochs=8",
    ],
}
TRAINING = ["optimizer.lr=5e-4", "optimizer.layer_decay=1.0", "task.label_smoothing=0.1", "batch.examples=64"]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is done.

    Args:
        hours: of pre-training.
        vocabulary, layers, hidden: of tokenizer and encoder.
        rows: of each file at most.
        settings: of fine-tuning, over the others.
    """

    hours: float = 0.35
    vocabulary: int = 12_000
    layers: int = 4
    hidden: int = 256
    rows: int = 10**9
    settings: Sequence[str] = ()


TINY = Sizes(hours=0.003, vocabulary=1000, layers=1, hidden=32, rows=200, settings=["epochs=1"])


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One cell of the table."""

    task: str
    start: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task}-{self.start}-{self.seed}"


def arms() -> Iterator[Arm]:
    for start in ("warm", "cold"):
        yield from (Arm(task="zh-en", start=start, seed=seed) for seed in range(3))
        yield from (Arm(task=task, start=start, seed=0) for task in ("en-zh", "csl"))
    yield Arm(task="zh-en", start="encoder", seed=0)
    yield Arm(task="zh-en", start="trainer", seed=0)
    yield Arm(task="csl", start="lead", seed=0)


def electra(*words: object) -> str:
    """One verb of the command line; its standard output."""
    command = [sys.executable, "-m", "electra", *map(str, words)]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


# -- data ---------------------------------------------------------------------------------------------------------------


def part_of(source: str) -> str:
    """train, dev or test, 90/5/5, by the source alone."""
    place = int.from_bytes(hashlib.blake2b(source.encode(), digest_size=4).digest()) % 20
    return {0: "dev", 1: "test"}.get(place, "train")


def prepare(data: Path, work: Path, sizes: Sizes) -> None:
    """WORK_DIR/TASK/{train,dev,test}.tsv with the columns source and target."""
    pairs = [line.split("\t")[:2] for line in (data / "tatoeba_zh_en/cmn.txt").read_text(encoding="utf-8").splitlines()]
    rows = {"zh-en": [(part_of(zh), zh, en) for en, zh in pairs], "en-zh": [(part_of(en), en, zh) for en, zh in pairs]}
    for part, name in (("train", "dev"), ("test", "test")):
        lines = (data / f"csl/{name}.tsv").read_text(encoding="utf-8").splitlines()
        rows.setdefault("csl", []).extend((part, *line.split("\t")[1:3]) for line in lines)
    for task, found in rows.items():
        (work / task).mkdir(parents=True, exist_ok=True)
        for part in ("train", "dev", "test"):
            kept = [f"{source}\t{target}\n" for where, source, target in found if where == part][: sizes.rows]
            if kept:
                (work / task / f"{part}.tsv").write_text("source\ttarget\n" + "".join(kept), encoding="utf-8")


def encoder(data: Path, work: Path, sizes: Sizes) -> Path:
    """Tokenizer, corpora of both languages, pre-training."""
    names = {"zh": "zh_wiki.txt", "en": "en_wiki.txt"}
    if not (work / "tokenizer").is_dir():
        texts = [data / "text" / name for name in names.values()]
        electra("tokenizer", "train", *texts, "--vocab-size", sizes.vocabulary, "--lowercase", "--sample-bytes", 40_000_000,
                "--document", "block", "--out", work / "tokenizer")  # fmt: skip
    for language, name in names.items():
        if not (work / f"corpus-{language}").is_dir():
            text = work / name
            text.write_bytes((data / "text" / name).read_bytes()[: 40_000_000 if sizes is not TINY else 300_000])
            electra("corpus", "build", text, "--document", "block", "--tokenizer", work / "tokenizer", "--errors", "replace",
                    "--out", work / f"corpus-{language}")  # fmt: skip
    if not (work / "pretrained" / "model").is_dir():
        recipe = work / "sources.toml"
        sources = (f'[[corpus.sources]]\nname = "{language}"\npath = "{work / f"corpus-{language}"}"\nweight = 0.5\n'
                   for language in names)  # fmt: skip
        recipe.write_text("".join(sources), encoding="utf-8")
        shape = ["encoder.type=classic", f"encoder.num_hidden_layers={sizes.layers}", f"encoder.hidden_size={sizes.hidden}",
                 f"encoder.intermediate_size={4 * sizes.hidden}", "encoder.embedding_size=128", "encoder.num_attention_heads=4",
                 f"generator.layers={min(3, sizes.layers)}",
                 # a post-norm encoder spikes at the recipe's rate, which is a pre-norm one's
                 "phases.mlm.optimizer.lr=7e-4", "phases.rtd.optimizer.lr=5e-4"]  # fmt: skip
        electra("pretrain", "modern-tiny", recipe, *shape, f"run.dir={work / 'pretrained'}", f"stop.hours={sizes.hours}")
    return work / "pretrained" / "model"


# -- arms ---------------------------------------------------------------------------------------------------------------


def settings_of(arm: Arm, work: Path, init: Path, sizes: Sizes) -> list[str]:
    """Of `electra finetune`."""
    start = STARTS["warm" if arm.start == "trainer" else arm.start]
    where = [f"init.from={init}", f"data.train={work / arm.task / 'train.tsv'}", f"run.dir={work / 'runs' / arm.name}"]
    return ["task=generate", *LENGTHS[arm.task], *TRAINING, *start, f"run.seed={arm.seed}", *where, *sizes.settings]


def scored(model: Path, work: Path, arm: Arm) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(electra("evaluate", model, work / arm.task / "test.tsv"))
    return {name: found[name] for name in ("metrics", "intervals", "examples")} | {"samples": found["errors"][:3]}


def ours(arm: Arm, work: Path, init: Path, sizes: Sizes) -> dict[str, Any]:
    """Fine-tune and evaluate by the verbs."""
    settings = settings_of(arm, work, init, sizes)
    began = time.perf_counter()
    electra("finetune", *settings)
    seconds = time.perf_counter() - began
    run = work / "runs" / arm.name
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    took = (steps[-1]["time"] - steps[0]["time"]) / max(1, steps[-1]["step"] - steps[0]["step"])
    resolved = json.loads((run / "recipe.json").read_text(encoding="utf-8"))["resolved"]
    return {"seconds": round(seconds), "steps": steps[-1]["step"], "seconds_per_step": took, "settings": settings[:-3],
            "machine": resolved["machine"], "bf16": resolved["bf16"], **scored(run / "model", work, arm)}  # fmt: skip


def lead(arm: Arm, work: Path) -> dict[str, Any]:
    """The beginning of each source, as long as a title of the training file."""
    from electra.tasks.overlap import Overlap

    def rows(part: str) -> list[list[str]]:
        lines = (work / arm.task / f"{part}.tsv").read_text(encoding="utf-8").splitlines()[1:]
        return [line.split("\t") for line in lines]

    titles = [target for _, target in rows("train")]
    length = round(sum(map(len, titles)) / len(titles))
    kind = Overlap("characters", lowercase=True)
    found = kind.scores([kind.counts(source[:length], target) for source, target in rows("test")])
    return {"seconds": 0, "characters": length, "metrics": {"rougeL": found["rougeL"], **found}}


def peer(arm: Arm, work: Path, init: Path, sizes: Sizes) -> dict[str, Any]:
    """transformers' Trainer on `EncoderDecoderModel`, from the very weights that ours starts from, for as many steps."""
    import torch
    from transformers import AutoTokenizer, EncoderDecoderModel, Trainer, TrainingArguments

    from electra.build.finetune import Setting, load_recipe

    recipe = load_recipe((), settings_of(arm, work, init, sizes))
    setting = Setting(recipe)
    t = setting.training(False, recipe.batch.micro_tokens, str)
    start, place = work / "start", work / "runs" / arm.name
    t.objective.export(start)
    model, tokenizer = EncoderDecoderModel.from_pretrained(start), AutoTokenizer.from_pretrained(start)
    rows = [{"input_ids": row.tokens.tolist(), "labels": row.targets["target"][0].tolist()} for row in setting.train]

    def collate(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        padded = tokenizer.pad({"input_ids": [row["input_ids"] for row in batch]}, return_tensors="pt")
        longest = max(len(row["labels"]) for row in batch)
        labels = torch.tensor([row["labels"] + [-100] * (longest - len(row["labels"])) for row in batch])
        return {"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"], "labels": labels}

    arguments = TrainingArguments(
        output_dir=str(place), per_device_train_batch_size=recipe.batch.examples, learning_rate=recipe.optimizer.lr,
        max_steps=t.total_steps, warmup_steps=0.1, weight_decay=0.0, seed=arm.seed, use_cpu=True, report_to="none",
        save_strategy="no", logging_strategy="no", remove_unused_columns=False, dataloader_pin_memory=False, disable_tqdm=True,
        label_smoothing_factor=0.1, adam_epsilon=recipe.optimizer.eps,
    )  # fmt: skip
    trainer = Trainer(model, arguments, data_collator=collate, train_dataset=rows)  # type: ignore[arg-type]
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    model.save_pretrained(place / "model")
    for name in ("task.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(start / name, place / "model" / name)
    return {"seconds": round(seconds), "steps": t.total_steps, "seconds_per_step": seconds / t.total_steps,
            **scored(place / "model", work, arm)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--arms", nargs="*", help="beginnings of names, such as zh-en-warm; all if none are given")
    parser.add_argument("--list", action="store_true", help="say what is missing, and do nothing")
    parser.add_argument("--tiny", action="store_true", help="a few rows, results in WORK_DIR")
    given = parser.parse_args()
    data, work = given.data.resolve(), given.work.resolve()
    results, sizes = (work / "results", TINY) if given.tiny else (RESULTS, Sizes())
    chosen = [arm for arm in arms() if not given.arms or arm.name.startswith(tuple(given.arms))]
    missing = [arm for arm in chosen if not (results / f"{arm.name}.json").is_file()]
    if given.list:
        print("\n".join(arm.name for arm in missing))
        return
    results.mkdir(parents=True, exist_ok=True)
    prepare(data, work, sizes)
    init = encoder(data, work, sizes)
    for arm in missing:
        match arm.start:
            case "lead":
                result = lead(arm, work)
            case "trainer":
                result = peer(arm, work, init, sizes)
            case _:
                result = ours(arm, work, init, sizes)
        date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        whole = {"arm": arm.name, "date": date, "cores": os.cpu_count(), **result}
        text = json.dumps(whole, indent=1, ensure_ascii=False).replace(str(work), "WORK_DIR")
        (results / f"{arm.name}.json").write_text(text + "\n", encoding="utf-8")
        metric, value = next(iter(result["metrics"].items()))
        print(f"{arm.name}: {metric} {value:.4f} in {result['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
