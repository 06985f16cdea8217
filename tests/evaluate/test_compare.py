"""Runs side by side: what differs is told, what is equal is not, and every run keeps its name and its look."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from electra.errors import ElectraError
from electra.evaluate.charts import STROKES, Chart, Curve, line_chart
from electra.evaluate.compare import comparison_page, text_comparison
from electra.events import EventLog

RECIPE: dict[str, Any] = {
    "encoder": {"type": "modern", "hidden_size": 32},
    "optimizer": {"lr": 0.00015, "betas": [0.9, 0.98]},
    "run": {"dir": "a", "seed": 0},
}


def run(directory: Path, lr: float = 0.00015, steps: int = 10, held_out: bool = False, **recipe: Any) -> Path:
    """A finished run whose loss is lr."""
    directory.mkdir(parents=True)
    tree = RECIPE | {"optimizer": RECIPE["optimizer"] | {"lr": lr}, "run": {"dir": str(directory), "seed": 0}} | recipe
    resolved = {"spans": [{"name": "mlm", "first": 0, "steps": steps}], "encoder": {"hidden_size": 32}, "bf16": False}
    (directory / "recipe.json").write_text(json.dumps({"recipe": tree, "resolved": resolved}), encoding="utf-8")
    with EventLog(directory / "events.jsonl") as log:
        log.emit("start", recipe=directory.name, step=0, steps=steps)
        log.emit("phase", name="mlm", step=0, steps=steps)
        for step in range(1, steps + 1):
            log.emit("step", step=step, phase="mlm", figures={"mlm_loss": lr, "own": 1.0}, tokens=100, tokens_per_second=5.0)
        if held_out:
            log.emit("evaluate", step=steps, figures={"accuracy": 0.75})
        log.emit("verdict", step=steps, network="encoder", verdict="healthy", reason="<b>so</b>")
        log.emit("done", step=steps, figures={})
    return directory


def row(text: str, name: str) -> list[str]:
    """The cells behind the name, in the lines of the terminal."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name}  ")]
    return re.split(r"\s{2,}", line.strip())[1:]


def test_figures_and_settings_that_differ_stand_in_a_row_with_all_their_digits(tmp_path: Path) -> None:
    told = text_comparison([run(tmp_path / "a"), run(tmp_path / "b", lr=0.00012, steps=20, held_out=True)])
    for name, steps in (("a", 10), ("b", 20)):
        assert f"{name}: finished after {steps} steps; encoder healthy" in told.splitlines()
    assert row(told, "optimizer.lr") == ["0.00015", "0.00012"]
    assert row(told, "tokens seen") == ["1,000", "2,000"]
    assert row(told, "accuracy") == ["–", "0.7500"]
    assert row(told, "spans") == ["mlm · first 0 · steps 10", "mlm · first 0 · steps 20"]
    for equal in ("optimizer.betas", "encoder.hidden_size", "run.dir", "bf16"):
        assert equal not in told


def test_settings_that_only_some_runs_have_are_counted_in_the_terminal_and_folded_in_the_page(tmp_path: Path) -> None:
    runs = [run(tmp_path / "a"), run(tmp_path / "b", encoder={"type": "classic", "embedding_size": 16})]
    told, html = text_comparison(runs), comparison_page(runs)
    assert row(told, "encoder.type") == ["modern", "classic"]
    assert "2 settings that only some of the runs have" in told
    assert "embedding_size" not in told
    folded = html[html.index("<details>") : html.index("</details>")]
    assert "encoder.embedding_size" in folded
    assert "encoder.type" not in folded


def test_the_page_has_a_picture_for_each_figure_with_a_curve_for_each_run(tmp_path: Path) -> None:
    html = comparison_page([run(tmp_path / name, lr=lr) for name, lr in (("a", 1.0), ("b", 2.0))])
    titles = re.findall(r"<figcaption>([^<]*)</figcaption>", html)
    assert titles == ["Masked language model: loss", "Own", "Tokens per second"]
    (first, *_) = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    texts = [element.text for element in ElementTree.fromstring(first).iter("{http://www.w3.org/2000/svg}text")]
    assert {"a", "b"} <= set(texts)
    assert "<script" not in html
    assert "default-src 'none'" in html


def test_runs_of_one_name_are_told_apart_by_more_of_their_path_and_a_run_given_twice_is_one(tmp_path: Path) -> None:
    runs = [run(tmp_path / "x" / "first"), run(tmp_path / "y" / "first", lr=1.0)]
    told = text_comparison([*runs, runs[0]])
    assert [line.split(":")[0] for line in told.splitlines()[:2]] == ["x/first", "y/first"]
    assert len(row(told, "optimizer.lr")) == 2


def test_names_and_values_are_escaped(tmp_path: Path) -> None:
    html = comparison_page([run(tmp_path / "<i>a"), run(tmp_path / "b", note="<script>")])
    assert "&lt;i&gt;a" in html
    assert "<i>" not in html
    assert "<script>" not in html


def test_a_run_without_steps_or_recipe_stands_beside_the_others(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "recipe.json").write_text("[]", encoding="utf-8")
    runs = [run(tmp_path / "a"), tmp_path / "new"]
    assert "new: not started" in text_comparison(runs)
    assert "not started" in comparison_page(runs)


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ElectraError, match="E-M300"):
        comparison_page([run(tmp_path / "a"), tmp_path])


# -- pictures without colour --------------------------------------------------------------------------------------------


def strokes(svg: str) -> list[tuple[str, str]]:
    """Colour and dashes of each curve."""
    styles = re.findall(r'style="fill: none; ([^"]*)"', svg)
    found = [(re.findall(r"stroke: (#\w+)", style), re.findall(r"stroke-dasharray: ([^;]*)", style)) for style in styles]
    return [(colour[0], dashes[0] if dashes else "") for colour, dashes in found if colour]


def chart(count: int, missing: int = -1) -> Chart:
    values = [[float("nan")] * 3 if number == missing else [1.0, 2.0, float(number)] for number in range(count)]
    return Chart(title="T", curves=[Curve(label=str(n), steps=[1, 2, 3], values=v) for n, v in enumerate(values)])


def test_curves_differ_in_stroke_and_not_in_colour_alone() -> None:
    found = dict.fromkeys(style for style in strokes(line_chart(chart(4))) if style[0] not in ("#999999", "#ececec"))
    assert len({dashes for _, dashes in found}) == len(STROKES) == 4


def test_a_curve_keeps_its_look_where_another_one_has_no_values() -> None:
    with_all, without = (set(strokes(line_chart(chart(3, missing)))) for missing in (-1, 0))
    assert without < with_all


def test_a_curve_is_not_drawn_across_its_breaks() -> None:
    broken = Curve(label="a", steps=[1, 2, 3, 4], values=[1.0, 2.0, 8.0, 9.0], breaks=[0, 2])
    whole = Curve(label="a", steps=[1, 2, 3, 4], values=[1.0, 2.0, 8.0, 9.0])
    count = [line_chart(Chart(title="T", curves=[each])).count('style="fill: none') for each in (broken, whole)]
    assert count[0] == count[1] + 1
