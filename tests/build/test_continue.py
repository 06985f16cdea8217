"""Pre-training goes on from released weights: pairs with the names, shapes and config keys of the published ones, in miniature,
and BERT-like encoders."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from electra.build.networks import initial_source
from electra.build.pretrain import PretrainRecipe, Setting
from electra.config import load
from electra.events import EventLog
from electra.models.importing import import_model
from electra.models.model_dir import ModelDir
from electra.objectives.rtd import Rtd
from electra.text import build
from electra.text.tokenizer import load as load_tokenizer
from electra.train.loop import Span, Training, train
from electra.train.machine import StopFlag

LAYERS, POSITIONS = 3, 64


@dataclass(frozen=True)
class Released:
    """How a published pair is shaped: the generator's width as a part of the discriminator's, and how its tokenizer is kept."""

    embedding: int
    hidden: int
    width: float
    cased: bool


PAIRS = {
    # google/electra-small-*: a projection, and a generator as wide as its discriminator
    "google": Released(embedding=16, hidden=32, width=1.0, cased=False),
    # hfl/chinese-electra-*-small-*: a projection, a quarter of the width
    "chinese": Released(embedding=16, hidden=32, width=0.25, cased=False),
    # monologg/koelectra-base-v3-*: no projection in the discriminator, one in its narrower generator; a cased vocabulary
    "koelectra": Released(embedding=32, hidden=32, width=0.5, cased=True),
}


def config_json(architecture: str, embedding: int, hidden: int, vocabulary: int) -> dict[str, Any]:
    """The keys that the published config.json have."""
    return {
        "architectures": [architecture], "attention_probs_dropout_prob": 0.1, "embedding_size": embedding, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "hidden_size": hidden, "initializer_range": 0.02, "intermediate_size": 2 * hidden,
        "layer_norm_eps": 1e-12, "max_position_embeddings": POSITIONS, "model_type": "electra",
        "num_attention_heads": hidden // 8, "num_hidden_layers": LAYERS, "pad_token_id": 0,
        "position_embedding_type": "absolute", "summary_activation": "gelu",
        "summary_last_dropout": 0.1, "summary_type": "first", "summary_use_proj": True, "type_vocab_size": 2,
        "vocab_size": vocabulary,
    }  # fmt: skip


def linear(name: str, inner: int, outer: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.randn(outer, inner) * 0.02, f"{name}.bias": torch.zeros(outer)}


def norm(name: str, size: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.ones(size), f"{name}.bias": torch.zeros(size)}


def encoder_weights(prefix: str, embedding: int, hidden: int, vocabulary: int) -> dict[str, Tensor]:
    """BERT's names, which ELECTRA has too."""
    tables = {"word": vocabulary, "position": POSITIONS, "token_type": 2}
    state = {
        f"{prefix}embeddings.{name}_embeddings.weight": torch.randn(size, embedding) * 0.02 for name, size in tables.items()
    }
    state |= norm(f"{prefix}embeddings.LayerNorm", embedding)
    state[f"{prefix}embeddings.position_ids"] = torch.arange(POSITIONS)[None]  # a buffer of older versions
    if embedding != hidden:
        state |= linear(f"{prefix}embeddings_project", embedding, hidden)
    for number in range(LAYERS):
        layer = f"{prefix}encoder.layer.{number}."
        for part in ("query", "key", "value"):
            state |= linear(f"{layer}attention.self.{part}", hidden, hidden)
        state |= linear(f"{layer}attention.output.dense", hidden, hidden) | norm(f"{layer}attention.output.LayerNorm", hidden)
        state |= linear(f"{layer}intermediate.dense", hidden, 2 * hidden) | linear(f"{layer}output.dense", 2 * hidden, hidden)
        state |= norm(f"{layer}output.LayerNorm", hidden)
    return state


