"""Task `score`: how likely a text is, token by token, by networks of pre-training; needs no training.

In: one text. Out: a score of each token, the natural logarithm of a probability or what stands for it (higher = likelier), and
of the text, which is their sum, mean or minimum. The methods:

    rtd            log P(token is the original), by the discriminator: log sigmoid(-z); one pass
    electric       log P(token | all others), as an energy model has learnt it (Clark et al., 2020b, section 4.2): -E; one pass.
                   Energies are not normalised: those of a model that has not converged may be below 0
    causal         log P(token | those before it), by a causal language model: one pass. The sum is log P(text) but for its end,
                   exp(-sum / tokens) the perplexity
    pll            log P(token | all others), by the generator or any masked language model: a pass for each token, in which
                   only that token is masked (pseudo-log-likelihood; Salazar et al., 2020, section 2)
    pll-word-l2r   the same, but the tokens of the same word to the right are masked, too, so that a word of several pieces is
                   not given away by its own end (Kauf & Ivanova, 2023, section 3); words are those of `word_grid`, and a token
                   of spaces belongs to the word before it

Each masked token is a row of its own; the vocabulary's logits are computed at that token only. A text of any length is read
whole, in windows of `max_length` tokens (`common.cut_windows`): each token is judged in the window that shows the most around
it, and what is masked is masked in that window. So a score depends on the text, the method and `max_length` only.

`doubt`, from 0 to 1, says how odd a token is, for display: the probability that it was replaced; of other methods
-log P / (2 log V), so that .5 is a draw from the vocabulary at random.

A special token that is written out in a text is text.

Shapes: B rows, L positions, T tokens of a packed batch, D hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from electra.config import STRICT
from electra.contracts import Batch, Encoded, Example, Padded, Prediction
from electra.models.encoder import Encoder
from electra.models.heads import EnergyHead, MlmHead, RtdHead
from electra.models.model_dir import ModelDir
from electra.models.vocabulary import guess_in_parts
from electra.tasks.common import check_window, cut_windows, joined, tokens_of, whole_text
from electra.tasks.whole_texts import WholeTexts
from electra.tasks.word_grid import word_grid
from electra.text.tokenizer import Tokenizer

MethodName = Literal["rtd", "electric", "causal", "pll", "pll-word-l2r"]
Reduction = Literal["sum", "mean", "min"]


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Settings of `score`.

    Args:
        method: how tokens are scored; see the module.
        reduce: what makes a score of a text from those of its tokens.
        max_length: tokens of a window, with specials.
        text: column of a file that holds the text; see `readers.Columns`.
    """

    __pydantic_config__ = STRICT
    type: Literal["score"] = "score"
    method: MethodName = "rtd"
    reduce: Reduction = "sum"
    max_length: int = 128
    text: str | int = "text"

    def __post_init__(self) -> None:
        check_window(self.max_length)

    def build(self, tokenizer: Tokenizer) -> Score:
        return Score(self, tokenizer)


