"""Examinations: labels, calibration, intervals, lengths and worst errors, and the page that shows them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from sklearn.metrics import precision_recall_fscore_support

from electra.contracts import Example, Judgement, Mention, Prediction, Unit
from electra.evaluate.charts import matrix_chart
from electra.evaluate.examination_page import examination_page, marked
from electra.evaluate.examine import WORST, Examination, calibration, classes, confusion, intervals
from electra.tasks.classify import Classify, ClassifyConfig
from electra.tasks.span import Span, SpanConfig
from electra.text.train_tokenizer import train as train_tokenizer

TASK = Classify(ClassifyConfig(labels=("a", "b", "c")), train_tokenizer(["a b c"] * 3, vocab_size=80))

SPAN = Span(SpanConfig(unanswerable=True), TASK.tokenizer)


def judgements(*units: tuple[str | None, str | None, float]) -> list[Judgement]:
    return [Judgement(units=(Unit(gold=gold, predicted=predicted, score=score),)) for gold, predicted, score in units]


def test_labels_are_scored_as_scikit_learn_does() -> None:
    gold, predicted = "aabbccabca", "abbbcaacca"
    found = {
        entry["label"]: entry for entry in classes(judgements(*((g, p, 1.0) for g, p in zip(gold, predicted, strict=True))))
    }
    expected = zip("abc", *precision_recall_fscore_support(list(gold), list(predicted)), strict=True)
    for label, *figures in expected:
        assert [found[label][name] for name in ("precision", "recall", "f1", "support")] == pytest.approx(figures)


def test_what_is_missed_and_what_is_made_up_has_a_place_of_its_own() -> None:
    units = judgements(("a", None, 1.0), (None, "b", 0.5), ("a", "a", 0.9))
    labels, counts = confusion(("a", "b", "c"), units)
    assert labels == ["a", "b", "c", ""]
    assert counts == [[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    found = {entry["label"]: (entry["precision"], entry["recall"]) for entry in classes(units)}
    assert found == {"a": (1.0, 0.5), "b": (0.0, 0.0)}


def test_labels_that_the_task_does_not_name_are_shown_all_the_same() -> None:
    assert confusion((), judgements(("x", "y", 1.0))) == (["x", "y"], [[0, 1], [0, 0]])


def test_calibration_by_hand() -> None:
    found = calibration(judgements(("a", "a", 0.95), ("a", "b", 0.95), ("a", "a", 0.55), ("a", None, 1.0)))
    assert [b["units"] for b in found["bins"]] == [1, 2]
    assert found["ece"] == pytest.approx((1 * 0.45 + 2 * 0.45) / 3)
    assert calibration(judgements(("a", None, 1.0))) == {}


def test_intervals_hold_the_figure_and_come_out_the_same_again() -> None:
    records = judgements(*[("a", "a", 1.0)] * 70, *[("a", "b", 1.0)] * 30)
    low, high = intervals(TASK, records)["accuracy"]
    assert low < 0.7 < high
    assert high - low == pytest.approx(2 * 1.96 * (0.7 * 0.3 / 100) ** 0.5, rel=0.25)  # of a binomial share
    assert intervals(TASK, records) == intervals(TASK, records)
    assert intervals(TASK, records, 0) == {}


def test_a_metric_that_some_samples_lack_has_an_interval() -> None:
    """With few unanswerable questions, many samples have none of them."""
    values = {"exact": 1.0, "f1": 1.0, "null_score": 0.0, "by_characters": 0.0, "error": 0.0}
    records = [Judgement(values={**values, "answerable": float(number > 0)}) for number in range(5)]
    assert intervals(SPAN, records)["no_answer_f1"] == [1.0, 1.0]


def test_of_very_many_labels_the_commonest_are_shown_and_the_rest_is_told() -> None:
    records = judgements(*((f"l{n}", f"l{n + 1}", 1.0) for n in range(3000) for _ in range(1 + (n > 2990))))
    labels, counts = confusion([f"l{n}" for n in range(3001)], records)
    assert len(labels) == len(counts) == 60
    assert {"l2992", "l2999"} <= set(labels)
    found = Examination(Classify(ClassifyConfig(labels=tuple(f"l{n}" for n in range(3001))), TASK.tokenizer))
    for record in records:
        found.take(Example(text="x"), Prediction(text="x", output={}), record)
    tree = found.to_json(0)
    assert tree["warnings"] == ["of 3,001 labels the 60 commonest are shown"]
    assert len(examination_page("many", tree)) < 1_000_000


def test_worst_answers_are_shown_with_what_stands_around_them() -> None:
    found = Examination(SPAN)
    context = "It was <in> Rome that the reader met the captain. " + "x " * 200
    example = Example(text="where?", pair=context, target=((12, "Rome"), (12, "Rome")), where="f.json#1")
    for said, score in (("the reader", 0.5), ("Rome", 0.9)):
        best = {"answer": said, "score": score, "start": context.index(said), "end": context.index(said) + len(said)}
        prediction = Prediction(text="where?", output={**best, "n_best": [best]})
        found.take(example, prediction, SPAN.judge(example, prediction))
    tree = found.to_json(0)
    [error] = tree["errors"]
    assert (error["values"]["f1"], error["values"]["error"]) == (0.0, 0.5)
    page = examination_page("answers", tree)
    assert '&lt;in&gt; <mark class="gold" title="gold: answer">Rome</mark>' in page
    assert '<mark class="predicted" title="predicted: answer">the reader</mark>' in page


def test_labels_of_any_characters_are_drawn() -> None:
    labels = ("a\ud800", "<b>&\"'", "x\ny " * 50)
    assert "<b>" not in matrix_chart("Labels", labels, [[1, 0, 0], [0, 1, 0], [0, 0, 1]])


def examined(count: int, wrong: Sequence[int]) -> Examination:
    found = Examination(TASK)
    for number in range(count):
        said = "b" if number in wrong else "a"
        example = Example(text="x" * (number + 1), target="a", where=f"dir/dev.tsv:{number}")
        prediction = Prediction(text=example.text, output={"label": said, "score": number / count}, truncated=number == 3)
        found.take(example, prediction, TASK.judge(example, prediction))
    return found


def test_the_most_confident_errors_are_kept_and_no_others() -> None:
    tree = examined(100, wrong=range(10, 60)).to_json()
    assert [error["where"] for error in tree["errors"]] == [f"dir/dev.tsv:{number}" for number in range(59, 59 - WORST, -1)]
    assert tree["errors"][0]["wrong"] == [{"gold": "a", "predicted": "b", "score": 0.59}]
    assert tree["warnings"] == ["1 of 100 inputs were cut: 1 tokens not seen"]
    assert [(part["from"], part["to"], part["score"]) for part in tree["lengths"]] == [
        (1, 20, 0.5), (21, 40, 0.0), (41, 60, 0.0), (61, 80, 1.0), (81, 100, 1.0)
    ]  # fmt: skip
    assert json.loads(json.dumps(tree)) == tree


def test_a_model_without_errors_has_a_page_without_them() -> None:
    page = examination_page("all right", examined(30, wrong=()).to_json())
    assert "Worst errors" not in page
    assert "Reliability" in page
    assert "http:" not in page.replace("http://www.w3.org", "")


def test_texts_are_escaped_and_marks_may_overlap() -> None:
    marks = [{"start": 1, "end": 5, "label": "X", "side": "gold"}, {"start": 3, "end": 7, "label": "<Y>", "side": "predicted"}]
    html = marked("<b>abcdef", marks)
    assert "<b>" not in html
    assert html.count("<mark") == 3
    assert 'class="gold predicted"' in html
    assert "predicted: &lt;Y&gt;" in html
    found = Examination(TASK)
    example = Example(
        text="Bill <i>x</i>", target=(Mention(start=0, end=4, label="a"),), where="f:1", given={"head": [0, 4, None]}
    )
    prediction = Prediction(text=example.text, output={"entities": [{"start": 0, "end": 2, "entity_group": "b"}]})
    found.take(example, prediction, Judgement(units=(Unit(gold="a", predicted="b"), Unit(gold="c", predicted="c"))))
    page = examination_page("a & b", found.to_json())
    assert "<i>" not in page
    assert "a &amp; b" in page
    assert "a → b (1.00)" in page
    assert [mark["side"] for mark in found.to_json()["errors"][0]["marks"]] == ["gold", "predicted", "given"]
