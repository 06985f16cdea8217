"""Small models of every task, and how predictions are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from electra.contracts import Example, Prediction
from electra.models.classic import ClassicConfig
from electra.models.encoder import EncoderConfig, build_encoder
from electra.models.heads import MlmHead, RtdHead
from electra.models.model_dir import Provenance, save_model_dir
from electra.models.modern import ModernConfig
from electra.models.recurrent import RecurrentConfig
from electra.tasks import task_config
from electra.text.tokenizer import Tokenizer
from electra.text.train_tokenizer import train

TEXTS = [
    "the rain causes floods, and a wheel of the car turns",
    "a dog",
    "the cat sat on [MASK] mat",
    "rain",
    "a cat and the car",
]
TOKENIZER = train([*TEXTS, "@ # * ^"] * 3, vocab_size=120)
SIZES: dict[str, Any] = {"vocab_size": TOKENIZER.vocab_size, "hidden_size": 16, "num_hidden_layers": 1}
WIDE: dict[str, Any] = {**SIZES, "num_attention_heads": 2, "intermediate_size": 24}
FAMILIES: dict[str, EncoderConfig] = {
    "classic": ClassicConfig(embedding_size=8, max_position_embeddings=64, **WIDE),
    "modern": ModernConfig(global_attn_every_n_layers=2, local_attention=6, **{**WIDE, "num_hidden_layers": 2}),
    "recurrent": RecurrentConfig(embedding_size=8, **SIZES),
}
SHORT = {"max_length": 26, "stride": 4, "question_tokens": 4}
RELATION = Example(text="rain causes floods", given={"head": (0, 4, None), "tail": (12, 18, None)})
CHOICES = [Example(text=TEXTS[0], given={"choices": ("a dog", "rain")}),
           Example(text="a cat", given={"choices": ("the car", "a mat and the rain", "rain")})]  # fmt: skip
QUESTIONS = [Example(text="a cat", pair=" ".join(TEXTS)), Example(text="rain", pair="a dog")]
SINGLE = [Example(text=text) for text in TEXTS]
#: settings of a task and what it is asked, by what is exported
TASKS: dict[str, tuple[dict[str, Any], Sequence[Example]]] = {
    "classify": ({"type": "classify", "labels": ["a", "b", "c"]}, SINGLE),
    "tag": ({"type": "tag", "labels": ["X"], "tagged": "spans", "max_length": 16}, SINGLE),
    "span": ({"type": "span", **SHORT}, QUESTIONS),
    "joint span": ({"type": "span", "head": "joint", "unanswerable": True, **SHORT}, QUESTIONS),
    "relation": ({"type": "relation", "labels": ["a", "b"], "types": False, "none": ""}, [RELATION]),
    "embed": ({"type": "embed", "pooling": "mean"}, [*SINGLE, Example(text="a cat", pair=TEXTS[0])]),
    "embed by cls": ({"type": "embed", "pooling": "cls"}, SINGLE),
    "choice": ({"type": "choice", "max_length": 32}, CHOICES),
    "replaced": ({"type": "replaced", "max_length": 16}, SINGLE),
    "score": ({"type": "score", "max_length": 16}, SINGLE),
    "fill-mask": ({"type": "fill-mask", "max_length": 16, "top_k": 3}, SINGLE),
}
UNTRAINED = ("replaced", "score", "fill-mask")


def shaken(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return network


def saved(path: Path, family: str, name: str) -> Path:
    """A model directory for a task of `TASKS`: fine-tuned, or a pair of pre-trained networks."""
    torch.manual_seed(9)  # with it, the classifier gives more than one label
    config, tree = FAMILIES[family], {"max_length": 64, **TASKS[name][0]}
    encoder = build_encoder(config)
    shaken(encoder)
    provenance = Provenance(tokenizer=TOKENIZER, card=lambda: "# A small model\n")
    if name in UNTRAINED:
        generator = build_encoder(config), MlmHead(config)
        head, *_ = (shaken(part) for part in (RtdHead(config), *generator))
        save_model_dir(path, encoder=encoder, head=head, generator=generator, provenance=provenance)
        return path
    task: Any = task_config(tree).build(TOKENIZER)
    head, labels = shaken(task.head(encoder)), task.labels
    save_model_dir(path, encoder=encoder, head=head, labels=labels, task=task.to_json(), provenance=provenance)
    return path


def close(ours: Any, theirs: Any) -> None:
    """The same output, floats within 1e-4."""
    if isinstance(ours, float):
        assert theirs == pytest.approx(ours, abs=1e-4)
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        close(list(ours.values()), list(theirs.values()))
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            close(one, other)
    else:
        assert ours == theirs


@pytest.fixture(scope="session")
def same() -> Callable[[Sequence[Prediction], Sequence[Prediction]], None]:
    """Fails unless both are the same predictions."""

    def compare(ours: Sequence[Prediction], theirs: Sequence[Prediction]) -> None:
        close(*([(one.text, one.output, one.truncated) for one in predictions] for predictions in (ours, theirs)))

    return compare


@pytest.fixture(scope="session")
def asked() -> Callable[[str], tuple[dict[str, Any], Sequence[Example]]]:
    """name -> settings of a task and examples."""
    return TASKS.__getitem__


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return TEXTS


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return TOKENIZER


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """(family, name of a task) -> a model directory."""
    made: dict[tuple[str, str], Path] = {}

    def make(family: str, name: str) -> Path:
        if (family, name) not in made:
            made[family, name] = saved(tmp_path_factory.mktemp("model") / "m", family, name)
        return made[family, name]

    return make
