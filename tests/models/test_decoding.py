"""Sampling, prefixes, ends and streaming; what greedy and beam search give is proven against transformers (tests/parity)."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.decoder import Decoder, Memory
from electra.models.decoding import Signs, generate, stream
from electra.models.decoding_config import DecodingConfig
from electra.models.encoder import build_encoder
from electra.models.heads import MlmHead
from electra.models.modern import ModernConfig

SIGNS = Signs(start=2, end=3, never=(0, 1, 2, 4))
CONFIGS = {
    "classic": ClassicConfig(
        vocab_size=12, embedding_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        initializer_range=0.4,
    ),
    "modern": ModernConfig(
        vocab_size=12, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, initializer_range=0.4
    ),
}  # fmt: skip


@pytest.fixture(params=CONFIGS, scope="module")
def decoder(request: pytest.FixtureRequest) -> Decoder:
    torch.manual_seed(0)
    return Decoder(build_encoder(CONFIGS[request.param]), MlmHead(CONFIGS[request.param]), source_size=8).eval()


def memory(sources: int) -> Memory:
    hidden = torch.randn(sources, 5, 8, generator=torch.Generator().manual_seed(3))
    return Memory(hidden_BSD=hidden, real_BS=torch.ones(sources, 5, dtype=torch.bool))


def first_probabilities(decoder: Decoder) -> torch.Tensor:
    """Of the first token, [V], as sampling has it."""
    with torch.no_grad():
        logits = decoder.prefill(torch.tensor([[SIGNS.start]]), decoder.start(memory(1), 1, 3))[0]
    logits[list(SIGNS.never)] = -torch.inf
    return torch.softmax(logits, dim=-1)


def samples(decoder: Decoder, count: int, **settings: float) -> Counter[tuple[int, ...]]:
    config = DecodingConfig(do_sample=True, max_new_tokens=1, num_return_sequences=count, **settings)  # type: ignore[arg-type]
    [found] = generate(decoder, memory(1), [[]], config, SIGNS)
    return Counter(one.tokens or (SIGNS.end,) for one in found)


def test_samples_follow_the_distribution(decoder: Decoder) -> None:
    expected = first_probabilities(decoder)
    found = samples(decoder, 4000)
    shares = torch.tensor([found[(token,)] / 4000 for token in range(12)])
    torch.testing.assert_close(shares, expected, atol=0.03, rtol=0)


def test_a_temperature_sharpens_top_k_and_top_p_cut(decoder: Decoder) -> None:
    expected = first_probabilities(decoder)
    order = expected.argsort(descending=True).tolist()
    cold = samples(decoder, 500, temperature=0.05)
    assert cold.most_common(1)[0][0] == (order[0],)
    assert {token for (token,) in samples(decoder, 500, top_k=3)} == set(order[:3])
    kept = int((expected[order].cumsum(0) < 0.5).sum()) + 1
    assert {token for (token,) in samples(decoder, 500, top_p=0.5)} == set(order[:kept])


def test_a_batch_gives_what_each_source_gives_alone(decoder: Decoder) -> None:
    prefixes = [[5, 6], [7], []]
    for config in (DecodingConfig(max_new_tokens=9), DecodingConfig(max_new_tokens=9, num_beams=3, num_return_sequences=2)):
        together = generate(decoder, memory(3), prefixes, config, SIGNS)
        for number, prefix in enumerate(prefixes):
            alone = Memory(hidden_BSD=memory(3).hidden_BSD[number : number + 1], real_BS=memory(1).real_BS)
            [expected] = generate(decoder, alone, [prefix], config, SIGNS)
            assert [one.tokens for one in expected] == [one.tokens for one in together[number]]
            for left, right in zip(expected, together[number], strict=True):
                assert left.score == pytest.approx(right.score, abs=1e-4)


def test_outputs_begin_with_their_prefix_and_have_the_length_that_was_asked_for(decoder: Decoder) -> None:
    config = DecodingConfig(do_sample=True, max_new_tokens=7, min_new_tokens=7, num_return_sequences=4, seed=1)
    for prefix, found in zip([[5, 6, 7], [8]], generate(decoder, memory(2), [[5, 6, 7], [8]], config, SIGNS), strict=True):
        assert len({one.tokens for one in found}) > 1
        for one in found:
            assert list(one.tokens[: len(prefix)]) == prefix
            assert len(one.tokens) == len(prefix) + 7
            assert one.ended == "length"
            assert not set(one.tokens) & {*SIGNS.never, SIGNS.end}


def test_a_stop_ends_an_output_and_says_so(decoder: Decoder) -> None:
    config = DecodingConfig(max_new_tokens=9, min_new_tokens=9, do_sample=True, num_return_sequences=8)
    [found] = generate(decoder, memory(1), [[5]], config, SIGNS, stop=lambda tokens: tokens[-1] == 7)
    stopped = [one for one in found if one.ended == "stop"]
    assert stopped
    for one in found:
        assert (one.ended == "stop") == (one.tokens[-1] == 7)
        assert 7 not in one.tokens[1:-1]


def test_a_stream_is_what_comes_out_in_the_end(decoder: Decoder) -> None:
    for config in (DecodingConfig(max_new_tokens=8), DecodingConfig(max_new_tokens=8, do_sample=True, seed=5)):
        [[whole]] = generate(decoder, memory(1), [[5, 6]], config, SIGNS)
        assert [5, 6, *stream(decoder, memory(1), [5, 6], config, SIGNS)] == list(whole.tokens)
    with pytest.raises(ElectraError, match="E-C603"):
        next(stream(decoder, memory(1), [5], DecodingConfig(num_beams=2), SIGNS))


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"num_beams": 0}, "E-C600"),
        ({"max_new_tokens": 0}, "E-C600"),
        ({"top_k": -1}, "E-C600"),
        ({"temperature": 0.0}, "E-C601"),
        ({"temperature": -1.0}, "E-C601"),
        ({"top_p": 0.0}, "E-C601"),
        ({"num_return_sequences": 2}, "E-C602"),
        ({"num_beams": 2, "do_sample": True}, "E-C602"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, float], code: str) -> None:
    with pytest.raises(ElectraError, match=code):
        DecodingConfig(**settings)  # type: ignore[arg-type]
