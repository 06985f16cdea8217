"""Consoles: a panel for terminals that gives them back, plain lines for everything else."""

import io
import os
from typing import Any

import pytest
from rich.console import Console

from electra.console import (
    LivePanel,
    PlainLines,
    choose_console,
    sentence,
    sparkline,
    verdict_colour,
)
from electra.events import EventLog
from electra.show import print_prediction
from electra.train.verdicts import State


def step(number: int, **figures: float) -> dict[str, Any]:
    return {
        "step": number, "steps": 100, "phase": "rtd", "figures": figures, "lr": {"discriminator": 5e-4},
        "grad_norm": {"discriminator": 1.25}, "tokens_per_second": 6050.0, "eta_seconds": 125.0,
    }  # fmt: skip


def emit_a_run(log: EventLog) -> None:
    log.emit("start", recipe="[bold]tiny[/]", steps=100, parameters={"discriminator": 1234})
    log.emit("phase", name="rtd", step=0, steps=100)
    for number in range(10, 101, 10):
        log.emit("step", **step(number, rtd_loss=1 / number, prior_gain=0.031, auc=0.72, token_rms=0.5, own_figure=3.0))
    log.emit("verdict", step=100, network="discriminator", verdict="healthy", reason="prior gain 0.031 [sic]")
    log.emit("verdict", step=100, network="discriminator", verdict="healthy", reason="prior gain 0.032 [sic]")
    log.emit("warning", code="E-R101", message="文件 \udcff")
    log.emit("checkpoint", step=100, path="somewhere", seconds=0.1)
    log.emit("done", step=100, seconds=61.0, figures={"auc": 0.72})


def test_plain_lines_tell_each_thing_once() -> None:
    stream = io.StringIO()
    with PlainLines(stream, every=0) as console:
        emit_a_run(EventLog(None, [console]))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "start [bold]tiny[/]: 100 steps; parameters: discriminator 1,234"
    assert (
        lines[2]
        == "step 10/100 10%  rtd_loss 0.1000  prior_gain 0.0310  auc 0.7200  own_figure 3.000  6,050 tokens/s  eta 2 min 05 s"
    )
    assert [line for line in lines if "healthy" in line] == ["discriminator: healthy (prior gain 0.031 [sic])"]
    assert lines[-1] == "done: 100 steps in 1 min 01 s  auc 0.7200"
    assert not any("\r" in line or "\x1b" in line for line in lines)


def test_plain_step_lines_keep_their_distance() -> None:
    stream = io.StringIO()
    with PlainLines(stream, every=3600) as console:
        emit_a_run(EventLog(None, [console]))
    assert sum(line.startswith("step") for line in stream.getvalue().splitlines()) == 1
    assert "warning E-R101" in stream.getvalue()


@pytest.mark.parametrize(
    ("epochs", "told"),
    [
        ({"corpus": 0.314}, "epochs corpus 0.31"),
        ({"wiki": 1.0, "books": 0.25}, "epochs books 0.25  epochs wiki 1.00"),
        ({f"s{n}": n / 2 for n in range(100)}, "epochs s0 0.00  epochs s99 49.50"),
    ],
)
def test_epochs_are_told_of_a_few_sources_or_of_the_least_and_the_most(epochs: dict[str, float], told: str) -> None:
    stream = io.StringIO()
    with PlainLines(stream, every=0) as console:
        EventLog(None, [console]).emit("step", **step(10, loss=1.0), epochs=epochs)
    assert f"  {told}  6,050 tokens/s" in stream.getvalue()
    panel = Console(file=io.StringIO(), width=100, record=True)
    with LivePanel(panel) as live:
        EventLog(None, [live]).emit("step", **step(10, loss=1.0), epochs=epochs)
        panel.print(live.render())
    assert told.split("  ")[0].rsplit(" ", 1)[0] in panel.export_text()


def test_plain_lines_survive_a_stream_that_is_not_unicode() -> None:
    raw = io.BytesIO()
    with PlainLines(io.TextIOWrapper(raw, encoding="ascii"), every=0) as console:
        emit_a_run(EventLog(None, [console]))
        assert rb"warning E-R101: \u6587\u4ef6 \udcff" in raw.getvalue()


def test_the_panel_shows_what_matters() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    console = Console(file=stream, width=100, record=True, force_terminal=True)
    with LivePanel(console) as panel:
        emit_a_run(EventLog(None, [panel]))
        console.print(panel.render())
    text = console.export_text()
    for shown in (
        "[bold]tiny[/]",
        "100/100",
        "eta 2 min 05 s",
        "rtd_loss",
        "0.7200",
        "5.0e-04",
        "healthy",
        "[sic]",
        "█",
        "E-R101",
    ):
        assert shown in text or shown == "[sic]"
    assert "prior gain 0.032" in text


def test_the_panel_forgets_the_verdicts_of_an_earlier_phase() -> None:
    console = Console(file=io.StringIO(), width=100)
    panel = LivePanel(console)
    log = EventLog(None, [panel])
    log.emit("verdict", step=5, network="encoder", verdict="healthy", reason="loss 5")
    log.emit("phase", name="rtd", step=5, steps=5)
    console.print(panel.render())
    assert "encoder" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_terminal_is_given_back_when_the_run_fails() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=True)

    def fail() -> None:
        with LivePanel(console) as panel:
            EventLog(None, [panel]).emit("step", **step(1, loss=1.0))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert hidden in stream.getvalue()
    assert stream.getvalue().rindex(shown) > stream.getvalue().rindex(hidden)


