"""The page about a task of one's own does what it says: its package, installed, is fine-tuned, evaluated and asked."""

from __future__ import annotations

import json
import shlex
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from electra import cli, load
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.encoder import build_encoder
from electra.models.model_dir import Provenance, save_model_dir
from electra.text.train_tokenizer import train as train_tokenizer

LEVELS = ["awful", "bad", "fair", "good", "great"]
NOUNS = ["film", "book", "song", "room"]


def _install(place: Path, code: str, project: dict[str, dict[str, str]]) -> None:
    """What `pip install` leaves behind."""
    place.mkdir()
    (place / "ordinal_rating.py").write_text(code, encoding="utf-8")
    info = place / "ordinal_rating-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1.0\n", encoding="utf-8")
    [(group, points)] = project["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in dict(points).items())]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


def _write_files(place: Path) -> None:
    rows = [f"a {word} {noun}\t{level}" for level, word in enumerate(LEVELS, start=1) for noun in NOUNS]
    for name, times in (("train.tsv", 4), ("dev.tsv", 3)):
        (place / name).write_text("text\tlabel\n" + "\n".join(rows * times) + "\n", encoding="utf-8")
    (place / "reviews.txt").write_text("a great song\na bad room\n", encoding="utf-8")
    tokenizer = train_tokenizer([row.split("\t")[0] for row in rows] * 3, vocab_size=100)
    config = ClassicConfig(
        vocab_size=tokenizer.vocab_size, embedding_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=128, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    provenance = Provenance(tokenizer=tokenizer, card=lambda: "# Tiny\n")
    save_model_dir(place / "runs" / "first" / "model", encoder=build_encoder(config), provenance=provenance)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """A line of the command line -> exit code and what it printed, errors included."""

    def call(line: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(str(ended.value.code)), captured.out + captured.err

    return call


def test_the_example_is_learnt_evaluated_and_asked(
    root: Path, tmp_path: Path, blocks: Callable[[Path, str], list[str]], monkeypatch: pytest.MonkeyPatch,
    run: Callable[..., tuple[int, str]],
) -> None:  # fmt: skip
    page = root / "docs" / "own-task.md"
    (code,), (project,), (commands,) = (blocks(page, kind) for kind in ("python", "text", "sh"))
    _install(tmp_path / "site", code, tomllib.loads(project)["project"])
    _write_files(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.chdir(tmp_path)
    finetune, evaluate, predict = commands.splitlines()

    unknown = run(f"{finetune} task.level=5")
    assert unknown[0] == 2
    assert "E-C004 task.level: no such setting; did you mean levels?" in unknown[1]
    assert run(finetune.replace("levels=5", "levels=4"))[1].startswith(
        "error: E-D900 train.tsv:18: '5' is no level of 1, 2, 3, 4"
    )
    code_, told = run(f"{finetune} epochs=16 optimizer.lr=1e-2 optimizer.layer_decay=1.0 task.max_length=16")
    assert code_ == 0, told
    code_, told = run(evaluate)
    assert code_ == 0, told
    metrics = json.loads(told)["metrics"]
    assert next(iter(metrics)) == "kappa"
    assert metrics["kappa"] > 0.8
    code_, told = run(f"{predict} --format jsonl")
    assert code_ == 0, told
    assert [int(json.loads(line)["label"]) > 3 for line in told.splitlines() if line[0] == "{"] == [True, False]

    refused = run(predict.replace(" --task ordinal", ""))
    assert refused[0] == 3
    assert "E-M335" in refused[1]
    assert "--task ordinal" in refused[1]
    [prediction] = load("runs/rating/model", task="ordinal").predict(["a great song"])
    assert int(str(prediction.output["label"])) > 3
    monkeypatch.undo()
    sys.modules.pop("ordinal_rating")
    with pytest.raises(ElectraError, match="E-M335 task 'ordinal': no installed package"):
        load(tmp_path / "runs" / "rating" / "model", task="ordinal")
