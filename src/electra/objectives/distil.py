"""Teacher and student: a masked language model that learns from the text and from what another one says about it.

In: a batch with drawn positions. Student and teacher read the same masked text. Out: up to three terms.

    mlm      cross entropy of the student against the words that stood there, mean over the drawn positions
    soft     KL(teacher || student) of the distributions at the drawn positions, both at a temperature T, times T^2, so that its
             gradient does not shrink with T (Hinton et al., 2015, section 2)
    hidden   1 - cosine of the last hidden states, mean over all real tokens (DistilBERT, Sanh et al., 2019, section 3)

The cosine of last hidden states, and not MiniLM's relations of queries, keys and values (Wang et al., 2020): those need what
lies inside of both networks, which attention does not hand out here, while every encoder has last hidden states, whatever its
family, depth or heads. Where the widths differ, a learned projection takes the student's states to the teacher's size; it
belongs to the training and is not exported.

The teacher is a model directory with a masked language modelling head and the same tokenizer, or the average of the student's
own weights over the steps (a mean teacher, Tarvainen & Valpola, 2017). It is in evaluation mode and gets no gradient: its
weights are buffers. Those of a model directory stay out of checkpoints, the averaged ones are in them.

`updates = "joint"`: one update a step, from all terms. `"alternating"`: two on the same rows, the first from the text alone,
the second from the teacher alone.

Shapes: N drawn positions, D hidden size, E embedding size; "token shape" is [B, L] or [T].
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from electra.config import STRICT, DefaultType
from electra.contracts import Batch, Losses, Noise, Objective, Phase, Term
from electra.data.masking import MaskingConfig
from electra.errors import ElectraError
from electra.models.model_dir import Provenance, save_model_dir
from electra.models.vocabulary import guess
from electra.objectives.masked import Filled, MaskedLanguageModel, masked_text, totals_of
from electra.objectives.networks import Networks
from electra.objectives.soft_targets import divergence
from electra.train.health import mlm_figures

#: whether a step is one update from text and teacher, or two
Updates = Literal["joint", "alternating"]


@dataclass(frozen=True, kw_only=True)
class ModelTeacher:
    """A model directory with a masked language modelling head and the student's tokenizer.

    Args:
        path: of the directory; a run whose teacher has changed is not resumed.
    """

    __pydantic_config__ = STRICT
    type: Literal["model"] = "model"
    path: Path


@dataclass(frozen=True, kw_only=True)
class AverageTeacher:
    """The average of the student's weights over the steps.

    Args:
        decay: the share of the average that stays in a step; lower in the first steps.
    """

    __pydantic_config__ = STRICT
    type: Literal["average"] = "average"
    decay: float = 0.999

    def __post_init__(self) -> None:
        if not 0 < self.decay < 1:
            raise ElectraError("E-C554", "objective.teacher.decay", f"is {self.decay}", "give 0 < decay < 1, such as 0.999")


@dataclass(frozen=True, kw_only=True)
class DistilConfig:
    """Learning from a teacher.

    Args:
        teacher: a model directory, or the student's average.
        soft_weight: factor of the term of distributions; DistilBERT has 5 against 2 for the text.
        temperature: of both distributions.
        hidden_weight: factor of the term of hidden states; DistilBERT has 1 against 2 for the text.
        updates: `joint` or `alternating`.
        masking: which positions are drawn.
    """

    __pydantic_config__ = STRICT
    type: Literal["distil"] = "distil"
    teacher: Annotated[ModelTeacher | AverageTeacher, Field(discriminator="type"), DefaultType("model")]
    soft_weight: float = 2.5
    temperature: float = 2.0
    hidden_weight: float = 0.5
    updates: Updates = "joint"
    masking: MaskingConfig = field(default_factory=MaskingConfig)

    def __post_init__(self) -> None:
        weights = (self.soft_weight, self.hidden_weight)
        if min(weights) < 0 or max(weights) == 0 or self.temperature <= 0:
            raise ElectraError("E-C555", "objective", f"soft_weight {weights[0]}, hidden_weight {weights[1]} and temperature "
                               f"{self.temperature} leave nothing to learn from the teacher",
                               "give a weight above 0 and none below, and a temperature above 0")  # fmt: skip

    def build(self, networks: Networks) -> Distil:
        """The objective.

        Raises:
            ElectraError: as `Networks.trained`.
        """
        student = networks.main_language_model()
        if isinstance(self.teacher, AverageTeacher):
            teacher = frozen(copy.deepcopy(student), persistent=True)
        else:
            teacher = frozen(networks.trained(self.teacher.path), persistent=False)
        return Distil(student, teacher, self, networks.tokenizer.mask_id, networks.provenance)


def frozen(model: MaskedLanguageModel, persistent: bool) -> MaskedLanguageModel:
    """`model` in evaluation mode, its parameters turned into buffers: no optimiser finds them, `to(device)` does.

    Args:
        persistent: they are part of the state dict, and so of checkpoints.
    """
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach(), persistent=persistent)
    return model.eval()


class Student(nn.Module):
    """What is trained: the model, and where hidden states are compared, a projection to the teacher's width if it differs."""

    def __init__(self, model: MaskedLanguageModel, width: int | None) -> None:
        super().__init__()
        own = model.encoder.hidden_size
        self.model = model
        self.projection: nn.Module = nn.Identity() if width in (None, own) else nn.Linear(own, width or own, bias=False)


