"""Curves and bars as inline SVG for a page that opens offline.

In: series of (step, value). Out: one `<svg>` element, drawn by matplotlib without its global state, text kept as text (so that
it is searchable and small), ids made unique to the picture. Non-finite values leave gaps; long series are averaged down to a
few hundred points, noisy ones get a running mean over a pale raw line; a curve is broken where a new phase begins. Curves
differ in colour and in stroke, so that a grey print tells them apart. matplotlib is loaded by the first picture, so
that no run waits for it before it begins.
"""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: colour-blind safe (after Okabe and Ito), dark enough for white paper
COLOURS = ("#0072b2", "#d55e00", "#008060", "#222222", "#b0588a", "#9a6b00")
#: strokes, four to the six colours: the first twelve curves differ in both
STROKES: tuple[Any, ...] = ("solid", (0, (4, 1.3)), (0, (1, 1)), (0, (5, 1.3, 1, 1.3)))
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar in a name is a dollar
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#ececec",
    "xtick.color": "#666666",
    "ytick.color": "#666666",
    "legend.frameon": False,
}
_MOST_POINTS = 400
_SMOOTH_FROM = 40
_LONGEST_LABEL = 24

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line: `values` at `steps`, both of one length; not drawn across the steps in `breaks`."""

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    breaks: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One picture.

    Args:
        title: what is drawn.
        curves: the lines; those without a finite value are left out.
        levels: horizontal lines by label, for example a threshold.
        logarithmic: the vertical axis, where all values are positive.
        markers: few points, each drawn.
    """

    title: str
    curves: Sequence[Curve]
    levels: Mapping[str, float] = field(default_factory=dict)
    logarithmic: bool = False
    markers: bool = False


def line_chart(chart: Chart, boundaries: Sequence[tuple[int, str]] = ()) -> str:
    """The chart as `<svg>`; `boundaries` are the steps at which phases begin, with their names. "" if there is no point."""
    from matplotlib.ticker import EngFormatter, FormatStrFormatter, LogLocator, MaxNLocator, NullLocator

    looks = zip(itertools.cycle(COLOURS), itertools.cycle(STROKES), strict=False)  # of all: a run looks the same everywhere
    drawn = [(curve, look) for curve, look in zip(chart.curves, looks, strict=False)
             if np.isfinite(np.asarray(curve.values, dtype=float)).any()]  # fmt: skip
    if not drawn:
        return ""
    with _styled():
        figure, axes = _axes()
        cuts = [step for step, _ in boundaries]
        for curve, look in drawn:
            _draw(axes, curve, look, curve.breaks or cuts, chart.markers)
        for label, level in chart.levels.items():
            axes.axhline(level, color="#555555", linewidth=0.8, linestyle=(0, (4, 3)))
            side = "top" if level == min(chart.levels.values()) else "bottom"  # two that are close keep their names apart
            axes.annotate(label, (0.01, level), xycoords=("axes fraction", "data"), va=side, color="#555555")
        if chart.logarithmic and all(min(curve.values) > 0 for curve, _ in drawn):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
            axes.yaxis.set_minor_locator(NullLocator())
        _mark_phases(axes, boundaries)
        if len(chart.curves) > 1:
            axes.legend(loc="best", handlelength=2.4)
        axes.margins(x=0.01, y=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel("step", color="#666666", loc="right", labelpad=0)
        return _svg(figure, chart.title)


def bar_chart(title: str, bars: Sequence[float], level: float) -> str:
    """`bars` side by side over equal parts of [0, 1], nan for a missing one, with a horizontal line at `level`."""
    with _styled():
        figure, axes = _axes()
        width = 1 / len(bars)
        heights = np.nan_to_num(np.asarray(bars, dtype=float))
        axes.bar((np.arange(len(bars)) + 0.5) * width, heights, width * 0.86, color=COLOURS[0])
        axes.axhline(level, color="#555555", linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.5, 1], ["start of row", "middle", "end"])
        return _svg(figure, title)


