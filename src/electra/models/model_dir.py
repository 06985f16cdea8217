"""A model directory: what goes from stage to stage and to the world.

    config.json model.safetensors   main network under transformers' names: AutoModel and friends load it
    discriminator/                  modern, with an RTD head: ModernBertForTokenClassification; the main weights are then the
                                    bare encoder, whose head would collide with those of later tasks
    generator/                      the generator with its head, so that anyone can go on with the pre-training
    tokenizer.json ...              the tokenizer
    task.json                       what a fine-tuned model does
    README.md                       the card
    manifest.json                   size and hash of every file, written last

`save_model_dir` writes one as a whole or not at all. `load_model_dir` also reads directories that transformers wrote. Tensors
are read from safetensors only, JSON up to a fixed size, and networks are filled from tensors whose names and shapes have been
compared: nothing in a directory can name code or make us allocate more than its files hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from electra import storage
from electra.errors import ElectraError
from electra.models import hf_config
from electra.models.encoder import Encoder, build_encoder
from electra.models.heads import ClassificationHead, MlmHead, Pooling, RtdHead
from electra.models.interchange import ARCHITECTURES, from_transformers, require_names, to_transformers
from electra.models.tying import plain_state
from electra.text.tokenizer import Tokenizer
from electra.text.tokenizer import load as load_tokenizer

FORMAT, FORMAT_VERSION = "electra model directory", 1
_RTD_LABELS = ("original", "replaced")
_LARGEST_JSON = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a model directory holds besides networks.

    Args:
        tokenizer: of the texts it was trained on.
        card: writes README.md; called when the directory is saved.
    """

    tokenizer: Tokenizer
    card: Callable[[], str]


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
        mlm_head, rtd_head, classification_head: the heads that it has on the main encoder.
        generator: the generator beside it.
        labels: names of the classification head's outputs.
        task: task.json.
        dropped: weights of a foreign model that have no place here, by name: say so to the user.
    """

    path: Path
    encoder: Encoder
    mlm_head: MlmHead | None = None
    rtd_head: RtdHead | None = None
    classification_head: ClassificationHead | None = None
    labels: tuple[str, ...] = ()
    generator: Generator | None = None
    task: Mapping[str, Any] | None = None
    dropped: tuple[str, ...] = ()

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
    mlm_head: MlmHead | None = None,
    rtd_head: RtdHead | None = None,
    classification_head: ClassificationHead | None = None,
    labels: Sequence[str] = (),
    generator: tuple[Encoder, MlmHead] | None = None,
    task: Mapping[str, Any] | None = None,
) -> None:
    """Write a model directory as a whole, in place of what stands there.

    Args:
        directory: where.
        encoder: the main encoder; differences to a generator's tables are merged.
        provenance: tokenizer and card.
        mlm_head, rtd_head, classification_head: at most one of them: the head of the main encoder.
        labels: names of the classification head's outputs.
        generator: encoder and head of the generator.
        task: task.json.

    Raises:
        ElectraError: E-R001 the disk is full.
    """
    heads = {"mlm_head": mlm_head, "rtd_head": rtd_head, "classification_head": classification_head}
    given = {name: head for name, head in heads.items() if head is not None}
    assert len(given) <= 1, "one head at most"
    with storage.sealed_directory(directory, {"format": FORMAT, "format_version": FORMAT_VERSION}) as temporary:
        modern = encoder.config.type == "modern"
        if modern and rtd_head is not None:
            _write_network(temporary, "ModernBertModel", encoder, {})
            _write_network(temporary / "discriminator", "ModernBertForTokenClassification", encoder, given, _RTD_LABELS)
        else:
            prefix = "ModernBert" if modern else "Electra"
            suffix = {
                "mlm_head": "ForMaskedLM",
                "rtd_head": "ForPreTraining",
                "classification_head": "ForSequenceClassification",
            }
            architecture = prefix + next((suffix[name] for name in given), "Model")
            _write_network(temporary, architecture, encoder, given, labels)
        if generator is not None:
            prefix = "ModernBert" if generator[0].config.type == "modern" else "Electra"
            _write_network(temporary / "generator", f"{prefix}ForMaskedLM", generator[0], {"mlm_head": generator[1]})
        provenance.tokenizer.save(temporary)
        if task is not None:
            storage.write_json(temporary / "task.json", dict(task))
        (temporary / "README.md").write_text(provenance.card(), encoding="utf-8")


def _write_network(
    directory: Path, architecture: str, encoder: Encoder, heads: Mapping[str, nn.Module], labels: Sequence[str] = ()
) -> None:
    directory.mkdir(exist_ok=True)
    state = {f"encoder.{name}": tensor for name, tensor in plain_state(encoder).items()}
    for prefix, head in heads.items():
        state |= {f"{prefix}.{name}": tensor.detach() for name, tensor in head.state_dict().items()}
    state = {name: tensor.to("cpu", torch.float32) for name, tensor in state.items()}
    dropout = 0.0
    pooling: Pooling = "cls"
    for head in heads.values():
        if isinstance(head, ClassificationHead):
            dropout, pooling = head.dropout, head.pooling
            labels = labels or _labels({}, head.classifier.out_features)
    storage.write_json(directory / "config.json", hf_config.to_json(encoder.config, architecture, labels, dropout, pooling))
    save_file(to_transformers(state, architecture), directory / "model.safetensors", {"format": "pt"})


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
        mlm_head=head if isinstance(head, MlmHead) else None,
        rtd_head=head if isinstance(head, RtdHead) else None,
        classification_head=head if isinstance(head, ClassificationHead) else None,
        labels=main.labels,
        generator=Generator(encoder=beside.encoder, mlm_head=beside.head)
        if beside and isinstance(beside.head, MlmHead)
        else None,
        task=_read_json(task) if task.is_file() else None,
        dropped=main.dropped,
    )


def _verify(path: Path) -> None:
    try:
        manifest = storage.read_manifest(path)
    except (OSError, ValueError):
        manifest = {}
    version = manifest.get("format_version", FORMAT_VERSION)
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
    head: MlmHead | RtdHead | ClassificationHead | None
    labels: tuple[str, ...]
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
        kinds = {ours.split(".")[0] for ours in ARCHITECTURES[architecture].head}
        if "mlm_head" in kinds:
            network["mlm_head"] = MlmHead(config)
        elif "rtd_head" in kinds:
            network["rtd_head"] = RtdHead(config)
        elif "classification_head" in kinds:
            outputs = imported.state.get("classification_head.classifier.bias", torch.empty(1))
            network["classification_head"] = ClassificationHead(
                config, len(outputs), _classifier_dropout(tree), hf_config.pooling(tree, str(directory / "config.json"))
            )
    _fill(network, imported.state, architecture, str(file))
    encoder = network["encoder"]
    head = next((module for name, module in network.items() if name != "encoder"), None)
    assert isinstance(encoder, Encoder)
    assert head is None or isinstance(head, MlmHead | RtdHead | ClassificationHead)
    labels = _labels(tree, head.classifier.out_features) if isinstance(head, ClassificationHead) else ()
    return _Network(encoder=encoder.eval(), head=None if head is None else head.eval(), labels=labels, dropped=imported.dropped)


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
        if file.stat().st_size > _LARGEST_JSON:
            raise ValueError(f"larger than {_LARGEST_JSON} bytes")
        tree = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(tree, dict):
            raise ValueError("not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise ElectraError("E-M204", str(file), f"cannot be read: {error}", "save the model again") from None
    return tree


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


# -- importing ----------------------------------------------------------------------------------------------------------


def import_model(source: str | Path, out: Path, generator: str | Path | None = None) -> ModelDir:
    """Make a model directory of ours from one that transformers wrote: `electra import`.

    Args:
        source: a discriminator, a masked language model, an encoder, or a BERT-like one, with its tokenizer.
        out: where to; must not exist.
        generator: a masked language model to put beside it as its generator, with the same tokenizer.

    Returns:
        The new directory, loaded; `dropped` lists what had no place in it.

    Raises:
        ElectraError: E-C210 a source that is not a directory, E-C211 `out` exists, E-M206 tokenizer and vocabulary do not fit,
            E-M207 `generator` is no masked language model or has another tokenizer; and what `load_model_dir` raises.
    """
    if out.exists():
        raise ElectraError("E-C211", str(out), "it exists already", "give another directory, or remove this one")
    main = load_model_dir(_local(source))
    tokenizer = main.tokenizer()
    if tokenizer.vocab_size > main.encoder.config.vocab_size:
        raise ElectraError("E-M206", str(source), f"the tokenizer has {tokenizer.vocab_size} tokens, the network only "
                           f"{main.encoder.config.vocab_size}", "bring the tokenizer that belongs to the weights")  # fmt: skip
    beside = main.generator
    if generator is not None:
        other = load_model_dir(_local(generator))
        if other.mlm_head is None:
            raise ElectraError(
                "E-M207", str(generator), "it has no masked language modelling head", "name the generator's directory"
            )
        if other.tokenizer().fingerprint != tokenizer.fingerprint:
            raise ElectraError(
                "E-M207", str(generator), "its tokenizer is not that of the discriminator", "name the pair's generator"
            )
        beside = Generator(encoder=other.encoder, mlm_head=other.mlm_head)
    name = Path(source).name
    save_model_dir(
        out,
        encoder=main.encoder,
        provenance=Provenance(
            tokenizer=tokenizer, card=lambda: f"# {out.name}\n\nImported from the model directory `{name}`.\n"
        ),
        mlm_head=main.mlm_head,
        rtd_head=main.rtd_head,
        classification_head=main.classification_head,
        labels=main.labels,
        generator=None if beside is None else (beside.encoder, beside.mlm_head),
        task=main.task,
    )
    return replace(load_model_dir(out), dropped=main.dropped)


def _local(source: str | Path) -> Path:
    if str(source).startswith("hf://"):
        raise ElectraError("E-C210", str(source), "downloads are not supported", "download the model and give its directory")
    if not Path(source).is_dir():
        raise ElectraError("E-C210", str(source), "no such directory", "give the directory of a model in transformers' format")
    return Path(source)
