"""What the rooms of the house hand to each other: `Batch`, `Losses`, `Example`, `Judgement` ..., and the protocols of the loop.

Shapes: B rows, L positions of a row, T = tokens of a packed batch, K drawn positions of a row.
The signatures here are pinned by a test: objectives, tasks and loaders are written against them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from electra.layouts import Layout as Layout
from electra.layouts import Order as Order
from electra.layouts import Packed as Packed
from electra.layouts import Padded as Padded


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch, in training and in serving.

    Args:
        tokens: int64 [B, L] (Padded) or [T] (Packed).
        positions: as tokens; the position within the document.
        types: as tokens; 0 or 1 (segment A, segment B).
        layout: who may attend to whom.
        targets: what an objective learns from, by name. Pre-training: `drawn` int64 [B, K], indices into `tokens.view(-1)`,
            filled up with 0; `drawn_weight` float [B, K], 1 where `drawn` counts; `is_mask` bool [B, K], becomes [MASK];
            `candidates` bool as tokens, where may be drawn; `draw_rate` float as tokens, the probability with which it was.
        counts: what the losses of this micro-batch are divided by, by name, known before any forward pass:
            `rows`, `tokens` (real ones), `continued` (the token before is of the same document), `candidates`, `drawn`,
            `drawn_continued`, `examples` ...
    """

    tokens: Tensor
    positions: Tensor
    types: Tensor
    layout: Layout
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    counts: Mapping[str, float] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Batch:
        return Batch(
            tokens=self.tokens.to(device, non_blocking=True),
            positions=self.positions.to(device, non_blocking=True),
            types=self.types.to(device, non_blocking=True),
            layout=self.layout.to(device),
            targets={name: target.to(device, non_blocking=True) for name, target in self.targets.items()},
            counts=self.counts,
        )


