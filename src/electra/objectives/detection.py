"""Telling replaced tokens from original ones: the discriminator, and the text that it reads.

Replaced token detection is one objective that uses this; its variants put other tokens in, or learn from other positions.
Where nothing else is trained, `losses_of` and `figures_of` are all that an objective has to say.
Shapes: N drawn positions, E embedding size; "token shape" is [B, L] or [T].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from electra.contracts import Batch, Losses, Term
from electra.models.encoder import Encoder
from electra.models.heads import RtdHead
from electra.objectives.masked import put
from electra.train.health import position_figures, position_totals, rtd_figures, rtd_totals

#: which tokens a discriminator learns from: all real ones, or the drawn ones (the paper's "ELECTRA 15 %")
LossOn = Literal["all", "drawn"]


class Discriminator(nn.Module):
    """Encoder and RTD head: one logit a token, positive = replaced."""

    def __init__(self, encoder: Encoder, head: RtdHead) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, batch: Batch, tokens: Tensor, shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits shaped as `tokens`, fp32, and the hidden states they were read from.

        Args:
            shift: token shape + [E], added to the embeddings before their norm.
        """
        embedded = None if shift is None else self.encoder.embeddings(tokens, batch.positions, batch.types, shift)
        hidden = self.encoder(tokens, batch.positions, batch.types, batch.layout, embeddings=embedded)
        return self.head(hidden).float(), hidden


@dataclass(frozen=True, kw_only=True)
class Corrupted:
    """A text with other tokens at its drawn positions.

    Args:
        tokens: token shape; what the discriminator reads.
        replaced: bool, token shape; where it differs from the original. A token that was guessed right counts as original.
    """

    tokens: Tensor
    replaced: Tensor


def corrupt(batch: Batch, value_N: Tensor) -> Corrupted:
    """`batch` with `value_N`, int64, at its drawn positions."""
    tokens = put(batch.tokens, batch.targets["drawn"].view(-1), value_N, batch.targets["drawn_weight"].view(-1))
    return Corrupted(tokens=tokens, replaced=(tokens != batch.tokens) & batch.layout.real)


@dataclass(frozen=True, kw_only=True)
class Detected:
    """What a discriminator makes of a corrupted text.

    Args:
        logits: token shape, fp32; positive = replaced.
        loss: token shape, fp32; binary cross entropy, 0 where nothing is learnt.
        unit: the count of the batch that a mean over it is divided by.
        totals: for log and health.
    """

    logits: Tensor
    loss: Tensor
    unit: str
    totals: dict[str, Tensor]

    def term(self, weight: float = 1.0) -> Term:
        """The mean of the loss over the tokens that are learnt from."""
        return Term(total=self.loss.sum(), unit=self.unit, weight=weight)


def detect(
    discriminator: Discriminator, batch: Batch, corrupted: Corrupted, shift: Tensor | None = None, loss_on: LossOn = "all"
) -> Detected:
    """Run the discriminator over `corrupted`; one forward pass.

    Args:
        shift: as in `Discriminator.forward`.
        loss_on: the tokens that it learns from and is judged by; a position that was drawn twice counts twice.
    """
    logits, hidden = discriminator(batch, corrupted.tokens, shift)
    loss = F.binary_cross_entropy_with_logits(logits, corrupted.replaced.to(logits.dtype), reduction="none")
    judged = batch.layout.real if loss_on == "all" else _times_drawn(batch)
    totals = rtd_totals(logits, corrupted.replaced, hidden, batch.layout, judged > 0)
    unit = "tokens" if loss_on == "all" else "drawn"
    return Detected(logits=logits, loss=loss * judged.to(loss.dtype), unit=unit, totals=totals)


def _times_drawn(batch: Batch) -> Tensor:
    """Token shape, fp32: how often each position was drawn."""
    weight_N = batch.targets["drawn_weight"].view(-1)
    times_T = torch.zeros(batch.tokens.numel(), dtype=weight_N.dtype, device=weight_N.device)
    return times_T.scatter_add_(0, batch.targets["drawn"].view(-1), weight_N).view_as(batch.tokens)


def losses_of(discriminator: Discriminator, batch: Batch, value_N: Tensor) -> Losses:
    """What an objective loses that trains the discriminator alone, on `batch` with `value_N` at its drawn positions."""
    detected = detect(discriminator, batch, corrupt(batch, value_N))
    targets = batch.targets
    return Losses(
        terms={"rtd": detected.term()},
        totals=detected.totals | position_totals(targets["drawn"], targets["drawn_weight"], targets["candidates"]),
    )


def figures_of(totals: Mapping[str, Tensor]) -> dict[str, float]:
    """The figures of the sums of `losses_of`."""
    figures = rtd_figures(totals)
    return {"loss": figures.get("rtd_loss", 0.0), **figures, **position_figures(totals)}
