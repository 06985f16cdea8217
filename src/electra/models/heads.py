"""Heads: what stands on an encoder's hidden states.

Their shapes follow the family of the encoder, so that each fits its transformers counterpart (interchange.py). All of
them are dense -> GELU -> norm -> output; the classic family has biases and lacks the norm in the RTD head; its heads for labels
are the output layer alone (paper, section 3.1). `TwoLayerHead` is what transformers trains in their place.

Shapes: ... any leading shape, D hidden size, E embedding size, V vocabulary, N examples.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from electra.contracts import Batch, Layout, Padded
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.modern import ModernConfig
from electra.nn.layers import dropout, initialise

Pooling = Literal["cls", "mean"]


class MlmHead(nn.Module):
    """Scores over the vocabulary: a transform of the hidden state, times the token table, plus a bias.

    The table is the encoder's (`encoder.embeddings.table`) and passed in, not owned.
    """

    def __init__(self, config: ClassicConfig | ModernConfig) -> None:
        super().__init__()
        classic = isinstance(config, ClassicConfig)
        self.dense = nn.Linear(config.hidden_size, config.embedding_size, bias=classic)
        self.norm = nn.LayerNorm(config.embedding_size, eps=config.norm_eps, bias=classic)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        initialise(self, std=config.initializer_range)

    def transform(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., E]."""
        transformed: Tensor = self.norm(F.gelu(self.dense(hidden)))
        return transformed

    def forward(self, hidden: Tensor, table_VE: Tensor) -> Tensor:
        """[..., D] -> [..., V]."""
        return F.linear(self.transform(hidden), table_VE, self.bias)


class RtdHead(nn.Module):
    """One score per token: positive = replaced.

    Args:
        output_bias: initial bias of the score, in logits; log(r / (1 - r)) starts at the prior r of "replaced".
    """

    def __init__(self, config: ClassicConfig | ModernConfig, output_bias: float = 0.0) -> None:
        super().__init__()
        classic = isinstance(config, ClassicConfig)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=classic)
        self.norm = nn.Identity() if classic else nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=False)
        self.output = nn.Linear(config.hidden_size, 1)
        initialise(self, std=config.initializer_range)
        nn.init.constant_(self.output.bias, output_bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [...]."""
        scores: Tensor = self.output(self.norm(F.gelu(self.dense(hidden))))
        return scores.squeeze(-1)


class LabelHead(nn.Module):
    """Scores over labels from vectors, [..., D] -> [..., labels]: dense, GELU and norm in the modern family, dropout, output.

    Args:
        labels: number of labels (1 for a regression).
        dropout: probability, before the output layer.
    """

    def __init__(self, config: ClassicConfig | ModernConfig, labels: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.dense: nn.Module = nn.Identity()
        self.norm: nn.Module = nn.Identity()
        self.transforms = isinstance(config, ModernConfig)
        if isinstance(config, ModernConfig):
            self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
            self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=False)
        self.classifier = nn.Linear(config.hidden_size, labels)
        self.dropout = dropout
        initialise(self, std=config.initializer_range)

    def scores(self, vectors: Tensor) -> Tensor:
        """[..., D] -> [..., labels]."""
        if self.transforms:
            vectors = self.norm(F.gelu(self.dense(vectors)))
        scores: Tensor = self.classifier(dropout(vectors, self.dropout if self.training else 0.0))
        return scores


class ClassificationHead(LabelHead):
    """Scores over labels from one vector of each example.

    Args:
        labels, dropout: as `LabelHead`.
        pooling: the vector is that of the first token, or the mean over all tokens (better after little pre-training).

    Raises:
        ElectraError: E-C314 the mean in the classic family, whose transformers class reads the first token.
    """

    def __init__(
        self, config: ClassicConfig | ModernConfig, labels: int, dropout: float = 0.1, pooling: Pooling = "cls"
    ) -> None:
        if pooling == "mean" and isinstance(config, ClassicConfig):
            raise ElectraError(
                "E-C314", "task.pooling", "classic encoders are read at their first token", 'leave it out, or "cls"'
            )
        super().__init__(config, labels, dropout)
        self.pooling = pooling

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """[B, L, D] or [T, D], one example a row or document -> [N, labels]."""
        return self.scores(_mean(hidden, batch.layout) if self.pooling == "mean" else _first(hidden, batch.layout))


class TwoLayerHead(nn.Module):
    """The head of transformers' ElectraForSequenceClassification: dropout, dense, GELU, dropout, output, on the first token.

    Args:
        labels, dropout: as `LabelHead`.
    """

    def __init__(self, config: ClassicConfig, labels: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, labels)
        self.dropout = dropout
        initialise(self, std=config.initializer_range)

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """[B, L, D] or [T, D], one example a row or document -> [N, labels]."""
        rate = self.dropout if self.training else 0.0
        vectors_ND = F.gelu(self.dense(dropout(_first(hidden, batch.layout), rate)))
        scores: Tensor = self.classifier(dropout(vectors_ND, rate))
        return scores


class TokenHead(LabelHead):
    """Scores over labels for every token."""

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """[B, L, D] or [T, D] -> [B, L, labels] or [T, labels]."""
        return self.scores(hidden)


def _first(hidden: Tensor, layout: Layout) -> Tensor:
    return hidden[:, 0] if isinstance(layout, Padded) else hidden[layout.cu_seqlens[:-1].long()]


def _mean(hidden: Tensor, layout: Layout) -> Tensor:
    """[N, D], over the real tokens of each example, specials included (as transformers' ModernBERT does)."""
    if isinstance(layout, Padded):
        real_BL1 = layout.real.to(hidden.dtype)[..., None]
        return (hidden * real_BL1).sum(1) / real_BL1.sum(1)
    lengths_N = layout.cu_seqlens.diff().long()
    example_T = torch.repeat_interleave(torch.arange(len(lengths_N), device=hidden.device), lengths_N)
    sums_ND = hidden.new_zeros(len(lengths_N), hidden.shape[-1]).index_add(0, example_T, hidden)
    return sums_ND / lengths_N[:, None].to(hidden.dtype)
