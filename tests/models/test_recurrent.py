"""The recurrent encoder: documents that do not see each other, layouts, orders, and a model directory of its own format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from electra.contracts import Example, Noise, Order, Packed, Padded
from electra.data.grid import collate
from electra.errors import ElectraError
from electra.models.encoder import GeneratorConfig, build_encoder, generator_config
from electra.models.heads import ClassificationHead
from electra.models.model_dir import Provenance, load_model_dir, save_model_dir
from electra.models.recurrent import RecurrentConfig, RecurrentEncoder
from electra.objectives.supervised import Supervised
from electra.tasks.classify import ClassifyConfig
from electra.text.tokenizer import Tokenizer

NOTHING = torch.zeros(0, dtype=torch.int64)  # positions and types, which are not used


@pytest.fixture
def encoder(recurrent: RecurrentConfig) -> RecurrentEncoder:
    torch.manual_seed(0)
    built = build_encoder(recurrent).eval()
    assert isinstance(built, RecurrentEncoder)
    return built


def documents(*lengths: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(5, 40, (length,), generator=generator) for length in lengths]


def alone(encoder: RecurrentEncoder, document: Tensor, order: Order = "both") -> Tensor:
    layout = Padded(segments=torch.zeros(1, len(document), dtype=torch.int64), whole=True, order=order)
    found: Tensor = encoder(document[None], NOTHING, NOTHING, layout)[0]
    return found


def test_a_document_does_not_depend_on_what_stands_beside_it(encoder: RecurrentEncoder) -> None:
    texts = documents(4, 1, 7)
    expected = [alone(encoder, text) for text in texts]
    packed = encoder(
        torch.cat(texts), NOTHING, NOTHING, Packed(cu_seqlens=torch.tensor([0, 4, 5, 12], dtype=torch.int32), max_seqlen=7)
    )
    torch.testing.assert_close(packed, torch.cat(expected), atol=1e-6, rtol=0)
    tokens, segments = torch.zeros(3, 9, dtype=torch.int64), torch.full((3, 9), -1)
    tokens[0, :5], segments[0, :5] = torch.cat(texts[:2]), torch.tensor([0, 0, 0, 0, 1])
    tokens[2, 1:8], segments[2, 1:8] = texts[2], 0  # a row of padding, and padding in front
    padded = encoder(tokens, NOTHING, NOTHING, Padded(segments=segments))
    torch.testing.assert_close(padded[0, :5], torch.cat(expected[:2]), atol=1e-6, rtol=0)
    torch.testing.assert_close(padded[2, 1:8], expected[2], atol=1e-6, rtol=0)
    assert not bool(padded[segments < 0].any())
    at = torch.tensor([19, 0])
    torch.testing.assert_close(
        encoder(tokens, NOTHING, NOTHING, Padded(segments=segments), at=at), padded.flatten(0, 1)[at], atol=0, rtol=0
    )


@pytest.mark.parametrize("order", ["forward", "backward", "both"])
def test_a_token_sees_what_the_order_says(encoder: RecurrentEncoder, order: Order) -> None:
    [text] = documents(7)
    other = text.clone()
    other[3] = 5 if int(text[3]) != 5 else 6
    changed = (alone(encoder, text, order) != alone(encoder, other, order)).any(dim=-1).tolist()
    assert changed == [order != "forward"] * 3 + [True] + [order != "backward"] * 3


def test_a_model_directory_comes_back_and_says_what_it_is(
    encoder: RecurrentEncoder, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    head = ClassificationHead(encoder.config, 3, pooling="mean")
    provenance = Provenance(tokenizer=tokenizer, card=lambda: "# A small model\n")
    save_model_dir(tmp_path / "model", encoder=encoder, head=head, labels=("a", "b", "c"), provenance=provenance)
    loaded = load_model_dir(tmp_path / "model")
    assert loaded.encoder.config == encoder.config
    assert isinstance(loaded.task_head, ClassificationHead)
    assert (loaded.task_head.pooling, loaded.labels) == ("mean", ("a", "b", "c"))
    [text] = documents(6)
    assert isinstance(loaded.encoder, RecurrentEncoder)
    torch.testing.assert_close(alone(loaded.encoder, text), alone(encoder, text), atol=0, rtol=0)
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "electra-recurrent"
    assert "`AutoModel` refuses the directory" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    config["kernel_size"] = 4
    (tmp_path / "model" / "manifest.json").unlink()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ElectraError, match="E-M222"):
        load_model_dir(tmp_path / "model")


def test_a_task_is_learnt_on_it(encoder: RecurrentEncoder, tokenizer: Tokenizer) -> None:
    """One step of fine-tuning changes encoder and head; what is made for other families is refused."""
    provenance = Provenance(tokenizer=tokenizer, card=str)
    task = ClassifyConfig(labels=("cat", "dog"), max_length=16).build(tokenizer)
    objective = Supervised(encoder, task, provenance, freeze=1)
    rows = [task.encode(Example(text=f"the {label} sat", target=label))[0] for label in ("cat", "dog")]
    batch = collate(rows, max(len(row.tokens) for row in rows), tokenizer.pad_id)
    losses = objective(batch, Noise(np.arange(2, dtype=np.uint64)), objective.phases(0, 1)[0])
    losses.terms["classify"].total.backward()
    moved = {name for name, parameter in objective.model.named_parameters() if parameter.grad is not None}
    assert {name.split(".")[2] for name in moved if name.startswith("encoder.layers.")} == {"1", "2"}
    assert not any(name.startswith(("encoder.embeddings", "encoder.convolution")) for name in moved), "frozen below"
    assert any(name.startswith("head.") for name in moved)
    with pytest.raises(ElectraError, match="E-C345"):
        ClassifyConfig(labels=("a", "b"), head="two-layer").build(tokenizer).head(encoder)


def test_sizes_that_make_no_network_are_refused(recurrent: RecurrentConfig) -> None:
    for change in ({"hidden_size": 15}, {"kernel_size": 2}, {"num_hidden_layers": 0}):
        with pytest.raises(ElectraError, match="E-C540"):
            RecurrentConfig(vocab_size=9, **({"embedding_size": 4, "hidden_size": 8} | change))
    small = generator_config(recurrent, GeneratorConfig(width=0.6, layers=1))
    assert (small.hidden_size, small.num_hidden_layers) == (10, 1)
