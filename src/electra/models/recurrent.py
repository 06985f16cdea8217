"""The recurrent encoder: a convolution over neighbouring tokens, then bidirectional LSTMs; small and fast, for short texts.

In: tokens of any leading shape, and a layout; positions and types are not used. Out: hidden states of that shape and
[hidden_size]. The token table's rows are normalised; each token is joined with its neighbours (Kim, "Convolutional neural
networks for sentence classification", 2014) by one matrix, GELU and a norm; then come layers of two LSTMs (Hochreiter and
Schmidhuber, 1997), one that reads from the left and one from the right, whose outputs side by side are added to the layer's
input and normalised.

A document sees nothing of its neighbours: documents are laid out one a row, whatever the batch's layout, and put back at the
end. The reader from the right begins at each document's own last token, so padding is behind the text for both.

transformers has no such class: a model directory of this family is read by electra alone.

Shapes: ... = [B, L] or [T], T all positions flattened, N documents, M longest document, E embedding size, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from electra.config import STRICT
from electra.contracts import Layout, Order, Packed
from electra.errors import ElectraError
from electra.nn.layers import Embeddings, dropout, initialise, take


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """Sizes of a recurrent encoder.

    Args:
        vocab_size: 0 = taken from the tokenizer when the recipe is resolved.
        hidden_size: D, of both directions together; even.
        kernel_size: tokens that the convolution joins; odd: as many to each side.
        max_position_embeddings: longest document it is meant for; no parameter depends on it.
        initializer_range: standard deviation of the initial weights, cut at two of them; LSTMs start as torch has them.
    """

    __pydantic_config__ = STRICT
    type: Literal["recurrent"] = "recurrent"
    vocab_size: int = 0
    embedding_size: int
    hidden_size: int
    num_hidden_layers: int = 1
    kernel_size: int = 3
    max_position_embeddings: int = 512
    norm_eps: float = 1e-5
    hidden_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        if self.hidden_size < 2 or self.hidden_size % 2:
            raise ElectraError("E-C540", "hidden_size", f"{self.hidden_size} does not divide into two directions",
                               "make it an even number")  # fmt: skip
        if self.kernel_size < 1 or self.kernel_size % 2 == 0 or self.num_hidden_layers < 1:
            cause = f"kernel_size {self.kernel_size}, num_hidden_layers {self.num_hidden_layers}"
            raise ElectraError("E-C540", "encoder", cause, "give an odd kernel_size and at least one layer")


class RecurrentEmbeddings(Embeddings):
    """The token table alone: a recurrent network reads in order, and there are no types."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(nn.LayerNorm(config.embedding_size, eps=config.norm_eps), config.hidden_dropout_prob)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.embedding_size)

    @property
    def table(self) -> Tensor:
        return self.word_embeddings.weight

    def look_up(self, tokens: Tensor, positions: Tensor, types: Tensor) -> Tensor:
        embedded: Tensor = self.word_embeddings(tokens)
        return embedded


class _Documents:
    """Index maps between the positions of a batch, flattened, [T], and one document a row, [N, M].

    Of a packed batch all shapes are known to the layout; of a padded one the number of documents is read from it.
    """

    def __init__(self, layout: Layout) -> None:
        if isinstance(layout, Packed):
            starts_N, lengths_N, longest = layout.cu_seqlens[:-1].long(), layout.cu_seqlens.diff().long(), layout.max_seqlen
            self.real_T = layout.real
            documents = torch.arange(len(starts_N), device=starts_N.device)
            document_T = torch.repeat_interleave(documents, lengths_N, output_size=len(self.real_T))
        else:
            first_BL = layout.real.clone()
            first_BL[:, 1:] &= layout.segments[:, 1:] != layout.segments[:, :-1]
            self.real_T, first_T = layout.real.flatten(), first_BL.flatten()
            starts_N = first_T.nonzero()[:, 0]
            document_T = (first_T.cumsum(0) - 1).clamp(min=0)
            lengths_N = torch.bincount(document_T, weights=self.real_T.float(), minlength=len(starts_N)).long()
            longest = int(lengths_N.max())
        column_M = torch.arange(longest, device=starts_N.device)
        self.real_NM = column_M < lengths_N[:, None]
        self.token_NM = torch.where(self.real_NM, starts_N[:, None] + column_M, 0)
        #: columns of each row from its last token on; padding stays where it is
        self.turned_NM = torch.where(self.real_NM, lengths_N[:, None] - 1 - column_M, column_M)
        place_T = torch.arange(len(document_T), device=starts_N.device) - starts_N[document_T]
        self.slot_T = torch.where(self.real_T, document_T * longest + place_T, 0)

    def laid_out(self, hidden: Tensor) -> Tensor:
        """[N, M, E] of [..., E], zeros behind each document."""
        rows_NME = hidden.flatten(0, -2).index_select(0, self.token_NM.flatten()).view(*self.token_NM.shape, -1)
        return rows_NME * self.real_NM[..., None].to(hidden.dtype)

    def put_back(self, hidden_NMD: Tensor) -> Tensor:
        """[T, D] of [N, M, D], zeros in padding."""
        return hidden_NMD.flatten(0, 1).index_select(0, self.slot_T) * self.real_T[:, None].to(hidden_NMD.dtype)

    def turned(self, hidden_NMD: Tensor) -> Tensor:
        """[N, M, D] with the tokens of each document in the other order; twice is once."""
        return hidden_NMD.gather(1, self.turned_NM[..., None].expand_as(hidden_NMD))


