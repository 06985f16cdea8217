"""The tables of a fine-tuning recipe that are its own: the batch, the optimiser, the objective, what is tried first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from electra.config import STRICT
from electra.errors import ElectraError
from electra.objectives.latent_adversarial import LatentAdversarialConfig
from electra.objectives.supervised import DecayRule, SupervisedConfig
from electra.train.optim import AdamWConfig

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
