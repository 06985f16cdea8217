"""The generator trained to fool the discriminator (Clark et al., ICLR 2020, appendix F), in place of or beside likelihood.

In: a batch with drawn positions, and noise. Generator and discriminator do what they do in replaced token detection: the one
fills the drawn positions, the other says of every real token whether it was replaced. What differs is what the generator is
paid for: the discriminator's binary cross entropy R at each drawn position, which the generator raises. That other positions do
not depend on the token drawn here is the paper's simplification; they are ignored.

A sampled token has no gradient. Two estimators stand in for it:

    reinforce        (the paper's) (R - b) grad log p(token), with the baseline b = -log sigmoid(w . h), h the generator's last
                     hidden state there. w learns by cross entropy between sigmoid(w . h) and exp(-R), the probability that the
                     discriminator gave to the truth; h gets no gradient from it.
    gumbel-softmax   (straight-through; Jang et al., 2017) the token is argmax(logits + Gumbel noise); the discriminator reads
                     its embedding, and backwards the embeddings' mean under softmax((logits + noise) / temperature).
                     The discriminator's gradient at those embeddings is taken by itself, in the one forward pass that detection
                     trains on, so that no weight of the discriminator gets any of it.

Out: up to four terms. `mlm` (with `mle_weight`), `adversarial`, `baseline` train the generator, `rtd` the discriminator. A step
updates one network or both; a network that is not updated keeps nothing for a backward pass, and its terms are left out.

Shapes: B rows, K drawn positions of a row, N = B * K, D hidden size, E embedding size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from electra.config import STRICT
from electra.contracts import Batch, Losses, Noise, Objective, Phase, Term
from electra.data.masking import MaskingConfig
from electra.errors import ElectraError
from electra.models.encoder import Encoder
from electra.models.heads import MlmHead
from electra.models.model_dir import Provenance, save_model_dir
from electra.objectives.detection import Detected, Discriminator, corrupt, detect
from electra.objectives.masked import Filled, MaskedLanguageModel, fill, require_weight, sampling_noise, totals_of
from electra.objectives.networks import Networks
from electra.train.health import mlm_figures, rtd_figures

#: half a step of `Noise.uniform`: with it the Gumbel noise is finite on both sides
_LEAST_UNIFORM = 2.0**-25


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig:
    """The score-function estimator with a learned baseline."""

    __pydantic_config__ = STRICT
    type: Literal["reinforce"] = "reinforce"


@dataclass(frozen=True, kw_only=True)
class GumbelSoftmaxConfig:
    """The straight-through Gumbel-softmax estimator.

    Args:
        temperature: of the relaxed sample in the backward pass; lower is less biased and varies more.
    """

    __pydantic_config__ = STRICT
    type: Literal["gumbel-softmax"] = "gumbel-softmax"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ElectraError("E-C520", "objective.estimator.temperature", f"{self.temperature:g} is not positive", "use 1.0")


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """Adversarial training of the generator.

    Args:
        estimator: of the gradient through the sampled tokens.
        mle_weight: factor of the generator's likelihood (MLM) term beside the adversarial one; 0 = adversarial alone.
        generator_every, discriminator_every: the network is updated in every k-th step, from the first on; one of them is 1.
        weight: factor of the RTD term; matters where both networks share weights or a clip.
        tying: what the networks share: `none`; `gdes`, where the discriminator's gradients stay its own; `embeddings`, where
            the shared tables are the generator's and learn from the RTD term, too, in the steps that update both.
        masking: which positions are drawn.
    """

    __pydantic_config__ = STRICT
    type: Literal["adversarial"] = "adversarial"
    estimator: Annotated[ReinforceConfig | GumbelSoftmaxConfig, Field(discriminator="type")] = field(
        default_factory=ReinforceConfig
    )
    mle_weight: float = 0.0
    generator_every: int = 1
    discriminator_every: int = 1
    weight: float = 50.0
    tying: Literal["none", "embeddings", "gdes"] = "gdes"
    masking: MaskingConfig = field(default_factory=MaskingConfig)

    def __post_init__(self) -> None:
        self.masking.require_once(self.type)
        require_weight(self.mle_weight, "mle_weight")
        require_weight(self.weight)
        if sorted((self.generator_every, self.discriminator_every))[0] != 1:
            told = f"generator_every {self.generator_every} and discriminator_every {self.discriminator_every}"
            raise ElectraError(
                "E-C522", "objective", f"{told}: one must be 1, and none less", "update one network in every step"
            )

    def build(self, networks: Networks) -> Adversarial:
        discriminator, generator = networks.discriminator(self.masking.rate), networks.generator_model()
        networks.tie(generator.encoder, discriminator.encoder, self.tying)
        if isinstance(self.estimator, ReinforceConfig):
            generator = Policy(generator.encoder, generator.head)
        return Adversarial(generator, discriminator, self, networks.tokenizer.mask_id, networks.provenance)


class Policy(MaskedLanguageModel):
    """A generator with the baseline of its reward: the vector w, which starts at 0 (b = ln 2, what a discriminator that knows
    nothing pays)."""

    def __init__(self, encoder: Encoder, head: MlmHead) -> None:
        super().__init__(encoder, head)
        self.baseline = nn.Parameter(torch.zeros(encoder.hidden_size))

    def expect(self, hidden_ND: Tensor) -> Tensor:
        """[N], the logit of exp(-b); without gradient to the hidden states."""
        return (hidden_ND.detach() * self.baseline).sum(-1)


class Adversarial(nn.Module, Objective):
    """The objective; see the module's docstring.

    Args:
        generator: a `Policy` for `reinforce`; already tied.
        discriminator: already tied.
        config: estimator, weights, ratio.
        mask_id: id of [MASK].
        provenance: what a ModelDir says about where it comes from.
    """

    def __init__(
        self,
        generator: MaskedLanguageModel,
        discriminator: Discriminator,
        config: AdversarialConfig,
        mask_id: int,
        provenance: Provenance,
    ) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.weight, self.mle_weight, self.mask_id, self.provenance = config.weight, config.mle_weight, mask_id, provenance
        self.every = {"generator": config.generator_every, "discriminator": config.discriminator_every}
        self.temperature = config.estimator.temperature if isinstance(config.estimator, GumbelSoftmaxConfig) else None

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def phases(self, step: int, steps: int) -> Sequence[Phase]:
        networks = tuple(name for name, every in self.every.items() if step % every == 0)
        return (Phase(name=" and ".join(networks), networks=networks, progress=step / steps),)

    def forward(self, batch: Batch, noise: Noise, phase: Phase) -> Losses:
        learns, detects = (name in phase.networks for name in self.networks)
        relaxes = learns and self.temperature is not None
        with _gradients(learns):
            uniform_N = None if relaxes else sampling_noise(noise, batch)  # the relaxed sample has noise of its own
            filled = fill(self.generator, batch, self.mask_id, uniform_N)
            if relaxes:
                assert self.temperature is not None
                sample = relaxed_sample(self.generator, filled.hidden_ND, self._embedding(), batch, noise, self.temperature)
            else:
                sample = _sample_of(filled)
        shift_NE = None if sample.embedding_NE is None else torch.zeros_like(sample.embedding_NE, requires_grad=relaxes)
        with _gradients(detects or relaxes):
            shift = None if shift_NE is None else _spread(shift_NE, filled, batch)
            detected = detect(self.discriminator, batch, corrupt(batch, sample.token_N), shift)
            reward_N = detected.loss.view(-1).index_select(0, filled.position_N) * filled.weight_N
        terms = dict[str, Term]()
        if learns:
            if self.mle_weight:
                terms["mlm"] = Term(total=filled.loss, unit="drawn", weight=self.mle_weight)
            if shift_NE is None:
                assert isinstance(self.generator, Policy)
                terms |= policy_gradient(self.generator.expect(filled.hidden_ND), sample, reward_N.detach(), filled.weight_N)
            else:
                terms["adversarial"] = straight_through(sample, shift_NE, reward_N, keep=detects)
        if detects:
            terms["rtd"] = Term(total=detected.loss.sum(), unit="tokens", weight=self.weight)
        return Losses(terms=terms, totals=self._totals(batch, filled, sample, detected, reward_N))

    def _embedding(self) -> Tensor:
        """[V, E], what the discriminator looks tokens up in, as a constant."""
        return self.discriminator.encoder.embeddings.table.detach()

    def _totals(self, batch: Batch, filled: Filled, sample: Sample, detected: Detected, reward_N: Tensor) -> dict[str, Tensor]:
        sampled_nll = (sample.nll_N.detach() * filled.weight_N).sum()
        own = {"sampled_nll": sampled_nll, "reward": reward_N.detach().sum()}
        return totals_of(filled, batch) | detected.totals | own

    def summarise(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        """`loss` is what the three losses come to: the generator's likelihood, its reward, which it raises, and detection.

        Without likelihood the reward alone is what the generator is judged by: `generator_loss` is minus that.
        """
        figures = mlm_figures(totals) | rtd_figures(totals)
        figures["reward"] = float(totals["reward"]) / max(float(totals["mlm_drawn"]), 1.0)
        if not self.mle_weight:
            figures["generator_loss"] = -figures["reward"]
        likelihood, detection = figures.get("mlm_loss", 0.0), figures.get("rtd_loss", 0.0)
        return {"loss": self.mle_weight * likelihood - figures["reward"] + self.weight * detection, **figures}

    def export(self, directory: Path) -> None:
        """Without the baseline, which means nothing to another discriminator."""
        save_model_dir(
            directory,
            encoder=self.discriminator.encoder,
            head=self.discriminator.head,
            generator=(self.generator.encoder, self.generator.head),
            provenance=self.provenance,
        )


def _gradients(wanted: bool) -> AbstractContextManager[None]:
    """Gradients where they are wanted and the caller has not turned them off."""
    return torch.set_grad_enabled(wanted and torch.is_grad_enabled())


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The tokens that the generator put in.

    Args:
        token_N: int64.
        nll_N: -log p of each; with gradient, but for relaxed samples.
        embedding_NE: fp32, with gradient: their embeddings' mean under the relaxed sample; None where none was made.
    """

    token_N: Tensor
    nll_N: Tensor
    embedding_NE: Tensor | None = None


