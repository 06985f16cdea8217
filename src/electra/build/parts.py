"""What pre-training and fine-tuning recipes have in common, and what both runs share: precision, log, where to go on from."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from electra.config import STRICT
from electra.console import ConsoleSink
from electra.dist import first, rank
from electra.errors import ElectraError
from electra.evaluate.report import write_report
from electra.events import EventLog, Sink, read_events
from electra.storage import clear_leftovers, problem
from electra.tensorboard import TensorBoardSink
from electra.train.checkpoint import Checkpoints, State
from electra.train.loop import HISTORY, LoopConfig
from electra.train.machine import faster_precision
from electra.train.run import Opened
from electra.train.selection import Evaluation, best

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """Where the first weights come from.

    Args:
        from_: (in recipes: `from`) a model directory; None = fresh weights.
        weights: `loaded`, or `fresh` to take only architecture and tokenizer from it (the control in comparisons).
    """

    __pydantic_config__ = STRICT
    from_: Path | None = None
    weights: Literal["loaded", "fresh"] = "loaded"


def uses_bf16(precision: Precision) -> bool:
    """Whether matrix products run in bf16; `auto` asks a probe of some milliseconds."""
    return (faster_precision() if precision == "auto" else precision) == "bf16"


@contextmanager
def logging_to(opened: Opened, console: ConsoleSink | None, settings: LoopConfig) -> Iterator[EventLog]:
    """The event log of a run, on file, on the console, and for TensorBoard if asked for; that of the first process, the others'
    goes nowhere. An error that ends a training (E-T...) is told to it, and in a report.

    Raises:
        ElectraError: E-R310 `loop.tensorboard` without its extra, E-R830 another process is at work on the run.
    """
    if rank() > 0:
        yield EventLog(None)
        return
    with contextlib.ExitStack() as stack:
        sinks: list[Sink] = [stack.enter_context(console)] if console is not None else []
        if settings.tensorboard:
            sinks.append(stack.enter_context(TensorBoardSink(opened.directory / "tensorboard")))
        log = stack.enter_context(EventLog(opened.events, sinks))
        try:
            yield log
        except ElectraError as error:
            if error.code.startswith("E-T"):
                log.emit("stop", reason=str(error))
                write_report(opened.directory)
            raise


def newest_state(
    opened: Opened, checkpoints: Checkpoints, fingerprints: Mapping[str, str], report: Callable[[str], None]
) -> tuple[Path, State] | None:
    """The newest good checkpoint of a run; broken ones are told to `report`.

    Raises:
        ElectraError: E-D400 the data or the tokenizer is not what the run was started with.
    """
    found = checkpoints.newest_state(report)
    started_with = opened.resolved.get("fingerprints", {})  # not in older runs
    for name, value in {**started_with, **(found[1].fingerprints if found else {})}.items():
        if fingerprints.get(name) != value:
            raise ElectraError("E-D400", str(opened.directory), f"the {name} has changed since the run was started",
                               f"bring the {name} back, or start another run with another run.dir")  # fmt: skip
    return found


def restore_point(
    opened: Opened, checkpoints: Checkpoints, log: EventLog, fingerprints: dict[str, str]
) -> tuple[Path, State] | None:
    """The newest good checkpoint of a run, with the log cut back to it; None = begin at step 0. What a killed process left
    half-written is removed.

    Raises:
        ElectraError: E-D400 the data or the tokenizer is not what the run was started with.
    """

    def look() -> tuple[str, dict[str, Any]] | None:
        broken: list[str] = []
        found = newest_state(opened, checkpoints, fingerprints, broken.append)
        log.truncate_after(found[1].step if found else 0)
        for folder in (opened.directory, opened.directory / "phases"):
            clear_leftovers(folder)
        for message in broken:  # behind the cut, or it would take them away
            log.emit("warning", code="E-M401", message=message)
        return None if found is None else (found[0].name, vars(found[1]))

    found = first(look)
    return None if found is None else (checkpoints.directory / found[0], State(**found[1]))


def is_done(end: int, model: Path, found: tuple[Path, State] | None) -> bool:
    """Whether a phase was trained to step `end`, and its `model`, where the run still needs it, is as it was written.

    Args:
        found: the checkpoint to go on from; one behind `end` needs no model of an earlier phase.
    """
    if found is None or found[1].step < end:
        return False
    return found[1].step > end or first(lambda: problem(model) is None)


def recent_steps(opened: Opened) -> deque[dict[str, Any]]:
    """The last step events of a run, for its verdicts."""
    events, _ = read_events(opened.events)
    return deque((event for event in events if event["event"] == "step"), maxlen=HISTORY)


def evaluations(opened: Opened, checkpoints: Checkpoints, log: EventLog) -> list[Evaluation]:
    """The evaluations of a run so far, from its log. Where the checkpoint of the best is broken, that is told, and only those
    whose weights are there count."""
    events, _ = read_events(opened.events)
    found = [Evaluation.of(event) for event in events if event["event"] == "evaluate"]
    first = best(found)
    if first is None or (damage := problem(checkpoints.path(first.step))) is None:
        return found
    log.emit("warning", code="E-T411", message=f"the weights of the best evaluation, after step {first.step}, cannot be read "
             f"({damage}): the best of those that are left, and still to come, is taken")  # fmt: skip
    return [each for each in found if problem(checkpoints.path(each.step)) is None]
