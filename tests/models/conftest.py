from __future__ import annotations

import pytest

from electra.models.classic import ClassicConfig
from electra.models.encoder import EncoderConfig
from electra.models.modern import ModernConfig
from electra.models.recurrent import RecurrentConfig
from electra.text.tokenizer import Tokenizer
from electra.text.train_tokenizer import train


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train(["the cat sat on the mat", "the dog sat on the log", "a cat and a dog"] * 4, 80)


@pytest.fixture
def classic(tokenizer: Tokenizer) -> ClassicConfig:
    return ClassicConfig(
        vocab_size=tokenizer.vocab_size, embedding_size=8, hidden_size=16, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=24, max_position_embeddings=32,
    )  # fmt: skip


@pytest.fixture
def modern(tokenizer: Tokenizer) -> ModernConfig:
    return ModernConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=12,
        cls_token_id=tokenizer.cls_id, sep_token_id=tokenizer.sep_id, global_attn_every_n_layers=2, local_attention=4,
    )  # fmt: skip


@pytest.fixture
def recurrent(tokenizer: Tokenizer) -> RecurrentConfig:
    return RecurrentConfig(vocab_size=tokenizer.vocab_size, embedding_size=8, hidden_size=16, num_hidden_layers=3)


@pytest.fixture(params=["classic", "modern", "recurrent"])
def config(request: pytest.FixtureRequest) -> EncoderConfig:
    found: EncoderConfig = request.getfixturevalue(request.param)
    return found
