"""Batches as pure functions of the step: rows and examples by number in, `Batch` and `Noise` out.

Nothing here has a state. Pre-training numbers the rows of a whole run from 0; step s takes `batch_rows` of them, each
process a contiguous share of those, each micro-batch a slice of the share. A global row number gives the source, the epoch
and the row there (`Mixture.at`), and (seed, source, epoch, row) keys the row's noise, masks included. So any process count
and any micro-batch size sees the same rows with the same masks, and a checkpoint needs no more than the step.

Fine-tuning keeps examples whole. The order of an epoch is cut into windows, each window is sorted by length and cut into
batches, and the batches of the epoch are visited in another keyed order: little padding, random batches. Evaluation sorts
everything by length.

All is numpy until the last line, which hands the arrays to torch. Shapes: B rows, L positions, T tokens without padding,
K drawn positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from electra.contracts import Batch, Encoded, Examples, Noise
from electra.data.grid import Grid, collate, filled
from electra.data.masking import MaskingConfig, candidates, draw
from electra.data.mixture import Mixture, Picks
from electra.data.rows import epoch_order, noise_key
from electra.data.step_rows import StepRows
from electra.dist import fold_seed
from electra.errors import ElectraError

_BUCKET = 8  # rows of examples are padded to a multiple of this, so that few shapes occur
_WINDOW = 50  # batches whose examples are sorted by length together


@dataclass(frozen=True, kw_only=True)
class PretrainLoader:
    """Rows of one corpus or several with masks, endlessly, epoch after epoch.

    Args:
        mixture: the rows, and the keys of their order, masks and noise.
        masking: which positions are drawn; where it needs words, the rows have the target `word_starts`.
        cls_id, sep_id, mask_id: tokens that are never drawn.
        pad_id: fills up short rows.
        batch_rows: rows of one step, over all processes.
        first_rows: rows of the first step, where the batch grows to `batch_rows`; see `StepRows`.
        micro_rows: rows of one micro-batch at most.
        steps: steps of the run (or of this part of it), for the schedules of masking rate and batch.
        first_row: rows that earlier parts of the run have taken.
        packed: hand out the `Packed` layout.

    Raises:
        ElectraError: E-D240, a source has fewer rows than its share of one batch.
    """

    mixture: Mixture
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    cls_id: int
    sep_id: int
    mask_id: int
    pad_id: int
    batch_rows: int
    first_rows: int | None = None
    micro_rows: int
    steps: int
    first_row: int = 0
    packed: bool = False

    def __post_init__(self) -> None:
        self.mixture.require_rows(self.batch_rows)

    def micro_batches(self, step: int, rank: int, world_size: int) -> Iterator[tuple[Batch, Noise]]:
        """The micro-batches of one process in one step, with the targets of pre-training as in `Batch`.

        The draw rate of a row with c candidates of which k are drawn is k / c, exactly, at each of them, whatever the unit of
        drawing; with replacement it is the expected number of draws.

        Raises:
            ElectraError: E-C242, the batch cannot be divided among the processes.
        """
        rows = self.step_rows.at(step)
        share, odd = divmod(rows, world_size)
        if odd:
            cause = f"{rows} rows do not divide among {world_size} processes"
            raise ElectraError("E-C242", "batch", cause, f"give a multiple of {world_size}")
        start = self.first_row + self.step_rows.before(step) + rank * share
        for begin in range(start, start + share, self.micro_rows):
            picks = self.mixture.at(np.arange(begin, min(begin + self.micro_rows, start + share)))
            yield self._micro_batch(picks, step / self.steps)

    @property
    def step_rows(self) -> StepRows:
        """The rows of each step, over all processes."""
        return StepRows(rows=self.batch_rows, first_rows=self.first_rows, steps=self.steps)

    def halved(self) -> PretrainLoader:
        """The same batches in micro-batches of half as many rows.

        Raises:
            ElectraError: E-R240, a micro-batch has one row already.
        """
        if self.micro_rows == 1:
            raise ElectraError("E-R240", "memory", "not even one row fits", "shorten rows.length or shrink the encoder")
        return replace(self, micro_rows=self.micro_rows // 2)

    @property
    def positions(self) -> int:
        """Tokens of a micro-batch at most, padding included."""
        return min(self.batch_rows, self.micro_rows) * self.mixture.length

    def epochs(self, step: int) -> dict[str, float]:
        """By source, how often its rows have been seen when step `step` begins."""
        return self.mixture.epochs(self.first_row + self.step_rows.before(step))

    @property
    def tokens_per_step(self) -> float:
        """Real tokens of an average step with all of its rows, over all processes."""
        return self.batch_rows * self.mixture.tokens_per_row

    def _micro_batch(self, picks: Picks, progress: float) -> tuple[Batch, Noise]:
        sources, noise = self.mixture.sources, Noise(picks.noise_keys)
        items = [sources[source].rows[row] for source, row in zip(picks.sources.tolist(), picks.rows.tolist(), strict=True)]
        grid = Grid.of(items, self.mixture.length, self.pad_id, self.packed)
        allowed = candidates(grid.tokens, grid.real, (self.cls_id, self.sep_id, self.mask_id))
        word_starts = None
        if self.masking.needs_words:
            word_starts = filled(np.ones(grid.tokens.shape, np.bool_), [item.targets["word_starts"] for item in items])
        drawn = draw(allowed, grid.real.sum(axis=1), self.masking, progress, noise, word_starts)
        index = np.where(drawn.weight > 0, np.take_along_axis(grid.index, drawn.positions, axis=1), 0)
        rate_B1 = drawn.weight.sum(1, keepdims=True) / np.maximum(allowed.sum(1, keepdims=True), 1)
        targets = {
            "drawn": index, "drawn_weight": drawn.weight, "is_mask": drawn.is_mask,
            "candidates": grid.flat(allowed), "draw_rate": grid.flat(np.where(allowed, rate_B1, 0).astype(np.float32)),
        }  # fmt: skip
        continued = grid.real & ~grid.first
        counts = {
            "candidates": allowed.sum(), "drawn": drawn.weight.sum(), "continued": continued.sum(),
            "drawn_continued": (drawn.weight * np.take_along_axis(continued, drawn.positions, axis=1)).sum(),
        }  # fmt: skip
        return grid.batch(targets, {name: float(count) for name, count in counts.items()}), noise


@dataclass(frozen=True, kw_only=True)
class ExampleLoader:
    """Whole examples for fine-tuning: every one once per epoch, batches of examples of like length.

    Args:
        examples: at least one.
        pad_id: fills up short rows.
        batch_examples: examples of one step over all processes; the one batch of an epoch that may have fewer is the rest.
        micro_tokens: positions of a micro-batch at most, padding included (a single longer example still goes alone).
        seed: key of order and noise.
        packed: hand out the `Packed` layout.
        whole: a process gets its share of a step as one micro-batch, whatever `micro_tokens` says.

    Raises:
        ElectraError: E-D241, no examples.
    """

    examples: Examples
    pad_id: int
    batch_examples: int
    micro_tokens: int
    seed: int
    packed: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not len(self.examples):
            raise ElectraError("E-D241", "examples", "there are none to train on", "give a file with at least one example")

    def halved(self) -> ExampleLoader:
        """The same batches in micro-batches of half as many tokens.

        Raises:
            ElectraError: E-R240, a micro-batch is one example already, or must be whole.
        """
        if self.whole:
            raise ElectraError("E-R240", "memory", "a step does not fit, and the loss of this task needs it as a whole",
                               "lower batch.examples or task.max_length, or take a smaller encoder")  # fmt: skip
        if self.micro_tokens < self.examples.lengths.max():
            raise ElectraError(
                "E-R240", "memory", "not even one example fits", "lower task.max_length or take a smaller encoder"
            )
        return replace(self, micro_tokens=self.micro_tokens // 2)

    @property
    def positions(self) -> int:
        """Tokens of a micro-batch at most, padding included."""
        batch = self.batch_examples * self._longest
        return batch if self.whole else max(self._longest, min(self.micro_tokens, batch))

    @property
    def padding(self) -> float:
        """Share of the first epoch's positions that are padding, with one process; 0 where batches are packed."""
        if self.packed:
            return 0.0
        positions = 0
        for place in range(self.steps_per_epoch):
            lengths = self._lengths[self._step_examples(0, place)]
            for part in _cut(lengths, self.micro_tokens, self._longest):
                positions += (part.stop - part.start) * bucket(int(lengths[part.stop - 1]), self._longest)
        return 1 - float(self._lengths.sum()) / positions

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.examples) // self.batch_examples)

    def micro_batches(self, step: int, rank: int, world_size: int) -> Iterator[tuple[Batch, Noise]]:
        """The micro-batches of one process in one step; none where the rest of an epoch is smaller than `world_size`."""
        items, keys = self.rows(step, rank, world_size)
        lengths = np.array([len(item.tokens) for item in items], dtype=np.int64)
        for part in [slice(None)] if self.whole and items else _cut(lengths, self.micro_tokens, self._longest):
            length = bucket(int(lengths[part][-1]), self._longest)
            yield collate(items[part], length, self.pad_id, self.packed), Noise(keys[part])

    def rows(self, step: int, rank: int, world_size: int) -> tuple[list[Encoded], npt.NDArray[np.uint64]]:
        """The examples of one process in one step, by rising length, and the keys of their noise."""
        epoch, place = divmod(step, self.steps_per_epoch)
        chosen = self._step_examples(epoch, place)[rank::world_size]  # strided: every process gets short and long ones
        keys = chosen.astype(np.uint64) ^ np.uint64(noise_key(self.seed, epoch))
        return [self.examples[int(number)] for number in chosen], keys

    def epochs(self, step: int) -> dict[str, float]:
        """How often the examples have been seen when step `step` begins, up to the epoch's odd batch."""
        return {"examples": step / self.steps_per_epoch}

    def _step_examples(self, epoch: int, place: int) -> npt.NDArray[np.int64]:
        """The examples of the batch at `place` of an epoch, by rising length."""
        batch = int(epoch_order(np.array([place]), self.steps_per_epoch, fold_seed(self.seed, "batches"), epoch)[0])
        return self._in_windows(epoch)[batch * self.batch_examples : (batch + 1) * self.batch_examples]

    def _in_windows(self, epoch: int) -> npt.NDArray[np.int64]:
        """All examples in the order of an epoch, but for windows that are sorted by length; the last one asked for is kept."""
        if epoch not in self._epochs:
            order = epoch_order(np.arange(len(self.examples)), len(self.examples), self.seed, epoch)
            for begin in range(0, len(order), _WINDOW * self.batch_examples):
                window = order[begin : begin + _WINDOW * self.batch_examples]
                window[:] = window[np.argsort(self._lengths[window], kind="stable")]
            self._epochs.clear()
            self._epochs[epoch] = order
        return self._epochs[epoch]

    @cached_property
    def _epochs(self) -> dict[int, npt.NDArray[np.int64]]:
        return {}

    @cached_property
    def _lengths(self) -> npt.NDArray[np.int64]:
        return self.examples.lengths

    @cached_property
    def _longest(self) -> int:
        return int(self._lengths.max())


