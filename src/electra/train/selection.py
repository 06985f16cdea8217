"""Which evaluation was the best, and when there is no use in going on.

In: the evaluations of a run so far, each with its step. Out: the best one, by the first figure of each (the task's main
metric, of which more is better); the earliest of equals. Nothing of this is saved: a run that is resumed reads its
evaluations from its event log, as it reads its last figures, and the weights of the best one are the checkpoint of its step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from electra.config import STRICT
from electra.errors import ElectraError


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """When held-out examples are scored, and when a run ends early.

    Args:
        steps: steps between two evaluations; None = once an epoch. The last step is always followed by one.
        patience: evaluations in a row that may bring nothing better before the run ends; None = it never ends early.
    """

    __pydantic_config__ = STRICT
    steps: int | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("patience", self.patience)):
            if value is not None and value < 1:
                raise ElectraError("E-C452", f"evaluation.{name}", f"is {value}", "give 1 or more, or leave it out")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How good the model is on held-out examples.

    Args:
        step: steps that were done.
        figures: by name; the first is the main metric.
        chosen: what was chosen by the same examples and belongs to the model (a threshold), JSON-ready.
    """

    step: int
    figures: Mapping[str, float]
    chosen: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Evaluation:
        """That which an `evaluate` event of a log tells of."""
        figures = {name: float(value) for name, value in event["figures"].items()}
        return cls(step=event["step"], figures=figures, chosen=event.get("chosen", {}))

    @property
    def value(self) -> float:
        """The main metric; one that is not a number is worse than any."""
        value = next(iter(self.figures.values()))
        return -math.inf if math.isnan(value) else value


def best(evaluations: Sequence[Evaluation], until: int | None = None) -> Evaluation | None:
    """The best of those up to step `until` (None = of all), the earliest of equals; None = there are none."""
    known = [each for each in evaluations if until is None or each.step <= until]
    return max(known, key=lambda each: each.value, default=None)  # max keeps the first of equals


def since_best(evaluations: Sequence[Evaluation]) -> int:
    """How many evaluations in a row have brought nothing better."""
    found = best(evaluations)
    return 0 if found is None else sum(each.step > found.step for each in evaluations)
