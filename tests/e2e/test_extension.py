"""A model goes on with its tokenizer extended by the words of a domain."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from electra.models.model_dir import load_model_dir
from electra.text.tokenizer import load as load_tokenizer

SENTENCE = "the cardiologist reads the electrocardiogram and the thermometer."


@pytest.fixture(scope="module")
def corpus(place: Any, done: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text of the domain as a corpus of the extended tokenizer."""
    root = tmp_path_factory.mktemp("domain")
    (root / "domain.txt").write_text("\n\n".join([f"{SENTENCE} {SENTENCE}"] * 80), encoding="utf-8")
    told = done("tokenizer", "extend", f"{place.run}/model", root / "domain.txt", "--words", 3, "--out", root / "tok")
    assert "3 of them new" in told
    done("corpus", "build", root / "domain.txt", "--tokenizer", root / "tok", "--out", root / "corpus")
    return root / "corpus"


def models_before_and_after(place: Any, corpus: Path, done: Callable[..., str], run: Path, *settings: str) -> list[Any]:
    """[old encoder, new encoder] and the same of the generators, after a step that changes next to nothing."""
    done("pretrain", "test-modern", f"corpus.path={corpus}", f"run.dir={run}", "stop.steps=1", *settings)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    (warning,) = [event for event in events if event.get("code") == "E-M456"]
    assert "3 new embedding rows" in warning["message"]
    old, new = load_model_dir(place.run / "model"), load_model_dir(run / "model")
    assert new.tokenizer().vocab_size == old.tokenizer().vocab_size + 3
    pairs = [[old.encoder, new.encoder]]
    if new.generator is not None:
        assert old.generator is not None
        pairs.append([old.generator.encoder, new.generator.encoder])
    return pairs


def check_rows(place: Any, corpus: Path, before: Any, after: Any) -> None:
    old, new = load_tokenizer(place.run / "model"), load_tokenizer(corpus / "tokenizer")
    size, rows, grown = old.vocab_size, before.embeddings.table, after.embeddings.table
    torch.testing.assert_close(grown[:size], rows, atol=1e-6, rtol=0)
    for number in range(3):
        pieces = [piece.id for piece in old.backend.model.tokenize(new.token_text(size + number))]
        assert len(pieces) > 2
        torch.testing.assert_close(grown[size + number], rows[pieces].mean(dim=0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("phase", ["mlm", "rtd"])
def test_new_rows_are_made_of_old_ones_and_counted(
    place: Any, corpus: Path, done: Callable[..., str], tmp_path: Path, phase: str
) -> None:
    settings = {
        "mlm": ["phases.rtd.share=0", "phases.mlm.optimizer.lr=1e-12"],
        "rtd": ["phases.mlm.share=0", "phases.rtd.optimizer.lr=1e-12", "phases.rtd.objective.tying=none"],
    }[phase]
    pairs = models_before_and_after(place, corpus, done, tmp_path / "run", f"init.from={place.run}/model", *settings)
    assert len(pairs) == {"mlm": 1, "rtd": 2}[phase]
    for before, after in pairs:
        check_rows(place, corpus, before, after)


def test_a_generator_from_elsewhere_is_grown_too(place: Any, corpus: Path, done: Callable[..., str], tmp_path: Path) -> None:
    settings = ["phases.mlm.share=0", "phases.rtd.optimizer.lr=1e-12", f"init.generator={place.run}/model/generator"]
    pairs = models_before_and_after(
        place, corpus, done, tmp_path / "run", f"init.from={place.classifier}/model", *settings
    )  # fmt: skip
    check_rows(place, corpus, *pairs[1])


def test_a_generator_with_another_tokenizer_is_refused(
    place: Any, electra: Callable[..., Any], done: Callable[..., str], tmp_path: Path
) -> None:
    other = tmp_path / "generator"
    shutil.copytree(place.run / "model" / "generator", other)
    done("tokenizer", "train", place.text, "--vocab-size", 400, "--lowercase", "--out", tmp_path / "tok")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "tok" / name, other)
    outcome = electra("pretrain", "test-modern", f"corpus.path={place.corpus}", f"run.dir={tmp_path / 'run'}",
                      f"init.from={place.classifier}/model", f"init.generator={other}", "phases.mlm.share=0")  # fmt: skip
    assert outcome.code == 3
    assert "E-M451" in outcome.err
    assert str(other) in outcome.err
