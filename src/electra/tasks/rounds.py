"""Tasks that ask networks several times about one text, each time about rows that hang on the answers before.

Such a task tells what it does with one text as a generator: it yields an `Ask`, is sent what the network said of each row of
it, and returns the prediction. The predictor holds these talks for many texts at once, and batches what they ask.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from electra.contracts import Encoded, Example, Prediction, Task


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Rows for a network.

    Args:
        network: its name: `generator` or `discriminator`.
        rows: at least one. The n-th question of every text goes to the same network, with targets of the same names.
    """

    network: str
    rows: Sequence[Encoded]


#: yields questions, is sent the outputs of their rows, [n, ...] each, and returns the prediction
Rounds = Generator[Ask, Sequence[Tensor], Prediction]


class RoundsTask(Task, Protocol):
    """A task of several rounds."""

    def rounds(self, example: Example, rows: Sequence[Encoded]) -> Rounds:
        """The talk about one example.

        Args:
            rows: what `encode` made of it, for the first question.
        """
