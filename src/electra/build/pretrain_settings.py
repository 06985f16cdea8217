"""The tables of a pre-training recipe: how long, the phases, and the whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from electra.build.corpora import CorpusConfig
from electra.build.networks import SHARDABLE, ObjectiveConfig, PretrainInitConfig, require_first_model
from electra.build.parts import Precision
from electra.config import STRICT, DefaultType
from electra.data.pairs import PairRowsConfig
from electra.data.rows import PackedRowsConfig
from electra.data.step_rows import BatchConfig
from electra.errors import ElectraError
from electra.models.encoder import EncoderConfig, GeneratorConfig
from electra.train.loop import LoopConfig
from electra.train.optim import AdamWConfig, MuonConfig
from electra.train.parallel import ParallelConfig
from electra.train.run import RunConfig


@dataclass(frozen=True, kw_only=True)
class StopConfig:
    """When the run ends: after `steps` or `hours`, whichever is less; a probe turns hours into steps before step 0."""

    __pydantic_config__ = STRICT
    steps: int | None = None
    hours: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.hours is None:
            raise ElectraError("E-C441", "stop", "neither stop.steps nor stop.hours is given", "give one of them")
        if (self.steps is not None and self.steps < 1) or (self.hours is not None and self.hours <= 0):
            raise ElectraError("E-C441", "stop", f"steps {self.steps}, hours {self.hours}", "give a positive number")

    def steps_of(self, share: float, seconds_per_step: float) -> int:
        """Steps of a phase that has `share` of the run; a twentieth of the hours is kept for logs, checkpoints and exports."""
        limits = []
        if self.steps is not None:
            limits.append(self.steps * share)
        if self.hours is not None:
            limits.append(self.hours * 3600 * 0.95 * share / seconds_per_step)
        return max(1, round(min(limits)))


@dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """One part of a run.

    Args:
        objective: what is learnt.
        optimizer: how; its schedule spans this phase.
        average: decay of an average of the weights over the steps, which is exported in their place; None = there is none.
        share: of the run's steps, or of its hours, relative to the other phases; 0 leaves the phase out.
    """

    __pydantic_config__ = STRICT
    objective: ObjectiveConfig
    optimizer: Annotated[AdamWConfig | MuonConfig, Field(discriminator="type"), DefaultType("adamw")]
    average: float | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.average is not None and not 0 < self.average < 1:
            raise ElectraError("E-C552", "phases", f"average {self.average} is no decay", "give 0 < average < 1, such as 0.999")
        if self.share < 0:
            raise ElectraError("E-C442", "phases", f"share {self.share} is negative", "give 0 or more")


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """A pre-training run as a value; see `electra/recipes/*.toml`.

    Args:
        corpus: the text: one corpus, or several with weights.
        run: where the run lives, and its seed.
        encoder: the network that is trained (the discriminator).
        generator: the generator, as a part of it.
        rows: how documents become rows.
        batch: rows of a step.
        phases: by name, in order.
        init: first weights.
        stop: how long.
        precision: `auto`, `fp32` or `bf16`.
        parallel: what holds where torchrun starts several processes.
        loop: logging and saving.
    """

    __pydantic_config__ = STRICT
    corpus: CorpusConfig
    run: RunConfig
    encoder: EncoderConfig
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    rows: Annotated[PackedRowsConfig | PairRowsConfig, Field(discriminator="type")]
    batch: BatchConfig
    phases: dict[str, PhaseConfig]
    init: PretrainInitConfig = field(default_factory=PretrainInitConfig)
    stop: StopConfig
    precision: Precision = "auto"
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        running = [(name, phase.objective) for name, phase in self.phases.items() if phase.share]
        if not running:
            raise ElectraError("E-C442", "phases", "no phase has a share of the run", "give one phase a share above 0")
        require_first_model(*running[0], self.init)
        if self.parallel.strategy == "fsdp2":
            for name, phase in self.phases.items():
                _require_shardable(f"phases.{name}", phase, self.encoder)


def _require_shardable(where: str, phase: PhaseConfig, encoder: EncoderConfig) -> None:
    """Raises E-C803 for what shards cannot do, or has not been tried with them."""
    whole: str | None = None
    if not isinstance(phase.objective, SHARDABLE):
        whole = f"objective.type={phase.objective.type} is trained"
    elif isinstance(phase.optimizer, MuonConfig):
        whole = "Muon updates a matrix"
    elif encoder.type == "recurrent":
        whole = "a recurrent encoder runs"
    if whole is not None:
        raise ElectraError("E-C803", "parallel.strategy", f"fsdp2 gives each process a part of the weights, and {whole} as a "
                           f"whole ({where})", "set parallel.strategy=ddp")  # fmt: skip
