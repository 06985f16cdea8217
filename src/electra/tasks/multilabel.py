"""Task `multilabel`: one text (or two), any number of labels of a fixed set, none included.

In: as `classify`, with several labels a row: a list in JSON, or a cell of a table cut at `columns.separator`. Out:
`{"labels": [{"label", "score"} ...], "scores": {label: probability}}`: the labels whose probability reaches the threshold, the
surest first, and the probabilities of all.

Each label is a decision of its own (a sigmoid); the loss is the binary cross entropy, the mean over labels, divided by the
number of examples of the global batch. The threshold, one for all labels, is .5 until `tune` takes the one with the best main
metric on the development set, which task.json then holds.

Shapes: N examples, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from electra import metrics
from electra.contracts import Batch, Encoded, Example, Judgement, Losses, Prediction, Term, Unit
from electra.errors import ElectraError
from electra.models.heads import ClassificationHead, TwoLayerHead
from electra.tasks.labelled_text import LabelledText, TextConfig
from electra.tasks.labels import check_labels, file_of, known_labels, label_id, no_label
from electra.text.tokenizer import Tokenizer

#: the thresholds that are tried; the one in the middle wins ties
_THRESHOLDS = sorted(np.linspace(0.01, 0.99, 99).round(2).tolist(), key=lambda threshold: abs(threshold - 0.5))


@dataclass(frozen=True, kw_only=True)
class MultilabelConfig(TextConfig):
    """Settings of `multilabel`.

    Args:
        labels: the set of labels, in the order of the outputs; None = those of the training file, sorted.
        metric: the main metric; see `metrics.multilabel`.
        threshold: probability from which a label is given; chosen anew where there is a development set.
    """

    type: Literal["multilabel"] = "multilabel"
    labels: tuple[str, ...] | None = None
    metric: Literal["micro_f1", "macro_f1", "samples_f1", "subset_accuracy"] = "micro_f1"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_labels(self.labels, 1)
        if not 0 < self.threshold < 1:
            raise ElectraError("E-C346", "task.threshold", f"{self.threshold:g} is no probability", "give one between 0 and 1")

    def build(self, tokenizer: Tokenizer) -> Multilabel:
        return Multilabel(self, tokenizer)


class Multilabel(LabelledText[MultilabelConfig]):
    """`contracts.TrainableTask` for any number of labels; see the module."""

    def __init__(self, config: MultilabelConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self._ids = {label: index for index, label in enumerate(config.labels or ())}

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the outputs."""
        return known_labels(self.config.labels)

    def fit(self, examples: Sequence[Example]) -> Multilabel:
        """This task with the labels of `examples`, or of its settings; every example must have labels, or an empty list.

        Raises:
            ElectraError: E-D310 no labels at all, E-D311 a row without labels, E-D312 a label that is not in the settings,
                E-D397 no row has a list.
        """
        gold, config = [_gold(example) for example in examples], self.with_pairs(examples)
        if config.labels is not None:
            for example in examples:
                self._hot(example)
            return Multilabel(config, self.tokenizer)
        found = sorted({label for labels in gold for label in labels})
        if not found:
            raise ElectraError("E-D310", file_of(examples), "no row has a label", "give training data with labels")
        if not any(isinstance(example.target, tuple) for example in examples):
            raise ElectraError("E-D397", file_of(examples), "every row has one label, none a list of labels",
                               "set task.columns.separator to what stands between them, or use task=classify")  # fmt: skip
        return Multilabel(replace(config, labels=tuple(found)), self.tokenizer)

    def encode(self, example: Example) -> list[Encoded]:
        """Tokens of the text and `labels`, float [1, K]: 1 for each label that it has."""
        return self.row(example, "labels", self._hot(example)[None].astype(np.float32))

    def head(self, encoder: nn.Module) -> ClassificationHead | TwoLayerHead:
        """A fresh head: (hidden, batch) -> logits [N, K]."""
        return self.fresh_head(encoder, len(self.labels))

    def loss(self, outputs: Tensor, batch: Batch) -> Losses:
        """Binary cross entropy, the mean over labels, summed over the examples, in fp32.

        Args:
            outputs: float [N, K], logits.
            batch: with target `labels` float [N, K] and count `examples`.
        """
        gold_NK = batch.targets["labels"]
        each_NK = F.binary_cross_entropy_with_logits(outputs.float(), gold_NK, reduction="none")
        total = each_NK.mean(dim=-1).sum()
        right_NK = (outputs.detach() > 0) == (gold_NK > 0.5)
        totals = {
            "examples": torch.tensor(len(gold_NK)), "loss": total.detach(), "subset_accuracy": right_NK.all(dim=-1).sum()
        }  # fmt: skip
        return Losses(terms={"multilabel": Term(total=total, unit="examples")}, totals=totals)

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        """The labels that reach the threshold, the surest first, and the probability of each."""
        [logits_K] = outputs
        scores = dict(zip(self.labels, torch.sigmoid(logits_K.float()).tolist(), strict=True))
        given = [{"label": label, "score": score} for label, score in scores.items() if score >= self.config.threshold]
        given.sort(key=lambda one: -one["score"])
        return Prediction(text=example.text, output={"labels": given, "scores": scores})

    def judge(self, example: Example, prediction: Prediction) -> Judgement:
        """One unit for each label, in their order: given or not. The score is the probability of that decision."""
        scores = cast(dict[str, float], prediction.output["scores"])
        gold = self._hot(example)
        units = []
        for label, is_gold in zip(self.labels, gold.tolist(), strict=True):
            is_given = scores[label] >= self.config.threshold
            units.append(Unit(
                gold=label if is_gold else None,
                predicted=label if is_given else None,
                score=scores[label] if is_given else 1 - scores[label],
            ))  # fmt: skip
        return Judgement(units=tuple(units))

    def score(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """The main metric, then the others of `metrics.multilabel`, with this task's threshold."""
        gold_NK, probability_NK = _table(judgements)
        return self._score(gold_NK, probability_NK, self.config.threshold)

    def tune(self, judgements: Sequence[Judgement]) -> Multilabel:
        """This task with the threshold whose main metric is the best, of ties that nearest to .5."""
        gold_NK, probability_NK = _table(judgements)
        main = self.config.metric
        best = max(_THRESHOLDS, key=lambda threshold: self._score(gold_NK, probability_NK, threshold)[main])
        return Multilabel(replace(self.config, threshold=best), self.tokenizer)

    def _score(
        self, gold_NK: npt.NDArray[np.bool_], probability_NK: npt.NDArray[np.float64], threshold: float
    ) -> dict[str, float]:
        found = metrics.multilabel(gold_NK, probability_NK >= threshold)
        return {self.config.metric: found[self.config.metric]} | found

    def _hot(self, example: Example) -> npt.NDArray[np.bool_]:
        """bool [K]; without target, all False."""
        hot = np.zeros(len(self.labels), dtype=np.bool_)
        for label in () if example.target is None else _gold(example):
            hot[label_id(label, self._ids, example)] = True
        return hot


def _gold(example: Example) -> tuple[str, ...]:
    """The labels of an example, which may be an empty list but must be there."""
    match example.target:
        case tuple(labels) if all(labels):
            return labels
        case str(label) if label:
            return (label,)
        case _:
            raise no_label(example)


def _table(judgements: Sequence[Judgement]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Gold and probability of every label, [N, K]."""
    gold = [[unit.gold is not None for unit in judgement.units] for judgement in judgements]
    probability = [
        [unit.score if unit.predicted is not None else 1 - unit.score for unit in judgement.units] for judgement in judgements
    ]
    return np.array(gold, dtype=np.bool_), np.array(probability, dtype=np.float64)
