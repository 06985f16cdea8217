"""Several runs side by side: one page, and the same in lines for the terminal.

In: run directories, finished or not, of either kind (history.py). Out: how each of them stands, their figures at the end, the
settings in which they differ, and their curves over one another. A run keeps its colour and its stroke in all pictures. Runs
are called by as much of the end of their paths as it takes to tell them apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from electra import config
from electra.evaluate.charts import Chart, line_chart
from electra.evaluate.history import LAST, Run, curve_of, figure_names, read
from electra.evaluate.page import page, picture, table
from electra.evaluate.report import LEVELS, chart_title, words, worst
from electra.events import in_order, number

_ABSENT = "–"
Runs = Mapping[str, Run]


def comparison_page(directories: Sequence[Path]) -> str:
    """The runs side by side, as HTML.

    Raises:
        ElectraError: E-M300, no run at one of the paths.
    """
    runs = _read_all(directories)
    title = ", ".join(runs)
    body = [f'<header><h1>{escape(" · ".join(runs))}</h1><p class="lead">{len(runs)} runs side by side</p></header>']
    body.append(f"<section>{_standing(runs)}</section>")
    for heading, rows in _tables(runs):
        body.append(f"<section><h2>{escape(heading)}</h2>{table(rows, ('', *runs), kind='side')}</section>")
    if pictures := "".join(_pictures(runs)):
        body.append(f'<section><h2>Curves</h2><div class="grid">{pictures}</div></section>')
    return page(f"{title}: comparison", "\n".join(body))


def text_comparison(directories: Sequence[Path]) -> str:
    """The runs side by side, in lines: standing, figures at the end, settings that differ.

    Raises:
        ElectraError: E-M300, no run at one of the paths.
    """
    runs = _read_all(directories)
    lines = [f"{name}: {run.status}" + "".join(f"; {word}" for word in _verdicts(run)) for name, run in runs.items()]
    for heading, rows in _tables(runs):
        lines += ["", *_columns([(heading.lower(), *runs), *rows])]
    return "\n".join(lines)


def _read_all(directories: Sequence[Path]) -> dict[str, Run]:
    """Each run once, by its name here."""
    distinct = list(dict.fromkeys(directory.resolve() for directory in directories))
    longest = max(len(path.parts) for path in distinct)
    for count in range(1, longest + 1):
        names = ["/".join(path.parts[-count:]) for path in distinct]
        if len(set(names)) == len(names):
            break
    return {name: read(path) for name, path in zip(names, distinct, strict=True)}


def _verdicts(run: Run) -> list[str]:
    now, _ = run.verdicts
    return [f"{event['network']} {event['verdict']}" for event in now]


def _standing(runs: Runs) -> str:
    """A line for each run: its colour of verdict, status, networks."""
    lines = []
    for name, run in runs.items():
        now, _ = run.verdicts
        colour = worst(now) if now else "grey"
        told = "; ".join([f"{run.status}", *_verdicts(run)])
        lines.append(
            f'<p><span class="dot {colour}"></span><b>{escape(name)}</b><span class="reason">{escape(told)}</span></p>'
        )
    return f'<div class="verdict grey">{"".join(lines)}</div>'


# -- tables -------------------------------------------------------------------------------------------------------------


def _tables(runs: Runs) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Heading and rows of each table that has any: a name, then a cell for each run."""
    kinds: tuple[tuple[str, Callable[[Run], Mapping[str, str]], bool], ...] = (
        (f"Figures at the end, means over {LAST} log entries at most", _final, False),
        ("Held-out figures, last evaluation", _held_out, False),
        ("Settings that differ", _settings, True),
        ("What was probed or counted, where it differs", _resolved, True),
    )
    for heading, cells_of, only_different in kinds:
        cells = [cells_of(run) for run in runs.values()]
        names = dict.fromkeys(name for each in cells for name in each)
        rows = [(name, *(each.get(name, _ABSENT) for each in cells)) for name in names]
        rows = [row for row in rows if not only_different or len(set(row[1:])) > 1]
        if rows:
            yield heading, rows


def _final(run: Run) -> dict[str, str]:
    last = run.last("step")
    counts = {"steps": last["step"], "tokens seen": sum(event.get("tokens", 0) for event in run.named("step"))} if last else {}
    return {words(name): number(value) for name, value in (counts | run.final_figures).items()}


def _held_out(run: Run) -> dict[str, str]:
    figures = run.last("evaluate").get("figures", {}) | (run.last("done").get("figures") or {} if run.named("evaluate") else {})
    return {words(name): number(value) for name, value in in_order(figures).items()}


def _settings(run: Run) -> dict[str, str]:
    return {path: told for path, told in _leaves(run, "recipe") if path != "run.dir"}


def _resolved(run: Run) -> dict[str, str]:
    return dict(_leaves(run, "resolved"))


def _leaves(run: Run, part: str) -> Iterator[tuple[str, str]]:
    tree: Any = run.recipe.get(part, {}) if isinstance(run.recipe, Mapping) else {}
    for keys in config.leaves(tree):
        value = config.leaf(tree, keys)
        yield ".".join(keys), value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


# -- pictures -----------------------------------------------------------------------------------------------------------


def _pictures(runs: Runs) -> Iterator[str]:
    """A picture for each figure that any of the runs has, with a curve for each run."""
    for kind, prefix in (("evaluate", "Held-out "), ("step", "")):
        events = {name: run.named(kind) for name, run in runs.items()}
        for figure in figure_names([event for each in events.values() for event in each]):
            title = f"{prefix}{words(figure)}" if prefix else chart_title(figure)
            levels = {} if prefix else LEVELS.get(figure, {})
            yield from _picture(title, runs, kind, ("figures", figure), levels)
    yield from _picture("Tokens per second", runs, "step", ("tokens_per_second",))


def _picture(
    title: str, runs: Runs, kind: str, path: tuple[str, ...], levels: Mapping[str, float] | None = None
) -> Iterator[str]:
    curves = [curve_of(run.named(kind), name, *path, breaks=[step for step, _ in run.phases]) for name, run in runs.items()]
    svg = line_chart(Chart(title=title, curves=curves, levels=levels or {}, markers=kind == "evaluate"))
    if svg:
        yield picture(title, svg)
