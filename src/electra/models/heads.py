"""Heads: what stands on an encoder's hidden states.

Their shapes follow the family of the encoder, so that each fits its transformers counterpart (interchange.py). All of
them are dense -> GELU -> norm -> output; the classic family has biases and lacks the norm in the RTD head; the classic
classification head is the output layer alone (paper, section 3.1).

Shapes: ... any leading shape, D hidden size, E embedding size, V vocabulary, N examples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from electra.contracts import Layout, Padded
from electra.models.classic import ClassicConfig
from electra.models.modern import ModernConfig
from electra.nn.layers import dropout, initialise


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

    def logits(self, transformed: Tensor, table_VE: Tensor) -> Tensor:
        """[..., E] -> [..., V]."""
        return F.linear(transformed, table_VE, self.bias)

    def forward(self, hidden: Tensor, table_VE: Tensor) -> Tensor:
        return self.logits(self.transform(hidden), table_VE)


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


class ClassificationHead(nn.Module):
    """Scores over labels from the first token of each example.

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

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        """[B, L, D] or [T, D], one example a row or document -> [N, labels]."""
        first_ND = hidden[:, 0] if isinstance(layout, Padded) else hidden[layout.cu_seqlens[:-1].long()]
        if self.transforms:
            first_ND = self.norm(F.gelu(self.dense(first_ND)))
        scores: Tensor = self.classifier(dropout(first_ND, self.dropout if self.training else 0.0))
        return scores
