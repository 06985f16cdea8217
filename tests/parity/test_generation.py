"""Greedy and beam search give what transformers' `generate` gives with the same weights and settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from electra.models.classic import ClassicConfig
from electra.models.decoder import Decoder
from electra.models.decoding import DecodingConfig, Signs, generate
from electra.models.encoder import build_encoder
from electra.models.heads import MlmHead
from electra.models.interchange import to_transformers

transformers = pytest.importorskip("transformers")

START, END, VOCABULARY = 2, 3, 30
CONFIG = ClassicConfig(
    vocab_size=VOCABULARY, embedding_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
    initializer_range=0.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    torch.manual_seed(0)
    decoder = Decoder(build_encoder(CONFIG), MlmHead(CONFIG)).eval()
    with torch.no_grad():
        decoder.head.bias.normal_()
        decoder.head.bias[END] += 1.0  # so that outputs end
    return decoder


@pytest.fixture(scope="module")
def theirs(decoder: Decoder) -> Any:
    config = transformers.ElectraConfig(
        vocab_size=VOCABULARY, embedding_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, is_decoder=True, pad_token_id=0,
    )  # fmt: skip
    model = transformers.ElectraForCausalLM(config).eval()
    state = {f"encoder.{name}": tensor for name, tensor in decoder.encoder.state_dict().items()}
    state |= {f"mlm_head.{name}": tensor for name, tensor in decoder.head.state_dict().items()}
    missing, unexpected = model.load_state_dict(to_transformers(state, "ElectraForMaskedLM"), strict=False)
    assert not unexpected
    assert set(missing) <= {"generator_lm_head.weight"}
    model.tie_weights()
    return model


def outputs(model: Any, prefix: list[int], **settings: Any) -> tuple[list[list[int]], list[float]]:
    """Tokens behind start, without end and padding, and scores."""
    given = torch.tensor([[START, *prefix]])
    found = model.generate(
        given, attention_mask=torch.ones_like(given), eos_token_id=END, pad_token_id=0, return_dict_in_generate=True,
        output_scores=True, **settings,
    )  # fmt: skip
    sequences: Tensor = found.sequences[:, 1:]
    rows = [row[: row.index(END)] if END in row else row for row in sequences.tolist()]
    scores = found.sequences_scores.tolist() if "sequences_scores" in found else []
    return rows, scores


PREFIXES = [[7], [11, 9, 4], [5, 5]]
BEAMS = [
    {"num_beams": 3},
    {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 2.0},
    {"num_beams": 4, "num_return_sequences": 4, "length_penalty": 0.0, "early_stopping": "never"},
    {"num_beams": 2, "early_stopping": True},
    {"num_beams": 3, "min_new_tokens": 5, "early_stopping": "never"},
    {"num_beams": 3, "no_repeat_ngram_size": 2, "length_penalty": -0.5},
]


@pytest.mark.parametrize("settings", [{}, {"min_new_tokens": 6}, {"no_repeat_ngram_size": 2}], ids=str)
def test_greedy_search(decoder: Decoder, theirs: Any, settings: dict[str, Any]) -> None:
    config = DecodingConfig(max_new_tokens=12, **settings)
    for prefix, [found] in zip(PREFIXES, generate(decoder, None, PREFIXES, config, Signs(start=START, end=END)), strict=True):
        [expected], _ = outputs(theirs, prefix, max_new_tokens=12, do_sample=False, **settings)
        assert list(found.tokens) == expected
        assert (found.ended == "length") == (len(expected) - len(prefix) == 12)


@pytest.mark.parametrize("settings", BEAMS, ids=str)
def test_beam_search(decoder: Decoder, theirs: Any, settings: dict[str, Any]) -> None:
    config = DecodingConfig(max_new_tokens=12, **settings)
    together = generate(decoder, None, PREFIXES, config, Signs(start=START, end=END))
    for prefix, found in zip(PREFIXES, together, strict=True):
        expected, scores = outputs(theirs, prefix, max_new_tokens=12, do_sample=False, **settings)
        assert [list(one.tokens) for one in found] == expected
        assert [one.score for one in found] == pytest.approx(scores, abs=1e-4)
