"""Updates that are not to be made, and the way back after too many of them in a row.

In: before each update, the loss of the phase and the gradient norm of each network, summed over all processes, so that all of
them decide alike. Out: whether the update is made.

A step is bad if one of these is not finite, or if its loss is a spike: more than `spike_factor` times the largest of the last
`WINDOW` updates of the phase (what Megatron-LM's rerun machine asks). So noise sets its own measure: heavy tails have a large
maximum. Until `WINDOW` updates were made, nothing is a spike. A gradient norm is no measure: gradients are clipped, so
an update is of its usual size, and it leads away from where the norm is large; left out, the next batch meets the same
(docs/experiments.md).

The update of a bad step is left out. After more than `max_skipped` in a row the fault is taken to lie in the weights, and
`way_back` finds a checkpoint from before. The steps since then are not made again: a batch is a function of the step, so the
same batches would do the same. The run goes on behind the bad steps with the weights of the checkpoint, and what lies between
is passed over (Chowdhery et al., PaLM, 2022, section 5.1). Steps only ever go forward, and `max_rewinds` ends a run that cannot
be helped.

All of it is in the checkpoint, so that a resumed run decides as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from electra.dist import first
from electra.events import number
from electra.train.checkpoint import Checkpoints, State

#: updates that a spike is measured by, and that a checkpoint must be older than the first bad step to be out of its reach
WINDOW = 100


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong with a step.

    Args:
        skipped: code of the warning that its update is left out.
        stopped: code of the error where that does not help.
        kind: the fault.
        measure: the figure that shows it.
    """

    skipped: str
    stopped: str
    kind: str
    measure: str


@dataclass(kw_only=True)
class Guard:
    """What is known of the updates so far.

    Args:
        recent: of each phase, the last `WINDOW` losses of updates that were made.
        skipped: bad steps in a row, up to now.
        rewinds: how often the run went back.
    """

    recent: dict[str, deque[float]] = field(default_factory=dict)
    skipped: int = 0
    rewinds: int = 0

    @classmethod
    def of(cls, state: State | None) -> Guard:
        """As it was when `state` was saved; None = nothing has happened yet."""
        if state is None:
            return cls()
        guard = cls(skipped=state.skipped, rewinds=state.guard.get("rewinds", 0))
        guard.recall(state)
        return guard

    def recall(self, state: State) -> None:
        """Measure by the updates that `state` knows."""
        self.recent = {name: deque(values, maxlen=WINDOW) for name, values in state.guard.get("recent", {}).items()}

    def to_json(self) -> dict[str, Any]:
        return {"recent": {name: list(values) for name, values in self.recent.items()}, "rewinds": self.rewinds}

    def fault(self, phase: str, loss: float, norms: Mapping[str, float], spike_factor: float) -> Fault | None:
        """What is wrong with a step of this loss and these gradient norms; None = nothing.

        Args:
            spike_factor: a spike is more than this times the largest; 0 = nothing is.
        """
        measures = {f"loss ({phase})": loss, **{f"gradient norm ({name})": norm for name, norm in norms.items()}}
        for name, value in measures.items():
            if not math.isfinite(value):
                return Fault(skipped="E-T401", stopped="E-T400", kind="gradients or loss were not finite",
                             measure=f"{name} {value}")  # fmt: skip
        known = self.recent.get(phase, ())
        largest = max(map(abs, known), default=0.0)
        if spike_factor and len(known) == WINDOW and abs(loss) > spike_factor * largest > 0:
            return Fault(skipped="E-T831", stopped="E-T830", kind="the loss was far beyond all recent ones",
                         measure=f"loss ({phase}) {number(loss)}, at most {number(largest)} in {WINDOW} updates")  # fmt: skip
        return None

    def made(self, phase: str, loss: float) -> None:
        """The update of a step with this loss was made."""
        self.recent.setdefault(phase, deque(maxlen=WINDOW)).append(loss)


def way_back(checkpoints: Checkpoints, phase: str, first_bad: int) -> tuple[Path, State] | None:
    """The checkpoint of `phase` to go back to: the newest that is `WINDOW` steps older than step `first_bad`, else the oldest
    that is not younger; none that was saved among bad steps. None = there is none. The first process looks, for all."""

    def look() -> tuple[str, dict[str, Any]] | None:
        found = None
        for path, state in checkpoints.states():
            if state.phase == phase and state.skipped == 0 and state.step <= first_bad:
                found = path.name, vars(state)
                if state.step <= first_bad - WINDOW:
                    break
        return found

    found = first(look)
    return None if found is None else (checkpoints.directory / found[0], State(**found[1]))
