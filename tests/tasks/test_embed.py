"""Vectors of texts: what stands in a row, both losses by hand, figures against scikit-learn, files, a few steps of training."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score
from torch import Tensor

import electra
from electra.contracts import Batch, Example, Judgement, Padded, TrainableTask
from electra.data.grid import collate
from electra.errors import ElectraError
from electra.evaluate.run import evaluate_file, examination
from electra.models import sentence_transformers
from electra.models.classic import ClassicConfig
from electra.models.encoder import build_encoder
from electra.models.heads import Pooling
from electra.models.model_dir import Provenance, save_model_dir
from electra.models.modern import ModernConfig
from electra.predict.predictor import Predictor
from electra.tasks import task_config
from electra.tasks.common import TaskNetwork
from electra.tasks.embed import Embed, EmbedConfig, cosent
from electra.text.train_tokenizer import train as train_tokenizer

WORDS = ["red", "green", "blue", "apple", "river", "stone", "cloud", "music", "paper", "glass"]
TOKENIZER = train_tokenizer([" ".join(WORDS)] * 3, vocab_size=120)
CLASSIC = ClassicConfig(
    vocab_size=TOKENIZER.vocab_size, embedding_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
MODERN = ModernConfig(
    vocab_size=TOKENIZER.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
)
TASK = Embed(EmbedConfig(max_length=12), TOKENIZER)


def network(config: ClassicConfig | ModernConfig = CLASSIC, task: Embed = TASK) -> TaskNetwork:
    torch.manual_seed(0)
    encoder = build_encoder(config)
    return TaskNetwork(encoder, task.head(encoder)).eval()


def batch_of(*examples: Example, task: Embed = TASK, packed: bool = False) -> Batch:
    rows = [row for example in examples for row in task.encode(example)]
    return collate(rows, max(len(row.tokens) for row in rows), task.pad_id, packed)


PAIR = Example(text="red apple", pair="green apple river")
TRIPLET = Example(text="blue", pair="blue cloud", given={"negative": "stone"})
SINGLE = Example(text="music")


def test_it_is_a_task_that_can_be_trained() -> None:
    assert isinstance(TASK, TrainableTask)
    assert TASK.whole_batch


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("config", [CLASSIC, MODERN], ids=lambda config: config.type)
@torch.no_grad()
def test_a_text_has_the_same_vector_in_any_row_and_layout(config: ClassicConfig | ModernConfig, pooling: Pooling) -> None:
    task = Embed(EmbedConfig(max_length=12, pooling=pooling), TOKENIZER)
    net = network(config, task)
    padded = net(batch_of(PAIR, TRIPLET, SINGLE, task=task))
    packed = net(batch_of(PAIR, TRIPLET, SINGLE, task=task, packed=True))
    assert padded.shape == (3, 3, 16)
    torch.testing.assert_close(packed, padded, atol=1e-6, rtol=1e-6)
    alone = {text: net(batch_of(Example(text=text), task=task))[0, 0] for text in ("red apple", "blue cloud", "stone", "music")}
    for row, slot, text in ((0, 0, "red apple"), (1, 1, "blue cloud"), (1, 2, "stone"), (2, 0, "music")):
        torch.testing.assert_close(padded[row, slot], alone[text], atol=1e-6, rtol=1e-6)
    lengths = padded.norm(dim=-1)
    torch.testing.assert_close(lengths, torch.tensor([[1.0, 1, 0], [1, 1, 1], [1, 0, 0]]))


def test_texts_are_cut_one_by_one_and_counted() -> None:
    [row] = TASK.encode(Example(text="red " * 20, pair="green"))
    assert (row.truncated, int(row.targets["texts"])) == (10, 2)
    assert row.segments is not None
    assert np.bincount(row.segments).tolist() == [12, 3]


# -- losses -------------------------------------------------------------------------------------------------------------


def vectors(*rows: list[list[float]]) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows), dim=-1)


def targets(examples: list[Example]) -> Mapping[str, Tensor]:
    return batch_of(*examples).targets


def loss_of(examples: list[Example], outputs: Tensor, scale: float = 2.0) -> float:
    task = Embed(EmbedConfig(scale=scale), TOKENIZER)
    losses = task.loss(outputs, batch_of(*examples))
    assert losses.terms["embed"].unit == "examples"
    return float(losses.terms["embed"].total)


def test_pairs_are_told_from_all_others_of_the_batch() -> None:
    outputs = vectors([[1.0, 0], [1, 1]], [[0.0, 1], [0, 1]])
    a = math.sqrt(0.5)
    by_hand = -math.log(math.exp(2 * a) / (math.exp(2 * a) + 1)) - math.log(math.exp(2) / (math.exp(2 * a) + math.exp(2)))
    examples = [Example(text="red", pair="red apple"), Example(text="blue", pair="blue sky")]
    assert loss_of(examples, outputs) == pytest.approx(by_hand, abs=1e-5)


def test_negatives_are_wrong_answers_for_all_texts_of_the_batch() -> None:
    outputs = vectors([[1.0, 0], [1, 0], [0, 1]], [[0.0, 1], [0, 1], [0, 0]])
    examples = [
        Example(text="red", pair="red apple", given={"negative": "cloud"}),
        Example(text="blue", pair="blue sky"),
    ]
    one = math.exp(2)
    by_hand = -math.log(one / (one + 1 + 1)) - math.log(one / (one + 1 + one))  # the second row has no negative of its own
    assert loss_of(examples, outputs) == pytest.approx(by_hand, abs=1e-5)


@pytest.mark.parametrize(
    "other",
    [
        Example(text="blue", pair="red apple"),  # the same pair of another text
        Example(text="red", pair="green apple"),  # another pair of the same text
        Example(text="blue", pair="red"),  # the text itself
    ],
)
def test_what_is_no_wrong_answer_is_no_negative(other: Example) -> None:
    outputs = vectors([[1.0, 0], [1, 0]], [[0.6, 0.8], [0.8, 0.6]])
    examples = [Example(text="red", pair="red apple"), other]
    task = Embed(EmbedConfig(scale=2.0), TOKENIZER)
    alone = task.loss(outputs[1:], batch_of(other)).terms["embed"].total
    both = loss_of(examples, outputs)
    if other.pair == "red":  # only the first text loses a candidate
        assert both == pytest.approx(math.log(1 + math.exp(2 * 0.6) / math.exp(2 * 0.96)), abs=1e-5)
    else:
        assert both == pytest.approx(float(alone), abs=1e-6)


def test_scored_pairs_are_to_come_in_the_order_of_their_scores() -> None:
    cosine = torch.tensor([0.9, 0.1, 0.5], requires_grad=True)
    score = torch.tensor([5.0, 4.0, 1.0])
    by_hand = math.log(1 + math.exp(20 * (0.1 - 0.9)) + math.exp(20 * (0.5 - 0.9)) + math.exp(20 * (0.5 - 0.1)))
    loss = cosent(20 * cosine, score)
    assert float(loss.detach()) == pytest.approx(by_hand, rel=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert cosine.grad is not None
    assert float(cosine.grad[1]) < 0 < float(cosine.grad[2])  # the second is to rise, the third to fall


@pytest.mark.parametrize("score", [None, 1.0])
def test_losses_are_in_full_precision_in_a_run_of_half(score: float | None) -> None:
    examples = [Example(text=a, pair=b, target=None if score is None else n) for n, (a, b) in enumerate(["ab", "cd", "ef"])]
    outputs = torch.nn.functional.normalize(torch.randn(3, 2, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = loss_of(examples, outputs, scale=20.0)
    assert half == loss_of(examples, outputs, scale=20.0)


def test_equal_scores_ask_for_nothing() -> None:
    cosine = torch.tensor([0.9, 0.1], requires_grad=True)
    loss = cosent(cosine, torch.ones(2))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0
    assert cosine.grad is not None
    assert cosine.grad.tolist() == [0.0, 0.0]


def test_the_loss_of_scored_pairs_is_a_mean_over_the_batch() -> None:
    examples = [Example(text="red", pair="blue", target=score) for score in ("5.0", "1.0")]
    outputs = vectors([[1.0, 0], [0, 1]], [[1.0, 0], [1, 0]])
    assert loss_of(examples, outputs, scale=2.0) == pytest.approx(2 * math.log(1 + math.exp(2)), rel=1e-5)


@pytest.mark.parametrize("scored", [False, True])
def test_a_few_steps_learn_it_by_heart(scored: bool) -> None:
    pairs = [(WORDS[i], f"{WORDS[(i + 3) % 8]} {WORDS[(i + 5) % 8]}") for i in range(8)]
    examples = [Example(text=a, pair=b, target=float(n % 2) if scored else None) for n, (a, b) in enumerate(pairs)]
    net, batch = network().train(), batch_of(*examples)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(60):
        losses = TASK.loss(net(batch), batch)
        optimizer.zero_grad()
        (losses.terms["embed"].total / len(examples)).backward()
        optimizer.step()
    asked = [replace(e, target=e.target if scored else True) for e in examples]
    figures = examination(Predictor(net, TASK), asked).figures()
    assert figures["spearman" if scored else "recall_at_1"] > (0.85 if scored else 0.99)


# -- predictions and figures --------------------------------------------------------------------------------------------


def test_predictions() -> None:
    predictor = Predictor(network(), TASK)
    single, pair, triplet = predictor.predict([SINGLE, PAIR, TRIPLET])
    assert set(single.output) == {"embedding"}
    assert set(pair.output) == {"embedding", "pair_embedding", "score"}
    assert set(triplet.output) == {"embedding", "pair_embedding", "negative_embedding", "score"}
    first, second = (np.array(pair.output[name]) for name in ("embedding", "pair_embedding"))
    assert pair.output["score"] == pytest.approx(first @ second, abs=1e-6)


def judgement(text: int, pair: int, first: list[float], second: list[float]) -> Judgement:
    unit = [np.array(v) / np.linalg.norm(v) for v in (first, second)]
    return Judgement(values={"text": float(text), "pair": float(pair)}, vectors=np.array(unit, dtype=np.float32))


def test_retrieval_is_scored_as_scikit_learn_does() -> None:
    chance = np.random.default_rng(0)
    texts, pairs = chance.normal(size=(30, 6)), chance.normal(size=(30, 6))
    figures = TASK.score([judgement(i, 100 + i, texts[i].tolist(), pairs[i].tolist()) for i in range(30)])
    units = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (texts, pairs)]
    cosines = (units[0] @ units[1].T).astype(np.float32)
    assert next(iter(figures)) == "ndcg_at_10"
    assert figures["ndcg_at_10"] == pytest.approx(ndcg_score(np.eye(30), cosines, k=10), abs=1e-6)
    ranks = (cosines >= np.diag(cosines)[:, None]).sum(axis=1)
    assert figures["recall_at_1"] == pytest.approx((ranks == 1).mean())
    assert figures["recall_at_10"] == pytest.approx((ranks <= 10).mean())
    assert figures["mrr_at_10"] == pytest.approx(np.where(ranks <= 10, 1 / ranks, 0).mean())


def test_texts_that_occur_twice_are_one_question_and_one_document() -> None:
    same = [judgement(1, 11, [1, 0], [1, 0.1]), judgement(1, 12, [1, 0], [1, -0.2]), judgement(2, 11, [0, 1], [1, 0.1])]
    figures = TASK.score(same)
    assert figures["recall_at_1"] == pytest.approx((0.5 + 1) / 2)  # two documents in all, the first question has both
    assert figures["ndcg_at_10"] == 1.0


def test_vectors_that_are_all_equal_find_nothing() -> None:
    figures = TASK.score([judgement(i, 100 + i, [1, 0], [1, 0]) for i in range(50)])
    assert set(figures.values()) == {0.0}


def test_a_text_does_not_find_itself() -> None:
    figures = TASK.score([judgement(1, 2, [1, 0], [0.8, 0.6]), judgement(3, 1, [0.6, 0.8], [1, 0])])
    assert figures["recall_at_1"] == 0.5  # the first finds its pair: the second's pair is itself


def test_given_negatives_are_documents_too() -> None:
    near = np.array([[1, 0], [0, 1], [1, 0]], dtype=np.float32)
    figures = TASK.score([Judgement(values={"text": 1.0, "pair": 2.0, "negative": 3.0}, vectors=near)])
    assert figures["mrr_at_10"] == 0.5


def test_scored_pairs_keep_two_numbers_each() -> None:
    example = Example(text="red", pair="blue", target="2.5")
    [prediction] = Predictor(network(), TASK).predict([example])
    judged = TASK.judge(example, prediction)
    assert judged.vectors is None
    assert judged.values == {"cosine": prediction.output["score"], "gold": 2.5}


# -- files and settings -------------------------------------------------------------------------------------------------


def test_files_of_pairs_triplets_scores_and_single_texts(tmp_path: Path) -> None:
    def read(name: str, text: str) -> list[Example]:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return list(TASK.read(tmp_path / name).examples)

    assert [e.target for e in read("a.tsv", "anchor\tpositive\nred\tblue\n")] == [True]
    [triplet] = read("b.tsv", "anchor\tpositive\tnegative\nred\tblue\tstone\n")
    assert (triplet.given["negative"], triplet.target) == ("stone", True)
    scored = read("c.tsv", "sentence1\tsentence2\tscore\nred\tblue\t1.5\nred\tgreen\t3\n")
    assert [float(str(e.target)) for e in scored] == [1.5, 3.0]
    assert [(e.text, e.pair, e.target) for e in read("d.txt", "one text\nanother\n")] == [
        ("one text", None, None), ("another", None, None),
    ]  # fmt: skip
    [single] = read("g.csv", "text,label\nred,colour\n")
    assert (single.text, single.pair) == ("red", None)
    assert TASK.encode(single)[0].targets["texts"] == 1
    assert TASK.fit(scored) is TASK
    with pytest.raises(ElectraError, match=r"E-D387 .*e\.tsv:3: score 'high'"):
        read("e.tsv", "sentence1\tsentence2\tscore\nred\tblue\t1.5\nred\tgreen\thigh\n")
    with pytest.raises(ElectraError, match=r"E-D386 .*f\.jsonl:2: has no score"):
        read("f.jsonl", '{"text": "red", "pair": "blue", "score": 1.5}\n{"text": "red", "pair": "green", "score": null}\n')


@pytest.mark.parametrize(
    ("examples", "code"),
    [
        ([SINGLE], "E-D385"),
        ([replace(PAIR, target=1.0), PAIR], "E-D386"),
        ([replace(PAIR, target=float("nan"))], "E-D387"),
        ([Example(text="red", pair="blue", given={"negative": "blue"})], "E-D388"),
        ([replace(PAIR, target=1.0), replace(PAIR, target=1.0)], "E-D389"),
    ],
)
def test_examples_that_nothing_can_be_learnt_from(examples: list[Example], code: str) -> None:
    with pytest.raises(ElectraError, match=code):
        TASK.fit([replace(example, where=f"train.tsv:{n}") for n, example in enumerate(examples, start=2)])


@pytest.mark.parametrize(
    ("tree", "code"), [({"max_length": 7}, "E-C301"), ({"scale": 0}, "E-C336"), ({"temperature": 1}, "E-C004")]
)
def test_settings_are_checked(tree: dict[str, object], code: str) -> None:
    with pytest.raises(ElectraError, match=code):
        task_config({"type": "embed", **tree})


def test_task_json_builds_the_same_task_again() -> None:
    again = task_config(TASK.to_json()).build(TOKENIZER)
    assert isinstance(again, Embed)
    assert again.config == TASK.config


@pytest.mark.parametrize("modules", ["[1, 2]", "{}", "[" * 9000, '[{"type": "x.Transformer"}]', " " * (1 << 21)])
def test_modules_of_sentence_transformers_that_are_none(tmp_path: Path, modules: str) -> None:
    (tmp_path / "modules.json").write_text(modules, encoding="utf-8")
    with pytest.raises(ElectraError, match="E-M33"):
        sentence_transformers.read(tmp_path, 32)


def test_segments_do_not_see_each_other() -> None:
    layout = batch_of(PAIR).layout
    assert isinstance(layout, Padded)
    assert not layout.whole


def test_a_run_takes_every_step_at_once_and_its_model_predicts_the_same(tmp_path: Path) -> None:
    encoder = build_encoder(CLASSIC)
    save_model_dir(tmp_path / "m", encoder=encoder, provenance=Provenance(tokenizer=TOKENIZER, card=lambda: "# A model\n"))
    rows = "".join(f"{WORDS[i]}\t{WORDS[i]} {WORDS[9 - i]}\n" for i in range(10))
    (tmp_path / "pairs.tsv").write_text(f"anchor\tpositive\n{rows}", encoding="utf-8")
    held_out = "".join(f"{WORDS[i]} {WORDS[9 - i]}\t{WORDS[i]}\n" for i in range(10))
    (tmp_path / "dev.tsv").write_text(f"anchor\tpositive\n{held_out}", encoding="utf-8")
    places = [f"init.from={tmp_path / 'm'}", f"data.train={tmp_path / 'pairs.tsv'}", f"run.dir={tmp_path / 'run'}"]
    model = electra.finetune(
        [], ["task=embed", "task.max_length=12", *places, f"data.dev={tmp_path / 'dev.tsv'}", "batch.examples=5", "epochs=2",
             "batch.micro_tokens=8", "loop.log_steps=1"],
    )  # fmt: skip
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert not [event for event in events if event.get("code") == "E-R402"]  # no micro-batch was halved
    evaluated = [event["figures"] for event in events if event["event"] == "evaluate"]
    assert next(iter(evaluated[-1])) == "ndcg_at_10"
    assert not (model / "head.safetensors").exists()
    found = evaluate_file(model, tmp_path / "dev.tsv")
    best = max(evaluated, key=lambda figures: figures["ndcg_at_10"])
    assert found["metrics"] == pytest.approx(best, abs=1e-6)
    assert found["intervals"] == {}
