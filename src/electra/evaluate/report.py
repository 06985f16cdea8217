"""A run directory -> report.html, and the same in a few lines for the terminal.

In: `recipe.json`, `events.jsonl` and `evaluation.json` of a run, finished or not, pre-training or fine-tuning; no model is
loaded. Out: one HTML file without references to anything outside it (page.py, charts.py), which also prints. Every text that
comes from the run is escaped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from electra.console import model_kept
from electra.evaluate.charts import Chart, Curve, bar_chart, line_chart
from electra.evaluate.examination_page import sections
from electra.evaluate.history import LAST, Run, curve_of, figure_names, finite_mean, read
from electra.evaluate.page import page, picture, table, write_page
from electra.evaluate.several import lines_of_runs, section_of_runs
from electra.events import HISTOGRAM_PREFIX, Event, in_order, number
from electra.metrics import entropy
from electra.train.health import POSITION_BINS
from electra.train.verdicts import GOOD_AUC, HEALTHY_AUC, HEALTHY_GAIN, State

#: what `electra finetune` leaves beside the event log: the examination of its model on the development data
EVALUATION = "evaluation.json"
_MEANING = {
    "loss": "training loss, mean over the batch",
    "mlm_loss": "cross entropy of the masked language model at drawn positions, nats",
    "mlm_accuracy": "drawn positions where its most likely token is the original",
    "rtd_loss": "replaced-token detection, mean over real tokens, nats",
    "nce_loss": "noise-contrastive estimation of the energies, mean over candidates, nats",
    "prior_gain": f"what the discriminator knows beyond the share of replaced tokens, nats; healthy from {HEALTHY_GAIN}",
    "auc": f"a replaced token scores above an original one; healthy from {HEALTHY_AUC:.2f}, good from {GOOD_AUC:.2f}",
    "average_precision": "area under precision and recall; chance is the replaced share",
    "recall": "replaced tokens found at probability .5",
    "precision": "found tokens that were replaced, at probability .5",
    "replaced_share": "tokens that the generator changed",
    "token_rms": "how much the hidden states of a row differ; near 0 = collapsed",
    "generator_entropy": "how unsure the generator is, nats per drawn position; collapsed where it is far below its loss",
    "reward": "adversarial: cross entropy of the discriminator at drawn positions, nats",
    "fake_loss": "the discriminator's loss on texts and fakes together, nats",
    "fakes_found": "fakes of the generator that the discriminator takes for fakes",
    "texts_kept": "texts that it does not take for fakes",
    "generator_loss": "how well fakes are found, and how far their features lie from those of texts; or minus the reward",
    "feature_distance": "squared distance between the mean features of texts and of fakes",
    "position_uniformity": "least drawn sixteenth of the row, relative to uniform drawing",
}
_TITLE = {
    "mlm_loss": "Masked language model: loss",
    "mlm_accuracy": "Masked language model: accuracy",
    "rtd_loss": "Discriminator: loss",
    "nce_loss": "Energies: loss",
    "prior_gain": "Discriminator: prior gain",
    "auc": "Discriminator: ROC-AUC",
    "average_precision": "Discriminator: average precision",
    "token_rms": "Discriminator: token RMS",
    "generator_entropy": "Generator: entropy",
    "reward": "Generator: reward",
}
LEVELS = {
    "prior_gain": {"healthy": HEALTHY_GAIN, "collapsed": 0.0},
    "auc": {"healthy": HEALTHY_AUC, "good": GOOD_AUC},
}
_TOGETHER = {
    "average_precision": ("Discriminator: precision and recall", ("average_precision", "recall", "precision")),
    "fakes_found": ("Discriminator: fakes that are found, texts that pass", ("fakes_found", "texts_kept")),
}


def write_report(run_dir: Path) -> Path:
    """Write `run_dir/report.html` and return its path.

    Raises:
        ElectraError: E-M300, no run at this path.
    """
    return write_page(report_page(run_dir), run_dir / "report.html")


def report_page(run_dir: Path) -> str:
    """The report as HTML.

    Raises:
        ElectraError: E-M300, no run at this path.
    """
    run = read(run_dir)
    sections = (
        _header, _banner, _warnings, _what_was_run, section_of_runs, _evaluations, _examination, _curves, _figures, _recipe,
    )  # fmt: skip
    return page(f"{run.name}: report", "\n".join(text for section in sections if (text := section(run))))


def text_summary(run_dir: Path) -> str:
    """What the report says, in lines for a terminal.

    Raises:
        ElectraError: E-M300, no run at this path.
    """
    run = read(run_dir)
    lines = [f"{run.name}: {run.status}"]
    now, earlier = run.verdicts
    lines += [f"  {event['network']}: {event['verdict']} ({event['reason']})" for event in now]
    lines += [f"  {event['network']} (earlier phase): {event['verdict']} ({event['reason']})" for event in earlier]
    if figures := run.final_figures:
        lines.append("  " + "  ".join(f"{name} {number(value)}" for name, value in figures.items()))
    if run.epochs:
        lines.append("  epochs " + ", ".join(f"{name} {number(value)}" for name, value in run.epochs.items()))
    if evaluated := run.last("evaluate"):
        lines.append(f"  evaluated at {_evaluation(evaluated)}")
        if run.best is not evaluated:
            lines.append(f"  the model is that of {_evaluation(run.best)}")
    lines += [f"  {line}" for line in lines_of_runs(run)]
    lines += [f"  warning {text}" + (f" ({count} times)" if count > 1 else "") for text, count in run.warnings.items()]
    return "\n".join(lines)


def _evaluation(event: Event) -> str:
    shown = "  ".join(f"{name} {number(value)}" for name, value in in_order(event.get("figures", {})).items())
    return f"step {event.get('step', 0):,}: {shown}"


# -- sections -----------------------------------------------------------------------------------------------------------


def _header(run: Run) -> str:
    times = [event["time"] for event in run.events if isinstance(event.get("time"), int | float)]
    when = f"{datetime.fromtimestamp(times[0], UTC):%Y-%m-%d %H:%M} UTC · " if times else ""
    return f'<header><h1>{escape(run.name)}</h1><p class="lead">{when}{escape(run.status)}.</p></header>'


def _banner(run: Run) -> str:
    now, earlier = run.verdicts
    if not now and not earlier:
        return '<section class="verdict grey"><p>No verdict yet.</p></section>'
    rows = []
    for event in [*now, *earlier]:
        network, verdict, reason = (escape(str(event[name])) for name in ("network", "verdict", "reason"))
        reason += " (earlier phase)" if event in earlier else ""
        head = f'<span class="dot {worst([event])}"></span><b>{network}: {verdict}</b>'
        rows.append(f'<p>{head}<span class="reason">{reason}</span></p>')
    return f'<section class="verdict {worst(now or earlier)}">{"".join(rows)}</section>'


def worst(verdicts: Sequence[Event]) -> str:
    """green = all healthy, red = a fault, amber = too early to say."""
    states = {event["verdict"] for event in verdicts}
    if states == {State.HEALTHY}:
        return "green"
    return "amber" if states <= {State.HEALTHY, State.WARMING_UP, State.LEARNING} else "red"


def _warnings(run: Run) -> str:
    items = [escape(text) + (f" <b>({count} times)</b>" if count > 1 else "") for text, count in run.warnings.items()]
    if run.unreadable:
        items.append(f"{run.unreadable} unreadable line(s) of events.jsonl were skipped (a crash tears the last one)")
    if run.recipe is None:
        items.append("recipe.json is missing or unreadable")
    return f"<section><h2>Warnings</h2><ul><li>{'</li><li>'.join(items)}</li></ul></section>" if items else ""


def _what_was_run(run: Run) -> str:
    rows = [(words(name), told(value)) for name, value in run.last("start").items() if name not in ("event", "time")]
    if tokens := sum(event.get("tokens", 0) for event in run.named("step")):
        rows.append(("tokens seen", number(tokens)))
    if len(run.named("start")) > 1:
        rows.append(("resumed", f"{len(run.named('start')) - 1} time(s)"))
    if model := run.last("done").get("model"):
        best = run.last("done").get("best")
        kept = f", of {model_kept(best)}, the best by {words(next(iter(best['figures'])))}" if best else ""
        rows.append(("model", f"{model}{kept}"))
    return f"<section><h2>What was run</h2>{table(rows)}</section>" if rows else ""


def told(value: Any) -> str:
    """A value of the log or the recipe in words."""
    if isinstance(value, Mapping):
        return " · ".join(f"{'' if name == 'name' else words(str(name)) + ' '}{told(item)}" for name, item in value.items())
    if isinstance(value, list):
        return "; ".join(told(item) for item in value)
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def words(name: str) -> str:
    """A name as a reader would write it."""
    return name.replace("_", " ")


def _figures(run: Run) -> str:
    rows = [(words(name), number(value), _MEANING.get(name, "")) for name, value in run.final_figures.items()]
    rows += [(f"epochs of {name}", number(value), "how often its rows were seen") for name, value in run.epochs.items()]
    if not rows and run.named("run"):
        return ""  # each run has a report of its own
    if not rows:
        return "<section><p>No steps were logged yet; figures and curves appear here after the first ones.</p></section>"
    return f"<section><h2>Last figures</h2><p>Means over the last log entries, {LAST} at most.</p>{table(rows)}</section>"


def _evaluations(run: Run) -> str:
    """Figures of held-out data: the last, the range, the course; then the figures of the end."""
    events = run.named("evaluate")
    rows, charts = [], []
    for name in figure_names(events):
        curve = curve_of(events, words(name), "figures", name)
        finite = [value for value in curve.values if math.isfinite(value)] or [math.nan]
        rows.append((words(name), number(curve.values[-1]), f"{number(min(finite))} to {number(max(finite))}"))
        if len(curve.values) > 1:
            charts.append(Chart(title=f"Held-out {words(name)}", curves=[curve], markers=True))
    final = [(words(name), number(value)) for name, value in in_order(run.last("done").get("figures") or {}).items()]
    parts = f"<h2>Evaluation</h2>{table(rows, head=('', 'last', 'range'))}{_grid(charts, run)}" if rows else ""
    parts += f"<h2>At the end</h2>{table(final)}" if final else ""
    return f"<section>{parts}</section>" if parts else ""


def _examination(run: Run) -> str:
    """What the model is like on its development data, in a fine-tuning run that has finished."""
    file = run.directory / EVALUATION
    if not file.is_file():
        return ""
    return f"<h2>On the development data</h2>{sections(json.loads(file.read_text(encoding='utf-8')))}"


def _curves(run: Run) -> str:
    steps = run.named("step")
    names = figure_names(steps)
    charts: list[Chart] = []
    for name in names:
        if any(name in group[1:] and group[0] in names for _, group in _TOGETHER.values()):
            continue  # drawn with it
        title, group = _TOGETHER.get(name, (chart_title(name), (name,)))
        curves = [curve_of(steps, words(other), "figures", other) for other in group if other in names]
        if name in ("rtd_loss", "nce_loss") and "replaced_share" in names:
            curves.append(_prior(curve_of(steps, "", "figures", "replaced_share")))
        charts.append(Chart(title=title, curves=curves, levels=LEVELS.get(name, {})))
    for title, key, logarithmic in (("Gradient norm", "grad_norm", True), ("Learning rate", "lr", False)):
        networks = dict.fromkeys(network for event in steps for network in event.get(key, {}))
        curves = [curve_of(steps, network, key, network) for network in networks]
        charts.append(Chart(title=title, curves=curves, logarithmic=logarithmic))
    charts.append(Chart(title="Tokens per second", curves=[curve_of(steps, "tokens/s", "tokens_per_second")]))
    pictures = _grid(charts, run, _drawn_positions(steps))
    return f"<section><h2>Curves</h2>{pictures}</section>" if pictures else ""


def chart_title(name: str) -> str:
    """The title of a figure's picture."""
    return _TITLE.get(name, words(name).capitalize())


