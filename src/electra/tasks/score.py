"""Tasks that need no training: what the networks of pre-training say about a text.

`replaced`: the discriminator's probability, for each token, that it is not the original. `fill-mask`: the generator's best
tokens for each [MASK] of a text. In: one text. Out: JSON-ready figures in the key names of transformers' pipelines.

Both judge tokens, so a text of any length is read whole: the predictor cuts it into windows of `max_length` tokens and puts
the outputs together again (`common.cut_windows`). 128 is the default because learned positions beyond the row length of
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
from electra.contracts import Batch, Encoded, Example, Prediction
from electra.errors import ElectraError
from electra.models.encoder import Encoder
from electra.models.heads import MlmHead, RtdHead
from electra.tasks.common import rows_of
from electra.tasks.readers import Columns, read_examples
from electra.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class ReplacedConfig:
    """Settings of `replaced`.

    Args:
        max_length: tokens of a window, with specials.
        text: column of a file that holds the text; see `common.Columns`.
    """

    __pydantic_config__ = STRICT
    type: Literal["replaced"] = "replaced"
    max_length: int = 128
    text: str | int = "text"

    def __post_init__(self) -> None:
        _check_length(self.max_length)


@dataclass(frozen=True, kw_only=True)
class FillMaskConfig:
    """Settings of `fill-mask`.

    Args:
        max_length: tokens of a window, with specials.
        top_k: candidates for each [MASK].
        text: column of a file that holds the text; see `common.Columns`.
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

    def read(self, path: Path) -> list[Example]:
        return read_examples(path, Columns(text=self.config.text, label=None))

    def encode(self, example: Example) -> Encoded:
        """The whole text, uncut, with the character offsets `start` and `end`, int64 [n]."""
        return _encode_whole(self.tokenizer, example.text)

    def decode(self, outputs: Tensor, batch: Batch, examples: Sequence[Example]) -> list[Prediction]:
        rows = rows_of(torch.sigmoid(outputs.float()), batch.layout)
        predictions = []
        for example, row, probability in zip(examples, _token_rows(batch), rows, strict=True):
            tokens = [
                {"token": self.tokenizer.token_text(token), "start": start, "end": end, "score": score}
                for token, start, end, score in list(zip(*row, probability.tolist(), strict=True))[1:-1]
            ]
            score = float(probability[1:-1].mean()) if tokens else 0.0
            predictions.append(Prediction(text=example.text, output={"score": score, "tokens": tokens}))
        return predictions


class FillMask:
    """`contracts.Task`: the best tokens for each [MASK]; network outputs are [B, L, K, 2], see `FillMaskNetwork`.

    Output: `masks`, for each [MASK] in order a list of `score` (probability), `token` (id), `token_str`, `sequence` (the text
    with that mask filled); empty for a text without [MASK].
    """

    def __init__(self, config: FillMaskConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.max_length, self.pad_id = config.max_length, tokenizer.pad_id

    def read(self, path: Path) -> list[Example]:
        return read_examples(path, Columns(text=self.config.text, label=None))

    def encode(self, example: Example) -> Encoded:
        """The whole text, uncut, with the character offsets `start` and `end`, int64 [n]."""
        return _encode_whole(self.tokenizer, example.text)

    def decode(self, outputs: Tensor, batch: Batch, examples: Sequence[Example]) -> list[Prediction]:
        predictions = []
        for example, row, candidates in zip(examples, _token_rows(batch), rows_of(outputs, batch.layout), strict=True):
            masks = [
                [self._candidate(example.text, start, end, int(token), score) for score, token in candidates[position].tolist()]
                for position, (mask, start, end) in enumerate(zip(*row, strict=True))
                if mask == self.tokenizer.mask_id
            ]
            predictions.append(Prediction(text=example.text, output={"masks": masks}))
        return predictions

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


def _encode_whole(tokenizer: Tokenizer, text: str) -> Encoded:
    encoding = tokenizer.encode(text)
    offsets = np.array(encoding.offsets, dtype=np.int64)
    return Encoded(
        tokens=np.array(encoding.ids, dtype=np.int64),
        types=np.array(encoding.type_ids, dtype=np.int64),
        targets={"start": offsets[:, 0], "end": offsets[:, 1]},
    )


def _token_rows(batch: Batch) -> list[tuple[list[int], list[int], list[int]]]:
    """Token ids, starts and ends of each document, without padding."""
    columns = [rows_of(tensor, batch.layout) for tensor in (batch.tokens, batch.targets["start"], batch.targets["end"])]
    return [(tokens.tolist(), starts.tolist(), ends.tolist()) for tokens, starts, ends in zip(*columns, strict=True)]
