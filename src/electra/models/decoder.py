"""A causal decoder: an encoder of either family whose tokens see only those before them and, where there is one, a source text.

In: target tokens, and the hidden states of a source (`Memory`), or none: then it is a causal language model. Out: hidden states
and vocabulary logits of the next token. A decoder *is* an encoder with an attention to the source between self-attention and
feed-forward of each layer, and a language modelling head; so every encoder of its sizes can be its start (Rothe et al., 2020).

Training reads a whole target at once (`forward`). Generation reads one token after the other: `start` makes a `State` with keys
and values of the tokens so far and those of the source, `prefill` appends the first tokens, `next_logits` one more to each
hypothesis. Hypotheses of one source stand side by side and share its keys and values; reordering moves only their own.

Classic: post-norm with biases, = transformers' `ElectraForCausalLM` with cross attention. Modern: pre-norm without biases; that
family has no such class in transformers.

Shapes: B sources, S source tokens, T target tokens, N hypotheses (B * beams), H heads, D hidden size, K head size, M room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from electra.contracts import Batch, Layout, Packed, Padded
from electra.models.classic import ClassicConfig, ClassicEncoder, ClassicLayer, add_and_norm
from electra.models.heads import MlmHead
from electra.models.modern import ModernConfig, ModernEncoder, ModernLayer
from electra.nn.layers import dropout, initialise


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The source that a decoder attends to.

    Args:
        hidden_BSD: hidden states of the encoder.
        real_BS: bool, not padding.
    """

    hidden_BSD: Tensor
    real_BS: Tensor

    @classmethod
    def of(cls, hidden: Tensor, layout: Layout) -> Memory:
        """From what an encoder gave for one source a row, or a packed document."""
        if isinstance(layout, Padded):
            return cls(hidden_BSD=hidden, real_BS=layout.real)
        return cls(hidden_BSD=_padded(hidden, layout), real_BS=_columns(layout))

    @classmethod
    def joined(cls, hidden: Tensor, batch: Batch) -> Memory:
        """From what an encoder gave for sources in windows: of each the states that count, one behind the other.

        Args:
            hidden: [B, L, D] or [T, D].
            batch: a source a row, a segment each window; target `texts` int64 [B] has their numbers, `keep`, bool as tokens,
                says which states count.
        """
        keep, layout = batch.targets["keep"], batch.layout
        if isinstance(layout, Padded):
            counts_B = keep.sum(1)
        else:
            ends_B = layout.cu_seqlens[batch.targets["texts"].cumsum(0)].long()
            counts_B = F.pad(keep.cumsum(0), (1, 0))[F.pad(ends_B, (1, 0))].diff()
        bounds = F.pad(counts_B.cumsum(0), (1, 0)).int()
        return cls.of(hidden[keep], Packed(cu_seqlens=bounds, max_seqlen=int(counts_B.max())))

    def bias(self) -> Tensor:
        """[B, 1, 1, S], 0 where there is a token, -inf where there is padding: to be added to scores."""
        zeros = self.hidden_BSD.new_zeros(self.real_BS.shape)
        return zeros.masked_fill_(~self.real_BS, float("-inf"))[:, None, None]


def _columns(layout: Packed) -> Tensor:
    lengths = layout.cu_seqlens.diff()
    return torch.arange(layout.max_seqlen, device=lengths.device)[None, :] < lengths[:, None]


def _padded(hidden: Tensor, layout: Packed) -> Tensor:
    """[T, D] -> [documents, longest, D], zeros behind the end."""
    real = _columns(layout)
    rows = hidden.new_zeros(*real.shape, hidden.shape[-1])
    rows[real] = hidden
    return rows


