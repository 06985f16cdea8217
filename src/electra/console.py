"""Consoles: sinks that show the events of a run to a person.

In: events (events.py). Out: on a terminal a panel that is redrawn in place, with progress, figures, loss curves and verdicts;
anywhere else (pipes, log files, dumb terminals) a plain line every few seconds, never a progress bar. Both show verdicts when
they change, and warnings at once.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from electra.events import FIGURES, HEADLINE, Event, duration, in_order, number

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live


#: sources whose epochs are all told
_MOST_SOURCES = 4


class ConsoleSink(Protocol):
    """A console as an event sink; a context manager, because a terminal has to be put back in order."""

    def __call__(self, event: Event) -> None: ...

    def __enter__(self) -> ConsoleSink: ...

    def __exit__(self, *exception: object) -> None: ...


def choose_console(stream: TextIO | None = None, every: float = 10.0) -> ConsoleSink:
    """The live panel on a terminal that can show it, otherwise plain lines (pipes, log files, dumb or non-Unicode terminals).

    Args:
        stream: where to write; None = stdout.
        every: seconds between two plain step lines.
    """
    from rich.console import Console

    stream = stream or sys.stdout
    console = Console(file=stream)  # looks at NO_COLOR, TERM and COLUMNS itself
    capable = stream.isatty() and not console.is_dumb_terminal and console.encoding.startswith("utf")
    return LivePanel(console) if capable else PlainLines(stream, every)


class PlainLines:
    """One line every `every` seconds for steps; every other event that a person wants to know of at once."""

    def __init__(self, stream: TextIO | None = None, every: float = 10.0) -> None:
        self._stream = stream or sys.stdout
        self._every = every
        self._last = -math.inf
        self._verdicts: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        line = self._line(event)
        if line is not None:
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            self._stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            self._stream.flush()

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stream.flush()

    def _line(self, event: Event) -> str | None:
        name = event["event"]
        if name == "step":
            now = time.monotonic()
            if now - self._last < self._every:
                return None
            self._last = now
            return _step_line(event)
        if name == "verdict":
            network, verdict = event["network"], event["verdict"]
            if self._verdicts.get(network) == verdict:
                return None
            self._verdicts[network] = verdict
        return sentence(event)


def _step_line(event: Event) -> str:
    """The headline figures, and those nobody here knows (a task's own)."""
    shown = {name: value for name, value in in_order(event.get("figures", {})).items() if name not in FIGURES[HEADLINE:]}
    figures = "  ".join(f"{name} {number(value)}" for name, value in shown.items())
    share = f" {event['step'] / event['steps']:.0%}" if event.get("steps") else ""
    speed = f"  {number(round(event['tokens_per_second']))} tokens/s" if "tokens_per_second" in event else ""
    eta = f"  eta {duration(event['eta_seconds'])}" if "eta_seconds" in event else ""
    epochs = "".join(f"  {told} {seen}" for told, seen in _epochs(event))
    return f"step {event['step']:,}/{event.get('steps', 0):,}{share}  {figures}{epochs}{speed}{eta}"


def _epochs(event: Event) -> list[tuple[str, str]]:
    """How often each source was seen; of many, the one seen least and the one seen most."""
    epochs = sorted((event.get("epochs") or {}).items(), key=lambda source: float(source[1]))
    shown = epochs if len(epochs) <= _MOST_SOURCES else [epochs[0], epochs[-1]]
    return [(f"epochs {name}", f"{value:.2f}") for name, value in shown]


def sentence(event: Event) -> str | None:
    """What a person wants to read of an event; None where that is nothing."""
    figures = "  ".join(f"{name} {number(value)}" for name, value in in_order(event.get("figures") or {}).items())
    match event["event"]:
        case "start":
            parameters = ", ".join(f"{network} {count:,}" for network, count in (event.get("parameters") or {}).items())
            told = f"; parameters: {parameters}" if parameters else ""
            return f"start {event.get('recipe', '')}: {event.get('steps', 0):,} steps{told}"
        case "phase":
            return f"phase {event['name']} from step {event.get('step', 0):,}"
        case "verdict":
            return f"{event['network']}: {event['verdict']} ({event['reason']})"
        case "evaluate":
            return f"evaluated at step {event.get('step', 0):,}  {figures}" + "  (the best so far)" * bool(event.get("best"))
        case "settled":
            return f"ends at step {event['step']:,}: nothing better in {event['evaluations']} evaluations"
        case "run":
            return (
                f"run {event['name']} (seed {event['seed']}, rate {event['lr']:g}): best at step {event['step']:,}  {figures}"
            )
        case "summary":
            return "\n".join(summary_lines(event))
        case "warning":
            return f"warning {event.get('code') or ''}".rstrip() + f": {event['message']}"
        case "note":
            return str(event["message"])
        case "stop":
            return f"stopped: {event['reason']}"
        case "done":
            spent = f" in {duration(event['seconds'])}" if "seconds" in event else ""
            kept = f"; the model is that of {model_kept(event['best'])}" if event.get("best") else ""
            return f"done: {event.get('step', 0):,} steps{spent}{kept}  {figures}".rstrip()
    return None


def model_kept(best: Mapping[str, Any]) -> str:
    """Which one: the step, and the run if there were several."""
    return f"{best['run']}, step {best['step']:,}" if "run" in best else f"step {best['step']:,}"


def summary_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Several runs of one recipe: each by the main metric, then median and spread over the seeds."""
    metric, counted = summary["metric"], summary["counted"]
    for run in summary["runs"]:
        marks = ["collapsed"] * run["collapsed"] + ["kept"] * (run["name"] == summary["model"])
        told = f" ({', '.join(marks)})" if marks else ""
        yield f"{run['name']}: seed {run['seed']}, rate {run['lr']:g}: {metric} {number(run['figures'][metric])}{told}"
    over = summary["spread"][metric]
    yield (f"{metric} over {len(counted)} seed{'s' * (len(counted) > 1)}: median {number(over['median'])}, "
           f"{number(over['minimum'])} to {number(over['maximum'])}, s.d. {number(over['deviation'])}")  # fmt: skip


@dataclass
class _Seen:
    """What the panel knows of the run so far."""

    start: Event = field(default_factory=dict)
    phase: str = ""
    step: Event = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    verdicts: dict[str, Event] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def take(self, event: Event) -> None:
        match event["event"]:
            case "start":  # of another run of the same recipe, perhaps
                self.start, self.phase, self.step = event, "", {}
                self.losses.clear()
                self.verdicts.clear()
            case "phase":
                self.phase = event["name"]
                self.losses.clear()
                self.verdicts.clear()  # of networks that may no longer be trained
            case "verdict":
                self.verdicts[event["network"]] = event
            case "step":
                self.step = event
                for name, value in event.get("figures", {}).items():
                    if name.endswith("loss"):
                        values = self.losses.setdefault(name, [])
                        values.append(float(value))
                        if len(values) > 2048:  # a curve needs no more points
                            del values[::2]
            case "warning" | "note" | "evaluate" | "settled" | "run" | "summary" | "stop" | "done":
                note = (sentence(event) or "").encode(errors="backslashreplace").decode()  # lone surrogates of file names
                self.notes = [*self.notes, note][-4:]


class LivePanel:
    """A panel redrawn in place: progress, figures, loss curves, verdicts, last notes. Gives the terminal back on any exit."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen = _Seen()
        self._live: Live | None = None

    def __enter__(self) -> LivePanel:
        from rich.live import Live

        self._live = Live(self.render(), console=self._console, refresh_per_second=4)
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, event: Event) -> None:
        self._seen.take(event)
        if self._live is not None:
            self._live.update(self.render())

    def render(self) -> RenderableType:
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text

        seen = self._seen
        parts: list[RenderableType] = [self._progress(), Text(), self._figures()]
        if seen.verdicts:
            parts += [Text(), self._verdicts()]
        parts += [Text(f"· {note}", style="yellow" if note.startswith("warning") else "dim") for note in seen.notes]
        title = Text.assemble("electra ", (str(seen.start.get("recipe", "")), "bold"))
        return Panel(Group(*parts), title=title, title_align="left", border_style="dim", width=min(self._console.width, 100))

    def _progress(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        step, steps = self._seen.step.get("step", 0), self._seen.step.get("steps") or self._seen.start.get("steps") or 0
        left = f"eta {duration(self._seen.step['eta_seconds'])}" if "eta_seconds" in self._seen.step else ""
        row = Table.grid(padding=(0, 2), expand=True)
        for ratio in (None, 1, None, None):
            row.add_column(ratio=ratio, no_wrap=True)
        row.add_row(
            Text(self._seen.phase or "start"), ProgressBar(total=max(steps, 1), completed=step), f"{step:,}/{steps:,}", left
        )
        return row

    def _figures(self) -> RenderableType:
        from rich.table import Table

        step = self._seen.step
        cells = [
            (name, number(value), sparkline(self._seen.losses.get(name, [])))
            for name, value in in_order(step.get("figures", {})).items()
        ]
        if "tokens_per_second" in step:
            cells.append(("tokens/s", number(round(step["tokens_per_second"])), ""))
        cells += [(told, seen, "") for told, seen in _epochs(step)]
        cells += [(f"lr {network}", f"{float(value):.1e}", "") for network, value in step.get("lr", {}).items()]
        cells += [(f"gradient {network}", number(value), "") for network, value in step.get("grad_norm", {}).items()]
        grid = Table.grid(padding=(0, 2))
        half = (len(cells) + 1) // 2
        for _ in range(2):
            grid.add_column(style="dim", no_wrap=True)
            grid.add_column(justify="right", no_wrap=True)
            grid.add_column(style="cyan", no_wrap=True)
        for index in range(half):
            right = cells[half + index] if half + index < len(cells) else ("", "", "")
            grid.add_row(*cells[index], *right)
        return grid

    def _verdicts(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        for network, event in self._seen.verdicts.items():
            grid.add_row(
                network,
                Text(event["verdict"], style=f"bold {verdict_colour(event['verdict'])}"),
                Text(event["reason"], style="dim"),
            )
        return grid


def verdict_colour(verdict: str) -> str:
    """green = healthy, yellow = too early to say, red = a fault."""
    return {"healthy": "green", "warming up": "yellow", "learning": "yellow"}.get(verdict, "red")


def sparkline(values: Sequence[float], width: int = 20) -> str:
    """The course of `values` in `width` characters at most, from their minimum (low bar) to their maximum."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    count = min(width, len(finite))
    edges = [index * len(finite) // count for index in range(count + 1)]
    means = [sum(finite[low:high]) / (high - low) for low, high in itertools.pairwise(edges)]
    low, span = min(means), max(means) - min(means) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[round((mean - low) / span * 7)] for mean in means)
