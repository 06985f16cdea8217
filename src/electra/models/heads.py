"""Heads: what stands on an encoder's hidden states.

Their shapes follow the family of the encoder, so that each fits its transformers counterpart (interchange.py); recurrent
encoders, which have none, have those of modern ones. All of them are dense -> GELU -> norm -> output; the classic family has
biases and lacks the norm in the RTD head; its heads for labels are the output layer alone (paper, section 3.1). `TwoLayerHead`
is what transformers trains in their place.

Shapes: ... any leading shape, D hidden size, E embedding size, V vocabulary, N examples.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from electra.contracts import Batch, Layout, Padded
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.encoder import EncoderConfig
from electra.nn.layers import dropout, initialise

Pooling = Literal["cls", "mean"]


class MlmHead(nn.Module):
    """Scores over the vocabulary: a transform of the hidden state, times the token table, plus a bias.

    The table is the encoder's (`encoder.embeddings.table`) and passed in, not owned.

    Args:
        states: hidden states that it reads, one behind the other.
    """

    def __init__(self, config: EncoderConfig, states: int = 1) -> None:
        super().__init__()
        classic = isinstance(config, ClassicConfig)
        self.dense = nn.Linear(states * config.hidden_size, config.embedding_size, bias=classic)
        self.norm = nn.LayerNorm(config.embedding_size, eps=config.norm_eps, bias=classic)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        initialise(self, std=config.initializer_range)

    def transform(self, hidden: Tensor) -> Tensor:
        """[..., states * D] -> [..., E]."""
        transformed: Tensor = self.norm(F.gelu(self.dense(hidden)))
        return transformed

    def forward(self, hidden: Tensor, table_VE: Tensor) -> Tensor:
        """[..., states * D] -> [..., V]."""
        return F.linear(self.transform(hidden), table_VE, self.bias)


class CausalHead(MlmHead):
    """The same layers, which say at each token what comes next."""


class RtdHead(nn.Module):
    """One score per token: positive = replaced.

    Args:
        output_bias: initial bias of the score, in logits; log(r / (1 - r)) starts at the prior r of "replaced".
    """

    def __init__(self, config: EncoderConfig, output_bias: float = 0.0) -> None:
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


class EnergyHead(RtdHead):
    """One energy per token, E = -log p^ in nats: the higher, the less likely the token is in its context (Electric).

    A head of the same shape with another meaning. A fresh one gives every token of the vocabulary the probability 1 / V.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config, output_bias=math.log(max(1, config.vocab_size)))


class LabelHead(nn.Module):
    """Scores over labels from vectors, [..., S] -> [..., labels]: dense, GELU and norm unless classic, dropout, output.

    Args:
        labels: number of labels (1 for a regression).
        dropout: probability, before the output layer.
        states: hidden states that a vector is made of, one behind the other: S = states * D.
    """

    def __init__(self, config: EncoderConfig, labels: int, dropout: float = 0.1, states: int = 1) -> None:
        super().__init__()
        size = states * config.hidden_size
        self.dense: nn.Module = nn.Identity()
        self.norm: nn.Module = nn.Identity()
        self.transforms = not isinstance(config, ClassicConfig)
        if self.transforms:
            self.dense = nn.Linear(size, config.hidden_size, bias=False)
            self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=False)
            size = config.hidden_size
        self.classifier = nn.Linear(size, labels)
        self.dropout = dropout
        initialise(self, std=config.initializer_range)

    def features(self, vectors: Tensor) -> Tensor:
        """[..., S] -> [..., F], what the output layer reads."""
        if self.transforms:
            vectors = self.norm(F.gelu(self.dense(vectors)))
        return dropout(vectors, self.dropout if self.training else 0.0)

    def scores(self, vectors: Tensor) -> Tensor:
        """[..., S] -> [..., labels]."""
        scores: Tensor = self.classifier(self.features(vectors))
        return scores


