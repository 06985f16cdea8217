"""What the tasks share that say one thing about a text, or about two: `classify`, `multilabel`, `regression`.

In: tables, JSON lines, parquet with a text and a label column. A text is one row, cut to `max_length` tokens; the head reads
one vector of it. Each task brings its targets, its loss and what the outputs mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from torch import nn

from electra.config import STRICT, to_tree
from electra.contracts import Encoded, Example, Reading
from electra.errors import ElectraError
from electra.models.classic import ClassicEncoder
from electra.models.heads import ClassificationHead, Pooling, TwoLayerHead
from electra.models.modern import ModernEncoder
from electra.tasks.common import encode_text
from electra.tasks.readers import Columns, read_texts
from electra.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Settings that these tasks share.

    Args:
        max_length: tokens of a row with specials; what does not fit is cut and counted.
        pooling: what the head reads: the first token (`cls`), or the `mean` over all; None = the mean for modern encoders, the
            first token for classic ones, which transformers' class reads.
        head: `two-layer` = the head that transformers trains on ELECTRA; None = the paper's for classic encoders, ModernBERT's
            for modern ones.
        columns: where a file has its texts and labels.
    """

    __pydantic_config__ = STRICT
    max_length: int = 128
    pooling: Pooling | None = None
    head: Literal["two-layer"] | None = None
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

    def row(self, example: Example, name: str, target: npt.NDArray[np.generic]) -> list[Encoded]:
        """The text, or both, as one row with its target."""
        return [replace(encode_text(self.tokenizer, example, self.max_length), targets={name: target})]

    def fresh_head(self, encoder: nn.Module, outputs: int) -> ClassificationHead | TwoLayerHead:
        """A fresh head: (hidden, batch) -> [N, outputs].

        Raises:
            ElectraError: E-C345 the two-layer head on a modern encoder, E-C314 the mean on a classic one.
        """
        assert isinstance(encoder, ClassicEncoder | ModernEncoder), "the head follows the family of the encoder"
        if self.config.head is None:
            pooling = self.config.pooling or ("mean" if isinstance(encoder, ModernEncoder) else "cls")
            return ClassificationHead(encoder.config, outputs, pooling=pooling)
        if isinstance(encoder, ModernEncoder):
            raise ElectraError("E-C345", "task.head", "modern encoders have one head, ModernBERT's", "leave it out")
        return TwoLayerHead(encoder.config, outputs)

    def to_json(self) -> dict[str, object]:
        return to_tree(self.config)
