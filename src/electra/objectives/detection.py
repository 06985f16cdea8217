"""Telling replaced tokens from original ones: the discriminator, and the text that it reads.

Replaced token detection is one objective that uses this; its variants put other tokens in, or learn from other positions.
Shapes: N drawn positions, E embedding size; "token shape" is [B, L] or [T].
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from electra.contracts import Batch
from electra.models.encoder import Encoder
from electra.models.heads import RtdHead
from electra.objectives.masked import put
from electra.train.health import rtd_totals


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
        loss: token shape, fp32; binary cross entropy, 0 where there is padding.
        totals: for log and health.
    """

    logits: Tensor
    loss: Tensor
    totals: dict[str, Tensor]


def detect(discriminator: Discriminator, batch: Batch, corrupted: Corrupted, shift: Tensor | None = None) -> Detected:
    """Run the discriminator over `corrupted`; one forward pass. `shift` as in `Discriminator.forward`."""
    logits, hidden = discriminator(batch, corrupted.tokens, shift)
    real = batch.layout.real.to(logits.dtype)
    loss = F.binary_cross_entropy_with_logits(logits, corrupted.replaced.to(logits.dtype), reduction="none") * real
    return Detected(logits=logits, loss=loss, totals=rtd_totals(logits, corrupted.replaced, hidden, batch.layout))
