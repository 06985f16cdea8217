"""Tasks that need no training: what the networks of pre-training say about a text.

`replaced`: the discriminator's probability, for each token, that it is not the original. `fill-mask`: the generator's best
tokens for each [MASK] of a text. In: one text. Out: JSON-ready figures in the key names of transformers' pipelines.

Both judge tokens, so a text of any length is read whole, in windows of `max_length` tokens whose outputs are put together
again (`common.cut_windows`). 128 is the default because learned positions beyond the row length of
pre-training were never trained.

Shapes: B rows, L positions, T tokens of a packed batch, D hidden size, M masks, V vocabulary, K candidates of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from electra.config import STRICT
from electra.contracts import Batch, Encoded, Example, Prediction, Reading
from electra.errors import ElectraError
from electra.models.encoder import Encoder
from electra.models.heads import MlmHead, RtdHead
from electra.tasks.common import characters_of, cut_windows, joined, whole_text
from electra.tasks.readers import Columns, read_texts
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
        _check_length(self.max_length)

    def build(self, tokenizer: Tokenizer) -> Replaced:
        return Replaced(self, tokenizer)


@dataclass(frozen=True, kw_only=True)
class FillMaskConfig:
    """Settings of `fill-mask`.

    Args:
        max_length: tokens of a window, with specials.
        top_k: candidates for each [MASK].
        text: column of a file that holds the text; see `readers.Columns`.
    """

    __pydantic_config__ = STRICT
    type: Literal["fill-mask"] = "fill-mask"
    max_length: int = 128
    top_k: int = 5
    text: str | int = "text"

    def __post_init__(self) -> None:
        _check_length(self.max_length)
        if self.top_k < 1:
            raise ElectraError("E-C304", "task.top_k", f"{self.top_k} candidates", "give 1 or more")

    def build(self, tokenizer: Tokenizer) -> FillMask:
        return FillMask(self, tokenizer)


def _check_length(max_length: int) -> None:
    if max_length < 8:
        raise ElectraError("E-C303", "task.max_length", f"{max_length} tokens leave no room for a text", "give 8 or more")


class Replaced:
    """`contracts.Task`: the probability that each token was replaced; network outputs are logits [B, L].

    Output: `score`, the mean probability over the text's tokens (0 for a text without tokens), and `tokens`, a list of `token`
    (the vocabulary's spelling), `start`, `end` (characters of the text) and `score`.
    """

    def __init__(self, config: ReplacedConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.max_length, self.pad_id = config.max_length, tokenizer.pad_id
        self.per_token = True

    def read(self, path: Path) -> Reading:
        return read_texts(path, Columns(text=self.config.text))

    def encode(self, example: Example) -> list[Encoded]:
        """The whole text, in windows, with the character offsets `start` and `end`, int64 [n]."""
        return cut_windows(whole_text(self.tokenizer.encode(example.text)), self.max_length)

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        probability_T = torch.sigmoid(joined(rows, outputs).float())[1:-1]
        tokens = [
            {"token": self.tokenizer.token_text(token), "start": start, "end": end, "score": score}
            for (token, start, end), score in zip(_tokens_of(rows)[1:-1], probability_T.tolist(), strict=True)
        ]
        return Prediction(text=example.text, output={"score": float(probability_T.mean()) if tokens else 0.0, "tokens": tokens})


class FillMask:
    """`contracts.Task`: the best tokens for each [MASK]; network outputs are [B, L, K, 2], see `FillMaskNetwork`.

    Output: `masks`, for each [MASK] in order a list of `score` (probability), `token` (id), `token_str`, `sequence` (the text
    with that mask filled); empty for a text without [MASK].
    """

    def __init__(self, config: FillMaskConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.max_length, self.pad_id = config.max_length, tokenizer.pad_id
        self.per_token = True

    def read(self, path: Path) -> Reading:
        return read_texts(path, Columns(text=self.config.text))

    def encode(self, example: Example) -> list[Encoded]:
        """The whole text, in windows, with the character offsets `start` and `end`, int64 [n]."""
        return cut_windows(whole_text(self.tokenizer.encode(example.text)), self.max_length)

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        candidates_TK2 = joined(rows, outputs)
        masks = [
            [self._candidate(example.text, start, end, int(token), score) for score, token in candidates_TK2[place].tolist()]
            for place, (mask, start, end) in enumerate(_tokens_of(rows))
            if mask == self.tokenizer.mask_id
        ]
        return Prediction(text=example.text, output={"masks": masks})

    def _candidate(self, text: str, start: int, end: int, token: int, score: float) -> dict[str, object]:
        token_text = self.tokenizer.token_text(token)
        before = text[:start].rstrip() if token_text.startswith("##") else text[:start]  # a continuation joins the word before
        surface = self.tokenizer.surface(token)
        sequence = before + (surface if before else surface.lstrip(" ")) + text[end:]
        return {"score": score, "token": token, "token_str": token_text, "sequence": sequence}


class ReplacedNetwork(nn.Module):
    """Discriminator: `network(batch)` -> logits float [B, L] or [T], positive = replaced."""

    def __init__(self, encoder: Encoder, head: RtdHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, batch: Batch) -> Tensor:
        logits: Tensor = self.head(self.encoder(batch.tokens, batch.positions, batch.types, batch.layout))
        return logits


class FillMaskNetwork(nn.Module):
    """Generator: `network(batch)` -> float [B, L, K, 2] or [T, K, 2], the K best tokens of each [MASK], best first.

    The last axis holds probability and token id (exact below 2**24). Other positions hold 0, and no vocabulary logits are
    computed for them.

    Args:
        encoder: the generator's encoder.
        head: its MLM head, tied to the encoder's token table.
        mask_id: id of [MASK].
        top_k: K; the vocabulary's size if that is smaller.
    """

    def __init__(self, encoder: Encoder, head: MlmHead, mask_id: int, top_k: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.mask_id = mask_id
        self.top_k = min(top_k, encoder.config.vocab_size)

    def forward(self, batch: Batch) -> Tensor:
        masked = batch.tokens == self.mask_id
        place_M = masked.flatten().nonzero()[:, 0]
        hidden_MD = self.encoder(batch.tokens, batch.positions, batch.types, batch.layout, at=place_M)
        logits_MV = self.head(hidden_MD, self.encoder.embeddings.table)
        probability_MK, token_MK = torch.softmax(logits_MV.float(), dim=-1).topk(self.top_k, dim=-1)
        outputs = probability_MK.new_zeros(*batch.tokens.shape, self.top_k, 2)
        outputs[masked] = torch.stack([probability_MK, token_MK.to(probability_MK.dtype)], dim=-1)
        return outputs


def _tokens_of(rows: Sequence[Encoded]) -> list[tuple[int, int, int]]:
    """Id, start and end of each token of the text, specials included."""
    ids = np.concatenate([row.tokens[row.targets["keep"]] for row in rows]).tolist()
    return [(token, *characters) for token, characters in zip(ids, characters_of(rows), strict=True)]
