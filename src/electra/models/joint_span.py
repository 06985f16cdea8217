"""The paper's head for answers in a text: the end given the start, and whether there is an answer at all.

In: hidden states of rows "[CLS] question [SEP] context [SEP]". Out: scores of starts; for a few starts, scores of every token
as the end of an answer that begins there; one score of "no answer" for each row. The start is a linear layer; the end and "no
answer" see two vectors side by side, through a dense layer of 512 and GELU: the start's and the token's; the first token's
and the mean of all, weighted by the probability of the start. (Clark et al., 2020, as in their code; after XLNet's.)

In training the start is the right one (`targets["start"]`), in prediction the 20 best ones take its place. Starts and ends
are tokens of the context, or the first token where there is no answer in the row. No class of transformers has this head.

Shapes: B rows, L positions, T tokens of a packed batch, D hidden size, K starts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from electra.contracts import Batch, Layout, Packed
from electra.models.encoder import EncoderConfig
from electra.nn.layers import initialise

#: starts whose ends are scored in prediction
BEAM = 20
_INNER = 512


class JointSpanHead(nn.Module):
    """See the module. Its outputs have for every token, on the last axis:

    0. score of the start, -inf where none may be;
    1. score of "no answer" in the row, the same at each of its tokens;
    2. the token's rank k among the starts whose ends are scored, or K;
    3. K scores of the end, of an answer that begins at the start of rank 0, 1 ...; 0 where no start has that rank.

    In prediction K is `BEAM`, in training 1.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.start = nn.Linear(config.hidden_size, 1)
        self.end = _PairScore(config.hidden_size)
        self.null = _PairScore(config.hidden_size)
        initialise(self, std=config.initializer_range)

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """[B, L, D] or [T, D] -> [B, L, 3 + K] or [T, 3 + K].

        Args:
            hidden: the encoder's.
            batch: with the targets `context`, bool as tokens, and, in training, `start`, int64 [B], a position in the row.
        """
        hidden_BLD = by_row(hidden, batch.layout)
        allowed_BL = may_hold_answer(batch)
        start_BL = self.start(hidden_BLD).squeeze(-1).float().masked_fill(~allowed_BL, -torch.inf)
        likely_BD = torch.einsum("bl,bld->bd", start_BL.softmax(dim=-1).to(hidden_BLD.dtype), hidden_BLD)
        null_B = self.null(hidden_BLD[:, 0], self.null.right(likely_BD)).float()
        wide_BM = F.pad(start_BL, (0, BEAM), value=-torch.inf)  # short rows do not fill the beam: they have no such starts
        start_BK = batch.targets["start"].clamp(min=0)[:, None] if self.training else wide_BM.topk(BEAM, dim=-1).indices
        begun_BK, count = F.pad(allowed_BL, (0, BEAM)).gather(1, start_BK), start_BK.shape[1]
        right_BLD = self.end.right(hidden_BLD)
        rows_B = torch.arange(start_BK.shape[0], device=hidden.device)
        ends = [
            self.end(hidden_BLD[rows_B, start_B][:, None], right_BLD).float().masked_fill(~begun_B[:, None], 0.0)
            for start_B, begun_B in zip(torch.where(begun_BK, start_BK, 0).unbind(dim=1), begun_BK.unbind(dim=1), strict=True)
        ]
        ranks_K = torch.arange(count, dtype=start_BL.dtype, device=hidden.device)
        rank_BM = torch.full_like(wide_BM, count).scatter(1, start_BK, torch.where(begun_BK, ranks_K, count))
        rank_BL = rank_BM[:, : start_BL.shape[1]]
        outputs = torch.stack([start_BL, null_B[:, None].expand_as(start_BL), rank_BL, *ends], dim=-1)
        return outputs[real_rows(batch.layout)] if isinstance(batch.layout, Packed) else outputs


class _PairScore(nn.Module):
    """A score of two vectors side by side: dense, GELU, output."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(2 * size, _INNER)
        self.output = nn.Linear(_INNER, 1)

    def right(self, vectors: Tensor) -> Tensor:
        """What the second vector adds before the GELU, [..., D] -> [..., 512]: the same for every first one."""
        return F.linear(vectors, self.dense.weight.chunk(2, dim=1)[1], self.dense.bias)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """First vectors [..., D] and what `right` made of the second ones, [..., 512], -> [...]."""
        scores: Tensor = self.output(F.gelu(F.linear(left, self.dense.weight.chunk(2, dim=1)[0]) + right))
        return scores.squeeze(-1)


def may_hold_answer(batch: Batch) -> Tensor:
    """bool [B, L]: tokens of the context, and the first one of the row for "no answer here"."""
    allowed_BL = by_row(batch.targets["context"], batch.layout).clone()
    allowed_BL[:, 0] = True
    return allowed_BL


def by_row(values: Tensor, layout: Layout) -> Tensor:
    """[B, L, ...] of [T, ...], filled up with zeros; what is [B, L, ...] stays."""
    if not isinstance(layout, Packed):
        return values
    real_BL = real_rows(layout)
    rows = values.new_zeros(*real_BL.shape, *values.shape[1:])
    rows[real_BL] = values
    return rows


def real_rows(layout: Packed) -> Tensor:
    """bool [B, L]: not padding, were the documents rows side by side."""
    lengths_B = layout.cu_seqlens.diff().long()
    columns_L = torch.arange(layout.max_seqlen, device=lengths_B.device)
    return columns_L[None, :] < lengths_B[:, None]
