"""The report is one valid, offline, escaped page for every kind of run, and the summary says the same in lines."""

import json
import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from electra.errors import ElectraError, ExitCode
from electra.evaluate.charts import Chart, Curve, bar_chart, line_chart
from electra.evaluate.report import text_summary, write_report
from electra.events import EventLog

SVG = "{http://www.w3.org/2000/svg}"


class Page(HTMLParser):
    """What a browser would see: tags in balance, ids, references, text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href"):
                self.references.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "br"):
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(run: Path) -> Page:
    source = write_report(run).read_text(encoding="utf-8")
    assert source.startswith("<!DOCTYPE html>")
    page = Page(source)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert all(reference.startswith("#") and reference[1:] in page.ids for reference in page.references)
    assert all(target in page.ids for target in re.findall(r"url\(#([^)]*)\)", source))
    assert "script" not in page.tags
    assert "default-src 'none'" in source
    return page


def pretraining(run: Path, end: bool = True) -> None:
    draw = random.Random(0)
    run.mkdir()
    (run / "recipe.json").write_text(json.dumps({"run": {"seed": 0}, "note": "<b>tags & 文字</b>"}), encoding="utf-8")
    with EventLog(run / "events.jsonl") as log:
        log.emit("start", recipe="tiny", steps=200, phases=[{"name": "mlm", "steps": 80}, {"name": "rtd", "steps": 120}],
                 corpus={"tokens": 5_000_000, "fingerprint": "9f3a"}, parameters={"discriminator": 1_234_567})  # fmt: skip
        for step in range(1, 201):
            rtd = step > 80
            if step in (1, 81):
                log.emit("phase", name="rtd" if rtd else "mlm", step=step - 1, steps=120 if rtd else 80)
            figures = {"mlm_loss": 9 - step / 100, "position_uniformity": 0.9}
            figures |= {f"drawn_at_{index:02}": draw.gauss(1, 0.1) for index in range(16)}
            if rtd:
                figures |= {
                    "rtd_loss": 0.25,
                    "prior_gain": 0.04,
                    "auc": 0.74 if step < 200 else math.nan,
                    "replaced_share": 0.09,
                }
                figures |= {"average_precision": 0.3, "recall": 0.1, "precision": 0.6, "own_figure": 1.0}
            networks = ("generator", "discriminator") if rtd else ("encoder",)
            by_network = {"lr": dict.fromkeys(networks, 1e-3), "grad_norm": dict.fromkeys(networks, 1.5)}
            figures_of = {"phase": "rtd" if rtd else "mlm", "figures": figures}
            log.emit("step", step=step, steps=200, **figures_of, **by_network, tokens=step * 2048, tokens_per_second=2e4,
                     epochs={"wiki": step / 200, "books": step / 50})  # fmt: skip
            if step == 80:
                log.emit("verdict", step=step, network="encoder", verdict="learning", reason="loss 8.20")
        for network in ("generator", "discriminator"):
            log.emit("verdict", step=200, network=network, verdict="healthy", reason="prior gain 0.040 > 0.03")
        for _ in range(2):
            log.emit("warning", code="E-R101", message="<script>alert('文件')</script> \udcff")
        if end:
            log.emit("done", step=200, seconds=61.0, figures={"gain_over_scratch": 4.5}, model="runs/tiny/model")


def test_a_finished_pre_training(tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretraining(run)
    page = read(run)
    for told in (
        "finished after 200 steps in 1 min 01 s", "discriminator: healthy", "prior gain 0.040 > 0.03", "encoder: learning",
        "(earlier phase)", "<script>alert('文件')</script> \\udcff", "(2 times)", "tokens 5,000,000 · fingerprint 9f3a",
        "<b>tags & 文字</b>",
        "discriminator 1,234,567", "mlm · steps 80; rtd · steps 120", "gain over scratch", "runs/tiny/model", "Drawn positions",
        "epochs of wiki1.000", "epochs of books4.000",
    ):  # fmt: skip
        assert told in page.text
    # masked LM, loss and prior, gain, AUC, share, precision and recall, uniformity, its own, gradients, rate, speed, histogram
    assert page.tags.count("svg") == 12
    assert 'class="verdict green"' in (run / "report.html").read_text(encoding="utf-8")
    assert (run / "report.html").stat().st_size < 800_000


def test_the_report_reads_only_and_is_written_over(tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretraining(run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    first = write_report(run).read_bytes()
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.name != "report.html"} == before
    assert len(write_report(run).read_bytes()) == len(first)


@pytest.mark.parametrize(
    ("verdict", "colour"),
    [("healthy", "green"), ("learning", "amber"), ("warming up", "amber"), ("collapsed", "red"), ("not learning", "red")],
)
def test_the_banner_has_the_colour_of_the_worst_network_trained_last(tmp_path: Path, verdict: str, colour: str) -> None:
    run = tmp_path / "run"
    pretraining(run)
    with EventLog(run / "events.jsonl") as log:
        log.emit("verdict", step=200, network="discriminator", verdict=verdict, reason="now")
        log.emit("verdict", step=80, network="encoder", verdict="diverged", reason="but that phase is over")
    assert f'<section class="verdict {colour}">' in write_report(run).read_text(encoding="utf-8")


def test_a_fine_tuning_run(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.jsonl") as log:
        log.emit("start", recipe="finetune", steps=40)
        for step in range(10, 41, 10):
            log.emit(
                "step",
                step=step,
                steps=40,
                phase="train",
                figures={"loss": 1 / step},
                lr={"model": 1e-4},
                grad_norm={"model": 1.0},
            )
            log.emit("evaluate", step=step, figures={"accuracy": 0.5 + step / 100})
        log.emit("stop", reason="SIGTERM")
    page = read(tmp_path)
    assert "stopped at step 40: SIGTERM; the same command resumes it" in page.text
    assert "Held-out accuracy" in page.text
    assert "0.6000 to 0.9000" in page.text
    assert "recipe.json is missing" in page.text
    assert "No verdict yet" in page.text
    summary = text_summary(tmp_path)
    assert "evaluated at step 40: accuracy 0.9000" in summary


def test_the_step_of_the_model_that_is_kept_is_told(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.jsonl") as log:
        log.emit("start", recipe="finetune", steps=30)
        for step, accuracy in ((10, 0.7), (20, 0.9), (30, 0.8)):
            log.emit("step", step=step, steps=30, phase="supervised", figures={"loss": 1 / step})
            log.emit("evaluate", step=step, figures={"accuracy": accuracy}, best=step < 30)
        log.emit("done", step=30, best={"step": 20, "figures": {"accuracy": 0.9}}, model="run/model")
    assert "run/model, of step 20, the best by accuracy" in read(tmp_path).text
    assert text_summary(tmp_path).splitlines()[-2:] == [
        "  evaluated at step 30: accuracy 0.8000", "  the model is that of step 20: accuracy 0.9000",
    ]  # fmt: skip


def test_a_run_before_its_first_step(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{}", encoding="utf-8")
    page = read(tmp_path)
    assert "not started" in page.text
    assert "No steps were logged yet" in page.text
    assert "svg" not in page.tags


def test_a_run_that_was_killed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretraining(run, end=False)
    with (run / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "st')
    page = read(run)
    assert "running, or interrupted" in page.text
    assert "1 unreadable line(s)" in page.text


def test_a_broken_recipe_is_told_and_not_fatal(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_bytes(b"{\xff")
    assert "recipe.json is missing or unreadable" in read(tmp_path).text


def test_a_resumed_run_says_so(tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretraining(run, end=False)
    with EventLog(run / "events.jsonl") as log:
        log.emit("start", recipe="tiny", steps=200)
        log.emit("phase", name="rtd", step=80, steps=120)
    assert "1 time(s)" in read(run).text


def test_the_summary(tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretraining(run)
    lines = text_summary(run).splitlines()
    assert lines[0] == "tiny: finished after 200 steps in 1 min 01 s"
    assert lines[1:4] == [
        "  generator: healthy (prior gain 0.040 > 0.03)",
        "  discriminator: healthy (prior gain 0.040 > 0.03)",
        "  encoder (earlier phase): learning (loss 8.20)",
    ]
    assert "auc 0.7400" in lines[4]  # a nan among the last five does not spoil it
    assert lines[-1].endswith("(2 times)")


def test_what_is_no_run_is_an_error_with_a_code(tmp_path: Path) -> None:
    for call in (write_report, text_summary):
        with pytest.raises(ElectraError, match="E-M300") as raised:
            call(tmp_path)
        assert raised.value.exit_code == ExitCode.DATA
    assert list(tmp_path.iterdir()) == []


# -- charts -------------------------------------------------------------------------------------------------------------


def texts(svg: str) -> str:
    return " ".join(element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text"))


def curve(values: list[float], label: str = "a") -> Curve:
    return Curve(label=label, steps=list(range(len(values))), values=values)


def test_a_chart_tells_its_names_and_levels_and_phases() -> None:
    svg = line_chart(
        Chart(title="T", curves=[curve([1.0, 2.0], "$one$"), curve([2.0, 3.0], "文<字>")], levels={"healthy": 1.5}),
        [(0, "mlm"), (1, "rtd")],
    )
    for told in ("$one$", "文<字>", "healthy", "mlm", "rtd", "step"):
        assert told in texts(svg)


@pytest.mark.parametrize("values", [[], [math.nan], [math.nan, math.inf]])
def test_no_finite_value_gives_no_chart(values: list[float]) -> None:
    assert line_chart(Chart(title="T", curves=[curve(values)])) == ""


@pytest.mark.parametrize("values", [[0.5], [0.0, 0.0], [1.0, math.nan, 2.0], [1e-8, 1e8], [-1.0, 1.0], [*[1.0] * 90, math.nan]])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_every_course_can_be_drawn(values: list[float], logarithmic: bool) -> None:
    assert (
        ElementTree.fromstring(line_chart(Chart(title="T", curves=[curve(values)], logarithmic=logarithmic))).tag == f"{SVG}svg"
    )


def test_a_long_run_draws_as_small_as_a_short_one() -> None:
    size = [
        len(line_chart(Chart(title="T", curves=[curve([math.sin(step) for step in range(count)])]))) for count in (400, 100_000)
    ]
    assert size[1] < 1.2 * size[0]


def test_bars() -> None:
    svg = bar_chart("Drawn positions", [1.0, math.nan, 0.5], 1.0)
    assert "start of row" in texts(svg)


def test_matplotlib_keeps_its_settings() -> None:
    import matplotlib

    before: Any = dict(matplotlib.rcParams)
    line_chart(Chart(title="T", curves=[curve([1.0, 2.0])]))
    assert dict(matplotlib.rcParams) == before
