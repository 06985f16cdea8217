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
from electra.contracts import Layout, Order
from electra.errors import ElectraError
from electra.models.documents import Documents
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


class RecurrentLayer(nn.Module):
    """Two LSTMs, one for each direction, dropout, the residual sum and LayerNorm."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.left_to_right = nn.LSTM(size, size // 2, batch_first=True)
        self.right_to_left = nn.LSTM(size, size // 2, batch_first=True)
        self.norm = nn.LayerNorm(size, eps=config.norm_eps)
        self.dropout = config.hidden_dropout_prob

    def forward(self, hidden_NMD: Tensor, documents: Documents, order: Order) -> Tensor:
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
        documents = Documents(layout)
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
