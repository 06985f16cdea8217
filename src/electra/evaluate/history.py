"""A run directory as it was logged: what report, comparison and live page are made from.

In: `recipe.json` and `events.jsonl` of a run, finished or not, pre-training or fine-tuning; nothing else is read, no model is
loaded. Out: a `Run`, and the curves of its figures.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra.errors import ElectraError
from electra.evaluate.charts import Curve
from electra.events import Event, duration, in_order, read_events

#: how many of the last step events a "final" figure averages
LAST = 5


@dataclass(frozen=True)
class Run:
    """A run directory as read; `unreadable` lines of its log were skipped."""

    directory: Path
    recipe: Any
    events: list[Event]
    unreadable: int

    def named(self, name: str) -> list[Event]:
        return [event for event in self.events if event["event"] == name]

    def last(self, name: str) -> Event:
        found = self.named(name)
        return found[-1] if found else {}

    @property
    def name(self) -> str:
        return str(self.last("start").get("recipe") or self.directory.resolve().name)

    @property
    def phases(self) -> list[tuple[int, str]]:
        """First step and name of each phase; a resumed run has told some of them twice."""
        return sorted({(int(event["step"]), str(event["name"])) for event in self.named("phase") if "step" in event})

    @property
    def status(self) -> str:
        step = self.last("step").get("step", 0)
        for event in reversed(self.events):
            if event["event"] == "done":
                spent = f" in {duration(event['seconds'])}" if "seconds" in event else ""
                return f"finished after {event.get('step', step):,} steps{spent}"
            if event["event"] == "stop":
                return f"stopped at step {step:,}: {event.get('reason', '')}; the same command resumes it"
            if event["event"] in ("start", "step"):
                return f"at step {step:,}, neither finished nor stopped: running, or interrupted"
        return "not started"

    @property
    def best(self) -> Event:
        """The evaluation of the model that is kept; the last one where none is marked."""
        marked = [event for event in self.named("evaluate") if event.get("best")]
        return marked[-1] if marked else self.last("evaluate")

    @property
    def over(self) -> bool:
        """Nothing more will come, unless it is started anew."""
        return bool(self.events) and self.events[-1]["event"] == "done"

    @property
    def verdicts(self) -> tuple[list[Event], list[Event]]:
        """The last verdict on each network: those trained last, and those of earlier phases."""
        latest = {event["network"]: event for event in self.named("verdict")}
        step = self.last("step")
        trained = {**step.get("lr", {}), **step.get("grad_norm", {})} or latest
        now = [event for network, event in latest.items() if network in trained]
        return now, [event for network, event in latest.items() if network not in trained]

    @property
    def warnings(self) -> Counter[str]:
        """Each distinct warning, first seen first, with how often it came."""
        return Counter(f"{event.get('code') or ''} {event.get('message', '')}".strip() for event in self.named("warning"))

    @property
    def epochs(self) -> dict[str, float]:
        """How often each source was seen, by name."""
        return dict(self.last("step").get("epochs", {}))

    @property
    def final_figures(self) -> dict[str, float]:
        """Means over the last step events of the last phase, non-finite values left out."""
        phase = self.last("step").get("phase")
        steps = [event for event in self.named("step")[-LAST:] if event.get("phase") == phase]
        return {name: finite_mean(curve_of(steps, "", "figures", name).values) for name in figure_names(steps)}


def read(run_dir: Path) -> Run:
    """The run in `run_dir`.

    Raises:
        ElectraError: E-M300, no run at this path.
    """
    recipe_path, events_path = run_dir / "recipe.json", run_dir / "events.jsonl"
    if not recipe_path.is_file() and not events_path.is_file():
        cause = "holds neither recipe.json nor events.jsonl, so it is not a run"
        raise ElectraError("E-M300", str(run_dir), cause, "give the run.dir of a pre-training or fine-tuning run")
    try:
        recipe = json.loads(recipe_path.read_text(encoding="utf-8")) if recipe_path.is_file() else None
    except ValueError:
        recipe = None
    events, unreadable = read_events(events_path)
    return Run(run_dir, recipe, events, unreadable)


def figure_names(events: Sequence[Event]) -> list[str]:
    """The figures that any of the events has, but for histogram bars, in the order of interest."""
    return list(in_order({name: None for event in events for name in event.get("figures", {})}))


def curve_of(events: Sequence[Event], label: str, *path: str, breaks: Sequence[int] = ()) -> Curve:
    """The values at `path` of those events that have one; `breaks` as in `Curve`."""
    steps, values = [], []
    for event in events:
        value: Any = event
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            steps.append(float(event["step"]))
            values.append(plain_float(value))
    return Curve(label=label, steps=steps, values=values, breaks=breaks)


def plain_float(value: Any) -> float:
    """A number of the log; its `NaN` and `Infinity` become gaps."""
    found = float(value)
    return found if math.isfinite(found) else math.nan


def finite_mean(values: Sequence[float]) -> float:
    """The mean of the finite values; nan if there is none."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan
