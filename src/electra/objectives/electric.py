"""Electric (Clark, Luong, Le, Manning, EMNLP 2020, arXiv 2012.08561): ELECTRA as an energy-based cloze model.

A network gives each token of a text an energy E, meant as E = -log p^(x_t | all other tokens), without a softmax, so one pass
over a text gives the pseudo-log-likelihood of all its tokens. It is learnt by noise-contrastive estimation.

In: a batch with drawn positions, and noise. A noise model q (`models.two_tower`) reads the clean text and gives, in one pass,
a distribution at every position that has not seen the token there. A token is sampled from it at the drawn positions, which
makes x~, and the energy network reads that. A token of x~ is noise if it was *drawn*, also where the sample equals the
original: with m the probability that it is drawn, it comes from q with probability m and from the text with 1 - m, so

    P(drawn | x~_t) = m q / (m q + (1 - m) p^)
    z = log odds    = log q - log p^ + log(m / (1 - m)) = E(x~)_t + log q(x~_t | clean context) + log(m / (1 - m))

and the loss is the binary cross entropy with z, without gradient into q. Were the contexts of x~ those of the clean text, p^
at the minimum would be the conditional probability itself, normalised although nothing normalises it (Gutmann & Hyvärinen,
2010).

m is exact: of a row's c candidates k are drawn, each with probability k / c, so the odds are k : c - k (the paper's k and
n - k; its code has the configured rate). A special token is never drawn, m = 0, and its term is 0 whatever its energy: so the
sum over real tokens is one over candidates, and its mean is over them.

Out: two terms, cloze (q's cross entropy, mean over all candidates) and NCE (mean over all candidates, weight 50).

Shapes: T flat positions (B * L or packed), E embedding size, V vocabulary; "token shape" is [B, L] or [T].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from electra.config import STRICT
from electra.contracts import Batch, Losses, Noise, Objective, Phase, Term
from electra.data.masking import MaskingConfig
from electra.models.model_dir import Provenance, save_model_dir
from electra.models.two_tower import TwoTower
from electra.models.vocabulary import Guess, guess_in_parts
from electra.objectives.detection import Discriminator
from electra.objectives.masked import require_weight, sampling_noise
from electra.objectives.networks import Networks
from electra.train.health import mlm_figures, mlm_totals, rtd_figures, rtd_totals


@dataclass(frozen=True, kw_only=True)
class ElectricConfig:
    """Electric. The size of each tower is that of `generator`, a quarter of the width in the paper.

    Args:
        weight: factor of the NCE term (50 in the paper).
        masking: which positions are drawn; nothing becomes [MASK].
    """

    __pydantic_config__ = STRICT
    type: Literal["electric"] = "electric"
    weight: float = 50.0
    masking: MaskingConfig = field(default_factory=MaskingConfig)

    def __post_init__(self) -> None:
        require_weight(self.weight)
        self.masking.require_once(self.type, masks=False)

    def build(self, networks: Networks) -> Electric:
        energy, noise = networks.energy_model(), networks.noise_model()
        # the towers always share their table; with the main encoder they do where it has their width, as classic ones have
        shared = energy.encoder if noise.ltr.embedding_size == energy.encoder.embedding_size else noise.ltr
        for tower in (noise.ltr, noise.rtl):
            if tower is not shared:
                networks.tie(tower, shared, "embeddings")
        return Electric(noise, energy, self, networks.provenance)


class Electric(nn.Module, Objective):
    """The objective; see the module's docstring.

    Args:
        generator: the noise model, already tied.
        discriminator: the energy network; its logits are energies.
        config: weight.
        provenance: what a ModelDir says about where it comes from.
    """

    def __init__(
        self, generator: TwoTower, discriminator: Discriminator, config: ElectricConfig, provenance: Provenance
    ) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.weight, self.provenance = config.weight, provenance

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def forward(self, batch: Batch, noise: Noise, phase: Phase) -> Losses:
        guessed, drawn = self._cloze(batch, noise), _drawn(batch)
        candidates = batch.targets["candidates"]
        replaced, log_q = replace_drawn(batch, guessed, drawn)
        energy, hidden = self.discriminator(batch, replaced)
        # a row whose candidates are all drawn has no text to tell noise from: as far as half precision, and no infinity
        odds = torch.logit(batch.targets["draw_rate"], eps=1e-6)
        z = energy + log_q + odds
        nce = F.binary_cross_entropy_with_logits(z, drawn.to(z.dtype), reduction="none") * candidates
        cloze = guessed.nll_N.view_as(candidates) * candidates
        return Losses(
            terms={
                "cloze": Term(total=cloze.sum(), unit="candidates"),
                "nce": Term(total=nce.sum(), unit="candidates", weight=self.weight),
            },
            totals=_cloze_totals(guessed, batch) | rtd_totals(z, drawn, hidden, batch.layout, candidates),
        )

    def _cloze(self, batch: Batch, noise: Noise) -> Guess:
        """What q says at every flat position: the loss of the token there, and a sample, which is of use where one is drawn."""
        drawn_N, weight_N = batch.targets["drawn"].view(-1), batch.targets["drawn_weight"].view(-1)
        tokens_T = batch.tokens.view(-1)
        uniform_T = weight_N.new_zeros(len(tokens_T)).scatter_add(0, drawn_N, sampling_noise(noise, batch) * weight_N)
        return guess_in_parts(self.generator(batch), self.generator.table, self.generator.head.bias, tokens_T, uniform_T)

    def summarise(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        """Means over candidates: `mlm_loss` and `mlm_accuracy` are those of q, the others of z against "drawn", the loss of
        which is called `nce_loss`."""
        detected = rtd_figures(totals)
        figures = mlm_figures(totals) | {"nce_loss" if name == "rtd_loss" else name: each for name, each in detected.items()}
        loss = figures.get("mlm_loss", 0.0) + self.weight * figures.get("nce_loss", 0.0)
        return {"loss": loss, **figures}

    def export(self, directory: Path) -> None:
        save_model_dir(
            directory,
            encoder=self.discriminator.encoder,
            head=self.discriminator.head,
            noise=self.generator,
            provenance=self.provenance,
        )


def replace_drawn(batch: Batch, guessed: Guess, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """x~ and log q(x~_t | clean context) at every position, token shape both, without gradient."""
    assert guessed.sampled_N is not None
    assert guessed.sampled_nll_N is not None
    replaced = torch.where(drawn, guessed.sampled_N.view_as(drawn), batch.tokens)
    log_q = -torch.where(drawn, guessed.sampled_nll_N.detach().view_as(drawn), guessed.nll_N.detach().view_as(drawn))
    return replaced, log_q


def _drawn(batch: Batch) -> Tensor:
    """bool, token shape: here x~ has a sample."""
    places_N, weight_N = batch.targets["drawn"].view(-1), batch.targets["drawn_weight"].view(-1)
    return (weight_N.new_zeros(batch.tokens.numel()).scatter_add(0, places_N, weight_N) > 0).view_as(batch.tokens)


def _cloze_totals(guessed: Guess, batch: Batch) -> dict[str, Tensor]:
    """What the figures of q need: sums over candidates, and where positions were drawn."""
    drawn, weight, candidates = (batch.targets[name] for name in ("drawn", "drawn_weight", "candidates"))
    nll_T, right_T, counted_T = guessed.nll_N.detach(), guessed.correct_N, candidates.view(-1)
    totals = mlm_totals(nll_T[drawn], right_T[drawn], drawn, weight, candidates)
    sums = {"mlm_loss": nll_T * counted_T, "mlm_correct": right_T & counted_T, "mlm_drawn": counted_T}
    return totals | {name: each_T.float().sum() for name, each_T in sums.items()}
