"""A masked language model: an encoder and its head, with vocabulary logits only where they are asked for.

The generator of ELECTRA is one, and so is the encoder of the `mlm` objective. Shapes: T tokens of the flattened batch,
N = B * K drawn positions, D hidden size, E embedding size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from electra.contracts import Batch, Layout, Noise
from electra.errors import ElectraError
from electra.models.encoder import Encoder
from electra.models.heads import CausalHead, MlmHead
from electra.models.vocabulary import Guess, guess, guess_in_parts
from electra.train.health import mlm_totals


class MaskedLanguageModel(nn.Module):
    """Encoder and MLM head, tied to the encoder's token table."""

    def __init__(self, encoder: Encoder, head: MlmHead) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(
        self, batch: Batch, tokens: Tensor, position_N: Tensor, original_N: Tensor, uniform_N: Tensor | None, temperature: float
    ) -> tuple[Guess, Tensor]:
        """What it says at flat `position_N` of `tokens` (shaped as `batch.tokens`), against `original_N`, see `guess`; and the
        hidden states [N, D] it was read from."""
        hidden_ND = self.encoder(tokens, batch.positions, batch.types, batch.layout, at=position_N)
        hidden_NE = self.head.transform(hidden_ND)
        table_VE = self.encoder.embeddings.table
        return guess(hidden_NE, table_VE, self.head.bias, original_N, uniform_N, temperature), hidden_ND


class CausalLanguageModel(nn.Module):
    """Encoder and causal head, tied to the encoder's token table."""

    def __init__(self, encoder: Encoder, head: CausalHead) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, batch: Batch, tokens: Tensor, layout: Layout, position_N: Tensor, next_N: Tensor) -> Guess:
        """What it says at flat `position_N` of `tokens` about the token behind, `next_N`, where `layout` says who sees whom.

        All tokens are of type 0, as those that it will generate.
        """
        hidden_ND = self.encoder(tokens, batch.positions, torch.zeros_like(batch.types), layout, at=position_N)
        return guess_in_parts(self.head.transform(hidden_ND), self.encoder.embeddings.table, self.head.bias, next_N)


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What a masked language model made of a batch, at its drawn positions.

    Args:
        position_N: flat positions; entries of weight 0 only fill the shape.
        weight_N: 1 where the position was drawn, 0 where it fills up.
        guess: what the model says there.
        hidden_ND: the encoder's last hidden states there.
    """

    position_N: Tensor
    weight_N: Tensor
    guess: Guess
    hidden_ND: Tensor

    @property
    def loss(self) -> Tensor:
        """Sum of the cross entropy over the drawn positions."""
        return (self.guess.nll_N * self.weight_N).sum()


def fill(
    model: MaskedLanguageModel, batch: Batch, mask_id: int, uniform_N: Tensor | None = None, temperature: float = 1.0
) -> Filled:
    """Mask the drawn positions of a batch and let `model` say what stood there; one forward pass.

    Args:
        uniform_N: one random number for each position, where a token is to be sampled.
        temperature: of the samples.
    """
    position_N = batch.targets["drawn"].view(-1)
    original_N = batch.tokens.view(-1).index_select(0, position_N)
    guessed, hidden_ND = model(batch, masked_text(batch, mask_id), position_N, original_N, uniform_N, temperature)
    return Filled(position_N=position_N, weight_N=batch.targets["drawn_weight"].view(-1), guess=guessed, hidden_ND=hidden_ND)


def masked_text(batch: Batch, mask_id: int) -> Tensor:
    """The tokens of a batch with [MASK] where its targets say so."""
    position_N = batch.targets["drawn"].view(-1)
    return put(batch.tokens, position_N, torch.full_like(position_N, mask_id), batch.targets["is_mask"].view(-1))


def totals_of(filled: Filled, batch: Batch) -> dict[str, Tensor]:
    """What the log and the health of a masked language model need of one micro-batch."""
    shape = batch.targets["drawn"].shape
    return mlm_totals(
        filled.guess.nll_N.detach().view(shape),
        filled.guess.correct_N.view(shape),
        filled.position_N.view(shape),
        filled.weight_N.view(shape),
        batch.targets["candidates"],
    )


def encoder_totals(guess: Guess, weight_N: Tensor) -> dict[str, Tensor]:
    """What the log needs of a network that reads a text which a generator has filled, at the drawn positions."""
    return {
        "encoder_loss": (guess.nll_N.detach() * weight_N).sum(),
        "encoder_correct": (guess.correct_N * weight_N).sum(),
    }


def encoder_figures(totals: Mapping[str, Tensor]) -> dict[str, float]:
    """`encoder_loss`, nats per drawn position, and `encoder_accuracy`; {} where nothing was drawn."""
    drawn = float(totals["mlm_drawn"])
    names = {"encoder_loss": "encoder_loss", "encoder_accuracy": "encoder_correct"}
    return {figure: float(totals[total]) / drawn for figure, total in names.items()} if drawn else {}


def put(tokens: Tensor, position_N: Tensor, value_N: Tensor, where_N: Tensor) -> Tensor:
    """`tokens` with `value_N` at flat `position_N` where `where_N` holds.

    A position that is written more than once gets the floor of the mean of its values, as the reference code does when it
    draws with replacement; positions drawn without replacement are written at most once, and the mean is the value.
    No shape depends on the data, so that nothing waits for a device.
    """
    flat_T = tokens.view(-1)
    where_N = where_N.to(flat_T.dtype)
    sum_T = torch.zeros_like(flat_T).scatter_add_(0, position_N, value_N * where_N)
    count_T = torch.zeros_like(flat_T).scatter_add_(0, position_N, where_N)
    return torch.where(count_T > 0, sum_T // count_T.clamp_min(1), flat_T).view_as(tokens)


def temperature_at(first: float, decay: float, progress: float) -> float:
    """The temperature of sampling when the share `progress` of the steps is done: from `first` to 1 (Fast-ELECTRA)."""
    return 1 + (first - 1) * math.exp(-progress / decay)


def require_temperature(first: float, decay: float) -> None:
    """Raises E-C431 for numbers that are no temperature and no decay."""
    if first <= 0 or decay <= 0:
        raise ElectraError("E-C431", "objective.temperature", "temperature and its decay must be positive", "use 1.0 and 0.1")


def require_weight(weight: float, name: str = "weight") -> None:
    """Raises E-C521 for a factor of a loss, the setting `name`, that would have it grow."""
    if weight < 0:
        raise ElectraError("E-C521", f"objective.{name}", f"{weight:g} is negative", "give 0 or more")


def sampling_noise(noise: Noise, batch: Batch) -> Tensor:
    """One uniform number for each drawn position, fp32 [N], that belongs to the row and not to the micro-batch."""
    width = batch.targets["drawn"].shape[1]
    return torch.from_numpy(noise.uniform("sample", width)).to(batch.tokens.device).view(-1)
