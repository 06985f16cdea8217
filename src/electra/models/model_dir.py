"""A model directory: what goes from stage to stage and to the world.

    config.json model.safetensors   main network under transformers' names: AutoModel and friends load it
    generation_config.json          of a sequence-to-sequence model: what transformers' `generate` has to know
    discriminator/                  modern, with an RTD head: ModernBertForTokenClassification; the main weights are then the
                                    bare encoder, whose head would collide with those of later tasks
    generator/                      the generator with its head, so that anyone can go on with the pre-training
    noise/                          the two towers of a noise model with their head, for the same
    tokenizer.json ...              the tokenizer
    target_tokenizer/               that of what the model writes, where it is another
    task.json                       what a fine-tuned model does
    head.safetensors                the head of a task for which transformers has no class; the main weights are then the
                                    bare encoder
    README.md                       the card
    manifest.json                   size and hash of every file, written last

`save_model_dir` writes one as a whole or not at all. `load_model_dir` also reads directories that transformers wrote. Nothing
in a directory can name code or make us allocate more than its files hold: `network_files` says how each network is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from electra import storage
from electra.errors import ElectraError
from electra.models import encoder_decoder, hf_config, sentence_transformers
from electra.models.decoder import Decoder
from electra.models.encoder import Encoder
from electra.models.generation import GenerationHead
from electra.models.heads import CausalHead, EnergyHead, MlmHead, RtdHead
from electra.models.interchange import MODERN_CAUSAL, MODERN_DISCRIMINATOR
from electra.models.network_files import (
    HEADS,
    OWN_HEAD,
    TaskHead,
    family_prefix,
    plain,
    read_json,
    read_network,
    read_noise,
    read_tensors,
    write_network,
    write_noise,
)
from electra.models.two_tower import TwoTower
from electra.text.tokenizer import TARGET, Tokenizer
from electra.text.tokenizer import load as load_tokenizer

FORMAT, FORMAT_VERSION = "electra model directory", 1
_OWN_HEAD_CARD = f"""
## In transformers

No class of transformers has this head. `electra` runs it from `{OWN_HEAD}`; `AutoModel` loads the encoder without it.
"""
_OWN_FORMAT_CARD = """
## In transformers

No class of transformers has this encoder, a convolution with LSTMs: `AutoModel` refuses the directory. `electra` runs it.
"""
_TWO_TOKENIZERS_CARD = f"""
## Two tokenizers

Sources are read with the tokenizer of this directory, outputs are written with the one in `{TARGET}`:
`AutoTokenizer.from_pretrained("DIR/{TARGET}")`.
"""


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
        own_head: the weights of any other task's head, a decoder's among them, for the task to make a head of.
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
            write_network(temporary / "generator", f"{family_prefix(generator[0])}ForMaskedLM", *generator)
        if noise is not None:
            write_noise(temporary / "noise", noise)
        provenance.tokenizer.save(temporary)
        if task is not None:
            storage.write_json(temporary / "task.json", dict(task))
            if not own_format:
                sentence_transformers.write(temporary, task, encoder.config.hidden_size)
        card = provenance.card() + (_OWN_FORMAT_CARD if own_format else _OWN_HEAD_CARD if own_head else "")
        card += "" if provenance.tokenizer.target is None else _TWO_TOKENIZERS_CARD
        (temporary / "README.md").write_text(card, encoding="utf-8")


def _write_main(
    directory: Path, encoder: Encoder, head: nn.Module | Mapping[str, Tensor] | None, labels: Sequence[str], problem: str | None
) -> bool:
    """The main network and its head, each where it belongs; whether the head has a file of its own."""
    prefix = family_prefix(encoder)
    if isinstance(head, EnergyHead):
        labels = hf_config.ENERGY_LABELS
    if isinstance(head, GenerationHead) and prefix == "Electra":
        encoder_decoder.write(directory, encoder, head)
        return False
    if isinstance(head, RtdHead) and prefix == "ModernBert":
        write_network(directory, "ModernBertModel", encoder)
        write_network(directory / "discriminator", MODERN_DISCRIMINATOR, encoder, head, labels)
        return False
    if head is None or type(head) in HEADS:
        assert head is None or isinstance(head, nn.Module)
        ending = "Model" if head is None else HEADS[type(head)][1]
        architecture = MODERN_CAUSAL if isinstance(head, CausalHead) and prefix == "ModernBert" else prefix + ending
        write_network(directory, architecture, encoder, head, labels, problem)
        return False
    write_network(directory, f"{prefix}Model", encoder)
    own = head.state_dict() if isinstance(head, nn.Module) else head
    if own:
        save_file(plain(own), directory / OWN_HEAD, {"format": "pt"})
    return bool(own)


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
        verify(path, FORMAT_VERSION)
    main = read_network(path)
    discriminator = read_network(path / "discriminator") if (path / "discriminator" / "config.json").is_file() else None
    beside = read_network(path / "generator") if (path / "generator" / "config.json").is_file() else None
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
        own_head=_own_head(path, head),
        labels=main.labels,
        problem=main.problem,
        generator=Generator(encoder=beside.encoder, mlm_head=beside.head)
        if beside and isinstance(beside.head, MlmHead)
        else None,
        noise=read_noise(path / "noise") if (path / "noise").is_dir() else None,
        task=read_json(task) if task.is_file() else None,
        dropped=main.dropped,
    )


def _own_head(path: Path, head: nn.Module | None) -> dict[str, Tensor] | None:
    if isinstance(head, Decoder):
        return {f"decoder.{name}": tensor for name, tensor in head.state_dict().items()}
    return read_tensors(path / OWN_HEAD) if (path / OWN_HEAD).is_file() else None


def network_fingerprint(path: Path) -> str:
    """Of the main network of a directory and its generator, sizes and weights; what is missing counts as such."""
    files = (place / name for place in (path, path / "generator") for name in ("config.json", "model.safetensors"))
    return " ".join(storage.file_hash(file) if file.is_file() else "missing" for file in files)


def was_trained_on(path: Path, file: Path) -> bool:
    """Whether the model in `path` was trained on this very file, by the hash that its manifest has."""
    trained_on = manifest_of(path).get("trained_on")
    return bool(trained_on) and trained_on == storage.file_hash(file)


def manifest_of(path: Path) -> dict[str, Any]:
    """Of a directory that was written here; empty for one of transformers."""
    try:
        return storage.read_manifest(path)
    except (OSError, ValueError):
        return {}


def verify(path: Path, known: int) -> None:
    """Refuse a sealed directory whose files are not as they were written, or whose format is newer than the `known` one.

    Raises:
        ElectraError: E-M201, E-M202.
    """
    version = manifest_of(path).get("format_version", known)
    if version != known:
        raise ElectraError("E-M202", str(path), f"format version {version!r} is not known, only {known}", "update electra")
    trouble = storage.problem(path)
    if trouble is not None:
        raise ElectraError("E-M201", str(path), trouble, "copy or export the model again")
