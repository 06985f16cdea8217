"""What a score does not tell: judged examples come in one by one, a JSON-ready examination goes out.

For every label precision, recall and F1; which label was taken for which; how far a probability can be trusted (expected
calibration error: Guo et al., 2017, ten equal bins); the main metric by length of text; 95 % intervals of all metrics from
resampled examples (percentile bootstrap, keyed, so that it comes out the same again); the worst errors with their texts. Of
most examples only the `Judgement` is kept; texts only of the worst.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from electra.contracts import Example, Judgement, Mention, Prediction, TrainableTask, Unit
from electra.errors import ElectraError

Json = dict[str, Any]

#: errors shown, the most confident first
WORST = 20
#: resampled sets of examples behind an interval
RESAMPLES = 200
#: bins of probability in a calibration
BINS = 10
#: stretches of text length, with as many examples each
_LENGTHS = 5
#: labels and confusions shown, of the commonest labels; a warning says that there are more
_MOST_LABELS = 60


@dataclass
class Examination:
    """Collects judged examples.

    Args:
        task: whose examples they are.
    """

    task: TrainableTask
    judgements: list[Judgement] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    _worst: list[tuple[float, int, Json]] = field(default_factory=list)

    def take(self, example: Example, prediction: Prediction, judgement: Judgement) -> None:
        """One more example."""
        number = len(self.judgements)
        self.judgements.append(judgement)
        self.lengths.append(len(example.text) + len(example.pair or ""))
        self.cut.append(prediction.truncated)
        badness, full = _badness(judgement), len(self._worst) == WORST
        if badness > (self._worst[0][0] if full else 0):
            entry = badness, -number, _error(example, prediction, judgement)
            (heapq.heappushpop if full else heapq.heappush)(self._worst, entry)

    def figures(self) -> dict[str, float]:
        """As `figures` of the module."""
        return figures(self.task, self.judgements)

    def to_json(self, resamples: int = RESAMPLES) -> Json:
        """JSON-ready: `examples`, `truncated` (examples cut), `truncated_tokens`, `metrics`, `intervals` (low and high),
        `labels` and `confusion` (counts [gold][predicted]), `classes`, `calibration`, `lengths`, `errors`, and `warnings`
        (empty if all is well).

        Args:
            resamples: sets behind an interval; 0 = no intervals.

        Raises:
            ElectraError: E-D320 nothing was taken.
        """
        metrics = self.figures()
        labels, counts = confusion(self.task.labels, self.judgements)
        return {
            "examples": len(self.judgements),
            "truncated": sum(map(bool, self.cut)),
            "truncated_tokens": sum(self.cut),
            "metrics": metrics,
            "intervals": intervals(self.task, self.judgements, resamples),
            "labels": labels,
            "confusion": counts,
            "classes": classes(self.judgements),
            "calibration": calibration(self.judgements),
            "lengths": self._by_length(),
            "errors": [error for _, _, error in sorted(self._worst, key=lambda entry: entry[:2], reverse=True)],
            "warnings": self._warnings(metrics),
        }

    def _by_length(self) -> list[Json]:
        """The main metric over stretches of text length, in characters."""
        order = np.argsort(np.array(self.lengths), kind="stable")
        if len(order) < 4 * _LENGTHS:
            return []
        found = []
        for part in np.array_split(order, _LENGTHS):
            score = self.task.score([self.judgements[place] for place in part.tolist()])
            shortest, longest = self.lengths[part[0]], self.lengths[part[-1]]
            found.append({"from": shortest, "to": longest, "examples": len(part), "score": next(iter(score.values()))})
        return found

    def _warnings(self, metrics: Mapping[str, float]) -> list[str]:
        warnings = []
        if any(self.cut):
            warnings.append(f"{sum(map(bool, self.cut))} of {len(self.cut)} inputs were cut: {sum(self.cut)} tokens not seen")
        if metrics["collapsed"]:
            [label] = {unit.predicted for unit in _units(self.judgements)}
            said = "nothing was found" if label is None else f"everything got the label {label!r}"
            warnings.append(f"the model has collapsed: {said}")
        if (many := len({label for unit in _units(self.judgements) for label in (unit.gold, unit.predicted)})) > _MOST_LABELS:
            warnings.append(f"of {many:,} labels the {_MOST_LABELS} commonest are shown")
        return warnings


def figures(task: TrainableTask, judgements: Sequence[Judgement]) -> dict[str, float]:
    """The task's metrics, the main one first, and `collapsed`: 1 if everything got the same label, though it should not, or
    nothing was found where something is.

    Accuracy does not say so: it is the commonest label's share then.

    Raises:
        ElectraError: E-D320 no examples.
    """
    if not judgements:
        raise ElectraError("E-D320", "evaluate", "there are no examples", "give a file with at least one row")
    gold = {unit.gold for unit in _units(judgements)} - {None}
    predicted = {unit.predicted for unit in _units(judgements)}
    collapsed = len(predicted) == 1 and gold != predicted and gold | {None} > predicted
    return {**task.score(judgements), "collapsed": float(collapsed)}


def intervals(task: TrainableTask, judgements: Sequence[Judgement], resamples: int = RESAMPLES) -> dict[str, list[float]]:
    """The 2.5th and 97.5th percentile of each metric over sets of examples drawn with replacement.

    None of retrieval, where an example that is drawn twice would be found in place of itself. A metric that some sets do not
    have (no question without an answer was drawn, say) is taken from the others.
    """
    random, scores = np.random.default_rng(0), dict[str, list[float]]()
    resamples = 0 if any(judgement.vectors is not None for judgement in judgements) else resamples
    for _ in range(resamples):
        drawn = random.integers(0, len(judgements), len(judgements))
        for name, score in task.score([judgements[place] for place in drawn.tolist()]).items():
            if math.isfinite(score):
                scores.setdefault(name, []).append(score)
    return {name: [float(bound) for bound in np.percentile(values, (2.5, 97.5))] for name, values in scores.items()}


def confusion(labels: Sequence[str], judgements: Sequence[Judgement]) -> tuple[list[str], list[list[int]]]:
    """Names and counts [gold][predicted], in the order of `labels`, others behind them; "" is `None`. Of many labels those that
    occur most."""
    seen: Counter[str | None] = Counter()
    for unit in _units(judgements):
        seen.update((unit.gold, unit.predicted))
    others = sorted(label for label in seen.keys() - set(labels) if label is not None)
    named: list[str | None] = [*(label for label in labels if not others or label in seen), *others]
    named += [None] if None in seen else []
    if len(named) > _MOST_LABELS:
        kept = set(sorted(named, key=lambda label: -seen[label])[:_MOST_LABELS])
        named = [label for label in named if label in kept]
    places = {label: place for place, label in enumerate(named)}
    counts = [[0] * len(places) for _ in places]
    for unit in _units(judgements):
        if unit.gold in places and unit.predicted in places:
            counts[places[unit.gold]][places[unit.predicted]] += 1
    return [label or "" for label in named], counts


def classes(judgements: Sequence[Judgement]) -> list[Json]:
    """`label`, `precision`, `recall`, `f1`, `support` (gold units) of each label, the commonest first."""
    right: Counter[str | None] = Counter(unit.gold for unit in _units(judgements) if unit.gold == unit.predicted)
    gold = Counter(unit.gold for unit in _units(judgements))
    predicted = Counter(unit.predicted for unit in _units(judgements))
    found = []
    for label in sorted({*gold, *predicted} - {None}, key=lambda label: (-gold[label], str(label))):
        precision, recall = _share(right[label], predicted[label]), _share(right[label], gold[label])
        f1 = _share(2 * right[label], predicted[label] + gold[label])
        found.append({"label": label, "precision": precision, "recall": recall, "f1": f1, "support": gold[label]})
    return found[:_MOST_LABELS]


def calibration(judgements: Sequence[Judgement]) -> Json:
    """How right predictions of a probability are: `ece`, and for each bin that has any `confidence`, `accuracy`, `units`.

    Empty where nothing was predicted.
    """
    said = [(unit.score, unit.gold == unit.predicted) for unit in _units(judgements) if unit.predicted is not None]
    if not said:
        return {}
    score, right = np.array([score for score, _ in said]), np.array([right for _, right in said])
    place = np.minimum((score * BINS).astype(int), BINS - 1)
    bins = [
        {"confidence": float(score[place == b].mean()), "accuracy": float(right[place == b].mean()),
         "units": int((place == b).sum())}
        for b in range(BINS) if (place == b).any()
    ]  # fmt: skip
    ece = sum(b["units"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / len(said)
    return {"ece": ece, "bins": bins}


def _units(judgements: Sequence[Judgement]) -> list[Unit]:
    return [unit for judgement in judgements for unit in judgement.units]


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _badness(judgement: Judgement) -> float:
    """0 = right; the surer of something wrong, the worse. Tasks that are not about labels say it as the value `error`."""
    wrong = [max(unit.score, 1e-6) for unit in judgement.units if unit.gold != unit.predicted]
    return max([*wrong, judgement.values.get("error", 0.0)])


def _error(example: Example, prediction: Prediction, judgement: Judgement) -> Json:
    units = [unit for unit in judgement.units if unit.gold != unit.predicted]
    wrong: list[Json] = [{"gold": unit.gold, "predicted": unit.predicted, "score": unit.score} for unit in units]
    if isinstance(answer := prediction.output.get("answer"), str):  # a part of the text: it has no label to be a unit
        right = example.target[0][1] if isinstance(example.target, tuple) and example.target else None
        wrong.append({"gold": right, "predicted": answer or None, "score": prediction.output.get("score", 0.0)})
    if isinstance(text := prediction.output.get("generated_text"), str):  # side by side with what should have been written
        wrong.append({"gold": example.target, "predicted": text, "score": prediction.output.get("score", 0.0)})
    return {
        "where": example.where,
        "text": example.text,
        "pair": example.pair,
        "wrong": wrong,
        "values": {name: value for name, value in judgement.values.items() if "/" not in name},
        "marks": _marks(example, prediction),
    }


def _marks(example: Example, prediction: Prediction) -> list[Json]:
    """Parts of `text` or `pair` (`within`) that gold answer, prediction or input point at: `start`, `end`, `label`, `side`."""
    found: list[Json] = []

    def mark(start: int, end: int, label: str, side: str, within: str = "text") -> None:
        found.append({"start": start, "end": end, "label": label, "side": side, "within": within})

    for one in example.target if isinstance(example.target, tuple) else ():
        match one:
            case Mention(start=start, end=end, label=label):
                mark(start, end, label, "gold")
            case (int(start), str(answer)):
                mark(start, start + len(answer), "answer", "gold", "pair")
    match prediction.output:
        case {"entities": list(entities)}:
            for entity in entities:
                mark(entity["start"], entity["end"], entity["entity_group"], "predicted")
        case {"answer": str(), "start": int(start), "end": int(end)} if start < end:
            mark(start, end, "answer", "predicted", "pair")
    for role in ("head", "tail"):
        match example.given.get(role):
            case (int(start), int(end), *_):
                mark(start, end, role, "given")
    return found
