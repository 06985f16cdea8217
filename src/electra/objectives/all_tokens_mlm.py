"""All-Tokens MLM (Clark et al., ICLR 2020, section 3.4): Replace MLM that predicts every token, with a gate that copies.

In: a batch with drawn positions, and noise. The generator fills the drawn positions as in Replace MLM. For every real token the
main encoder gives a softmax over the vocabulary and, by a linear layer, a probability D that the token is an original one:

    p(v) = D * [v = input] + (1 - D) * softmax(v)

Out: two terms, the generator's MLM (mean over drawn positions) and -log p(original) (mean over all real tokens). Where the
input is the original, p is a sum; its logarithm is taken of logarithms, log-sigmoid and cross entropy, so that neither a D near
0 or 1 nor a softmax near 0 loses digits. The softmax at all tokens goes through `vocabulary.guess_in_parts`.

The gate is no part of the exported model: no class of transformers has one, and no later stage asks for it.
Shapes: N tokens of the batch, padding included, D hidden size, E embedding size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from electra.config import STRICT
from electra.contracts import Batch, Losses, Noise, Objective, Phase, Term
from electra.data.masking import MaskingConfig
from electra.models.model_dir import Provenance, save_model_dir
from electra.models.vocabulary import Guess, guess_in_parts
from electra.nn.layers import initialise
from electra.objectives.detection import corrupt
from electra.objectives.masked import MaskedLanguageModel, encoder_figures, encoder_totals, fill, sampling_noise, totals_of
from electra.objectives.networks import Networks
from electra.objectives.replace_mlm import Tying
from electra.train.health import mlm_figures


@dataclass(frozen=True, kw_only=True)
class AllTokensMlmConfig:
    """Prediction of every token of a text that a generator has filled.

    Args:
        tying: what generator and encoder share: `none`, `embeddings`, `all`.
        masking: which positions are drawn.
    """

    __pydantic_config__ = STRICT
    type: Literal["all-tokens-mlm"] = "all-tokens-mlm"
    tying: Tying = "embeddings"
    masking: MaskingConfig = field(default_factory=MaskingConfig)

    def build(self, networks: Networks) -> AllTokensMlm:
        model, generator = networks.main_language_model(), networks.generator_model()
        networks.tie(generator.encoder, model.encoder, self.tying)
        return AllTokensMlm(generator, Copier(model), networks.tokenizer.mask_id, networks.provenance)


class Copier(nn.Module):
    """A masked language model with a copy gate."""

    def __init__(self, model: MaskedLanguageModel) -> None:
        super().__init__()
        self.model = model
        config = model.encoder.config
        self.gate = nn.Linear(config.hidden_size, 1)
        initialise(self.gate, std=config.initializer_range)

    def forward(self, batch: Batch, tokens: Tensor) -> Guess:
        """-log p of every token of `batch` where `tokens`, of the same shape, are read; `correct_N` is the softmax's."""
        model, original_N = self.model, batch.tokens.view(-1)
        hidden = model.encoder(tokens, batch.positions, batch.types, batch.layout)
        hidden_ND = hidden.reshape(len(original_N), -1)
        gate_N = self.gate(hidden_ND)[:, 0].float()
        guessed = guess_in_parts(model.head.transform(hidden_ND), model.encoder.embeddings.table, model.head.bias, original_N)
        return replace(guessed, nll_N=copying_nll(gate_N, guessed.nll_N, tokens.view(-1) == original_N))


def copying_nll(gate_N: Tensor, nll_N: Tensor, same_N: Tensor) -> Tensor:
    """-log p of the originals, fp32, where D = sigmoid(`gate_N`).

    Args:
        gate_N: logits of copying.
        nll_N: -log softmax of the originals.
        same_N: bool, the input is the original.
    """
    guessed_N = F.logsigmoid(-gate_N) - nll_N
    return -torch.where(same_N, torch.logaddexp(F.logsigmoid(gate_N), guessed_N), guessed_N)


class AllTokensMlm(nn.Module, Objective):
    """The objective; see the module's docstring.

    Args:
        generator: tied to the model in `copier`.
        copier: the network called `encoder`.
    """

    def __init__(self, generator: MaskedLanguageModel, copier: Copier, mask_id: int, provenance: Provenance) -> None:
        super().__init__()
        self.generator, self.copier = generator, copier
        self.mask_id, self.provenance = mask_id, provenance

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "encoder": self.copier}

    def forward(self, batch: Batch, noise: Noise, phase: Phase) -> Losses:
        filled = fill(self.generator, batch, self.mask_id, sampling_noise(noise, batch))
        assert filled.guess.sampled_N is not None
        guessed = self.copier(batch, corrupt(batch, filled.guess.sampled_N).tokens)
        real_N = batch.layout.real.reshape(-1).to(torch.float32)
        total = (guessed.nll_N * real_N).sum()
        drawn = Guess(
            nll_N=guessed.nll_N.index_select(0, filled.position_N),
            correct_N=guessed.correct_N.index_select(0, filled.position_N),
            sampled_N=None,
            sampled_nll_N=None,
        )
        return Losses(
            terms={"mlm": Term(total=filled.loss, unit="drawn"), "all_tokens_mlm": Term(total=total, unit="tokens")},
            totals=totals_of(filled, batch)
            | encoder_totals(drawn, filled.weight_N)
            | {"token_loss": total.detach(), "tokens": real_N.sum()},
        )

    def summarise(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        token_loss = float(totals["token_loss"]) / max(1.0, float(totals["tokens"]))
        figures = {"token_loss": token_loss} | encoder_figures(totals) | mlm_figures(totals)
        return {"loss": figures.get("mlm_loss", 0.0) + token_loss, **figures}

    def export(self, directory: Path) -> None:
        model = self.copier.model
        save_model_dir(
            directory,
            encoder=model.encoder,
            head=model.head,
            generator=(self.generator.encoder, self.generator.head),
            provenance=self.provenance,
        )
