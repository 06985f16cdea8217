"""Labels, loss, threshold and scores where a text has any number of labels."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from electra.contracts import Example, Judgement
from electra.data.grid import collate
from electra.errors import ElectraError
from electra.evaluate.examine import confusion, figures
from electra.tasks import task_config
from electra.tasks.classify import Classify, ClassifyConfig
from electra.tasks.multilabel import Multilabel, MultilabelConfig
from electra.text.train_tokenizer import train as train_tokenizer

TOKENIZER = train_tokenizer(["a good film", "a bad film"] * 3, vocab_size=80)
TASK = Multilabel(MultilabelConfig(labels=("a", "b", "c"), max_length=16), TOKENIZER)


def example(*labels: str) -> Example:
    return Example(text="a good film", target=labels, where="dev.tsv:2")


def judgements(task: Multilabel, rows: Sequence[tuple[set[str], Sequence[float]]]) -> list[Judgement]:
    """Judged from gold labels and probabilities."""
    made = []
    for gold, scores in rows:
        one = example(*gold)
        prediction = task.decode(one, task.encode(one), [torch.tensor([math.log(p / (1 - p)) for p in scores])])
        made.append(task.judge(one, prediction))
    return made


def test_a_training_file_with_lists_makes_it_multilabel_under_either_name(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    rows = [{"text": "one", "label": ["b", "a"]}, {"text": "two", "label": []}, {"text": "three", "label": ["c"]}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for name in ("classify", "multilabel"):
        task = task_config({"type": name, "max_length": 16}).build(TOKENIZER)
        fitted = task.fit(list(task.read(path).examples))  # type: ignore[union-attr]
        assert isinstance(fitted, Multilabel)
        assert (fitted.labels, fitted.max_length) == (("a", "b", "c"), 16)


def test_cells_are_cut_at_the_separator(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("text\tlabel\none\tb | a\ntwo\t\nthree\tc\n", encoding="utf-8")
    task = MultilabelConfig(**{"columns": task_columns("|")}).build(TOKENIZER)  # type: ignore[arg-type]
    examples = list(task.read(path).examples)
    assert [one.target for one in examples] == [("b", "a"), (), ("c",)]
    assert task.fit(examples).labels == ("a", "b", "c")
    unsplit = list(MultilabelConfig().build(TOKENIZER).read(path).examples)
    with pytest.raises(ElectraError, match=r"E-D311|E-D397"):
        MultilabelConfig().build(TOKENIZER).fit(unsplit)


def task_columns(separator: str) -> object:
    return ClassifyConfig().columns.__class__(separator=separator)


def test_what_cannot_be_learnt_is_refused_with_its_place() -> None:
    fresh = MultilabelConfig().build(TOKENIZER)
    with pytest.raises(ElectraError, match="E-D310"):
        fresh.fit([example(), example()])
    with pytest.raises(ElectraError, match=r"E-D397 train\.tsv: every row has one label.*columns\.separator"):
        fresh.fit([Example(text="t", target="a,b", where="train.tsv:1")])
    with pytest.raises(ElectraError, match=r"E-D312 dev\.tsv:2: label 'd'"):
        TASK.fit([example("a"), example("a", "d")])
    with pytest.raises(ElectraError, match=r"E-D311 dev\.tsv:2"):
        TASK.fit([Example(text="t", where="dev.tsv:2")])
    for tree in ({"threshold": 1.0}, {"labels": ["a", "a"]}, {"labels": []}, {"class_weights": "balanced"}):
        with pytest.raises(ElectraError, match=r"E-C346|E-C300|E-C004"):
            task_config({"type": "multilabel", **tree})
    with pytest.raises(ElectraError, match=r"E-C348 task\.class_weights: rows have lists of labels: this is task=multilabel"):
        Classify(ClassifyConfig(class_weights="balanced"), TOKENIZER).fit([example("a", "b")])


@pytest.mark.parametrize("packed", [False, True])
def test_the_loss_is_torchs_summed_over_the_examples(packed: bool) -> None:
    rows = [row for labels in (("a", "c"), (), ("b",)) for row in TASK.encode(example(*labels))]
    batch = collate(rows, 16, TOKENIZER.pad_id, packed)
    gold = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0]])
    assert torch.equal(batch.targets["labels"], gold)
    logits = torch.tensor([[2.0, -1, 3], [-1, -2, 1], [0.5, 1, -1]], requires_grad=True)
    losses = TASK.loss(logits, batch)
    term = losses.terms["multilabel"]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, gold)  # a mean over examples and labels
    torch.testing.assert_close(term.total / batch.counts[term.unit], expected)
    assert {name: float(total) for name, total in losses.totals.items()} == {
        "examples": 3.0, "loss": pytest.approx(float(term.total.detach())), "subset_accuracy": 1.0
    }  # fmt: skip


def test_predictions_are_the_labels_above_the_threshold_the_surest_first() -> None:
    [prediction] = [TASK.decode(example(), TASK.encode(example()), [torch.tensor([1.0, -1.0, 3.0])])]
    given = prediction.output["labels"]
    assert isinstance(given, list)
    assert [one["label"] for one in given] == ["c", "a"]
    assert given[0]["score"] == pytest.approx(1 / (1 + math.exp(-3)))
    assert list(prediction.output["scores"]) == ["a", "b", "c"]  # type: ignore[call-overload]


def test_every_label_of_every_text_is_a_decision() -> None:
    made = judgements(TASK, [({"a"}, [0.9, 0.2, 0.6]), (set(), [0.1, 0.2, 0.3])])
    units = [(unit.gold, unit.predicted, round(unit.score, 3)) for one in made for unit in one.units]
    assert units == [("a", "a", 0.9), (None, None, 0.8), (None, "c", 0.6), (None, None, 0.9), (None, None, 0.8),
                     (None, None, 0.7)]  # fmt: skip
    assert confusion(TASK.labels, made)[1][3] == [0, 0, 1, 4]
    scores = figures(TASK, made)
    assert list(scores) == ["micro_f1", "macro_f1", "samples_f1", "subset_accuracy", "collapsed"]
    assert scores["micro_f1"] == pytest.approx(2 / 3)
    assert scores["subset_accuracy"] == 0.5
    main = Multilabel(MultilabelConfig(labels=("a", "b", "c"), metric="samples_f1"), TOKENIZER)
    assert next(iter(main.score(made))) == "samples_f1"


def test_a_model_that_gives_nothing_has_collapsed() -> None:
    assert figures(TASK, judgements(TASK, [({"a"}, [0.1, 0.2, 0.1]), ({"b"}, [0.1, 0.1, 0.3])]))["collapsed"] == 1.0


@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from("abc")), st.tuples(*[st.sampled_from([0.11, 0.255, 0.5, 0.72, 0.935])] * 3)),
        min_size=1, max_size=12,
    )
)  # fmt: skip
@settings(max_examples=40)
def test_the_threshold_that_is_chosen_is_as_good_as_any(rows: list[tuple[set[str], tuple[float, ...]]]) -> None:
    made = judgements(TASK, rows)
    tuned = TASK.tune(made)
    best = tuned.score(made)["micro_f1"]
    for threshold in np.linspace(0.02, 0.98, 49):
        other = Multilabel(MultilabelConfig(labels=("a", "b", "c"), threshold=float(threshold)), TOKENIZER)
        assert best >= other.score(made)["micro_f1"] - 1e-12
    again = task_config(tuned.to_json()).build(TOKENIZER)
    assert isinstance(again, Multilabel)
    assert again.config == tuned.config
    assert again.score(judgements(again, rows)) == pytest.approx(tuned.score(made)), "scores hang on the threshold of judging"
