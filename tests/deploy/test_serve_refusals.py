"""Bad input: one clear answer each, with the place in the JSON; the server stays up, and its log holds no text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.deploy.conftest import Reply, Server, Start

PREDICT = "/v1/sentiment/predict"
SECRET = "xylophonist"


def raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


#: path, body, status, code, place
BAD: dict[str, tuple[str, Any, int, str, str | None]] = {
    "not JSON": (PREDICT, b'{"inputs": xylophonist', 400, "E-S730", None),
    "not UTF-8": (PREDICT, b'{"inputs": "xylophonist \xff"}', 400, "E-S730", None),
    "UTF-16": (PREDICT, '{"inputs": "a"}'.encode("utf-16"), 400, "E-S730", None),
    "nested too deep": (PREDICT, b'{"inputs": ' + b"[" * 100_000, 400, "E-S730", None),
    "nested": (PREDICT, b'{"inputs": ' + b"[" * 50 + b"]" * 50 + b"}", 422, "E-S742", "inputs[0]"),
    "NaN": (PREDICT, b'{"inputs": NaN}', 400, "E-S730", None),
    "Infinity": ("/v1/writer/generate", b'{"prompt": "a", "temperature": Infinity}', 400, "E-S730", None),
    "1e999": ("/v1/writer/generate", b'{"prompt": "a", "temperature": 1e999}', 422, "E-S742", "temperature"),
    "a number without end": (PREDICT, b'{"inputs": ' + b"9" * 10_000 + b"}", 400, "E-S730", None),
    "a name twice": (PREDICT, b'{"inputs": "a", "inputs": "b"}', 400, "E-S730", None),
    "no body": (PREDICT, b"", 422, "E-S742", ""),
    "a list": (PREDICT, ["a"], 422, "E-S742", ""),
    "no inputs": (PREDICT, {}, 422, "E-S742", "inputs"),
    "no input": (PREDICT, {"inputs": []}, 422, "E-S742", "inputs"),
    "65 texts": (PREDICT, {"inputs": ["a"] * 65}, 422, "E-S742", "inputs"),
    "100,001 characters": (PREDICT, {"inputs": ["a" * 60_000, "b" * 40_001]}, 413, "E-S740", "inputs"),
    "a million characters without a space": (PREDICT, {"inputs": "x" * 1_000_000}, 413, "E-S740", None),
    "2 MB": (PREDICT, {"inputs": "a " * 1_000_000}, 413, "E-S740", None),
    "a number": (PREDICT, {"inputs": ["a", 3]}, 422, "E-S742", "inputs[1]"),
    "an unknown field": (PREDICT, {"inputs": "a", "batch": 3}, 422, "E-S742", "batch"),
    "an unknown field of an input": (PREDICT, {"inputs": [{"text": "a", "xylophonist": 1}]}, 422, "E-S742",
                                     "inputs[0].xylophonist"),
    "a pair for one text": (PREDICT, {"inputs": [{"text": "a", "pair": "b"}]}, 422, "E-S742", "inputs[0].pair"),
    "one text for a pair": ("/v1/similar/predict", {"inputs": "a"}, 422, "E-S742", "inputs.pair"),
    "a question alone": ("/v1/answers/predict", {"inputs": [{"question": "who"}]}, 422, "E-S742", "inputs[0].context"),
    "an empty question": ("/v1/answers/predict", {"inputs": [{"question": "", "context": "a"}]}, 422, "E-D376", "inputs[0]"),
    "a mention beyond the text": ("/v1/relations/predict", {"inputs": [{"text": "Bill", "head": [0, 4], "tail": [2, 9]}]}, 422,
                                  "E-D381", "inputs[0]"),
    "a mention of text": ("/v1/relations/predict", {"inputs": [{"text": "Bill", "head": ["a", "b"], "tail": [0, 1]}]}, 422,
                          "E-D381", "inputs[0]"),
    "one choice": ("/v1/endings/predict", {"inputs": [{"text": "a", "choices": ["b"]}]}, 422, "E-S742", "inputs[0].choices"),
    "a task that it has not": (PREDICT, {"inputs": "a", "task": "fill-mask"}, 422, "E-S743", "task"),
    "a setting that it has not": (PREDICT, {"inputs": "a", "settings": {"top_k": 3}}, 422, "E-S743", "settings.top_k"),
    "a setting out of range": ("/v1/pair/predict", {"inputs": "a", "settings": {"top_k": 0}}, 422, "E-S742", "settings.top_k"),
    "scores of a classifier": ("/v1/sentiment/score", {"inputs": "a"}, 422, "E-S743", None),
    "what masks each of too many tokens": ("/v1/pair/score", {"inputs": ["Bill " * 9_000], "method": "pll"}, 422, "E-S745",
                                           "inputs[0]"),
    "an answer without end": ("/v1/pair/predict", {"inputs": ["[MASK] " * 2_000], "task": "fill-mask"}, 422, "E-S745",
                              "inputs[0]"),
    "writing by a classifier": ("/v1/sentiment/generate", {"prompt": "a"}, 422, "E-S743", None),
    "texts for a writer": ("/v1/writer/predict", {"inputs": "a"}, 422, "E-S743", "task"),
    "two prompts": ("/v1/writer/generate", {"prompt": "a", "inputs": "b"}, 422, "E-S742", "prompt"),
    "beams that are drawn": ("/v1/writer/generate", {"prompt": "a", "num_beams": 2, "do_sample": True}, 422, "E-C602",
                             "num_beams"),
    "room for none": ("/v1/writer/generate", {"prompt": "a", "max_new_tokens": 200}, 422, "E-C626", "max_new_tokens"),
    "several streams": ("/v1/writer/generate", {"prompt": ["a", "b"], "stream": True}, 422, "E-S742", "stream"),
    "an unknown model": ("/v1/xylophonist/predict", {"inputs": "a"}, 404, "E-S736", None),
    "an unknown model in the body": ("/v1/embeddings", {"model": "x", "input": "a"}, 404, "E-S736", None),
    "vectors of a classifier": ("/v1/embeddings", {"model": "sentiment", "input": "a"}, 422, "E-S743", "model"),
    "vectors not of length 1": ("/embed", {"inputs": "a", "normalize": False}, 422, "E-S742", "normalize"),
    "an unknown path": ("/v1/xylophonist", {"inputs": "a"}, 404, "E-S735", None),
    "a query": (f"{PREDICT}?text=xylophonist", {"inputs": "a"}, 400, "E-S731", None),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_has_one_clear_answer(server: Server, name: str) -> None:
    path, body, status, code, place = BAD[name]
    reply = server.ask("POST", path, body)
    assert (reply.status, reply.code) == (status, code), reply.body
    error = reply.json["error"]
    assert error["message"]
    assert error["mend"]
    assert error.get("path") == place
    assert "default-src 'self'" in reply.headers["content-security-policy"]
    assert server.predict("sentiment", "good").status == 200


def with_headers(server: Server, **headers: str) -> Reply:
    return server.post(PREDICT, {"inputs": SECRET}, **headers)


#: headers -> status, code
HEADERS: list[tuple[dict[str, str], int, str | None]] = [
    ({"Host": "evil.example"}, 403, "E-S733"),
    ({"Host": "127.0.0.1.evil.example"}, 403, "E-S733"),
    ({"Host": "127.0.0.2:80"}, 200, None),
    ({"Host": "localhost:1"}, 200, None),
    ({"Host": "[::1]:8000"}, 200, None),
    ({"Host": "8.8.8.8"}, 403, "E-S733"),
    ({"Host": "["}, 403, "E-S733"),
    ({"Origin": "http://evil.example"}, 403, "E-S734"),
    ({"Origin": "null"}, 403, "E-S734"),
    ({"Origin": "http://["}, 403, "E-S734"),
    ({"Origin": "http://localhost:9", "Host": "localhost:9"}, 200, None),
    ({"Content-Type": "text/plain"}, 415, "E-S741"),
    ({"Content-Type": "application/json; charset=latin-1"}, 415, "E-S741"),
    ({"Content-Type": "application/json; charset=utf-8"}, 200, None),
    ({"Content-Encoding": "gzip"}, 415, "E-S741"),
    ({"X-Request-Timeout": "soon"}, 400, "E-S731"),
    ({"X-Request-Timeout": "31"}, 400, "E-S731"),
    ({"X-Request-Timeout": "29.5"}, 200, None),
]


@pytest.mark.parametrize(("headers", "status", "code"), HEADERS)
def test_headers_decide_who_may_ask(server: Server, headers: dict[str, str], status: int, code: str | None) -> None:
    reply = with_headers(server, **headers)
    assert reply.status == status
    assert code is None or reply.code == code
    assert not any(name.startswith("access-control") for name in reply.headers)


def test_methods_and_the_page(server: Server) -> None:
    assert server.ask("GET", PREDICT).code == "E-S737"
    assert server.ask("OPTIONS", PREDICT, headers={"Origin": "http://evil.example"}).code == "E-S734"
    assert server.ask("DELETE", "/v1/models").status == 405
    for path in ("/docs", "/redoc", "/web/..%2fapp.py", "/web/../app.py", "/web/%2e%2e/app.py", "/v1/models/"):
        assert server.ask("GET", path).status == 404, path
    policy = server.ask("GET", "/livez").headers
    assert policy["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in policy["content-security-policy"]
    assert "unsafe" not in policy["content-security-policy"]


TEXTS = ["", " \n\t", "\x00", "a\x00b", "\ud800", "a \udfff", "\u202egood", "e" + "\u0301" * 10_000, "x" * 100_000,
         "\U0001f600" * 10_000, "[SEP]"]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: f"{text!a:.12}")
def test_any_text_is_answered(server: Server, text: str) -> None:
    assert server.predict("sentiment", text).status == 200
    assert server.predict("pair", text).status == 200
    assert server.predict("names", text).status == 200


def test_a_declared_length_beyond_all_bounds_is_not_waited_for(server: Server) -> None:
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with server.connect() as socket:
        socket.sendall(f"{head}Content-Length: 99999999999\r\n\r\n".encode())
        answer = b""
        while chunk := socket.recv(4096):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"E-S740" in answer


def test_what_is_no_http_is_told_so(server: Server) -> None:
    for sent in (
        b"xylophonist\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20_000,
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    ):
        with server.connect() as socket:
            socket.sendall(sent)
            assert socket.recv(4096).startswith(b"HTTP/1.1 400 ")


def test_the_log_holds_no_text(server: Server) -> None:
    """Whatever was asked before it, by the tests above too."""
    with_headers(server)
    server.ask("GET", f"/{SECRET}?{SECRET}")
    server.post(f"/v1/{SECRET}/predict", {"inputs": SECRET, SECRET: SECRET}, Authorization=f"Bearer {SECRET}")
    log = server.log.read_text(encoding="utf-8")
    assert "POST /v1/{model}/predict model=sentiment 200" in log
    assert SECRET not in log
    assert "bug" not in log


def test_keys(start: Start) -> None:
    server = start("sentiment", keys=("k" * 20, "first-of-all-keys"))
    asked = {"inputs": "good"}
    assert server.post(PREDICT, asked).code == "E-S732"
    assert server.post(PREDICT, asked).headers["www-authenticate"] == "Bearer"
    for wrong in ("Bearer", "Bearer ", "Bearer x", f"Basic {'k' * 20}", f"Bearer {'k' * 21}", "Bearer é"):
        assert server.post(PREDICT, asked, Authorization=wrong).status == 401, wrong
    for right in ("Bearer first-of-all-keys", f"bearer {'k' * 20}"):
        assert server.post(PREDICT, asked, Authorization=right).status == 200
    for path in ("/v1/models", "/metrics", "/openapi.json", "/weby", "/x"):
        assert server.ask("GET", path).status == 401, path
    assert [server.ask("GET", path).status for path in ("/livez", "/readyz")] == [200, 200]
    assert server.ask("GET", "/web/none.js").status == 404
    assert "k" * 20 not in server.log.read_text(encoding="utf-8")
    schema = server.ask("GET", "/openapi.json", headers={"Authorization": f"Bearer {'k' * 20}"}).json
    assert schema["security"] == [{"key": []}]
    assert json.dumps(schema).find("k" * 20) == -1
