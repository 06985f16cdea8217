"""Real or fake: a detector of texts that a machine has written or tampered with, learnt from raw text alone.

In: a batch with drawn positions, and noise. A masked language model fills a part of the drawn positions of every row, the
part drawn for each row from `least_share` to all: so fakes come at varied rates. The model is trained beside by masked
language modelling, or is a frozen one from a model directory. Each piece of a document then has a real and a fake version,
of which one is shown (`fakes.py` says how, and why nothing but the words tells them apart); fakes may also come from a corpus
of fake texts. The detector, an encoder under the classification head of fine-tuning, says of each shown text how probable
it is that it is fake: one probability for a text. After GROVER's discriminator (Zellers et al., 2019), with ELECTRA's
generator (Clark et al., 2020) in the place of a causal one.

Out: two terms, MLM (mean over the positions that were filled, in expectation) and the cross entropy of the shown texts, divided
by the rows of the batch, for how many texts count is known only when the generator has run. What is exported is a classifier
with the labels `real` and `fake`, for texts as long as those it has seen.

Shapes: B rows, K drawn positions of a row, N = B * K; R rows of shown texts, S texts of a row at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from electra.config import STRICT, to_tree
from electra.contracts import Batch, Encoded, Losses, Noise, Objective, Packed, Phase, Term
from electra.data.grid import collate
from electra.data.masking import MaskingConfig
from electra.errors import ElectraError
from electra.metrics import binned_auc, entropy
from electra.models.classic import ClassicConfig
from electra.models.encoder import Encoder
from electra.models.heads import ClassificationHead, pool_texts
from electra.models.model_dir import Provenance, save_model_dir
from electra.objectives.detection import corrupt
from electra.objectives.fakes import LABELS, Exhibition, FakeCorpus, Shown
from electra.objectives.masked import Filled, MaskedLanguageModel, fill, sampling_noise, totals_of
from electra.objectives.networks import Networks
from electra.tasks.classify import ClassifyConfig
from electra.tasks.common import side_by_side
from electra.train.health import label_histogram, mlm_figures

_NO_LABEL = -100
#: the least `task.max_length`
_SHORTEST = 8


@dataclass(frozen=True, kw_only=True)
class RealOrFakeConfig:
    """A detector of fake texts.

    Args:
        frozen: a model directory with a masked language model, which makes the fakes and is not trained; None = a generator
            is trained beside.
        temperature: of the generator's sampling.
        least_share: of a row's drawn positions at least this share is filled; each row draws its own, up to 1.
        fakes: a corpus of fake texts, built with the tokenizer of the real ones.
        fakes_share: part of the fakes that comes from there; None = half.
        masking: which positions are drawn.
    """

    __pydantic_config__ = STRICT
    type: Literal["real-or-fake"] = "real-or-fake"
    frozen: Path | None = None
    temperature: float = 1.0
    least_share: float = 0.2
    fakes: Path | None = None
    fakes_share: float | None = None
    masking: MaskingConfig = field(default_factory=MaskingConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.least_share <= 1 or self.temperature <= 0:
            cause = f"least_share {self.least_share:g}, temperature {self.temperature:g}"
            raise ElectraError("E-C541", "objective", cause, "give a share from 0 to 1 and a positive temperature")
        if self.fakes_share is not None and (self.fakes is None or not 0 < self.fakes_share <= 1):
            cause = f"is {self.fakes_share:g}, while objective.fakes is {self.fakes}"
            raise ElectraError("E-C541", "objective.fakes_share", cause, "give both: a corpus, and a share above 0, up to 1")

    def build(self, networks: Networks) -> RealOrFake:
        """The objective.

        Raises:
            ElectraError: as `Networks.trained` and `FakeCorpus`.
        """
        config = networks.encoder
        pooling: Literal["cls", "mean"] = "cls" if isinstance(config, ClassicConfig) else "mean"
        detector = Detector(networks.main_encoder(), ClassificationHead(config, len(LABELS), pooling=pooling))
        source = networks.source
        if source is not None and source.labels == LABELS and source.task_head is not None:
            detector.head.load_state_dict(source.task_head.state_dict())  # a detector that is trained further
        generator = networks.generator_model() if self.frozen is None else networks.trained(self.frozen)
        tokenizer = networks.tokenizer
        corpus = None if self.fakes is None else FakeCorpus(self.fakes, tokenizer)
        share = 0.5 if self.fakes_share is None else self.fakes_share
        return RealOrFake(generator, detector, self, Exhibition(tokenizer, corpus, share), networks.provenance)


class Detector(nn.Module):
    """Encoder and classification head: two logits, real and fake, for each text of a row."""

    def __init__(self, encoder: Encoder, head: ClassificationHead) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, batch: Batch) -> Tensor:
        """fp32 [R, S, 2]; `batch` has texts side by side and the target `texts` (`pool_texts`)."""
        hidden = self.encoder(batch.tokens, batch.positions, batch.types, batch.layout)
        return self.head.scores(pool_texts(hidden, batch, self.head.pooling)).float()


class RealOrFake(nn.Module, Objective):
    """The objective; see the module's docstring.

    Args:
        generator: makes the fakes; trained unless `config.frozen` names it.
        detector: tells them from real texts.
        config: shares and temperature.
        exhibition: which text is shown, with which label.
        provenance: what a ModelDir says about where it comes from.
    """

    longest: Tensor

    def __init__(
        self,
        generator: MaskedLanguageModel,
        detector: Detector,
        config: RealOrFakeConfig,
        exhibition: Exhibition,
        provenance: Provenance,
    ) -> None:
        super().__init__()
        self.generator, self.detector = generator, detector
        self.exhibition, self.provenance = exhibition, provenance
        self.trains_generator = config.frozen is None
        self.temperature, self.least_share = config.temperature, config.least_share
        if not self.trains_generator:
            generator.requires_grad_(False).eval()
        #: tokens of the longest text that was shown
        self.register_buffer("longest", torch.zeros((), dtype=torch.int64))

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is trained; a frozen generator stays in evaluation mode."""
        super().train(mode)
        if not self.trains_generator:
            self.generator.eval()
        return self

    @property
    def networks(self) -> dict[str, nn.Module]:
        trained: dict[str, nn.Module] = {"generator": self.generator} if self.trains_generator else {}
        return trained | {"detector": self.detector}

    def forward(self, batch: Batch, noise: Noise, phase: Phase) -> Losses:
        chosen = self._chosen(batch, noise)
        filled = self._filled(chosen, noise)
        shown, pieces = self._shown(batch, chosen, filled, noise)
        texts, label_RS = self._laid_out(shown, batch)
        logits_RS2 = self.detector(texts)
        loss = F.cross_entropy(logits_RS2.flatten(0, 1), label_RS.flatten(), reduction="sum", ignore_index=_NO_LABEL)
        terms = {"detector": Term(total=loss, unit="rows")}
        if self.trains_generator:  # of the positions drawn, (1 + least) / 2 are filled on average
            terms = {"mlm": Term(total=filled.loss, unit="drawn", weight=2 / (1 + self.least_share))} | terms
        fakes = [text for text in shown if text.label]
        counts = (pieces, len(shown), len(fakes), sum(text.from_corpus for text in fakes))
        totals = {
            "detector_loss": loss.detach(),
            "detector_histogram": label_histogram(
                logits_RS2.detach()[..., 1] - logits_RS2.detach()[..., 0], label_RS == 1, label_RS != _NO_LABEL
            ),
            "texts": torch.tensor(counts, device=loss.device),
        }
        return Losses(terms=terms, totals=totals_of(filled, chosen) | totals)

    def texts(self, batch: Batch, noise: Noise) -> list[Shown]:
        """The texts of a batch that a detector would be shown, real ones and fakes."""
        chosen = self._chosen(batch, noise)
        return self._shown(batch, chosen, self._filled(chosen, noise), noise)[0]

    def _shown(self, batch: Batch, chosen: Batch, filled: Filled, noise: Noise) -> tuple[list[Shown], int]:
        assert filled.guess.sampled_N is not None
        return self.exhibition(batch, corrupt(chosen, filled.guess.sampled_N).tokens, noise)

    def _chosen(self, batch: Batch, noise: Noise) -> Batch:
        """The batch with the share of its drawn positions that each row fills."""
        width = batch.targets["drawn"].shape[1]
        share_B1 = self.least_share + (1 - self.least_share) * noise.uniform("fill share", 1)
        filled_BK = torch.from_numpy(noise.uniform("fill", width) < share_B1).to(batch.tokens.device)
        weight, is_mask = batch.targets["drawn_weight"], batch.targets["is_mask"]
        chosen = {"drawn_weight": weight * filled_BK.to(weight.dtype), "is_mask": is_mask & filled_BK}
        return replace(batch, targets={**batch.targets, **chosen})

    def _filled(self, chosen: Batch, noise: Noise) -> Filled:
        with torch.set_grad_enabled(self.trains_generator and torch.is_grad_enabled()):
            mask_id = self.provenance.tokenizer.mask_id
            return fill(self.generator, chosen, mask_id, sampling_noise(noise, chosen), self.temperature)

    def _laid_out(self, shown: Sequence[Shown], batch: Batch) -> tuple[Batch, Tensor]:
        """The texts side by side in their rows, and their labels, int64 [R, S]."""
        rows: dict[int, list[Shown]] = {}
        for text in shown:
            rows.setdefault(text.row, []).append(text)
        tokenizer = self.provenance.tokenizer
        items = [side_by_side([text.text for text in texts]) for texts in rows.values()]
        labels = [[text.label for text in texts] for texts in rows.values()]
        if not items:  # a text without label, so that there is a loss, of 0
            nothing = np.array([tokenizer.cls_id, tokenizer.sep_id], dtype=np.int64)
            items, labels = [side_by_side([Encoded(tokens=nothing, types=np.zeros_like(nothing))])], [[_NO_LABEL]]
        most, longest = max(map(len, labels)), max(len(item.tokens) for item in items)
        device = batch.tokens.device
        self.longest.clamp_(min=max((len(text.text.tokens) for text in shown), default=0))
        label_RS = torch.tensor([row + [_NO_LABEL] * (most - len(row)) for row in labels], device=device)
        return collate(items, longest, tokenizer.pad_id, isinstance(batch.layout, Packed)).to(device), label_RS

    def summarise(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        """Figures of the generator, and of the detector: means over the texts that were shown."""
        figures = mlm_figures(totals)
        pieces, texts, fakes, from_corpus = (float(count) for count in totals["texts"])
        if texts:
            loss, share = float(totals["detector_loss"]) / texts, fakes / texts
            negatives, positives = totals["detector_histogram"].cpu().numpy()
            figures |= {
                "detector_loss": loss,
                "prior_gain": entropy([share, 1 - share]) - loss,
                "auc": binned_auc(negatives, positives),
                "fake_share": share,
                "left_out": 1 - texts / pieces,
                "from_corpus": from_corpus / max(fakes, 1.0),
            }
        generator = figures.get("mlm_loss", 0.0) if self.trains_generator else 0.0
        return {"loss": generator + figures.get("detector_loss", 0.0), **figures}

    def export(self, directory: Path) -> None:
        """A classifier of texts as long as the longest that was shown, with the generator beside it if it was trained here."""
        task = ClassifyConfig(labels=LABELS, pairs=False, max_length=max(_SHORTEST, int(self.longest)))
        save_model_dir(
            directory,
            encoder=self.detector.encoder,
            head=self.detector.head,
            labels=LABELS,
            task=to_tree(task),
            generator=(self.generator.encoder, self.generator.head) if self.trains_generator else None,
            provenance=self.provenance,
        )
