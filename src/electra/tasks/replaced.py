"""Task `replaced`: the discriminator's probability, for each token of a text, that it is not the original; without training.

In: one text. Out: JSON-ready figures in the key names of transformers' pipelines. A text of any length is read whole, in
windows of `max_length` tokens whose outputs are put together again (`common.cut_windows`). 128 is the default because learned
positions beyond the row length of pre-training were never trained.

Shapes: B rows, L positions, T tokens of a packed batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from electra.config import STRICT
from electra.contracts import Batch, Encoded, Example, Prediction
from electra.models.encoder import Encoder
from electra.models.heads import RtdHead
from electra.tasks.common import check_window, joined, tokens_of
from electra.tasks.whole_texts import WholeTexts
from electra.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class ReplacedConfig:
    """Settings of `replaced`.

    Args:
        max_length: tokens of a window, with specials.
        text: column of a file that holds the text; see `readers.Columns`.
    """

    __pydantic_config__ = STRICT
    type: Literal["replaced"] = "replaced"
    max_length: int = 128
    text: str | int = "text"

    def __post_init__(self) -> None:
        check_window(self.max_length)

    def build(self, tokenizer: Tokenizer) -> Replaced:
        return Replaced(self, tokenizer)


class Replaced(WholeTexts[ReplacedConfig]):
    """`contracts.Task`: the probability that each token was replaced; network outputs are logits [B, L].

    Output: `score`, the mean probability over the text's tokens (0 for a text without tokens), and `tokens`, a list of `token`
    (the vocabulary's spelling), `start`, `end` (characters of the text) and `score`.
    """

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        probability_T = torch.sigmoid(joined(rows, outputs).float())[1:-1]
        tokens = [
            {"token": self.tokenizer.token_text(token), "start": start, "end": end, "score": score}
            for (token, start, end), score in zip(tokens_of(rows)[1:-1], probability_T.tolist(), strict=True)
        ]
        return Prediction(text=example.text, output={"score": float(probability_T.mean()) if tokens else 0.0, "tokens": tokens})


class ReplacedNetwork(nn.Module):
    """Discriminator: `network(batch)` -> logits float [B, L] or [T], positive = replaced."""

    def __init__(self, encoder: Encoder, head: RtdHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, batch: Batch) -> Tensor:
        logits: Tensor = self.head(self.encoder(batch.tokens, batch.positions, batch.types, batch.layout))
        return logits