class ClassificationHead(LabelHead):
    """Scores over labels from one vector of each example.

    Args:
        labels, dropout: as `LabelHead`.
        pooling: the vector is that of the first token, or the mean over all tokens (better after little pre-training).

    Raises:
        ElectraError: E-C314 the mean in the classic family, whose transformers class reads the first token.
    """

    def __init__(self, config: EncoderConfig, labels: int, dropout: float = 0.1, pooling: Pooling = "cls") -> None:
        if pooling == "mean" and isinstance(config, ClassicConfig):
            raise ElectraError(
                "E-C314", "task.pooling", "classic encoders are read at their first token", 'leave it out, or "cls"'
            )
        super().__init__(config, labels, dropout)
        self.pooling = pooling

    def pooled(self, hidden: Tensor, layout: Layout) -> Tensor:
        """[B, L, D] or [T, D], one example a row or document -> [N, D], what is read of each example."""
        return _mean(hidden, layout) if self.pooling == "mean" else _first(hidden, layout)

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """[B, L, D] or [T, D], one example a row or document -> [N, labels]."""
        return self.scores(self.pooled(hidden, batch.layout))

    def places(self, batch: Batch) -> Tensor | None:
        """int64 [N], the flat positions of the only hidden states that are read; None = all are."""
        return None if self.pooling == "mean" else _begins(batch.layout)

    def at_places(self, hidden_ND: Tensor) -> Tensor:
        """What `forward` returns, from the hidden states at `places`."""
        return self.scores(hidden_ND)


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

    def pooled(self, hidden: Tensor, layout: Layout) -> Tensor:
        """[B, L, D] or [T, D], one example a row or document -> [N, D], what is read of each example."""
        return _first(hidden, layout)

    def features(self, vectors: Tensor) -> Tensor:
        """[..., D] -> [..., D], what the output layer reads."""
        rate = self.dropout if self.training else 0.0
        return dropout(F.gelu(self.dense(dropout(vectors, rate))), rate)

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """[B, L, D] or [T, D], one example a row or document -> [N, labels]."""
        return self.at_places(self.pooled(hidden, batch.layout))

    def places(self, batch: Batch) -> Tensor:
        """int64 [N], the flat positions of the only hidden states that are read."""
        return _begins(batch.layout)

    def at_places(self, hidden_ND: Tensor) -> Tensor:
        """What `forward` returns, from the hidden states at `places`."""
        scores: Tensor = self.classifier(self.features(hidden_ND))
        return scores


class TokenHead(LabelHead):
    """Scores over labels for every token."""

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """[B, L, D] or [T, D] -> [B, L, labels] or [T, labels]."""
        return self.scores(hidden)


class SpanHead(LabelHead):
    """Scores of every token as the start and as the end of an answer (transformers' `...ForQuestionAnswering`)."""

    def __init__(self, config: EncoderConfig, dropout: float = 0.0) -> None:
        super().__init__(config, 2, dropout)

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """[B, L, D] or [T, D] -> [B, L, 2] or [T, 2]."""
        return self.scores(hidden)


class PairHead(LabelHead):
    """Scores over labels from the hidden states of two tokens of each example, one behind the other (Zhou & Chen, 2022).

    transformers has no class for it: its weights lie in a file of their own beside a bare encoder.
    """

    def __init__(self, config: EncoderConfig, labels: int, dropout: float = 0.1) -> None:
        super().__init__(config, labels, dropout, states=2)

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """[B, L, D] or [T, D], one example a row or document -> [N, labels].

        Args:
            batch: with targets `head` and `tail`, int64 [N]: which token of its example each of the two is.
        """
        return self.at_places(hidden.flatten(0, -2).index_select(0, self.places(batch)))

    def places(self, batch: Batch) -> Tensor:
        """int64 [2 N], the flat positions of the only hidden states that are read: the heads', then the tails'."""
        begin_N = _begins(batch.layout)
        return torch.cat([begin_N + batch.targets[name] for name in ("head", "tail")])

    def at_places(self, hidden_PD: Tensor) -> Tensor:
        """What `forward` returns, from the hidden states at `places`."""
        # not chunk(2): traced for a graph, it fixes the number of examples
        return self.scores(torch.cat(hidden_PD.view(2, -1, hidden_PD.shape[-1]).unbind(), dim=-1))


