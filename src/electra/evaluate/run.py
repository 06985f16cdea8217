"""How good is a model on a labelled file: examples in, figures out.

`evaluate` is what the loop calls on the development set; `evaluate_file` is the verb: it reads a model directory and a file and
also says how many examples there were, how many tokens were cut away, which label was taken for which, and whether the
model has collapsed to one label. Examples stream: of each only its `Judgement` is kept, neither text nor logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from pathlib import Path

from electra.contracts import Example, Judgement, Prediction, TrainableTask
from electra.errors import ElectraError
from electra.predict.predictor import Predictor, load


def evaluate(predictor: Predictor, examples: Iterable[Example]) -> dict[str, float]:
    """The figures of `figures` for labelled examples.

    Raises:
        ElectraError: as `judged`.
    """
    return figures(trainable(predictor), [judgement for _, _, judgement in judged(predictor, examples)])


def judged(predictor: Predictor, examples: Iterable[Example]) -> Iterator[tuple[Example, Prediction, Judgement]]:
    """Each labelled example with its prediction and how right it is, in order.

    Raises:
        ElectraError: E-C305 a task without gold answers, E-D321 an example without one, and the task's own for an unknown one.
    """
    task = trainable(predictor)
    asked, kept = tee(_labelled(examples))
    for example, prediction in zip(kept, predictor.stream(asked), strict=True):
        yield example, prediction, task.judge(example, prediction)


def figures(task: TrainableTask, judgements: Sequence[Judgement]) -> dict[str, float]:
    """The task's metrics, the main one first, and `collapsed`: 1 if everything got the same label, though it should not.

    Accuracy does not say so: it is the commonest label's share then.

    Raises:
        ElectraError: E-D320 no examples.
    """
    if not judgements:
        raise ElectraError("E-D320", "evaluate", "there are no examples", "give a file with at least one row")
    gold = {unit.gold for judgement in judgements for unit in judgement.units}
    predicted = {unit.predicted for judgement in judgements for unit in judgement.units}
    return {**task.score(judgements), "collapsed": float(len(predicted) == 1 and gold > predicted)}


def evaluate_file(model_dir: Path, data: Path, task_name: str | None = None) -> dict[str, object]:
    """Metrics of a fine-tuned model on a labelled file.

    Args:
        model_dir: a model directory.
        data: the file.
        task_name: of the task of an installed package that the model was fine-tuned for.

    Returns:
        JSON-ready: `examples`, `truncated` (examples cut), `truncated_tokens`, `metrics` (as `figures`), `labels`, `confusion`
        (counts [gold][predicted], in the order of `labels`), `notes` of the reader, `warnings` (empty if all is well).

    Raises:
        ElectraError: as `judged`, `figures`, `load` and the task's `read`.
    """
    predictor = load(model_dir, task_name)
    task = trainable(predictor)
    reading = task.read(data)
    judgements, cut = [], []
    for _, prediction, judgement in judged(predictor, reading.examples):
        judgements.append(judgement)
        cut.append(prediction.truncated)
    metrics = figures(task, judgements)
    warnings = []
    if any(cut):
        warnings.append(f"{sum(map(bool, cut))} of {len(cut)} texts were cut to {task.max_length} tokens")
    if metrics["collapsed"]:
        [label] = {unit.predicted for judgement in judgements for unit in judgement.units}
        warnings.append(f"the model has collapsed: everything got the label {label!r}")
    return {
        "examples": len(judgements),
        "truncated": sum(map(bool, cut)),
        "truncated_tokens": sum(cut),
        "metrics": metrics,
        "labels": list(task.labels),
        "confusion": confusion(task.labels, judgements),
        "notes": reading.notes,
        "warnings": warnings,
    }


def confusion(labels: Sequence[str], judgements: Iterable[Judgement]) -> list[list[int]]:
    """Counts [gold][predicted] of all units, in the order of `labels`; a last row and column count `None` where it occurs."""
    units = [unit for judgement in judgements for unit in judgement.units]
    nothing = any(unit.gold is None or unit.predicted is None for unit in units)
    places: dict[str | None, int] = {label: place for place, label in enumerate(labels)} | (
        {None: len(labels)} if nothing else {}
    )
    counts = [[0] * len(places) for _ in places]
    for unit in units:
        counts[places[unit.gold]][places[unit.predicted]] += 1
    return counts


def trainable(predictor: Predictor) -> TrainableTask:
    """The predictor's task, if it can be scored.

    Raises:
        ElectraError: E-C305.
    """
    if not isinstance(predictor.task, TrainableTask):
        raise ElectraError("E-C305", "evaluate", "this model has no task with gold answers", "fine-tune it first")
    return predictor.task


def _labelled(examples: Iterable[Example]) -> Iterator[Example]:
    for example in examples:
        if example.target is None:
            raise ElectraError("E-D321", example.where or "example", "has no label to compare with",
                               "give a labelled file, or set columns.label to the column that holds the labels")  # fmt: skip
        yield example
