"""Task `classify`: one text (or two), one label of a fixed set.

In: tables or JSON lines with a text and a label column. Out: `{"label", "score"}` for each text, as transformers'
text-classification pipeline, where score is the softmax probability of the label.

The labels are those of the setting, or those of the training file, sorted. The head reads the first token of a document;
the loss is the cross entropy, divided by the number of examples of the global batch. A label that is not in the set is an
error with file, line and the nearest label.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from electra import metrics
from electra.config import STRICT, to_tree
from electra.contracts import Batch, Encoded, Example, Judgement, Losses, Prediction, Reading, Term, Unit
from electra.errors import ElectraError
from electra.models.classic import ClassicEncoder
from electra.models.heads import ClassificationHead, Pooling
from electra.models.modern import ModernEncoder
from electra.tasks.common import encode_text
from electra.tasks.readers import Columns, read_texts
from electra.text.tokenizer import Tokenizer

_NO_LABEL = -100  # torch's ignore_index


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig:
    """Settings of `classify`.

    Args:
        labels: the set of labels, in the order of the outputs; None = those of the training file, sorted.
        max_length: tokens of a row with specials; what does not fit is cut and counted.
        pooling: what the head reads: the first token (`cls`), or the `mean` over all; None = the mean for modern encoders, the
            first token for classic ones, which transformers' class reads.
        columns: where a file has its texts and labels.
    """

    __pydantic_config__ = STRICT
    type: Literal["classify"] = "classify"
    labels: tuple[str, ...] | None = None
    max_length: int = 128
    pooling: Pooling | None = None
    columns: Columns = field(default_factory=Columns)

    def __post_init__(self) -> None:
        if self.labels is not None and (len(self.labels) < 2 or len(set(self.labels)) < len(self.labels)):
            raise ElectraError(
                "E-C300", "task.labels", f"{list(self.labels)} are not two or more different labels", "mend the list"
            )
        if self.max_length < 8:
            raise ElectraError(
                "E-C301", "task.max_length", f"{self.max_length} tokens leave no room for a text", "give 8 or more"
            )

    def build(self, tokenizer: Tokenizer) -> Classify:
        return Classify(self, tokenizer)


class Classify:
    """`contracts.TrainableTask` for single-label classification; see the module.

    Args:
        config: the settings.
        tokenizer: the encoder's.
    """

    def __init__(self, config: ClassifyConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.max_length, self.pad_id = config.max_length, tokenizer.pad_id
        self.per_token = self.whole_batch = False
        self._ids = {label: index for index, label in enumerate(config.labels or ())}

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the outputs."""
        if self.config.labels is None:
            raise ElectraError("E-C302", "task.labels", "not known yet", "name them, or take them from the training file first")
        return self.config.labels

    def fit(self, examples: Sequence[Example]) -> Classify:
        """This task with the labels of `examples`, or of its settings; every example must have one of them.

        Raises:
            ElectraError: E-D310 fewer than two labels, E-D311 a row without label, E-D312 a label that is not in the settings.
        """
        found = sorted({_gold(example) for example in examples})
        if self.config.labels is not None:
            for example in examples:
                self._label_id(example)
            return self
        if len(found) < 2:
            raise ElectraError("E-D310", _file(examples), f"every row has the label {found[0]!r}" if found else "no rows",
                               "give training data with at least two labels")  # fmt: skip
        return Classify(replace(self.config, labels=tuple(found)), self.tokenizer)

    def read(self, path: Path) -> Reading:
        return read_texts(path, self.config.columns)

    def encode(self, example: Example) -> list[Encoded]:
        """Tokens of the text and `label`, int64 []; an example without label gets -100, which no loss counts."""
        label = _NO_LABEL if example.target is None else self._label_id(example)
        encoded = encode_text(self.tokenizer, example, self.max_length)
        return [replace(encoded, targets={"label": np.array(label, dtype=np.int64)})]

    def head(self, encoder: nn.Module) -> ClassificationHead:
        """A fresh head: (hidden, layout) -> logits [B, labels]."""
        assert isinstance(encoder, ClassicEncoder | ModernEncoder), "the head follows the family of the encoder"
        pooling = self.config.pooling or ("mean" if isinstance(encoder, ModernEncoder) else "cls")
        return ClassificationHead(encoder.config, len(self.labels), pooling=pooling)

    def loss(self, outputs: Tensor, batch: Batch) -> Losses:
        """Cross entropy summed over the examples, in fp32.

        Args:
            outputs: float [B, labels], logits.
            batch: with target `label` int64 [B] and count `examples`.
        """
        label_B = batch.targets["label"]
        total = F.cross_entropy(outputs.float(), label_B, reduction="sum", ignore_index=_NO_LABEL)
        correct = (outputs.detach().argmax(dim=-1) == label_B).sum()
        totals = {"examples": (label_B != _NO_LABEL).sum(), "loss": total.detach(), "accuracy": correct}
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
        """accuracy (main), macro_f1, majority_share (accuracy of always saying the commonest label)."""
        units = [unit for judgement in judgements for unit in judgement.units]
        gold, predicted = [self._ids[str(unit.gold)] for unit in units], [self._ids[str(unit.predicted)] for unit in units]
        return {
            "accuracy": metrics.accuracy(gold, predicted),
            "macro_f1": metrics.macro_f1(gold, predicted),
            "majority_share": max(Counter(gold).values()) / len(gold),
        }

    def tune(self, judgements: Sequence[Judgement]) -> Classify:
        """Nothing to choose: the most probable label wins."""
        return self

    def to_json(self) -> dict[str, object]:
        return to_tree(self.config)

    def _label_id(self, example: Example) -> int:
        label = _gold(example)
        if label not in self._ids:
            near = difflib.get_close_matches(label, self.labels, n=1, cutoff=0.0)
            known = ", ".join(self.labels[:20])
            raise ElectraError("E-D312", example.where or "example", f"label {label!r} is not one of {known}",
                               f"nearest is {near[0]!r}; mend the row or add it to task.labels")  # fmt: skip
        return self._ids[label]


def _gold(example: Example) -> str:
    """The label of an example, which must have one."""
    if not isinstance(example.target, str) or not example.target:
        raise ElectraError("E-D311", example.where or "example", "has no label",
                           "add it, or set columns.label to the column that holds the labels")  # fmt: skip
    return example.target


def _file(examples: Sequence[Example]) -> str:
    return examples[0].where.rpartition(":")[0] if examples else "training data"