class ChoiceHead(ClassificationHead):
    """One score for each of the texts of a row, which are candidates to choose from.

    Args: as `ClassificationHead`, with one output.
    """

    def __init__(self, config: EncoderConfig, dropout: float = 0.1, pooling: Pooling = "cls") -> None:
        super().__init__(config, 1, dropout, pooling)

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """[B, L, D] or [T, D], with target `texts` -> [B, K]; -inf where a row has fewer than K texts."""
        scores_BK = self.scores(pool_texts(hidden, batch, self.pooling)).squeeze(-1)
        texts_B = batch.targets["texts"]
        absent_BK = torch.arange(scores_BK.shape[1], device=texts_B.device) >= texts_B[:, None]
        return scores_BK.masked_fill(absent_BK, float("-inf"))


#: those with `places`: no hidden states but the few that are read need to be computed to the end
PlacesHead = ClassificationHead | TwoLayerHead | PairHead


class EmbedHead(nn.Module):
    """A vector of length 1 for each text of a row; without parameters."""

    def __init__(self, pooling: Pooling) -> None:
        super().__init__()
        self.pooling = pooling

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """[B, L, D] or [T, D], with target `texts` -> float32 [B, K, D]; 0 where a row has fewer than K texts."""
        return F.normalize(pool_texts(hidden, batch, self.pooling).float(), dim=-1)


def pool_texts(hidden: Tensor, batch: Batch, pooling: Pooling) -> Tensor:
    """The vector of each text of a row: its first token's, or the mean over all of its tokens, specials included.

    Args:
        hidden: [B, L, D] or [T, D].
        batch: its rows are texts side by side, one segment each; target `texts` int64 [B] has their numbers.

    Returns:
        [B, K, D], K = the largest number of texts; 0 where a row has fewer. Sums are made in fp32.
    """
    texts_B, layout = batch.targets["texts"], batch.layout
    rows, most = len(texts_B), int(texts_B.max())
    first_B = torch.arange(rows, device=texts_B.device) * most
    if isinstance(layout, Padded):
        place = first_B[:, None] + layout.segments.long()
    else:
        row_N = torch.repeat_interleave(texts_B)
        place_N = first_B[row_N] + torch.arange(len(row_N), device=texts_B.device) - (texts_B.cumsum(0) - texts_B)[row_N]
        place = torch.repeat_interleave(place_N, layout.cu_seqlens.diff().long())
    read = layout.real & (batch.positions == 0) if pooling == "cls" else layout.real
    at_R, hidden_RD = place[read], hidden[read].float()
    sums = hidden_RD.new_zeros(rows * most, hidden.shape[-1]).index_add(0, at_R, hidden_RD)
    tokens = torch.bincount(at_R, minlength=rows * most).clamp(min=1)
    return (sums / tokens[:, None]).to(hidden.dtype).view(rows, most, -1)


def _first(hidden: Tensor, layout: Layout) -> Tensor:
    return hidden[:, 0] if isinstance(layout, Padded) else hidden[_begins(layout)]


def _begins(layout: Layout) -> Tensor:
    """int64 [N], the flat position of each example's first token."""
    if isinstance(layout, Padded):
        rows, length = layout.segments.shape
        return torch.arange(rows, device=layout.segments.device) * length
    return layout.cu_seqlens[:-1].long()


def _mean(hidden: Tensor, layout: Layout) -> Tensor:
    """[N, D], over the real tokens of each example, specials included (as transformers' ModernBERT does); sums are made in
    fp32."""
    exact = hidden.float()
    if isinstance(layout, Padded):
        real_BL1 = layout.real.float()[..., None]
        return ((exact * real_BL1).sum(1) / real_BL1.sum(1)).to(hidden.dtype)
    lengths_N = layout.cu_seqlens.diff().long()
    example_T = torch.repeat_interleave(torch.arange(len(lengths_N), device=hidden.device), lengths_N)
    sums_ND = exact.new_zeros(len(lengths_N), hidden.shape[-1]).index_add(0, example_T, exact)
    return (sums_ND / lengths_N[:, None]).to(hidden.dtype)
