"""Several runs of one recipe in its report: each with its seed, learning rate and figures, median and spread over the seeds.

In: the `summary` event that such a run's log ends with (build/sweep.py). Out: a section of the page, lines for the terminal;
nothing for any other run.
"""

from __future__ import annotations

from electra.console import summary_lines
from electra.evaluate.history import Run
from electra.evaluate.page import table
from electra.events import number


def lines_of_runs(run: Run) -> list[str]:
    """For the terminal."""
    summary = run.last("summary")
    return list(summary_lines(summary)) if summary else []


def section_of_runs(run: Run) -> str:
    """For the page."""
    summary = run.last("summary")
    if not summary:
        return ""
    names = list(summary["runs"][0]["figures"])
    rows = []
    for each in summary["runs"]:
        marks = " (kept)" * (each["name"] == summary["model"]) + " (collapsed)" * each["collapsed"]
        figures = [number(each["figures"][name]) for name in names]
        rows.append((each["name"] + marks, str(each["seed"]), f"{each['lr']:g}", number(each["step"]), *figures))
    head = ("run", "seed", "rate", "step", *(name.replace("_", " ") for name in names))
    spread = [
        (name.replace("_", " "), *(number(over[key]) for key in ("median", "minimum", "maximum", "deviation")))
        for name, over in summary["spread"].items()
    ]
    over = table(spread, head=("", "median", "least", "most", "s.d."))
    counted = ", ".join(summary["counted"])
    return f"<section><h2>Runs</h2>{table(rows, head=head)}<h2>Over the seeds</h2><p>{counted}</p>{over}</section>"