class CrossAttention(nn.Module):
    """Attention from the target to the source, added to the stream.

    Args:
        config: of the decoder.
    """

    def __init__(self, config: ClassicConfig | ModernConfig) -> None:
        super().__init__()
        size, classic = config.hidden_size, isinstance(config, ClassicConfig)
        self.heads, self.post_norm = config.num_attention_heads, classic
        self.query = nn.Linear(size, size, bias=classic)
        self.key_value = nn.Linear(size, 2 * size, bias=classic)
        self.Wo = nn.Linear(size, size, bias=classic)
        self.norm = nn.LayerNorm(size, eps=config.norm_eps, bias=classic)
        self.dropout = config.hidden_dropout_prob if isinstance(config, ClassicConfig) else config.attention_dropout
        self.attention_dropout = config.attention_probs_dropout_prob if isinstance(config, ClassicConfig) else 0.0

    def source(self, memory_BSD: Tensor) -> Tensor:
        """Keys and values of a source, [2, B, H, S, K]."""
        both: Tensor = self.key_value(memory_BSD).unflatten(-1, (2, self.heads, -1))
        return both.permute(2, 0, 3, 1, 4)

    def forward(self, hidden_BTD: Tensor, source_2BHSK: Tensor, bias_B11S: Tensor) -> tuple[Tensor, Tensor]:
        """The stream behind it, and the weights [B, H, T, S]."""
        attention_p = self.attention_dropout if self.training else 0.0
        query_BHTK = self._asked(hidden_BTD)
        key_BHSK, value_BHSK = source_2BHSK.to(query_BHTK.dtype)
        scores_BHTS = (query_BHTK * query_BHTK.shape[-1] ** -0.5) @ key_BHSK.mT
        weights_BHTS = torch.softmax(scores_BHTS + bias_B11S.to(scores_BHTS.dtype), dim=-1)
        mixed_BHTK = dropout(weights_BHTS.to(value_BHSK.dtype), attention_p) @ value_BHSK
        return self._behind(hidden_BTD, mixed_BHTK), weights_BHTS

    def unweighed(self, hidden_BTD: Tensor, source_2BHSK: Tensor, bias_B11S: Tensor) -> Tensor:
        """The stream behind it, in evaluation; torch's kernel, which gives no weights, takes less time."""
        query_BHTK = self._asked(hidden_BTD)
        key_BHSK, value_BHSK = source_2BHSK.to(query_BHTK.dtype)
        mixed_BHTK = F.scaled_dot_product_attention(query_BHTK, key_BHSK, value_BHSK, bias_B11S.to(query_BHTK.dtype))
        return self._behind(hidden_BTD, mixed_BHTK)

    def _asked(self, hidden_BTD: Tensor) -> Tensor:
        """Queries, [B, H, T, K]."""
        stream = hidden_BTD if self.post_norm else self.norm(hidden_BTD)
        query: Tensor = self.query(stream).unflatten(-1, (self.heads, -1))
        return query.transpose(1, 2)

    def _behind(self, hidden_BTD: Tensor, mixed_BHTK: Tensor) -> Tensor:
        """The stream, from what it was before and what attention mixed."""
        update = dropout(self.Wo(mixed_BHTK.transpose(1, 2).flatten(-2)), self.dropout if self.training else 0.0)
        return add_and_norm(hidden_BTD, update, self.norm) if self.post_norm else hidden_BTD + update.to(hidden_BTD.dtype)


@dataclass(kw_only=True)
class State:
    """What has been read so far, for N hypotheses; changes with every token.

    Args:
        own: [layers, 2, N, H, M, K], keys and values of the tokens so far; `length` of M are filled.
        length: tokens so far, the same for all hypotheses.
        sources: how many; each has as many hypotheses, side by side.
        source: of each layer, [2, B, H, S, K]; empty for a language model.
        bias_B11S: 0 or -inf, for padding of the sources; None for a language model.
    """

    own: Tensor
    length: int
    sources: int
    source: list[Tensor]
    bias_B11S: Tensor | None

    def reorder(self, index_N: Tensor) -> None:
        """Take the hypotheses `index_N`, int64, in this order; each must be of the same source as the one it replaces."""
        moved = (index_N != torch.arange(len(index_N), device=index_N.device)).nonzero()[:, 0]
        if len(moved):
            self.own[:, :, moved, :, : self.length] = self.own[:, :, index_N[moved], :, : self.length]

    def repeat(self, times: int) -> None:
        """Put `times` hypotheses side by side in the place of each."""
        if times > 1:
            self.own = self.own.repeat_interleave(times, dim=2)

    def keep(self, sources: list[int]) -> None:
        """Go on with these sources and their hypotheses only."""
        each = self.own.shape[2] // self.sources
        self.own = self.own[:, :, [source * each + place for source in sources for place in range(each)]]
        self.source = [each[:, sources] for each in self.source]
        self.bias_B11S = None if self.bias_B11S is None else self.bias_B11S[sources]
        self.sources = len(sources)


