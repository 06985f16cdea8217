"""The classic encoder: BERT and ELECTRA as published (= transformers' Electra*).

In: tokens, positions and types of any leading shape, and a layout. Out: hidden states of that shape and [hidden_size].
Word, position and type tables are summed, normalised and, where the embedding size is not the hidden size, projected; then
come post-norm layers: self-attention and a GELU feed-forward, each added to its input and normalised.

Shapes: ... = [B, L] or [T], E embedding size, D hidden size, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from electra.config import STRICT
from electra.contracts import Layout
from electra.errors import ElectraError
from electra.nn.attention import Reach, attend
from electra.nn.layers import Embeddings, dropout, initialise, take


@dataclass(frozen=True, kw_only=True)
class ClassicConfig:
    """Sizes of a classic encoder, in transformers' names (ElectraConfig).

    Args:
        vocab_size: 0 = taken from the tokenizer when the recipe is resolved.
        embedding_size: E; other than `hidden_size` it adds a projection.
        initializer_range: standard deviation of the initial weights, cut at two of them.
    """

    __pydantic_config__ = STRICT
    type: Literal["classic"] = "classic"
    vocab_size: int = 0
    embedding_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ElectraError(
                "E-C200", "hidden_size", f"{self.hidden_size} does not divide into {self.num_attention_heads} heads",
                "make it a multiple of num_attention_heads",
            )  # fmt: skip

    @property
    def norm_eps(self) -> float:
        return self.layer_norm_eps


class ClassicEmbeddings(Embeddings):
    """Word + position + type tables."""

    def __init__(self, config: ClassicConfig) -> None:
        size = config.embedding_size
        super().__init__(nn.LayerNorm(size, eps=config.layer_norm_eps), config.hidden_dropout_prob)
        self.word_embeddings = nn.Embedding(config.vocab_size, size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size)

    @property
    def table(self) -> Tensor:
        return self.word_embeddings.weight

    def look_up(self, tokens: Tensor, positions: Tensor, types: Tensor) -> Tensor:
        embedded = F.embedding(tokens, self.word_embeddings.weight)
        embedded = embedded + F.embedding(positions, self.position_embeddings.weight)
        return embedded + F.embedding(types, self.token_type_embeddings.weight)


class ClassicLayer(nn.Module):
    """Self-attention and feed-forward, each followed by dropout, the residual sum and LayerNorm."""

    def __init__(self, config: ClassicConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.heads = config.num_attention_heads
        self.qkv = nn.Linear(size, 3 * size)
        self.attention_output = nn.Linear(size, size)
        self.attention_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.up = nn.Linear(size, config.intermediate_size)
        self.activation: nn.Module = nn.GELU()
        self.down = nn.Linear(config.intermediate_size, size)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = config.hidden_dropout_prob
        self.attention_dropout = config.attention_probs_dropout_prob

    def forward(self, hidden: Tensor, reach: Reach, at: Tensor | None = None) -> Tensor:
        mixed = self.mix(self.project(hidden), reach)
        return self.feed(self.add(take(hidden, at), take(mixed, at)))

    def project(self, hidden: Tensor) -> Tensor:
        """Queries, keys and values, [..., 3, H, D]."""
        qkv: Tensor = self.qkv(hidden).unflatten(-1, (3, self.heads, -1))
        return qkv

    def mix(self, qkv: Tensor, reach: Reach) -> Tensor:
        """Values mixed by attention, [..., D]."""
        return attend(qkv, reach, dropout=self.attention_dropout if self.training else 0.0).flatten(-2)

    def add(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        """The stream behind self-attention, from what it was before and what attention mixed."""
        update = dropout(self.attention_output(mixed), self.dropout if self.training else 0.0)
        return add_and_norm(hidden, update, self.attention_norm)

    def feed(self, hidden: Tensor) -> Tensor:
        """The stream behind the feed-forward."""
        update = dropout(self.down(self.activation(self.up(hidden))), self.dropout if self.training else 0.0)
        return add_and_norm(hidden, update, self.norm)


def add_and_norm(hidden: Tensor, update: Tensor, norm: nn.LayerNorm) -> Tensor:
    """The residual sum of a post-norm network."""
    # under autocast an fp32 stream meets bf16 updates: a sum of two types is several times slower than cast and sum
    normed: Tensor = norm(hidden.to(update.dtype) + update)
    return normed


class ClassicEncoder(nn.Module):
    """See the module's docstring; `config.vocab_size` must be resolved."""

    def __init__(self, config: ClassicConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden_size = config.hidden_size
        self.embedding_size = config.embedding_size
        self.embeddings: Embeddings = ClassicEmbeddings(config)
        equal = config.embedding_size == config.hidden_size
        self.embeddings_project = nn.Identity() if equal else nn.Linear(config.embedding_size, config.hidden_size)
        self.layers = nn.ModuleList(ClassicLayer(config) for _ in range(config.num_hidden_layers))
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
            tokens, positions, types: int64 [...].
            layout: who may attend to whom.
            embeddings: [..., E], used instead of `self.embeddings(tokens, positions, types)`.
            at: int64 [N], flat positions; only what stands there is computed behind the last layer's attention. None = all.

        Returns:
            [..., D], or [N, D] at `at`, in the compute type.
        """
        hidden = self.embed(tokens, positions, types, embeddings)
        for layer, reach in zip(self.layers, self.reaches(positions, layout), strict=True):
            hidden = layer(hidden, reach, at if layer is self.layers[-1] else None)
        return hidden

    def embed(self, tokens: Tensor, positions: Tensor, types: Tensor, embeddings: Tensor | None = None) -> Tensor:
        """What the first layer sees; arguments as in `forward`."""
        hidden: Tensor = self.embeddings(tokens, positions, types) if embeddings is None else embeddings
        projected: Tensor = self.embeddings_project(hidden)
        return projected

    def reaches(self, positions: Tensor, layout: Layout) -> list[Reach]:
        """Who attends to whom in each layer."""
        return [Reach(layout)] * len(self.layers)

    def finish(self, hidden: Tensor) -> Tensor:
        """What the last layer gives is the hidden state: its norm has been applied."""
        return hidden
