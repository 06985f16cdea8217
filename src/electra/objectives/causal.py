"""Causal language modelling: at every token, say which one comes next; also mixed with masked next-token prediction.

In: a batch. Out: one term. In a *causal* step a token sees itself and those before it, and the cross entropy is a mean over
all tokens that have one before them in their document. In a *masked* step (GPT-BERT, Charpentier and Samuel, 2024) drawn
positions are masked, every token sees its whole document, and what stood at a drawn position is said one position earlier: so
one network with one head does both, and is a generator as well as an encoder. Whether a step is the one or the other depends on
its number alone, such that of any number of steps `masked_share` are masked, as evenly as can be.

Shapes: T tokens of the flattened batch, N = B * K drawn positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from electra.config import STRICT
from electra.contracts import Batch, Losses, Noise, Objective, Phase, Term
from electra.data.masking import MaskingConfig
from electra.errors import ElectraError
from electra.models.model_dir import Provenance, save_model_dir
from electra.objectives.masked import CausalLanguageModel, masked_text
from electra.objectives.networks import Networks


@dataclass(frozen=True, kw_only=True)
class CausalConfig:
    """Causal language modelling.

    Args:
        masked_share: share of the steps that are masked next-token prediction.
        masking: which positions are drawn in those.
    """

    __pydantic_config__ = STRICT
    type: Literal["causal"] = "causal"
    masked_share: float = 0.0
    masking: MaskingConfig = field(default_factory=MaskingConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.masked_share < 1:
            raise ElectraError("E-C604", "objective.masked_share", f"{self.masked_share} is not a share below 1",
                               'give 0 <= masked_share < 1; masked language modelling alone is type="mlm"')  # fmt: skip

    def build(self, networks: Networks) -> Causal:
        return Causal(networks.causal_language_model(), self, networks.tokenizer.mask_id, networks.provenance)


class Causal(nn.Module, Objective):
    """The objective; its one network is called `encoder`."""

    def __init__(self, model: CausalLanguageModel, config: CausalConfig, mask_id: int, provenance: Provenance) -> None:
        super().__init__()
        self.model, self.masked_share, self.mask_id, self.provenance = model, config.masked_share, mask_id, provenance

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"encoder": self.model}

    def phases(self, step: int, steps: int) -> Sequence[Phase]:
        masked = math.floor((step + 1) * self.masked_share) > math.floor(step * self.masked_share)
        return (Phase(name="masked" if masked else "causal", networks=("encoder",), progress=step / steps),)

    def forward(self, batch: Batch, noise: Noise, phase: Phase) -> Losses:
        return self._masked(batch) if phase.name == "masked" else self._causal(batch)

    def _causal(self, batch: Batch) -> Losses:
        flat_T = batch.tokens.view(-1)
        weight_T = batch.layout.continued.view(-1).roll(-1).float()  # the first token continues nothing
        layout = replace(batch.layout, order="forward")
        position_T = torch.arange(len(flat_T), device=flat_T.device)
        guessed = self.model(batch, batch.tokens, layout, position_T, flat_T.roll(-1))
        total = (guessed.nll_N * weight_T).sum()
        figures = {"lm_loss": total.detach(), "lm_correct": (guessed.correct_N * weight_T).sum(), "lm_tokens": weight_T.sum()}
        return Losses(terms={"lm": Term(total=total, unit="continued")}, totals=figures)

    def _masked(self, batch: Batch) -> Losses:
        position_N = batch.targets["drawn"].view(-1)
        original_N = batch.tokens.view(-1).index_select(0, position_N)
        masked = masked_text(batch, self.mask_id)
        # where a row begins within a document, nothing stands before its first token
        follows_N = batch.layout.continued.view(-1).index_select(0, position_N)
        weight_N = batch.targets["drawn_weight"].view(-1) * follows_N
        guessed = self.model(batch, masked, batch.layout, (position_N - 1).clamp(min=0), original_N)
        total = (guessed.nll_N * weight_N).sum()
        right = (guessed.correct_N * weight_N).sum()
        figures = {"masked_loss": total.detach(), "masked_correct": right, "masked_tokens": weight_N.sum()}
        return Losses(terms={"masked": Term(total=total, unit="drawn_continued")}, totals=figures)

    def summarise(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        """`lm_loss` and `masked_loss` in nats per token said, `perplexity` = exp(lm_loss); those of the steps there were."""
        figures: dict[str, float] = {}
        for name in ("lm", "masked"):
            if (count := float(totals.get(f"{name}_tokens", torch.zeros(())))) > 0:
                figures[f"{name}_loss"] = float(totals[f"{name}_loss"]) / count
                figures[f"{name}_accuracy"] = float(totals[f"{name}_correct"]) / count
        if "lm_loss" in figures:
            figures["perplexity"] = math.exp(min(figures["lm_loss"], 700.0))
        return {"loss": figures.get("lm_loss", figures.get("masked_loss", 0.0)), **figures}

    def export(self, directory: Path) -> None:
        save_model_dir(directory, encoder=self.model.encoder, head=self.model.head, provenance=self.provenance)
