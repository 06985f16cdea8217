"""Few labelled examples and many unlabelled ones in every step, for objectives that learn from both.

In: a loader of the labelled and one of the unlabelled. Out: each step, the labelled examples that the first one has for it,
and the next unlabelled ones beside them, as one micro-batch. So steps, epochs and labelled batches are exactly those of a run
on the labelled file alone, whatever lies beside it; the unlabelled go round in an order and in epochs of their own.

A process takes its share of a step whole, since what compares texts with each other would change with the cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from electra.contracts import Batch, Noise
from electra.data.grid import collate
from electra.data.loader import ExampleLoader, bucket
from electra.errors import ElectraError


@dataclass(frozen=True, kw_only=True)
class MixedLoader:
    """Labelled and unlabelled examples side by side.

    Args:
        labelled: says how many steps an epoch has; its `pad_id` and `packed` count for both.
        unlabelled: the same targets, with -100 for what is not known; another seed, so that its noise is its own.
    """

    labelled: ExampleLoader
    unlabelled: ExampleLoader

    def halved(self) -> NoReturn:
        """Raises ElectraError E-R240: a step is taken whole."""
        raise ElectraError("E-R240", "memory", "a step does not fit, and labelled and unlabelled texts are taken together",
                           "lower batch.examples, objective.unlabelled_examples or task.max_length, or take a smaller "
                           "encoder")  # fmt: skip

    @property
    def micro_tokens(self) -> int:
        return self.labelled.micro_tokens

    @property
    def positions(self) -> int:
        """Tokens of a micro-batch at most, padding included."""
        return (self.labelled.batch_examples + self.unlabelled.batch_examples) * self._longest

    @property
    def padding(self) -> float:
        """Share of the first epoch's positions that are padding, with one process; 0 where batches are packed."""
        if self.labelled.packed:
            return 0.0
        batches = [batch for step in range(self.steps_per_epoch) for batch, _ in self.micro_batches(step, 0, 1)]
        return 1 - sum(batch.counts["tokens"] for batch in batches) / sum(batch.tokens.numel() for batch in batches)

    @property
    def steps_per_epoch(self) -> int:
        """Of the labelled examples."""
        return self.labelled.steps_per_epoch

    def micro_batches(self, step: int, rank: int, world_size: int) -> Iterator[tuple[Batch, Noise]]:
        """The one micro-batch of a process in one step, the labelled examples first; none where it has no example."""
        known, known_keys = self.labelled.rows(step, rank, world_size)
        others, other_keys = self.unlabelled.rows(step, rank, world_size)
        if items := known + others:
            length = bucket(max(len(item.tokens) for item in items), self._longest)
            batch = collate(items, length, self.labelled.pad_id, self.labelled.packed)
            yield batch, Noise(np.concatenate([known_keys, other_keys]))

    def epochs(self, step: int) -> dict[str, float]:
        """How often each kind has been seen when step `step` begins, up to the odd batch of its epoch."""
        return {
            "labelled": step / self.labelled.steps_per_epoch,
            "unlabelled": step / self.unlabelled.steps_per_epoch,
        }

    @property
    def _longest(self) -> int:
        return int(max(self.labelled.examples.lengths.max(), self.unlabelled.examples.lengths.max()))
