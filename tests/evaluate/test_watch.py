"""The live page: fresh when the log has grown, drawn no more often, and for browsers of this machine alone."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from electra.errors import ElectraError, ExitCode
from electra.evaluate.watch import LivePage, LiveServer


@contextmanager
def served(live: LivePage) -> Iterator[LiveServer]:
    with LiveServer(live, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(server: LiveServer, method: str = "GET", path: str = "/", host: str = "localhost:9000") -> tuple[int, str, str | None]:
    """Status, body, and when to ask again."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers={"Host": host})
    answer = connection.getresponse()
    told = answer.status, answer.read().decode("utf-8"), answer.getheader("Refresh")
    connection.close()
    return told


class Drawn:
    """A page with a number that grows with each drawing."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> str:
        self.times += 1
        return f"<p>drawing {self.times} 文 \udcff</p>"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_text("1\n", encoding="utf-8")
    return path


def test_the_page_is_drawn_when_the_log_has_grown_and_asks_to_be_asked_again(log: Path) -> None:
    draw = Drawn()
    with served(LivePage(draw, [log])) as server:
        assert ask(server) == (200, "<p>drawing 1 文 \\udcff</p>", "5")
        assert ask(server)[1].startswith("<p>drawing 1 ")
        with log.open("a", encoding="utf-8") as file:
            file.write("2\n")
        assert ask(server)[1].startswith("<p>drawing 2 ")
    assert draw.times == 2


def test_a_run_that_starts_over_is_waited_for(log: Path) -> None:
    def draw() -> str:
        if not log.is_file():
            raise ElectraError("E-M300", "runs/<a>", "not a run", "give one")
        return "there"

    with served(LivePage(draw, [log])) as server:
        assert ask(server)[1] == "there"
        log.unlink()
        status, body, again = ask(server)
        assert (status, again) == (200, "5")
        assert "E-M300 runs/&lt;a&gt;" in body
        log.write_text("1\n", encoding="utf-8")
        assert ask(server)[1] == "there"


@pytest.mark.parametrize(
    ("method", "path", "host", "status"),
    [
        ("GET", "/", "127.0.0.1:8321", 200),
        ("GET", "/", "localhost", 200),
        ("GET", "/", "evil.example", 403),
        ("GET", "/", "evil.example:8321", 403),
        ("GET", "/", "localhost.evil.example:80", 403),
        ("GET", "/", "", 403),
        ("GET", "/recipe.json", "localhost", 404),
        ("GET", "/../recipe.json", "localhost", 404),
        ("POST", "/", "localhost", 501),
    ],
)
def test_only_this_machine_and_only_the_page(log: Path, method: str, path: str, host: str, status: int) -> None:
    with served(LivePage(Drawn(), [log])) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert ask(server, method, path, host)[0] == status


def test_a_port_that_is_taken_is_named(log: Path) -> None:
    with LiveServer(LivePage(Drawn(), [log]), 0) as server:
        with pytest.raises(ElectraError, match="E-R320") as raised:
            LiveServer(LivePage(Drawn(), [log]), server.server_port)
        assert str(server.server_port) in raised.value.where
    assert raised.value.exit_code == ExitCode.RESOURCES
    with pytest.raises(ElectraError, match="E-R320"):
        LiveServer(LivePage(Drawn(), [log]), 70_000)