def _sample_of(filled: Filled) -> Sample:
    assert filled.guess.sampled_N is not None
    assert filled.guess.sampled_nll_N is not None
    return Sample(token_N=filled.guess.sampled_N, nll_N=filled.guess.sampled_nll_N)


def policy_gradient(expected_N: Tensor, sample: Sample, reward_N: Tensor, weight_N: Tensor) -> dict[str, Term]:
    """REINFORCE with a baseline (Williams, 1992): terms whose gradients are the estimator's.

    Args:
        expected_N: logits of exp(-b), b the baseline; with gradient to the baseline alone.
        sample: with gradient.
        reward_N: without gradient, 0 where nothing was drawn.
        weight_N: 1 where a position was drawn.
    """
    advantage_N = (reward_N - F.softplus(-expected_N.detach())) * weight_N
    mismatch_N = F.binary_cross_entropy_with_logits(expected_N, (-reward_N).exp(), reduction="none")
    return {
        "adversarial": Term(total=(advantage_N * sample.nll_N).sum(), unit="drawn"),
        "baseline": Term(total=(mismatch_N * weight_N).sum(), unit="drawn"),
    }


def relaxed_sample(
    generator: MaskedLanguageModel, hidden_ND: Tensor, embedding_VE: Tensor, batch: Batch, noise: Noise, temperature: float
) -> Sample:
    """A token for each drawn position by the Gumbel-max trick, and the relaxed sample in its place for the backward pass.

    One drawn position of every row at a time, so that of the vocabulary's width only the relaxed samples are kept. The noise is
    one number for each token of the vocabulary and belongs to the row; it is made on the CPU, in fp32.

    Args:
        hidden_ND: the generator's last hidden states at the drawn positions.
        embedding_VE: what the discriminator looks tokens up in, without gradient.
    """
    rows, drawn = batch.targets["drawn"].shape
    hidden_BKE = generator.head.transform(hidden_ND).view(rows, drawn, -1)
    table_VE = generator.encoder.embeddings.table
    tokens, losses, embeddings = list[Tensor](), list[Tensor](), list[Tensor]()
    for column in range(drawn):
        logits_BV = (hidden_BKE[:, column] @ table_VE.t()).float() + generator.head.bias
        uniform_BV = torch.from_numpy(noise.uniform(f"gumbel {column}", len(table_VE))).to(logits_BV.device)
        gumbel_BV = -torch.log(-torch.log1p(-uniform_BV.clamp_(min=_LEAST_UNIFORM)))
        noisy_BV = logits_BV + gumbel_BV
        token_B1 = noisy_BV.detach().argmax(-1, keepdim=True)
        tokens.append(token_B1)
        losses.append(-F.log_softmax(logits_BV.detach(), -1).gather(1, token_B1))
        with torch.autocast(logits_BV.device.type, enabled=False):
            embeddings.append(torch.softmax(noisy_BV / temperature, -1) @ embedding_VE)
    return Sample(
        token_N=torch.cat(tokens, 1).view(-1),
        nll_N=torch.cat(losses, 1).view(-1),
        embedding_NE=torch.stack(embeddings, 1).view(rows * drawn, -1),
    )


