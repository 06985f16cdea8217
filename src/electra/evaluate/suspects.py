"""Labels that a simple classifier would not have given: candidates for a second look, not verdicts.

TF-IDF of words (a Chinese character or kana is a word) and pairs of them, and logistic regression, in five folds: every row
is judged by a model that has not seen it, nor any equal text, since folds go by a hash of the text. Confident learning
(Northcutt et al., 2021, https://arxiv.org/abs/1911.00068) decides: a label is suspected if another one's probability reaches
the mean probability that rows of that other label get for it; so about half of the wrong ones stay below. Where the model is
hardly better than always giving the commonest label, it says nothing.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from electra.text.scripts import IDEOGRAPHS_AND_KANA

#: rows that are judged; of more, those with the smallest hashes
MOST_ROWS = 20_000
_FOLDS = 5
_MOST_LABELS = 200
_MOST_TERMS = 50_000
#: rows of the commonest label and of all others, in each fold on average
_FEWEST = 4
#: the share of the errors of "always the commonest" that has to be avoided
_BETTER = 0.2
_SHOWN = 10
_CUT = 60
_WORD = rf"[{IDEOGRAPHS_AND_KANA}]|[^\W{IDEOGRAPHS_AND_KANA}]+"


@dataclass(frozen=True, kw_only=True)
class _Row:
    key: int
    where: str
    text: str
    label: str


class Sample:
    """At most `MOST_ROWS` rows of a stream, the same ones whatever the order: those whose keys lie below a bound, which is
    halved whenever there are too many."""

    def __init__(self) -> None:
        self.rows: list[_Row] = []
        self._bound = 1 << 128

    def add(self, key: bytes, where: str, text: str, label: str) -> None:
        """One more row; `key` is a hash of its text, 16 bytes."""
        row = _Row(key=int.from_bytes(key), where=where, text=text, label=label)
        if row.key < self._bound:
            self.rows.append(row)
        while len(self.rows) > MOST_ROWS:
            self._bound //= 2
            self.rows = [row for row in self.rows if row.key < self._bound]


def suspects(sample: Sample) -> dict[str, Any]:
    """The suspected labels of a sample, the most doubtful first, ready for JSON.

    Returns:
        `judged`, whether there is a judgement, else `why` not; `rows`, `accuracy` out of fold, `count`, and of the `first` ones
        `where`, `label`, `likely`, `probability`, `text`.
    """
    rows = sample.rows
    counts = Counter(row.label for row in rows)
    none: dict[str, Any] = {"judged": False, "rows": len(rows), "accuracy": 0.0, "count": 0, "first": [], "why": ""}
    if not 2 <= len(counts) <= _MOST_LABELS:
        return none | {"why": f"there are {len(counts)} different labels"}
    majority = max(counts.values()) / len(rows)
    if (1 - majority) * len(rows) < _FEWEST * _FOLDS:
        return none | {"why": f"{len(rows):,} rows are too few"}
    names = sorted(counts)
    gold = np.array([names.index(row.label) for row in rows])
    probability = _out_of_fold([row.text for row in rows], gold, np.array([row.key % _FOLDS for row in rows]), len(names))
    if probability is None:
        return none | {"why": "no two texts have a word in common"}
    accuracy = float((probability.argmax(axis=1) == gold).mean())
    if 1 - accuracy > (1 - _BETTER) * (1 - majority):
        why = f"the classifier is right in {accuracy:.1%}, always {names[int(np.bincount(gold).argmax())]!r} in {majority:.1%}"
        return none | {"why": why, "accuracy": accuracy}
    own = probability[np.arange(len(rows)), gold]
    usual = np.array([own[gold == label].mean() for label in range(len(names))])
    confident = np.where(probability >= usual, probability, 0.0)
    likely = confident.argmax(axis=1)
    wrong = np.flatnonzero((confident.max(axis=1) > 0) & (likely != gold))
    order = sorted(wrong.tolist(), key=lambda place: (own[place] - probability[place, likely[place]], rows[place].where))
    first = [
        {"where": rows[place].where, "label": rows[place].label, "likely": names[likely[place]],
         "probability": float(probability[place, likely[place]]), "text": rows[place].text[:_CUT]}
        for place in order[:_SHOWN]
    ]  # fmt: skip
    return none | {"judged": True, "accuracy": accuracy, "count": len(order), "first": first}


def _out_of_fold(
    texts: list[str], gold: npt.NDArray[Any], fold: npt.NDArray[Any], labels: int
) -> npt.NDArray[np.float64] | None:
    """float64 [rows, labels], each row by the model of the other folds; None where no term occurs in two texts.

    The terms' weights know all texts, but no label.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    terms = TfidfVectorizer(token_pattern=_WORD, ngram_range=(1, 2), sublinear_tf=True, min_df=2, max_features=_MOST_TERMS)
    try:
        features = terms.fit_transform(texts)
    except ValueError:  # no terms are left
        return None
    probability = np.zeros((len(texts), labels))
    for number in range(_FOLDS):
        train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if not len(test) or len(np.unique(gold[train])) < 2:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # nearly there is good enough for a first look
            model = LogisticRegression(C=5.0, max_iter=50).fit(features[train], gold[train])
        probability[np.ix_(test, model.classes_)] = model.predict_proba(features[test])
    return probability
