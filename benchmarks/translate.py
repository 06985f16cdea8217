"""Sequence to sequence on public data: pre-trained start against cold, and against transformers' Trainer; one JSON per arm.

    python benchmarks/translate.py DATA WORK_DIR --chinese MODEL_DIR --english MODEL_DIR [--arms NAME ...] [--list] [--tiny]

DATA has tatoeba_zh_en/cmn.txt (English, Chinese) and csl/ (abstract, title). Tatoeba is split 90/5/5 by source, so that no
source of the test file is known; CSL's two files are for training and testing. The encoders are pre-trained ones: a pair of
generator and discriminator of Chinese, which reads Chinese and whose generator's table writes it, and a classic encoder of
English. English is written with a tokenizer of its own, trained here on the targets. Arms, `TASK-START-SEED`:

    warm     encoder and decoder pre-trained               encoder  the decoder fresh
    cold     all fresh: as many steps, which take as long  trainer  the weights of `warm` under transformers' Trainer
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
SENTENCES = ["task.max_length=48", "task.target_length=48", "task.decoding.max_new_tokens=48", "task.metric=bleu", "epochs=10"]
TITLES = ["task.max_length=256", "task.target_length=40", "task.decoding.max_new_tokens=40", "task.metric=rougeL", "epochs=8"]
LENGTHS = {"zh-en": SENTENCES, "en-zh": SENTENCES, "csl": TITLES}
TRAINING = ["optimizer.lr=5e-4", "optimizer.layer_decay=1.0", "task.label_smoothing=0.1", "task.max_windows=1",
            "task.decoder.num_hidden_layers=4"]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Start:
    """What there is before.

    Args:
        chinese, english: pre-trained model directories.
        targets: tokenizer of English outputs.
    """

    chinese: Path
    english: Path
    targets: Path

    def of(self, task: str) -> list[str]:
        """Settings that say what reads and what writes."""
        match task:
            case "zh-en":
                return [f"init.from={self.chinese}", f"task.target_tokenizer={self.targets}", "batch.examples=64"]
            case "en-zh":
                return [f"init.from={self.english}", f"task.target_tokenizer={self.chinese}", "batch.examples=64"]
            case _:
                return [f"init.from={self.chinese}", "batch.examples=32"]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is done.

    Args:
        vocabulary: of the tokenizer of English outputs.
        rows: of each file at most.
        settings: of fine-tuning, over the others.
    """

    vocabulary: int = 8000
    rows: int = 10**9
    settings: Sequence[str] = ()


TINY = Sizes(vocabulary=500, rows=200, settings=["epochs=1"])


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
    yield Arm(task="en-zh", start="trainer", seed=0)
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


def english_tokenizer(work: Path, sizes: Sizes) -> Path:
    """A tokenizer of the English targets of the training file."""
    place = work / "english-tokenizer"
    if not place.is_dir():
        lines = (work / "zh-en" / "train.tsv").read_text(encoding="utf-8").splitlines()[1:]
        text = work / "english.txt"
        text.write_text("".join(line.split("\t")[1] + "\n" for line in lines), encoding="utf-8")
        electra(
            "tokenizer", "train", text, "--vocab-size", sizes.vocabulary, "--lowercase", "--document", "line", "--out", place
        )
    return place


# -- arms ---------------------------------------------------------------------------------------------------------------


def settings_of(arm: Arm, work: Path, start: Start, sizes: Sizes) -> list[str]:
    """Of `electra finetune`."""
    weights = STARTS["warm" if arm.start == "trainer" else arm.start]
    where = [f"data.train={work / arm.task / 'train.tsv'}", f"run.dir={work / 'runs' / arm.name}"]
    return ["task=generate", *LENGTHS[arm.task], *TRAINING, *weights, f"run.seed={arm.seed}", *start.of(arm.task), *where,
            *sizes.settings]  # fmt: skip


def scored(model: Path, work: Path, arm: Arm) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(electra("evaluate", model, work / arm.task / "test.tsv"))
    return {name: found[name] for name in ("metrics", "intervals", "examples")} | {"samples": found["errors"][:3]}


def ours(arm: Arm, work: Path, start: Start, sizes: Sizes) -> dict[str, Any]:
    """Fine-tune and evaluate by the verbs."""
    settings = settings_of(arm, work, start, sizes)
    began = time.perf_counter()
    electra("finetune", *settings)
    seconds = time.perf_counter() - began
    run = work / "runs" / arm.name
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    took = (steps[-1]["time"] - steps[0]["time"]) / max(1, steps[-1]["step"] - steps[0]["step"])
    resolved = json.loads((run / "recipe.json").read_text(encoding="utf-8"))["resolved"]
    return {"seconds": round(seconds), "steps": steps[-1]["step"], "seconds_per_step": took, "settings": settings,
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


def peer(arm: Arm, work: Path, given: Start, sizes: Sizes) -> dict[str, Any]:
    """transformers' Trainer on `EncoderDecoderModel`, from the very weights that ours starts from, for as many steps."""
    import torch
    from transformers import AutoTokenizer, EncoderDecoderModel, Trainer, TrainingArguments

    from electra.build.finetune import Setting, load_recipe

    recipe = load_recipe((), settings_of(arm, work, given, sizes))
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
        # with label smoothing the Trainer takes the labels away before the model can shift them
        shifted = torch.cat([torch.full_like(labels[:, :1], model.config.decoder_start_token_id), labels[:, :-1]], dim=1)
        return {"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"], "labels": labels,
                "decoder_input_ids": shifted.clamp(min=0)}  # fmt: skip

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
    shutil.copytree(start / "target_tokenizer", place / "model" / "target_tokenizer")
    return {"seconds": round(seconds), "steps": t.total_steps, "seconds_per_step": seconds / t.total_steps,
            **scored(place / "model", work, arm)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--chinese", type=Path, required=True, help="a pre-trained pair of Chinese")
    parser.add_argument("--english", type=Path, required=True, help="a pre-trained classic encoder of English")
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
    start = Start(chinese=given.chinese.resolve(), english=given.english.resolve(), targets=english_tokenizer(work, sizes))
    for arm in missing:
        match arm.start:
            case "lead":
                result = lead(arm, work)
            case "trainer":
                result = peer(arm, work, start, sizes)
            case _:
                result = ours(arm, work, start, sizes)
        date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        whole = {"arm": arm.name, "date": date, "cores": os.cpu_count(), **result}
        text = json.dumps(whole, indent=1, ensure_ascii=False)
        for place, name in ((work, "WORK_DIR"), (start.chinese, "CHINESE"), (start.english, "ENGLISH")):
            text = text.replace(str(place), name)
        (results / f"{arm.name}.json").write_text(text + "\n", encoding="utf-8")
        metric, value = next(iter(result["metrics"].items()))
        print(f"{arm.name}: {metric} {value:.4f} in {result['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
