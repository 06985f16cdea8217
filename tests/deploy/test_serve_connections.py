"""Connections that dribble, stay silent, do not read, or say half a sentence: each costs nobody but itself."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.deploy.conftest import Server, Start, until

from electra.deploy import connection, gate

BODY = json.dumps({"inputs": ["good"]}).encode()
HEAD = b"POST /v1/sentiment/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


def read_all(client: socket.socket) -> bytes:
    """Until the server closes; reset counts as closed."""
    answer = b""
    try:
        while chunk := client.recv(65_536):
            answer += chunk
    except ConnectionError:
        pass
    return answer


@pytest.fixture
def impatient(start: Start, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server whose patience is short, and that has 300 connections."""
    monkeypatch.setattr(connection, "IDLE_SECONDS", 1.0)
    monkeypatch.setattr(gate, "BODY_SECONDS", 1.0)
    monkeypatch.setattr("electra.deploy.server._connections", lambda: 300)
    return start("sentiment")


def test_two_hundred_dribbling_connections_starve_nobody(impatient: Server) -> None:
    """Half of them dribble their head, half their body; all are closed in the end, though a byte comes now and then."""
    head, body = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", HEAD % len(BODY)
    clients = [impatient.connect() for _ in range(200)]
    for place, client in enumerate(clients):
        client.sendall(head if place % 2 else body)
    open_ones, answered, ends = set(range(200)), 0, time.monotonic() + 30
    while open_ones and time.monotonic() < ends:
        assert impatient.predict("sentiment", "good").status == 200
        answered += 1
        for place in list(open_ones):
            try:
                clients[place].sendall(b"x" if place % 2 else b" ")
                clients[place].setblocking(False)
                if b"408" in clients[place].recv(4096) or not place % 2:
                    open_ones.discard(place)
            except BlockingIOError:
                clients[place].setblocking(True)
            except ConnectionError:
                open_ones.discard(place)
            if place in open_ones and place % 2:
                open_ones -= {place} if _closed(clients[place]) else set()
    assert not open_ones
    assert answered > 1
    for client in clients:
        client.close()


def _closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    finally:
        client.setblocking(True)


def test_a_body_that_does_not_come_is_answered(impatient: Server) -> None:
    with impatient.connect() as client:
        client.sendall(HEAD % len(BODY) + BODY[:5])
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"E-S738" in answer


def test_silence_ends_a_connection_before_and_after_a_request(impatient: Server) -> None:
    with impatient.connect() as silent, impatient.connect() as kept:
        kept.sendall(HEAD % len(BODY) + BODY)
        assert read_all(silent) == b""
        answer = read_all(kept)
        assert answer.startswith(b"HTTP/1.1 200 ")


def test_the_longest_silence_makes_room_for_a_new_connection(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("electra.deploy.server._connections", lambda: 20)
    server = start("sentiment")
    clients = [server.connect() for _ in range(40)]
    assert server.predict("sentiment", "good").status == 200
    until(lambda: sum(_closed(client) for client in clients) >= 20)
    assert not _closed(clients[-1])
    clients[-1].sendall(HEAD % len(BODY) + BODY)
    assert clients[-1].recv(4096).startswith(b"HTTP/1.1 200 ")
    for client in clients:
        client.close()


def test_who_does_not_read_is_left(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "UNREAD_SECONDS", 0.3)
    server = start("pair")
    text = "[MASK] " * 60  # each filled with 50 tokens, the whole text each time
    body = json.dumps({"inputs": [text] * 3, "task": "fill-mask", "settings": {"top_k": 50}}).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(30)
        client.connect(("127.0.0.1", server.port))
        head = (HEAD % len(body)).replace(b"sentiment", b"pair")
        client.sendall((head + body) * 3)  # what is not read of three answers is more than the system keeps
        until(lambda: server.figure("electra_inputs_total") >= 3)
        with pytest.raises(ConnectionError):
            until(lambda: client.send(b"x") and False)
    assert server.predict("pair", "good").status == 200


def test_requests_in_a_row_and_at_once_on_one_connection(server: Server) -> None:
    with server.connect() as client:
        client.sendall((HEAD % len(BODY) + BODY) * 5)
        answer = b""
        while answer.count(b'"milliseconds"') < 5:
            answer += client.recv(65_536)
    assert answer.count(b"HTTP/1.1 200 ") == 5


def test_ten_times_too_much_is_answered_or_told_to_come_again(start: Start) -> None:
    server = start("sentiment", queue=8)
    body = {"inputs": ["good film"] * 8}

    def load(_: int) -> list[int]:
        return [server.post("/v1/sentiment/predict", body).status for _ in range(8)]

    with ThreadPoolExecutor(30) as pool:
        statuses = [status for some in pool.map(load, range(30)) for status in some]
    assert len(statuses) == 240
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) >= 8
    assert server.figure("electra_waiting_requests") == 0
    assert server.figure("electra_waiting_tokens") == 0
    assert server.predict("sentiment", "good").status == 200
