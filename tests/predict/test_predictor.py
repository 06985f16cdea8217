"""Predictions: the order, the batches, the windows, strange inputs, and models from disk."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from electra.contracts import Batch, Encoded, Example, Padded, Prediction
from electra.data.grid import collate
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.encoder import build_encoder
from electra.models.heads import MlmHead, RtdHead
from electra.models.model_dir import Provenance, load_model_dir, save_model_dir
from electra.models.modern import ModernConfig
from electra.predict.predictor import Predictor, load
from electra.tasks.classify import Classify, ClassifyConfig
from electra.tasks.common import TaskNetwork, joined
from electra.tasks.fill_mask import FillMaskConfig
from electra.tasks.replaced import Replaced, ReplacedConfig, ReplacedNetwork
from electra.text.train_tokenizer import train as train_tokenizer

WORDS = ["the", "good", "film", "was", "bad", "playing"]
TOKENIZER = train_tokenizer([" ".join(WORDS)] * 3, vocab_size=80)
CLASSIC = ClassicConfig(
    vocab_size=TOKENIZER.vocab_size, embedding_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=64,
)  # fmt: skip
MODERN = ModernConfig(
    vocab_size=TOKENIZER.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
)
PROVENANCE = Provenance(tokenizer=TOKENIZER, card=lambda: "# A model\n")
CLASSIFY = Classify(ClassifyConfig(labels=("neg", "pos"), max_length=32), TOKENIZER)


def classifier(config: ClassicConfig | ModernConfig) -> TaskNetwork:
    torch.manual_seed(0)
    encoder = build_encoder(config)
    network = TaskNetwork(encoder, CLASSIFY.head(encoder))
    with torch.no_grad():  # far from ties, so that a label does not hang on a rounding
        for parameter in network.encoder.parameters():
            parameter.mul_(5 if parameter.ndim > 1 else 1)
    return network


def some_texts(count: int, longest: int) -> list[str]:
    generator = random.Random(0)
    return [" ".join(generator.choices(WORDS, k=generator.randint(0, longest))) for _ in range(count)]


@pytest.mark.parametrize("config", [CLASSIC, MODERN], ids=lambda config: config.type)
def test_results_keep_the_order_and_do_not_depend_on_the_batch(config: ClassicConfig | ModernConfig) -> None:
    network, texts = classifier(config), some_texts(40, 28)
    together = Predictor(network, CLASSIFY, batch_tokens=256).predict(texts)
    assert [prediction.text for prediction in together] == texts
    assert len({prediction.output["score"] for prediction in together}) > 20, "the inputs do not tell the outputs apart"
    for text, prediction in zip(texts, together, strict=True):
        [alone] = Predictor(network, CLASSIFY).predict([text])
        assert alone.output["label"] == prediction.output["label"]
        assert alone.output["score"] == pytest.approx(prediction.output["score"], abs=1e-5)


def test_any_string_is_an_input() -> None:
    texts = ["", " \n\t", "\x00", "a\x00b", "\ud800", "good \udfff film", "\u202egood", "\U0001f600"]
    texts += ["e" + "\u0301" * 10_000, "x" * 100_000]
    discriminator = ReplacedNetwork(build_encoder(CLASSIC), RtdHead(CLASSIC))
    replaced = Predictor(discriminator, Replaced(ReplacedConfig(max_length=32), TOKENIZER))
    for predictor in (Predictor(classifier(CLASSIC), CLASSIFY), replaced):
        predictions = predictor.predict(texts)
        assert [prediction.text for prediction in predictions] == texts
        assert all(0 <= float(str(prediction.output["score"])) <= 1 for prediction in predictions)
    assert predictor.predict([]) == []


def test_what_is_cut_is_counted() -> None:
    texts = ["good " * 50, "good", "good " * 30]
    predictions = Predictor(classifier(CLASSIC), CLASSIFY).predict(texts)
    assert [prediction.truncated for prediction in predictions] == [20, 0, 0]


def test_long_texts_are_answered_before_many_of_them_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, texts, read = Predictor(classifier(CLASSIC), CLASSIFY), some_texts(20, 28), 0
    whole = [prediction.output["score"] for prediction in predictor.predict(texts)]

    def examples() -> Iterator[Example]:
        nonlocal read
        for read, text in enumerate(texts, start=1):  # noqa: B007
            yield Example(text=text)

    monkeypatch.setattr("electra.predict.predictor.CHUNK_TOKENS", 60)
    stream = predictor.stream(examples())
    first = next(stream)
    assert read < 15
    assert [first.output["score"], *(one.output["score"] for one in stream)] == pytest.approx(whole, abs=1e-5)


def test_gold_answers_are_not_looked_at_when_predicting() -> None:
    predictor = Predictor(classifier(CLASSIC), CLASSIFY)
    foreign = Example(text="good film", target="wonderful", where="x.tsv:2")
    assert predictor.predict([foreign]) == predictor.predict(["good film"])
    with pytest.raises(ElectraError, match=r"E-D312 x\.tsv:2"):
        list(predictor.stream([foreign]))


def test_predicting_leaves_the_training_mode_and_training_goes_on_after_it() -> None:
    for config in (CLASSIC, MODERN):
        network = classifier(config).train()
        Predictor(network, CLASSIFY).predict(some_texts(3, 28))
        assert network.training
        assert network.encoder.training
        loss = CLASSIFY.loss(network(_labelled_batch()), _labelled_batch()).terms["classify"].total
        loss.backward()  # caches filled under inference mode would make this fail
        assert all(parameter.grad is not None for parameter in network.head.parameters())


def _labelled_batch() -> Batch:
    items = [row for text in some_texts(3, 28) for row in CLASSIFY.encode(Example(text=text, target="pos"))]
    return collate(items, 32, TOKENIZER.pad_id)


class Echo(nn.Module):
    """Says the id of each token, and at which position of its row it stood."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, batch: Batch) -> Tensor:
        return torch.stack([batch.tokens, batch.positions], dim=-1)


