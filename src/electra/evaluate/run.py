"""How good is a model on a labelled file: examples in, figures out.

`evaluate` is what the loop calls on the development set; `evaluate_file` is the verb: it reads a model directory and a file and
also says how many examples there were, how many tokens were cut away, which label was taken for which, and whether the
model has collapsed to one label. Only predictions are kept, never logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from electra.contracts import Example, Prediction
from electra.errors import ElectraError
from electra.predict.predictor import Predictor, load
from electra.tasks.classify import Classify


def evaluate(predictor: Predictor, examples: Sequence[Example]) -> dict[str, float]:
    """The task's metrics on labelled examples; the first is its main metric.

    Args:
        predictor: a network, in training or loaded, with a task that can score.
        examples: each with its gold answer.

    Raises:
        ElectraError: as `answers`.
    """
    return _task(predictor).score(answers(predictor, examples), examples)


def answers(predictor: Predictor, examples: Sequence[Example]) -> list[Prediction]:
    """Predictions for labelled examples.

    Raises:
        ElectraError: E-D320 no examples, E-D321 an example without gold answer, and the task's own for an unknown one; all
            before anything is computed.
    """
    if not examples:
        raise ElectraError("E-D320", "evaluate", "there are no examples", "give a file with at least one row")
    for example in examples:
        if example.target is None:
            raise ElectraError("E-D321", example.where or "example", "has no label to compare with",
                               "give a labelled file, or set columns.label to the column that holds the labels")  # fmt: skip
    return predictor.answer(examples)


def evaluate_file(model_dir: Path, data: Path) -> dict[str, object]:
    """Metrics of a fine-tuned model on a labelled file.

    Returns:
        JSON-ready: `examples`, `truncated` (examples cut), `truncated_tokens`, `metrics` (as `evaluate`), `labels`, `confusion`
        (counts [gold][predicted]) and `warnings` (texts, empty if all is well).

    Raises:
        ElectraError: E-C305 the model's task has no gold answers; and as `evaluate`, `load` and the task's `read`.
    """
    predictor = load(model_dir)
    task = _task(predictor)
    examples = task.read(data)
    predictions = answers(predictor, examples)
    metrics = task.score(predictions, examples)
    cut = [prediction.truncated for prediction in predictions if prediction.truncated]
    warnings = []
    if cut:
        warnings.append(f"{len(cut)} of {len(examples)} texts were cut to {task.max_length} tokens")
    if metrics["collapsed"]:
        warnings.append(f"the model has collapsed: every text got the label {predictions[0].output['label']!r}")
    return {
        "examples": len(examples),
        "truncated": len(cut),
        "truncated_tokens": sum(cut),
        "metrics": metrics,
        "labels": list(task.labels),
        "confusion": task.confusion(predictions, examples),
        "warnings": warnings,
    }


def _task(predictor: Predictor) -> Classify:
    """The predictor's task, if it can score."""
    if not isinstance(predictor.task, Classify):
        raise ElectraError("E-C305", "evaluate", "this model has no task with gold answers", "fine-tune it first")
    return predictor.task
