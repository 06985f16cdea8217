"""Latent adversarial fine-tuning (GAN-BERT: Croce, Castellucci and Basili, ACL 2020): few labels, many texts without.

In: an encoder, a task `classify`, batches of labelled and unlabelled texts, noise. A generator makes of z ~ N(0, I) a vector
that is to pass for the encoder's state of a text: z -> linear -> tanh -> linear; where it is conditional, the embedding of a
class drawn at random is joined to z. The discriminator is the classifier with one more output, "fake": a softmax over k + 1
classes. There is one fake for each text of a batch.
Out: five terms, each a mean over its unit. Of the discriminator L_d = supervised + unsupervised:

    classify    labelled texts  -log p(label | not fake), the task's own loss over the k classes
    real        all texts       -log(1 - p(fake))
    fake        fakes           -log p(fake)

and of the generator L_g:

    generator   fakes           -log(1 - p(fake)); where it is conditional, -log p(its class), so that the class means something
    features    the batch       |mean of f over the texts - mean of f over the fakes|^2, f = what the output layer reads

One forward and one backward pass serve both: the discriminator sees fakes without their history, and for L_g the discriminator
and the texts are constants. So neither loss trains the other's network, and each network has its own optimiser. `features`
compares the batch as a whole with itself: the loader does not cut it.
What is exported is the classifier; "fake" and the generator are dropped.

Shapes: N texts and as many fakes, D hidden size, F features, K classes, Z size of z.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from electra.config import STRICT
from electra.contracts import Batch, Losses, Noise, Phase, Term, TrainableTask
from electra.errors import ElectraError
from electra.models.encoder import Encoder
from electra.models.heads import ClassificationHead, TwoLayerHead
from electra.models.model_dir import Provenance
from electra.nn.layers import initialise
from electra.objectives.supervised import Freeze, Supervised
from electra.tasks.classify import Classify
from electra.tasks.common import TaskNetwork

#: half a step of `Noise.uniform`, so that no number is 0, whose quantile is -inf
_HALF_STEP = 2.0**-25


@dataclass(frozen=True, kw_only=True)
class LatentAdversarialConfig:
    """GAN-BERT's objective.

    Args:
        unlabelled_examples: texts of `data.unlabelled` in a step, over all processes, beside the labelled ones; None = as many
            as `batch.examples`.
        latent_size: size of z, and of the embedding of a class.
        conditional: the generator is given a class, and its fakes are to be taken for texts of it.
    """

    __pydantic_config__ = STRICT
    type: Literal["latent-adversarial"] = "latent-adversarial"
    unlabelled_examples: int | None = None
    latent_size: int = 100
    conditional: bool = False

    def __post_init__(self) -> None:
        if self.latent_size < 1 or (self.unlabelled_examples is not None and self.unlabelled_examples < 1):
            raise ElectraError("E-C530", "objective", "latent_size and unlabelled_examples are at least 1", "raise them")

    def build(self, encoder: Encoder, task: TrainableTask, provenance: Provenance, freeze: Freeze) -> LatentAdversarial:
        return LatentAdversarial(encoder, one_label(task), provenance, self, freeze)


def one_label(task: TrainableTask) -> Classify:
    """The task, if it gives one label to each text.

    Raises:
        ElectraError: E-C531 it does not.
    """
    if not isinstance(task, Classify):
        cause = f"latent-adversarial learns one label of each text; the task is {task.to_json()['type']}"
        raise ElectraError("E-C531", "objective.type", cause,
                           "take task=classify with one label a row, or leave objective.type out")  # fmt: skip
    return task


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What the discriminator says about states, texts' or fakes'.

    Args:
        features_NF: what its output layer reads.
        logits_NK: of the classes.
        fake_N: log-odds of "fake" against all classes together, fp32.
    """

    features_NF: Tensor
    logits_NK: Tensor
    fake_N: Tensor


class LatentDiscriminator(TaskNetwork):
    """A classifier with one more output, "fake"; called like any task's network, it is the classifier alone."""

    head: ClassificationHead | TwoLayerHead

    def __init__(self, encoder: Encoder, head: ClassificationHead | TwoLayerHead) -> None:
        super().__init__(encoder, head)
        self.fake = nn.Linear(head.classifier.in_features, 1)
        initialise(self.fake, std=encoder.config.initializer_range)

    def states(self, batch: Batch) -> Tensor:
        """[N, D], what the head reads of each text."""
        hidden = self.encoder(batch.tokens, batch.positions, batch.types, batch.layout)
        return self.head.pooled(hidden, batch.layout)

    def judge(self, states_ND: Tensor) -> Opinion:
        features_NF = self.head.features(states_ND)
        logits_NK = self.head.classifier(features_NF)
        fake_N = self.fake(features_NF).squeeze(-1).float() - logits_NK.float().logsumexp(dim=-1)
        return Opinion(features_NF=features_NF, logits_NK=logits_NK, fake_N=fake_N)


