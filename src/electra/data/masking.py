"""Which positions of a row are drawn, and which of those become [MASK].

In come the candidates of each row and the row's noise, out comes a fixed number of drawn positions per row with weights.
A row of n real tokens draws k = min(max(1, round(rate * n)), candidates) positions, halves rounded to even, 0 if it has no
candidate; each candidate is equally likely, whatever the unit of drawing:

`token`: every position gets a number from the row's noise, and the k candidates with the smallest are drawn. Each drawn
position becomes [MASK] with probability `mask_token_rate`, independently, else keeps its token. (Clark et al., 2020, section
3.1, with the counts of their code.) With replacement, as their code does it, a position may be drawn twice; both stand in
the result.

`word` and `span`: whole words, one or several side by side, are drawn together (`spans.py`); at most one span of a row is drawn
in part, so that it is exactly k. A span becomes [MASK] as a whole or keeps its tokens as a whole (Joshi et al., 2020,
section 3.1).

K, the width of the result, depends on the configuration and the row length alone, so that shapes do not vary from step to
step; places beyond k have weight 0 and position 0. Shapes: B rows, L positions, K places.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from electra.config import STRICT
from electra.contracts import Noise
from electra.data.spans import draw_spans, span_starts
from electra.errors import ElectraError


@dataclass(frozen=True, kw_only=True)
class TokenUnit:
    """Single tokens."""

    __pydantic_config__ = STRICT
    type: Literal["token"] = "token"


@dataclass(frozen=True, kw_only=True)
class WordUnit:
    """Whole words, or n-grams of them.

    Args:
        ngrams: probabilities of 1, 2, 3 ... words side by side; Cui et al. (MacBERT, 2020) take .4, .3, .2, .1.
    """

    __pydantic_config__ = STRICT
    type: Literal["word"] = "word"
    ngrams: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not all(share >= 0 for share in self.ngrams) or not math.isclose(sum(self.ngrams), 1, abs_tol=1e-6):
            cause = f"{list(self.ngrams)} are not probabilities of 1, 2, 3 ... words"
            raise ElectraError("E-C244", "masking.unit.ngrams", cause, "give numbers from 0 to 1 that add up to 1")

    @property
    def shares(self) -> tuple[float, ...]:
        """The probabilities of spans of 1, 2, 3 ... words."""
        return self.ngrams


@dataclass(frozen=True, kw_only=True)
class SpanUnit:
    """Spans of whole words of geometric length (Joshi et al., SpanBERT, 2020, section 3.1).

    Lengths above `longest` are left out and the others scaled up, as in their code: 3.8 words on average, as in their paper.

    Args:
        p: probability that a span ends behind a word.
        longest: words of a span at most.
    """

    __pydantic_config__ = STRICT
    type: Literal["span"] = "span"
    p: float = 0.2
    longest: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1 or self.longest < 1:
            cause = f"p {self.p}, longest {self.longest} describe no length of a span"
            raise ElectraError("E-C244", "masking.unit", cause, "give 0 < p <= 1 and longest of 1 or more")

    @property
    def shares(self) -> tuple[float, ...]:
        """The probabilities of spans of 1, 2, 3 ... words."""
        weights = [(1 - self.p) ** words for words in range(self.longest)]
        return tuple(weight / sum(weights) for weight in weights)


MaskingUnit = Annotated[TokenUnit | WordUnit | SpanUnit, Field(discriminator="type")]


@dataclass(frozen=True, kw_only=True)
class MaskingConfig:
    """How many positions are drawn and what becomes of them.

    Args:
        unit: what is drawn together: single tokens, words, or spans of words.
        rate: share of a row's real tokens that is drawn.
        mask_token_rate: share of the drawn positions that becomes [MASK]; the others keep their token.
        final_rate: where given, the rate moves linearly from `rate` at the start of the run to this at its end.
        with_replacement: draw tokens as the published code does, where a position may come twice.
    """

    __pydantic_config__ = STRICT
    unit: MaskingUnit = field(default_factory=TokenUnit)
    rate: float = 0.15
    mask_token_rate: float = 0.85
    final_rate: float | None = None
    with_replacement: bool = False

    def __post_init__(self) -> None:
        for name, rate in (("rate", self.rate), ("final_rate", self.final_rate)):
            if rate is not None and not 0 < rate <= 1:
                raise ElectraError("E-C241", f"masking.{name}", f"{rate} is not a share of the tokens", "give 0 < rate <= 1")
        if not 0 <= self.mask_token_rate <= 1:
            cause = f"{self.mask_token_rate} is not a probability"
            raise ElectraError("E-C241", "masking.mask_token_rate", cause, "give a number from 0 to 1")
        if self.with_replacement and not isinstance(self.unit, TokenUnit):
            cause = f"a {self.unit.type} is drawn once or not at all"
            raise ElectraError("E-C245", "masking.with_replacement", cause, "leave it out, or draw tokens: masking.unit=token")

    def require_once(self, objective: str, *, masks: bool = True) -> None:
        """Raises E-C560 for what `objective` cannot follow: draws with replacement, since a token that it puts in has to stand
        there as it was drawn, and, unless it `masks`, a share that becomes [MASK]."""
        if self.with_replacement:
            raise ElectraError("E-C560", "masking.with_replacement", f"{objective} draws a position once", "leave it out")
        if not masks and self.mask_token_rate != MaskingConfig.mask_token_rate:
            raise ElectraError("E-C560", "masking.mask_token_rate", f"{objective} puts no [MASK] anywhere", "leave it out")

    @property
    def needs_words(self) -> bool:
        """Whether drawing asks where words begin."""
        return not isinstance(self.unit, TokenUnit)

    def rate_at(self, progress: float) -> float:
        """The rate when the share `progress` of the run is done."""
        return self.rate if self.final_rate is None else self.rate + (self.final_rate - self.rate) * progress

    def capacity(self, length: int) -> int:
        """K, the drawn positions that a row of `length` tokens has room for at any time of the run."""
        return max(1, round(max(self.rate, self.final_rate or 0.0) * length))


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The drawn positions of B rows.

    Args:
        positions: int64 [B, K], within the row; 0 where weight is 0.
        weight: float32 [B, K], 1 where the place is used, the first k of a row; else 0.
        is_mask: bool [B, K], the position becomes [MASK].
    """

    positions: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32]
    is_mask: npt.NDArray[np.bool_]