class Decoder(nn.Module):
    """See the module's docstring.

    Args:
        encoder: self-attention, feed-forward and embeddings; a recurrent encoder has no attention.
        head: language modelling head, tied to the encoder's token table.
        source_size: hidden size of the source's encoder; None = there is no source.
    """

    def __init__(self, encoder: ClassicEncoder | ModernEncoder, head: MlmHead, source_size: int | None = None) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        config = encoder.config
        layers = config.num_hidden_layers if source_size is not None else 0
        self.cross = nn.ModuleList(CrossAttention(config) for _ in range(layers))
        other = source_size is not None and source_size != config.hidden_size
        self.enc_to_dec_proj = nn.Linear(source_size or 0, config.hidden_size) if other else nn.Identity()
        #: of keys and values of a language model's tokens, where it is not that of the weights
        self.cache_dtype: torch.dtype | None = None
        deep = (2 * max(1, layers)) ** 0.5
        std = config.initializer_range
        for module in (self.cross, self.enc_to_dec_proj):
            initialise(module, std=std, residual_std=std / deep if isinstance(config, ModernConfig) else None)

    def forward(self, tokens_BT: Tensor, real_BT: Tensor, memory: Memory | None = None) -> Tensor:
        """Hidden states [B, T, D] of whole targets; each row from its first column on.

        Args:
            tokens_BT: int64.
            real_BT: bool, not padding.
            memory: the sources, one a row.
        """
        return self._read(tokens_BT, real_BT, *self._source(memory))[0]

    def attention(self, tokens_BT: Tensor, real_BT: Tensor, memory: Memory) -> Tensor:
        """Weights of each target token's attention to the source, fp32 [layers, B, T, S]; the mean over a layer's heads."""
        weights = self._read(tokens_BT, real_BT, *self._source(memory))[1]
        return torch.stack([weight.float().mean(1) for weight in weights])

    def _read(
        self, tokens_BT: Tensor, real_BT: Tensor, source: list[Tensor], bias_B11S: Tensor | None, own: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Hidden states and weights of cross attention; keys and values go into `own`, as in `State`."""
        length = tokens_BT.shape[1]
        positions = torch.arange(length, device=tokens_BT.device).expand_as(tokens_BT)
        layout = Padded(segments=real_BT.long() - 1, order="forward")
        hidden = self.encoder.embed(tokens_BT, positions, torch.zeros_like(tokens_BT))
        weights: list[Tensor] = []
        for index, (layer, reach) in enumerate(zip(self._layers, self.encoder.reaches(positions, layout), strict=True)):
            qkv = layer.project(hidden)
            if own is not None:
                _, key_BHTK, value_BHTK = qkv.transpose(1, 3).unbind(2)
                own[index, 0, :, :, :length], own[index, 1, :, :, :length] = reach.turn(key_BHTK), value_BHTK
            hidden = layer.add(hidden, layer.mix(qkv, reach))
            if bias_B11S is not None:
                grouped = hidden.view(len(bias_B11S), -1, hidden.shape[-1])  # hypotheses of a source are rows of one query
                update, weight = self.cross[index](grouped, source[index], bias_B11S)
                hidden = update.view_as(hidden)
                weights.append(weight)
            hidden = layer.feed(hidden)
        return self.encoder.finish(hidden), weights

    @property
    def _layers(self) -> list[ClassicLayer | ModernLayer]:
        return cast(list[ClassicLayer | ModernLayer], list(self.encoder.layers))

    def _source(self, memory: Memory | None) -> tuple[list[Tensor], Tensor | None]:
        if memory is None:
            return [], None
        hidden = self.enc_to_dec_proj(memory.hidden_BSD)
        return [cast(CrossAttention, cross).source(hidden) for cross in self.cross], memory.bias()

    # -- one token after the other --------------------------------------------------------------------------------------

    def start(self, memory: Memory | None, sources: int, room: int) -> State:
        """The state before the first token, one hypothesis for each source.

        Args:
            memory: the sources; None for a language model.
            sources: how many.
            room: tokens at most.
        """
        source, bias = self._source(memory)
        bias = None if bias is None else bias.to(source[0].dtype)
        config = self.encoder.config
        weight = self.encoder.embeddings.table
        shape = (config.num_hidden_layers, 2, sources, config.num_attention_heads, room,
                 config.hidden_size // config.num_attention_heads)  # fmt: skip
        kind = source[0].dtype if source else self.cache_dtype or weight.dtype
        own = torch.empty(shape, dtype=kind, device=weight.device)
        return State(own=own, length=0, sources=sources, source=source, bias_B11S=bias)

    def prefill(self, tokens_NT: Tensor, state: State) -> Tensor:
        """Append the first tokens, as many to each hypothesis, to an empty state; logits of the next token, fp32 [N, V]."""
        real_NT = torch.ones_like(tokens_NT, dtype=torch.bool)
        hidden_NTD, _ = self._read(tokens_NT, real_NT, state.source, state.bias_B11S, state.own)
        state.length = tokens_NT.shape[1]
        return self._logits(hidden_NTD[:, -1])

    def next_logits(self, tokens_N: Tensor, state: State) -> Tensor:
        """Append a token to each hypothesis; logits of the token behind it, fp32 [N, V]."""
        place = state.length
        positions_N = torch.full_like(tokens_N, place)
        hidden_ND = self.encoder.embed(tokens_N, positions_N, torch.zeros_like(tokens_N))
        reaches = self.encoder.reaches(positions_N, _ALONE)
        # views of all layers at once: a step of one row is bound by the number of its calls
        slots, seen = state.own[:, :, :, :, place].unbind(), state.own[:, :, :, :, : place + 1].flatten(0, 1).unbind()
        for index, (layer, reach) in enumerate(zip(self._layers, reaches, strict=True)):
            qkv_N3HK = layer.project(hidden_ND)
            if reach.rotary is not None:
                turned = qkv_N3HK[:, :2].flatten(1, 2)
                turned.copy_(reach.turn(turned))
            slots[index].copy_(qkv_N3HK[:, 1:].transpose(0, 1))
            key, value = seen[2 * index : 2 * index + 2]
            if reach.half is not None and place > reach.half:
                key, value = key[:, :, place - reach.half :], value[:, :, place - reach.half :]
            mixed = F.scaled_dot_product_attention(qkv_N3HK[:, 0].unsqueeze(2), key, value)
            hidden_ND = layer.add(hidden_ND, mixed.flatten(1))
            if state.bias_B11S is not None:
                grouped = hidden_ND.view(state.sources, -1, hidden_ND.shape[-1])
                cross = cast(CrossAttention, self.cross[index])
                hidden_ND = cross.unweighed(grouped, state.source[index], state.bias_B11S).flatten(0, 1)
            hidden_ND = layer.feed(hidden_ND)
        state.length += 1
        return self._logits(self.encoder.finish(hidden_ND))

    def _logits(self, hidden_ND: Tensor) -> Tensor:
        logits: Tensor = self.head(hidden_ND.float(), self.encoder.embeddings.table)
        return logits.float()


#: the layout of single tokens: who sees whom is in the cache
_ALONE = Packed(cu_seqlens=torch.zeros(2, dtype=torch.int32), max_seqlen=1)