class Listen(Replaced):
    """Keeps what it is given to decode."""

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        self.heard = joined(rows, outputs)
        return super().decode(example, rows, [torch.zeros(len(row.tokens)) for row in rows])


def test_a_long_text_is_windowed_and_put_together_again() -> None:
    task = Listen(ReplacedConfig(max_length=16), TOKENIZER)
    text = some_texts(1, 1)[0] + " ".join(random.Random(1).choices(WORDS, k=1000))
    short, long = Predictor(Echo(), task, batch_tokens=64).predict(["good film", text])
    assert (long.truncated, short.truncated) == (0, 0)
    assert task.heard[:, 0].tolist() == TOKENIZER.encode(text).ids
    assert len(task.heard) > 1000
    positions = task.heard[16:-16, 1]
    assert int(positions.max()) <= 16 - 2 - 3
    assert int(positions.min()) >= 1 + 3
    spelled = [text[token["start"] : token["end"]] for token in _tokens(long.output)]
    assert spelled == [text[start:end] for start, end in TOKENIZER.encode(text).offsets if end > start]


def _tokens(output: Mapping[str, object]) -> list[dict[str, int]]:
    tokens = output["tokens"]
    assert isinstance(tokens, list)
    return tokens


def test_a_text_of_one_window_and_a_longer_one_agree_far_from_its_edges() -> None:
    """A network that sees one token to each side says the same of a token in every window that holds both of them."""

    class Neighbours(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, batch: Batch) -> Tensor:
            ids = torch.where(batch.layout.real, batch.tokens, 0).float()
            return torch.sin(ids + 3 * ids.roll(1, dims=1) + 5 * ids.roll(-1, dims=1))

    text = " ".join(random.Random(2).choices(WORDS, k=300))
    scores = []
    for max_length in (32, 64, 1024):
        [prediction] = Predictor(Neighbours(), Replaced(ReplacedConfig(max_length=max_length), TOKENIZER)).predict([text])
        scores.append([token["score"] for token in _tokens(prediction.output)])
    assert math.isclose(sum(scores[0]), sum(scores[2]), rel_tol=1e-6)
    assert scores[0][1:-1] == scores[1][1:-1] == scores[2][1:-1]


