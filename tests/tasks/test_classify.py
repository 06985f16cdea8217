"""Labels, loss, predictions and scores of single-label classification."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from electra.contracts import Example, Judgement, Prediction
from electra.data.loader import collate
from electra.errors import ElectraError
from electra.evaluate.run import confusion, figures
from electra.tasks import task_config
from electra.tasks.classify import Classify, ClassifyConfig
from electra.text.train_tokenizer import train as train_tokenizer

TOKENIZER = train_tokenizer(["a good film", "a bad film"] * 3, vocab_size=80)


def classify(*labels: str) -> Classify:
    return Classify(ClassifyConfig(labels=labels or None, max_length=16), TOKENIZER)


def labelled(*labels: str | None) -> list[Example]:
    return [Example(text="a good film", target=label, where=f"dev.tsv:{line}") for line, label in enumerate(labels, start=2)]


def said(*labels: str) -> list[Prediction]:
    return [Prediction(text="", output={"label": label, "score": 1.0}) for label in labels]


def judge(task: Classify, predictions: list[Prediction], examples: list[Example]) -> list[Judgement]:
    return [task.judge(example, prediction) for example, prediction in zip(examples, predictions, strict=True)]


def test_labels_come_from_the_training_file_sorted() -> None:
    assert classify().fit(labelled("pos", "neg", "pos")).labels == ("neg", "pos")


def test_given_labels_stay_in_their_order_and_must_cover_the_training_file() -> None:
    assert classify("pos", "neg").fit(labelled("neg", "pos")).labels == ("pos", "neg")
    with pytest.raises(ElectraError, match=r"E-D312 dev.tsv:3: label 'ned' .*nearest is 'neg'"):
        classify("pos", "neg").fit(labelled("neg", "ned"))


@pytest.mark.parametrize(
    ("labels", "code"), [((), "E-D310"), (("pos", "pos"), "E-D310"), (("pos", None), "E-D311"), (("pos", ""), "E-D311")]
)
def test_a_training_file_without_two_labels_is_refused(labels: tuple[str | None, ...], code: str) -> None:
    with pytest.raises(ElectraError, match=code):
        classify().fit(labelled(*labels))


@pytest.mark.parametrize(
    ("tree", "code"),
    [
        ({"labels": ["a"]}, "E-C300"),
        ({"labels": ["a", "a"]}, "E-C300"),
        ({"max_length": 7}, "E-C301"),
        ({"label": "x"}, "E-C004"),
        ({"type": "clasify"}, "E-C004"),
    ],
)
def test_settings_are_checked(tree: dict[str, object], code: str) -> None:
    with pytest.raises(ElectraError, match=code):
        task_config({"type": "classify", **tree})


def test_nothing_works_before_the_labels_are_known() -> None:
    with pytest.raises(ElectraError, match="E-C302"):
        _ = classify().labels


def test_an_unknown_label_is_named_with_file_line_and_neighbour() -> None:
    with pytest.raises(ElectraError) as caught:
        classify("neg", "pos").encode(labelled("neg", "poss")[1])
    assert (caught.value.code, caught.value.where) == ("E-D312", "dev.tsv:3")
    assert "'pos'" in caught.value.fix


def test_the_loss_is_the_sum_over_labelled_examples() -> None:
    task = classify("neg", "pos", "so so")
    items = [row for example in labelled("pos", "so so", None) for row in task.encode(example)]
    batch = collate(items, 16, TOKENIZER.pad_id)
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0], [9.0, 0.0, 0.0]], requires_grad=True)
    losses = task.loss(logits, batch)
    expected = -(torch.log_softmax(logits[0], 0)[1] + torch.log_softmax(logits[1], 0)[2])
    term = losses.terms["classify"]
    assert (term.unit, term.weight) == ("examples", 1.0)
    torch.testing.assert_close(term.total, expected)
    assert {name: float(total) for name, total in losses.totals.items()} == {
        "examples": 2.0,
        "accuracy": 1.0,
        "loss": pytest.approx(float(expected.detach())),
    }


def test_predictions_have_the_keys_of_the_pipeline() -> None:
    task = classify("neg", "pos")
    [example] = labelled(None)
    first, second = (task.decode(example, task.encode(example), [torch.tensor(out)]) for out in ([0.0, 1.0], [2.0, 0.0]))
    assert first.output == {"label": "pos", "score": pytest.approx(1 / (1 + 2.718281828**-1))}
    assert second.output["label"] == "neg"


def test_scores() -> None:
    task = classify("neg", "pos", "so so")
    judgements = judge(task, said("pos", "neg", "pos", "pos"), labelled("pos", "neg", "neg", "pos"))
    scores = figures(task, judgements)
    assert next(iter(scores)) == "accuracy"
    assert scores == {
        "accuracy": 0.75,
        "macro_f1": pytest.approx((0.8 + 2 / 3) / 2),
        "majority_share": 0.5,
        "collapsed": 0.0,
    }
    assert confusion(task.labels, judgements) == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]


def test_one_label_for_everything_is_a_collapse_unless_the_data_has_but_one() -> None:
    task = classify("neg", "pos")
    scores = figures(task, judge(task, said("pos", "pos", "pos"), labelled("pos", "neg", "pos")))
    assert scores["collapsed"] == 1.0
    assert scores["accuracy"] == scores["majority_share"]
    assert figures(task, judge(task, said("pos"), labelled("pos")))["collapsed"] == 0.0


def test_task_json_builds_the_same_task_again() -> None:
    task = classify("neg", "pos")
    again = task_config(task.to_json()).build(TOKENIZER)
    assert isinstance(again, Classify)
    assert again.config == task.config


def test_files_are_read_by_the_columns_of_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("sentence\ty\ngood\tpos\n", encoding="utf-8")
    config = task_config({"type": "classify", "columns": {"text": "sentence", "label": "y"}})
    [example] = config.build(TOKENIZER).read(path).examples
    assert (example.text, example.target) == ("good", "pos")
