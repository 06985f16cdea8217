"""A small synthetic language whose rules are known: what an objective can learn, and what it would know without learning.

A sentence is `the <noun> <verb> the <object> .`; each of eight nouns has its own verb, each verb its object. A masked noun,
verb or object therefore follows from either of the others, while the frequency of single tokens says next to nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

KINDS = 8
SHAPES = {
    "classic": ["encoder.type=classic", "encoder.embedding_size=32", "encoder.hidden_size=32", "encoder.num_hidden_layers=2",
                "encoder.num_attention_heads=2", "encoder.intermediate_size=64", "encoder.hidden_dropout_prob=0.0",
                "encoder.attention_probs_dropout_prob=0.0"],
    "modern": ["encoder.type=modern", "encoder.hidden_size=32", "encoder.num_hidden_layers=2", "encoder.num_attention_heads=2",
               "encoder.intermediate_size=48"],
}  # fmt: skip
SCALE = ["rows.type=packed", "rows.length=32", "batch.rows=16", "loop.log_steps=25", "run.dir=nowhere", "run.seed=0"]
OPTIMIZER = ["lr=2e-2", "betas=[0.9,0.98]", "warmup_ratio=0.1"]


def sentences(count: int, seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    kinds = [chance.randrange(KINDS) for _ in range(count)]
    return [f"the noun{kind} verb{kind} the object{kind} ." for kind in kinds]


@dataclass(frozen=True)
class Grammar:
    """The language on disk.

    Args:
        corpus, tokenizer: directories; a token is a word.
        text: a file, its documents divided by blank lines.
        floor: cross entropy in nats, mean over all words, of a model that knows only what kind of word stands where
            (half the words are nouns, verbs and objects, of eight each).
    """

    corpus: Path
    tokenizer: Path
    text: Path
    floor: float = math.log(KINDS) / 2


Learn = Callable[..., dict[str, float]]


@pytest.fixture(scope="session")
def grammar(tmp_path_factory: pytest.TempPathFactory) -> Grammar:
    """2,000 documents of two sentences."""
    from tokenizers import Tokenizer as Whole
    from tokenizers import decoders, models, pre_tokenizers

    from electra.text import build
    from electra.text.tokenizer import load

    place = tmp_path_factory.mktemp("grammar")
    words = ["the", ".", *(f"{name}{kind}" for name in ("noun", "verb", "object") for kind in range(KINDS))]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    entries = {entry: number for number, entry in enumerate([*special, *words])}
    whole = Whole(models.WordPiece(entries, unk_token="[UNK]"))
    whole.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    whole.decoder = decoders.WordPiece()
    whole.add_special_tokens(special)
    (place / "tokenizer").mkdir()
    whole.save(str(place / "tokenizer" / "tokenizer.json"))
    lines = sentences(4000)
    text = place / "text.txt"
    text.write_text("".join(f"{a} {b}\n\n" for a, b in zip(lines[::2], lines[1::2], strict=True)), encoding="utf-8")
    build.build([text], load(place / "tokenizer"), place / "corpus")
    return Grammar(corpus=place / "corpus", tokenizer=place / "tokenizer", text=text)


@pytest.fixture(scope="session")
def learn(grammar: Grammar) -> Learn:
    """Trains an objective on the grammar for seconds; the figures of the last log line."""

    def trained(family: str, *settings: str, steps: int = 200, export: Path | None = None) -> dict[str, float]:
        """`settings` of the one phase `try`, such as `objective.type=rtd`, or of the whole recipe with a `/` before them.

        `export` is where the model goes.
        """
        from electra.build.pretrain import PretrainRecipe, Setting
        from electra.config import load
        from electra.events import EventLog
        from electra.train.loop import Span, train
        from electra.train.machine import StopFlag

        own = [setting[1:] if setting.startswith("/") else f"phases.try.{setting}" for setting in settings]
        optimizer = [f"phases.try.optimizer.{setting}" for setting in OPTIMIZER]
        places = [f"corpus.path={grammar.corpus}", f"stop.steps={steps}"]
        recipe = load(PretrainRecipe, [], [*places, *SCALE, *SHAPES[family], *optimizer, *own])
        figures: dict[str, float] = {}
        t = Setting(recipe).training(Span(name="try", first=0, steps=steps), None, 16, False, card=str)
        t.log = EventLog(None, [lambda event: figures.update(event["figures"]) if event["event"] == "step" else None])
        train(t, None, StopFlag())
        if export is not None:
            t.objective.export(export)
        return figures

    return trained
