"""The scores of transformers' Trainer (trainer.py) on MRPC and WNUT-17, judged by the same metrics as ours.

Same weights, head, batch, epochs and precision (bf16) as in understanding.py. The learning rate is the best of three for the
first seed on the very file that is reported, which favours the peer; ours is not chosen so.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import finetune as steps
import trainer

RATES = (3e-5, 1e-4, 2e-4)
EPOCHS = {"mrpc": 3, "wnut17": 5}


def measure_peer(name: str, seed: int, data: Path, work: Path) -> dict[str, Any]:
    """Metrics, seconds and the rate that was taken; what was found in choosing the rate is kept in WORK_DIR."""
    model = steps.encoder(work)
    score = mrpc if name == "mrpc" else wnut17

    def found(lr: float, seed: int) -> dict[str, Any]:
        path = work / f"trainer-{name}-{lr:g}-{seed}.json"
        if not path.is_file():
            path.write_text(json.dumps(score(model, data, work, lr, seed)))
        result: dict[str, Any] = json.loads(path.read_text())
        return result

    tried = {rate: found(rate, 0)["metrics"]["f1"] for rate in RATES}
    best = max(tried, key=tried.__getitem__)
    return {**found(best, seed), "lr": best, "tried": {str(rate): f1 for rate, f1 in tried.items()}, "bf16": True}


def mrpc(model: Path, data: Path, work: Path, lr: float, seed: int) -> dict[str, Any]:
    """Binary F1 (main) and accuracy."""
    from electra import metrics

    def read(part: str) -> tuple[list[list[str]], list[int]]:
        with (data / "mrpc" / f"{part}.tsv").open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        return [[row["#1 String"], row["#2 String"]] for row in rows], [int(row["Quality"]) for row in rows]

    (texts, labels), (held_out, gold) = read("train"), read("dev")
    rows = trainer.text_rows(model, texts, labels, 128)
    run = trainer.trainer("classify", model, rows, 2, place=work / "peer", lr=lr, epochs=EPOCHS["mrpc"], seed=seed,
                          bf16=True)  # fmt: skip
    began = time.perf_counter()
    run.train()
    seconds = time.perf_counter() - began
    predicted = run.predict(trainer.text_rows(model, held_out, gold, 128)).predictions.argmax(-1).tolist()  # type: ignore[arg-type]
    both = sum(p == g == 1 for p, g in zip(predicted, gold, strict=True))
    f1 = 2 * both / (sum(predicted) + sum(gold))
    return {"metrics": {"f1": f1, "accuracy": metrics.accuracy(gold, predicted)}, "seconds": round(seconds)}


def wnut17(model: Path, data: Path, work: Path, lr: float, seed: int) -> dict[str, Any]:
    """Entity-level F1 over exact spans, argmax tags read as BIO."""

    def read(name: str) -> list[list[list[str]]]:
        sentences: list[list[list[str]]] = [[]]
        for line in (data / "wnut17" / name).read_text(encoding="utf-8").splitlines():
            if line.strip():
                sentences[-1].append(line.split("\t")[:2])
            elif sentences[-1]:
                sentences.append([])
        return [sentence for sentence in sentences if sentence]

    train, test = read("wnut17train.conll"), read("emerging.test.annotated")
    tags = sorted({tag for sentence in train for _, tag in sentence})

    def rows(sentences: Sequence[Sequence[Sequence[str]]]) -> trainer.Rows:
        numbers = [[tags.index(tag) if tag in tags else tags.index("O") for _, tag in sentence] for sentence in sentences]
        return trainer.word_rows(model, [[word for word, _ in sentence] for sentence in sentences], numbers, 128)

    run = trainer.trainer("tag", model, rows(train), len(tags), place=work / "peer", lr=lr, epochs=EPOCHS["wnut17"], seed=seed,
                          bf16=True)  # fmt: skip
    began = time.perf_counter()
    run.train()
    seconds = time.perf_counter() - began
    found = run.predict(rows(test))  # type: ignore[arg-type]
    best, gold_ids = np.asarray(found.predictions).argmax(-1), np.asarray(found.label_ids)
    right = said = there = 0
    for place, sentence in enumerate(test):
        known = [tags[number] for number in best[place][gold_ids[place] != -100]]
        known += ["O"] * (len(sentence) - len(known))  # words beyond the row
        mine, gold = spans(known), spans([tag for _, tag in sentence])
        right, said, there = right + len(mine & gold), said + len(mine), there + len(gold)
    precision, recall = right / max(said, 1), right / max(there, 1)
    f1 = 2 * right / max(said + there, 1)
    return {"metrics": {"f1": f1, "precision": precision, "recall": recall}, "seconds": round(seconds)}


def spans(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """(first word, word behind, label) of BIO tags; an I- without its B- begins a span, as conlleval has it."""
    found: set[tuple[int, int, str]] = set()
    begin, label = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        kind = tag[2:]
        if label and (tag[0] != "I" or kind != label):
            found.add((begin, place, label))
            label = ""
        if tag != "O" and not label:
            begin, label = place, kind
    return found
