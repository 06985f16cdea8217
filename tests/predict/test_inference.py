"""Networks made ready for inference: the same outputs in any company, for every task and both families; precision."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from electra.contracts import Batch, Encoded, Example
from electra.data.grid import collate
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.encoder import build_encoder
from electra.models.heads import ClassificationHead, MlmHead, PairHead, RtdHead, TwoLayerHead
from electra.models.model_dir import ModelDir, Provenance, load_model_dir, save_model_dir
from electra.models.modern import ModernConfig
from electra.models.recurrent import RecurrentConfig
from electra.nn.attention import Reach, attend
from electra.predict.inference import EvenEncoder, PackedLinear, even, ready
from electra.predict.predictor import Predictor, load, predictor_of
from electra.tasks import task_config
from electra.tasks.classify import Classify, ClassifyConfig
from electra.tasks.common import TaskNetwork
from electra.tasks.fill_mask import FillMaskConfig
from electra.tasks.replaced import ReplacedConfig
from electra.tasks.score import ScoreConfig
from electra.text.train_tokenizer import train as train_tokenizer

WORDS = ["the", "good", "film", "was", "bad", "playing", "(", ")", "#", "@", "*", "^", "."]
TOKENIZER = train_tokenizer([" ".join(WORDS)] * 3, vocab_size=100)
CLASSIC = ClassicConfig(
    vocab_size=TOKENIZER.vocab_size, embedding_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=64,
)  # fmt: skip
MODERN = ModernConfig(
    vocab_size=TOKENIZER.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
    global_attn_every_n_layers=2, local_attention=8,
)  # fmt: skip
PROVENANCE = Provenance(tokenizer=TOKENIZER, card=lambda: "# A model\n")
FAMILIES = pytest.mark.parametrize("config", [CLASSIC, MODERN], ids=lambda config: config.type)
#: tasks with a head of their own, and what else their examples are given
TASKS: dict[str, dict[str, Any]] = {
    "classify": {"type": "classify", "labels": ["a", "b", "c"], "max_length": 32},
    "tag": {"type": "tag", "labels": ["X", "Y"], "tagged": "spans", "max_length": 16},
    "span": {"type": "span", "max_length": 32, "stride": 4, "question_tokens": 8},
    "relation": {"type": "relation", "labels": ["a", "b"], "max_length": 48},
    "choice": {"type": "choice", "max_length": 32},
    "embed": {"type": "embed", "max_length": 32},
}


def model(config: ClassicConfig | ModernConfig) -> ModelDir:
    """A discriminator with its generator, in memory; its weights are far from those that make everything alike."""
    torch.manual_seed(0)
    encoders = [build_encoder(config).eval() for _ in range(2)]
    with torch.no_grad():
        for parameter in chain.from_iterable(encoder.parameters() for encoder in encoders):
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    return ModelDir(path=Path("nowhere"), encoder=encoders[0], rtd_head=RtdHead(config).eval(), mlm_head=MlmHead(config).eval())


class Known(ModelDir):
    """A model directory whose tokenizer is at hand."""

    def tokenizer(self) -> Any:
        return TOKENIZER


@cache
def predictors(config: ClassicConfig | ModernConfig) -> dict[str, Predictor]:
    """A predictor of each task, as `load` makes it."""
    found = {}
    parts = model(config)
    known = Known(path=parts.path, encoder=parts.encoder, rtd_head=parts.rtd_head, mlm_head=parts.mlm_head)
    untrained = {
        "replaced": ReplacedConfig(max_length=16),
        "fill": FillMaskConfig(top_k=3, max_length=16),
        "score": ScoreConfig(method="pll", max_length=16),
        "joint": FillMaskConfig(joint=True, top_k=2),
    }
    for name, config_of_task in untrained.items():
        found[name] = predictor_of(known, config_of_task)
    for name, tree in TASKS.items():
        torch.manual_seed(1)
        task = task_config(tree).build(TOKENIZER)
        network = TaskNetwork(parts.encoder, task.head(parts.encoder)).eval()
        ready(network, "fp32")
        found[name] = Predictor(network, task, packed=True)
    return found


def example(task: str, words: Sequence[str]) -> Example:
    """Words as an input of a task."""
    text = " ".join(words)
    match task:
        case "span":
            return Example(text="was the film", pair=text)
        case "relation":
            return Example(text=text, given={"head": (0, len(words[0]), None), "tail": (len(text) - 1, len(text), None)})
        case "choice":
            return Example(text=text, given={"choices": [" ".join(words[:3]), "good", text]})
        case "fill" | "joint":
            return Example(text=f"the [MASK] {text} [MASK]")
        case "embed":
            return Example(text=text, pair="the good film")
    return Example(text=text)


def numbers(tree: object) -> Iterator[float]:
    """Every number of an output, in order."""
    if isinstance(tree, dict):
        for value in tree.values():
            yield from numbers(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from numbers(value)
    elif isinstance(tree, int | float):
        yield float(tree)


TEXTS = st.lists(st.lists(st.sampled_from(WORDS[:6]), min_size=2, max_size=40), min_size=2, max_size=9)


@FAMILIES
@pytest.mark.parametrize("task", [*TASKS, "replaced", "fill", "score", "joint"])
@settings(max_examples=5)
@given(texts=TEXTS, budget=st.sampled_from([16, 64, 4096]))
def test_an_input_has_the_same_outputs_in_any_company(
    config: ClassicConfig | ModernConfig, task: str, texts: list[list[str]], budget: int
) -> None:
    predictor = predictors(config)[task]
    predictor.batch_tokens = budget
    examples = [example(task, words) for words in texts]
    together = predictor.predict(examples)
    for one, in_company in zip(examples, together, strict=True):
        [alone] = predictor.predict([one])
        assert alone.text == in_company.text
        assert list(numbers(alone.output)) == pytest.approx(list(numbers(in_company.output)), abs=1e-4)


@FAMILIES
@pytest.mark.parametrize("task", [*TASKS, "replaced", "fill", "score", "joint"])
def test_a_ready_network_computes_what_the_network_computes(config: ClassicConfig | ModernConfig, task: str) -> None:
    """With its own linear layers, rows of equal length, and every hidden state computed to the end."""
    fast = predictors(config)[task]
    chance = random.Random(0)
    examples = [example(task, chance.choices(WORDS[:6], k=chance.randint(2, 40))) for _ in range(12)]
    assert any(isinstance(module, PackedLinear) for module in fast.network.modules()), "nothing was made ready"
    found = fast.predict(examples)
    slow = model(config)
    known = Known(path=slow.path, encoder=slow.encoder, rtd_head=slow.rtd_head, mlm_head=slow.mlm_head)
    if task in TASKS:
        plain = TaskNetwork(slow.encoder, fast.network.head)  # type: ignore[arg-type]
        expected = Predictor(plain, fast.task).predict(examples)
    else:
        reference = predictor_of(known, fast.task.config)  # type: ignore[attr-defined]
        for network in reference.network.modules():
            if isinstance(getattr(network, "encoder", None), EvenEncoder):
                network.encoder = model(config).encoder
        reference.packed = False
        expected = reference.predict(examples)
    for mine, theirs in zip(found, expected, strict=True):
        assert list(numbers(mine.output)) == pytest.approx(list(numbers(theirs.output)), abs=1e-4)


@FAMILIES
def test_documents_of_one_length_are_attended_as_they_lie(config: ClassicConfig | ModernConfig) -> None:
    """Sorted rows make runs, unsorted short ones do not; both give what padded rows give, and filling gives 0."""
    encoder = build_encoder(config).eval()
    for lengths, in_runs in (([30] * 3 + [9] * 4 + [8], True), ([3, 5, 3, 4, 6, 3, 2], False)):
        chance = random.Random(0)
        items = [_row(length, chance) for length in lengths]
        packed, padded = collate(items, max(lengths), 0, packed=True), collate(items, max(lengths), 0)
        reach = Reach(packed.layout)
        assert (reach.runs is not None) == in_runs
        for at_rest in (torch.enable_grad(), torch.inference_mode()):
            with at_rest:
                rows = _hidden(encoder, padded)[padded.layout.real]
                assert torch.allclose(_hidden(encoder, packed), rows, atol=1e-5)
    qkv = torch.randn(sum(lengths) + 5, 3, 2, 8)
    mixed = attend(qkv, reach)
    assert torch.equal(mixed[: sum(lengths)], attend(qkv[: sum(lengths)], reach))
    assert len(mixed) == len(qkv)
    assert not mixed[sum(lengths) :].any()


def _row(length: int, chance: random.Random) -> Encoded:
    tokens = torch.tensor([chance.randrange(5, TOKENIZER.vocab_size) for _ in range(length)]).numpy()
    return Encoded(tokens=tokens, types=tokens * 0)


def _hidden(encoder: torch.nn.Module, batch: Batch) -> torch.Tensor:
    hidden: torch.Tensor = encoder(batch.tokens, batch.positions, batch.types, batch.layout)
    return hidden


@pytest.mark.parametrize("head", [ClassificationHead(CLASSIC, 3), TwoLayerHead(CLASSIC, 3), PairHead(CLASSIC, 3)],
                         ids=lambda head: type(head).__name__)  # fmt: skip
def test_a_head_that_reads_a_few_places_gives_the_same_from_these_alone(head: torch.nn.Module) -> None:
    chance = random.Random(0)
    items = [_row(length, chance) for length in (9, 9, 5, 4)]
    targets = {"head": torch.tensor([1, 2, 0, 3]), "tail": torch.tensor([4, 0, 2, 1])}
    network = TaskNetwork(build_encoder(CLASSIC), head)
    for packed in (False, True):
        plain = collate(items, 9, 0, packed)
        batch = Batch(tokens=plain.tokens, positions=plain.positions, types=plain.types, layout=plain.layout, targets=targets)
        with torch.inference_mode():
            every = network.eval().head(_hidden(network.encoder, batch), batch)
            assert torch.allclose(network(batch), every, atol=1e-6)


def test_a_head_that_reads_otherwise_than_the_one_it_inherits_from_is_asked_itself() -> None:
    class Middle(ClassificationHead):
        def forward(self, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
            return self.scores(hidden[:, 1])

    batch = collate([_row(5, random.Random(0))], 5, 0)
    network = TaskNetwork(build_encoder(CLASSIC), Middle(CLASSIC, 2)).eval()
    assert torch.equal(network(batch), network.head.scores(_hidden(network.encoder, batch)[:, 1]))


# -- precision ----------------------------------------------------------------------------------------------------------


def saved(folder: Path, config: ClassicConfig | ModernConfig | RecurrentConfig) -> Path:
    torch.manual_seed(0)
    encoder = build_encoder(config)
    head = Classify(ClassifyConfig(labels=("a", "b")), TOKENIZER).head(encoder)
    task = {"type": "classify", "labels": ["a", "b"], "max_length": 32}
    save_model_dir(folder, encoder=encoder, head=head, labels="ab", task=task, provenance=PROVENANCE)
    return folder


@FAMILIES
def test_bf16_is_chosen_seen_and_close(config: ClassicConfig | ModernConfig, tmp_path: Path) -> None:
    path = saved(tmp_path / "model", config)
    texts = ["the good film", "bad", "the film was playing " * 5]
    exact, rounded = load(path), load(path, precision="bf16")
    assert (exact.precision, rounded.precision) == ("fp32", "bf16")
    assert load(path, precision="auto").precision in ("fp32", "bf16")
    scores = [[one.output["score"] for one in predictor.predict(texts)] for predictor in (exact, rounded)]
    assert scores[0] != scores[1]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
    weights = [module.weight for module in rounded.network.modules() if isinstance(module, PackedLinear)]
    assert {weight.dtype for weight in weights} == {torch.bfloat16}


def test_without_onednn_the_weights_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "model", CLASSIC)
    texts = ["the good film", "bad"]
    scores = [one.output["score"] for one in load(path).predict(texts)]
    monkeypatch.setattr("electra.predict.inference._has_onednn", lambda: False)
    plain = load(path)
    assert not any(isinstance(module, PackedLinear) for module in plain.network.modules())
    assert [one.output["score"] for one in plain.predict(texts)] == pytest.approx(scores, abs=1e-5)
    rounded = load(path, precision="bf16")
    assert [one.output["score"] for one in rounded.predict(texts)] == pytest.approx(scores, abs=0.02)


def test_a_precision_that_is_none_and_one_that_cannot_be_had(tmp_path: Path) -> None:
    path = saved(tmp_path / "model", CLASSIC)
    with pytest.raises(ElectraError, match="E-C700"):
        load(path, precision="fp16")  # type: ignore[arg-type]
    recurrent = saved(tmp_path / "recurrent", RecurrentConfig(
        vocab_size=TOKENIZER.vocab_size, embedding_size=8, hidden_size=16, num_hidden_layers=1))  # fmt: skip
    assert load(recurrent, precision="auto").precision == "fp32"
    assert load(recurrent).predict(["good"])[0].output["label"] in ("a", "b")
    with pytest.raises(ElectraError, match="E-C701"):
        load(recurrent, precision="bf16")


def test_two_tasks_of_one_model_share_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_model_dir(tmp_path / "model", encoder=build_encoder(CLASSIC), head=RtdHead(CLASSIC), provenance=PROVENANCE)
    parts = load_model_dir(tmp_path / "model")
    first, second = (predictor_of(parts, task_config({"type": name})) for name in ("replaced", "score"))
    packed = [[module for module in one.network.modules() if isinstance(module, PackedLinear)] for one in (first, second)]
    assert packed[0] == packed[1] != []
    assert second.predict(["good film"])[0].output["tokens"]


def test_the_numbers_of_tokens_are_few_and_near() -> None:
    found = {even(tokens) for tokens in range(1, 4097)}
    assert len(found) < 100
    assert all(0 <= even(tokens) - tokens < max(4, tokens / 7) for tokens in range(1, 4097))
