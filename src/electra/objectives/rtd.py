"""Replaced token detection (Clark et al., ICLR 2020): a generator fills masked positions, a discriminator finds what it put in.

In: a batch with drawn positions, and noise. The generator reads the text with the drawn positions masked and gives a
distribution at those positions only; one token is sampled for each, without gradient; the discriminator reads the filled text
and says for every real token whether it was replaced. A token that was guessed right counts as original.
Out: two terms, MLM (mean over drawn positions) and RTD (mean over all real tokens, weight 50). With `loss_on = "drawn"` the RTD
term is the mean over the drawn positions: the ablation "ELECTRA 15 %" of section 3.4, which says what learning from all tokens
is worth.
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
from electra.errors import ElectraError
from electra.models.model_dir import Provenance, save_model_dir
from electra.models.tying import TyingMode
from electra.objectives.detection import Discriminator, LossOn, corrupt, detect
from electra.objectives.masked import (
    MaskedLanguageModel,
    fill,
    require_temperature,
    require_weight,
    sampling_noise,
    temperature_at,
    totals_of,
)
from electra.objectives.networks import Networks
from electra.train.health import mlm_figures, rtd_figures


@dataclass(frozen=True, kw_only=True)
class RtdConfig:
    """Replaced token detection.

    Args:
        weight: factor of the RTD term; matters where both networks share weights or a clip (50 in the paper, joint).
        tying: what generator and discriminator share: `none`, `embeddings`, `all`, `gdes` (DeBERTaV3), `bottom-layers` (TEAMS).
        shared_layers: how many lowest layers are shared with `bottom-layers`.
        temperature: of the generator's sampling at the start; decays to 1 (Fast-ELECTRA).
        temperature_decay: tau of T(u) = 1 + (T0 - 1) exp(-u / tau), u = share of the steps done.
        loss_on: the tokens that the discriminator learns from: `all`, or the `drawn` ones.
        masking: which positions are drawn.
    """

    __pydantic_config__ = STRICT
    type: Literal["rtd"] = "rtd"
    weight: float = 50.0
    tying: TyingMode = "embeddings"
    shared_layers: int = 0
    temperature: float = 1.0
    temperature_decay: float = 0.1
    loss_on: LossOn = "all"
    masking: MaskingConfig = field(default_factory=MaskingConfig)

    def __post_init__(self) -> None:
        if (self.shared_layers > 0) != (self.tying == "bottom-layers"):
            raise ElectraError("E-C430", "objective.shared_layers", f"is {self.shared_layers} while tying is {self.tying!r}",
                               'give both tying="bottom-layers" and a positive number of layers, or neither')  # fmt: skip
        require_temperature(self.temperature, self.temperature_decay)
        require_weight(self.weight)

    def build(self, networks: Networks) -> Rtd:
        discriminator, generator = networks.discriminator(self.masking.rate), networks.generator_model()
        networks.tie(generator.encoder, discriminator.encoder, self.tying, self.shared_layers)
        return Rtd(generator, discriminator, self, networks.tokenizer.mask_id, networks.provenance)


class Rtd(nn.Module, Objective):
    """The objective; see the module's docstring.

    Args:
        generator, discriminator: already tied.
        config: weight, temperature and what the RTD term is over.
        mask_id: id of [MASK].
        provenance: what a ModelDir says about where it comes from.
    """

    def __init__(
        self,
        generator: MaskedLanguageModel,
        discriminator: Discriminator,
        config: RtdConfig,
        mask_id: int,
        provenance: Provenance,
    ) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.weight, self.mask_id, self.provenance = config.weight, mask_id, provenance
        self.temperature, self.temperature_decay = config.temperature, config.temperature_decay
        self.loss_on = config.loss_on

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def forward(self, batch: Batch, noise: Noise, phase: Phase) -> Losses:
        temperature = temperature_at(self.temperature, self.temperature_decay, phase.progress)
        filled = fill(self.generator, batch, self.mask_id, sampling_noise(noise, batch), temperature)
        sampled_N = filled.guess.sampled_N
        assert sampled_N is not None
        detected = detect(self.discriminator, batch, corrupt(batch, sampled_N), loss_on=self.loss_on)
        return Losses(
            terms={
                "mlm": Term(total=filled.loss, unit="drawn"),
                "rtd": detected.term(self.weight),
            },
            totals=totals_of(filled, batch) | detected.totals,
        )

    def summarise(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        figures = mlm_figures(totals) | rtd_figures(totals)
        loss = figures.get("mlm_loss", 0.0) + self.weight * figures.get("rtd_loss", 0.0)  # without a token the term is 0, too
        return {"loss": loss, **figures}

    def export(self, directory: Path) -> None:
        save_model_dir(
            directory,
            encoder=self.discriminator.encoder,
            head=self.discriminator.head,
            generator=(self.generator.encoder, self.generator.head),
            provenance=self.provenance,
        )
