"""`electra bench`: the verb's figures, and its own texts for tasks of several shapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from electra.cli import app
from electra.deploy.bench import bench, lines, made_texts
from electra.models.classic import ClassicConfig
from electra.models.encoder import build_encoder
from electra.models.heads import RtdHead
from electra.models.model_dir import Provenance, save_model_dir
from electra.tasks import task_config
from electra.text.train_tokenizer import train as train_tokenizer

TOKENIZER = train_tokenizer(["the good film was bad and we liked playing it ( ) # @ * ^ ."] * 3, vocab_size=120)
CONFIG = ClassicConfig(
    vocab_size=TOKENIZER.vocab_size, embedding_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=16, max_position_embeddings=64,
)  # fmt: skip


def saved(folder: Path, task: dict[str, object] | None) -> Path:
    torch.manual_seed(0)
    encoder = build_encoder(CONFIG)
    head = RtdHead(CONFIG) if task is None else task_config(task).build(TOKENIZER).head(encoder)  # type: ignore[union-attr]
    labels = () if task is None else task.get("labels", ())
    provenance = Provenance(tokenizer=TOKENIZER, card=lambda: "# A model\n")
    save_model_dir(folder, encoder=encoder, head=head, labels=labels, task=task, provenance=provenance)  # type: ignore[arg-type]
    return folder


def test_the_verb_prints_what_a_user_asks_about_speed(tmp_path: Path) -> None:
    path = saved(tmp_path / "model", {"type": "classify", "labels": ["a", "b"], "max_length": 48})
    texts = tmp_path / "texts.txt"
    texts.write_text("the good film\nbad\n" + "we liked it " * 40 + "\n", encoding="utf-8")
    run = CliRunner().invoke(app, ["bench", str(path), "--file", str(texts), "--precision", "bf16", "--json"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.output)
    assert (found["texts"], found["longest_tokens"], found["precision"], found["task"]) == (3, 48, "bf16", "classify")
    assert found["tokens"] == 48 + 3 + 5
    assert found["threads"] == 1
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    assert found["tokens_per_second"] == pytest.approx(found["texts_per_second"] * found["tokens"] / 3)


@pytest.mark.parametrize(
    "task",
    [None, {"type": "relation", "labels": ["a", "b"], "max_length": 64}, {"type": "choice", "max_length": 48},
     {"type": "span", "max_length": 48, "question_tokens": 8, "stride": 8},
     {"type": "classify", "labels": ["a", "b"], "pairs": True, "max_length": 48}],
    ids=lambda task: "replaced" if task is None else task["type"],
)  # fmt: skip
def test_texts_are_made_for_tasks_of_any_shape(
    task: dict[str, object] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("electra.deploy.bench._TEXTS", 16)
    monkeypatch.setattr("electra.deploy.bench._REQUESTS", 3)
    found = bench(saved(tmp_path / "model", task), None, "replaced" if task is None else None, seconds=0)
    assert (found.texts, found.passes, found.requests) == (8, 3, 20)
    assert found.precision == "fp32"
    shown = "\n".join(lines(found))
    assert "words of the vocabulary" in shown
    assert f"{found.tokens_per_second:,.0f} tokens/s" in shown


def test_made_texts_are_repeatable_mixed_and_in_the_vocabulary() -> None:
    texts = made_texts(TOKENIZER, 60, 64)
    assert texts == made_texts(TOKENIZER, 60, 64)
    lengths = [len(TOKENIZER.encode(text).ids) for text in texts]
    assert max(lengths) <= 64
    assert max(lengths) > 4 * min(lengths)
    assert not any(TOKENIZER.unk_id in TOKENIZER.encode(text).ids for text in texts)
