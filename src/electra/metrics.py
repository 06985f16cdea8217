"""Numbers about predictions: what comes in are arrays or histograms of scores, what goes out are floats.

Scores of a long run are kept as two histograms, one for negatives and one for positives, with the same bins in ascending
order of score. ROC-AUC and average precision of the *binned* scores are exact (a bin is a tie); the distance to those of the
raw scores vanishes with the width of the bins. scikit-learn is imported only by the functions that need it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Histogram = npt.NDArray[np.float64] | npt.NDArray[np.int64]


def binned_auc(negatives: Histogram, positives: Histogram) -> float:
    """Probability that a positive scores above a negative, ties counting half; nan where one class is empty.

    Args:
        negatives: [bins], counts of negatives in ascending order of score.
        positives: [bins], counts of positives in the same bins.
    """
    pairs = float(negatives.sum()) * float(positives.sum())
    if pairs == 0:
        return math.nan
    below = np.cumsum(negatives, dtype=np.float64) - negatives
    return float(np.sum(positives * (below + 0.5 * negatives)) / pairs)


def binned_average_precision(negatives: Histogram, positives: Histogram) -> float:
    """Precision at every threshold weighted by the recall it adds (scikit-learn's definition); nan without positives.

    Args: as `binned_auc`.
    """
    total = float(positives.sum())
    if total == 0:
        return math.nan
    true = np.cumsum(positives[::-1], dtype=np.float64)
    predicted = true + np.cumsum(negatives[::-1], dtype=np.float64)
    precision = np.divide(true, predicted, out=np.zeros_like(true), where=predicted > 0)
    return float(np.sum(positives[::-1] * precision) / total)


def binned_precision_recall(negatives: Histogram, positives: Histogram) -> tuple[float, float]:
    """Precision and recall when the upper half of the bins is called positive; 0 where undefined.

    Args: as `binned_auc`, with an even number of bins and the threshold at the middle edge.
    """
    middle = len(positives) // 2
    true, false, total = float(positives[middle:].sum()), float(negatives[middle:].sum()), float(positives.sum())
    return (true / (true + false) if true else 0.0), (true / total if true else 0.0)


def entropy(counts: npt.ArrayLike) -> float:
    """Entropy in nats of the distribution proportional to `counts`: `entropy([r, 1 - r])` is H(r)."""
    weights = np.asarray(counts, dtype=np.float64)
    weights = weights[weights > 0]
    if weights.size == 0:
        return 0.0
    shares = weights / weights.sum()
    return float(-(shares * np.log(shares)).sum()) + 0.0  # + 0.0: no minus zero


def accuracy(gold: Sequence[object], predicted: Sequence[object]) -> float:
    """Share of equal pairs; nan for nothing."""
    pairs = list(zip(gold, predicted, strict=True))
    return sum(left == right for left, right in pairs) / len(pairs) if pairs else math.nan


def macro_f1(gold: Sequence[object], predicted: Sequence[object]) -> float:
    """Mean F1 over the classes seen in either; a class that was never predicted right counts 0."""
    from sklearn.metrics import f1_score

    return float(f1_score(list(gold), list(predicted), average="macro", zero_division=0))


def matthews(gold: Sequence[object], predicted: Sequence[object]) -> float:
    """Matthews correlation coefficient (CoLA's metric), in [-1, 1]; 0 where everything went to one class."""
    from sklearn.metrics import matthews_corrcoef

    if len(set(gold) | set(predicted)) < 2:
        return 0.0  # scikit-learn warns about a single label and returns this
    return float(matthews_corrcoef(list(gold), list(predicted)))


def binary_f1(gold: Sequence[object], predicted: Sequence[object], positive: object) -> float:
    """F1 of one label against all others (MRPC's metric); 0 where it was neither there nor given."""
    from sklearn.metrics import f1_score

    return float(f1_score([one == positive for one in gold], [one == positive for one in predicted], zero_division=0))


def multilabel(gold: npt.NDArray[np.bool_], predicted: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Figures of N examples with any number of K labels each: scikit-learn's, all at once and without its checks.

    micro_f1: over all decisions. macro_f1: mean over the labels; one that was neither there nor given counts 0. samples_f1:
    mean over the examples; one without labels that got none counts 1. subset_accuracy: share of examples with every label
    right.

    Args:
        gold, predicted: [N, K], N >= 1.
    """
    both, either = gold & predicted, gold.astype(np.int64) + predicted  # F1 = 2 both / (gold + predicted)
    by_label = _ratio(2 * both.sum(axis=0), either.sum(axis=0), 0.0)
    by_example = _ratio(2 * both.sum(axis=1), either.sum(axis=1), 1.0)
    return {
        "micro_f1": float(_ratio(2 * both.sum(), either.sum(), 0.0)),
        "macro_f1": float(by_label.mean()),
        "samples_f1": float(by_example.mean()),
        "subset_accuracy": float((gold == predicted).all(axis=1).mean()),
    }


def _ratio(above: npt.ArrayLike, below: npt.ArrayLike, undefined: float) -> npt.NDArray[np.float64]:
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    ratio: npt.NDArray[np.float64] = np.divide(above, below, out=np.full_like(below, undefined), where=below > 0)
    return ratio


def pearson(gold: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """Pearson's correlation, in [-1, 1]; 0 where either is constant, which includes a single pair."""
    gold, predicted = np.asarray(gold, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if np.ptp(gold) == 0 or np.ptp(predicted) == 0:
        return 0.0
    return float(np.corrcoef(gold, predicted)[0, 1])


def spearman(gold: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """Spearman's correlation (STS-B's metric): Pearson's of the ranks, ties at their mean rank; 0 where either is constant."""
    return pearson(_ranks(gold), _ranks(predicted))


def _ranks(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    _, place, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    ranks: npt.NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A result over seeds: how it is reported."""

    median: float
    minimum: float
    maximum: float
    deviation: float


def spread(values: Sequence[float]) -> Spread:
    """Median, extremes and sample standard deviation (0 for one value) of at least one value."""
    array = np.asarray(values, dtype=np.float64)
    return Spread(
        median=float(np.median(array)),
        minimum=float(array.min()),
        maximum=float(array.max()),
        deviation=float(array.std(ddof=1)) if array.size > 1 else 0.0,
    )
