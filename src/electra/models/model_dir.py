"""A model directory: what goes from stage to stage and to the world.

    config.json model.safetensors   main network under transformers' names: AutoModel and friends load it
    discriminator/                  modern, with an RTD head: ModernBertForTokenClassification; the main weights are then the
                                    bare encoder, whose head would collide with those of later tasks
    generator/                      the generator with its head, so that anyone can go on with the pre-training
    noise/                          the two towers of a noise model with their head, for the same
    tokenizer.json ...              the tokenizer
    task.json                       what a fine-tuned model does
    head.safetensors                the head of a task for which transformers has no class; the main weights are then the
                                    bare encoder
    README.md                       the card
    manifest.json                   size and hash of every file, written last

`save_model_dir` writes one as a whole or not at all. `load_model_dir` also reads directories that transformers wrote. Tensors
are read from safetensors only, JSON up to a fixed size, and networks are filled from tensors whose names and shapes have been
compared: nothing in a directory can name code or make us allocate more than its files hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from electra import storage
from electra.errors import ElectraError
from electra.models import hf_config, sentence_transformers
from electra.models.classic import ClassicConfig
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
from electra.models.interchange import (
    MODERN_CAUSAL,
    MODERN_DISCRIMINATOR,
    from_transformers,
    head_of,
    require_names,
    to_transformers,
)
from electra.models.two_tower import TwoTower
from electra.models.tying import plain_state
from electra.text.tokenizer import Tokenizer
from electra.text.tokenizer import load as load_tokenizer

FORMAT, FORMAT_VERSION = "electra model directory", 1
_OWN_HEAD, _TOWERS = "head.safetensors", ("ltr", "rtl")
_OWN_HEAD_CARD = f"""
## In transformers

No class of transformers has this head. `electra` runs it from `{_OWN_HEAD}`; `AutoModel` loads the encoder without it.
"""
_OWN_FORMAT_CARD = """
## In transformers

No class of transformers has this encoder, a convolution with LSTMs: `AutoModel` refuses the directory. `electra` runs it.
"""

TaskHead = ClassificationHead | TwoLayerHead | TokenHead | SpanHead
Head = MlmHead | RtdHead | TaskHead
#: heads on the main encoder that a class of transformers has: prefix of our names, and ending of theirs
_HEADS: Mapping[type[nn.Module], tuple[str, str]] = {
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


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a model directory holds besides networks.

    Args:
        tokenizer: of the texts it was trained on.
        card: writes README.md; called when the directory is saved.
        trained_on: hash of the labelled file it was trained on; "" = none.
    """

    tokenizer: Tokenizer
    card: Callable[[], str]
    trained_on: str = ""


@dataclass(frozen=True, kw_only=True)
class Generator:
    """The generator beside a discriminator."""

    encoder: Encoder
    mlm_head: MlmHead


