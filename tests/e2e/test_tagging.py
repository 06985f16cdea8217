"""The verbs on tagged text: columns in, a tagger learns them, is scored on them, and finds the same in raw text."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Done = Callable[..., str]
NAMES, PLACES = ("dog", "cat", "old cat"), ("river", "garden", "old garden")


def _sentences(count: int, seed: int) -> list[tuple[list[str], list[str]]]:
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        words, tags = ["the"], ["O"]
        for label, choice in (("WHO", NAMES), ("WHERE", PLACES)):
            parts = chance.choice(choice).split()
            words += [*parts, "is"]
            tags += [f"B-{label}", *[f"I-{label}"] * (len(parts) - 1), "O"]
        rows.append((words[:-1], tags[:-1]))
    return rows


def _columns(path: Path, rows: list[tuple[list[str], list[str]]]) -> Path:
    sentences = ("".join(f"{word}\t{tag}\n" for word, tag in zip(*row, strict=True)) for row in rows)
    path.write_text("\n".join(sentences), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tagger(place: Any, tmp_path_factory: pytest.TempPathFactory, done: Done) -> Path:
    root = tmp_path_factory.mktemp("tagging")
    train, dev = _columns(root / "train.txt", _sentences(120, 1)), _columns(root / "dev.txt", _sentences(30, 2))
    done("finetune", "task=tag", f"init.from={place.run}/model", f"data.train={train}", f"data.dev={dev}",
         f"run.dir={root / 'run'}", "epochs=16", "optimizer.lr=5e-3", "optimizer.layer_decay=1.0")  # fmt: skip
    return root


def test_it_learns_and_says_what_it_read(tagger: Path, done: Done) -> None:
    scores = json.loads(done("evaluate", tagger / "run" / "model", tagger / "dev.txt"))
    assert scores["metrics"]["f1"] > 0.9
    assert scores["labels"] == ["WHERE", "WHO"]
    assert sum(map(sum, scores["confusion"])) >= 60
    assert "scheme BIO" in scores["notes"][0]
    task = json.loads((tagger / "run" / "model" / "task.json").read_text(encoding="utf-8"))
    assert (task["labels"], task["tagged"]) == (["WHERE", "WHO"], "spans")


def test_raw_text_gets_spans_with_offsets(tagger: Path, done: Done) -> None:
    texts = tagger / "texts.txt"
    texts.write_text("the old cat is river\n\nthe dog is  old garden\n", encoding="utf-8")
    lines = [json.loads(line) for line in done("predict", tagger / "run" / "model", texts).splitlines()]
    assert [line["text"] for line in lines] == ["the old cat is river", "", "the dog is  old garden"]
    found = [[(one["entity_group"], one["word"], one["start"], one["end"]) for one in line["entities"]] for line in lines]
    assert found == [
        [("WHO", "old cat", 4, 11), ("WHERE", "river", 15, 20)],
        [],
        [("WHO", "dog", 4, 7), ("WHERE", "old garden", 12, 22)],
    ]
    shown = done("predict", tagger / "run" / "model", texts, "--format", "text").splitlines()
    assert shown[0].startswith("the [old cat](WHO ")


def test_files_that_do_not_fit_are_refused_before_the_first_step(tagger: Path, place: Any, electra: Callable[..., Any]) -> None:
    other = _columns(tagger / "other.txt", [(["the", "dog"], ["O", "B-WHOM"])])
    command = ["finetune", "task=tag", f"init.from={place.run}/model", f"data.train={tagger / 'train.txt'}"]
    outcome = electra(*command, f"data.dev={other}", f"run.dir={tagger / 'refused'}")
    assert outcome.code == 3
    assert f"E-D312 {other}:1: label 'WHOM' is not one of WHERE, WHO; nearest is 'WHO'" in outcome.err
    assert not (tagger / "refused" / "model").exists()
