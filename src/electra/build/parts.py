"""What pre-training and fine-tuning recipes have in common, and what both runs need: precision, log, memory, machine."""

from __future__ import annotations

import contextlib
import shutil
import statistics
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from electra.config import STRICT
from electra.console import ConsoleSink
from electra.errors import ElectraError, Preempted
from electra.events import Event, EventLog, read_events
from electra.train.checkpoint import Checkpoints, State
from electra.train.loop import HISTORY, Training, train
from electra.train.machine import StopFlag, faster_precision
from electra.train.run import Opened

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
def logging_to(opened: Opened, console: ConsoleSink | None) -> Iterator[EventLog]:
    """The event log of a run, on file and on the console."""
    if console is None:
        with EventLog(opened.events) as log:
            yield log
    else:
        with console, EventLog(opened.events, [console]) as log:
            yield log


def restore_point(
    opened: Opened, checkpoints: Checkpoints, log: EventLog, fingerprints: dict[str, str]
) -> tuple[Path, State] | None:
    """The newest good checkpoint of a run, with the log cut back to it; None = begin at step 0.

    Raises:
        ElectraError: E-D400 the data or the tokenizer is not what the run was started with.
    """
    broken: list[str] = []
    found = checkpoints.newest_state(broken.append)
    for name, value in found[1].fingerprints.items() if found else ():
        if fingerprints.get(name) != value:
            raise ElectraError("E-D400", str(opened.directory), f"the {name} has changed since the run was started",
                               f"bring the {name} back, or start another run with another run.dir")  # fmt: skip
    log.truncate_after(found[1].step if found else 0)
    for message in broken:  # behind the cut, or it would take them away
        log.emit("warning", code="E-M401", message=message)
    return found


def recent_steps(opened: Opened) -> deque[dict[str, Any]]:
    """The last step events of a run, for its verdicts."""
    events, _ = read_events(opened.events)
    return deque((event for event in events if event["event"] == "step"), maxlen=HISTORY)


def seconds_per_step(training: Training, budget: float) -> float:
    """Let the loop run full-size steps of throw-away networks, and time them.

    It shows before step 0 whether a micro-batch fits into memory: the loop halves `training.loader`'s until it does.

    Args:
        training: not saving, with a log that goes nowhere; its networks are spoilt afterwards.
        budget: seconds after which no further step is begun; 0 = one step only.

    Returns:
        The median time of a step, without the first two (which allocate and choose kernels) if there are more.
    """
    stop, times = StopFlag(), list[float]()

    def watch(event: Event) -> None:
        if event["event"] == "step":
            times.append(event["seconds"])
            stop.requested = sum(times) >= budget

    training.log = EventLog(None, [watch])
    with contextlib.suppress(Preempted):
        train(training, None, stop)
    return statistics.median(times[2:] or times)


def require_disk(directory: Path, needed: int) -> None:
    """Refuse to begin where the checkpoints and the model of a run will not fit.

    Args:
        directory: of the run; may not exist yet.
        needed: bytes.

    Raises:
        ElectraError: E-R403 there is less room.
    """
    standing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(standing).free
    if free < needed:
        raise ElectraError("E-R403", str(directory), f"the run writes {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free",
                           "free space, choose another run.dir, or lower loop.keep")  # fmt: skip