class RecurrentLayer(nn.Module):
    """Two LSTMs, one for each direction, dropout, the residual sum and LayerNorm."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.left_to_right = nn.LSTM(size, size // 2, batch_first=True)
        self.right_to_left = nn.LSTM(size, size // 2, batch_first=True)
        self.norm = nn.LayerNorm(size, eps=config.norm_eps)
        self.dropout = config.hidden_dropout_prob

    def forward(self, hidden_NMD: Tensor, documents: _Documents, order: Order) -> Tensor:
        both = []
        for wanted, lstm in (("forward", self.left_to_right), ("backward", self.right_to_left)):
            turns = wanted == "backward"
            read_NMD = lstm(documents.turned(hidden_NMD) if turns else hidden_NMD)[0]
            read_NMD = documents.turned(read_NMD) if turns else read_NMD
            both.append(read_NMD if order in ("both", wanted) else torch.zeros_like(read_NMD))
        update_NMD = dropout(torch.cat(both, dim=-1), self.dropout if self.training else 0.0)
        normed: Tensor = self.norm(hidden_NMD.to(update_NMD.dtype) + update_NMD)
        return normed


class RecurrentEncoder(nn.Module):
    """See the module's docstring; `config.vocab_size` must be resolved."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden_size = config.hidden_size
        self.embedding_size = config.embedding_size
        self.side = config.kernel_size // 2
        self.embeddings: Embeddings = RecurrentEmbeddings(config)
        self.convolution = nn.Linear(config.kernel_size * config.embedding_size, config.hidden_size)
        self.convolution_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.layers = nn.ModuleList(RecurrentLayer(config) for _ in range(config.num_hidden_layers))
        initialise(self, std=config.initializer_range)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        types: Tensor,
        layout: Layout,
        embeddings: Tensor | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """Hidden states.

        Args:
            tokens: int64 [...].
            positions, types: not used by this family.
            layout: what belongs to which document, and which of its tokens each sees.
            embeddings: [..., E], used instead of `self.embeddings(tokens, positions, types)`.
            at: int64 [N], flat positions; only what stands there is returned. None = all.

        Returns:
            [..., D], zeros in padding, or [N, D] at `at`, in the compute type.
        """
        documents = _Documents(layout)
        embedded: Tensor = self.embeddings(tokens, positions, types) if embeddings is None else embeddings
        hidden_NMD = self._convolved(documents.laid_out(embedded), layout.order)
        for layer in self.layers:
            hidden_NMD = layer(hidden_NMD, documents, layout.order)
        hidden_TD = documents.put_back(hidden_NMD)
        return take(hidden_TD.view(*tokens.shape, -1), at)

    def _convolved(self, embedded_NME: Tensor, order: Order) -> Tensor:
        """[N, M, D]: each token with its neighbours on the sides that `order` lets it see, zeros beyond the document."""
        longest, side = embedded_NME.shape[1], self.side
        wide = F.pad(embedded_NME, (0, 0, side, side))
        seen = {"both": (-side, side), "forward": (-side, 0), "backward": (0, side)}[order]
        taps = [wide[:, side + offset : side + offset + longest] for offset in range(-side, side + 1)]
        kept = [tap if seen[0] <= place - side <= seen[1] else torch.zeros_like(tap) for place, tap in enumerate(taps)]
        normed: Tensor = self.convolution_norm(F.gelu(self.convolution(torch.cat(kept, dim=-1))))
        return normed
