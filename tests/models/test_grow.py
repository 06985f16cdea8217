from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from electra.contracts import Padded
from electra.models.classic import ClassicConfig
from electra.models.encoder import Encoder, GeneratorConfig, build_encoder, generator_config
from electra.models.grow import grown
from electra.models.heads import MlmHead, RtdHead
from electra.models.model_dir import Generator, ModelDir, Provenance, load_model_dir, save_model_dir
from electra.models.modern import ModernConfig
from electra.text.extend_tokenizer import extend, pieces_of_new_tokens
from electra.text.tokenizer import Tokenizer

PIECES = [[7, 9], [8], [6, 6, 10]]


def shaken(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return network.eval()


@pytest.fixture
def model(config: ClassicConfig | ModernConfig) -> ModelDir:
    """Every network that has a row for each token, with random weights."""
    torch.manual_seed(0)
    small = generator_config(config, GeneratorConfig(layers=1))
    parts = [build_encoder(config), MlmHead(config), RtdHead(config), build_encoder(small), MlmHead(small)]
    encoder, mlm, rtd, generator, head = map(shaken, parts)
    assert isinstance(encoder, Encoder)
    assert isinstance(generator, Encoder)
    assert isinstance(mlm, MlmHead)
    assert isinstance(head, MlmHead)
    assert isinstance(rtd, RtdHead)
    return ModelDir(
        path=Path(), encoder=encoder, mlm_head=mlm, rtd_head=rtd, generator=Generator(encoder=generator, mlm_head=head)
    )


def rows(model: ModelDir) -> dict[str, torch.Tensor]:
    """All that has a row for each token."""
    assert model.mlm_head is not None
    assert model.generator is not None
    pairs = {"main": (model.encoder, model.mlm_head), "generator": (model.generator.encoder, model.generator.mlm_head)}
    tables = {name: encoder.embeddings.table for name, (encoder, _) in pairs.items()}
    return tables | {f"{name}.bias": head.bias for name, (_, head) in pairs.items()}


def test_new_rows_are_means_and_old_ones_stay(model: ModelDir) -> None:
    size = model.encoder.config.vocab_size
    larger = grown(model, size, PIECES)
    assert larger.encoder.config.vocab_size == size + 3
    for name, before in rows(model).items():
        after = rows(larger)[name]
        assert len(after) == size + 3
        assert torch.equal(after[:size], before)
        torch.testing.assert_close(after[size], (before[7] + before[9]) / 2)
        assert torch.equal(after[size + 1], before[8])
        torch.testing.assert_close(after[size + 2], (2 * before[6] + before[10]) / 3)
    assert larger.rtd_head is model.rtd_head


def test_nothing_else_changes(model: ModelDir) -> None:
    """Hidden states, scores of "replaced" and the old tokens' scores of texts without new words."""
    size = model.encoder.config.vocab_size
    larger = grown(model, size, PIECES)
    tokens = torch.tensor([[2, 7, 9, 12, 3], [2, 5, 6, 3, 0]])
    arguments = (tokens, torch.arange(5).expand(2, 5), torch.zeros_like(tokens), Padded(segments=(tokens != 0).long() - 1))
    with torch.no_grad():
        hidden, same = model.encoder(*arguments), larger.encoder(*arguments)
        assert torch.equal(hidden, same)
        assert model.mlm_head is not None
        assert larger.mlm_head is not None
        old = model.mlm_head(hidden, model.encoder.embeddings.table)
        new = larger.mlm_head(same, larger.encoder.embeddings.table)
    torch.testing.assert_close(new[..., :size], old)


def test_rows_behind_the_tokenizer_are_left_out(model: ModelDir) -> None:
    larger = grown(model, 30, [[29]])
    for name, before in rows(model).items():
        assert torch.equal(rows(larger)[name], torch.cat([before[:30], before[29:30]]))


def test_a_grown_model_is_saved_with_its_extended_tokenizer(model: ModelDir, tokenizer: Tokenizer, tmp_path: Path) -> None:
    extended = extend(tokenizer, ["the doghat"] * 5, 1).tokenizer
    pieces = pieces_of_new_tokens(tokenizer, extended)
    assert pieces is not None
    assert len(pieces[0]) > 1
    larger = grown(model, tokenizer.vocab_size, pieces)
    save_model_dir(
        tmp_path / "model", encoder=larger.encoder, head=larger.rtd_head,
        provenance=Provenance(tokenizer=extended, card=lambda: "# Larger\n"),
    )  # fmt: skip
    back = load_model_dir(tmp_path / "model")
    assert torch.equal(back.encoder.embeddings.table, larger.encoder.embeddings.table)
    assert back.tokenizer().fingerprint == extended.fingerprint
