"""Masked language modelling (Devlin et al., 2019) as ELECTRA's generator does it: loss at the drawn positions only.

In: a batch with drawn positions. Out: one term, the mean cross entropy over the drawn positions. It is an objective of its
own, the peer in comparisons, and the first phase of small budgets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from electra.config import STRICT
from electra.contracts import Batch, Losses, Noise, Objective, Phase, Term
from electra.data.masking import MaskingConfig
from electra.models.model_dir import Provenance, save_model_dir
from electra.objectives.masked import MaskedLanguageModel, fill, totals_of
from electra.objectives.networks import Networks
from electra.train.health import mlm_figures


@dataclass(frozen=True, kw_only=True)
class MlmConfig:
    """Masked language modelling.

    Args:
        masking: which positions are drawn.
    """

    __pydantic_config__ = STRICT
    type: Literal["mlm"] = "mlm"
    masking: MaskingConfig = field(default_factory=MaskingConfig)

    def build(self, networks: Networks) -> Mlm:
        return Mlm(networks.main_language_model(), networks.tokenizer.mask_id, networks.provenance)


class Mlm(nn.Module, Objective):
    """The objective; its one network is called `encoder`."""

    def __init__(self, model: MaskedLanguageModel, mask_id: int, provenance: Provenance) -> None:
        super().__init__()
        self.model, self.mask_id, self.provenance = model, mask_id, provenance

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"encoder": self.model}

    def forward(self, batch: Batch, noise: Noise, phase: Phase) -> Losses:
        filled = fill(self.model, batch, self.mask_id)
        return Losses(
            terms={"mlm": Term(total=filled.loss, unit="drawn")},
            totals=totals_of(filled, batch),
        )

    def summarise(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        figures = mlm_figures(totals)
        return {"loss": figures.get("mlm_loss", 0.0), **figures}  # without a drawn position the term is 0, too

    def export(self, directory: Path) -> None:
        save_model_dir(directory, encoder=self.model.encoder, head=self.model.head, provenance=self.provenance)