def matrix_chart(title: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Counts [row][column] as shaded fields, darker for a greater share of the row; few labels show the counts.

    Labels are shown in one line of `_LONGEST_LABEL` characters at most, without lone surrogates, which no font knows.
    """
    from matplotlib.figure import Figure

    labels = [" ".join(label.encode("utf-8", "replace").decode().split()) for label in labels]
    labels = [label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…" for label in labels]
    with _styled({"axes.grid": False}):
        side = 2.0 + 0.22 * len(labels)
        figure = Figure(figsize=(max(4.6, side), max(2.6, side * 0.8)))
        axes = figure.add_subplot()
        table = np.asarray(counts, dtype=float)
        shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        axes.pcolormesh(shares[::-1], cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=0.5)  # fields stay vector
        places = np.arange(len(labels)) + 0.5
        axes.set_xticks(places, labels, rotation=60 if len(labels) > 4 else 0, ha="right" if len(labels) > 4 else "center")
        axes.set_yticks(places[::-1], labels)
        axes.tick_params(length=0)
        for row, column in itertools.product(range(len(labels)), repeat=2) if len(labels) <= 12 else ():
            if counts[row][column]:
                colour = "white" if shares[row, column] > 0.6 else "#222222"
                axes.text(places[column], places[len(labels) - 1 - row], f"{counts[row][column]:,}", ha="center",
                          va="center", color=colour, fontsize=8)  # fmt: skip
        return _svg(figure, title)


def reliability_chart(title: str, bins: Sequence[Mapping[str, float]]) -> str:
    """Accuracy over confidence, a point for each of `bins` (`confidence`, `accuracy`, `units`), its size by the units."""
    with _styled():
        figure, axes = _axes()
        confidence, accuracy, units = (np.array([b[name] for b in bins]) for name in ("confidence", "accuracy", "units"))
        axes.plot([0, 1], [0, 1], color="#555555", linewidth=0.8, linestyle=(0, (4, 3)))
        axes.plot(confidence, accuracy, color=COLOURS[0], linewidth=1.0)
        axes.scatter(confidence, accuracy, s=12 + 120 * units / units.sum(), color=COLOURS[0], clip_on=False)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("probability that was given", color="#666666")
        axes.set_ylabel("share that was right", color="#666666")
        return _svg(figure, title)


def step_chart(title: str, bars: Sequence[tuple[str, float]]) -> str:
    """Named bars side by side."""
    with _styled():
        figure, axes = _axes()
        axes.bar(range(len(bars)), [height for _, height in bars], 0.7, color=COLOURS[0])
        axes.set_xticks(range(len(bars)), [name for name, _ in bars])
        for place, (_, height) in enumerate(bars):
            axes.annotate(f"{height:.3g}", (place, height), ha="center", va="bottom", fontsize=8, color="#444444")
        axes.margins(y=0.15)
        return _svg(figure, title)


def _styled(more: Any = None) -> AbstractContextManager[None]:
    import matplotlib

    return matplotlib.rc_context({**_STYLE, **(more or {})})


def _axes() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    # small on purpose: at one column on a phone the letters keep their size
    figure = Figure(figsize=(4.6, 2.3))
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    axes.tick_params(length=2)
    return figure, axes


def _draw(axes: Axes, curve: Curve, look: tuple[str, Any], cuts: Sequence[int], markers: bool) -> None:
    colour, stroke = look
    steps, values = np.asarray(curve.steps, dtype=float), np.asarray(curve.values, dtype=float)
    label: str | None = curve.label
    edges = [0, *np.searchsorted(steps, cuts, side="right"), len(steps)]
    for start, stop in itertools.pairwise(edges):
        if stop <= start:
            continue
        x, y = _thin(steps[start:stop]), _thin(values[start:stop])
        if len(x) >= _SMOOTH_FROM and not markers:
            axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.25)
            y = _running_mean(y, max(3, len(y) // 25))
        marker = "o" if markers or len(x) < 3 else None
        axes.plot(x, y, color=colour, linestyle=stroke, linewidth=1.5, label=label, marker=marker, markersize=3)
        label = None  # one entry in the legend


def _thin(values: Floats) -> Floats:
    """Means over equal stretches, so that a long run draws in a few hundred points."""
    if len(values) <= _MOST_POINTS:
        return values
    return np.array([part.mean() for part in np.array_split(values, _MOST_POINTS)])


def _running_mean(values: Floats, width: int) -> Floats:
    """Centred mean over `width` neighbours, fewer at the ends; a gap stays a gap."""
    known = np.isfinite(values)
    window = np.ones(width)
    sums = np.convolve(np.where(known, values, 0.0), window, mode="same")
    counts = np.convolve(known.astype(float), window, mode="same")
    return np.where(known, sums / np.maximum(counts, 1), np.nan)


def _mark_phases(axes: Axes, boundaries: Sequence[tuple[int, str]]) -> None:
    if len(boundaries) < 2:
        return
    for step, name in boundaries:
        axes.axvline(step, color="#bbbbbb", linewidth=0.8, linestyle=":")
        axes.annotate(name, (step, 1), xycoords=("data", "axes fraction"), xytext=(2, 0), textcoords="offset points",
                      va="bottom", color="#888888")  # fmt: skip


def _svg(figure: Figure, title: str) -> str:
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the reader's browser has the font, not matplotlib
        ConstrainedLayoutEngine().execute(figure)  # a figure's own engine measures all of it twice
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    name = re.sub(r"\W+", "-", title.lower())
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"\bDejaVu Sans\b", "system-ui", text)
    head, rest = text.split(">", 1)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(title)}">{rest}'
