"""Replaced token detection against a generator without weights (Clark et al., ICLR 2020, section 3.2 and figure 3, left).

In: a batch with drawn positions, and noise. At each drawn position a token is drawn whatever stands around it: by the
frequencies of the corpus (`unigram`), or from the whole vocabulary alike (`uniform`). Special tokens are never put in: no
position that holds one is ever drawn, so they would give themselves away.
Out: one term, RTD (mean over all real tokens). It is the floor for what a generator is worth, and costs nothing to run.

Shapes: N drawn positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from electra.config import STRICT
from electra.contracts import Batch, Losses, Noise, Objective, Phase
from electra.data.masking import MaskingConfig
from electra.errors import ElectraError
from electra.models.model_dir import Provenance, save_model_dir
from electra.objectives.detection import Discriminator, figures_of, losses_of
from electra.objectives.masked import sampling_noise
from electra.objectives.networks import Networks


@dataclass(frozen=True, kw_only=True)
class FixedGeneratorConfig:
    """Detection of tokens that were drawn without looking at the text.

    Args:
        distribution: `unigram`, the frequencies of the corpus, or `uniform`.
        masking: which positions are drawn; none becomes [MASK].
    """

    __pydantic_config__ = STRICT
    type: Literal["fixed-generator"] = "fixed-generator"
    distribution: Literal["unigram", "uniform"] = "unigram"
    masking: MaskingConfig = field(default_factory=MaskingConfig)

    def __post_init__(self) -> None:
        self.masking.require_once(self.type, masks=False)

    def build(self, networks: Networks) -> FixedGenerator:
        share_V = np.ones(networks.tokenizer.vocab_size)
        if self.distribution == "unigram":
            assert networks.frequencies is not None, "a run has a text"
            share_V = networks.frequencies().copy()
        share_V[list(networks.tokenizer.special_ids)] = 0.0
        if not share_V.any():
            raise ElectraError("E-D511", "the corpus", "it holds special tokens alone, so there is nothing to replace any with",
                               'add text, or take distribution="uniform"')  # fmt: skip
        return FixedGenerator(networks.discriminator(self.masking.rate), torch.from_numpy(share_V), networks.provenance)


class FixedGenerator(nn.Module, Objective):
    """The objective; its one network is called `discriminator`.

    Args:
        share_V: float64, how often each token is drawn, relative to the others.
    """

    cumulated_V: Tensor

    def __init__(self, discriminator: Discriminator, share_V: Tensor, provenance: Provenance) -> None:
        super().__init__()
        self.discriminator, self.provenance = discriminator, provenance
        self.register_buffer("cumulated_V", share_V.cumsum(0), persistent=False)  # the corpus gives it anew

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"discriminator": self.discriminator}

    def forward(self, batch: Batch, noise: Noise, phase: Phase) -> Losses:
        return losses_of(self.discriminator, batch, self.sample(sampling_noise(noise, batch)))

    def sample(self, uniform_N: Tensor) -> Tensor:
        """int64 [N], by inverse CDF: the first token whose cumulated share exceeds u times the total."""
        return torch.searchsorted(self.cumulated_V, uniform_N.double() * self.cumulated_V[-1], right=True)

    def summarise(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        return figures_of(totals)

    def export(self, directory: Path) -> None:
        save_model_dir(directory, encoder=self.discriminator.encoder, head=self.discriminator.head, provenance=self.provenance)
