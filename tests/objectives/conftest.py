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
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from electra.train.loop import Training

KINDS = 8
SHAPES = {
    "classic": ["encoder.type=classic", "encoder.embedding_size=32", "encoder.hidden_size=32", "encoder.num_hidden_layers=2",
                "encoder.num_attention_heads=2", "encoder.intermediate_size=64", "encoder.hidden_dropout_prob=0.0",
                "encoder.attention_probs_dropout_prob=0.0"],
    "modern": ["encoder.type=modern", "encoder.hidden_size=32", "encoder.num_hidden_layers=2", "encoder.num_attention_heads=2",
               "encoder.intermediate_size=48"],
    "recurrent": ["encoder.type=recurrent", "encoder.embedding_size=32", "encoder.hidden_size=32",
                  "encoder.hidden_dropout_prob=0.0"],
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


Build = Callable[[Path, list[str], list[str]], None]


@pytest.fixture(scope="session")
def language() -> Build:
    return build_language


def build_language(place: Path, words: list[str], documents: list[str]) -> None:
    """`tokenizer`, `text.txt` and `corpus` in the directory `place`, of a language in which a token is a word."""
    from tokenizers import Tokenizer as Whole
    from tokenizers import decoders, models, pre_tokenizers

    from electra.text import build
    from electra.text.tokenizer import load

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    entries = {entry: number for number, entry in enumerate([*special, *words])}
    whole = Whole(models.WordPiece(entries, unk_token="[UNK]"))
    whole.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    whole.decoder = decoders.WordPiece()
    whole.add_special_tokens(special)
    (place / "tokenizer").mkdir()
    whole.save(str(place / "tokenizer" / "tokenizer.json"))
    text = place / "text.txt"
    text.write_text("".join(f"{document}\n\n" for document in documents), encoding="utf-8")
    build.build([text], load(place / "tokenizer"), place / "corpus")


@pytest.fixture(scope="session")
def grammar(tmp_path_factory: pytest.TempPathFactory) -> Grammar:
    """2,000 documents of two sentences."""
    place = tmp_path_factory.mktemp("grammar")
    words = ["the", ".", *(f"{name}{kind}" for name in ("noun", "verb", "object") for kind in range(KINDS))]
    lines = sentences(4000)
    build_language(place, words, [f"{a} {b}" for a, b in zip(lines[::2], lines[1::2], strict=True)])
    return Grammar(corpus=place / "corpus", tokenizer=place / "tokenizer", text=place / "text.txt")


@pytest.fixture(scope="session")
def train_on() -> Callable[..., tuple[Training, dict[str, float]]]:
    """Trains an objective on a corpus for seconds: the trained networks, and the figures of the last log line."""

    def trained(corpus: Path, family: str, *settings: str, steps: int = 200) -> tuple[Training, dict[str, float]]:
        """`settings` of the one phase `try`, such as `objective.type=rtd`, or of the whole recipe with a `/` before them."""
        from electra.build.pretrain import PretrainRecipe, Setting
        from electra.config import load
        from electra.events import EventLog
        from electra.train.loop import Span, train
        from electra.train.machine import StopFlag

        own = [setting[1:] if setting.startswith("/") else f"phases.try.{setting}" for setting in settings]
        optimizer = [f"phases.try.optimizer.{setting}" for setting in OPTIMIZER]
        places = [f"corpus.path={corpus}", f"stop.steps={steps}"]
        recipe = load(PretrainRecipe, [], [*places, *SCALE, *SHAPES[family], *optimizer, *own])
        figures: dict[str, float] = {}
        t = Setting(recipe).training(Span(name="try", first=0, steps=steps), None, recipe.batch.rows, False, card=str)
        t.log = EventLog(None, [lambda event: figures.update(event["figures"]) if event["event"] == "step" else None])
        train(t, None, StopFlag())
        return t, figures

    return trained


@pytest.fixture(scope="session")
def learn(grammar: Grammar, train_on: Callable[..., tuple[Training, dict[str, float]]]) -> Learn:
    """Trains an objective on the grammar for seconds; the figures of the last log line."""

    def trained(family: str, *settings: str, steps: int = 200, export: Path | None = None) -> dict[str, float]:
        """`export` is where the model goes."""
        t, figures = train_on(grammar.corpus, family, *settings, steps=steps)
        if export is not None:
            t.objective.export(export)
        return figures

    return trained


@pytest.fixture(scope="session")
def babbling(grammar: Grammar, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with a masked language model of the grammar's words that has learnt nothing."""
    from electra.models.classic import ClassicConfig
    from electra.models.encoder import build_encoder
    from electra.models.heads import MlmHead
    from electra.models.model_dir import Provenance, save_model_dir
    from electra.text.tokenizer import load

    tokenizer = load(grammar.tokenizer)
    config = ClassicConfig(vocab_size=tokenizer.vocab_size, embedding_size=8, hidden_size=8, num_hidden_layers=1,
                           num_attention_heads=1, intermediate_size=8)  # fmt: skip
    path = tmp_path_factory.mktemp("babbling") / "model"
    provenance = Provenance(tokenizer=tokenizer, card=str)
    save_model_dir(path, encoder=build_encoder(config), head=MlmHead(config), provenance=provenance)
    return path
