"""From the configs of a recipe and, perhaps, a model directory to an objective with its networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from electra.build.parts import InitConfig
from electra.config import to_tree
from electra.dist import fold_seed
from electra.errors import ElectraError
from electra.models.encoder import Encoder, GeneratorConfig, build_encoder
from electra.models.model_dir import ModelDir, Provenance, network_fingerprint
from electra.models.modern import ModernConfig
from electra.objectives.adversarial import Adversarial, AdversarialConfig
from electra.objectives.all_tokens_mlm import AllTokensMlm, AllTokensMlmConfig
from electra.objectives.causal import Causal, CausalConfig
from electra.objectives.distil import Distil, DistilConfig, ModelTeacher
from electra.objectives.electric import Electric, ElectricConfig
from electra.objectives.fixed_generator import FixedGenerator, FixedGeneratorConfig
from electra.objectives.frozen_generator import FrozenGenerator, FrozenGeneratorConfig
from electra.objectives.mlm import Mlm, MlmConfig
from electra.objectives.networks import AnyEncoderConfig, Frequencies, Networks, Warn, speaking, unheard
from electra.objectives.real_or_fake import RealOrFake, RealOrFakeConfig
from electra.objectives.replace_mlm import ReplaceMlm, ReplaceMlmConfig
from electra.objectives.rtd import Rtd, RtdConfig
from electra.text.corpus import Corpus
from electra.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class PretrainInitConfig(InitConfig):
    """First weights of a pre-training run.

    Args:
        generator: what the generator starts from when the model directory, or the phase before, has none: its `lowest-layers`,
            `fresh` weights, or another model directory.
    """

    generator: str = "lowest-layers"


ObjectiveConfig = Annotated[
    MlmConfig
    | RtdConfig
    | ReplaceMlmConfig
    | AllTokensMlmConfig
    | FixedGeneratorConfig
    | FrozenGeneratorConfig
    | AdversarialConfig
    | RealOrFakeConfig
    | DistilConfig
    | ElectricConfig
    | CausalConfig,
    Field(discriminator="type"),
]
PretrainObjective = (
    Mlm
    | Rtd
    | ReplaceMlm
    | AllTokensMlm
    | FixedGenerator
    | FrozenGenerator
    | Adversarial
    | RealOrFake
    | Distil
    | Electric
    | Causal
)


#: the objectives whose networks may be sharded: they run them by their forward passes alone, and nothing else reads or moves
#: their weights (an averaged teacher, the key of a cache)
SHARDABLE = (MlmConfig, RtdConfig, ReplaceMlmConfig, AllTokensMlmConfig, AdversarialConfig, ElectricConfig, CausalConfig)


def resolve_encoder(config: AnyEncoderConfig, tokenizer: Tokenizer, length: int) -> AnyEncoderConfig:
    """`config` with vocabulary and special tokens of `tokenizer`.

    Raises:
        ElectraError: E-C450 the recipe names another vocabulary size, E-C451 rows are longer than the position table.
    """
    if config.vocab_size not in (0, tokenizer.vocab_size):
        raise ElectraError("E-C450", "encoder.vocab_size", f"{config.vocab_size}, but the corpus was built with a tokenizer of "
                           f"{tokenizer.vocab_size} entries", "leave encoder.vocab_size out")  # fmt: skip
    if length > config.max_position_embeddings:
        raise ElectraError("E-C451", "rows.length", f"{length} is more than encoder.max_position_embeddings "
                           f"{config.max_position_embeddings}", "shorten the rows or raise the positions")  # fmt: skip
    resolved = dataclasses.replace(config, vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_id)
    if isinstance(resolved, ModernConfig):
        resolved = dataclasses.replace(resolved, cls_token_id=tokenizer.cls_id, sep_token_id=tokenizer.sep_id)
    return resolved


def initial_source(init: InitConfig, config: AnyEncoderConfig, tokenizer: Tokenizer) -> ModelDir | None:
    """The model directory that `init` starts from; None = fresh weights.

    Raises:
        ElectraError: E-M450 another architecture, E-M451 another tokenizer.
    """
    if init.from_ is None or init.weights == "fresh":
        return None
    source = speaking(init.from_, tokenizer)
    theirs, ours = to_tree(source.encoder.config), to_tree(config)
    if theirs["type"] != ours["type"]:
        raise ElectraError("E-M450", str(init.from_), f"its encoder is {theirs['type']}, the recipe's {ours['type']}",
                           f"take a recipe with a {theirs['type']} encoder")  # fmt: skip
    different = [name for name in ours if "dropout" not in name and theirs[name] != ours[name]]
    if different:
        cause = ", ".join(f"{name} is {theirs[name]}, here {ours[name]}" for name in different)
        raise ElectraError("E-M450", str(init.from_), f"its encoder differs from the recipe's: {cause}",
                           "add " + " ".join(f"encoder.{name}={theirs[name]}" for name in different))  # fmt: skip
    return source


def read_fingerprints(objectives: Mapping[str, ObjectiveConfig]) -> dict[str, str]:
    """Of what objectives read besides the text of the run, and no checkpoint has; by "teacher of PHASE", "fakes of PHASE"."""
    found = dict[str, str]()
    for name, config in objectives.items():
        if isinstance(config, DistilConfig) and isinstance(config.teacher, ModelTeacher):
            found[f"teacher of {name}"] = network_fingerprint(config.teacher.path)
        if isinstance(config, RealOrFakeConfig) and config.fakes is not None:
            found[f"fakes of {name}"] = Corpus(config.fakes).fingerprint
    return found


def build_objective(
    config: ObjectiveConfig,
    encoder: AnyEncoderConfig,
    generator: GeneratorConfig,
    init: PretrainInitConfig,
    source: ModelDir | None,
    tokenizer: Tokenizer,
    seed: int,
    card: Callable[[], str],
    warn: Warn = unheard,
    text: str = "",
    frequencies: Frequencies | None = None,
    lasting: bool = False,
) -> PretrainObjective:
    """The objective of one phase, its networks initialised.

    Args:
        source: a model directory to take weights from; None = fresh ones, drawn from `seed`.
        card: writes README.md of the exported model directory.
        warn, text, frequencies, lasting: as in `Networks`.
    """
    torch.manual_seed(fold_seed(seed, "weights", config.type))
    return config.build(
        Networks(
            encoder=encoder, generator=generator, source=source, init_generator=init.generator,
            provenance=Provenance(tokenizer=tokenizer, card=card), warn=warn, text=text, frequencies=frequencies,
            lasting=lasting,
        )
    )  # fmt: skip


def require_first_model(name: str, first: ObjectiveConfig, init: InitConfig) -> None:
    """Raises E-C510 where the objective of the first phase, called `name`, needs a model to start from, and there is none."""
    if isinstance(first, FrozenGeneratorConfig) and first.generator is None and (not init.from_ or init.weights == "fresh"):
        cause = "the generator is to be the model that the phase starts from, and the run starts from none"
        raise ElectraError("E-C510", f"phases.{name}.objective.generator", cause, "name its directory, give init.from, or "
                           "begin with a phase of masked language modelling")  # fmt: skip


def kept_samples(objective: ObjectiveConfig, rows: int, length: int, vocabulary: int) -> dict[str, int]:
    """Bytes of the samples that a phase keeps for other runs, by directory; it sees `rows` of `length` tokens."""
    if not isinstance(objective, FrozenGeneratorConfig) or objective.cache is None:
        return {}
    return {f"{objective.cache.absolute()}/": objective.cache_bytes(rows, length, vocabulary)}


def initial_weights(source: ModelDir, init: InitConfig) -> Encoder:
    """The encoder that fine-tuning starts from: the model's own, or, for `weights="fresh"`, one of its shape."""
    return build_encoder(source.encoder.config) if init.weights == "fresh" else source.encoder
