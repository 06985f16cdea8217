"""How many rows a step has where the batch grows over a part of a run.

The batch grows in equal parts of the steps by equal numbers of rows: `first_rows`, twice as many, three times ... up to
`rows`, which is a multiple of them. So every step's rows divide among as many processes as those of the first do, there are
few sizes of batch, and both the rows of a step and the rows before it are functions of the step alone. (A small batch at
first, for small batches learn more from a token while the loss is high: Brown et al., GPT-3, 2020, section 2.3; McCandlish et
al., 2018.)
"""

from __future__ import annotations

from dataclasses import dataclass

from electra.config import STRICT
from electra.errors import ElectraError


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """The global batch of a step.

    Args:
        rows: rows over all processes.
        first_rows: rows of the first step of each phase, from which the batch grows to `rows`, evenly over the phase; None =
            it does not grow.
        micro_rows: rows that go through the networks at once; None = as many as `micro_tokens` tokens make, halved where
            memory does not suffice. It changes speed and memory, not the result.
    """

    __pydantic_config__ = STRICT
    rows: int
    first_rows: int | None = None
    micro_rows: int | None = None

    def __post_init__(self) -> None:
        if self.rows < 1 or (self.micro_rows is not None and self.micro_rows < 1):
            raise ElectraError("E-C440", "batch", "rows and micro_rows are at least 1", "give a positive number")
        self.of_phase(1)  # says whether it can grow

    def require_shares(self, processes: int) -> None:
        """Raises E-C242 where the rows of some step cannot be divided among so many processes."""
        rows = self.of_phase(1).least  # those of every other step are a multiple
        if rows % processes:
            name = "rows" if self.first_rows is None else "first_rows"
            cause = f"{rows} rows do not divide among {processes} processes"
            raise ElectraError("E-C242", f"batch.{name}", cause, f"give a multiple of {processes}")

    def of_phase(self, steps: int) -> StepRows:
        """The rows of each step of a phase of so many steps."""
        return StepRows(rows=self.rows, first_rows=self.first_rows, steps=steps)


@dataclass(frozen=True, kw_only=True)
class StepRows:
    """The rows of each step.

    Args:
        rows: of a step at the end.
        first_rows: of the first step; None = `rows`, the batch does not grow.
        steps: over which it grows.

    Raises:
        ElectraError: E-C553 `rows` is no multiple of `first_rows`.
    """

    rows: int
    first_rows: int | None
    steps: int

    def __post_init__(self) -> None:
        if self.first_rows is not None and (self.first_rows < 1 or self.rows % self.first_rows):
            cause = f"{self.first_rows} rows do not grow in equal parts to {self.rows}"
            raise ElectraError("E-C553", "batch.first_rows", cause, "give a divisor of batch.rows, or leave it out")

    @property
    def least(self) -> int:
        """Rows of the first step."""
        return self.first_rows or self.rows

    def at(self, step: int) -> int:
        """Rows of step `step`, counted from 0."""
        parts = self.rows // self.least
        return self.least * (1 + min(parts - 1, step * parts // self.steps))

    def before(self, step: int) -> int:
        """Rows of all steps before `step`."""
        parts = self.rows // self.least
        later = (max(0, step - -(-part * self.steps // parts)) for part in range(1, parts))  # steps since each growth
        return self.least * (step + sum(later))
