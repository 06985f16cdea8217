"""One event stream: what happens in a run goes to events.jsonl and to sinks (console.py), and nowhere else.

An event is a flat dict with `event` (its name), `time` (unix seconds) and JSON-ready fields. `EventLog.emit` makes it plain
(numbers, strings, lists, dicts; a non-finite float becomes the string `NaN`, `Infinity` or `-Infinity`, which `float` reads
back), appends it as one line, flushes, and hands it to the sinks. Sinks are shown nothing that the file does not have, so a
run can be watched, resumed, judged and drawn from events.jsonl alone.

`step` in any event is the number of finished steps. A run resumed from the checkpoint of step n calls `truncate_after(n)`:
the log is cut before the first event that speaks of a later step, so that a resumed run's step events are those of an
uninterrupted one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from electra.errors import ElectraError

Event = dict[str, Any]
Sink = Callable[[Event], None]

#: figures in the order of interest, in which console and report show them; the first HEADLINE fit into a line
FIGURES = (
    "loss", "mlm_loss", "mlm_accuracy", "rtd_loss", "nce_loss", "prior_gain", "auc", "replaced_share",
    "average_precision", "recall", "precision", "token_rms", "generator_entropy", "reward", "position_uniformity",
)  # fmt: skip
HEADLINE = 7
#: figures with this prefix are the bars of a histogram (train/health.py), not curves
HISTOGRAM_PREFIX = "drawn_at_"


class EventLog:
    """Appends events to a file and hands them to sinks.

    Args:
        path: events.jsonl; created with its folder if missing, continued if present (a line torn by a crash is cut off).
            None = sinks only.
        sinks: called with every event, in order.

    Raises:
        ElectraError: E-R300 the file cannot be written, E-R830 another process writes it.
    """

    def __init__(self, path: Path | None, sinks: Sequence[Sink] = ()) -> None:
        self.path = path
        self.sinks = tuple(sinks)
        self._file: IO[bytes] | None = None
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("ab+")
                self._lock(path)
                self._cut(lambda event: False)
            except OSError as error:
                raise self._cannot_write(error) from None

    def emit(self, event: str, **fields: object) -> None:
        """Write one event; `fields` may hold numbers, strings, paths, lists and mappings of them, numpy or torch scalars."""
        record: Event = {
            "event": event,
            "time": round(time.time(), 3),
            **{name: _plain(value) for name, value in fields.items()},
        }
        if self._file is not None:
            # a lone surrogate (from a file name) becomes a JSON escape and is read back as it was
            line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8", errors="backslashreplace")
            try:
                self._file.write(line + b"\n")
                self._file.flush()
            except OSError as error:
                raise self._cannot_write(error) from None
        for sink in self.sinks:
            sink(record)

    def sync(self) -> None:
        """What was emitted is on the disk, whatever happens to the machine."""
        if self._file is not None:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                raise self._cannot_write(error) from None

    def truncate_after(self, step: int) -> None:
        """Cut the log before the first event of a step later than `step`."""
        try:
            self._cut(lambda event: event.get("step", 0) > step)
        except OSError as error:
            raise self._cannot_write(error) from None

    def close(self) -> None:
        """What could not be written was told by `emit`, and is not tried again."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _cut(self, unwanted: Callable[[Event], bool]) -> None:
        """Keep the lines before the first unwanted event, and no torn last line: a prefix, so that one truncation does it."""
        if self._file is None:
            return
        self._file.seek(0)
        end = 0
        for line in self._file:
            event = _parse(line)
            if not line.endswith(b"\n") or (event is not None and unwanted(event)):
                break
            end += len(line)
        self._file.seek(0, os.SEEK_END)
        if self._file.tell() > end:
            self._file.truncate(end)
            os.fsync(self._file.fileno())

    def _lock(self, path: Path) -> None:
        """One process writes a log, and so a run; the lock goes with the process. Some network file systems know none."""
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ElectraError("E-R830", str(path.parent), "another process is at work on this run",
                               "wait until it has ended, or end it") from None  # fmt: skip
        except OSError:
            return

    def _cannot_write(self, error: OSError) -> ElectraError:
        cause = f"cannot write the event log: {error.strerror or error}"
        return ElectraError(
            "E-R300", str(self.path), cause, "free disk space or choose another run.dir, then run the command again"
        )


def read_events(path: Path) -> tuple[list[Event], int]:
    """The events of a log, and how many lines were unreadable and skipped (1 after a crash that tore the last line).

    A missing file gives no events.
    """
    if not path.is_file():
        return [], 0
    with path.open("rb") as file:
        parsed = [_parse(line) for line in file]
    events = [event for event in parsed if event is not None]
    return events, len(parsed) - len(events)


def _parse(line: bytes) -> Event | None:
    """The event on a whole line; None for a torn or foreign one."""
    if not line.endswith(b"\n"):
        return None
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _plain(value: object) -> Any:
    """`value` in the types of JSON."""
    if value is None or isinstance(value, bool | str):
        return str(value) if isinstance(value, str) else value  # str() turns string enums into strings
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return (
            float(value) if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        )
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):  # a scalar of numpy or torch, without importing either
        return _plain(value.item())
    raise TypeError(f"an event cannot hold a {type(value).__name__}")


# -- the same words for numbers in console and report ----------------------------------------------------------------------


def number(value: object) -> str:
    """A figure in few digits: 0.02134 -> `0.0213`, 5.1 -> `5.100`, 6050.2 -> `6,050`, 2e-5 -> `2.00e-05`, 3 -> `3`."""
    if isinstance(value, int):
        return f"{value:,}"
    x = float(str(value))
    if not math.isfinite(x):
        return str(x)
    if x != 0 and not 1e-4 <= abs(x) < 1e9:
        return f"{x:.2e}"
    return f"{x:,.{max(0, 4 - len(str(int(abs(x)))))}f}" if abs(x) >= 1 else f"{x:.4f}"


def duration(seconds: object) -> str:
    """A time span in its two largest units: `42 s`, `3 min 05 s`, `2 h 10 min`, `3 d 4 h`."""
    total = float(str(seconds))
    if not math.isfinite(total):
        return "?"
    minutes, rest = divmod(round(total), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def size(count: float) -> str:
    """Bytes in three digits or so: `340 kB`, `1.21 GB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{number(count / factor)[:4].rstrip('.')} {unit}"
    return f"{count:.0f} bytes"


def in_order(figures: Mapping[str, Any]) -> dict[str, Any]:
    """`figures` without histogram bars, the known names first; those of a task stay as they are, the main one first."""
    rank = {} if "collapsed" in figures else {name: index for index, name in enumerate(FIGURES)}
    names = [name for name in figures if not name.startswith(HISTOGRAM_PREFIX)]
    return {name: figures[name] for name in sorted(names, key=lambda name: rank.get(name, len(rank)))}
