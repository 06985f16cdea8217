"""What the tasks share that say one thing about a text, or about two: `classify`, `multilabel`, `regression`.

In: tables, JSON lines, parquet with a text and a label column. A text is one row, cut to `max_length` tokens; the head reads
one vector of it. Each task brings its targets, its loss and what the outputs mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt
from torch import nn

from electra.config import STRICT, to_tree
from electra.contracts import Encoded, Example, Reading
from electra.errors import ElectraError
from electra.models.classic import ClassicEncoder
from electra.models.encoder import Encoder
from electra.models.heads import ClassificationHead, Pooling, TwoLayerHead
from electra.tasks.common import encode_text
from electra.tasks.readers import Columns, read_texts
from electra.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Settings that these tasks share.

    Args:
        max_length: tokens of a row with specials; what does not fit is cut and counted.
        pooling: what the head reads: the first token (`cls`), or the `mean` over all; None = the first token for classic
            encoders, which transformers' class reads, the mean for others.
        head: `two-layer` = the head that transformers trains on ELECTRA; None = the paper's for classic encoders, ModernBERT's
            for others.
        pairs: every example has two texts, or none has; None = as in the training file.
        columns: where a file has its texts and labels.
    """

    __pydantic_config__ = STRICT
    max_length: int = 128
    pooling: Pooling | None = None
    head: Literal["two-layer"] | None = None
    pairs: bool | None = None
    columns: Columns = field(default_factory=Columns)

    def __post_init__(self) -> None:
        if self.max_length < 8:
            raise ElectraError(
                "E-C301", "task.max_length", f"{self.max_length} tokens leave no room for a text", "give 8 or more"
            )
        if self.head is not None and self.pooling == "mean":
            raise ElectraError("E-C345", "task.head", "the two-layer head reads the first token", "leave task.pooling out")


Config = TypeVar("Config", bound=TextConfig)


class LabelledText(Generic[Config]):
    """The shared part of a `contracts.TrainableTask`: reading, rows, head.

    Args:
        config: the settings.
        tokenizer: the encoder's.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.max_length, self.pad_id = config.max_length, tokenizer.pad_id
        self.per_token = self.whole_batch = False

    def read(self, path: Path) -> Reading:
        return read_texts(path, self.config.columns)

    def with_columns(self, inferred: Mapping[str, int]) -> Self:
        """This task, which reads other files without header by the columns that were inferred of the training file."""
        columns = replace(self.config.columns, inferred=dict(inferred))  # type: ignore[arg-type]
        return type(self)(replace(self.config, columns=columns), self.tokenizer)

    def with_pairs(self, examples: Sequence[Example]) -> Config:
        """The settings with `pairs` as in `examples`, or as they were; every example is checked. None of none."""
        pairs = self.config.pairs
        if pairs is None and examples:
            pairs = examples[0].pair is not None
        for example in examples:
            check_pair(example, pairs)
        return replace(self.config, pairs=pairs)

    def row(self, example: Example, name: str, target: npt.NDArray[np.generic]) -> list[Encoded]:
        """The text, or both, as one row with its target. Raises ElectraError E-D367, see `check_pair`."""
        check_pair(example, self.config.pairs)
        return [replace(encode_text(self.tokenizer, example, self.max_length), targets={name: target})]

    def fresh_head(self, encoder: nn.Module, outputs: int) -> ClassificationHead | TwoLayerHead:
        """A fresh head: (hidden, batch) -> [N, outputs].

        Raises:
            ElectraError: E-C345 the two-layer head on an encoder that is not classic, E-C314 the mean on a classic one.
        """
        assert isinstance(encoder, Encoder), "the head follows the family of the encoder"
        if self.config.head is None:
            pooling = self.config.pooling or ("cls" if isinstance(encoder, ClassicEncoder) else "mean")
            return ClassificationHead(encoder.config, outputs, pooling=pooling)
        if not isinstance(encoder, ClassicEncoder):
            cause = f"{encoder.config.type} encoders have one head, of ModernBERT's shape"
            raise ElectraError("E-C345", "task.head", cause, "leave it out")
        return TwoLayerHead(encoder.config, outputs)

    def to_json(self) -> dict[str, object]:
        return to_tree(self.config)


def check_pair(example: Example, pairs: bool | None) -> None:
    """Refuse one text where two were learnt from, and two where one was: the columns of the file are others.

    Raises:
        ElectraError: E-D367.
    """
    if pairs is not None and (example.pair is not None) != pairs:
        cause = "has one text, but pairs were learnt" if pairs else "has two texts, but single ones were learnt"
        raise ElectraError("E-D367", example.where or "example", cause,
                           "give a file of the same kind, or name its columns: columns.text"
                           + (" and columns.pair" if pairs else " alone"))  # fmt: skip
