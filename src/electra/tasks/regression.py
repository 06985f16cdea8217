"""Task `regression`: one text (or two), one number: a similarity, a rating, a price.

In: as `classify`, with numbers in the label column. Out: `{"score"}`, in the units of the file.

Targets are moved to [0, 1] by the range of the setting, or of the training file, which task.json then holds; the loss is the
squared error there, divided by the number of examples of the global batch. A number outside of the range is learnt and
predicted like any other. Figures are correlations: Spearman's, which STS-B is scored by, and Pearson's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from electra import metrics
from electra.contracts import Batch, Encoded, Example, Judgement, Losses, Prediction, Term
from electra.errors import ElectraError
from electra.models.heads import ClassificationHead, TwoLayerHead
from electra.tasks.labelled_text import LabelledText, TextConfig
from electra.tasks.labels import file_of, no_label
from electra.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class RegressionConfig(TextConfig):
    """Settings of `regression`.

    Args:
        range: the numbers that become 0 and 1 for the network; None = the least and the greatest of the training file.
        metric: the main metric.
    """

    type: Literal["regression"] = "regression"
    range: tuple[float, float] | None = None
    metric: Literal["spearman", "pearson"] = "spearman"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.range is not None and not (all(map(math.isfinite, self.range)) and self.range[0] < self.range[1]):
            raise ElectraError(
                "E-C346", "task.range", f"{list(self.range)} is no range", "give two numbers, the lower one first"
            )

    def build(self, tokenizer: Tokenizer) -> Regression:
        return Regression(self, tokenizer)


class Regression(LabelledText[RegressionConfig]):
    """`contracts.TrainableTask` for one number; see the module."""

    labels: tuple[str, ...] = ()

    def fit(self, examples: Sequence[Example]) -> Regression:
        """This task with the range of `examples`, or of its settings; every example must have a number.

        Raises:
            ElectraError: E-D311 a row without label, E-D395 a label that is no number, E-D396 all numbers are the same.
        """
        numbers = [_gold(example) for example in examples]
        config = self.with_pairs(examples)
        if config.range is not None:
            return Regression(config, self.tokenizer)
        if not numbers or min(numbers) == max(numbers):
            cause = f"every row has the number {numbers[0]:g}" if numbers else "no rows"
            raise ElectraError("E-D396", file_of(examples), cause,
                               "give training data with different numbers, or set task.range")  # fmt: skip
        return Regression(replace(config, range=(min(numbers), max(numbers))), self.tokenizer)

    def encode(self, example: Example) -> list[Encoded]:
        """Tokens of the text and `number`, float [], in [0, 1] within the range; 0 without target."""
        low, width = self._range()
        number = 0.0 if example.target is None else (_gold(example) - low) / width
        return self.row(example, "number", np.array(number, dtype=np.float32))

    def head(self, encoder: nn.Module) -> ClassificationHead | TwoLayerHead:
        """A fresh head: (hidden, batch) -> [N, 1]."""
        return self.fresh_head(encoder, 1)

    def loss(self, outputs: Tensor, batch: Batch) -> Losses:
        """Squared error summed over the examples, in fp32.

        Args:
            outputs: float [N, 1].
            batch: with target `number` float [N] and count `examples`.
        """
        number_N = batch.targets["number"]
        total = (outputs.float().squeeze(-1) - number_N).square().sum()
        totals = {"examples": torch.tensor(len(number_N)), "loss": total.detach()}
        return Losses(terms={"regression": Term(total=total, unit="examples")}, totals=totals)

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        """The number, in the units of the file."""
        [output] = outputs
        low, width = self._range()
        return Prediction(text=example.text, output={"score": low + float(output) * width})

    def judge(self, example: Example, prediction: Prediction) -> Judgement:
        """The two numbers, `gold` and `predicted`, and their distance, `error`."""
        gold, predicted = _gold(example), cast(float, prediction.output["score"])
        return Judgement(values={"gold": gold, "predicted": predicted, "error": abs(gold - predicted)})

    def score(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """The main metric, then spearman, pearson and mean_absolute_error, in the units of the file."""
        gold, predicted, error = (np.array([one.values[name] for one in judgements]) for name in ("gold", "predicted", "error"))
        found = {"spearman": metrics.spearman(gold, predicted), "pearson": metrics.pearson(gold, predicted)}
        return {self.config.metric: found[self.config.metric]} | found | {
            "mean_absolute_error": float(error.mean())
        }  # fmt: skip

    def tune(self, judgements: Sequence[Judgement]) -> Regression:
        """Nothing to choose."""
        return self

    def _range(self) -> tuple[float, float]:
        """The lower end, and the width."""
        if self.config.range is None:
            raise ElectraError("E-C302", "task.range", "not known yet", "set it, or take it from the training file first")
        low, high = self.config.range
        return low, high - low


def _gold(example: Example) -> float:
    """The number of an example, which must have one."""
    if example.target is None or example.target == "":
        raise no_label(example)
    number = as_number(example.target)
    if number is None:
        raise ElectraError("E-D395", example.where or "example", f"label {example.target!r:.80} is no number",
                           "mend the row, or use task=classify for labels that are names")  # fmt: skip
    return number


def as_number(target: object) -> float | None:
    """A target as a finite number, if it is one."""
    if not isinstance(target, str | float):
        return None
    try:
        number = float(target)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
