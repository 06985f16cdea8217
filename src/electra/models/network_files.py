"""One network in a directory: an encoder and perhaps a head, as config.json and model.safetensors; and the towers of a noise
model, each such a directory, with their head beside them.

Tensors are read from safetensors only, JSON up to a fixed size, and networks are filled from tensors whose names and shapes
have been compared. `model_dir` puts a model directory together of such networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from electra import storage
from electra.errors import ElectraError
from electra.models import encoder_decoder, hf_config
from electra.models.classic import ClassicConfig
from electra.models.decoder import Decoder
from electra.models.encoder import Encoder, EncoderConfig, build_encoder
from electra.models.heads import (
    CausalHead,
    ChoiceHead,
    ClassificationHead,
    EnergyHead,
    LabelHead,
    MlmHead,
    Pooling,
    RtdHead,
    SpanHead,
    TokenHead,
    TwoLayerHead,
)  # fmt: skip
from electra.models.interchange import from_transformers, head_of, require_names, to_transformers
from electra.models.two_tower import TwoTower
from electra.models.tying import plain_state
from electra.nn.layers import shapes_alone

#: the weights of a head without a class in transformers
OWN_HEAD = "head.safetensors"
_TOWERS = ("ltr", "rtl")

TaskHead = ClassificationHead | TwoLayerHead | TokenHead | SpanHead
Head = MlmHead | RtdHead | TaskHead | Decoder
#: heads on the main encoder that a class of transformers has: prefix of our names, and ending of theirs
HEADS: Mapping[type[nn.Module], tuple[str, str]] = {
    MlmHead: ("mlm_head", "ForMaskedLM"),
    CausalHead: ("causal_head", "ForCausalLM"),
    RtdHead: ("rtd_head", "ForPreTraining"),
    EnergyHead: ("rtd_head", "ForPreTraining"),
    ClassificationHead: ("classification_head", "ForSequenceClassification"),
    ChoiceHead: ("choice_head", "ForMultipleChoice"),
    TwoLayerHead: ("two_layer_head", "ForSequenceClassification"),
    TokenHead: ("token_head", "ForTokenClassification"),
    SpanHead: ("span_head", "ForQuestionAnswering"),
}


# -- writing ------------------------------------------------------------------------------------------------------------


def family_prefix(encoder: Encoder) -> str:
    """What the names of its family's classes in `interchange.ARCHITECTURES` begin with."""
    return {"classic": "Electra", "modern": "ModernBert", "recurrent": "Recurrent"}[encoder.config.type]


