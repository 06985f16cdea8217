"""Replaced token detection against a generator that is trained already (Fast-ELECTRA, Dong et al., 2023, arXiv 2310.07347).

In: a batch with drawn positions, and noise. Any masked language model of the same tokens fills the drawn positions; it is not
trained and has no dropout. Its samples are tempered, at first much, later less: T(u) = 1 + (T0 - 1) exp(-u / tau), u = share of
the phase that is done, so the task grows harder as the generator of joint training would make it (section 3). With the model
that the phase starts from as generator, and T0 = 1, this is the second of the two stages of Clark et al. (2020, section 3.3).
Out: one term, RTD (mean over all real tokens).

Samples may be kept on disk. They are found by the rows of the micro-batch and by all they depend on: weights and sizes of the
generator, corpora and rows, masking, temperature and, where one of these moves, the share that is done; precision, kind of
device and layout. So what is found is what would have been computed.

Shapes: N drawn positions.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from electra.config import STRICT, fingerprint, to_tree
from electra.contracts import Batch, Losses, Noise, Objective, Phase
from electra.data.masking import MaskingConfig
from electra.errors import ElectraError
from electra.models.model_dir import Provenance, save_model_dir
from electra.objectives.detection import Discriminator, figures_of, losses_of
from electra.objectives.masked import MaskedLanguageModel, fill, require_temperature, sampling_noise, temperature_at
from electra.objectives.networks import Networks, no_language_model
from electra.objectives.sample_cache import SampleCache, bytes_of, digest


@dataclass(frozen=True, kw_only=True)
class FrozenGeneratorConfig:
    """Detection of what a trained masked language model puts in.

    Args:
        generator: its model directory; None = the model that this phase starts from.
        temperature: of its sampling at the start; falls to 1.
        temperature_decay: tau of T(u) = 1 + (T0 - 1) exp(-u / tau), u = share of the steps done.
        cache: a directory where samples are kept for other runs; None = nowhere.
        masking: which positions are drawn.
    """

    __pydantic_config__ = STRICT
    type: Literal["frozen-generator"] = "frozen-generator"
    generator: Path | None = None
    temperature: float = 2.0
    temperature_decay: float = 0.1
    cache: Path | None = None
    masking: MaskingConfig = field(default_factory=MaskingConfig)

    def __post_init__(self) -> None:
        require_temperature(self.temperature, self.temperature_decay)

    @property
    def moves(self) -> bool:
        """Whether the samples of a row depend on the share of the phase that is done."""
        return self.temperature != 1.0 or self.masking.final_rate is not None

    def cache_bytes(self, rows: int, length: int, vocabulary: int) -> int:
        """What the samples of so many rows of `length` tokens take on disk; 0 without a cache."""
        return bytes_of(rows * self.masking.capacity(length), vocabulary) if self.cache else 0

    def build(self, networks: Networks) -> FrozenGenerator:
        """The objective.

        Raises:
            ElectraError: as `Networks.trained`; E-R002 the cache's place is a file.
        """
        if self.cache is not None and self.cache.exists() and not self.cache.is_dir():
            raise ElectraError(
                "E-R002", str(self.cache), "cannot be written: it is no directory", "give objective.cache another"
            )
        discriminator, frozen = networks.discriminator(self.masking.rate), self._frozen(networks)
        return FrozenGenerator(discriminator, frozen, self, networks)

    def _frozen(self, networks: Networks) -> Frozen:
        if self.generator is None:
            if networks.source is not None and networks.source.mlm_head is None:
                raise no_language_model(networks.source.path)
            return Frozen(networks.main_language_model())
        return Frozen(networks.trained(self.generator))


class Frozen(nn.Module):
    """A masked language model that is never trained and never in training mode; its weights are part of the checkpoint."""

    def __init__(self, model: MaskedLanguageModel) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Frozen:
        return super().train(False)

    @torch.no_grad()
    def forward(self, batch: Batch, mask_id: int, uniform_N: Tensor, temperature: float) -> Tensor:
        """int64 [N], a token for each drawn position."""
        sampled_N = fill(self.model, batch, mask_id, uniform_N, temperature).guess.sampled_N
        assert sampled_N is not None
        return sampled_N

    def fingerprint(self) -> str:
        """Of all that it computes with."""
        state = {name: tensor.contiguous().cpu().numpy() for name, tensor in self.model.state_dict().items()}
        parts = [part for name in sorted(state) for part in (name.encode(), str(state[name].shape).encode(), state[name].data)]
        return fingerprint(to_tree(self.model.encoder.config)) + digest(*map(bytes, parts)).hex()


class FrozenGenerator(nn.Module, Objective):
    """The objective; its one network is called `discriminator`.

    Args:
        generator: of the same tokens; shares nothing with the discriminator.
        config: temperature, masking, cache.
        networks: say what text is read, and whether this is a run or a probe, which has no cache.
    """

    def __init__(
        self, discriminator: Discriminator, generator: Frozen, config: FrozenGeneratorConfig, networks: Networks
    ) -> None:
        super().__init__()
        self.discriminator, self.generator = discriminator, generator
        self.mask_id, self.text = networks.tokenizer.mask_id, networks.text
        self.provenance: Provenance = networks.provenance
        self.config = config
        self.caching = config.cache is not None and networks.lasting
        self._cache: SampleCache | None = None

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"discriminator": self.discriminator}

    def forward(self, batch: Batch, noise: Noise, phase: Phase) -> Losses:
        if not self.caching:
            return losses_of(self.discriminator, batch, self._sample(batch, noise, phase.progress))
        cache, key = self._opened(batch), self._key(noise, phase.progress)
        found = cache.find(key, batch.targets["drawn"].numel())
        if found is None:
            value_N = self._sample(batch, noise, phase.progress)
            cache.keep(key, value_N.cpu().numpy())
        else:
            value_N = torch.from_numpy(found).to(batch.tokens.device, non_blocking=True)
        losses = losses_of(self.discriminator, batch, value_N)
        cached = torch.tensor([0.0 if found is None else 1.0, 1.0])
        return dataclasses.replace(losses, totals={**losses.totals, "cached": cached.to(batch.tokens.device)})

    def _sample(self, batch: Batch, noise: Noise, progress: float) -> Tensor:
        temperature = temperature_at(self.config.temperature, self.config.temperature_decay, progress)
        sampled_N: Tensor = self.generator(batch, self.mask_id, sampling_noise(noise, batch), temperature)
        return sampled_N

    def _key(self, noise: Noise, progress: float) -> bytes:
        """Of the samples of one micro-batch among all of this run."""
        return digest(noise.row_keys.tobytes(), struct.pack("<d", progress if self.config.moves else 0.0))

    def _opened(self, batch: Batch) -> SampleCache:
        """The cache; opened by the first batch, when the weights are those of the run and the device is known."""
        if self._cache is None:
            assert self.config.cache is not None
            device = batch.tokens.device.type
            half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
            context = {
                "generator": self.generator.fingerprint(),
                "text": self.text,
                "masking": to_tree(self.config.masking),
                "temperature": [self.config.temperature, self.config.temperature_decay] if self.config.moves else [1.0],
                "arithmetic": [device, str(half), type(batch.layout).__name__],
            }
            vocabulary = self.generator.model.encoder.config.vocab_size
            self._cache = SampleCache(self.config.cache, bytes.fromhex(fingerprint(context)), vocabulary)
        return self._cache

    def summarise(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        figures = figures_of(totals)
        if self._cache is None or "cached" not in totals:
            return figures
        found, asked = totals["cached"].tolist()
        return {**figures, "cached_share": found / max(1.0, asked), "cache_mb": self._cache.size / 1e6}

    def export(self, directory: Path) -> None:
        model = self.generator.model
        save_model_dir(
            directory,
            encoder=self.discriminator.encoder,
            head=self.discriminator.head,
            generator=(model.encoder, model.head),
            provenance=self.provenance,
        )
