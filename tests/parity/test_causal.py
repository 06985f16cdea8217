"""A causal model directory of the classic family is transformers' `ElectraForCausalLM`; they have no class for a modern one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from electra.models.classic import ClassicConfig
from electra.models.decoding_config import DecodingConfig
from electra.models.encoder import build_encoder
from electra.models.heads import CausalHead
from electra.models.model_dir import Provenance, save_model_dir
from electra.models.modern import ModernConfig
from electra.predict.writer import load_writer
from electra.text.train_tokenizer import train

transformers = pytest.importorskip("transformers")

TOKENIZER = train(["the cat sat on the mat", "the dog sat on a log"] * 4, 80)
CLASSIC = ClassicConfig(
    vocab_size=TOKENIZER.vocab_size, embedding_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
    intermediate_size=48, max_position_embeddings=32, initializer_range=0.5, pad_token_id=TOKENIZER.pad_id,
)  # fmt: skip
MODERN = ModernConfig(
    vocab_size=TOKENIZER.vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
    cls_token_id=TOKENIZER.cls_id, sep_token_id=TOKENIZER.sep_id, pad_token_id=TOKENIZER.pad_id,
)  # fmt: skip


def saved(config: ClassicConfig | ModernConfig, place: Path) -> Path:
    torch.manual_seed(0)
    encoder, head = build_encoder(config), CausalHead(config)
    with torch.no_grad():
        head.bias.normal_()
    save_model_dir(place, encoder=encoder, head=head, provenance=Provenance(tokenizer=TOKENIZER, card=lambda: "# A model\n"))
    return place


@torch.inference_mode()
def test_logits_and_greedy_outputs_are_those_of_transformers(tmp_path: Path) -> None:
    path = saved(CLASSIC, tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    assert type(theirs).__name__ == "ElectraForCausalLM"
    writer = load_writer(path)
    given = torch.tensor([[TOKENIZER.cls_id, *TOKENIZER.encode_documents(["the cat sat on"])[0].ids]])
    hidden = writer.decoder(given, torch.ones_like(given, dtype=torch.bool))
    logits = writer.decoder.head(hidden, writer.decoder.encoder.embeddings.table)
    torch.testing.assert_close(logits, theirs(given).logits, atol=1e-4, rtol=1e-4)

    never = [[token] for token in writer.signs.never]
    expected = theirs.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=10, do_sample=False,
                               eos_token_id=TOKENIZER.sep_id, pad_token_id=0, bad_words_ids=never)  # fmt: skip
    [[draft]] = writer.write(["the cat sat on"], DecodingConfig(max_new_tokens=10))
    assert "the cat sat on" + draft.text == TOKENIZER.decode(expected[0].tolist())


def test_a_modern_causal_model_is_loaded_by_no_class_for_causal_models(tmp_path: Path) -> None:
    path = saved(MODERN, tmp_path / "model")
    with pytest.raises(ValueError, match="ModernBertConfig"):
        transformers.AutoModelForCausalLM.from_pretrained(path)
    # the page of model directories warns of this one, in which tokens see those behind them
    assert type(transformers.AutoModelForMaskedLM.from_pretrained(path)).__name__ == "ModernBertForMaskedLM"