class LatentGenerator(nn.Module):
    """z, and the embedding of a class where there are `classes` -> a state.

    Args:
        latent_size: Z.
        hidden_size: D.
        classes: K; 0 = it is given none.
        std: standard deviation of initial weights.
    """

    def __init__(self, latent_size: int, hidden_size: int, classes: int, std: float) -> None:
        super().__init__()
        self.classes = nn.Embedding(classes, latent_size) if classes else None
        self.dense = nn.Linear(latent_size * (2 if classes else 1), hidden_size)
        self.state = nn.Linear(hidden_size, hidden_size)
        initialise(self, std=std)

    def forward(self, latent_NZ: Tensor, class_N: Tensor | None) -> Tensor:
        """[N, Z], and int64 [N] if it has classes -> [N, D]."""
        if self.classes is not None:
            latent_NZ = torch.cat([latent_NZ, self.classes(class_N)], dim=-1)
        state_ND: Tensor = self.state(torch.tanh(self.dense(latent_NZ)))
        return state_ND


class LatentAdversarial(Supervised):
    """The objective; see the module.

    Args:
        encoder, provenance, freeze: as `Supervised`.
        task: gives one label to each text.
        config: sizes.
    """

    model: LatentDiscriminator
    task: Classify

    def __init__(
        self,
        encoder: Encoder,
        task: Classify,
        provenance: Provenance,
        config: LatentAdversarialConfig,
        freeze: Freeze = "nothing",
    ) -> None:
        super().__init__(encoder, task, provenance, freeze)
        head, sizes = self.model.head, encoder.config
        self.model = LatentDiscriminator(encoder, head)
        self.latent_size, self.classes = config.latent_size, len(task.labels) if config.conditional else 0
        self.generator = LatentGenerator(self.latent_size, sizes.hidden_size, self.classes, sizes.initializer_range)

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        return {"model": self.model, "generator": self.generator}

    def forward(self, batch: Batch, noise: Noise, phase: Phase) -> Losses:
        states_ND = self.model.states(batch)
        latent_NZ, class_N = self._drawn(noise, states_ND.device)
        fakes_ND = self.generator(latent_NZ, class_N)
        real, fake = self.model.judge(states_ND), self.model.judge(fakes_ND.detach())
        with constant(self.model):
            passed = self.model.judge(fakes_ND)
        supervised = self.task.loss(real.logits_NK, batch)
        on_real, on_fake = F.softplus(real.fake_N).sum(), F.softplus(-fake.fake_N).sum()
        deceiving = F.softplus(passed.fake_N).sum()
        if class_N is not None:
            deceiving = deceiving + F.cross_entropy(passed.logits_NK.float(), class_N, reduction="sum")
        apart_F = real.features_NF.detach().float().mean(0) - passed.features_NF.float().mean(0)
        features = apart_F.square().sum() * len(states_ND)  # the loop divides by the number of texts
        totals = {
            "texts": torch.full((), len(states_ND), device=states_ND.device),
            "fake_loss": (on_real + on_fake).detach(),
            "generator_loss": (deceiving + features).detach(),
            "feature_distance": features.detach(),
            "fakes_found": (fake.fake_N > 0).sum(),
            "texts_kept": (real.fake_N <= 0).sum(),
        }
        return Losses(
            terms={
                "classify": Term(total=supervised.terms["classify"].total, unit="label"),
                "real": Term(total=on_real, unit="examples"),
                "fake": Term(total=on_fake, unit="examples"),
                "generator": Term(total=deceiving, unit="examples"),
                "features": Term(total=features, unit="examples"),
            },
            totals={**supervised.totals, **totals},
        )

    def _drawn(self, noise: Noise, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """z, float32 [N, Z], by inverse CDF, and a class each, int64 [N], if the generator takes one: noise of the rows."""
        uniform_NZ = torch.from_numpy(noise.uniform("latent", self.latent_size)).double() + _HALF_STEP
        latent_NZ = torch.special.ndtri(uniform_NZ).float().to(device)
        if not self.classes:
            return latent_NZ, None
        class_N = torch.from_numpy(noise.uniform("class", 1)[:, 0]).double() * self.classes
        return latent_NZ, class_N.long().to(device)

    def summarise(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        """`loss` and `accuracy` over the labelled texts, the others over all texts, or fakes."""
        texts, rest = max(float(totals["texts"]), 1.0), dict(totals)
        of_texts = ("fake_loss", "generator_loss", "feature_distance", "fakes_found", "texts_kept")
        figures = {name: float(rest.pop(name)) / texts for name in of_texts}
        del rest["texts"]
        return super().summarise(rest) | figures


@contextmanager
def constant(network: nn.Module) -> Iterator[None]:
    """Within, the network's parameters are constants: gradients flow through it and not into it."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