@pytest.mark.parametrize(("term", "kind"), [("xterm-256color", LivePanel), ("dumb", PlainLines)])
def test_a_terminal_gets_the_panel_and_a_dumb_one_lines(term: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    leader, follower = os.openpty()
    with os.fdopen(follower, "w", encoding="utf-8") as stream:
        assert type(choose_console(stream)) is kind
    os.close(leader)


def test_a_file_gets_lines() -> None:
    assert type(choose_console(io.StringIO())) is PlainLines


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown() -> str:
        stream = io.StringIO()
        with LivePanel(Console(file=stream, width=80, force_terminal=True, color_system="standard")) as panel:
            emit_a_run(EventLog(None, [panel]))
        return stream.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "32mhealthy" in shown()  # green
    monkeypatch.setenv("NO_COLOR", "1")
    assert "32mhealthy" not in shown()


@pytest.mark.parametrize("state", State)
def test_every_state_has_its_colour(state: State) -> None:
    assert (verdict_colour(state) == "red") == state.is_fault


def test_sparkline() -> None:
    assert sparkline([3.0, 2.0, 1.0]) == "█▅▁"
    assert sparkline([1.0] * 50, width=5) == "▁▁▁▁▁"
    assert sparkline([float("nan"), 1.0]) == ""


def test_several_runs_are_told_in_lines() -> None:
    figures = [{"accuracy": 0.5, "collapsed": 1.0}, {"accuracy": 0.75, "collapsed": 0.0}]
    runs = [
        {"name": name, "seed": seed, "lr": 1e-4, "collapsed": seed == 0, "step": 8, "figures": figure}
        for name, seed, figure in zip(("seed-0", "seed-0/retry"), (0, 1000), figures, strict=True)
    ]
    over = {"median": 0.75, "minimum": 0.75, "maximum": 0.75, "deviation": 0.0}
    summary = {
        "metric": "accuracy",
        "runs": runs,
        "counted": ["seed-0/retry"],
        "spread": {"accuracy": over},
        "model": "seed-0/retry",
    }
    assert (sentence({"event": "summary", **summary}) or "").splitlines() == [
        "seed-0: seed 0, rate 0.0001: accuracy 0.5000 (collapsed)",
        "seed-0/retry: seed 1000, rate 0.0001: accuracy 0.7500 (kept)",
        "accuracy over 1 seed: median 0.7500, 0.7500 to 0.7500, s.d. 0.0000",
    ]
    assert sentence({"event": "run", **runs[0]}) == (
        "run seed-0 (seed 0, rate 0.0001): best at step 8  accuracy 0.5000  collapsed 1.000"
    )
    best = {"run": "seed-0/retry", "step": 8, "figures": figures[1]}
    assert sentence({"event": "done", "step": 16, "best": best}) == "done: 16 steps; the model is that of seed-0/retry, step 8"
    assert sentence({"event": "settled", "step": 9, "evaluations": 3}) == "ends at step 9: nothing better in 3 evaluations"
    evaluated = {"event": "evaluate", "step": 3, "figures": {"f1": 0.5}}
    assert sentence({**evaluated, "best": True}) == "evaluated at step 3  f1 0.5000  (the best so far)"
    assert sentence({**evaluated, "best": False}) == sentence(evaluated) == "evaluated at step 3  f1 0.5000"


def test_a_vector_is_shown_by_its_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    print_prediction("red", {"embedding": [0.125, -0.5, 0.25, 0.0, 1.0], "pair_embedding": [0.0] * 5, "score": 0.75})
    assert capsys.readouterr().out == "0.750  [0.125 -0.500 0.250 0.000 ...] of 5  red\n"


def test_several_labels_and_numbers_are_shown_before_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_prediction("one", {"labels": [{"label": "a", "score": 0.9}, {"label": "b", "score": 0.5}], "scores": {"a": 0.9}})
    print_prediction("two", {"labels": [], "scores": {"a": 0.1}})
    print_prediction("three", {"score": 3.25})
    assert capsys.readouterr().out.splitlines() == ["a 0.900  b 0.500  one", "-  two", "3.250  three"]


def test_only_odd_tokens_have_a_colour(capsys: pytest.CaptureFixture[str]) -> None:
    tokens = [{"token": "a", "start": 0, "end": 1, "score": -0.01, "doubt": 0.01},
              {"token": "b", "start": 2, "end": 3, "score": -0.9, "doubt": 0.6}]  # fmt: skip
    print_prediction("a b", {"method": "rtd", "score": -0.91, "tokens": tokens}, colour=True)
    shown = capsys.readouterr().out.splitlines()[0]
    assert shown.startswith("-0.910  a ")
    assert "\x1b" in shown
    print_prediction("", {"method": "rtd", "score": 0.0, "tokens": []}, colour=True)
    assert len(capsys.readouterr().out.splitlines()) == 1
