"""Fine-tuning as an objective: it learns, it knows its depths, and its model loads in transformers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from electra.contracts import Batch, Example, Noise, Objective, Phase
from electra.data.grid import collate
from electra.data.loader import ExampleLoader
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.encoder import Encoder, build_encoder
from electra.models.model_dir import Provenance
from electra.models.modern import ModernConfig
from electra.objectives.supervised import DecayRule, Freeze, Supervised
from electra.predict.predictor import Predictor, load
from electra.tasks.classify import Classify, ClassifyConfig
from electra.tasks.common import EncodedExamples
from electra.text.train_tokenizer import train as train_tokenizer
from electra.train.optim import AdamWConfig, Optimizers

SENTENCES = ["the good film", "a bad film", "it was good", "it was so bad", "good", "bad", "the film was good", "bad play"]
TOKENIZER = train_tokenizer(SENTENCES * 3, vocab_size=80)
PROVENANCE = Provenance(tokenizer=TOKENIZER, card=lambda: "# A classifier\n")
TASK = Classify(ClassifyConfig(labels=("neg", "pos"), max_length=16), TOKENIZER)
EXAMPLES = [Example(text=text, target="pos" if "good" in text else "neg") for text in SENTENCES]
CONFIGS = [
    ClassicConfig(
        vocab_size=TOKENIZER.vocab_size, embedding_size=8, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    ),
    ModernConfig(
        vocab_size=TOKENIZER.vocab_size, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=32,
    ),
]  # fmt: skip
PHASE = Phase(name="supervised", networks=("model",))
families = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.type)


def supervised(config: ClassicConfig | ModernConfig, task: Classify = TASK) -> Supervised:
    torch.manual_seed(0)
    return Supervised(build_encoder(config), task, PROVENANCE)


def batch_of(examples: list[Example]) -> Batch:
    return collate([row for example in examples for row in TASK.encode(example)], 16, TOKENIZER.pad_id)


def noise(batch: Batch) -> Noise:
    return Noise(np.arange(len(batch.tokens), dtype=np.uint64))


@families
def test_it_learns_through_the_loader_and_says_so(config: ClassicConfig | ModernConfig) -> None:
    objective: Objective = supervised(config)
    assert isinstance(objective, Supervised)
    examples = EncodedExamples([row for example in EXAMPLES for row in TASK.encode(example)])
    loader = ExampleLoader(examples=examples, pad_id=TOKENIZER.pad_id, batch_examples=4, micro_tokens=256, seed=0)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-2)
    for step in range(40):
        [phase] = objective.phases(step, 40)
        assert (phase.networks, phase.progress) == (tuple(objective.networks), step / 40)
        for batch, noise_ in loader.micro_batches(step, 0, 1):
            term = objective(batch, noise_, phase).terms["classify"]
            (term.total / batch.counts[term.unit]).backward()
        optimizer.step()
        optimizer.zero_grad()
    batch = batch_of(EXAMPLES)
    figures = objective.eval().summarise(objective(batch, noise(batch), PHASE).totals)
    assert figures["accuracy"] == 1.0
    assert figures["loss"] < 0.1


def test_figures_are_means_over_any_number_of_micro_batches() -> None:
    objective = supervised(CONFIGS[0]).eval()
    whole = objective(batch_of(EXAMPLES), noise(batch_of(EXAMPLES)), PHASE).totals
    parts = [objective(batch_of(part), noise(batch_of(part)), PHASE).totals for part in (EXAMPLES[:3], EXAMPLES[3:])]
    summed = {name: parts[0][name] + parts[1][name] for name in whole}
    assert objective.summarise(summed) == pytest.approx(objective.summarise(whole), rel=1e-6)
    assert set(objective.summarise(whole)) == {"loss", "accuracy"}


@families
def test_every_parameter_has_its_depth(config: ClassicConfig | ModernConfig) -> None:
    objective = supervised(config)
    depths = objective.layer_depths()
    assert set(depths) == {f"model.{name}" for name, _ in objective.networks["model"].named_parameters()}
    assert objective.decay_exponents("fixed")["model.head.classifier.weight"] == 0
    by_part: dict[str, set[int]] = {}
    for name, depth in depths.items():
        part = ".".join(name.split(".")[1 : 4 if ".layers." in name else 3])
        by_part.setdefault(part if part.startswith("encoder") else "head", set()).add(depth)
    expected = {"encoder.embeddings": {0}, "head": {4}} | {f"encoder.layers.{i}": {i + 1} for i in range(3)}
    expected |= {"encoder.final_norm": {3}} if config.type == "modern" else {"encoder.embeddings_project": {0}}
    assert by_part == expected


@families
@pytest.mark.parametrize(("rule", "last", "first", "embeddings"), [("fixed", 1, 3, 4), ("reference", 2, 4, 5)])
def test_exponents_of_layer_wise_decay(
    config: ClassicConfig | ModernConfig, rule: DecayRule, last: int, first: int, embeddings: int
) -> None:
    """3 layers; `reference` as published: embeddings depth 0, layer i depth i + 1, head n + 2, the exponent n + 2 - depth."""
    found = supervised(config).decay_exponents(rule)
    by_part = {name.removeprefix("model.encoder."): exponent for name, exponent in found.items()}
    assert {exponent for name, exponent in by_part.items() if name.startswith("model.head")} == {0}
    assert {exponent for name, exponent in by_part.items() if name.startswith("layers.2.")} == {last}
    assert {exponent for name, exponent in by_part.items() if name.startswith("layers.0.")} == {first}
    assert {exponent for name, exponent in by_part.items() if name.startswith("embeddings")} == {embeddings}
    assert by_part.get("final_norm.weight", last) == last


@families
@pytest.mark.parametrize("freeze", ["nothing", "embeddings", 1, 2, 3, "encoder"])
def test_what_is_frozen_stays_and_the_rest_learns(config: ClassicConfig | ModernConfig, freeze: Freeze) -> None:
    torch.manual_seed(0)
    objective = Supervised(build_encoder(config), TASK, PROVENANCE, freeze)
    deepest = {"nothing": -1, "embeddings": 0, "encoder": 3}[freeze] if isinstance(freeze, str) else freeze
    depths = objective.layer_depths()
    before = {name: parameter.detach().clone() for name, parameter in objective.named_parameters()}
    optimizers = Optimizers(objective.networks, AdamWConfig(lr=0.1, warmup_ratio=0.0, weight_decay=0.1), steps=9)
    assert {f"model.{name}" for name in optimizers.parameters["model"]} == {n for n in depths if depths[n] > deepest}
    objective.train()
    for _ in range(2):  # the first gradients of a matrix before one that is 0 are 0
        batch = batch_of(EXAMPLES)
        objective(batch, noise(batch), PHASE).terms["classify"].total.backward()
        optimizers.clip(["model"])
        optimizers.step(["model"], 0)
    moved = {name for name, parameter in objective.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in depths if depths[name] > deepest}


@pytest.mark.parametrize("freeze", ["embeddings", 2, "encoder"])
def test_what_is_frozen_runs_without_dropout_and_without_gradient(freeze: Freeze) -> None:
    config = dataclasses.replace(CONFIGS[0], hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)  # type: ignore[type-var]
    torch.manual_seed(0)
    objective = Supervised(build_encoder(config), TASK, PROVENANCE, freeze)
    encoder, seen = objective.model.encoder, dict[str, list[Tensor]]()
    for name, module in (("embeddings", encoder.embeddings), ("1", encoder.layers[1]), ("2", encoder.layers[2])):
        module.register_forward_hook(lambda _, given, output, name=name: seen.setdefault(name, []).append(output))
    objective.train()
    for _ in range(2):
        objective(batch_of(EXAMPLES), noise(batch_of(EXAMPLES)), PHASE)
    frozen = {"embeddings": {"embeddings"}, 2: {"embeddings", "1"}, "encoder": {"embeddings", "1", "2"}}[freeze]
    for name, (first, second) in seen.items():
        assert torch.equal(first, second) == (name in frozen), name
        assert first.requires_grad == (name not in frozen), name
    Predictor(objective.model, TASK).predict(["good"])
    assert objective.train().eval().training is False


@pytest.mark.parametrize("layers", [0, 4, -1])
def test_layers_that_are_not_there_cannot_be_frozen(layers: int) -> None:
    with pytest.raises(ElectraError, match=rf"E-C454 freeze: {layers} lowest layers, but the encoder has 3"):
        Supervised(build_encoder(CONFIGS[0]), TASK, PROVENANCE, layers)


def test_rows_longer_than_the_positions_are_refused() -> None:
    task = Classify(ClassifyConfig(labels=("neg", "pos"), max_length=33), TOKENIZER)
    with pytest.raises(ElectraError, match=r"E-C313 task\.max_length: 33 tokens, but the encoder has 32"):
        supervised(CONFIGS[0], task)


@families
def test_the_exported_model_is_the_same_in_transformers_and_here(config: ClassicConfig | ModernConfig, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    objective = supervised(config).eval()
    _spread(objective.model.encoder)
    with torch.no_grad():
        objective.model.head.classifier.weight.mul_(50)
    objective.export(tmp_path / "model")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    assert theirs.config.id2label == {0: "neg", 1: "pos"}
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    encoded = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        ours = objective.model(batch_of(EXAMPLES))
        torch.testing.assert_close(theirs(**_accepted(theirs, encoded)).logits, ours, atol=1e-5, rtol=1e-5)
    assert ours.std() > 0.01
    again = load(tmp_path / "model")
    for saved, before in zip(again.predict(SENTENCES), Predictor(objective.model, TASK).predict(SENTENCES), strict=True):
        assert saved.output == {"label": before.output["label"], "score": pytest.approx(before.output["score"], abs=1e-5)}
    task = json.loads((tmp_path / "model" / "task.json").read_text(encoding="utf-8"))
    assert (task["type"], task["labels"]) == ("classify", ["neg", "pos"])


def _accepted(model: torch.nn.Module, encoded: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """ModernBert takes no type ids."""
    takes_types = "Electra" in type(model).__name__
    return {name: tensor for name, tensor in encoded.items() if takes_types or name != "token_type_ids"}


def _spread(encoder: Encoder) -> None:
    """Weights large enough that texts differ."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(5 if parameter.ndim > 1 else 1)
