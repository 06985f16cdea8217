"""Numbers about predictions: what comes in are arrays or histograms of scores, what goes out are floats.

Scores of a long run are kept as two histograms, one for negatives and one for positives, with the same bins in ascending
order of score. ROC-AUC and average precision of the *binned* scores are exact (a bin is a tie); the distance to those of the
raw scores vanishes with the width of the bins. Figures of labels are counted here: an interval takes hundreds of each, and
scikit-learn, which the tests compare with, takes most of a millisecond for its checks before it counts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Mapping, Sequence
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
    """Mean F1 over the classes seen in either; a class that was never predicted right counts 0. nan for nothing."""
    there, said, right = _counted(gold, predicted)
    each = [2 * right[label] / (there[label] + said[label]) for label in there | said]
    return sum(each) / len(each) if each else math.nan


def _counted(gold: Sequence[object], predicted: Sequence[object]) -> tuple[Counter[object], Counter[object], Counter[object]]:
    """How often each label is right, was given, and both."""
    pairs = zip(gold, predicted, strict=True)
    return Counter(gold), Counter(predicted), Counter(is_ for is_, was in pairs if is_ == was)


def span_scores(gold: Sequence[str | None], predicted: Sequence[str | None]) -> dict[str, float]:
    """f1, precision and recall over all spans (CoNLL's), and macro_f1, the mean F1 of the labels; 0 where undefined.

    Args:
        gold: the right label of each span that is gold or was found; None where there should be none.
        predicted: the label that it was given; None where it was missed.
    """
    there, found, right = _counted(gold, predicted)
    del there[None], found[None], right[None]
    hits, spans, said = right.total(), there.total(), found.total()
    each = [2 * right[label] / (there[label] + found[label]) for label in there | found]
    return {
        "f1": 2 * hits / (spans + said) if hits else 0.0,
        "precision": hits / said if hits else 0.0,
        "recall": hits / spans if hits else 0.0,
        "macro_f1": sum(each) / len(each) if each else 0.0,
    }


def directed_macro_f1(gold: Sequence[str], predicted: Sequence[str], relations: Mapping[str, str]) -> float:
    """Mean F1 over relations, right only with the right direction: the official score of SemEval-2010 task 8.

    A relation's precision divides by everything that was predicted as it in either direction, its recall by everything that is
    it. The mean is over the relations that occur in `gold`; 0 where none does.

    Args:
        relations: label -> the relation that it is a direction of; labels that are not there ("Other") are no relation.
    """
    right, said, there = (Counter[str]() for _ in range(3))
    for is_, was in zip(gold, predicted, strict=True):
        right.update({relations[is_]} if is_ == was and is_ in relations else ())
        said.update({relations[was]} if was in relations else ())
        there.update({relations[is_]} if is_ in relations else ())
    return sum(2 * right[one] / (said[one] + there[one]) for one in sorted(there)) / len(there) if there else 0.0


def micro_f1(gold: Sequence[str], predicted: Sequence[str], relations: Container[str]) -> float:
    """F1 of all that is in `relations` together; other labels mean that there is nothing. 0 where nothing is right."""
    right = sum(is_ == was and is_ in relations for is_, was in zip(gold, predicted, strict=True))
    return precision_recall_f1(right, sum(was in relations for was in predicted), sum(is_ in relations for is_ in gold))[2]


def precision_recall_f1(right: int, predicted: int, gold: int) -> tuple[float, float, float]:
    """Of sets, by their sizes; 0 where undefined."""
    return right / predicted if predicted else 0.0, right / gold if gold else 0.0, 2 * right / ((predicted + gold) or 1)


def matthews(gold: Sequence[object], predicted: Sequence[object]) -> float:
    """Matthews correlation coefficient (CoLA's metric), in [-1, 1]; 0 where everything is or went to one class.

    Of any number of labels (Gorodkin, 2004): the covariance of the two assignments over the root of their variances.
    """
    there, said, right = _counted(gold, predicted)
    pairs = len(gold) ** 2
    own, other = (pairs - sum(count**2 for count in counts.values()) for counts in (there, said))
    shared = right.total() * len(gold) - sum(there[label] * said[label] for label in there)
    return shared / math.sqrt(own * other) if own and other else 0.0


def pearson(left: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Correlation of two lists of numbers, in [-1, 1]; 0 where one of them is constant."""
    x, y = (values - values.mean() for values in (np.asarray(side, dtype=np.float64) for side in (left, right)))
    norm = math.sqrt(float(x @ x)) * math.sqrt(float(y @ y))
    return max(-1.0, min(1.0, float(x @ y) / norm)) if norm else 0.0


def spearman(left: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Correlation of the ranks of two lists of numbers, equal numbers sharing their mean rank; 0 where one is constant."""
    return pearson(_mean_ranks(left), _mean_ranks(right))


def _mean_ranks(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    _, inverse, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: npt.NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks


def ranks(scores: npt.NDArray[np.floating], relevant: Sequence[int]) -> list[int]:
    """The ranks, from 1 and rising, of the `relevant` places when all are sorted by score, the highest first.

    Relevant ones stand behind others of the same score: vectors that are all equal find nothing.
    """
    own = np.sort(scores[list(relevant)])[::-1]
    others = np.sort(np.delete(scores, list(relevant)))
    before = len(others) - np.searchsorted(others, own, side="left")
    return [int(count) + place for place, count in enumerate(before, start=1)]


def ndcg(ranks: Sequence[int], k: int) -> float:
    """Normalised discounted cumulative gain of the first k, with a gain of 1 for what is relevant (Jarvelin, 2002)."""
    gained = sum(1 / math.log2(rank + 1) for rank in ranks if rank <= k)
    return gained / sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(ranks)) + 1))


def reciprocal_rank(ranks: Sequence[int], k: int) -> float:
    """1 / the first of the ranks; 0 if it is beyond k."""
    return 1 / ranks[0] if ranks[0] <= k else 0.0


def recall(ranks: Sequence[int], k: int) -> float:
    """Share of what is relevant that is among the first k."""
    return sum(rank <= k for rank in ranks) / len(ranks)


def binary_f1(gold: Sequence[object], predicted: Sequence[object], positive: object) -> float:
    """F1 of one label against all others (MRPC's metric); 0 where it was neither there nor given."""
    there, said, right = (counts[positive] for counts in _counted(gold, predicted))
    return precision_recall_f1(right, said, there)[2]


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
