"""Task `classify`: one text (or two), one label of a fixed set.

In: tables, JSON lines, parquet with a text and a label column. Out: `{"label", "score"}` for each text, as transformers'
text-classification pipeline, where score is the softmax probability of the label.

The labels are those of the setting, or those of the training file, sorted. The head reads the first token of a document;
the loss is the cross entropy, divided by the number of examples of the global batch. A label that is not in the set is an
error with file, line and the nearest label.

A training file whose rows have lists of labels, or numbers with fractions, is no such task: `fit` then goes on as `multilabel`
or `regression`, and the log says so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from electra import metrics
from electra.contracts import Batch, Encoded, Example, Judgement, Losses, Prediction, Term, Unit
from electra.errors import ElectraError
from electra.models.heads import ClassificationHead, TwoLayerHead
from electra.tasks.labelled_text import LabelledText, TextConfig
from electra.tasks.labels import NO_LABEL, check_labels, file_of, known_labels, label_id, no_label
from electra.tasks.multilabel import Multilabel, MultilabelConfig
from electra.tasks.regression import Regression, RegressionConfig, as_number
from electra.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(TextConfig):
    """Settings of `classify`.

    Args:
        labels: the set of labels, in the order of the outputs; None = those of the training file, sorted.
        metric: the main metric; `f1` is that of the label `positive`.
        positive: the label that `f1` is about; None = the last of two.
        class_weights: factors on the loss of each label's examples: a table (labels that it leaves out have 1), or `balanced` =
            scikit-learn's examples / (labels * examples of the label), 1 in the mean over the training file. The loss stays
            divided by the number of examples.
        label_smoothing: share of each target that is spread over all labels, as torch's `cross_entropy` does.
    """

    type: Literal["classify"] = "classify"
    labels: tuple[str, ...] | None = None
    metric: Literal["accuracy", "macro_f1", "matthews", "f1"] = "accuracy"
    positive: str | None = None
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_labels(self.labels, 2)
        if not 0 <= self.label_smoothing < 1:
            raise ElectraError(
                "E-C346", "task.label_smoothing", f"{self.label_smoothing:g} is no share", "give 0 or more, less than 1"
            )
        if isinstance(self.class_weights, dict) and any(weight <= 0 for weight in self.class_weights.values()):
            raise ElectraError("E-C346", "task.class_weights", "a weight is not above 0", "give a positive number")
        if self.positive is not None and self.metric != "f1":
            raise ElectraError("E-C347", "task.positive", f"has no meaning for {self.metric}", "set task.metric=f1")
        if self.labels is not None:
            self._check_names(self.labels)

    def _check_names(self, labels: Sequence[str]) -> None:
        """Whatever settings name a label name one of `labels`."""
        weights = self.class_weights if isinstance(self.class_weights, dict) else {}
        named = {"positive": [self.positive] if self.positive is not None else [], "class_weights": list(weights)}
        for setting, names in named.items():
            for name in names:
                if name not in labels:
                    raise ElectraError("E-C347", f"task.{setting}", f"{name!r} is not one of {', '.join(labels[:20])}",
                                       "name one of them")  # fmt: skip
        if self.metric == "f1" and self.positive is None and len(labels) > 2:
            raise ElectraError("E-C347", "task.metric", f"f1 of which of {len(labels)} labels?",
                               "set task.positive, or take macro_f1")  # fmt: skip

    def build(self, tokenizer: Tokenizer) -> Classify:
        return Classify(self, tokenizer)


class Classify(LabelledText[ClassifyConfig]):
    """`contracts.TrainableTask` for a single label; see the module."""

    def __init__(self, config: ClassifyConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self._ids = {label: index for index, label in enumerate(config.labels or ())}
        weights = config.class_weights
        self._weights = [weights.get(label, 1.0) for label in self._ids] if isinstance(weights, dict) else None

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the outputs."""
        return known_labels(self.config.labels)

    def fit(self, examples: Sequence[Example]) -> Classify | Multilabel | Regression:
        """This task with the labels and class weights of `examples`, or of its settings; every example must have a label.

        Raises:
            ElectraError: E-D310 fewer than two labels, E-D311 a row without label, E-D312 a label that is not in the settings,
                E-C347 settings that name another label, E-C348 settings of `classify` where the labels ask for another task.
        """
        if self.config.labels is None and (other := self._other(examples)) is not None:
            return other.fit(examples)
        gold = [_gold(example) for example in examples]
        found = self.config.labels or tuple(sorted(set(gold)))
        if len(found) < 2:
            raise ElectraError("E-D310", file_of(examples), f"every row has the label {found[0]!r}" if found else "no rows",
                               "give training data with at least two labels")  # fmt: skip
        ids = dict.fromkeys(found, 0)
        for label, example in zip(gold, examples, strict=True):
            label_id(label, ids, example)
        config = replace(self.with_pairs(examples), labels=found)
        if config.class_weights == "balanced":
            config = replace(config, class_weights=_balanced(found, Counter(gold), file_of(examples)))
        return self if config == self.config else Classify(config, self.tokenizer)

    def _other(self, examples: Sequence[Example]) -> Multilabel | Regression | None:
        """The task that the labels ask for, if it is not this one: lists, or numbers of which at least one has a fraction."""
        kind: type[MultilabelConfig | RegressionConfig]
        numbers = [as_number(example.target) for example in examples]
        if any(isinstance(example.target, tuple) for example in examples):
            kind, why = MultilabelConfig, "rows have lists of labels"
        elif None not in numbers and not all(cast(float, number).is_integer() for number in numbers):
            kind, why = RegressionConfig, "labels are numbers with fractions"
        else:
            return None
        shared = {field.name for field in fields(TextConfig)}
        for field in fields(ClassifyConfig):
            if field.name not in shared and getattr(self.config, field.name) != field.default:
                raise ElectraError("E-C348", f"task.{field.name}", f"{why}: this is task={kind.type}, without such a setting",
                                   f"set task={kind.type} and leave this out, or name the labels with task.labels")  # fmt: skip
        return kind(**{name: getattr(self.config, name) for name in shared}).build(self.tokenizer)

    def encode(self, example: Example) -> list[Encoded]:
        """Tokens of the text and `label`, int64 []; an example without label gets -100, which no loss counts."""
        label = NO_LABEL if example.target is None else self._label_id(example)
        return self.row(example, "label", np.array(label, dtype=np.int64))

    def head(self, encoder: nn.Module) -> ClassificationHead | TwoLayerHead:
        """A fresh head: (hidden, batch) -> logits [N, labels]."""
        return self.fresh_head(encoder, len(self.labels))

    def loss(self, outputs: Tensor, batch: Batch) -> Losses:
        """Cross entropy summed over the examples, in fp32, weighted and smoothed as the settings say.

        Args:
            outputs: float [N, labels], logits.
            batch: with target `label` int64 [N] and count `examples`.
        """
        label_N = batch.targets["label"]
        weights = None if self._weights is None else outputs.new_tensor(self._weights, dtype=torch.float32)
        total = F.cross_entropy(outputs.float(), label_N, weights, reduction="sum", ignore_index=NO_LABEL,
                                label_smoothing=self.config.label_smoothing)  # fmt: skip
        correct = (outputs.detach().argmax(dim=-1) == label_N).sum()
        totals = {"examples": (label_N != NO_LABEL).sum(), "loss": total.detach(), "accuracy": correct}
        return Losses(terms={"classify": Term(total=total, unit="examples")}, totals=totals)

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        """The most probable label of the text and its probability."""
        [logits_N] = outputs
        score, index = torch.softmax(logits_N.float(), dim=-1).max(dim=-1)
        return Prediction(text=example.text, output={"label": self.labels[int(index)], "score": float(score)})

    def judge(self, example: Example, prediction: Prediction) -> Judgement:
        """One unit: the label."""
        said, score = str(prediction.output["label"]), cast(float, prediction.output["score"])
        return Judgement(units=(Unit(gold=self.labels[self._label_id(example)], predicted=said, score=score),))

    def score(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """The main metric, then accuracy, macro_f1, majority_share (accuracy of always saying the commonest label)."""
        units = [unit for judgement in judgements for unit in judgement.units]
        gold, predicted = [self._ids[str(unit.gold)] for unit in units], [self._ids[str(unit.predicted)] for unit in units]
        found = {
            "accuracy": metrics.accuracy(gold, predicted),
            "macro_f1": metrics.macro_f1(gold, predicted),
            "majority_share": max(Counter(gold).values()) / len(gold),
        }
        match self.config.metric:
            case "matthews":
                main = metrics.matthews(gold, predicted)
            case "f1":
                positive = self.labels[-1] if self.config.positive is None else self.config.positive
                main = metrics.binary_f1(gold, predicted, self._ids[positive])
            case name:
                main = found[name]
        return {self.config.metric: main} | found

    def tune(self, judgements: Sequence[Judgement]) -> Classify:
        """Nothing to choose: the most probable label wins."""
        return self

    def _label_id(self, example: Example) -> int:
        return label_id(_gold(example), self._ids, example)


def _gold(example: Example) -> str:
    """The label of an example, which must have one."""
    if isinstance(example.target, float) and not math.isnan(example.target):
        return repr(example.target)
    if not isinstance(example.target, str) or not example.target:
        raise no_label(example)
    return example.target


def _balanced(labels: Sequence[str], counts: Mapping[str, int], where: str) -> dict[str, float]:
    """examples / (labels * examples of the label)."""
    for label in labels:
        if not counts[label]:
            raise ElectraError("E-D310", where, f"no row has the label {label!r}, which balanced weights need",
                               "give rows that have it, or weights as a table")  # fmt: skip
    return {label: sum(counts.values()) / (len(labels) * counts[label]) for label in labels}
