"""Greedy and beam search give what transformers' `generate` gives with the same weights and settings: a causal model and a
sequence-to-sequence model that was exported and is read by both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from electra.contracts import Example
from electra.data.grid import collate
from electra.deploy.export import export_model
from electra.models.classic import ClassicConfig
from electra.models.decoder import Decoder, Memory
from electra.models.decoding import Signs, generate
from electra.models.decoding_config import DecodingConfig
from electra.models.encoder import build_encoder
from electra.models.generation import GenerationHead
from electra.models.heads import MlmHead
from electra.models.interchange import to_transformers
from electra.models.model_dir import Provenance, load_model_dir, save_model_dir
from electra.models.warm_start import DecoderConfig
from electra.predict.alignment import AligningPredictor
from electra.predict.predictor import load as predictor_of
from electra.tasks.common import TaskNetwork
from electra.tasks.generate import Generate, GenerateConfig
from electra.text.tokenizer import TARGET
from electra.text.train_tokenizer import train

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


# -- sequence to sequence -----------------------------------------------------------------------------------------------

SOURCES = ["the cat sat on the mat", "a dog", "the dog and the cat sat on a log"]
TOKENIZER = train(SOURCES * 4, 80)
OTHER = train(["猫坐在垫子上。", "狗和木头，没有说话。"] * 4, 64, min_frequency=1)


@pytest.fixture(
    scope="module", params=[(32, None), (16, None), (32, OTHER)], ids=["equal sizes", "a narrower decoder", "two tokenizers"]
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TaskNetwork]:
    """A model directory, and the network that is in it."""
    config = ClassicConfig(
        vocab_size=TOKENIZER.vocab_size + 3, embedding_size=16, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=64, initializer_range=0.5, max_position_embeddings=32,
    )  # fmt: skip
    torch.manual_seed(0)
    width, target = request.param
    tokenizer, settings = replace(TOKENIZER, target=target), DecoderConfig(num_hidden_layers=2, hidden_size=width)
    task = Generate(GenerateConfig(max_length=16, decoder=settings, target_length=12,
                                   decoding=DecodingConfig(max_new_tokens=12)), tokenizer)  # fmt: skip
    network = TaskNetwork(build_encoder(config), task.head(build_encoder(config))).eval()
    assert isinstance(network.head, GenerationHead)
    with torch.no_grad():
        network.head.decoder.head.bias.normal_()
        network.head.decoder.head.bias[task.target_tokenizer.sep_id] += 1.0
    path = tmp_path_factory.mktemp("exported") / "model"
    provenance = Provenance(tokenizer=tokenizer, card=lambda: "# Small\n")
    save_model_dir(path, encoder=network.encoder, head=network.head, task=task.to_json(), provenance=provenance)
    return path, network


def test_an_exported_model_has_the_same_logits_in_transformers(exported: tuple[Path, TaskNetwork]) -> None:
    path, network = exported
    model, told = transformers.EncoderDecoderModel.from_pretrained(path, output_loading_info=True)
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    task = Generate(GenerateConfig(max_length=16), TOKENIZER)
    batch = collate([task.encode(Example(text=text))[0] for text in SOURCES], 16, TOKENIZER.pad_id)
    assert isinstance(network.head, GenerationHead)
    decoder = network.head.decoder
    entries = len(decoder.encoder.embeddings.table)
    target = torch.randint(5, min(30, entries), (3, 7), generator=torch.Generator().manual_seed(1))
    real = batch.layout.real.long()
    theirs = model(input_ids=batch.tokens, attention_mask=real, decoder_input_ids=target).logits
    hidden = network.encoder(batch.tokens, batch.positions, batch.types, batch.layout)
    ours = decoder(target, torch.ones_like(target, dtype=torch.bool), Memory.of(hidden, batch.layout))
    logits = decoder.head(ours, decoder.encoder.embeddings.table)
    torch.testing.assert_close(logits, theirs, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"num_beams": 4, "no_repeat_ngram_size": 2}, {"num_beams": 3}], ids=str)
def test_an_exported_model_writes_the_same_in_transformers(
    exported: tuple[Path, TaskNetwork], settings: dict[str, Any]
) -> None:
    path, _ = exported
    predictor = predictor_of(path)
    assert isinstance(predictor.task, Generate)
    assert isinstance(predictor.network, TaskNetwork)
    assert isinstance(predictor.network.head, GenerationHead)
    predictor.network.head.decoding = DecodingConfig(max_new_tokens=12, **settings)
    found = [prediction.output["generated_text"] for prediction in predictor.predict(SOURCES)]
    model = transformers.EncoderDecoderModel.from_pretrained(path)
    given = [torch.tensor([TOKENIZER.encode_literally(text).ids]) for text in SOURCES]
    theirs = [model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0].tolist() for ids in given]
    assert found == [predictor.task.target_tokenizer.decode(tokens) for tokens in theirs]
    assert len(set(found)) > 1


def test_the_alignment_is_the_cross_attention_of_transformers(exported: tuple[Path, TaskNetwork]) -> None:
    path, _ = exported
    model = transformers.EncoderDecoderModel.from_pretrained(path, attn_implementation="eager")
    for text, prediction in zip(SOURCES, AligningPredictor(predictor_of(path)).predict(SOURCES), strict=True):
        given = torch.tensor([TOKENIZER.encode_literally(text).ids])
        written = model.generate(given, attention_mask=torch.ones_like(given))
        said = model(
            input_ids=given, attention_mask=torch.ones_like(given), decoder_input_ids=written[:, :-1], output_attentions=True
        )
        attention: Any = prediction.output["attention"]
        torch.testing.assert_close(torch.tensor(attention["weights"]), said.cross_attentions[-1][0].mean(0), atol=1e-4, rtol=0)


def test_a_model_that_is_read_back_is_the_same(exported: tuple[Path, TaskNetwork]) -> None:
    path, network = exported
    saved = load_model_dir(path)
    assert saved.own_head is not None
    state = network.head.state_dict()
    assert saved.own_head.keys() == state.keys()
    assert all(torch.equal(saved.own_head[name], tensor) for name, tensor in state.items())


def test_an_export_has_both_tokenizers(exported: tuple[Path, TaskNetwork], tmp_path: Path) -> None:
    path, _ = exported
    target = load_model_dir(path).tokenizer().target
    out = tmp_path / "out"
    export_model(path, out, "huggingface")
    assert transformers.AutoTokenizer.from_pretrained(out)("a dog").input_ids == TOKENIZER.encode("a dog").ids
    assert (out / TARGET).is_dir() == (target is not None)
    if target is not None:
        assert f"DIR/{TARGET}" in (out / "README.md").read_text(encoding="utf-8")
        theirs = transformers.AutoTokenizer.from_pretrained(out / TARGET)
        assert theirs("狗和木头。").input_ids == target.encode("狗和木头。").ids
        assert predictor_of(out).predict(SOURCES) == predictor_of(path).predict(SOURCES)