def _spread(shift_NE: Tensor, filled: Filled, batch: Batch) -> Tensor:
    """Token shape + [E]: `shift_NE` at the drawn positions, 0 elsewhere."""
    shift_TE = shift_NE.new_zeros(batch.tokens.numel(), shift_NE.shape[1])
    return shift_TE.index_add(0, filled.position_N, shift_NE * filled.weight_N[:, None]).view(*batch.tokens.shape, -1)


def straight_through(sample: Sample, shift_NE: Tensor, reward_N: Tensor, *, keep: bool) -> Term:
    """Minus the reward; its gradient is that at the sampled embeddings, handed to the relaxed ones.

    Args:
        shift_NE: zeros that were added to the sampled tokens' embeddings.
        reward_N: with gradient to `shift_NE`, 0 where nothing was drawn.
        keep: the discriminator's graph is needed once more.
    """
    reward = reward_N.sum()
    if not reward.requires_grad:  # nobody will ask for the gradient
        return Term(total=-reward, unit="drawn")
    assert sample.embedding_NE is not None
    (gradient_NE,) = torch.autograd.grad(reward, shift_NE, retain_graph=keep)
    linear = (sample.embedding_NE * gradient_NE).sum()
    return Term(total=linear.detach() - linear - reward.detach(), unit="drawn")
