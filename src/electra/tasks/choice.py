"""Task `choice`: a question and the answers to choose from, as many as each example has; the best one is wanted.

In: JSON lines with `question`, `context`, `choices`, `answer`. Out: `{"label", "index", "score", "scores"}`: the answer, its
number from 0, its probability, and those of all.

Each choice is read with the whole question: [CLS] context [SEP] question choice [SEP], or [CLS] question [SEP] choice [SEP].
The choices of an example are segments of one row, each gets one number from the head, and the softmax is over them.
The loss is the cross entropy, divided by the number of examples of the global batch.

Shapes: B examples, K choices of an example at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from electra.models.encoder import Encoder
from electra.models.heads import ChoiceHead, Pooling
from electra.tasks.common import encode_text, side_by_side
from electra.tasks.labels import NO_LABEL
from electra.tasks.readers import read_choices
from electra.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class ChoiceConfig:
    """Settings of `choice`.

    Args:
        max_length: tokens of a question with one choice and specials; what does not fit is cut, the longer part first, and
            counted.
        pooling: as of `classify`.
    """

    __pydantic_config__ = STRICT
    type: Literal["choice"] = "choice"
    max_length: int = 128
    pooling: Pooling | None = None

    def __post_init__(self) -> None:
        if self.max_length < 8:
            raise ElectraError(
                "E-C301", "task.max_length", f"{self.max_length} tokens leave no room for a text", "give 8 or more"
            )

    def build(self, tokenizer: Tokenizer) -> Choice:
        return Choice(self, tokenizer)


class Choice:
    """`contracts.TrainableTask` for multiple choice; see the module.

    Args:
        config: the settings.
        tokenizer: the encoder's.
    """

    def __init__(self, config: ChoiceConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.max_length, self.pad_id = config.max_length, tokenizer.pad_id
        self.per_token = self.whole_batch = False

    @property
    def labels(self) -> tuple[str, ...]:
        """None: each example brings its own choices."""
        return ()

    def read(self, path: Path) -> Reading:
        return read_choices(path)

    def fit(self, examples: Sequence[Example]) -> Choice:
        """This task: it has nothing to learn from them before training.

        Raises:
            ElectraError: E-D390 an example without choices, E-D391 one whose answer is none of them.
        """
        for example in examples:
            _choices(example)
            _answer(example)
        return self

    def encode(self, example: Example) -> list[Encoded]:
        """The choices side by side. Targets of the row, []: `texts`, their number; `answer`, -100 where there is none."""
        known, asked = (example.text, "") if example.pair is None else (example.pair, f"{example.text} ")
        parts = [
            encode_text(self.tokenizer, Example(text=known, pair=asked + choice), self.max_length)
            for choice in _choices(example)
        ]
        answer = NO_LABEL if example.target is None else _answer(example)
        return [side_by_side(parts, answer=np.array(answer, dtype=np.int64))]

    def head(self, encoder: nn.Module) -> ChoiceHead:
        """A fresh head: (hidden, batch) -> scores [B, K]."""
        assert isinstance(encoder, Encoder), "the head follows the family of the encoder"
        pooling = self.config.pooling or ("cls" if isinstance(encoder, ClassicEncoder) else "mean")
        return ChoiceHead(encoder.config, pooling=pooling)

    def loss(self, outputs: Tensor, batch: Batch) -> Losses:
        """Cross entropy summed over the examples, in fp32.

        Args:
            outputs: float [B, K], -inf beyond an example's choices.
            batch: with target `answer` int64 [B] and count `examples`.
        """
        answer_B = batch.targets["answer"]
        total = F.cross_entropy(outputs.float(), answer_B, reduction="sum", ignore_index=NO_LABEL)
        correct = (outputs.detach().argmax(dim=-1) == answer_B).sum()
        totals = {"examples": (answer_B != NO_LABEL).sum(), "loss": total.detach(), "accuracy": correct}
        return Losses(terms={"choice": Term(total=total, unit="examples")}, totals=totals)

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        """The most probable choice, and the probabilities of all."""
        choices = _choices(example)
        scores_K = torch.softmax(outputs[0].float()[: len(choices)], dim=-1)
        index = int(scores_K.argmax())
        output = {"label": choices[index], "index": index, "score": float(scores_K[index]), "scores": scores_K.tolist()}
        return Prediction(text=example.text, output=output)

    def judge(self, example: Example, prediction: Prediction) -> Judgement:
        """One unit, the number of the choice; `chance`, the probability of guessing it."""
        said, score = str(prediction.output["index"]), cast(float, prediction.output["score"])
        unit = Unit(gold=str(_answer(example)), predicted=said, score=score)
        return Judgement(units=(unit,), values={"chance": 1 / len(_choices(example))})

    def score(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """accuracy (main), chance (accuracy of guessing)."""
        units = [unit for judgement in judgements for unit in judgement.units]
        return {
            "accuracy": metrics.accuracy([unit.gold for unit in units], [unit.predicted for unit in units]),
            "chance": float(np.mean([judgement.values["chance"] for judgement in judgements])),
        }

    def tune(self, judgements: Sequence[Judgement]) -> Choice:
        """Nothing to choose: the most probable choice wins."""
        return self

    def to_json(self) -> dict[str, object]:
        return to_tree(self.config)


def _choices(example: Example) -> Sequence[str]:
    choices: Sequence[str] = example.given.get("choices", ())
    if len(choices) < 2:
        raise ElectraError("E-D390", example.where or "example", f"has {len(choices)} choices",
                           'give JSON lines with two or more texts in "choices"')  # fmt: skip
    return choices


def _answer(example: Example) -> int:
    answer = example.target
    if type(answer) is not int or not 0 <= answer < len(_choices(example)):
        raise ElectraError("E-D391", example.where or "example", f"answer {answer!r:.60} is none of its choices",
                           'add "answer": the number of the right choice, counted from 0, or its text')  # fmt: skip
    return answer
