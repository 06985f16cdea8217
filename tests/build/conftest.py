"""A tiny encoder to fine-tune and labelled files that it learns in a few steps."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from electra.build import finetune, sweep
from electra.models.classic import ClassicConfig
from electra.models.encoder import build_encoder
from electra.models.model_dir import Provenance, save_model_dir
from electra.text.tokenizer import load

WORDS = {"zh": ["老师", "船长", "园丁", "大门", "花园"], "en": ["reader", "captain", "river", "garden", "lamp"]}


def rows(count: int, seed: int) -> str:
    chance = random.Random(seed)
    texts = []
    for number in range(count):
        label = chance.choice(["zh", "en"])
        texts.append(f"{' '.join(chance.choices(WORDS[label], k=3))} {number} {seed}\t{label}\n")
    return "text\tlabel\n" + "".join(texts)


@pytest.fixture(scope="session")
def encoder_dir(tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory without a head."""
    torch.manual_seed(0)
    tokenizer = load(tokenizer_dir)
    config = ClassicConfig(
        vocab_size=tokenizer.vocab_size, embedding_size=16, hidden_size=32, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, pad_token_id=tokenizer.pad_id,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("encoder") / "model"
    save_model_dir(path, encoder=build_encoder(config), provenance=Provenance(tokenizer=tokenizer, card=lambda: "# Small\n"))
    return path


@pytest.fixture
def learning(encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Settings of a fine-tuning run of 10 steps, 5 an epoch, in `tmp_path / "run"`; its report is not written."""
    for room in (finetune, sweep):
        monkeypatch.setattr(room, "write_report", lambda directory: directory)  # pictures take longer than the run
    (tmp_path / "train.tsv").write_text(rows(40, seed=1), encoding="utf-8")
    (tmp_path / "dev.tsv").write_text(rows(24, seed=2), encoding="utf-8")
    files = [f"data.train={tmp_path / 'train.tsv'}", f"data.dev={tmp_path / 'dev.tsv'}", f"run.dir={tmp_path / 'run'}"]
    sizes = ["task.max_length=32", "epochs=2", "batch.examples=8", "precision=fp32", "optimizer.layer_decay=1.0"]
    return ["task=classify", f"init.from={encoder_dir}", *files, *sizes, "optimizer.lr=0.01"]
