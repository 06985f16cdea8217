"""The event log: valid JSON whatever comes, cut where a resumed run starts, readable after a crash."""

import json
import math
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from electra.errors import ElectraError, ExitCode
from electra.events import EventLog, duration, in_order, number, read_events


def test_every_line_is_strict_json_and_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "run" / "events.jsonl"
    with EventLog(path) as log:
        log.emit(
            "step", step=1, figures={"loss": math.nan, "worst": -math.inf, "best": math.inf, "auc": 0.75}, lr={"encoder": 1e-4}
        )
        log.emit(
            "checkpoint", step=np.int64(1), path=tmp_path, share=torch.tensor(0.5), flags=[True, None, np.float32(math.nan)]
        )
        log.emit("warning", message="文件 \udcff \n new line")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    for line in path.read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=refuse)
    events, unreadable = read_events(path)
    assert unreadable == 0
    assert events[0]["figures"] == {"loss": "NaN", "worst": "-Infinity", "best": "Infinity", "auc": 0.75}
    assert [float(value) for value in events[0]["figures"].values()][1:] == [-math.inf, math.inf, 0.75]
    assert (events[1]["step"], events[1]["path"], events[1]["share"], events[1]["flags"]) == (
        1,
        str(tmp_path),
        0.5,
        [True, None, "NaN"],
    )
    assert events[2]["message"] == "文件 \udcff \n new line"


def test_what_json_cannot_hold_is_a_bug_and_not_a_broken_line(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.jsonl") as log, pytest.raises(TypeError, match="set"):
        log.emit("step", step=1, figures={1, 2})
    assert read_events(tmp_path / "events.jsonl") == ([], 0)


def test_sinks_see_what_the_file_holds_as_it_happens(tmp_path: Path) -> None:
    seen: list[dict[str, object]] = []
    path = tmp_path / "events.jsonl"
    with EventLog(path, [seen.append]) as log:
        for step in range(3):
            log.emit("step", step=step)
            assert read_events(path)[0] == seen  # flushed line by line
    assert len(seen) == 3


def test_without_a_path_only_the_sinks_are_served() -> None:
    seen: list[dict[str, object]] = []
    with EventLog(None, [seen.append]) as log:
        log.truncate_after(0)
        log.emit("stop", reason="asked")
    assert [event["event"] for event in seen] == ["stop"]


def test_a_resumed_log_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    def steps(log: EventLog, start: int, stop: int) -> None:
        for step in range(start + 1, stop + 1):
            log.emit("step", step=step, figures={"loss": 1 / step})
            if step % 4 == 0:
                log.emit("checkpoint", step=step)

    with EventLog(tmp_path / "whole.jsonl") as log:
        log.emit("start", steps=12)
        steps(log, 0, 12)
    with EventLog(tmp_path / "resumed.jsonl") as log:
        log.emit("start", steps=12)
        steps(log, 0, 7)
        log.emit("warning", message="of a step that is done again")
    with (tmp_path / "resumed.jsonl").open("ab") as file:
        file.write(b'{"event": "step", "st')  # killed while writing
    with EventLog(tmp_path / "resumed.jsonl") as log:
        log.truncate_after(4)
        steps(log, 4, 12)

    def facts(name: str) -> list[dict[str, object]]:
        events, unreadable = read_events(tmp_path / name)
        assert unreadable == 0
        return [{key: value for key, value in event.items() if key != "time"} for event in events]

    assert facts("resumed.jsonl") == facts("whole.jsonl")


def test_a_torn_line_is_counted_by_the_reader_and_cut_by_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "step", "step": 1}\nnot json\n[1]\n{"event": "step", "step": 2}\n{"event": "st')
    events, unreadable = read_events(path)
    assert ([event["step"] for event in events], unreadable) == ([1, 2], 3)
    with EventLog(path) as log:
        log.emit("step", step=3)
    assert [event["step"] for event in read_events(path)[0]] == [1, 2, 3]
    assert read_events(path)[1] == 2  # foreign lines in the middle are left alone


def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert read_events(tmp_path / "events.jsonl") == ([], 0)


def test_a_full_disk_is_an_error_with_a_code(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
        with pytest.raises(ElectraError, match="E-R300") as raised:
            log.emit("warning", message="x" * 200)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    log.close()
    assert raised.value.exit_code == ExitCode.RESOURCES


def test_a_path_that_is_a_folder_is_an_error_with_a_code(tmp_path: Path) -> None:
    with pytest.raises(ElectraError, match="E-R300"):
        EventLog(tmp_path)


@pytest.mark.parametrize(
    ("value", "told"),
    [(3, "3"), (1234567, "1,234,567"), (0.02134, "0.0213"), (5.1, "5.100"), (6050.2, "6,050"), (742.14, "742.1"),
     (0.0, "0.0000"), (2e-5, "2.00e-05"), ("NaN", "nan"), ("Infinity", "inf"), (-0.0123, "-0.0123")],
)  # fmt: skip
def test_numbers_in_words(value: object, told: str) -> None:
    assert number(value) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.4, "0 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
        (273600, "3 d 4 h"),
        ("NaN", "?"),
        (math.inf, "?"),
    ],
)
def test_durations_in_words(seconds: object, told: str) -> None:
    assert duration(seconds) == told


def test_figures_in_the_order_of_interest_without_histogram_bars() -> None:
    assert list(in_order({"own": 1, "drawn_at_00": 1, "auc": 1, "mlm_loss": 1})) == ["mlm_loss", "auc", "own"]
    assert list(in_order({"f1": 1, "precision": 1, "recall": 1, "collapsed": 0})) == ["f1", "precision", "recall", "collapsed"]
