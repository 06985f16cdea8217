"""A server's beginning and end: one line for each mistake, nothing lost at the end."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.deploy.conftest import Server, Start, until
from tests.deploy.test_serve_connections import HEAD, read_all
from tests.deploy.test_serve_queue import Crowd, hold, waiting

from electra.cli_deploy import serve as verb
from electra.deploy import server as server_module
from electra.deploy.served import named, open_model, open_models
from electra.deploy.settings import ServeSettings, keys_of
from electra.errors import ElectraError


def refused(code: str, **settings: object) -> ElectraError:
    with pytest.raises(ElectraError, match=code) as caught:
        server_module.serve(lambda: [], ServeSettings(**{"port": 0, **settings}), print)  # type: ignore[arg-type]
    return caught.value


def test_mistakes_of_the_command_line_are_told_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused("E-C730", host="0.0.0.0")
    refused("E-C730", host="::")
    refused("E-C732", port=70_000)
    refused("E-C732", timeout=0)
    refused("E-C732", queue=0)
    refused("E-C732", hosts=("http://a",))
    refused("E-C733", keys=("short",))
    refused("E-C733", keys=("ключ" * 10,))
    refused("E-R730", host="no such host")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert refused("E-R730", port=other.getsockname()[1]).exit_code == 4
    for name, content in (("none", None), ("empty", b"\n"), ("bytes", b"\xff")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ElectraError, match="E-C733"):
            keys_of(tmp_path / name, None)
    with pytest.raises(ElectraError, match="E-C733"):
        keys_of(None, " ")
    (tmp_path / "keys").write_text("a" * 16 + "\n\n" + "b" * 16 + "\n")
    assert keys_of(tmp_path / "keys", "c" * 16) == ("c" * 16, "a" * 16, "b" * 16)
    assert "a" * 16 not in repr(ServeSettings(keys=("a" * 16,)))
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ElectraError, match=r"E-R731.*electra-toolkit\[serve\]"):
        verb(["model"], host="127.0.0.1", port=0, api_key_file=None, allow_host=None, timeout=30, queue=1)


def test_answers_are_sent_at_once() -> None:
    """asyncio sets TCP_NODELAY where a socket is said to be TCP's; without it each answer waits for an acknowledgement."""
    with server_module.take(ServeSettings(port=0)) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_models_have_names(model_dirs: dict[str, Path], tmp_path: Path) -> None:
    assert named("runs/sst2/model")[0] == "sst2"
    assert named("runs/sst2")[0] == "sst2"
    assert named("film=runs/sst2/model") == ("film", Path("runs/sst2/model"))
    for wrong in ("a b=runs", "=runs", "../=runs", "a/b=runs", "影=runs"):
        with pytest.raises(ElectraError, match="E-C731"):
            named(wrong)
    with pytest.raises(ElectraError, match="E-C731"):
        open_models([str(model_dirs["sentiment"]), f"sentiment={model_dirs['names']}"])
    with pytest.raises(ElectraError, match="E-M"):
        open_model("a", tmp_path)


def test_the_end_answers_what_was_accepted(held: Callable[..., Server], tmp_path: Path) -> None:
    server = held("a")
    crowd = Crowd(server)
    first = hold(tmp_path, crowd)
    others = [crowd.ask("a", "good") for _ in range(12)]
    waiting(server, 13)
    kept = server.connect()
    body = b'{"inputs":"good"}'
    kept.sendall(HEAD.replace(b"sentiment", b"a") % len(body) + body[:9])
    probe = server.connect()
    server.signal()
    until(lambda: "ending" in server.log.read_text(encoding="utf-8"))
    probe.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = read_all(probe)  # its last: the connection is closed
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"ending":true' in answer
    kept.sendall(body[9:])
    assert server.ended is None
    (tmp_path / "hold").unlink()
    assert {reply.result().status for reply in (first, *others)} == {200}
    assert {reply.result().headers["connection"] for reply in others} == {"close"}
    assert read_all(kept).startswith(b"HTTP/1.1 200 ")
    kept.close()
    probe.close()
    assert server.wait() == 0
    with pytest.raises(ConnectionError):
        server.connect()


def test_the_end_under_load_loses_nothing(start: Start) -> None:
    """Clients that ask again and again: each request that was sent has its answer."""
    server, done = start("sentiment"), list[int]()

    def ask(_: int) -> int:
        lost = 0
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            try:
                connection.connect()
            except OSError:
                return lost
            try:
                closing = False
                while not closing:
                    connection.request("POST", "/v1/sentiment/predict", '{"inputs":["good","bad"]}',
                                       {"Content-Type": "application/json"})  # fmt: skip
                    response = connection.getresponse()
                    assert response.status == 200
                    closing = response.getheader("Connection") == "close"
                    done.append(len(response.read()))
            except (ConnectionError, http.client.HTTPException):
                lost += 1
            finally:
                connection.close()

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, place) for place in range(8)]
        until(lambda: len(done) > 50)
        server.signal()
        lost = sum(one.result() for one in asking)
    assert server.wait() == 0
    assert lost == 0


def test_a_second_signal_ends_at_once(held: Callable[..., Server], tmp_path: Path) -> None:
    server = held("a")
    crowd = Crowd(server)
    first = hold(tmp_path, crowd)
    server.signal(signal.SIGINT)
    until(lambda: "ending" in server.log.read_text(encoding="utf-8"))
    server.signal(signal.SIGTERM)
    assert server.wait() == 128 + signal.SIGTERM
    with pytest.raises(ConnectionError):
        first.result()
    (tmp_path / "hold").unlink()


def test_the_verb_serves_and_ends(model_dirs: dict[str, Path], tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ELECTRA_API_KEY"}
    command = [sys.executable, "-m", "electra", "serve", "--port", "0", str(model_dirs["sentiment"])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"serving http://127\.0\.0\.1:(\d+) \(without a key\)\n", line)
        assert found, line
        assert process.stdout.readline() == "  sentiment: classify\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def test_the_precision_is_that_of_writers_too(model_dirs: dict[str, Path]) -> None:
    for precision in ("fp32", "bf16"):
        [model] = open_models([str(model_dirs["writer"])], precision)  # type: ignore[arg-type]
        assert model.writer is not None
        assert model.writer.precision == precision