class Distil(nn.Module, Objective):
    """The objective; its one network is called `encoder`. See the module's docstring.

    Args:
        student: learns.
        teacher: as `frozen` makes it; averaged if its buffers are persistent, that is, if the config says so.
        config: weights, temperature, order of updates.
        mask_id: id of [MASK].
        provenance: what a ModelDir says about where it comes from.
    """

    updates: Tensor

    def __init__(
        self,
        student: MaskedLanguageModel,
        teacher: MaskedLanguageModel,
        config: DistilConfig,
        mask_id: int,
        provenance: Provenance,
    ) -> None:
        super().__init__()
        self.student = Student(student, teacher.encoder.hidden_size if config.hidden_weight else None)
        self.teacher = teacher
        self.decay = config.teacher.decay if isinstance(config.teacher, AverageTeacher) else None
        self.register_buffer("updates", torch.zeros(()), persistent=self.decay is not None)
        self.soft_weight, self.hidden_weight = config.soft_weight, config.hidden_weight
        self.temperature, self.alternating = config.temperature, config.updates == "alternating"
        self.mask_id, self.provenance = mask_id, provenance

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"encoder": self.student}

    def phases(self, step: int, steps: int) -> Sequence[Phase]:
        names = ("text", "teacher") if self.alternating else ("joint",)
        return tuple(Phase(name=name, networks=("encoder",), progress=step / steps) for name in names)

    def train(self, mode: bool = True) -> Self:
        """Training mode for the student; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def updated(self) -> None:
        """Move the averaged teacher towards the student; a model directory stays as it is.

        The decay is min(`decay`, (1 + n) / (10 + n)) in update n, as for averages of weights (`optim.following_rate`).
        """
        if self.decay is None:
            return
        rate = 1 - ((1 + self.updates) / (10 + self.updates)).clamp(max=self.decay)
        own = dict(self.student.model.named_parameters())
        for name, average in self.teacher.named_buffers():
            average.lerp_(own[name], rate)
        self.updates += 1

    def forward(self, batch: Batch, noise: Noise, phase: Phase) -> Losses:
        tokens = masked_text(batch, self.mask_id)
        position_N, weight_N = (batch.targets[name].view(-1) for name in ("drawn", "drawn_weight"))
        from_text, from_teacher = phase.name != "teacher", phase.name != "text"
        everywhere = from_teacher and self.hidden_weight > 0
        model = self.student.model
        own = _read(model, batch, tokens, position_N, everywhere)
        table, bias = model.encoder.embeddings.table, model.head.bias
        terms, totals = dict[str, Term](), dict[str, Tensor]()
        if from_text:
            original_N = batch.tokens.view(-1).index_select(0, position_N)
            guessed = guess(own.drawn_NE, table, bias, original_N)
            filled = Filled(position_N=position_N, weight_N=weight_N, guess=guessed, hidden_ND=own.drawn_ND)
            terms["mlm"] = Term(total=filled.loss, unit="drawn")
            totals |= totals_of(filled, batch)
        if from_teacher:
            with torch.no_grad():
                theirs = _read(self.teacher, batch, tokens, position_N, everywhere)
            if self.soft_weight > 0:
                soft = self.teacher.encoder.embeddings.table, self.teacher.head.bias
                kl_N = divergence(own.drawn_NE, table, bias, theirs.drawn_NE, *soft, self.temperature)
                total = self.temperature**2 * (kl_N * weight_N).sum()
                terms["soft"] = Term(total=total, unit="drawn", weight=self.soft_weight)
                totals |= {"soft_loss": total.detach(), "soft_drawn": weight_N.sum()}
            if everywhere:
                far = 1 - F.cosine_similarity(self.student.projection(own.hidden).float(), theirs.hidden.float(), dim=-1)
                total = torch.where(batch.layout.real, far, 0.0).sum()
                terms["hidden"] = Term(total=total, unit="tokens", weight=self.hidden_weight)
                totals |= {"hidden_loss": total.detach(), "hidden_tokens": batch.layout.real.sum()}
        return Losses(terms=terms, totals=totals)

    def summarise(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        """`loss`, the figures of masked language modelling, and `soft_loss`, `hidden_loss`, means in the terms' units."""
        figures = mlm_figures(totals) if "mlm_drawn" in totals else {}
        loss = figures.get("mlm_loss", 0.0)
        for name, count, weight in (
            ("soft_loss", "soft_drawn", self.soft_weight),
            ("hidden_loss", "hidden_tokens", self.hidden_weight),
        ):
            if name in totals:
                figures[name] = float(totals[name]) / max(float(totals[count]), 1.0)
                loss += weight * figures[name]
        return {"loss": loss, **figures}

    def export(self, directory: Path) -> None:
        model = self.student.model
        save_model_dir(directory, encoder=model.encoder, head=model.head, provenance=self.provenance)


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What a model makes of a text.

    Args:
        hidden: last hidden states, token shape + [D], or [N, D] at the drawn positions alone.
        drawn_ND: those at the drawn positions.
        drawn_NE: the same, transformed for the vocabulary.
    """

    hidden: Tensor
    drawn_ND: Tensor
    drawn_NE: Tensor


def _read(model: MaskedLanguageModel, batch: Batch, tokens: Tensor, position_N: Tensor, everywhere: bool) -> _Read:
    at = None if everywhere else position_N
    hidden = model.encoder(tokens, batch.positions, batch.types, batch.layout, at=at)
    drawn_ND = hidden.reshape(-1, hidden.shape[-1]).index_select(0, position_N) if everywhere else hidden
    return _Read(hidden=hidden, drawn_ND=drawn_ND, drawn_NE=model.head.transform(drawn_ND))
