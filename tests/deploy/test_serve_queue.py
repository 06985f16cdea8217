"""The queue: batches of whoever waits, fair turns, full, too late, gone, and a network that fails."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.deploy.conftest import Reply, Server, Start, until


class Crowd:
    """Requests that wait at the same time."""

    def __init__(self, server: Server) -> None:
        self.server, self.pool = server, ThreadPoolExecutor(40)

    def ask(self, model: str, *texts: str, **headers: str) -> Future[Reply]:
        return self.pool.submit(self.server.post, f"/v1/{model}/predict", {"inputs": list(texts)}, **headers)


def batches(notes: Path) -> list[str]:
    return (notes / "batches").read_text().splitlines()


def hold(notes: Path, crowd: Crowd, model: str = "a") -> Future[Reply]:
    """The worker is at a request, and stays there."""
    (notes / "hold").touch()
    before = len(batches(notes))
    first = crowd.ask(model, "good")
    until(lambda: len(batches(notes)) > before)
    return first


def queued(server: Server, requests: int) -> None:
    until(lambda: server.figure("electra_queued_requests") == requests)


def waiting(server: Server, requests: int) -> None:
    until(lambda: server.figure("electra_waiting_requests") == requests)


def test_requests_that_wait_together_are_one_batch_and_bad_ones_harm_nobody(held: Callable[..., Server], notes: Path) -> None:
    server = held("a")
    crowd = Crowd(server)
    first = hold(notes, crowd)
    others = [crowd.ask("a", "good", "film") for _ in range(5)]
    queued(server, 5)
    assert server.post("/v1/a/predict", {"inputs": ["good", 3]}).status == 422
    (notes / "hold").unlink()
    assert {reply.result().status for reply in (first, *others)} == {200}
    assert batches(notes) == ["a 1", "a 10"]
    assert len({json.dumps(reply.result().json["predictions"]) for reply in others}) == 1


def test_a_request_that_breaks_the_network_breaks_no_other(held: Callable[..., Server], notes: Path) -> None:
    server = held("a", "b")
    crowd = Crowd(server)
    first = hold(notes, crowd)
    good, bad = [crowd.ask("a", "good"), crowd.ask("a", "film")], crowd.ask("a", "Seattle")
    queued(server, 3)
    (notes / "hold").unlink()
    assert [reply.result().status for reply in (first, *good)] == [200, 200, 200]
    assert (bad.result().status, bad.result().code) == (503, "E-S748")
    assert server.post("/v1/a/predict", {"inputs": "Seattle"}).status == 503
    ready = server.ask("GET", "/readyz")
    assert (ready.status, ready.json["models"]) == (503, {"a": "failing: RuntimeError", "b": "ready"})
    assert server.ask("GET", "/livez").status == 200
    assert [model["ready"] for model in server.ask("GET", "/v1/models").json["models"]] == [False, True]
    assert server.predict("b", "good").status == 200
    assert server.predict("a", "good").status == 200
    assert server.ask("GET", "/readyz").status == 200
    assert "xylophonist" not in server.log.read_text(encoding="utf-8") + bad.result().body.decode()


def test_numbers_that_are_not_finite_are_a_failure(held: Callable[..., Server], notes: Path) -> None:
    server = held("a")
    (notes / "nan").touch()
    reply = server.predict("a", "good")
    assert (reply.status, reply.code) == (503, "E-S748")
    assert server.ask("GET", "/readyz").status == 503
    (notes / "nan").unlink()
    assert server.predict("a", "good").status == 200
    assert server.ask("GET", "/readyz").status == 200


def test_a_full_queue_says_when_to_come_again(held: Callable[..., Server], notes: Path) -> None:
    server = held("a", queue=3)
    crowd = Crowd(server)
    first = hold(notes, crowd)
    others = [crowd.ask("a", "good") for _ in range(2)]
    waiting(server, 3)
    refused = server.predict("a", "good")
    assert (refused.status, refused.code) == (429, "E-S746")
    assert int(refused.headers["retry-after"]) >= 1
    assert server.ask("GET", "/readyz").status == 200
    (notes / "hold").unlink()
    assert {reply.result().status for reply in (first, *others)} == {200}
    assert server.predict("a", "good").status == 200
    assert server.figure("electra_refused_total") == 1


def test_tokens_that_wait_fill_the_queue_too(held: Callable[..., Server], notes: Path) -> None:
    server = held("a")
    assert server.predict("a", "film " * 50).status == 200  # from now on it knows how many tokens such text has
    crowd = Crowd(server)
    first = hold(notes, crowd)
    full = [crowd.ask("a", *["film " * 50] * 64) for _ in range(40)]  # 2,048 tokens each, of the 65,536 that may wait
    until(lambda: server.figure("electra_refused_total"))
    assert 20 <= server.figure("electra_waiting_requests") <= 40
    (notes / "hold").unlink()
    statuses = [reply.result().status for reply in (first, *full)]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 20


def test_whose_time_is_over_leaves_before_its_turn(held: Callable[..., Server], notes: Path) -> None:
    server = held("a")
    crowd = Crowd(server)
    first = hold(notes, crowd)
    late = crowd.ask("a", "good", "film", X_Request_Timeout="0.2").result()
    assert (late.status, late.code) == (429, "E-S747")
    waiting(server, 1)
    begun = crowd.ask("a", "good")
    (notes / "hold").unlink()
    assert {first.result().status, begun.result().status} == {200}
    assert batches(notes) == ["a 1", "a 1"]
    hold(notes, crowd, "a")
    assert server.figure("electra_expired_total") == 1
    (notes / "hold").unlink()


def test_whose_time_ends_while_it_is_computed_is_told_so(held: Callable[..., Server], notes: Path) -> None:
    server = held("a")
    (notes / "hold").touch()
    late = server.post("/v1/a/predict", {"inputs": "good"}, X_Request_Timeout="0.2")
    assert (late.status, late.code) == (408, "E-S739")
    (notes / "hold").unlink()
    assert server.predict("a", "good").status == 200


def test_who_has_gone_leaves_before_its_turn(held: Callable[..., Server], notes: Path) -> None:
    server = held("a")
    crowd = Crowd(server)
    first = hold(notes, crowd)
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("POST", "/v1/a/predict", json.dumps({"inputs": ["good"] * 7}), {"Content-Type": "application/json"})
    queued(server, 1)
    connection.close()
    queued(server, 0)
    waiting(server, 1)
    assert server.figure("electra_disconnected_total") == 1
    (notes / "hold").unlink()
    assert first.result().status == 200
    assert server.predict("a", "good").status == 200
    assert batches(notes) == ["a 1", "a 1"]


def test_models_take_turns_and_long_requests_let_short_ones_pass(held: Callable[..., Server], notes: Path) -> None:
    server = held("a", "b")
    assert server.predict("a", "film " * 50).status == 200
    begin = len(batches(notes))
    crowd = Crowd(server)
    first = hold(notes, crowd)
    long = [crowd.ask("a", *["film " * 50] * 64) for _ in range(12)]  # three turns of 8,192 tokens
    queued(server, 12)
    short = [crowd.ask("b", "good") for _ in range(3)]
    queued(server, 15)
    (notes / "hold").unlink()
    assert {reply.result().status for reply in (first, *long, *short)} == {200}
    # between two turns of a's, though there are requests for three
    order = [line.split()[0] for line in batches(notes)[begin:]]
    assert order.index("b") == 1, "a model whose queue is long keeps another from its turn"
    assert order.count("b") == 1


def test_rounds_that_read_too_much_are_the_requests_fault(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("electra.deploy.served.REQUEST_TOKENS", 200)
    server = start("pair")
    asked = {"task": "fill-mask", "settings": {"joint": True}}
    assert server.predict("pair", "[MASK] " * 3, **asked).status == 200
    refused = server.predict("pair", "[MASK] " * 20, **asked)
    assert (refused.status, refused.code) == (422, "E-S745")
    assert server.ask("GET", "/readyz").status == 200


def test_answers_do_not_depend_on_who_else_asks(server: Server) -> None:
    texts = [" ".join(["good", "film", "Bill"][place % 3 :] * (1 + place % 5)) for place in range(24)]
    alone = [server.predict("sentiment", text).json["predictions"][0]["scores"]["good"] for text in texts]
    barrier = threading.Barrier(8)

    def some(first: int) -> list[float]:
        barrier.wait(30)
        reply = server.predict("sentiment", *texts[first::8])
        return [prediction["scores"]["good"] for prediction in reply.json["predictions"]]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(some, range(8)))
    for first, scores in enumerate(together):
        assert scores == pytest.approx(alone[first::8], abs=1e-5)