def saved(folder: Path, config: ClassicConfig | ModernConfig, *, generator: bool = True) -> Path:
    """A pre-trained model directory with random weights."""
    torch.manual_seed(0)
    save_model_dir(
        folder,
        encoder=build_encoder(config),
        head=RtdHead(config),
        generator=(build_encoder(config), MlmHead(config)) if generator else None,
        provenance=PROVENANCE,
    )
    return folder


@pytest.mark.parametrize("config", [CLASSIC, MODERN], ids=lambda config: config.type)
def test_scoring_tasks_are_loaded_by_name(config: ClassicConfig | ModernConfig, tmp_path: Path) -> None:
    path = saved(tmp_path / "model", config)
    replaced = load(path, "replaced")
    model = load_model_dir(path)
    assert model.rtd_head is not None
    [prediction] = replaced.predict(["the good film"])
    encoded = torch.tensor([TOKENIZER.encode("the good film").ids])
    batch = Batch(tokens=encoded, positions=torch.arange(5)[None], types=encoded * 0, layout=Padded(segments=encoded * 0))
    expected = torch.sigmoid(ReplacedNetwork(model.encoder, model.rtd_head)(batch))[0, 1:-1]
    assert [token["score"] for token in _tokens(prediction.output)] == pytest.approx(expected.tolist(), abs=1e-6)
    assert replaced.task.max_length == min(128, config.max_position_embeddings)
    [filled] = load(path, FillMaskConfig(top_k=4)).predict(["the [MASK] film [MASK]"])
    masks = filled.output["masks"]
    assert isinstance(masks, list)
    assert [len(candidates) for candidates in masks] == [4, 4]
    scores = [candidate["score"] for candidate in masks[0]]
    assert scores == sorted(scores, reverse=True)
    assert 0 < sum(scores) < 1


def test_fill_mask_agrees_with_the_pipeline(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    save_model_dir(tmp_path / "mlm", encoder=build_encoder(MODERN), head=MlmHead(MODERN), provenance=PROVENANCE)
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "mlm")
    pipeline = transformers.FillMaskPipeline(model, transformers.AutoTokenizer.from_pretrained(tmp_path / "mlm"), device="cpu")
    [ours] = load(tmp_path / "mlm", "fill-mask").predict(["the [MASK] film"])
    assert isinstance(ours.output["masks"], list)
    for mine, theirs in zip(ours.output["masks"][0], pipeline("the [MASK] film"), strict=True):
        assert set(mine) == set(theirs)
        assert (mine["token"], mine["score"]) == (theirs["token"], pytest.approx(theirs["score"], abs=1e-6))


def test_a_model_without_what_the_task_needs_says_so(tmp_path: Path) -> None:
    path = saved(tmp_path / "model", MODERN, generator=False)
    for task, code in ((None, "E-C306"), ("fill-mask", "E-M310"), (CLASSIFY.config, "E-M310"), ("fill-mosk", "E-C004")):
        with pytest.raises(ElectraError, match=code):
            load(path, task)
    save_model_dir(tmp_path / "mlm", encoder=build_encoder(MODERN), head=MlmHead(MODERN), provenance=PROVENANCE)
    with pytest.raises(ElectraError, match="E-M310"):
        load(tmp_path / "mlm", "replaced")


@pytest.mark.parametrize(
    ("task", "code"),
    [
        ({"type": "classify", "labels": ["a", "b", "c"]}, "E-M311"),
        ({"type": "classify", "labels": ["a", "b"], "max_length": 10**9}, "E-C313"),
        ({"type": "classify"}, "E-C302"),
        ({"type": "classify", "labels": ["a", "b"], "module": "os"}, "E-C004"),
        ({"type": "os.system"}, "E-M335"),
        ({"type": ["classify"]}, "E-C004"),
        ({}, "E-C004"),
    ],
)
def test_a_task_json_that_does_not_fit_is_refused(tmp_path: Path, task: dict[str, object], code: str) -> None:
    head = CLASSIFY.head(build_encoder(MODERN))
    save_model_dir(
        tmp_path / "model",
        encoder=build_encoder(MODERN),
        head=head,
        labels="ab",
        task=task,
        provenance=PROVENANCE,
    )
    with pytest.raises(ElectraError, match=code):
        load(tmp_path / "model")
