"""TensorBoard: a sink that writes the figures of a run as TensorBoard's event files (extra `tensorboard`).

In: events (events.py). Out: a file below the directory for each start of the run. A resumed run begins its file with a mark
that makes TensorBoard forget what earlier files tell of later steps, as `EventLog.truncate_after` cuts the log. Times are
those of the events. Everything is written through at once, so that a crash loses nothing that events.jsonl has.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from electra.errors import ElectraError
from electra.events import Event, in_order


def require_tensorboard() -> None:
    """Raises E-R310 where the extra is not installed."""
    if find_spec("tensorboardX") is None:
        raise ElectraError("E-R310", "loop.tensorboard", "the package tensorboardX is not installed",
                           "pip install 'electra-toolkit[tensorboard]', or leave loop.tensorboard out")  # fmt: skip


class TensorBoardSink:
    """Writes step and evaluation figures, learning rates, gradient norms and speed.

    Args:
        directory: of the event files; made with the first figure.

    Raises:
        ElectraError: E-R310 the extra is not installed.
    """

    def __init__(self, directory: Path) -> None:
        require_tensorboard()
        self._directory = directory
        self._begun_at = 0
        self._writer: Any = None

    def __enter__(self) -> TensorBoardSink:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def __call__(self, event: Event) -> None:
        if event["event"] == "start":
            self._begun_at = event["step"]
        if event["event"] not in ("step", "evaluate"):
            return
        from tensorboardX.proto.event_pb2 import Event as Record
        from tensorboardX.proto.summary_pb2 import Summary

        if self._writer is None:
            self._open(event["time"])
        values = [Summary.Value(tag=name, simple_value=float(value)) for name, value in _scalars(event)]
        self._writer.write_event(Record(wall_time=event["time"], step=event["step"], summary=Summary(value=values)))
        self._writer.flush()

    def _open(self, clock: float) -> None:
        """Begin a file. Not with `SummaryWriter`, which hands everything to a thread that a crash cuts off."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event as Record
        from tensorboardX.proto.event_pb2 import SessionLog

        directory = self._directory.absolute()
        directory.mkdir(parents=True, exist_ok=True)
        earlier = len(list(directory.iterdir()))  # two starts within a second must not have one name
        self._writer = EventsWriter(str(directory / "events"), f".{earlier:04}")
        if self._begun_at:
            mark = SessionLog(status=SessionLog.START)
            self._writer.write_event(Record(wall_time=clock, step=self._begun_at + 1, session_log=mark))


def _scalars(event: Event) -> Iterator[tuple[str, Any]]:
    """Name and value of all that is drawn, the names in groups."""
    group = "train" if event["event"] == "step" else "held_out"
    for name, value in in_order(event["figures"]).items():
        yield f"{group}/{name}", value
    for group in ("lr", "grad_norm"):
        for network, value in event.get(group, {}).items():
            yield f"{group}/{network}", value
    if "tokens_per_second" in event:
        yield "speed/tokens_per_second", event["tokens_per_second"]
