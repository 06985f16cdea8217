"""Replace MLM (Clark et al., ICLR 2020, section 3.4): masked language modelling without [MASK].

In: a batch with drawn positions, and noise. The generator reads the text with the drawn positions masked; a token sampled from
it stands in for each, without gradient; the main encoder reads the filled text and says what stood there. So it never sees
[MASK], as it never does when it is fine-tuned: what that alone is worth.
Out: two terms, the generator's MLM and the main encoder's, each the mean over drawn positions.
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
from electra.objectives.detection import corrupt
from electra.objectives.masked import MaskedLanguageModel, encoder_figures, encoder_totals, fill, sampling_noise, totals_of
from electra.objectives.networks import Networks
from electra.train.health import mlm_figures

#: what a generator and an encoder with a head of its own may share
Tying = Literal["none", "embeddings", "all"]


@dataclass(frozen=True, kw_only=True)
class ReplaceMlmConfig:
    """Masked language modelling on text that a generator has filled.

    Args:
        tying: what generator and encoder share: `none`, `embeddings`, `all`.
        masking: which positions are drawn.
    """

    __pydantic_config__ = STRICT
    type: Literal["replace-mlm"] = "replace-mlm"
    tying: Tying = "embeddings"
    masking: MaskingConfig = field(default_factory=MaskingConfig)

    def build(self, networks: Networks) -> ReplaceMlm:
        model, generator = networks.main_language_model(), networks.generator_model()
        networks.tie(generator.encoder, model.encoder, self.tying)
        return ReplaceMlm(generator, model, networks.tokenizer.mask_id, networks.provenance)


class ReplaceMlm(nn.Module, Objective):
    """The objective; see the module's docstring.

    Args:
        generator, model: already tied; `model` is the network called `encoder`.
    """

    def __init__(
        self, generator: MaskedLanguageModel, model: MaskedLanguageModel, mask_id: int, provenance: Provenance
    ) -> None:
        super().__init__()
        self.generator, self.model = generator, model
        self.mask_id, self.provenance = mask_id, provenance

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "encoder": self.model}

    def forward(self, batch: Batch, noise: Noise, phase: Phase) -> Losses:
        filled = fill(self.generator, batch, self.mask_id, sampling_noise(noise, batch))
        assert filled.guess.sampled_N is not None
        tokens = corrupt(batch, filled.guess.sampled_N).tokens
        original_N = batch.tokens.view(-1).index_select(0, filled.position_N)
        guessed, _ = self.model(batch, tokens, filled.position_N, original_N, None, 1.0)
        return Losses(
            terms={
                "mlm": Term(total=filled.loss, unit="drawn"),
                "replace_mlm": Term(total=(guessed.nll_N * filled.weight_N).sum(), unit="drawn"),
            },
            totals=totals_of(filled, batch) | encoder_totals(guessed, filled.weight_N),
        )

    def summarise(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        figures = encoder_figures(totals) | mlm_figures(totals)
        return {"loss": figures.get("mlm_loss", 0.0) + figures.get("encoder_loss", 0.0), **figures}

    def export(self, directory: Path) -> None:
        save_model_dir(
            directory,
            encoder=self.model.encoder,
            head=self.model.head,
            generator=(self.generator.encoder, self.generator.head),
            provenance=self.provenance,
        )