def candidates(
    tokens_BL: npt.NDArray[np.int64], real_BL: npt.NDArray[np.bool_], never_drawn: Collection[int]
) -> npt.NDArray[np.bool_]:
    """bool [B, L]: real tokens other than `never_drawn` ([CLS], [SEP] and [MASK])."""
    allowed_BL = real_BL.copy()
    for token in never_drawn:
        allowed_BL &= tokens_BL != token
    return allowed_BL


def draw(candidates_BL: npt.NDArray[np.bool_], real_B: npt.NDArray[np.int64], config: MaskingConfig, progress: float,
         noise: Noise, word_starts_BL: npt.NDArray[np.bool_] | None = None) -> Drawn:  # fmt: skip
    """Draws the positions of B rows.

    Args:
        candidates_BL: bool [B, L], where a row may be drawn.
        real_B: int [B], real tokens of each row, specials included.
        config: unit and rates.
        progress: share of the run that is done, for the rate's schedule.
        noise: the rows' random numbers; the result depends on them and on nothing outside of the row.
        word_starts_BL: bool [B, L], where words begin; needed for units other than the token.
    """
    capacity = config.capacity(candidates_BL.shape[1])
    wanted_B = np.maximum(1, np.rint(config.rate_at(progress) * real_B)).astype(np.int64)
    drawn_B = np.minimum(wanted_B, candidates_BL.sum(axis=1))
    used_BK = np.arange(capacity) < drawn_B[:, None]
    if isinstance(config.unit, TokenUnit):
        positions_BK = _token_positions(candidates_BL, capacity, config.with_replacement, noise)
        uniform_BK = noise.uniform("mask", capacity)
    else:
        assert word_starts_BL is not None, "words are drawn where it is known where they begin"
        starts_BL = span_starts(candidates_BL, word_starts_BL, config.unit.shares, noise)
        number_BL = draw_spans(candidates_BL, starts_BL, drawn_B, noise)
        row, column = np.nonzero(number_BL >= 0)
        positions_BK = np.zeros_like(used_BK, dtype=np.int64)
        positions_BK[row, number_BL[row, column]] = column
        span_BK = np.take_along_axis(np.cumsum(starts_BL, axis=1), positions_BK, axis=1) - 1
        uniform_BK = np.take_along_axis(noise.uniform("mask", candidates_BL.shape[1]), span_BK, axis=1)
    return Drawn(
        positions=np.where(used_BK, positions_BK, 0),
        weight=used_BK.astype(np.float32),
        is_mask=used_BK & (uniform_BK < config.mask_token_rate),
    )


def _token_positions(
    candidates_BL: npt.NDArray[np.bool_], capacity: int, with_replacement: bool, noise: Noise
) -> npt.NDArray[np.int64]:
    """int64 [B, K], single positions in the order in which they are drawn."""
    if with_replacement:
        order_BL = np.argsort(~candidates_BL, axis=1, kind="stable")  # candidates first, from left to right
        uniform_BK = noise.uniform("positions", capacity).astype(np.float64)
        places_BK = (uniform_BK * candidates_BL.sum(axis=1)[:, None]).astype(np.int64)
        return np.take_along_axis(order_BL, places_BK, axis=1)
    uniform_BL = np.where(candidates_BL, noise.uniform("positions", candidates_BL.shape[1]), np.float32(2.0))
    return np.argsort(uniform_BL, axis=1, kind="stable")[:, :capacity]  # stable: ties alike on every machine