class Score(WholeTexts[ScoreConfig]):
    """`contracts.Task`: scores of tokens and texts; network outputs are [B, L], or [B] where each row masks one token.

    Output: `score`; `method`; `reduce`; `tokens`, a list of `token` (the vocabulary's spelling), `start`, `end` (characters of
    the text), `score`, `doubt`. The score of a text without tokens is 0.
    """

    def __init__(self, config: ScoreConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self.method = METHODS[config.method]
        self.per_token = self.method.masks is None

    def encode(self, example: Example) -> list[Encoded]:
        """The windows of the text; or one row for each token, in the window that keeps it, with that token masked.

        Targets of a window: `start`, `end`, `keep`. Targets of a masked row, int64 []: `place` and `original`, where the token
        stands in the row and which it is; `start`, `end`, its characters.
        """
        whole = whole_text(self.tokenizer.encode_literally(example.text))
        if self.method.masks is None:
            return cut_windows(whole, self.max_length)
        words = _words(example.text, whole)
        windows = cut_windows(replace(whole, targets={**whole.targets, "word": words}), self.max_length)
        return [row for window in windows for row in self._masked(window, self.method.masks)]

    def _masked(self, window: Encoded, masks: Masks) -> Iterator[Encoded]:
        """A row for each token that the window keeps, but for specials."""
        word_n = window.targets["word"]
        for place in np.flatnonzero(window.targets["keep"]).tolist():
            if not 0 < place < len(window.tokens) - 1:
                continue
            tokens = window.tokens.copy()
            if masks == "word-l2r":
                tokens[place:][word_n[place:] == word_n[place]] = self.tokenizer.mask_id
            tokens[place] = self.tokenizer.mask_id
            targets = {name: window.targets[name][place] for name in ("start", "end")}
            known = {"place": np.array(place, dtype=np.int64), "original": window.tokens[place]}
            yield Encoded(tokens=tokens, types=window.types, targets={**known, **targets})

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        if self.method.masks is None:
            scores, places = joined(rows, outputs).tolist()[1:-1], tokens_of(rows)[1:-1]
        else:
            scores = [float(output) for output in outputs]
            places = [(int(t["original"]), int(t["start"]), int(t["end"])) for t in (row.targets for row in rows)]
        tokens = [
            {"token": self.tokenizer.token_text(token), "start": start, "end": end, "score": score,
             "doubt": self.method.doubt(score, self.tokenizer.vocab_size)}
            for score, (token, start, end) in zip(scores, places, strict=True)
        ]  # fmt: skip
        score = _REDUCTIONS[self.config.reduce](scores) if scores else 0.0
        output = {"score": score, "method": self.config.method, "reduce": self.config.reduce, "tokens": tokens}
        return Prediction(text=example.text, output=output)


_REDUCTIONS: Mapping[Reduction, Callable[[Sequence[float]], float]] = {
    "sum": math.fsum,
    "mean": lambda scores: math.fsum(scores) / len(scores),
    "min": min,
}


def _words(text: str, whole: Encoded) -> npt.NDArray[np.int64]:
    """int64 [n], the number of each token's word; -1 for specials at the beginning, and for spaces there."""
    offsets = np.stack([whole.targets["start"], whole.targets["end"]], axis=1)[1:-1].tolist()
    first = word_grid(text, offsets).tokens + 1  # specials have no offsets
    word_n = np.searchsorted(first, np.arange(len(whole.tokens)), side="right") - 1
    word_n[-1] = len(first)
    return word_n


# -- networks -----------------------------------------------------------------------------------------------------------


class ScoreNetwork(nn.Module):
    """An encoder with a head that scores tokens.

    Args:
        encoder: of the discriminator, the energy model or the masked language model.
        head: what stands on it.
    """

    def __init__(self, encoder: Encoder, head: RtdHead | EnergyHead | MlmHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head


class OriginalNetwork(ScoreNetwork):
    """Discriminator: `network(batch)` -> log P(original), float [B, L] or [T]."""

    def forward(self, batch: Batch) -> Tensor:
        return self.scores(self.head(self.encoder(batch.tokens, batch.positions, batch.types, batch.layout)))

    @staticmethod
    def scores(logits: Tensor) -> Tensor:
        """What the head gives -> log P(original)."""
        return F.logsigmoid(-logits.float())


class EnergyNetwork(ScoreNetwork):
    """Energy model: `network(batch)` -> log p^(token given all others) = -E, float [B, L] or [T]."""

    def forward(self, batch: Batch) -> Tensor:
        return self.scores(self.head(self.encoder(batch.tokens, batch.positions, batch.types, batch.layout)))

    @staticmethod
    def scores(energy: Tensor) -> Tensor:
        """What the head gives -> log p^."""
        return -energy.float()


class NextTokenNetwork(ScoreNetwork):
    """Causal language model: `network(batch)` -> log P(token given those before it), float [B, L] or [T].

    What stands at the first token of a row, which follows nothing, means nothing.
    """

    def forward(self, batch: Batch) -> Tensor:
        assert isinstance(self.head, MlmHead)
        layout = replace(batch.layout, order="forward")
        hidden = self.encoder(batch.tokens, batch.positions, torch.zeros_like(batch.types), layout)
        hidden_NE = self.head.transform(hidden).flatten(0, -2)
        next_N = batch.tokens.flatten().roll(-1)
        guessed = guess_in_parts(hidden_NE, self.encoder.embeddings.table, self.head.bias, next_N)
        return -guessed.nll_N.float().roll(1).view(batch.tokens.shape)


class MaskedTokenNetwork(ScoreNetwork):
    """Masked language model: `network(batch)` -> log P(original token) at the one place of each row, float [B].

    The batch has the targets `place` and `original`, int64 [B].
    """

    def forward(self, batch: Batch) -> Tensor:
        place_B, layout = batch.targets["place"], batch.layout
        if isinstance(layout, Padded):
            first_B = torch.arange(len(place_B), device=place_B.device) * batch.tokens.shape[1]
        else:
            first_B = layout.cu_seqlens[:-1].long()
        hidden_BD = self.encoder(batch.tokens, batch.positions, batch.types, batch.layout, at=first_B + place_B)
        logits_BV = self.head(hidden_BD, self.encoder.embeddings.table)
        return -F.cross_entropy(logits_BV.float(), batch.targets["original"], reduction="none")


# -- methods ------------------------------------------------------------------------------------------------------------

#: what is hidden when a token is scored: itself, or itself and the rest of its word
Masks = Literal["token", "word-l2r"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """How tokens are scored.

    Args:
        needs: what a model must have, in words.
        network: made of a model; None where it lacks what is needed.
        masks: what is masked, a row for each token; None = one pass over the text as it is.
        doubt: (score, size of the vocabulary) -> how odd the token is, from 0 to 1.
    """

    needs: str
    network: Callable[[ModelDir], ScoreNetwork | None]
    masks: Masks | None
    doubt: Callable[[float, int], float]


def _original(model: ModelDir) -> ScoreNetwork | None:
    return None if model.rtd_head is None else OriginalNetwork(model.encoder, model.rtd_head)


def _energy(model: ModelDir) -> ScoreNetwork | None:
    return None if model.energy_head is None else EnergyNetwork(model.encoder, model.energy_head)


def _next_token(model: ModelDir) -> ScoreNetwork | None:
    return None if model.causal_head is None else NextTokenNetwork(model.encoder, model.causal_head)


def _masked_token(model: ModelDir) -> ScoreNetwork | None:
    masked = model.masked_model
    return None if masked is None else MaskedTokenNetwork(masked.encoder, masked.mlm_head)


def _surprise(score: float, vocabulary: int) -> float:
    return min(1.0, max(0.0, -score / (2 * math.log(vocabulary))))


_MASKED = "generator or masked language model"
METHODS: Mapping[MethodName, Method] = {
    "rtd": Method(
        needs="discriminator (RTD) head", network=_original, masks=None, doubt=lambda score, vocabulary: -math.expm1(score)
    ),
    "electric": Method(needs="energy head", network=_energy, masks=None, doubt=_surprise),
    "causal": Method(needs="causal language modelling head", network=_next_token, masks=None, doubt=_surprise),
    "pll": Method(needs=_MASKED, network=_masked_token, masks="token", doubt=_surprise),
    "pll-word-l2r": Method(needs=_MASKED, network=_masked_token, masks="word-l2r", doubt=_surprise),
}