@dataclass(frozen=True, kw_only=True)
class ModelDir:
    """A loaded model directory; its networks are on the CPU, in fp32, in evaluation mode.

    Args:
        path: where it is.
        encoder: the main encoder, `encoder.config` its sizes.
        mlm_head, rtd_head, energy_head, causal_head: the heads of pre-training on the main encoder; it has one at most.
        task_head: the head of a task that it has, if a class of transformers has such a one.
        own_head: the weights of any other task's head, for the task to make a head of.
        generator: the generator beside it.
        noise: the noise model beside an energy head.
        labels: names of the task head's outputs.
        problem: what these are, in transformers' words (`hf_config.PROBLEMS`), if config.json says so.
        task: task.json.
        dropped: weights of a foreign model that have no place here, by name: say so to the user.
    """

    path: Path
    encoder: Encoder
    mlm_head: MlmHead | None = None
    rtd_head: RtdHead | None = None
    causal_head: CausalHead | None = None
    energy_head: EnergyHead | None = None
    task_head: TaskHead | None = None
    own_head: Mapping[str, Tensor] | None = None
    labels: tuple[str, ...] = ()
    problem: str | None = None
    generator: Generator | None = None
    noise: TwoTower | None = None
    task: Mapping[str, Any] | None = None
    dropped: tuple[str, ...] = ()

    @property
    def masked_model(self) -> Generator | None:
        """The masked language model: the generator, else the main network with that head; None = there is none.

        Where there are both, only the generator has learnt to read [MASK].
        """
        if self.generator is not None or self.mlm_head is None:
            return self.generator
        return Generator(encoder=self.encoder, mlm_head=self.mlm_head)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the directory; of a `generator` without one, that of the directory around it.

        Raises ElectraError where there is none or it is broken.
        """
        own = self.path.name != "generator" or any((self.path / name).is_file() for name in ("tokenizer.json", "vocab.txt"))
        return load_tokenizer(self.path if own else self.path.parent)


# -- saving -------------------------------------------------------------------------------------------------------------


def save_model_dir(
    directory: Path,
    *,
    encoder: Encoder,
    provenance: Provenance,
    head: nn.Module | Mapping[str, Tensor] | None = None,
    labels: Sequence[str] = (),
    generator: tuple[Encoder, MlmHead] | None = None,
    noise: TwoTower | None = None,
    task: Mapping[str, Any] | None = None,
    problem: str | None = None,
) -> None:
    """Write a model directory as a whole, in place of what stands there.

    Args:
        directory: where.
        encoder: the main encoder; differences to a generator's tables are merged.
        provenance: tokenizer and card.
        head: on the main encoder; one that no class of transformers has, or its weights, goes into a file of its own.
        labels: names of the head's outputs, if they have any.
        generator: encoder and head of the generator.
        noise: the noise model of an energy head.
        task: task.json.
        problem: what the head's outputs are, in transformers' words; None = what `task` says.

    Raises:
        ElectraError: E-R001 the disk is full.
    """
    manifest: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION}
    if provenance.trained_on:
        manifest["trained_on"] = provenance.trained_on
    with storage.sealed_directory(directory, manifest) as temporary:
        problem = problem or hf_config.PROBLEMS.get(str((task or {}).get("type")))
        own_format = encoder.config.type == "recurrent"
        own_head = _write_main(temporary, encoder, head, labels, problem)
        if generator is not None:
            _write_network(temporary / "generator", f"{_prefix(generator[0])}ForMaskedLM", *generator)
        if noise is not None:
            _write_noise(temporary / "noise", noise)
        provenance.tokenizer.save(temporary)
        if task is not None:
            storage.write_json(temporary / "task.json", dict(task))
            if not own_format:
                sentence_transformers.write(temporary, task, encoder.config.hidden_size)
        card = provenance.card() + (_OWN_FORMAT_CARD if own_format else _OWN_HEAD_CARD if own_head else "")
        (temporary / "README.md").write_text(card, encoding="utf-8")


def _write_main(
    directory: Path, encoder: Encoder, head: nn.Module | Mapping[str, Tensor] | None, labels: Sequence[str], problem: str | None
) -> bool:
    """The main network and its head, each where it belongs; whether the head has a file of its own."""
    prefix = _prefix(encoder)
    if isinstance(head, EnergyHead):
        labels = hf_config.ENERGY_LABELS
    if isinstance(head, RtdHead) and prefix == "ModernBert":
        _write_network(directory, "ModernBertModel", encoder)
        _write_network(directory / "discriminator", MODERN_DISCRIMINATOR, encoder, head, labels)
        return False
    if head is None or type(head) in _HEADS:
        assert head is None or isinstance(head, nn.Module)
        ending = "Model" if head is None else _HEADS[type(head)][1]
        architecture = MODERN_CAUSAL if isinstance(head, CausalHead) and prefix == "ModernBert" else prefix + ending
        _write_network(directory, architecture, encoder, head, labels, problem)
        return False
    _write_network(directory, f"{prefix}Model", encoder)
    own = head.state_dict() if isinstance(head, nn.Module) else head
    if own:
        save_file(_plain(own), directory / _OWN_HEAD, {"format": "pt"})
    return bool(own)


def _write_noise(directory: Path, noise: TwoTower) -> None:
    for name in _TOWERS:
        tower = noise.get_submodule(name)
        assert isinstance(tower, Encoder)
        (directory / name).mkdir(parents=True)
        _write_network(directory / name, f"{_prefix(tower)}Model", tower)
    save_file(_plain(noise.head.state_dict()), directory / _OWN_HEAD, {"format": "pt"})


def _prefix(encoder: Encoder) -> str:
    """What the names of its family's classes in `interchange.ARCHITECTURES` begin with."""
    return {"classic": "Electra", "modern": "ModernBert", "recurrent": "Recurrent"}[encoder.config.type]


def _write_network(
    directory: Path,
    architecture: str,
    encoder: Encoder,
    head: nn.Module | None = None,
    labels: Sequence[str] = (),
    problem: str | None = None,
) -> None:
    directory.mkdir(exist_ok=True)
    state = {f"encoder.{name}": tensor.to("cpu", torch.float32) for name, tensor in plain_state(encoder).items()}
    if head is not None:
        state |= {f"{_HEADS[type(head)][0]}.{name}": tensor for name, tensor in _plain(head.state_dict()).items()}
    dropout = 0.0
    pooling: Pooling = "cls"
    if isinstance(head, LabelHead | TwoLayerHead):
        dropout, labels = head.dropout, labels or _labels({}, head.classifier.out_features)
    if isinstance(head, ClassificationHead):
        pooling = head.pooling
    tree = hf_config.to_json(encoder.config, architecture, labels, dropout, pooling)
    storage.write_json(directory / "config.json", tree if problem is None else tree | {"problem_type": problem})
    save_file(to_transformers(state, architecture), directory / "model.safetensors", {"format": "pt"})


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in state.items()}


# -- loading ------------------------------------------------------------------------------------------------------------