def _drawn_positions(steps: Sequence[Event]) -> str:
    """The histogram of drawn positions over the whole run."""
    curves = [curve_of(steps, "", "figures", f"{HISTOGRAM_PREFIX}{index:02}") for index in range(POSITION_BINS)]
    bars = [finite_mean(curve.values) for curve in curves]
    if all(math.isnan(bar) for bar in bars):
        return ""
    return picture("Drawn positions, relative to uniform drawing", bar_chart("Drawn positions", bars, 1.0))


def _recipe(run: Run) -> str:
    if run.recipe is None:
        return ""
    text = escape(json.dumps(run.recipe, indent=2, ensure_ascii=False))
    return f"<section><details><summary>The whole recipe, resolved</summary><pre>{text}</pre></details></section>"


def _grid(charts: Sequence[Chart], run: Run, *more: str) -> str:
    drawn = [picture(chart.title, svg) for chart in charts if (svg := line_chart(chart, run.phases))]
    drawn += [text for text in more if text]
    return f'<div class="grid">{"".join(drawn)}</div>' if drawn else ""


def _prior(share: Curve) -> Curve:
    """The loss of a discriminator that knows only the share of replaced tokens."""
    values = [entropy([value, 1 - value]) if math.isfinite(value) else math.nan for value in share.values]
    return Curve(label="knowing only the replaced share", steps=share.steps, values=values)
