"""Labels, loss, predictions and scores of single-label classification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from electra.config import to_tree
from electra.contracts import Example, Judgement, Prediction
from electra.data.grid import collate
from electra.errors import ElectraError
from electra.evaluate.examine import confusion, figures
from electra.models.classic import ClassicConfig
from electra.models.encoder import build_encoder
from electra.models.heads import TwoLayerHead
from electra.models.modern import ModernConfig
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
    assert confusion(task.labels, judgements)[1] == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]


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


def judged_as(task: Classify, *pairs: tuple[str, str]) -> list[Judgement]:
    return judge(task, said(*(second for _, second in pairs)), labelled(*(first for first, _ in pairs)))


PAIRS = (("0", "0"), ("1", "1"), ("1", "0"), ("1", "1"), ("0", "1"))


def test_the_main_metric_comes_first() -> None:
    from sklearn.metrics import f1_score, matthews_corrcoef

    gold, predicted = ([pair[side] for pair in PAIRS] for side in (0, 1))
    expected = {
        "accuracy": 0.6,
        "macro_f1": f1_score(gold, predicted, average="macro"),
        "matthews": matthews_corrcoef(gold, predicted),
        "f1": f1_score(gold, predicted, pos_label="1"),
    }
    for metric, value in expected.items():
        task = Classify(ClassifyConfig(labels=("0", "1"), metric=metric), TOKENIZER)  # type: ignore[arg-type]
        scores = task.score(judged_as(task, *PAIRS))
        assert next(iter(scores.items())) == (metric, pytest.approx(value))
        assert {"accuracy", "macro_f1", "majority_share"} <= set(scores)
    other = Classify(ClassifyConfig(labels=("0", "1"), metric="f1", positive="0"), TOKENIZER)
    assert other.score(judged_as(other, *PAIRS))["f1"] == pytest.approx(f1_score(gold, predicted, pos_label="0"))


@pytest.mark.parametrize(
    ("tree", "code"),
    [
        ({"metric": "f1", "labels": ["a", "b", "c"]}, r"E-C347 task\.metric"),
        ({"metric": "f1", "positive": "d", "labels": ["a", "b"]}, r"E-C347 task\.positive: 'd' is not one of a, b"),
        ({"positive": "a"}, r"E-C347 task\.positive"),
        ({"class_weights": {"x": 2.0}, "labels": ["a", "b"]}, r"E-C347 task\.class_weights: 'x'"),
        ({"class_weights": {"a": 0.0}}, "E-C346"),
        ({"class_weights": "balance"}, "E-C004"),
        ({"label_smoothing": 1.0}, "E-C346"),
        ({"head": "two-layer", "pooling": "mean"}, "E-C345"),
    ],
)
def test_settings_about_labels_are_checked(tree: dict[str, object], code: str) -> None:
    with pytest.raises(ElectraError, match=code):
        task_config({"type": "classify", **tree})


def test_settings_that_name_labels_are_checked_against_the_training_file() -> None:
    with pytest.raises(ElectraError, match="E-C347"):
        Classify(ClassifyConfig(class_weights={"so so": 2.0}), TOKENIZER).fit(labelled("pos", "neg"))


def test_balanced_weights_are_scikit_learns_and_stay_those_of_the_training_file() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    gold = ["pos"] * 5 + ["neg"] * 2 + ["so so"]
    fitted = Classify(ClassifyConfig(class_weights="balanced"), TOKENIZER).fit(labelled(*gold))
    assert isinstance(fitted, Classify)
    expected = compute_class_weight("balanced", classes=np.array(fitted.labels), y=np.array(gold))
    assert fitted.config.class_weights == dict(zip(fitted.labels, map(pytest.approx, expected), strict=True))
    assert fitted.fit(labelled("pos", "pos")) is fitted
    assert task_config(fitted.to_json()) == fitted.config
    with pytest.raises(ElectraError, match=r"E-D310 dev\.tsv: no row has the label 'none'"):
        Classify(ClassifyConfig(class_weights="balanced", labels=("neg", "none")), TOKENIZER).fit(labelled("neg"))


def test_weighted_and_smoothed_losses_are_torchs_over_the_number_of_examples() -> None:
    weights = {"neg": 0.5, "so so": 3.0}
    config = ClassifyConfig(labels=("neg", "pos", "so so"), class_weights=weights, label_smoothing=0.1, max_length=16)
    task = Classify(config, TOKENIZER)
    batch = collate([row for one in labelled("pos", "so so", "neg") for row in task.encode(one)], 16, TOKENIZER.pad_id)
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    criterion = torch.nn.CrossEntropyLoss(torch.tensor([0.5, 1.0, 3.0]), label_smoothing=0.1, reduction="sum")
    term = task.loss(logits, batch).terms["classify"]
    torch.testing.assert_close(term.total, criterion(logits, torch.tensor([1, 2, 0])))
    assert (term.unit, batch.counts[term.unit]) == ("examples", 3.0)
    parts = [collate(task.encode(one), 16, TOKENIZER.pad_id) for one in labelled("pos", "so so", "neg")]
    alone = [task.loss(logits[i : i + 1], part).terms["classify"].total for i, part in enumerate(parts)]
    torch.testing.assert_close(torch.stack(alone).sum(), term.total)


def test_labels_called_like_words_of_python_keep_their_weights() -> None:
    tree = {"type": "classify", "labels": ["None", "off_"], "class_weights": {"None": 2.0, "off_": 3.0}}
    config = task_config(tree)
    assert isinstance(config, ClassifyConfig)
    assert config.class_weights == {"None": 2.0, "off_": 3.0}
    assert to_tree(config)["class_weights"] == {"None": 2.0, "off_": 3.0}


def test_the_two_layer_head_is_for_classic_encoders() -> None:
    sizes = {"vocab_size": 80, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    task = Classify(ClassifyConfig(labels=("a", "b"), head="two-layer"), TOKENIZER)
    assert isinstance(task.head(build_encoder(ClassicConfig(embedding_size=16, **sizes))), TwoLayerHead)
    with pytest.raises(ElectraError, match="E-C345"):
        task.head(build_encoder(ModernConfig(**sizes)))
