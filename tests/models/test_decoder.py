"""The decoder: it sees nothing of what comes later, and reading token by token equals reading at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from electra.contracts import Packed, Padded
from electra.models.classic import ClassicConfig
from electra.models.decoder import Decoder, Memory
from electra.models.encoder import build_encoder
from electra.models.heads import MlmHead
from electra.models.modern import ModernConfig

CONFIGS = {
    "classic": ClassicConfig(
        vocab_size=50, embedding_size=16, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
        initializer_range=0.3,
    ),
    "modern": ModernConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, initializer_range=0.3,
        global_attn_every_n_layers=2, local_attention=4,
    ),
}  # fmt: skip
SOURCE_SIZE = 24


@pytest.fixture(params=CONFIGS)
def decoder(request: pytest.FixtureRequest) -> Decoder:
    torch.manual_seed(0)
    config = CONFIGS[request.param]
    return Decoder(build_encoder(config), MlmHead(config), SOURCE_SIZE).eval()


@pytest.fixture
def memory() -> Memory:
    torch.manual_seed(1)
    real = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    return Memory(hidden_BSD=torch.randn(2, 7, SOURCE_SIZE), real_BS=real)


def targets() -> Tensor:
    return torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(2))


def logits(decoder: Decoder, tokens: Tensor, memory: Memory | None) -> Tensor:
    hidden = decoder(tokens, torch.ones_like(tokens, dtype=torch.bool), memory)
    scores: Tensor = decoder.head(hidden, decoder.encoder.embeddings.table)
    return scores


def test_a_token_sees_neither_later_tokens_nor_the_padding_of_the_source(decoder: Decoder, memory: Memory) -> None:
    tokens = targets()
    whole = logits(decoder, tokens, memory)
    changed = tokens.clone()
    changed[:, 5:] = 7
    torch.testing.assert_close(logits(decoder, changed, memory)[:, :5], whole[:, :5])
    assert not torch.allclose(logits(decoder, changed, memory)[:, 5], whole[:, 5])
    noisy = memory.hidden_BSD.clone()
    noisy[1, 4:] = 100.0
    torch.testing.assert_close(logits(decoder, tokens, Memory(hidden_BSD=noisy, real_BS=memory.real_BS)), whole)
    noisy[1, 3] = 100.0
    assert not torch.allclose(logits(decoder, tokens, Memory(hidden_BSD=noisy, real_BS=memory.real_BS)), whole)


@pytest.mark.parametrize("first", [1, 4])
@pytest.mark.parametrize("has_source", [True, False])
def test_token_by_token_equals_at_once_for_several_hypotheses_in_changing_order(
    decoder: Decoder, memory: Memory, first: int, has_source: bool
) -> None:
    if not has_source:
        decoder = Decoder(decoder.encoder, decoder.head).eval()
    given = memory if has_source else None
    tokens = targets()
    six = tokens.repeat_interleave(3, dim=0)
    six[1::3] = six[1::3].flip(1)  # one of the three hypotheses of each source is another text
    place = torch.arange(6)  # where each text stands
    wanted = logits(decoder, six, None if given is None else _tripled(given))
    with torch.inference_mode():
        state = decoder.start(given, 2, 9)
        state.repeat(3)
        torch.testing.assert_close(decoder.prefill(six[:, :first], state), wanted[:, first - 1])
        for column in range(first, 9):
            order = torch.tensor([2, 0, 1, 4, 5, 3])
            state.reorder(order)
            place = place[order]
            torch.testing.assert_close(decoder.next_logits(six[place, column], state), wanted[place, column])


def _tripled(memory: Memory) -> Memory:
    return Memory(hidden_BSD=memory.hidden_BSD.repeat_interleave(3, 0), real_BS=memory.real_BS.repeat_interleave(3, 0))


def test_attention_to_the_source_sums_to_one_over_its_tokens(decoder: Decoder, memory: Memory) -> None:
    tokens = targets()
    weights = decoder.attention(tokens, torch.ones_like(tokens, dtype=torch.bool), memory)
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(weights), 2, 9))
    assert not bool(weights[:, 1, :, 4:].any())


def test_a_packed_source_is_the_padded_one(memory: Memory) -> None:
    packed = Packed(cu_seqlens=torch.tensor([0, 7, 11], dtype=torch.int32), max_seqlen=7)
    flat = memory.hidden_BSD[memory.real_BS]
    found = Memory.of(flat, packed)
    torch.testing.assert_close(found.hidden_BSD[found.real_BS], flat)
    segments = memory.real_BS.long() - 1
    padded = Memory.of(memory.hidden_BSD, Padded(segments=segments))
    assert torch.equal(found.real_BS, padded.real_BS)
