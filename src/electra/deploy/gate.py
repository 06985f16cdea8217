"""Before the routes: who may ask, and what of; after them: headers, counters, a line in the log.

In order: a known Host (so that no foreign page whose name was made to point here can ask: DNS rebinding), an Origin that is
this page's own for all that is not GET or HEAD, a key where there are keys, no query but at the page, JSON as the kind of a
body, and the body itself, whole, within its time and size. Keys are compared by their hashes, all of them, in constant time.

Whatever goes wrong behind it is answered here as an error that holds none of the request's text; the log has none either.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import socket
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from electra.deploy.refusal import Refusal
from electra.deploy.service import Gone, Service
from electra.deploy.settings import BODY_BYTES, BODY_SECONDS, DISCARDED_BYTES, REFUSED_SECONDS

#: what anybody may read: whether the server lives, and the page, which holds nothing of the models
_OPEN = ("/livez", "/readyz", "/", "/web/")
_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Gate:
    """ASGI around the application; see the module.

    Args:
        app: the routes.
        service: whose settings hold, and which is told what happened.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service
        settings = service.settings
        self._keys = [hashlib.sha256(key.encode()).digest() for key in settings.keys]
        self._hosts = {"localhost", settings.host.lower(), socket.gethostname().lower(), *map(str.lower, settings.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, reply = time.perf_counter(), _Reply(send, self._closing)
        try:
            headers = Headers(scope=scope)
            self._check(scope, headers)
            if scope["method"] == "POST":  # before anything of it is read: to refuse must cost little
                self.service.batcher.check_room(self.service.settings.timeout)
            body = await self._body(scope, headers, receive)
            await self.app(scope, _again(body, receive), reply)
        except Refusal as refusal:
            if refusal.status_code == 429:
                await asyncio.sleep(REFUSED_SECONDS)  # who asks again at once, and again, may not take the processor
            if not reply.started:
                await refusal.response()(scope, receive, reply)
        except Gone:
            reply.status = 499  # nginx's word for it; nobody reads it
            if not reply.started:
                await Refusal(408, "E-S739", "nobody waits", "ask again").response()(scope, receive, reply)
        except Exception as error:
            _say_where(error)  # the application has answered it
        finally:
            self._count(scope, reply, time.perf_counter() - began)

    def _closing(self) -> bool:
        return self.service.draining

    # -- who may ask ----------------------------------------------------------------------------------------------------

    def _check(self, scope: Scope, headers: Headers) -> None:
        path, method, host = scope["path"], scope["method"], headers.get("host", "")
        if not self._known(host, scope):
            raise Refusal(403, "E-S733", "the Host of this request is not one of this server's",
                          "use its address, or start it with --allow-host NAME")  # fmt: skip
        if method not in ("GET", "HEAD") and not _same_origin(headers.get("origin"), host):
            raise Refusal(403, "E-S734", "a page of another origin asks", "ask from this server's page, or without a browser")
        if self._keys and not any(path == one or (one == "/web/" and path.startswith(one)) for one in _OPEN):
            self._check_key(headers.get("authorization", ""))
        if scope["query_string"] and path != "/":
            raise Refusal(400, "E-S731", "there are no query parameters", "send JSON as the body")

    def _known(self, host: str, scope: Scope) -> bool:
        """An address is no name that anybody can make point here, so that at which the connection came in is allowed."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self._hosts
        return (
            address.is_loopback or name in self._hosts or (scope["server"] is not None and str(address) == scope["server"][0])
        )

    def _check_key(self, given: str) -> None:
        kind, _, key = given.partition(" ")
        shown = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        found = [hmac.compare_digest(shown, known) for known in self._keys]  # all of them, so that time tells nothing
        if kind.lower() != "bearer" or not any(found):
            raise Refusal(401, "E-S732", "this server asks for a key", "send the header Authorization: Bearer KEY",
                          headers={"WWW-Authenticate": "Bearer"})  # fmt: skip

    # -- what of --------------------------------------------------------------------------------------------------------

    async def _body(self, scope: Scope, headers: Headers, receive: Receive) -> bytes:
        """The whole body; a longer one is read on for a while, so that its sender is there to read the answer."""
        if scope["method"] != "POST":
            return b""
        kind, _, charset = headers.get("content-type", "").lower().partition(";")
        plain = charset.strip() in ("", "charset=utf-8", 'charset="utf-8"')
        if kind.strip() != "application/json" or not plain or headers.get("content-encoding", "identity") != "identity":
            raise Refusal(415, "E-S741", "the body is not declared as JSON in UTF-8",
                          "send the header Content-Type: application/json, and no Content-Encoding")  # fmt: skip
        too_large = Refusal(413, "E-S740", f"the body is longer than {BODY_BYTES:,} bytes", "send less text at once",
                            headers={"Connection": "close"})  # fmt: skip
        declared = headers.get("content-length", "0")
        if len(declared) > 12 or int(declared) > DISCARDED_BYTES:
            raise too_large
        parts, size = list[bytes](), 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while (message := await receive())["type"] == "http.request":
                    size += len(message.get("body", b""))
                    if size <= BODY_BYTES:
                        parts.append(message.get("body", b""))
                    if size > DISCARDED_BYTES:
                        raise too_large
                    if not message.get("more_body", False):
                        break
                else:
                    raise Gone
        except TimeoutError:
            raise Refusal(408, "E-S738", f"the body did not come within {BODY_SECONDS:g} seconds", "send it at once",
                          headers={"Connection": "close"}) from None  # fmt: skip
        if size > BODY_BYTES:
            raise too_large
        return b"".join(parts)

    # -- afterwards -----------------------------------------------------------------------------------------------------

    def _count(self, scope: Scope, reply: _Reply, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")  # never the path itself: it may hold anything
        self.service.counters.add("electra_requests_total", route=route, status=str(reply.status))
        self.service.counters.observe("electra_request_seconds", seconds, route=route)
        if self.service.settings.log:
            name = scope.get("path_params", {}).get("model")
            model = f" model={name}" if name in self.service.models else ""
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            print(
                f"{now} {scope['method']:.8} {route}{model} {reply.status} {seconds * 1000:.1f} ms", file=sys.stderr, flush=True
            )


def _say_where(error: Exception) -> None:
    """Where an error of ours came from, on standard error; not its words, which may hold text."""
    frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)[-6:]]
    print(f"bug: {type(error).__name__} at {' < '.join(reversed(frames))}", file=sys.stderr, flush=True)


def _same_origin(origin: str | None, host: str) -> bool:
    """A browser says whose page asks; others say nothing."""
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that has been read, to be read again; then what comes after it."""
    waiting = [body]

    async def read() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return read


class _Reply:
    """`send` with the headers that every answer has."""

    def __init__(self, send: Send, closing: Callable[[], bool]) -> None:
        self._send, self._closing = send, closing
        self.started, self.status = False, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.status = True, self.status or message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
            if self._closing():
                headers["Connection"] = "close"
        await self._send(message)
