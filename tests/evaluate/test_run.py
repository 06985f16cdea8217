"""Evaluation: the figures are those of the predictions, and what is wrong with model or data is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from electra.contracts import Example
from electra.data.grid import collate
from electra.errors import ElectraError
from electra.evaluate.run import evaluate_file, examination
from electra.models.encoder import build_encoder
from electra.models.heads import RtdHead
from electra.models.model_dir import Provenance
from electra.models.modern import ModernConfig
from electra.objectives.supervised import Supervised
from electra.predict.predictor import Predictor
from electra.storage import file_hash
from electra.tasks.classify import Classify, ClassifyConfig
from electra.tasks.replaced import Replaced, ReplacedConfig, ReplacedNetwork
from electra.text.train_tokenizer import train as train_tokenizer

TOKENIZER = train_tokenizer(["a good film", "a bad film"] * 3, vocab_size=80)
PROVENANCE = Provenance(tokenizer=TOKENIZER, card=lambda: "# A classifier\n")
TASK = Classify(ClassifyConfig(labels=("neg", "pos"), max_length=8), TOKENIZER)
CONFIG = ModernConfig(
    vocab_size=TOKENIZER.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
)
EXAMPLES = [
    Example(text=text, target=label, where=f"dev.tsv:{line}")
    for line, (text, label) in enumerate([("good", "pos"), ("bad", "neg"), ("film", "pos"), ("a bad film", "neg")], start=2)
]


def model(bias: float = 0.0) -> Supervised:
    """A classifier with random weights that calls half of the examples "pos", or more with a `bias`."""
    torch.manual_seed(1)
    objective = Supervised(build_encoder(CONFIG), TASK, PROVENANCE).eval()
    items = [row for example in EXAMPLES for row in TASK.encode(example)]
    with torch.no_grad():
        objective.model.head.classifier.weight.mul_(50)
        logits = objective.model(collate(items, 8, TOKENIZER.pad_id))
        lead = (logits[:, 1] - logits[:, 0]).sort().values
        objective.model.head.classifier.bias[1] += bias - (lead[1] + lead[2]) / 2
    return objective


def test_the_figures_are_those_of_the_predictions() -> None:
    predictor = Predictor(model().model, TASK)
    said = [prediction.output["label"] for prediction in predictor.predict(EXAMPLES)]
    scores = examination(predictor, EXAMPLES).figures()
    assert next(iter(scores)) == "accuracy"
    assert scores["accuracy"] == sum(label == example.target for label, example in zip(said, EXAMPLES, strict=True)) / 4
    assert scores["majority_share"] == 0.5


def test_the_size_of_batches_changes_nothing() -> None:
    network = model().model
    small, large = (examination(Predictor(network, TASK, batch_tokens=size), EXAMPLES).figures() for size in (8, 4096))
    assert small == large


def test_examples_without_a_known_label_are_refused_by_name() -> None:
    predictor = Predictor(model().model, TASK)
    with pytest.raises(ElectraError, match="E-D320"):
        examination(predictor, []).figures()
    with pytest.raises(ElectraError, match=r"E-D321 dev\.tsv:9"):
        examination(predictor, [*EXAMPLES, Example(text="x", where="dev.tsv:9")])
    with pytest.raises(ElectraError, match=r"E-D312 dev\.tsv:9"):
        examination(predictor, [*EXAMPLES, Example(text="x", target="po", where="dev.tsv:9")])


def test_a_scoring_task_has_nothing_to_evaluate() -> None:
    network = ReplacedNetwork(build_encoder(CONFIG), RtdHead(CONFIG))
    with pytest.raises(ElectraError, match="E-C305"):
        examination(Predictor(network, Replaced(ReplacedConfig(), TOKENIZER)), EXAMPLES)


def test_a_file_is_evaluated_with_what_was_cut_and_confused(tmp_path: Path) -> None:
    data = tmp_path / "dev.tsv"
    rows = [*((example.text, str(example.target)) for example in EXAMPLES), ("good " * 10, "pos")]
    data.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")
    objective = model()
    objective.export(tmp_path / "model")
    result = evaluate_file(tmp_path / "model", data)
    examples = list(TASK.read(data).examples)
    assert result["metrics"] == examination(Predictor(objective.model, TASK), examples).figures()
    assert (result["examples"], result["truncated"], result["truncated_tokens"]) == (5, 1, 4)
    assert result["labels"] == ["neg", "pos"]
    confusion = result["confusion"]
    assert isinstance(confusion, list)
    assert [sum(row) for row in confusion] == [2, 3]
    assert result["warnings"] == ["1 of 5 inputs were cut: 4 tokens not seen"]


def test_the_training_file_is_no_test_and_columns_can_be_named(tmp_path: Path) -> None:
    rows = "\n".join(f"{example.target}\t{example.text}" for example in EXAMPLES)
    data, other = tmp_path / "train.tsv", tmp_path / "other.tsv"
    data.write_text(f"stars\tbody\n{rows}\n", encoding="utf-8")
    other.write_text(f"stars\tbody\n{rows}\n\n", encoding="utf-8")
    provenance = Provenance(tokenizer=TOKENIZER, card=lambda: "# A classifier\n", trained_on=file_hash(data))
    Supervised(model().model.encoder, TASK, provenance).export(tmp_path / "model")
    with pytest.raises(ElectraError, match="E-D333"):
        evaluate_file(tmp_path / "model", data)
    columns = {"text": "body", "label": "stars"}
    found = evaluate_file(tmp_path / "model", data, columns=columns)
    assert found["examples"] == 4
    assert found["warnings"][0].startswith(f"E-D366 the model was trained on {data}")
    assert not any("E-D366" in warning for warning in evaluate_file(tmp_path / "model", other, columns=columns)["warnings"])


def test_a_collapsed_model_is_called_so(tmp_path: Path) -> None:
    data = tmp_path / "dev.tsv"
    data.write_text("text\tlabel\ngood\tpos\nbad\tneg\nfilm\tpos\n", encoding="utf-8")
    model(bias=1e4).export(tmp_path / "model")
    result = evaluate_file(tmp_path / "model", data)
    assert result["confusion"] == [[0, 1], [0, 2]]
    assert result["warnings"] == ["the model has collapsed: everything got the label 'pos'"]