class Noise:
    """Random numbers that belong to rows, not to a generator's state.

    Every number is a hash of (row key, name, column): the same row draws the same noise in every process, micro-batch and
    resumed run. The hash is SplitMix64's finaliser (Steele et al., 2014), twice.

    Args:
        row_keys: uint64 [B], one key a row, folded from (seed, epoch, row).
    """

    def __init__(self, row_keys: npt.NDArray[np.uint64]) -> None:
        self.row_keys = row_keys

    def uniform(self, name: str, width: int) -> npt.NDArray[np.float32]:
        """float32 [B, width] in [0, 1), independent for every `name`."""
        salt = np.frombuffer(hashlib.blake2b(name.encode(), digest_size=8).digest(), dtype=np.uint64)[0]
        columns = np.arange(1, width + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        bits = _mix(_mix(self.row_keys ^ salt)[:, None] + columns[None, :])
        return ((bits >> np.uint64(40)).astype(np.float32)) * np.float32(2.0**-24)


def _mix(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser: every input bit flips every output bit with probability one half."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@dataclass(frozen=True, kw_only=True)
class Term:
    """A loss as a sum and the name of the count that divides it, so that means are over the *global* batch.

    Args:
        total: scalar, the sum over this micro-batch, with gradient.
        unit: name of a count in `Batch.counts`; the loop divides by that count over all micro-batches and ranks.
        weight: factor in the total loss.
    """

    total: Tensor
    unit: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What one forward pass hands to the loop.

    Args:
        terms: the losses by name; "1 x MLM + 50 x RTD" is data.
        totals: tensors of any shape that are meaningful when summed over micro-batches, ranks and steps (sums, counts,
            histograms); `Objective.summarise` turns their sums into figures.
    """

    terms: Mapping[str, Term]
    totals: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of one step: which networks it updates.

    Args:
        name: what the objective calls it.
        networks: names in `Objective.networks` whose parameters are updated.
        progress: share of the run's steps that are done, in [0, 1), for schedules of temperatures and rates.
    """

    name: str
    networks: tuple[str, ...]
    progress: float = 0.0


class Objective(Protocol):
    """Owns the networks it trains. Implementations are `nn.Module`s that inherit from this, so that DDP can wrap them."""

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The trained networks by name; a parameter shared by two belongs to the first that has it."""

    def phases(self, step: int, steps: int) -> Sequence[Phase]:
        """The phases of step `step` of `steps`, in order; by default one, which updates every network."""
        return (Phase(name="joint", networks=tuple(self.networks), progress=step / steps),)

    def updated(self) -> None:
        """Called when a step has updated the networks; what is averaged over steps moves here. By default nothing is."""
        return

    def forward(self, batch: Batch, noise: Noise, phase: Phase) -> Losses:
        """The losses of one micro-batch in one phase."""

    def summarise(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        """Figures for log and health from `Losses.totals` summed over any number of micro-batches."""

    def export(self, directory: Path) -> None:
        """Write a ModelDir that stock transformers classes load."""


class Loader(Protocol):
    """A pure function from the step to its micro-batches; the step is its whole state."""

    def micro_batches(self, step: int, rank: int, world_size: int) -> Iterator[tuple[Batch, Noise]]:
        """The micro-batches of this process in this step, in order."""

    def epochs(self, step: int) -> Mapping[str, float]:
        """How often each source of the loader, by name, has been seen when step `step` begins."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One row or example as numbers; n tokens.

    Args:
        tokens: int64 [n], with specials.
        types: int64 [n], 0 or 1.
        segments: int64 [n], number of the document within the row, counted from 0, not decreasing; None = one document.
        targets: arrays by name; those of shape [] are stacked to [B], those of shape [n] are padded to [B, L], those of shape
            [1, K] become [B, longest K].
        truncated: tokens of the input that did not fit.
    """

    tokens: npt.NDArray[np.int64]
    types: npt.NDArray[np.int64]
    segments: npt.NDArray[np.int64] | None = None
    targets: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    truncated: int = 0


class Examples(Protocol):
    """Anything with lengths and items, the corpus's rows and encoded examples alike: one loader serves both."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """int64 [len], tokens of each item, specials included."""

    def __getitem__(self, index: int) -> Encoded: ...


@dataclass(frozen=True, kw_only=True)
class Example:
    """One input of a task as the user wrote it.

    Args:
        text: the text, or the first of two.
        pair: the second text, if the task has one.
        target: the gold answer in the task's own terms; None where there is none.
        where: file and line it came from, for errors.
        given: what else the task is given, by name and JSON-ready: `words`, `choices`, `id` ...
    """

    text: str
    pair: str | None = None
    target: object = None
    where: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A labelled part of a text: characters `start` to `end`, end exclusive."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A file being read.

    Args:
        examples: in the order of the file, each once; a bad row is an `ElectraError` with file and line.
        notes: what was inferred, mended or counted, a sentence each; complete when `examples` is exhausted.
        inferred: numbers of columns, by role, that were inferred of a table without header.
    """

    examples: Iterator[Example]
    notes: list[str] = field(default_factory=list)
    inferred: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a task says about one input.

    Args:
        text: the input.
        output: JSON-ready, in the key names of transformers' pipelines (`label`, `score`, `token_str` ...).
        truncated: tokens of the input that were not seen.
    """

    text: str
    output: Mapping[str, object]
    truncated: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """One decision that is right or wrong: the label of a text, a mention, the relation of two.

    Args:
        gold: the right label; None where there should be nothing.
        predicted: the label that was given; None where nothing was found.
        score: probability of what was predicted, in [0, 1].
    """

    gold: str | None
    predicted: str | None
    score: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """The record of one example, gold against predicted: all that metrics need, without texts and logits.

    Args:
        units: the decisions.
        values: figures by name, for what is not a matter of labels; `error`, 0 or more, says how wrong the answer is, so that
            the worst can be shown. Names with a slash are counts of which only sums mean something: they are not shown.
        vectors: float32 [k, D], for what only all examples together can judge (retrieval); None elsewhere, since memory grows
            by them.
    """

    units: tuple[Unit, ...] = ()
    values: Mapping[str, float] = field(default_factory=dict)
    vectors: npt.NDArray[np.float32] | None = None


class Task(Protocol):
    """example -> rows -> (network) -> decode: all that prediction needs. Holds its tokenizer.

    Attributes:
        max_length: tokens of a row at most, with specials; of each segment, where a row holds several texts side by side.
        per_token: the network's outputs have one entry for every token; otherwise one for every row.
    """

    max_length: int
    per_token: bool

    @property
    def pad_id(self) -> int:
        """The token that fills up short rows."""

    def read(self, path: Path) -> Reading:
        """The examples of a file."""

    def encode(self, example: Example) -> list[Encoded]:
        """The rows of one example: one, or the windows of a long text. Each is trained on and run on its own.

        What the task cuts away is counted in `truncated`.
        """

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        """The prediction for one example.

        Args:
            example: the input.
            rows: what `encode` made of it.
            outputs: what the network returned for each row, without padding: [n, ...] if `per_token`, else [...].
        """


@runtime_checkable
class TrainableTask(Task, Protocol):
    """A task that brings a head, a loss and a score; `objectives.supervised` takes it to the loop.

    Attributes:
        whole_batch: the loss compares the examples of a step with each other, so a process takes all of its own at once: they
            are never cut into micro-batches.
    """

    whole_batch: bool

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the head's outputs; empty where they have none."""

    def fit(self, examples: Sequence[Example]) -> TrainableTask:
        """This task with what it takes from the examples (their labels); every one of them is checked.

        The examples may also decide which task it is. Once fitted, the task only checks. An example that it cannot learn
        from is an `ElectraError` with file and line.
        """

    def head(self, encoder: nn.Module) -> nn.Module:
        """A fresh head for `encoder`: (hidden [B, L, D] or [T, D], batch) -> the outputs that `loss` and `decode` take."""

    def loss(self, outputs: Tensor, batch: Batch) -> Losses:
        """Loss terms and totals of one micro-batch; totals are sums over examples, beside their number `examples`."""

    def judge(self, example: Example, prediction: Prediction) -> Judgement:
        """Gold against predicted, for one example."""

    def score(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """Metrics by name, from at least one record; the first one is the task's main metric, and higher is better."""

    def tune(self, judgements: Sequence[Judgement]) -> Self:
        """This task with what is chosen on development data (a threshold); itself if there is nothing to choose."""

    def to_json(self) -> dict[str, object]:
        """What `task.json` holds: type, labels, length; enough to build the task again."""