def write(folder: Path, config: dict[str, Any], state: dict[str, Tensor], vocabulary: list[str], cased: bool) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(state, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": not cased}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def vocabulary(tokenizer_dir: Path) -> list[str]:
    entries = load_tokenizer(tokenizer_dir).backend.get_vocab()
    return sorted(entries, key=lambda entry: entries[entry])


def released(pair: Released, vocabulary: list[str], place: Path) -> tuple[Path, Path]:
    """The directories of a discriminator and its generator, which have one token table."""
    torch.manual_seed(5)
    size, narrow = len(vocabulary), round(pair.hidden * pair.width)
    head = "discriminator_predictions"
    state = encoder_weights("electra.", pair.embedding, pair.hidden, size)
    state |= linear(f"{head}.dense", pair.hidden, pair.hidden) | linear(f"{head}.dense_prediction", pair.hidden, 1)
    beside = encoder_weights("electra.", pair.embedding, narrow, size)
    table = state["electra.embeddings.word_embeddings.weight"]
    beside |= {"electra.embeddings.word_embeddings.weight": table.clone(), "generator_lm_head.weight": table.clone(),
               "generator_lm_head.bias": torch.zeros(size)}  # fmt: skip
    beside |= linear("generator_predictions.dense", narrow, pair.embedding)
    beside |= norm("generator_predictions.LayerNorm", pair.embedding)
    discriminator = config_json("ElectraForPreTraining", pair.embedding, pair.hidden, size)
    generator = config_json("ElectraForMaskedLM", pair.embedding, narrow, size)
    return (write(place / "discriminator", discriminator, state, vocabulary, pair.cased),
            write(place / "generator", generator, beside, vocabulary, pair.cased))  # fmt: skip


def continued(model: ModelDir, corpus: Path, *settings: str) -> tuple[Training, list[str]]:
    """Six steps of RTD from `model`, ready to run, and the codes of the warnings."""
    config = model.encoder.config
    assert config.type == "classic"
    sizes = [f"encoder.{name}={getattr(config, name)}" for name in (
        "embedding_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
        "max_position_embeddings")]  # fmt: skip
    places = [f"corpus.path={corpus}", "run.dir=nowhere", f"init.from={model.path}", "stop.steps=6"]
    scale = ["rows.length=32", "batch.rows=8", "loop.log_steps=1"]
    rate = ["phases.rtd.optimizer.lr=1e-3", "phases.rtd.optimizer.warmup_steps=3"]
    recipe = load(PretrainRecipe, ["electra-small"], [*places, *sizes, *scale, *rate, *settings])
    setting, codes = Setting(recipe), list[str]()
    source = initial_source(recipe.init, setting.encoder, setting.tokenizer)
    t = setting.training(Span(name="rtd", first=0, steps=6), source, 8, False, str, lambda code, message: codes.append(code))
    return t, codes


def run(t: Training) -> list[dict[str, Any]]:
    """The step events."""
    events = list[dict[str, Any]]()
    t.log = EventLog(None, [lambda event: events.append(dict(event))])
    train(t, None, StopFlag())
    return [event for event in events if event["event"] == "step"]


@pytest.mark.parametrize("name", list(PAIRS))
def test_a_released_pair_goes_on(name: str, vocabulary: list[str], text_file: Path, tmp_path: Path) -> None:
    pair = PAIRS[name]
    discriminator, generator = released(pair, vocabulary, tmp_path)
    model = import_model(discriminator, tmp_path / "imported", generator)
    assert model.dropped == ()
    assert model.rtd_head is not None
    assert model.generator is not None
    assert load_tokenizer(tmp_path / "imported").fingerprint == load_tokenizer(discriminator).fingerprint
    build.build([text_file], model.tokenizer(), tmp_path / "corpus")

    t, codes = continued(model, tmp_path / "corpus", f"generator.width={pair.width}")
    assert codes == []  # nothing is missing
    objective = t.objective
    assert isinstance(objective, Rtd)
    theirs = model.generator.encoder.state_dict()
    for key, tensor in objective.discriminator.encoder.state_dict().items():
        assert torch.equal(tensor, model.encoder.state_dict()[key]), key
    for key, tensor in objective.generator.encoder.state_dict().items():
        if not key.startswith("embeddings."):  # tied: those of the discriminator, or the other way round
            assert torch.equal(tensor, theirs[key]), key
    assert torch.equal(objective.generator.encoder.embeddings.table, theirs["embeddings.word_embeddings.weight"])
    assert torch.equal(objective.generator.head.dense.weight, model.generator.mlm_head.dense.weight)
    assert torch.equal(objective.discriminator.head.output.weight, model.rtd_head.output.weight)

    before = objective.discriminator.encoder.layers[0].up.weight.detach().clone()
    steps = run(t)
    rates = [step["lr"]["discriminator"] for step in steps]
    assert rates[0] == 0  # re-warmed: the optimiser knows no gradient yet
    assert rates[3] == max(rates) > rates[1] > 0
    assert rates[-1] < rates[3]
    assert not torch.equal(before, objective.discriminator.encoder.layers[0].up.weight)
    assert steps[-1]["figures"]["mlm_loss"] < steps[0]["figures"]["mlm_loss"]


def test_a_bert_like_encoder_becomes_a_discriminator(vocabulary: list[str], text_file: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    config = config_json("BertModel", 32, 32, len(vocabulary)) | {"model_type": "bert", "hidden_act": "gelu"}
    del config["embedding_size"]
    state = encoder_weights("", 32, 32, len(vocabulary)) | linear("pooler.dense", 32, 32)
    source = write(tmp_path / "bert", config, state, vocabulary, cased=False)
    model = import_model(source, tmp_path / "imported")
    assert set(model.dropped) == {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    build.build([text_file], model.tokenizer(), tmp_path / "corpus")
    t, codes = continued(model, tmp_path / "corpus", "generator.width=1.0", "generator.layers=1")
    assert codes == ["E-M454", "E-M455"]
    assert isinstance(t.objective, Rtd)
    first = t.objective.generator.encoder.layers[0].up.weight
    assert torch.equal(first, model.encoder.layers[0].up.weight)  # its lowest layers
    assert len(run(t)) == 6
