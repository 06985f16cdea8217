"""The command line as a function, and what a user has after the first verbs: text, tokenizer, corpus, a run, a classifier."""

from __future__ import annotations

import contextlib
import io
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a verb left: exit code and the two streams."""

    code: int
    out: str
    err: str


def run_verb(*words: object, stdin: bytes = b"") -> Outcome:
    """`electra words...` through the very function that the console script calls."""
    from electra import cli

    out, err, before = io.StringIO(), io.StringIO(), (sys.argv, sys.stdin)
    sys.argv, sys.stdin = ["electra", *map(str, words)], io.TextIOWrapper(io.BytesIO(stdin))
    code: object = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv, sys.stdin = before
    assert isinstance(code, int)
    return Outcome(code=int(code), out=out.getvalue(), err=err.getvalue())


Verb = Callable[..., Outcome]


@pytest.fixture(scope="session")
def electra() -> Verb:
    """Run a verb; any exit code."""
    return run_verb


@pytest.fixture(scope="session")
def done() -> Callable[..., str]:
    """Run a verb that must succeed; returns what it printed."""

    def run(*words: object, stdin: bytes = b"") -> str:
        outcome = run_verb(*words, stdin=stdin)
        assert outcome.code == 0, outcome.err
        return outcome.out

    return run


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a test, runs leave no report and plans try one step of a phase; those of `place` are as users have them."""
    for room in ("pretrain", "finetune", "sweep"):
        monkeypatch.setattr(f"electra.build.{room}.write_report", lambda directory: directory)
    monkeypatch.setattr("electra.build.plan._PROBE_SECONDS", 0.0)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Files of a small project; tests read them and write elsewhere."""

    text: Path
    train: Path
    dev: Path
    tokenizer: Path
    corpus: Path
    run: Path
    classifier: Path


_GOOD = ("good", "fine", "lovely", "bright")
_BAD = ("bad", "poor", "awful", "gloomy")
_NOUNS = ("dog", "cat", "book", "river", "song", "house", "garden", "letter")


def _reviews(count: int, seed: int) -> str:
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        label, words = chance.choice((("pos", _GOOD), ("neg", _BAD)))
        rows.append(f"the {chance.choice(_NOUNS)} is {chance.choice(words)} and {chance.choice(words)}\t{label}\n")
    return "text\tlabel\n" + "".join(rows)


@pytest.fixture(scope="session")
def place(documents: list[str], tmp_path_factory: pytest.TempPathFactory, done: Callable[..., str]) -> Place:
    """The sequence of the README, once."""
    root = tmp_path_factory.mktemp("project")
    made = Place(
        text=root / "text", train=root / "train.tsv", dev=root / "dev.tsv", tokenizer=root / "tok", corpus=root / "corpus",
        run=root / "runs" / "first", classifier=root / "runs" / "sentiment",
    )  # fmt: skip
    made.text.mkdir()
    chance = random.Random(0)
    reviews = [f"the {noun} is {chance.choice(_GOOD + _BAD)}." for noun in _NOUNS for _ in range(20)]
    (made.text / "documents.txt").write_text("\n\n".join([*documents[:250], *reviews]) + "\n", encoding="utf-8")
    made.train.write_text(_reviews(160, seed=1), encoding="utf-8")
    made.dev.write_text(_reviews(60, seed=2), encoding="utf-8")
    done("tokenizer", "train", made.text, "--vocab-size", 400, "--out", made.tokenizer)
    done("corpus", "build", made.text, "--tokenizer", made.tokenizer, "--out", made.corpus)
    done("pretrain", "test-modern", f"corpus.path={made.corpus}", f"run.dir={made.run}")
    done("finetune", "task=classify", f"init.from={made.run}/model", f"data.train={made.train}", f"data.dev={made.dev}",
         f"run.dir={made.classifier}", "epochs=20", "optimizer.lr=5e-3", "optimizer.layer_decay=1.0")  # fmt: skip
    return made
