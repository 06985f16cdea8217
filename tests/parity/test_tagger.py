"""A saved tagger in transformers: the same classes by name, the same logits, and its pipeline finds the spans that we find."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from electra.contracts import Example
from electra.data.grid import collate
from electra.models.classic import ClassicConfig
from electra.models.encoder import build_encoder
from electra.models.model_dir import Provenance
from electra.models.modern import ModernConfig
from electra.objectives.supervised import Supervised
from electra.predict.predictor import Predictor, load
from electra.tasks import bio
from electra.tasks.tag import Tag, TagConfig
from electra.text.train_tokenizer import train

transformers = pytest.importorskip("transformers")

WORDS = ["Ada", "Lovelace", "met", "Charles", "Babbage", "in", "London", "unfriendly", "meadows"]
TOKENIZER = train([" ".join(WORDS)] * 4, 72)
SIZES = {"vocab_size": TOKENIZER.vocab_size, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 24, "max_position_embeddings": 64, "pad_token_id": TOKENIZER.pad_id}  # fmt: skip
CONFIGS = {
    "Electra": ClassicConfig(embedding_size=8, **SIZES),  # type: ignore[arg-type]
    "ModernBert": ModernConfig(**SIZES, cls_token_id=TOKENIZER.cls_id, sep_token_id=TOKENIZER.sep_id),  # type: ignore[arg-type]
}
TASK = Tag(TagConfig(labels=("LOC", "PER"), tagged="spans", max_length=64), TOKENIZER)


def texts(count: int) -> list[str]:
    chance = random.Random(0)
    return [" ".join(chance.choices([*WORDS, "?", "x,y"], k=chance.randint(1, 6))) for _ in range(count)]


def is_legal(objective: Supervised, text: str) -> bool:
    """Whether the best class of each word makes a legal sequence, so that there is nothing to constrain."""
    [row] = TASK.encode(Example(text=text))
    logits = objective.model(collate([row], len(row.tokens), TOKENIZER.pad_id))[0]
    return bio.is_legal(logits[1 + TASK._grid(Example(text=text)).tokens].argmax(-1).numpy())


@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_the_pipeline_finds_the_same_spans(family: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    provenance = Provenance(tokenizer=TOKENIZER, card=lambda: "# A tagger\n")
    objective = Supervised(build_encoder(CONFIGS[family]), TASK, provenance).eval()
    objective.model.head.classifier.weight.mul_(60)  # type: ignore[union-attr, operator]
    objective.export(tmp_path / "model")

    theirs = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "model").eval()
    assert type(theirs).__name__ == f"{family}ForTokenClassification"
    assert theirs.config.id2label == dict(enumerate(["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    pipeline = transformers.pipeline("token-classification", model=theirs, tokenizer=tokenizer, aggregation_strategy="first")

    chosen = [text for text in texts(60) if is_legal(objective, text)]
    ours = [prediction.output["entities"] for prediction in load(tmp_path / "model").predict(chosen)]
    assert ours == [prediction.output["entities"] for prediction in Predictor(objective.model, TASK).predict(chosen)]
    assert len({str(entities) for entities in ours}) > 5, "the texts that are left show little"
    for text, entities in zip(chosen, ours, strict=True):
        found = [(one["entity_group"], one["start"], one["end"]) for one in pipeline(text)]
        assert [(one["entity_group"], one["start"], one["end"]) for one in entities] == found  # type: ignore[attr-defined]
