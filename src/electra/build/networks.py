"""From the configs of a recipe and, perhaps, a model directory to an objective with its networks.

Where weights come from, in one place: fresh ones are drawn from the run's seed; a model directory gives its encoder, its heads
and its generator; where it has no generator, the generator starts from the directory's lowest layers, or as told by
`init.generator`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from electra.build.parts import InitConfig
from electra.config import to_tree
from electra.dist import fold_seed
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.encoder import Encoder, GeneratorConfig, build_encoder, generator_config
from electra.models.grow import grown
from electra.models.heads import MlmHead, RtdHead
from electra.models.model_dir import ModelDir, Provenance, load_model_dir
from electra.models.modern import ModernConfig
from electra.models.tying import DeltaEmbeddings, tie
from electra.objectives.masked import MaskedLanguageModel
from electra.objectives.mlm import Mlm, MlmConfig
from electra.objectives.rtd import Discriminator, Rtd, RtdConfig
from electra.text.extend_tokenizer import pieces_of_new_tokens
from electra.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class PretrainInitConfig(InitConfig):
    """First weights of a pre-training run.

    Args:
        generator: what the generator starts from when the model directory, or the phase before, has none: its `lowest-layers`,
            `fresh` weights, or another model directory.
    """

    generator: str = "lowest-layers"


ObjectiveConfig = Annotated[MlmConfig | RtdConfig, Field(discriminator="type")]
AnyEncoderConfig = ClassicConfig | ModernConfig


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
    source = _speaking(init.from_, tokenizer)
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


def _speaking(path: Path, tokenizer: Tokenizer) -> ModelDir:
    """The model directory at `path`, grown where `tokenizer` is its own with more tokens.

    Raises:
        ElectraError: E-M451 its tokenizer is another one.
    """
    source = load_model_dir(path)
    own = source.tokenizer()
    if own.fingerprint == tokenizer.fingerprint:
        return source
    pieces = pieces_of_new_tokens(own, tokenizer)
    if pieces is None:
        raise ElectraError("E-M451", str(path), "the corpus was built with another tokenizer than this model's, which is "
                           "no extension of it either", f"build the corpus with --tokenizer {path}")  # fmt: skip
    return grown(source, own.vocab_size, pieces)


def build_objective(
    config: MlmConfig | RtdConfig,
    encoder: AnyEncoderConfig,
    generator: GeneratorConfig,
    init: PretrainInitConfig,
    source: ModelDir | None,
    tokenizer: Tokenizer,
    seed: int,
    card: Callable[[], str],
) -> Mlm | Rtd:
    """The objective of one phase, its networks initialised.

    Args:
        source: a model directory to take weights from; None = fresh ones, drawn from `seed`.
        card: writes README.md of the exported model directory.
    """
    torch.manual_seed(fold_seed(seed, "weights", config.type))
    provenance = Provenance(tokenizer=tokenizer, card=card)
    main = build_encoder(encoder)
    if source is not None:
        main.load_state_dict(source.encoder.state_dict())
    if isinstance(config, MlmConfig):
        head = MlmHead(encoder)
        if source is not None and source.mlm_head is not None:
            head.load_state_dict(source.mlm_head.state_dict())
        return Mlm(MaskedLanguageModel(main, head), tokenizer.mask_id, provenance)
    rate = config.masking.rate
    # nearly every drawn token is replaced at the start, so the score starts at the prior of "drawn" (modern); the paper's at 0
    rtd_head = RtdHead(encoder, math.log(rate / (1 - rate)) if isinstance(encoder, ModernConfig) else 0.0)
    if source is not None and source.rtd_head is not None:
        rtd_head.load_state_dict(source.rtd_head.state_dict())
    small = MaskedLanguageModel(
        build_encoder(generator_config(encoder, generator)), MlmHead(generator_config(encoder, generator))
    )
    if source is not None:
        _fill_generator(small, source, init, tokenizer)
    tie(small.encoder, main, config.tying, config.shared_layers)
    if source is None and isinstance(main.embeddings, DeltaEmbeddings):
        main.embeddings.start_at_source()
    return Rtd(small, Discriminator(main, rtd_head), config, tokenizer.mask_id, provenance)


def _fill_generator(generator: MaskedLanguageModel, source: ModelDir, init: PretrainInitConfig, tokenizer: Tokenizer) -> None:
    """First weights of the generator beside a loaded discriminator.

    Raises:
        ElectraError: E-M451 what `init.generator` names has another tokenizer, E-M452 its sizes do not fit.
    """
    if source.generator is not None:
        _copy(generator.encoder, source.generator.encoder, "the generator beside init.from")
        _copy(generator.head, source.generator.mlm_head, "the generator's head beside init.from")
    elif init.generator == "lowest-layers":
        _copy(generator.encoder, source.encoder, 'init.generator="lowest-layers"')
        if source.mlm_head is not None:
            _copy(generator.head, source.mlm_head, 'init.generator="lowest-layers"')
    elif init.generator != "fresh":
        other = _speaking(Path(init.generator), tokenizer)
        _copy(generator.encoder, other.encoder, init.generator)
        if other.mlm_head is None:
            raise ElectraError(
                "E-M452", init.generator, "it has no masked language modelling head", "name a generator's directory"
            )
        _copy(generator.head, other.mlm_head, init.generator)


def _copy(target: nn.Module, source: nn.Module | None, where: str) -> None:
    """Fill `target` from the entries of the same name; a source with more layers gives its lowest ones."""
    given = source.state_dict() if source is not None else {}
    own = target.state_dict()
    for name, tensor in own.items():
        if name not in given or given[name].shape != tensor.shape:
            raise ElectraError("E-M452", where, f"{name} is {list(tensor.shape)} in the generator and "
                               f"{list(given[name].shape) if name in given else 'missing'} there",
                               'give the generator these sizes, or set init.generator="fresh"')  # fmt: skip
    target.load_state_dict({name: given[name] for name in own})


def initial_weights(source: ModelDir, init: InitConfig) -> Encoder:
    """The encoder that fine-tuning starts from: the model's own, or, for `weights="fresh"`, one of its shape."""
    return build_encoder(source.encoder.config) if init.weights == "fresh" else source.encoder
