"""What TensorBoard reads is what events.jsonl holds, also after a run was resumed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from electra.errors import ElectraError, ExitCode
from electra.events import EventLog
from electra.tensorboard import TensorBoardSink

pytest.importorskip("tensorboardX")


def records(directory: Path) -> Iterator[Any]:
    """The events of all files, in the order in which TensorBoard reads them: length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(directory.iterdir()):
        content = path.read_bytes()
        place = 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            yield Event.FromString(content[place + 12 : place + 12 + length])
            place += length + 16


def scalars(directory: Path) -> dict[str, dict[int, float]]:
    """Value by name and step, by TensorBoard's rule: a session that starts at a step makes it forget that and later ones."""
    found: dict[str, dict[int, float]] = {}
    for record in records(directory):
        if record.HasField("session_log"):
            found = {name: {s: v for s, v in points.items() if s < record.step} for name, points in found.items()}
        for value in record.summary.value:
            found.setdefault(value.tag, {})[record.step] = value.simple_value
    return found


def step(log: EventLog, number: int, loss: object) -> None:
    log.emit("step", step=number, figures={"loss": loss, "drawn_at_00": 1.0}, lr={"encoder": 1e-3}, grad_norm={"encoder": 2.0},
             tokens_per_second=100.0)  # fmt: skip


def test_figures_rates_norms_and_speed_are_written_with_the_time_of_their_event(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    with TensorBoardSink(tmp_path / "t") as sink, EventLog(None, [sink, seen.append]) as log:
        log.emit("start", step=0)
        step(log, 5, 2.5)
        log.emit("evaluate", step=5, figures={"accuracy": 0.75})
        log.emit("verdict", step=5, network="encoder", verdict="healthy", reason="so")
        assert scalars(tmp_path / "t")["held_out/accuracy"] == {5: 0.75}  # while the run goes on
    found = scalars(tmp_path / "t")
    assert set(found) == {"train/loss", "lr/encoder", "grad_norm/encoder", "speed/tokens_per_second", "held_out/accuracy"}
    assert found["train/loss"] == {5: 2.5}
    (first, *_) = [record.wall_time for record in records(tmp_path / "t") if record.summary.value]
    assert first == seen[1]["time"]


def test_a_loss_that_is_no_number_is_written_as_such(tmp_path: Path) -> None:
    with TensorBoardSink(tmp_path) as sink, EventLog(None, [sink]) as log:
        log.emit("start", step=0)
        step(log, 1, float("nan"))
    (value,) = scalars(tmp_path)["train/loss"].values()
    assert value != value


def test_a_resumed_run_goes_on_where_its_log_was_cut(tmp_path: Path) -> None:
    for begun_at, numbers, loss in ((0, (2, 4, 6), 1.0), (4, (6, 8), 2.0)):
        with TensorBoardSink(tmp_path) as sink, EventLog(None, [sink]) as log:
            log.emit("warning", code="E-M401", message="before the start")
            log.emit("start", step=begun_at)
            for number in numbers:
                step(log, number, loss)
    assert len(list(tmp_path.iterdir())) == 2
    assert scalars(tmp_path)["train/loss"] == {2: 1.0, 4: 1.0, 6: 2.0, 8: 2.0}


def test_a_run_that_logs_nothing_leaves_no_file(tmp_path: Path) -> None:
    with TensorBoardSink(tmp_path / "t") as sink, EventLog(None, [sink]) as log:
        log.emit("start", step=0)
        log.emit("done", step=0, figures={})
    assert not (tmp_path / "t").exists()


def test_without_the_extra_there_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("electra.tensorboard.find_spec", lambda name: None)
    with pytest.raises(ElectraError, match="E-R310") as raised:
        TensorBoardSink(tmp_path)
    assert raised.value.exit_code == ExitCode.RESOURCES
