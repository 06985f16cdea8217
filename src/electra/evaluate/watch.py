"""A live page: a report that keeps up with its run, for browsers of this machine.

In: a function that draws the page and the logs that it is drawn from. Out: an HTTP server on 127.0.0.1, until Ctrl-C. The page
is drawn when it is asked for and a log has grown since, and tells the browser to ask again (header `Refresh`); nothing is
written. From elsewhere it is reached through ssh, `ssh -L 8321:127.0.0.1:8321 machine`, which is why it is a server and not a
file that is written again and again.

It answers GET for `/` alone, and only to a Host that is this machine: a foreign page that has made its name point here
(DNS rebinding) is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from electra.errors import ElectraError
from electra.evaluate.page import page

_HERE = ("127.0.0.1", "localhost")
#: seconds after which a browser asks again
_REFRESH = 5
#: seconds after which a silent connection is closed
_PATIENCE = 30


@dataclass
class LivePage:
    """A page that is drawn again when one of its logs has changed.

    Args:
        draw: gives the HTML.
        logs: files that it is drawn from.
    """

    draw: Callable[[], str]
    logs: Sequence[Path]
    _seen: list[tuple[int, int] | None] | None = None
    _html: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def html(self) -> str:
        """The page as of now; a run that is not there, or no longer, is said so in it."""
        with self._lock:  # matplotlib's settings belong to the process
            now = [(log.stat().st_mtime_ns, log.stat().st_size) if log.is_file() else None for log in self.logs]
            if now != self._seen:
                try:
                    self._html = self.draw()
                except ElectraError as error:
                    self._html = page("waiting", f"<p>{escape(str(error))}</p>")
                self._seen = now
            return self._html


class LiveServer(ThreadingHTTPServer):
    """Serves a live page on 127.0.0.1.

    Args:
        live: the page.
        port: 0 = any that is free.

    Raises:
        ElectraError: E-R320, the port is taken.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, live: LivePage, port: int) -> None:
        self.live = live
        try:
            super().__init__((_HERE[0], port), _Handler)
        except (OSError, OverflowError) as error:
            cause = f"cannot listen there: {getattr(error, 'strerror', None) or error}"
            raise ElectraError("E-R320", f"127.0.0.1:{port}", cause, "choose another --port") from None

    @property
    def address(self) -> str:
        return f"http://{_HERE[0]}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE
    server: LiveServer

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in _HERE:
            self.send_error(HTTPStatus.FORBIDDEN, "this page is for browsers of this machine")
        elif self.path != "/":
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            body = self.server.live.html().encode("utf-8", "backslashreplace")
            self.send_response(HTTPStatus.OK)
            for name, value in (
                ("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body))), ("Refresh", str(_REFRESH)),
                ("Cache-Control", "no-store"),
            ):  # fmt: skip
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal belongs to who started it."""
