"""Task `fill-mask`: the best tokens for each [MASK] of a text, by the generator or any masked language model; without training.

In: one text. Out: JSON-ready figures in the key names of transformers' pipelines. A text of any length is read whole, in
windows, as `replaced` does.

Each mask is answered on its own, with the other masks still in the text, as transformers' pipeline does. With `joint`, the
masks are also filled together, the surest first: of all masks, the one whose best token is the most probable gets that token;
the others are asked again, with it in their context; and so on (the easy-first order of Mansimov et al., 2019). n masks take n
passes. Of masks that are equally sure it is the first one.

Shapes: B rows, L positions, T tokens of a packed batch, D hidden size, M masks, V vocabulary, K candidates of a mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from electra.config import STRICT
from electra.contracts import Batch, Encoded, Example, Prediction
from electra.errors import ElectraError
from electra.models.encoder import Encoder
from electra.models.heads import MlmHead
from electra.tasks.common import check_window, joined, tokens_of
from electra.tasks.rounds import Ask, Rounds
from electra.tasks.whole_texts import WholeTexts
from electra.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class FillMaskConfig:
    """Settings of `fill-mask`.

    Args:
        max_length: tokens of a window, with specials.
        top_k: candidates for each [MASK].
        joint: also fill all masks of a text together.
        text: column of a file that holds the text; see `readers.Columns`.
    """

    __pydantic_config__ = STRICT
    type: Literal["fill-mask"] = "fill-mask"
    max_length: int = 128
    top_k: int = 5
    joint: bool = False
    text: str | int = "text"

    def __post_init__(self) -> None:
        check_window(self.max_length)
        if self.top_k < 1:
            raise ElectraError("E-C304", "task.top_k", f"{self.top_k} candidates", "give 1 or more")

    def build(self, tokenizer: Tokenizer) -> FillMask:
        return FillMask(self, tokenizer)


class FillMask(WholeTexts[FillMaskConfig]):
    """`contracts.Task`: the best tokens for each [MASK]; network outputs are [B, L, K, 2], see `FillMaskNetwork`.

    Output: `masks`, for each [MASK] in order a list of `score` (probability), `token` (id), `token_str`, `sequence` (the text
    with that mask filled); empty for a text without [MASK]. Of `rounds` also `joint`: `sequence`, the text with all masks
    filled; `score`, the product of the probabilities with which they were; `fills`, of each mask `score`, `token`, `token_str`
    and `order`, which one it was, from 1.
    """

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        candidates_TK2 = joined(rows, outputs)
        masks = [
            [self._candidate(example.text, start, end, int(token), score) for score, token in candidates_TK2[place].tolist()]
            for place, (mask, start, end) in enumerate(tokens_of(rows))
            if mask == self.tokenizer.mask_id
        ]
        return Prediction(text=example.text, output={"masks": masks})

    def rounds(self, example: Example, rows: Sequence[Encoded]) -> Rounds:
        """Every mask on its own, then all together, see the module."""
        rows = list(rows)
        outputs = list((yield Ask(network="generator", rows=rows)))
        alone = self.decode(example, rows, outputs)
        fills: list[_Fill] = []
        while (fill := self._surest(rows, outputs)) is not None:
            fills.append(fill)
            changed = [number for number, row in enumerate(rows) if self._masked_at(row, fill.start).any()]
            for number in changed:
                tokens = np.where(self._masked_at(rows[number], fill.start), fill.token, rows[number].tokens)
                rows[number] = replace(rows[number], tokens=tokens)
            if any((row.tokens == self.tokenizer.mask_id).any() for row in rows):
                again = yield Ask(network="generator", rows=[rows[number] for number in changed])
                for number, output in zip(changed, again, strict=True):
                    outputs[number] = output
        return replace(alone, output={**alone.output, "joint": self._together(example.text, fills)})

    def _surest(self, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> _Fill | None:
        """The mask whose best token is the most probable; None if there is none."""
        best_T2 = joined(rows, outputs)[:, 0].tolist()
        found = [
            _Fill(start=start, end=end, token=int(best), score=score)
            for (token, start, end), (score, best) in zip(tokens_of(rows), best_T2, strict=True)
            if token == self.tokenizer.mask_id
        ]
        return max(found, key=lambda fill: fill.score, default=None)

    def _masked_at(self, row: Encoded, start: int) -> npt.NDArray[np.bool_]:
        """bool [n], the mask that begins at a character."""
        found: npt.NDArray[np.bool_] = (row.tokens == self.tokenizer.mask_id) & (row.targets["start"] == start)
        return found

    def _together(self, text: str, fills: Sequence[_Fill]) -> dict[str, object]:
        order = {fill.start: number for number, fill in enumerate(fills, start=1)}
        for fill in sorted(fills, key=lambda fill: -fill.start):  # from the right, so that places on the left stay
            text = self._filled(text, fill.start, fill.end, fill.token)
        told = [
            {"score": fill.score, "token": fill.token, "token_str": self.tokenizer.token_text(fill.token),
             "order": order[fill.start]}
            for fill in sorted(fills, key=lambda fill: fill.start)
        ]  # fmt: skip
        return {"sequence": text, "score": math.prod(fill.score for fill in fills), "fills": told}

    def _candidate(self, text: str, start: int, end: int, token: int, score: float) -> dict[str, object]:
        sequence = self._filled(text, start, end, token)
        return {"score": score, "token": token, "token_str": self.tokenizer.token_text(token), "sequence": sequence}

    def _filled(self, text: str, start: int, end: int, token: int) -> str:
        """`text` with a token in the place of the mask at characters `start` to `end`."""
        continues = self.tokenizer.token_text(token).startswith("##")
        before = text[:start].rstrip() if continues else text[:start]  # a continuation joins the word before
        surface = self.tokenizer.surface(token)
        return before + (surface if before else surface.lstrip(" ")) + text[end:]


@dataclass(frozen=True, kw_only=True)
class _Fill:
    """A token in the place of the mask at characters `start` to `end`, and its probability when it was filled in."""

    start: int
    end: int
    token: int
    score: float


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
        return _placed(_best(logits_MV, self.top_k), masked)


def best_tokens(logits: Tensor, masked: Tensor, top_k: int) -> Tensor:
    """What `FillMaskNetwork` returns, from logits [..., V] at all positions and which of them are masked, bool [...]."""
    return _placed(_best(logits[masked], min(top_k, logits.shape[-1])), masked)


def _best(logits_MV: Tensor, top_k: int) -> Tensor:
    probability_MK, token_MK = torch.softmax(logits_MV.float(), dim=-1).topk(top_k, dim=-1)
    return torch.stack([probability_MK, token_MK.to(probability_MK.dtype)], dim=-1)


def _placed(best_MK2: Tensor, masked: Tensor) -> Tensor:
    outputs = best_MK2.new_zeros(*masked.shape, *best_MK2.shape[1:])
    outputs[masked] = best_MK2
    return outputs