def write_network(
    directory: Path,
    architecture: str,
    encoder: Encoder,
    head: nn.Module | None = None,
    labels: Sequence[str] = (),
    problem: str | None = None,
) -> None:
    """An encoder, and perhaps a head of `HEADS`, into `directory`, which is made if it is not there.

    Args:
        architecture: a name in `interchange.ARCHITECTURES`.
        labels: names of the head's outputs, if they have any.
        problem: what they are, in transformers' words.
    """
    directory.mkdir(exist_ok=True)
    state = {f"encoder.{name}": tensor.to("cpu", torch.float32) for name, tensor in plain_state(encoder).items()}
    if head is not None:
        state |= {f"{HEADS[type(head)][0]}.{name}": tensor for name, tensor in plain(head.state_dict()).items()}
    dropout = 0.0
    pooling: Pooling = "cls"
    if isinstance(head, LabelHead | TwoLayerHead):
        dropout, labels = head.dropout, labels or _labels({}, head.classifier.out_features)
    if isinstance(head, ClassificationHead):
        pooling = head.pooling
    tree = hf_config.to_json(encoder.config, architecture, labels, dropout, pooling)
    storage.write_json(directory / "config.json", tree if problem is None else tree | {"problem_type": problem})
    save_file(to_transformers(state, architecture), directory / "model.safetensors", {"format": "pt"})


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as files have it: on the CPU, fp32, contiguous."""
    return {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in state.items()}


def write_noise(directory: Path, noise: TwoTower) -> None:
    """The towers, each in a directory of its own, and their head."""
    for name in _TOWERS:
        tower = noise.get_submodule(name)
        assert isinstance(tower, Encoder)
        (directory / name).mkdir(parents=True)
        write_network(directory / name, f"{family_prefix(tower)}Model", tower)
    save_file(plain(noise.head.state_dict()), directory / OWN_HEAD, {"format": "pt"})


# -- reading ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Network:
    """What `read_network` found; fields as of `model_dir.ModelDir`."""

    encoder: Encoder
    head: Head | None
    labels: tuple[str, ...]
    problem: str | None
    dropped: tuple[str, ...]


def read_network(directory: Path) -> Network:
    """config.json and model.safetensors as an encoder and perhaps a head, in evaluation mode.

    Raises:
        ElectraError: as `model_dir.load_model_dir`.
    """
    tree = read_json(directory / "config.json")
    config, architecture = hf_config.from_json(tree, str(directory / "config.json"))
    file = directory / "model.safetensors"
    imported = from_transformers(read_tensors(file), architecture, str(file))
    layers = {name.split(".")[2] for name in imported.state if name.startswith("encoder.layers.")}
    if len(layers) != config.num_hidden_layers:
        raise ElectraError("E-M205", str(file), f"{len(layers)} layers, but config.json says {config.num_hidden_layers}",
                           "mend config.json or the weights")  # fmt: skip
    with shapes_alone():  # no memory and no initial values until the shapes have been compared
        network = nn.ModuleDict({"encoder": build_encoder(config)})
        if prefix := head_of(imported.state, architecture):
            outputs = len(imported.state.get(f"{prefix}.classifier.bias", torch.empty(1)))
            network[prefix] = _empty_head(prefix, config, outputs, tree, str(directory / "config.json"))
    _fill(network, imported.state, architecture, str(file))
    encoder = network["encoder"]
    head = next((module for name, module in network.items() if name != "encoder"), None)
    assert isinstance(encoder, Encoder)
    assert head is None or isinstance(head, Head)
    labels = _labels(tree, head.classifier.out_features) if isinstance(head, LabelHead | TwoLayerHead) else ()
    problem = tree.get("problem_type")
    return Network(
        encoder=encoder.eval(), head=None if head is None else head.eval(), labels=labels,
        problem=problem if problem in hf_config.PROBLEMS.values() else None, dropped=imported.dropped,
    )  # fmt: skip


def read_noise(directory: Path) -> TwoTower:
    """What `write_noise` wrote.

    Raises:
        ElectraError: as `model_dir.load_model_dir`.
    """
    ltr, rtl = (read_network(directory / name).encoder for name in _TOWERS)
    file = directory / OWN_HEAD
    head = MlmHead(ltr.config, states=2)
    state, expected = read_tensors(file), head.state_dict()
    if {name: tensor.shape for name, tensor in state.items()} != {name: tensor.shape for name, tensor in expected.items()}:
        raise ElectraError("E-M205", str(file), "names or shapes are not those of a head on these towers", "save it again")
    head.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return TwoTower(ltr, rtl, head).eval()


def _empty_head(prefix: str, config: EncoderConfig, outputs: int, tree: Mapping[str, Any], where: str) -> nn.Module:
    match prefix:
        case "mlm_head":
            return MlmHead(config)
        case "causal_head":
            return CausalHead(config)
        case "rtd_head":
            return EnergyHead(config) if hf_config.has_energies(tree) else RtdHead(config)
        case "classification_head":
            return ClassificationHead(config, outputs, _classifier_dropout(tree), hf_config.pooling(tree, where))
        case "choice_head":
            return ChoiceHead(config, _classifier_dropout(tree), hf_config.pooling(tree, where))
        case "two_layer_head":
            assert isinstance(config, ClassicConfig)
            return TwoLayerHead(config, outputs, _classifier_dropout(tree))
        case "token_head":
            return TokenHead(config, outputs, _classifier_dropout(tree))
        case "span_head":
            return SpanHead(config, _classifier_dropout(tree))
        case "decoder":
            assert isinstance(config, ClassicConfig)
            return encoder_decoder.decoder_of(tree, where, config)
        case _:
            raise AssertionError(f"no head is called {prefix}")


def _labels(tree: Mapping[str, Any], outputs: int) -> tuple[str, ...]:
    names = tree.get("id2label")
    names = names if isinstance(names, dict) else {}
    return tuple(str(names.get(str(index), f"LABEL_{index}")) for index in range(outputs))


def _fill(network: nn.Module, state: dict[str, Tensor], architecture: str, where: str) -> None:
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    require_names(state, expected, architecture, where)
    for name, shape in expected.items():
        if state[name].shape != shape:
            raise ElectraError("E-M205", where, f"{name} is {list(state[name].shape)}, config.json says {list(shape)}",
                               "mend config.json or the weights")  # fmt: skip
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)


def _classifier_dropout(tree: Mapping[str, Any]) -> float:
    value = tree.get("classifier_dropout")
    return float(value) if isinstance(value, int | float) and 0 <= value < 1 else 0.1


def read_json(file: Path) -> dict[str, Any]:
    """An object of a small JSON file.

    Raises:
        ElectraError: E-M204 it cannot be read.
    """
    try:
        return storage.read_small_json(file, dict)
    except (OSError, ValueError) as error:
        raise ElectraError("E-M204", str(file), f"cannot be read: {error}", "save the model again") from None


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ElectraError: E-M203 there is none, E-M204 it cannot be read.
    """
    if not file.is_file():
        others = [
            name
            for name in ("pytorch_model.bin", "model.safetensors.index.json", "tf_model.h5", "onnx/model.onnx")
            if (file.parent / name).is_file()
        ]
        there = f"there is only {others[0]}" if others else "there is none"
        raise ElectraError("E-M203", str(file), f"weights are read from one safetensors file, and {there}",
                           "save the model with transformers' save_pretrained, in one file")  # fmt: skip
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise ElectraError("E-M204", str(file), f"cannot be read: {error}", "copy or save the model again") from None
