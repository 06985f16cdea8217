"""BIO for a network: classes `O B-X I-X B-Y I-Y ...`, the best legal sequence of them, and how probable a span is.

In: log-probabilities of the classes for each word of a text. Out: the most probable sequence in which no I-X stands but behind
B-X or I-X (Viterbi's algorithm), and of each span the probability that it stands there exactly: that its first word begins
it, the others go on with it, and the word behind does not, words taken as independent.

Classes are numbered O = 0, B of label k = 1 + 2k, I = 2 + 2k. n words, c classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from electra.tasks.schemes import OUTSIDE

Floats = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]


def classes(labels: Sequence[str]) -> tuple[str, ...]:
    """The names of the classes, 1 + 2 for each label."""
    return (OUTSIDE, *(f"{letter}-{label}" for label in labels for letter in "BI"))


def best_path(scores: Floats) -> Classes:
    """The legal sequence [n] with the greatest sum of scores [n, c]; in time n x c.

    Where the best class of each word makes a legal sequence, that is it.
    """
    path = scores.argmax(axis=1)
    return path if is_legal(path) else _viterbi(scores)


def is_legal(path: Classes) -> bool:
    """Whether every I follows its B or I."""
    inside = (path > 0) & (path % 2 == 0)
    before = np.append(0, path[:-1])
    return bool(np.all(~inside | (before == path) | (before == path - 1)))


def _viterbi(scores: Floats) -> Classes:
    words, width = scores.shape
    begins = np.arange(1, width, 2)
    came_from = np.empty((words, width), dtype=np.int64)  # the class of the word before, on the best way to each class
    best = scores[0].copy()
    best[2::2] = -np.inf
    for word in range(1, words):
        came_from[word] = best.argmax()
        came_from[word, 2::2] = begins + (best[2::2] > best[1::2])
        best = best[came_from[word]] + scores[word]
    path = np.empty(words, dtype=np.int64)
    path[-1] = best.argmax()
    for word in range(words - 1, 0, -1):
        path[word - 1] = came_from[word, path[word]]
    return path


def span_probability(log_probabilities: Floats, first: int, behind: int, label: int) -> float:
    """Probability that words [first, behind) are a span of this label, and no longer one; see the module."""
    begin, inside = 1 + 2 * label, 2 + 2 * label
    log = log_probabilities[first, begin] + log_probabilities[first + 1 : behind, inside].sum()
    goes_on = np.exp(log_probabilities[behind, inside]) if behind < len(log_probabilities) else 0.0
    return float(np.exp(log) * (1.0 - goes_on))
