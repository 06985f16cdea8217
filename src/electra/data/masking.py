"""Which positions of a row are drawn, and which of those become [MASK].

In come the candidates of each row and the row's noise, out comes a fixed number of drawn positions per row with weights.
A row of n real tokens draws k = min(max(1, round(rate * n)), candidates) positions, halves rounded to even, 0 if it has no
candidate; uniform over its candidates, without replacement: every position gets a number from the row's noise, and the k
candidates with the smallest are drawn. Each drawn position becomes [MASK] with probability `mask_token_rate`,
independently, else keeps its token. (Clark et al., 2020, section 3.1, with the counts of their code.)

With replacement, as their code does it, a position may be drawn twice; both stand in the result.

K, the width of the result, depends on the configuration and the row length alone, so that shapes do not vary from step to
step; places beyond k have weight 0 and position 0. Shapes: B rows, L positions, K places.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from electra.config import STRICT
from electra.contracts import Noise
from electra.errors import ElectraError


@dataclass(frozen=True, kw_only=True)
class MaskingConfig:
    """How many positions are drawn and what becomes of them.

    Args:
        rate: share of a row's real tokens that is drawn.
        mask_token_rate: share of the drawn positions that becomes [MASK]; the others keep their token.
        final_rate: where given, the rate moves linearly from `rate` at the start of the run to this at its end.
        with_replacement: draw as the published code does, where a position may come twice.
    """

    __pydantic_config__: ClassVar = STRICT
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
         noise: Noise) -> Drawn:  # fmt: skip
    """Draws the positions of B rows.

    Args:
        candidates_BL: bool [B, L], where a row may be drawn.
        real_B: int [B], real tokens of each row, specials included.
        config: rates.
        progress: share of the run that is done, for the rate's schedule.
        noise: the rows' random numbers; the result depends on them and on nothing outside of the row.
    """
    length = candidates_BL.shape[1]
    capacity = config.capacity(length)
    available_B = candidates_BL.sum(axis=1)
    wanted_B = np.maximum(1, np.rint(config.rate_at(progress) * real_B)).astype(np.int64)
    used_BK = np.arange(capacity) < np.minimum(wanted_B, available_B)[:, None]
    if config.with_replacement:
        order_BL = np.argsort(~candidates_BL, axis=1, kind="stable")  # candidates first, from left to right
        uniform_BK = noise.uniform("positions", capacity).astype(np.float64)
        places_BK = (uniform_BK * available_B[:, None]).astype(np.int64)
        positions_BK = np.take_along_axis(order_BL, places_BK, axis=1)
    else:
        uniform_BL = np.where(candidates_BL, noise.uniform("positions", length), np.float32(2.0))
        positions_BK = np.argsort(uniform_BL, axis=1, kind="stable")[:, :capacity]  # stable: ties alike on every machine
    return Drawn(
        positions=np.where(used_BK, positions_BK, 0),
        weight=used_BK.astype(np.float32),
        is_mask=used_BK & (noise.uniform("mask", capacity) < config.mask_token_rate),
    )
