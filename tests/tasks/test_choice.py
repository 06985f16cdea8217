"""Multiple choice: rows, loss, predictions, figures, bad examples, and a few steps of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from electra.contracts import Batch, Example, TrainableTask
from electra.data.grid import collate
from electra.errors import ElectraError
from electra.evaluate.run import evaluate_file, examination
from electra.models.classic import ClassicConfig
from electra.models.encoder import build_encoder
from electra.models.model_dir import Provenance, save_model_dir
from electra.models.modern import ModernConfig
from electra.predict.predictor import Predictor, load
from electra.tasks import task_config
from electra.tasks.choice import Choice, ChoiceConfig
from electra.tasks.common import TaskNetwork
from electra.text.train_tokenizer import train as train_tokenizer

TOKENIZER = train_tokenizer(["what is red apple sky grass green blue yellow sun"] * 3, vocab_size=120)
CLASSIC = ClassicConfig(
    vocab_size=TOKENIZER.vocab_size, embedding_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
MODERN = ModernConfig(
    vocab_size=TOKENIZER.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
)
TASK = Choice(ChoiceConfig(max_length=16), TOKENIZER)
TWO = Example(text="what is red", target=0, given={"choices": ("apple", "sky")})
FOUR = Example(text="what is blue", target=3, given={"choices": ("apple", "grass", "sun", "sky")})


def network(config: ClassicConfig | ModernConfig = CLASSIC) -> TaskNetwork:
    torch.manual_seed(0)
    encoder = build_encoder(config)
    return TaskNetwork(encoder, TASK.head(encoder)).eval()


def batch_of(*examples: Example, packed: bool = False) -> Batch:
    rows = [row for example in examples for row in TASK.encode(example)]
    return collate(rows, max(len(row.tokens) for row in rows), TASK.pad_id, packed)


def test_it_is_a_task_that_can_be_trained() -> None:
    assert isinstance(TASK, TrainableTask)


@pytest.mark.parametrize("config", [CLASSIC, MODERN], ids=lambda config: config.type)
@torch.no_grad()
def test_examples_may_have_any_number_of_choices(config: ClassicConfig | ModernConfig) -> None:
    net = network(config)
    scores = net(batch_of(TWO, FOUR))
    assert scores.shape == (2, 4)
    assert scores[0, 2:].tolist() == [float("-inf")] * 2
    torch.testing.assert_close(net(batch_of(TWO, FOUR, packed=True)), scores, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(net(batch_of(TWO)), scores[:1, :2], atol=1e-6, rtol=1e-6)


def test_each_choice_is_read_with_question_and_context() -> None:
    [row] = TASK.encode(replace(TWO, pair="grass is green"))
    assert row.segments is not None
    texts = [TOKENIZER.decode(row.tokens[row.segments == n]) for n in (0, 1)]
    assert texts == ["grass is green what is red apple", "grass is green what is red sky"]
    first = row.types[row.segments == 0]
    assert np.flatnonzero(np.diff(first)).tolist() == [4]  # [CLS] grass is green [SEP] | what ...


def test_the_loss_is_the_cross_entropy_over_the_choices_of_each_example() -> None:
    scores = torch.tensor([[1.0, 2.0, float("-inf"), float("-inf")], [0.0, 0.0, 0.0, 1.0]], requires_grad=True)
    losses = TASK.loss(scores, batch_of(TWO, FOUR))
    expected = -torch.log_softmax(scores[0, :2], 0)[0] - torch.log_softmax(scores[1], 0)[3]
    torch.testing.assert_close(losses.terms["choice"].total, expected)
    assert {name: float(total) for name, total in losses.totals.items() if name != "loss"} == {"examples": 2, "accuracy": 1}
    losses.terms["choice"].total.backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


def test_predictions_and_judgements() -> None:
    [row] = TASK.encode(TWO)
    prediction = TASK.decode(TWO, [row], [torch.tensor([0.0, 1.0, float("-inf")])])
    assert prediction.output == {
        "label": "sky", "index": 1, "score": pytest.approx(0.7310586), "scores": pytest.approx([0.2689414, 0.7310586]),
    }  # fmt: skip
    judged = TASK.judge(TWO, prediction)
    [unit] = judged.units
    assert (unit.gold, unit.predicted) == ("0", "1")
    assert TASK.score([judged, judged]) == {"accuracy": 0.0, "chance": 0.5}


def test_a_few_steps_learn_which_answer_is_always_right() -> None:
    things = ("apple", "sky", "grass", "sun")
    examples = [
        Example(text="what is red", target=place, given={"choices": (*things[:place], "yellow", *things[place:])})
        for place in range(4)
    ]
    net, batch = network().train(), batch_of(*examples)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        (TASK.loss(net(batch), batch).terms["choice"].total / len(examples)).backward()
        optimizer.step()
    figures = examination(Predictor(net, TASK), examples).figures()
    assert figures == {"accuracy": 1.0, "chance": pytest.approx(0.2), "collapsed": 0.0}


@pytest.mark.parametrize("config", [CLASSIC, MODERN], ids=lambda config: config.type)
def test_a_saved_model_predicts_the_same(config: ClassicConfig | ModernConfig, tmp_path: Path) -> None:
    net = network(config)
    save_model_dir(
        tmp_path / "m", encoder=net.encoder, head=net.head, task=TASK.to_json(),
        provenance=Provenance(tokenizer=TOKENIZER, card=lambda: "# A model\n"),
    )  # fmt: skip
    ours, again = (one.predict([TWO, FOUR]) for one in (Predictor(net, TASK), load(tmp_path / "m")))
    for left, right in zip(ours, again, strict=True):
        assert left.output["scores"] == pytest.approx(right.output["scores"], abs=1e-6)
    path = tmp_path / "test.jsonl"
    path.write_text('{"question": "what is red", "choices": ["apple", "sky"], "answer": "sky"}\n' * 3, encoding="utf-8")
    found = evaluate_file(tmp_path / "m", path)
    said = str(again[0].output["index"])
    assert found["labels"] == sorted({"1", said})  # the places of the answers that occur
    assert sum(map(sum, found["confusion"])) == 3  # type: ignore[arg-type, call-overload]


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"question": "what", "choices": ["a", "b", "c"], "answer": 2}\n', encoding="utf-8")
    [example] = TASK.read(path).examples
    assert (example.target, example.given["choices"]) == (2, ("a", "b", "c"))
    assert TASK.fit([example]) is TASK


@pytest.mark.parametrize(
    ("example", "code"),
    [
        (Example(text="what", target=0), "E-D390"),
        (Example(text="what", target=0, given={"choices": ("a",)}), "E-D390"),
        (replace(TWO, target=2), "E-D391"),
        (replace(TWO, target=None), "E-D391"),
        (replace(TWO, target="0"), "E-D391"),
    ],
)
def test_examples_that_cannot_be_learnt_from(example: Example, code: str) -> None:
    with pytest.raises(ElectraError, match=rf"{code} train.jsonl:7: "):
        TASK.fit([replace(example, where="train.jsonl:7")])


def test_settings_are_checked() -> None:
    with pytest.raises(ElectraError, match="E-C301"):
        task_config({"type": "choice", "max_length": 7})
    again = task_config(TASK.to_json()).build(TOKENIZER)
    assert isinstance(again, Choice)
    assert again.config == TASK.config
