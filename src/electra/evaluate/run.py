"""How good is a model on a labelled file: examples in, an examination out.

`examination` is what a run makes of its development set; `evaluate_file` is the verb: it reads a model directory and a file.
Examples stream through the same `Predictor` that serves the model later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import tee
from pathlib import Path
from typing import Any

from electra.contracts import Example, Judgement, Prediction, TrainableTask
from electra.errors import ElectraError
from electra.evaluate.examine import RESAMPLES, Examination
from electra.models.model_dir import was_trained_on
from electra.predict.inference import Precision
from electra.predict.predictor import Predictor, load


def examination(predictor: Predictor, examples: Iterable[Example]) -> Examination:
    """All there is to say about a model on labelled examples.

    Raises:
        ElectraError: as `judged`.
    """
    found = Examination(trainable(predictor))
    for example, prediction, judgement in judged(predictor, examples):
        found.take(example, prediction, judgement)
    return found


def judged(predictor: Predictor, examples: Iterable[Example]) -> Iterator[tuple[Example, Prediction, Judgement]]:
    """Each labelled example with its prediction and how right it is, in order.

    Raises:
        ElectraError: E-C305 a task without gold answers, E-D321 an example without one, and the task's own for an unknown one.
    """
    task = trainable(predictor)
    asked, kept = tee(_labelled(examples))
    for example, prediction in zip(kept, predictor.stream(asked), strict=True):
        yield example, prediction, task.judge(example, prediction)


def evaluate_file(
    model_dir: Path,
    data: Path,
    task_name: str | None = None,
    resamples: int = RESAMPLES,
    columns: Mapping[str, Any] | None = None,
    precision: Precision = "fp32",
) -> dict[str, Any]:
    """An examination (`Examination.to_json`) of a fine-tuned model on a labelled file, and `notes` of its reader.

    That the model was trained on this very file is a warning (E-D366): the hash of its training file stands in its manifest.

    Args:
        model_dir: a model directory.
        data: the file.
        task_name: of the task of an installed package that the model was fine-tuned for.
        resamples: sets behind an interval.
        columns, precision: as of `load`.

    Raises:
        ElectraError: as `judged`, `Examination.to_json`, `load` and the task's `read`.
    """
    predictor = load(model_dir, task_name, columns, precision=precision)
    reading = trainable(predictor).read(data)
    found = examination(predictor, reading.examples).to_json(resamples)
    if was_trained_on(model_dir, data):
        learnt = f"E-D366 the model was trained on {data}: what was learnt by heart is scored there"
        found["warnings"] = [learnt, *found["warnings"]]
    return {**found, "notes": reading.notes}


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
