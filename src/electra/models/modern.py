"""The modern encoder: ModernBERT (Warner et al., 2024; = transformers' ModernBert*).

In: tokens and positions of any leading shape, and a layout; types are not used. Out: hidden states of that shape and
[hidden_size]. The token table's rows are normalised; then come pre-norm layers without biases: rotary self-attention, over
the whole document in every n-th layer and within a window in the others, and a GeGLU feed-forward, each added to the
stream; a final norm. The first layer has no norm before its attention, since the embeddings have just been normalised.

Under autocast the residual stream stays in fp32.

Shapes: ... = [B, L] or [T], D hidden size, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from electra.config import STRICT
from electra.contracts import Layout
from electra.errors import ElectraError
from electra.nn.attention import Reach, attend
from electra.nn.layers import Embeddings, Rotary, dropout, geglu, initialise, take


@dataclass(frozen=True, kw_only=True)
class ModernConfig:
    """Sizes of a modern encoder, in transformers' names (ModernBertConfig).

    Args:
        vocab_size: 0 = taken from the tokenizer when the recipe is resolved; so are the token ids.
        intermediate_size: width of each half of the GeGLU.
        max_position_embeddings: longest document it is meant for; no parameter depends on it.
        global_attn_every_n_layers: layers 0, n, 2n ... see the whole document; 1 = all do.
        local_attention: window of the other layers; a token sees `local_attention // 2` to each side.
        attention_dropout: on the output of the attention, as ModernBERT was trained (not on its weights).
        initializer_range: standard deviation of the initial weights, cut at two of them.
    """

    __pydantic_config__ = STRICT
    type: Literal["modern"] = "modern"
    vocab_size: int = 0
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    norm_eps: float = 1e-5
    global_rope_theta: float = 10_000.0
    local_rope_theta: float = 10_000.0
    global_attn_every_n_layers: int = 1
    local_attention: int = 128
    attention_dropout: float = 0.0
    mlp_dropout: float = 0.0
    embedding_dropout: float = 0.0
    initializer_range: float = 0.02
    pad_token_id: int = 0
    cls_token_id: int | None = None
    sep_token_id: int | None = None

    def __post_init__(self) -> None:
        if self.num_attention_heads < 1 or self.hidden_size % (2 * self.num_attention_heads):
            raise ElectraError(
                "E-C200", "hidden_size", f"{self.hidden_size} does not make {self.num_attention_heads} heads of even size",
                "make it a multiple of 2 * num_attention_heads",
            )  # fmt: skip
        if self.global_attn_every_n_layers < 1:
            raise ElectraError(
                "E-C201", "global_attn_every_n_layers", "is below 1", "give 1 for global attention in every layer"
            )

    @property
    def embedding_size(self) -> int:
        """That of the hidden states: the family has no projection."""
        return self.hidden_size


class ModernEmbeddings(Embeddings):
    """The token table alone: positions are rotary, and there are no types."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__(nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=False), config.embedding_dropout)
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)

    @property
    def table(self) -> Tensor:
        return self.tok_embeddings.weight

    def look_up(self, tokens: Tensor, positions: Tensor, types: Tensor) -> Tensor:
        embedded: Tensor = self.tok_embeddings(tokens)
        return embedded