def in_order(
    examples: Examples, batch_tokens: int, pad_id: int, packed: bool = False
) -> Iterator[tuple[npt.NDArray[np.int64], Batch]]:
    """Every example once, the longest first, so that a lack of memory shows at once; for evaluation and prediction.

    Args:
        examples: any number.
        batch_tokens: positions of a batch at most, padding included (a single longer example still goes alone).
        pad_id: fills up short rows.
        packed: hand out the `Packed` layout.

    Yields:
        int64 [B], the numbers of the examples, and their batch.
    """
    lengths = examples.lengths
    order = np.argsort(lengths, kind="stable")
    longest = int(lengths.max(initial=0))
    for part in reversed(_cut(lengths[order], batch_tokens, longest)):
        numbers = order[part]
        items = [examples[int(number)] for number in numbers]
        yield numbers, collate(items, bucket(int(lengths[numbers[-1]]), longest), pad_id, packed)


def bucket(length: int, longest: int) -> int:
    """The padded length: the next multiple of 8, but never more than the longest of all needs."""
    return min(-(-length // _BUCKET) * _BUCKET, longest)


def _cut(rising_lengths: npt.NDArray[np.int64], budget: int, longest: int) -> list[slice]:
    """Slices of examples sorted by length, each as long as its padded positions stay within `budget`, or one example."""
    parts: list[slice] = []
    begin = 0
    for end in range(1, len(rising_lengths) + 1):
        if end == len(rising_lengths) or (end + 1 - begin) * bucket(int(rising_lengths[end]), longest) > budget:
            parts.append(slice(begin, end))
            begin = end
    return parts
