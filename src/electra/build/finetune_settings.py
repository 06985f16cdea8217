"""A fine-tuning recipe, and its tables: the batch, the optimiser, the objective, what is tried first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, cast

from pydantic import Field

from electra.build.labelled import DataConfig
from electra.build.parts import InitConfig, Precision
from electra.config import STRICT, load, tables
from electra.errors import ElectraError
from electra.objectives.latent_adversarial import LatentAdversarialConfig
from electra.objectives.supervised import DecayRule, Freeze, SupervisedConfig
from electra.tasks import BUILT_IN, TrainableTaskConfig
from electra.tasks.own import name_of, own_task
from electra.train.loop import LoopConfig
from electra.train.optim import AdamWConfig
from electra.train.parallel import ProcessesConfig
from electra.train.run import RunConfig
from electra.train.selection import EvaluationConfig

FinetuneObjective = Annotated[SupervisedConfig | LatentAdversarialConfig, Field(discriminator="type")]


@dataclass(frozen=True, kw_only=True)
class ExampleBatchConfig:
    """The global batch of a step.

    Args:
        examples: examples over all processes.
        micro_tokens: tokens, padding included, that go through the network at once; of no effect where a loss compares the
            examples of a step with each other (`task=embed`, `objective.type=latent-adversarial`).
    """

    __pydantic_config__ = STRICT
    examples: int = 32
    micro_tokens: int = 8192

    def __post_init__(self) -> None:
        if self.examples < 1 or self.micro_tokens < 1:
            raise ElectraError("E-C440", "batch", "examples and micro_tokens are at least 1", "give a positive number")


@dataclass(frozen=True, kw_only=True)
class FinetuneOptimizerConfig(AdamWConfig):
    """The optimiser, with the paper's values of the small size by default; each network is clipped by its own norm.

    Args:
        layer_decay_rule: how `layer_decay` counts layers: `fixed`, or `reference`, as the published code does.
    """

    lr: float = 3e-4
    weight_decay: float = 0.0
    clip_per_network: bool = True
    warmup_ratio: float = 0.1
    layer_decay: float = 0.8
    layer_decay_rule: DecayRule = "fixed"


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Settings that are tried and chosen by the development set.

    Args:
        lr: peak learning rates, each tried in the place of `optimizer.lr`; none = no search.
    """

    __pydantic_config__ = STRICT
    lr: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if any(lr <= 0 for lr in self.lr) or len(set(self.lr)) < len(self.lr):
            raise ElectraError("E-C456", "search.lr", f"{list(self.lr)} are not different rates above 0", "mend the list")


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """A fine-tuning run as a value.

    Args:
        task: what is learnt.
        data: labelled files, and texts without labels.
        run: where the run lives, and its seed.
        init: the pre-trained model; `init.weights = "fresh"` trains the same network from scratch.
        objective: the task's loss on labelled examples alone, or with unlabelled texts beside them.
        epochs: passes over the training examples.
        batch: labelled examples of a step.
        optimizer: the paper's values of the small size by default.
        freeze: what is not trained: `nothing`, the `embeddings`, these and a number of the lowest layers, or the `encoder`.
        evaluation: when the development set is scored, and when to end early.
        seeds: how many runs, with seeds from `run.seed` on, or a list of seeds; each run has a directory in run.dir.
        search: settings to try first.
        precision: `auto`, `fp32` or `bf16`.
        parallel: what holds where torchrun starts several processes.
        loop: logging and saving.
    """

    __pydantic_config__ = STRICT
    task: TrainableTaskConfig
    data: DataConfig
    run: RunConfig
    init: InitConfig = field(default_factory=InitConfig)
    objective: FinetuneObjective = field(default_factory=SupervisedConfig)
    epochs: float = 3
    batch: ExampleBatchConfig = field(default_factory=ExampleBatchConfig)
    optimizer: FinetuneOptimizerConfig = field(default_factory=FinetuneOptimizerConfig)
    freeze: Freeze = "nothing"
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seeds: int | tuple[int, ...] = 1
    search: SearchConfig = field(default_factory=SearchConfig)
    precision: Precision = "auto"
    parallel: ProcessesConfig = field(default_factory=ProcessesConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if self.epochs <= 0:
            raise ElectraError("E-C443", "epochs", f"is {self.epochs}", "give a positive number")
        if self.init.from_ is None:
            raise ElectraError("E-C444", "init.from", "is required and was not given", "name a model directory")
        self._check_seeds()
        self._check_objective()
        by_dev = {"evaluation": EvaluationConfig(), "seeds": 1, "search": SearchConfig()}
        for name, default in by_dev.items():
            if self.data.dev is None and getattr(self, name) != default:
                raise ElectraError("E-C455", name, "needs examples to score, and data.dev was not given",
                                   f"give data.dev, or leave {name} out")  # fmt: skip

    def _check_seeds(self) -> None:
        seeds = self.seeds
        if seeds < 1 if isinstance(seeds, int) else not seeds or len(set(seeds)) < len(seeds):
            raise ElectraError("E-C453", "seeds", f"{seeds} is neither a number of runs nor a list of different seeds",
                               "give for example 3, or [0, 1, 2]")  # fmt: skip

    def _check_objective(self) -> None:
        name, takes = self.objective.type, isinstance(self.objective, LatentAdversarialConfig)
        if takes and not self.data.unlabelled:
            raise ElectraError("E-C532", "data.unlabelled", f"is required by objective.type={name} and was not given",
                               "name a file of texts")  # fmt: skip
        if self.data.unlabelled and not takes:
            raise ElectraError("E-C532", "data.unlabelled", f"objective.type={name} learns nothing of texts without labels",
                               "set objective.type=latent-adversarial, or leave the texts out")  # fmt: skip

    @property
    def is_single(self) -> bool:
        """One run, in run.dir itself."""
        return self.seeds == 1 and not self.search.lr

    @property
    def all_seeds(self) -> list[int]:
        seeds = self.seeds
        return list(range(self.run.seed, self.run.seed + seeds)) if isinstance(seeds, int) else list(seeds)

    @property
    def run_names(self) -> list[str]:
        """The directories of the runs below run.dir; none for a single one. The first seed runs while rates are tried."""
        if self.is_single:
            return []
        rates = [f"lr-{lr!r}" for lr in self.search.lr]
        return rates + [f"seed-{seed}" for seed in (self.all_seeds[1:] if rates else self.all_seeds)]


def load_recipe(sources: Sequence[str | Path] = (), assignments: Sequence[str] = ()) -> FinetuneRecipe:
    """The recipe that `sources` and `assignments` describe; its task may be that of an installed package.

    Raises:
        ElectraError: as `config.load` and `tasks.own.own_task`.
    """
    name = name_of(tables(sources, assignments).get("task"))
    own = None if name is None else own_task(name, BUILT_IN)
    if own is None:
        return load(FinetuneRecipe, sources, assignments)
    recipe = make_dataclass("FinetuneRecipe", [("task", own)], bases=(FinetuneRecipe,), frozen=True, kw_only=True)
    return load(cast(type[FinetuneRecipe], recipe), sources, assignments)