def load_model_dir(path: Path) -> ModelDir:
    """A model directory of ours, or one that transformers wrote for a class of `interchange.ARCHITECTURES`.

    Raises:
        ElectraError: E-M200 not a model directory, E-M201 a file is not as it was written, E-M202 a newer format, E-M203 no
            safetensors, E-M204 a broken file, E-M205 shapes that contradict config.json; E-M210 - E-M222 see interchange
            and hf_config.
    """
    if not (path / "config.json").is_file():
        raise ElectraError(
            "E-M200", str(path), "no model directory: there is no config.json", "give a directory that holds a model"
        )
    if (path / storage.MANIFEST).is_file():
        _verify(path)
    main = _read_network(path)
    discriminator = _read_network(path / "discriminator") if (path / "discriminator" / "config.json").is_file() else None
    beside = _read_network(path / "generator") if (path / "generator" / "config.json").is_file() else None
    if beside is not None and not isinstance(beside.head, MlmHead):
        raise ElectraError(
            "E-M204", str(path / "generator"), "the generator has no masked language modelling head", "save it again"
        )
    head = main.head if discriminator is None else discriminator.head
    task = path / "task.json"
    return ModelDir(
        path=path,
        encoder=main.encoder,
        mlm_head=head if isinstance(head, MlmHead) and not isinstance(head, CausalHead) else None,
        causal_head=head if isinstance(head, CausalHead) else None,
        rtd_head=head if isinstance(head, RtdHead) and not isinstance(head, EnergyHead) else None,
        energy_head=head if isinstance(head, EnergyHead) else None,
        task_head=head if isinstance(head, TaskHead) else None,
        own_head=_read_tensors(path / _OWN_HEAD) if (path / _OWN_HEAD).is_file() else None,
        labels=main.labels,
        problem=main.problem,
        generator=Generator(encoder=beside.encoder, mlm_head=beside.head)
        if beside and isinstance(beside.head, MlmHead)
        else None,
        noise=_read_noise(path / "noise") if (path / "noise").is_dir() else None,
        task=_read_json(task) if task.is_file() else None,
        dropped=main.dropped,
    )


def network_fingerprint(path: Path) -> str:
    """Of the main network of a directory and its generator, sizes and weights; what is missing counts as such."""
    files = (place / name for place in (path, path / "generator") for name in ("config.json", "model.safetensors"))
    return " ".join(storage.file_hash(file) if file.is_file() else "missing" for file in files)


def was_trained_on(path: Path, file: Path) -> bool:
    """Whether the model in `path` was trained on this very file, by the hash that its manifest has."""
    trained_on = _manifest(path).get("trained_on")
    return bool(trained_on) and trained_on == storage.file_hash(file)


def _manifest(path: Path) -> dict[str, Any]:
    """Of a directory that was written here; empty for one of transformers."""
    try:
        return storage.read_manifest(path)
    except (OSError, ValueError):
        return {}


def _verify(path: Path) -> None:
    version = _manifest(path).get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise ElectraError(
            "E-M202", str(path), f"format version {version!r} is not known, only {FORMAT_VERSION}", "update electra"
        )
    trouble = storage.problem(path)
    if trouble is not None:
        raise ElectraError("E-M201", str(path), trouble, "copy or export the model again")


@dataclass(frozen=True, kw_only=True)
class _Network:
    encoder: Encoder
    head: Head | None
    labels: tuple[str, ...]
    problem: str | None
    dropped: tuple[str, ...]


def _read_network(directory: Path) -> _Network:
    """config.json and model.safetensors as an encoder and perhaps a head."""
    tree = _read_json(directory / "config.json")
    config, architecture = hf_config.from_json(tree, str(directory / "config.json"))
    file = directory / "model.safetensors"
    imported = from_transformers(_read_tensors(file), architecture, str(file))
    layers = {name.split(".")[2] for name in imported.state if name.startswith("encoder.layers.")}
    if len(layers) != config.num_hidden_layers:
        raise ElectraError("E-M205", str(file), f"{len(layers)} layers, but config.json says {config.num_hidden_layers}",
                           "mend config.json or the weights")  # fmt: skip
    with torch.device("meta"):  # no memory and no initial values until the shapes have been compared
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
    return _Network(
        encoder=encoder.eval(), head=None if head is None else head.eval(), labels=labels,
        problem=problem if problem in hf_config.PROBLEMS.values() else None, dropped=imported.dropped,
    )  # fmt: skip


def _read_noise(directory: Path) -> TwoTower:
    ltr, rtl = (_read_network(directory / name).encoder for name in _TOWERS)
    file = directory / _OWN_HEAD
    head = MlmHead(ltr.config, states=2)
    state, expected = _read_tensors(file), head.state_dict()
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


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return storage.read_small_json(file, dict)
    except (OSError, ValueError) as error:
        raise ElectraError("E-M204", str(file), f"cannot be read: {error}", "save the model again") from None


def _read_tensors(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        others = [
            name
            for name in ("pytorch_model.bin", "model.safetensors.index.json", "tf_model.h5")
            if (file.parent / name).is_file()
        ]
        there = f"there is only {others[0]}" if others else "there is none"
        raise ElectraError("E-M203", str(file), f"weights are read from one safetensors file, and {there}",
                           "save the model with transformers' save_pretrained, in one file")  # fmt: skip
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise ElectraError("E-M204", str(file), f"cannot be read: {error}", "copy or save the model again") from None
