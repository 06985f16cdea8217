"""Histograms against scikit-learn on the same scores; the wrappers' edge cases."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    matthews_corrcoef,
    ndcg_score,
    precision_score,
    recall_score,
    roc_auc_score,
)  # fmt: skip

from electra.metrics import (
    accuracy,
    binary_f1,
    binned_auc,
    binned_average_precision,
    binned_precision_recall,
    entropy,
    macro_f1,
    matthews,
    multilabel,
    ndcg,
    pearson,
    ranks,
    recall,
    reciprocal_rank,
    spearman,
    spread,
)

counts = st.lists(st.integers(0, 5), min_size=8, max_size=8)


@settings(deadline=None)
@given(counts, counts)
def test_binned_figures_are_those_of_tied_scores(below: list[int], above: list[int]) -> None:
    negatives, positives = np.array(below), np.array(above)
    scores = np.concatenate([np.repeat(np.arange(8), negatives), np.repeat(np.arange(8), positives)])
    labels = np.repeat([0, 1], [negatives.sum(), positives.sum()])
    if positives.sum() == 0:
        assert math.isnan(binned_average_precision(negatives, positives))
    else:
        assert binned_average_precision(negatives, positives) == pytest.approx(average_precision_score(labels, scores))
    if positives.sum() == 0 or negatives.sum() == 0:
        assert math.isnan(binned_auc(negatives, positives))
    else:
        assert binned_auc(negatives, positives) == pytest.approx(roc_auc_score(labels, scores))
    precision, recall = binned_precision_recall(negatives, positives)
    if len(labels) == 0:
        assert (precision, recall) == (0.0, 0.0)
        return
    assert precision == pytest.approx(precision_score(labels, scores >= 4, zero_division=0))
    assert recall == pytest.approx(recall_score(labels, scores >= 4, zero_division=0))


def test_entropy() -> None:
    assert entropy([0.5, 0.5]) == pytest.approx(math.log(2))
    assert entropy([3, 3, 3, 0]) == pytest.approx(math.log(3))
    assert entropy([0.01, 0.99]) == pytest.approx(0.0560, abs=1e-4)
    assert entropy([1, 0]) == 0.0
    assert entropy([]) == 0.0


def test_task_metrics() -> None:
    gold, predicted = ["a", "a", "b", "b"], ["a", "b", "b", "b"]
    assert accuracy(gold, predicted) == 0.75
    assert macro_f1(gold, predicted) == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert matthews(gold, predicted) == pytest.approx(1 / math.sqrt(3))
    assert matthews(gold, ["a"] * 4) == 0.0
    assert matthews(["a"] * 4, ["a"] * 4) == 0.0
    assert macro_f1(gold, ["a"] * 4) == pytest.approx((2 / 3 + 0) / 2)
    assert math.isnan(accuracy([], []))
    with pytest.raises(ValueError, match="shorter"):
        accuracy(["a"], [])


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abce")), min_size=1, max_size=12))
def test_figures_of_labels_are_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    gold, predicted = ([pair[side] for pair in pairs] for side in (0, 1))
    assert macro_f1(gold, predicted) == pytest.approx(f1_score(gold, predicted, average="macro", zero_division=0))
    expected = f1_score([one == "a" for one in gold], [one == "a" for one in predicted], zero_division=0)
    assert binary_f1(gold, predicted, "a") == pytest.approx(expected)
    if len({*gold, *predicted}) > 1:  # of a single label scikit-learn warns
        assert matthews(gold, predicted) == pytest.approx(matthews_corrcoef(gold, predicted))


def test_spread_over_seeds() -> None:
    over = spread([3.0, 1.0, 2.0])
    assert (over.median, over.minimum, over.maximum, over.deviation) == (2.0, 1.0, 3.0, 1.0)
    assert spread([5.0]).deviation == 0.0


numbers = st.lists(st.tuples(st.integers(-3, 3), st.floats(-5, 5, width=16)), min_size=3, max_size=20)


@given(numbers)
def test_correlations_are_those_of_scipy(pairs: list[tuple[int, float]]) -> None:
    left, right = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    if np.ptp(left) == 0 or np.ptp(right) < 1e-3:
        return
    assert spearman(left, right) == pytest.approx(spearmanr(left, right).statistic, abs=1e-9)
    assert pearson(left, right) == pytest.approx(pearsonr(left, right).statistic, abs=1e-6)


def test_what_does_not_vary_correlates_with_nothing() -> None:
    assert spearman([1, 1, 1], [1, 2, 3]) == pearson([1, 2, 3], [2, 2, 2]) == 0.0


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30, unique=True), st.integers(1, 12), st.data())
def test_gains_are_those_of_scikit_learn(scores: list[float], k: int, data: st.DataObject) -> None:
    relevant = data.draw(st.lists(st.integers(0, len(scores) - 1), min_size=1, unique=True))
    truth = np.zeros(len(scores))
    truth[relevant] = 1
    own = ranks(np.array(scores), relevant)
    assert ndcg(own, k) == pytest.approx(ndcg_score([truth], [scores], k=k))
    order = np.argsort(-np.array(scores))
    assert own == [place for place, number in enumerate(order.tolist(), start=1) if number in relevant]


def test_ranks_of_equal_scores_are_the_worst_ones() -> None:
    assert ranks(np.array([0.5, 0.5, 0.9, 0.5]), [0, 2]) == [1, 4]
    assert ranks(np.zeros(4), [0, 1]) == [3, 4]


def test_reciprocal_rank_and_recall() -> None:
    assert [reciprocal_rank([3, 4], k) for k in (2, 3)] == [0.0, pytest.approx(1 / 3)]
    assert [recall([3, 4], k) for k in (2, 3, 4)] == [0.0, 0.5, 1.0]


@given(st.integers(1, 6).flatmap(lambda k: st.lists(
    st.tuples(*[st.lists(st.booleans(), min_size=k, max_size=k)] * 2), min_size=1, max_size=8)))  # fmt: skip
def test_multilabel_figures_are_scikit_learns(rows: list[tuple[list[bool], list[bool]]]) -> None:
    gold, predicted = (np.array([row[side] for row in rows]) for side in (0, 1))
    found = multilabel(gold, predicted)
    if gold.shape[1] == 1:  # scikit-learn takes one column for a binary problem
        gold, predicted = (np.hstack([table, table]) for table in (gold, predicted))
    expected = {
        name: f1_score(gold, predicted, average=name, zero_division=1.0 if name == "samples" else 0.0)
        for name in ("micro", "macro", "samples")
    }
    assert found == pytest.approx({f"{name}_f1": value for name, value in expected.items()} | {
        "subset_accuracy": accuracy_score(gold, predicted)
    })  # fmt: skip


def test_f1_of_one_label() -> None:
    assert binary_f1(["a", "b", "b"], ["b", "b", "b"], "b") == pytest.approx(0.8)
    assert binary_f1(["a"], ["a"], "b") == 0.0