class ModernLayer(nn.Module):
    """Pre-norm self-attention with rotary positions, pre-norm GeGLU. Its weights have transformers' names."""

    def __init__(self, config: ModernConfig, index: int) -> None:
        super().__init__()
        size = config.hidden_size
        self.heads = config.num_attention_heads
        self.is_global = index % config.global_attn_every_n_layers == 0
        self.attn_norm = nn.LayerNorm(size, eps=config.norm_eps, bias=False) if index else nn.Identity()
        self.attn = nn.ModuleDict({"Wqkv": nn.Linear(size, 3 * size, bias=False), "Wo": nn.Linear(size, size, bias=False)})
        self.mlp_norm = nn.LayerNorm(size, eps=config.norm_eps, bias=False)
        inner = config.intermediate_size
        self.mlp = nn.ModuleDict({"Wi": nn.Linear(size, 2 * inner, bias=False), "Wo": nn.Linear(inner, size, bias=False)})
        self.attention_dropout = config.attention_dropout
        self.mlp_dropout = config.mlp_dropout

    def forward(self, hidden: Tensor, reach: Reach, at: Tensor | None = None) -> Tensor:
        mixed = self.mix(self.project(hidden), reach)
        return self.feed(self.add(take(hidden, at), take(mixed, at)))

    def project(self, hidden: Tensor) -> Tensor:
        """Queries, keys and values, [..., 3, H, D]."""
        qkv: Tensor = self.attn["Wqkv"](self.attn_norm(hidden)).unflatten(-1, (3, self.heads, -1))
        return qkv

    def mix(self, qkv: Tensor, reach: Reach) -> Tensor:
        """Values mixed by attention, [..., D]."""
        return attend(qkv, reach).flatten(-2)

    def add(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        """The stream behind self-attention, from what it was before and what attention mixed."""
        update = dropout(self.attn["Wo"](mixed), self.attention_dropout if self.training else 0.0)
        return hidden + update.to(hidden.dtype)  # cast, then add: under autocast a sum of two types is several times slower

    def feed(self, hidden: Tensor) -> Tensor:
        """The stream behind the feed-forward."""
        gated = geglu(self.mlp["Wi"](self.mlp_norm(hidden)))
        update: Tensor = self.mlp["Wo"](dropout(gated, self.mlp_dropout if self.training else 0.0))
        return hidden + update.to(hidden.dtype)


class ModernEncoder(nn.Module):
    """See the module's docstring; `config.vocab_size` must be resolved."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden_size = config.hidden_size
        self.embedding_size = config.embedding_size
        self.head_size = config.hidden_size // config.num_attention_heads
        self.window = config.local_attention
        self.global_theta, self.local_theta = config.global_rope_theta, config.local_rope_theta
        self.embeddings: Embeddings = ModernEmbeddings(config)
        self.layers = nn.ModuleList(ModernLayer(config, index) for index in range(config.num_hidden_layers))
        self.final_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=False)
        deep = (2 * max(1, config.num_hidden_layers)) ** 0.5
        initialise(self, std=config.initializer_range, residual_std=config.initializer_range / deep)

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
            tokens, positions: int64 [...].
            types: not used by this family.
            layout: who may attend to whom.
            embeddings: [..., D], used instead of `self.embeddings(tokens, positions, types)`.
            at: int64 [N], flat positions; only what stands there is computed behind the last layer's attention. None = all.

        Returns:
            [..., D], or [N, D] at `at`.
        """
        hidden = self.embed(tokens, positions, types, embeddings)
        for layer, reach in zip(self.layers, self.reaches(positions, layout), strict=True):
            hidden = layer(hidden, reach, at if layer is self.layers[-1] else None)
        return self.finish(hidden)

    def embed(self, tokens: Tensor, positions: Tensor, types: Tensor, embeddings: Tensor | None = None) -> Tensor:
        """What the first layer sees; arguments as in `forward`."""
        hidden: Tensor = self.embeddings(tokens, positions, types) if embeddings is None else embeddings
        return hidden

    def reaches(self, positions: Tensor, layout: Layout) -> list[Reach]:
        """Who attends to whom in each layer."""
        everywhere = Reach(layout, None, Rotary.of(positions, self.head_size, self.global_theta))
        nearby = Reach(layout, self.window, Rotary.of(positions, self.head_size, self.local_theta))
        return [everywhere if layer.is_global else nearby for layer in self.layers]

    def finish(self, hidden: Tensor) -> Tensor:
        """The hidden state, from what the last layer gives."""
        normed: Tensor = self.final_norm(hidden)
        return normed
