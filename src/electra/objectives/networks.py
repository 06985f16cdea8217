"""The networks that objectives are made of, with their first weights.

Where weights come from, in one place: fresh ones are drawn from the run's seed; a model directory gives its encoder, its heads
and its generator; where it has no generator, the generator starts from the directory's lowest layers, or as told by
`init.generator`. An objective's config has `build(networks)`, which asks for the networks it needs and ties them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.encoder import Encoder, EncoderConfig, GeneratorConfig, build_encoder, generator_config
from electra.models.grow import grown
from electra.models.heads import CausalHead, EnergyHead, MlmHead, RtdHead
from electra.models.model_dir import ModelDir, Provenance, load_model_dir
from electra.models.two_tower import TwoTower
from electra.models.tying import DeltaEmbeddings, TyingMode, tie
from electra.objectives.detection import Discriminator
from electra.objectives.masked import CausalLanguageModel, MaskedLanguageModel
from electra.text.extend_tokenizer import pieces_of_new_tokens
from electra.text.tokenizer import Tokenizer

AnyEncoderConfig = EncoderConfig
#: takes the code and the message of a warning
Warn = Callable[[str, str], None]
Frequencies = Callable[[], npt.NDArray[np.float64]]


def unheard(code: str, message: str) -> None:
    """The warning goes nowhere."""


@dataclass(frozen=True, kw_only=True)
class Networks:
    """Builds the networks of one objective. What is drawn at random is drawn in the order in which it is asked for.

    Args:
        encoder: sizes of the main encoder, resolved.
        generator: the generator as a part of it.
        source: a model directory to take weights from; None = fresh ones.
        init_generator: what the generator starts from where `source` has none; see `PretrainInitConfig`.
        provenance: tokenizer and card, for the model directory that the objective exports.
        warn: told (code, message) where a network has to start without the weights that `source` was to bring.
        text: fingerprint of what is read: corpora, and how documents become rows.
        frequencies: gives the share of each token in the text, float64 [vocabulary].
        lasting: what is built is a run's; else it is thrown away, and writes nothing.
    """

    encoder: AnyEncoderConfig
    generator: GeneratorConfig
    source: ModelDir | None
    init_generator: str
    provenance: Provenance
    warn: Warn = unheard
    text: str = ""
    frequencies: Frequencies | None = None
    lasting: bool = False

    @property
    def tokenizer(self) -> Tokenizer:
        return self.provenance.tokenizer

    def main_encoder(self) -> Encoder:
        """The encoder that is trained."""
        encoder = build_encoder(self.encoder)
        if self.source is not None:
            encoder.load_state_dict(self.source.encoder.state_dict())
        return encoder

    def main_language_model(self) -> MaskedLanguageModel:
        """The main encoder with a masked language modelling head."""
        encoder, head = self.main_encoder(), MlmHead(self.encoder)
        if self.source is not None and self.source.mlm_head is not None:
            head.load_state_dict(self.source.mlm_head.state_dict())
        return MaskedLanguageModel(encoder, head)

    def causal_language_model(self) -> CausalLanguageModel:
        """The main encoder with a head that says what comes next; where the source has none, a masked one is its start."""
        encoder, head = self.main_encoder(), CausalHead(self.encoder)
        given = None if self.source is None else self.source.causal_head or self.source.mlm_head
        if given is not None:
            head.load_state_dict(given.state_dict())
        return CausalLanguageModel(encoder, head)

    def discriminator(self, prior: float) -> Discriminator:
        """The main encoder with a head that has one logit a token.

        Args:
            prior: share of tokens replaced at first: a fresh score starts there; the classic family's at .5, as the paper's.
        """
        encoder = self.main_encoder()
        bias = 0.0 if isinstance(self.encoder, ClassicConfig) else math.log(prior / (1 - prior))
        head = RtdHead(self.encoder, bias)
        self._fill_head(head, None if self.source is None else self.source.rtd_head, "discriminator head")
        return Discriminator(encoder, head)

    def energy_model(self) -> Discriminator:
        """The main encoder with a head that has one energy a token."""
        encoder, head = self.main_encoder(), EnergyHead(self.encoder)
        self._fill_head(head, None if self.source is None else self.source.energy_head, "energy head")
        return Discriminator(encoder, head)

    def _fill_head(self, head: RtdHead, given: RtdHead | None, what: str) -> None:
        """The weights of the source's head, if there is one; a source that should have one and has not is told."""
        if given is not None:
            head.load_state_dict(given.state_dict())
        elif self.source is not None:
            self.warn("E-M454", f"{self.source.path} has no {what}: a fresh one is trained")

    def noise_model(self) -> TwoTower:
        """Two towers of the generator's size, not yet tied to anything.

        Raises:
            ElectraError: as `generator_model`.
        """
        config = generator_config(self.encoder, self.generator)
        towers = TwoTower(build_encoder(config), build_encoder(config), MlmHead(config, states=2))
        if self.source is None:
            return towers
        if self.source.noise is not None:
            _copy(towers, self.source.noise, "the noise model beside init.from", self._fitting(self.source.noise.ltr))
            return towers
        self.warn("E-M455", f"{self.source.path} has no noise model: it starts from init.generator = {self.init_generator}")
        if self.init_generator == "lowest-layers":
            for tower in (towers.ltr, towers.rtl):
                _copy(tower, self.source.encoder, 'init.generator="lowest-layers"', self._fitting(self.source.encoder))
        elif self.init_generator != "fresh":
            other = self.other(Path(self.init_generator)).noise
            if other is None:
                raise ElectraError("E-M452", self.init_generator, "it has no noise model of two towers",
                                   "name the directory of an electric model")  # fmt: skip
            _copy(towers, other, self.init_generator, self._fitting(other.ltr))
        return towers

    def generator_model(self) -> MaskedLanguageModel:
        """The generator, not yet tied to anything.

        Raises:
            ElectraError: E-M451 what `init.generator` names has another tokenizer, E-M452 its sizes do not fit.
        """
        config = generator_config(self.encoder, self.generator)
        generator = MaskedLanguageModel(build_encoder(config), MlmHead(config))
        if self.source is not None:
            if self.source.generator is None:
                self.warn("E-M455", f"{self.source.path} has no generator: it starts from init.generator = "
                          f"{self.init_generator}")  # fmt: skip
            self._fill_generator(generator, self.source)
        return generator

    def tie(self, generator: Encoder, discriminator: Encoder, mode: TyingMode, layers: int = 0) -> None:
        """As `tying.tie`; a fresh discriminator with `gdes` starts at the generator's tables."""
        tie(generator, discriminator, mode, layers)
        if self.source is None and isinstance(discriminator.embeddings, DeltaEmbeddings):
            discriminator.embeddings.start_at_source()

    def other(self, path: Path) -> ModelDir:
        """Another model directory that speaks the same tokens.

        Raises:
            ElectraError: E-M451 its tokenizer is another one.
        """
        return speaking(path, self.tokenizer)

    def trained(self, path: Path) -> MaskedLanguageModel:
        """The masked language model of another model directory, as it is, for the rows of this run.

        Raises:
            ElectraError: E-M451 it has another tokenizer, E-M510 there is none, E-M511 it is made for shorter texts, or for
                fewer types.
        """
        with torch.device("cpu"):  # it is read, also where what is trained is only measured
            found = self.other(path).masked_model
        if found is None:
            raise no_language_model(path)
        config = found.encoder.config
        if isinstance(config, ClassicConfig):
            least = {"max_position_embeddings": self.encoder.max_position_embeddings}
            if isinstance(self.encoder, ClassicConfig):
                least["type_vocab_size"] = self.encoder.type_vocab_size
            for name, wanted in least.items():
                if (given := getattr(config, name)) < wanted:
                    raise ElectraError("E-M511", str(path), f"{name} is {given} there, the encoder's is {wanted}",
                                       f"set encoder.{name}={given}, or name another model")  # fmt: skip
        return MaskedLanguageModel(found.encoder, found.mlm_head)

    def _fill_generator(self, generator: MaskedLanguageModel, source: ModelDir) -> None:
        """First weights of the generator beside a loaded discriminator."""
        if source.generator is not None:
            mend = self._fitting(source.generator.encoder)
            _copy(generator.encoder, source.generator.encoder, "the generator beside init.from", mend)
            _copy(generator.head, source.generator.mlm_head, "the generator's head beside init.from", mend)
        elif self.init_generator == "lowest-layers":
            mend = self._fitting(source.encoder)
            _copy(generator.encoder, source.encoder, 'init.generator="lowest-layers"', mend)
            if source.mlm_head is not None:
                _copy(generator.head, source.mlm_head, 'init.generator="lowest-layers"', mend)
        elif self.init_generator != "fresh":
            other = self.other(Path(self.init_generator))
            mend = self._fitting(other.encoder)
            _copy(generator.encoder, other.encoder, self.init_generator, mend)
            if other.mlm_head is None:
                raise ElectraError("E-M452", self.init_generator, "it has no masked language modelling head",
                                   "name a generator's directory")  # fmt: skip
            _copy(generator.head, other.mlm_head, self.init_generator, mend)

    def _fitting(self, given: Encoder) -> str:
        """How the generator gets the sizes of `given`; deeper models fit, since their lowest layers are taken."""
        own, theirs, settings = generator_config(self.encoder, self.generator), given.config, list[str]()
        if theirs.hidden_size != own.hidden_size:
            settings.append(f"generator.width={theirs.hidden_size / self.encoder.hidden_size:g}")
        if theirs.num_hidden_layers < own.num_hidden_layers:
            settings.append(f"generator.layers={theirs.num_hidden_layers}")
        if theirs.type != "modern" and theirs.embedding_size != own.embedding_size:
            settings.append(f"encoder.embedding_size={theirs.embedding_size}")
        others = [] if self.source is not None and self.source.generator is not None else ['init.generator="fresh"']
        mends = [" ".join(settings)] * bool(settings) + others
        return f"set {', or '.join(mends)}" if mends else "name another model"


def no_language_model(path: Path) -> ElectraError:
    return ElectraError("E-M510", str(path), "it has no masked language modelling head, so it cannot say what stood anywhere",
                        "name a model that was trained with mlm or rtd")  # fmt: skip


def speaking(path: Path, tokenizer: Tokenizer) -> ModelDir:
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


def _copy(target: nn.Module, source: nn.Module | None, where: str, mend: str) -> None:
    """Fill `target` from the entries of the same name; a source with more layers gives its lowest ones. `mend`: of a misfit."""
    given = source.state_dict() if source is not None else {}
    own = target.state_dict()
    for name, tensor in own.items():
        if name not in given or given[name].shape != tensor.shape:
            raise ElectraError("E-M452", where, f"{name} is {list(tensor.shape)} in the generator and "
                               f"{list(given[name].shape) if name in given else 'missing'} there", mend)  # fmt: skip
    target.load_state_dict({name: given[name] for name in own})
