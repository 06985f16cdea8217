"""Task `relation`: what holds between two mentions of a sentence, one label of a fixed set.

In: sentences with a head and a tail, marked by characters. Out: `{"label", "score", "head", "tail"}`, where score is the
softmax probability of the label. The network sees the mentions between markers (`tasks.markers`), with their types if
the training file has them.

Labels are what the training file says. `Cause-Effect(e1,e2)` and `Cause-Effect(e2,e1)` are directed: two labels of one
relation, whose subject is the head, or the tail. One label may stand for "no relation" (`none`); it is learnt as any other,
and left out where relations are counted.

The head (`mentions`) reads the hidden states at the two opening markers, as Zhou & Chen (2022); transformers has no class for
it. `cls` reads the first token, as `ForSequenceClassification` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
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
from electra.models.encoder import Encoder
from electra.models.heads import ClassificationHead, PairHead
from electra.tasks.labels import NO_LABEL, check_labels, file_of, known_labels, label_id, no_label
from electra.tasks.markers import Argument, Markers, arguments
from electra.tasks.readers import RelationColumns, read_relations
from electra.text.tokenizer import Tokenizer

_DIRECTED = re.compile(r"(.+?)\s*\(e([12]),\s*e([12])\)")
#: labels that mean "no relation", folded; the first that is there is taken
_NONE = ("no relation", "norelation", "na", "n/a", "none", "null", "unknown", "other", "无关系", "无", "未知", "其他", "其它")


@dataclass(frozen=True, kw_only=True)
class RelationConfig:
    """Settings of `relation`.

    Args:
        labels: the set of labels, in the order of the outputs; None = those of the training file, sorted.
        none: the label that means "no relation"; "" = there is none; None = found among the labels by its name.
        types: markers show the types of the mentions; None = if the training file has any.
        head: what is read: the opening markers of both `mentions`, or the first token (`cls`), as transformers' class does.
        max_length: tokens of a row with specials and markers; what does not fit is cut around the mentions and counted.
        columns: where a file has its sentences, mentions and relations.
    """

    __pydantic_config__ = STRICT
    type: Literal["relation"] = "relation"
    labels: tuple[str, ...] | None = None
    none: str | None = None
    types: bool | None = None
    head: Literal["mentions", "cls"] = "mentions"
    max_length: int = 128
    columns: RelationColumns = field(default_factory=RelationColumns)

    def __post_init__(self) -> None:
        check_labels(self.labels, 2)
        if self.labels is not None and self.none and self.none not in self.labels:
            raise ElectraError("E-C331", "task.none", f"{self.none!r} is not among the labels", 'mend it; "" = no such label')
        if self.max_length < 16:
            raise ElectraError("E-C301", "task.max_length", f"{self.max_length} tokens leave no room for markers and a text",
                               "give 16 or more")  # fmt: skip

    def build(self, tokenizer: Tokenizer) -> Relation:
        return Relation(self, tokenizer)


class Relation:
    """`contracts.TrainableTask` for the relation of two mentions; see the module.

    Args:
        config: the settings.
        tokenizer: the encoder's.

    Raises:
        ElectraError: E-M325 the tokenizer knows too few punctuation marks.
    """

    def __init__(self, config: RelationConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.markers = Markers(tokenizer)
        self.max_length, self.pad_id = config.max_length, tokenizer.pad_id
        self.per_token = False
        self.whole_batch = False
        self._ids = {label: index for index, label in enumerate(config.labels or ())}

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the outputs."""
        return known_labels(self.config.labels)

    @property
    def none(self) -> str | None:
        """The label that means "no relation", if there is one."""
        return _none(self.labels) if self.config.none is None else self.config.none or None

    @property
    def directed(self) -> bool:
        """Whether labels say which mention is the subject."""
        return any(_DIRECTED.fullmatch(label) for label in self.labels)

    def fit(self, examples: Sequence[Example]) -> Relation:
        """This task with the labels of `examples`, or of its settings, and whether their mentions have types.

        Raises:
            ElectraError: E-D310 fewer than two relations, E-D311 a row without one, E-D312 one that is not in the settings,
                E-C331 `none` is not among the labels; those of `markers.arguments`.
        """
        labels = self.config.labels or tuple(sorted({_gold(example) for example in examples}))
        if len(labels) < 2:
            raise ElectraError("E-D310", file_of(examples),
                               f"every row has the relation {labels[0]!r}" if labels else "no rows",
                               "give training data with at least two relations, of which one may be \"none\"")  # fmt: skip
        pairs = [arguments(example) for example in examples]
        types = any(argument.type for pair in pairs for argument in pair) if self.config.types is None else self.config.types
        none = _none(labels) or "" if self.config.none is None else self.config.none
        fitted = Relation(replace(self.config, labels=labels, types=types, none=none), self.tokenizer)
        for example in examples:
            fitted._label_id(example)
        return fitted

    def read(self, path: Path) -> Reading:
        """The examples of a file; of a training file the notes say what is taken from its labels."""
        found = read_relations(path, self.config.columns)
        fitted = None not in (self.config.labels, self.config.none, self.config.types)
        return found if fitted else Reading(examples=self._explaining(found), notes=found.notes)

    def _explaining(self, found: Reading) -> Iterator[Example]:
        """The examples of `found`; a last note says what their labels mean."""
        seen, typed = set[str](), False
        for example in found.examples:
            seen |= {example.target} if isinstance(example.target, str) else set()
            typed |= any(argument.type for argument in arguments(example))
            yield example
        labels = self.config.labels or tuple(sorted(seen))
        if len(labels) > 1:
            task = Relation(replace(self.config, labels=labels), self.tokenizer)
            found.notes.append(
                f"{len(labels)} labels{', directed' if task.directed else ''}; "
                f"{'none' if task.none is None else repr(task.none)} means no relation; "
                f"mentions have {'' if typed else 'no '}types; main metric {task.metric_names[0]}"
            )

    def encode(self, example: Example) -> list[Encoded]:
        """Tokens with markers; `head` and `tail`, int64 [], the tokens that open the mentions; `label`, int64 [], -100 without.

        Raises:
            ElectraError: those of `markers.arguments`, E-D382 the markers alone do not fit.
        """
        label = NO_LABEL if example.target is None else self._label_id(example)
        pair = arguments(example)
        head, tail = pair if self.config.types else (replace(argument, type=None) for argument in pair)
        marked = self.markers.encode(example, head, tail, self.max_length)
        targets = {name: np.array(value, dtype=np.int64)
                   for name, value in (("label", label), ("head", marked.head), ("tail", marked.tail))}  # fmt: skip
        zeros = np.zeros_like(marked.tokens)
        return [Encoded(tokens=marked.tokens, types=zeros, targets=targets, truncated=marked.truncated)]

    def head(self, encoder: nn.Module) -> PairHead | ClassificationHead:
        """A fresh head: (hidden, batch) -> logits [B, labels]."""
        assert isinstance(encoder, Encoder), "the head follows the family of the encoder"
        kind = PairHead if self.config.head == "mentions" else ClassificationHead
        return kind(encoder.config, len(self.labels))

    def loss(self, outputs: Tensor, batch: Batch) -> Losses:
        """Cross entropy summed over the examples, in fp32.

        Args:
            outputs: float [B, labels], logits.
            batch: with target `label` int64 [B] and count `examples`.
        """
        label_B = batch.targets["label"]
        total = F.cross_entropy(outputs.float(), label_B, reduction="sum", ignore_index=NO_LABEL)
        correct = (outputs.detach().argmax(dim=-1) == label_B).sum()
        totals = {"examples": (label_B != NO_LABEL).sum(), "loss": total.detach(), "accuracy": correct}
        return Losses(terms={"relation": Term(total=total, unit="examples")}, totals=totals)

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        """The most probable label, its probability, and the two mentions."""
        [logits_N] = outputs
        score, index = torch.softmax(logits_N.float(), dim=-1).max(dim=-1)
        head, tail = (_shown(example.text, argument) for argument in arguments(example))
        output = {"label": self.labels[int(index)], "score": float(score), "head": head, "tail": tail}
        return Prediction(text=example.text, output=output)

    def judge(self, example: Example, prediction: Prediction) -> Judgement:
        """One unit: the label."""
        said, score = str(prediction.output["label"]), cast(float, prediction.output["score"])
        return Judgement(units=(Unit(gold=self.labels[self._label_id(example)], predicted=said, score=score),))

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the scores, the main one first: macro_f1 of directed labels, else micro_f1 if one means "no relation", else
        accuracy."""
        if self.directed:
            return "macro_f1", "micro_f1", "accuracy"
        return ("micro_f1", "macro_f1", "accuracy") if self.none is not None else ("accuracy", "macro_f1", "micro_f1")

    def score(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """macro_f1 over relations as SemEval-2010 task 8 scores it, micro_f1 over all that is a relation, accuracy; see
        `metrics`. In the order of `metric_names`."""
        units = [unit for judgement in judgements for unit in judgement.units]
        gold, predicted = [str(unit.gold) for unit in units], [str(unit.predicted) for unit in units]
        families = {label: relation_of(label)[0] for label in self.labels if label != self.none}
        found = {
            "macro_f1": metrics.directed_macro_f1(gold, predicted, families),
            "micro_f1": metrics.micro_f1(gold, predicted, families),
            "accuracy": metrics.accuracy(gold, predicted),
        }
        return {name: found[name] for name in self.metric_names}

    def tune(self, judgements: Sequence[Judgement]) -> Relation:
        """Nothing to choose: the most probable label wins."""
        return self

    def to_json(self) -> dict[str, object]:
        return to_tree(self.config)

    def _label_id(self, example: Example) -> int:
        return label_id(_gold(example), self._ids, example)


def relation_of(label: str) -> tuple[str, bool]:
    """The relation that a label names, and whether its subject is the tail: `Cause-Effect(e2,e1)` -> ("Cause-Effect", True)."""
    found = _DIRECTED.fullmatch(label)
    return (found[1], found[2] == "2") if found and found[2] != found[3] else (label, False)


def _none(labels: Sequence[str]) -> str | None:
    """The label whose name says that there is no relation."""
    folded = {re.sub(r"[_\-\s]+", " ", label).strip().casefold(): label for label in reversed(labels)}
    return next((folded[name] for name in _NONE if name in folded), None)


def _gold(example: Example) -> str:
    """The relation of an example, which must have one."""
    if not isinstance(example.target, str) or not example.target:
        raise no_label(example)
    return example.target


def _shown(text: str, argument: Argument) -> dict[str, object]:
    kind = {} if argument.type is None else {"type": argument.type}
    return {"word": text[argument.start : argument.end], "start": argument.start, "end": argument.end, **kind}
