"""An examination as HTML: figures with intervals, labels, confusion, calibration, lengths, and the worst errors.

In: what `Examination.to_json` gave. Out: sections for a page, which also stand in the report of a fine-tuning run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from electra.evaluate.charts import matrix_chart, reliability_chart, step_chart
from electra.evaluate.page import page, picture, table
from electra.events import in_order, number

#: a confusion matrix with more labels than this shows the commonest
_MOST_LABELS = 20
#: characters of a text around what is marked in it
_AROUND = 120


def examination_page(title: str, found: Mapping[str, Any]) -> str:
    """The whole page."""
    lead = f"{found['examples']:,} examples."
    header = f'<header><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p></header>'
    return page(title, header + sections(found))


def sections(found: Mapping[str, Any]) -> str:
    """The sections of an examination."""
    parts = (_notes(found), _figures(found), _pictures(found), _classes(found), _errors(found))
    return "\n".join(part for part in parts if part)


def _notes(found: Mapping[str, Any]) -> str:
    items = [*found.get("warnings", []), *found.get("notes", [])]
    return f"<section><ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul></section>" if items else ""


def _figures(found: Mapping[str, Any]) -> str:
    rows = []
    for name, value in in_order(found["metrics"]).items():
        low_high = found["intervals"].get(name)
        between = f"{number(low_high[0])} to {number(low_high[1])}" if low_high else ""
        rows.append((name.replace("_", " "), number(value), between))
    if "ece" in found["calibration"]:
        rows.append(("expected calibration error", number(found["calibration"]["ece"]), ""))
    return f"<section><h2>Figures</h2>{table(rows, head=('', 'value', '95 % interval (resampled examples)'))}</section>"


def _pictures(found: Mapping[str, Any]) -> str:
    drawn = []
    labels, counts = found["labels"], found["confusion"]
    if labels and any(map(any, counts)):
        kept = sorted(range(len(labels)), key=lambda place: -sum(counts[place]))[:_MOST_LABELS]
        kept.sort()
        names = [labels[place] or "(nothing)" for place in kept]
        title = "Confusion: gold (rows) and predicted (columns)"
        title += f", the {len(kept)} commonest labels" if len(kept) < len(labels) else ""
        drawn.append(picture(title, matrix_chart(title, names, [[counts[i][j] for j in kept] for i in kept])))
    if found["calibration"]:
        bins = found["calibration"]["bins"]
        drawn.append(picture("Reliability: how often a probability is right", reliability_chart("Reliability", bins)))
    if found["lengths"]:
        main = next(iter(found["metrics"])).replace("_", " ")
        bars = [(f"{part['from']} to {part['to']}", part["score"]) for part in found["lengths"]]
        drawn.append(picture(f"{main.capitalize()} by characters of text", step_chart("By length", bars)))
    return f'<section><h2>Where it errs</h2><div class="grid">{"".join(drawn)}</div></section>' if drawn else ""


def _classes(found: Mapping[str, Any]) -> str:
    rows = [
        (entry["label"], *(number(entry[name]) for name in ("precision", "recall", "f1")), f"{entry['support']:,}")
        for entry in found["classes"]
    ]
    head = ("label", "precision", "recall", "F1", "gold")
    return f"<section><h2>Labels</h2>{table(rows, head=head, kind='side')}</section>" if rows else ""


def _errors(found: Mapping[str, Any]) -> str:
    """The worst errors: what was said instead of what, with its probability, and the text with its marks."""
    rows = []
    for error in found["errors"]:
        said = "<br>".join(
            f"{escape(wrong['gold'] or '(nothing)')} → {escape(wrong['predicted'] or '(nothing)')} ({wrong['score']:.2f})"
            for wrong in error["wrong"][:4]
        ) or escape(", ".join(f"{name} {number(value)}" for name, value in error["values"].items()))
        text, pair = ([mark for mark in error["marks"] if mark["within"] == part] for part in ("text", "pair"))
        texts = marked(error["text"], text)
        texts += f"<br><small>{marked(error['pair'], pair)}</small>" if error["pair"] else ""
        rows.append(f"<tr><th>{escape(error['where'].rpartition('/')[2])}</th><td>{said}</td><td>{texts}</td></tr>")
    if not rows:
        return ""
    head = "<thead><tr><th>where</th><th>gold → predicted (probability)</th><th>text</th></tr></thead>"
    legend = 'Marks: <mark class="gold">gold</mark> <mark class="predicted">predicted</mark> <mark class="given">given</mark>'
    body = f"<table>{head}<tbody>{''.join(rows)}</tbody></table>"
    lead = f"<p>The surest ones, or those that are furthest off, first. {legend}</p>"
    return f'<section class="errors"><h2>Worst errors</h2>{lead}{body}</section>'


def marked(text: str, marks: Sequence[Mapping[str, Any]]) -> str:
    """`text` as HTML with its marks, shortened to what is around them; marks may overlap."""
    if not marks:
        return escape(_short(text))
    begin = max(0, min(mark["start"] for mark in marks) - _AROUND)
    end = min(len(text), max(mark["end"] for mark in marks) + _AROUND)
    borders = sorted({begin, end, *(place for mark in marks for place in (mark["start"], mark["end"]))})
    parts = ["…" if begin else ""]
    for left, right in pairwise(borders):
        over = [mark for mark in marks if mark["start"] <= left and right <= mark["end"]]
        sides = " ".join(dict.fromkeys(str(mark["side"]) for mark in over))
        told = ", ".join(dict.fromkeys(f"{mark['side']}: {mark['label']}" for mark in over))
        piece = escape(text[left:right])
        parts.append(f'<mark class="{escape(sides)}" title="{escape(told)}">{piece}</mark>' if over else piece)
    return "".join(parts) + ("…" if end < len(text) else "")


def _short(text: str) -> str:
    return text if len(text) <= 3 * _AROUND else text[: 3 * _AROUND] + "…"
