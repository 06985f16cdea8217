"""Several runs side by side: one page, and the same in lines for the terminal.

In: run directories, finished or not, of either kind (history.py). Out: how each of them stands, their figures at the end, the
settings in which they differ, and their curves over one another. A run keeps its colour and its stroke in all pictures. Runs
are called by as much of the end of their paths as it takes to tell them apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from electra import config
from electra.evaluate.charts import Chart, line_chart
from electra.evaluate.history import LAST, Run, curve_of, figure_names, read
from electra.evaluate.page import page, picture, table
from electra.evaluate.report import LEVELS, chart_title, told, words, worst
from electra.events import in_order, number

_ABSENT = "–"
_OF_SOME = "Settings that only some of them have"
Runs = Mapping[str, Run]
#: a name, then a cell for each run
Row = tuple[str, ...]
#: a heading and its rows
Table = tuple[str, list[Row]]


def comparison_page(directories: Sequence[Path]) -> str:
    """The runs side by side, as HTML.

    Raises:
        ElectraError: E-M300, no run at one of the paths.
    """
    runs = _read_all(directories)
    head = f'<header><h1>{escape(" · ".join(runs))}</h1><p class="lead">{len(runs)} runs side by side</p></header>'
    pictures = "".join(_pictures(runs))
    curves = f'<section><h2>Curves</h2><div class="grid">{pictures}</div></section>' if pictures else ""
    figures = [_section(name, rows, runs) for name, rows in _figures(runs)]
    settings = [_section(name, rows, runs, folded=name == _OF_SOME) for name, rows in _settings(runs)]
    body = [head, f"<section>{_standing(runs)}</section>", *figures, curves, *settings]
    return page(f"{', '.join(runs)}: comparison", "\n".join(body))


def text_comparison(directories: Sequence[Path]) -> str:
    """The runs side by side, in lines: standing, figures at the end, settings that differ.

    Raises:
        ElectraError: E-M300, no run at one of the paths.
    """
    runs = _read_all(directories)
    lines = [f"{name}: {run.status}" + "".join(f"; {word}" for word in _verdicts(run)) for name, run in runs.items()]
    for heading, rows in (*_figures(runs), *_settings(runs)):
        if heading == _OF_SOME:
            lines += ["", f"{len(rows)} settings that only some of the runs have: see the page"]
        else:
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


def _figures(runs: Runs) -> Iterator[Table]:
    for heading, cells_of in (
        (f"Figures at the end, means over {LAST} log entries at most", _final),
        ("Held-out figures, last evaluation", _held_out),
    ):
        if rows := _rows([cells_of(run) for run in runs.values()]):
            yield heading, rows


def _settings(runs: Runs) -> Iterator[Table]:
    """What differs: settings that all of the runs have, those that only some have, what was probed."""
    rows = sorted(_rows([_leaves(run, "recipe") for run in runs.values()]))
    different = [row for row in rows if len(set(row[1:])) > 1]
    probed = [row for row in _rows([_leaves(run, "resolved") for run in runs.values()]) if len(set(row[1:])) > 1]
    for heading, table_rows in (
        ("Settings that differ", [row for row in different if _ABSENT not in row]),
        (_OF_SOME, [row for row in different if _ABSENT in row]),
        ("What was probed or counted, where it differs", probed),
    ):
        if table_rows:
            yield heading, table_rows


def _section(heading: str, rows: Sequence[Row], runs: Runs, folded: bool = False) -> str:
    cells = table(rows, ("", *runs), kind="side")
    if folded:
        return f"<section><details><summary>{escape(heading)}</summary>{cells}</details></section>"
    return f"<section><h2>{escape(heading)}</h2>{cells}</section>"


def _rows(columns: Sequence[Mapping[str, str]]) -> list[Row]:
    """A row for each name that any column has."""
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, *(column.get(name, _ABSENT) for column in columns)) for name in names]


def _final(run: Run) -> dict[str, str]:
    last = run.last("step")
    counts = {"steps": last["step"], "tokens seen": sum(event.get("tokens", 0) for event in run.named("step"))} if last else {}
    return {words(name): number(value) for name, value in (counts | run.final_figures).items()}


def _held_out(run: Run) -> dict[str, str]:
    return {words(name): number(value) for name, value in in_order(run.last("evaluate").get("figures", {})).items()}


def _leaves(run: Run, part: str) -> dict[str, str]:
    """The values of a part of recipe.json by path; not where the run lies, and not what is there twice."""
    tree: Any = run.recipe.get(part, {}) if isinstance(run.recipe, Mapping) else {}
    leaves = {".".join(keys): config.leaf(tree, keys) for keys in config.leaves(tree)}
    hidden = ("run.dir", "run.fresh") if part == "recipe" else ("encoder.",)
    return {path: _exact(value) for path, value in leaves.items() if not path.startswith(hidden)}


def _exact(value: Any) -> str:
    """A value with all its digits; spans of phases in words."""
    if isinstance(value, str):
        return value
    tables = isinstance(value, list) and any(isinstance(item, Mapping) for item in value)
    return told(value) if tables else json.dumps(value, ensure_ascii=False)


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
