"""Connections that cost nobody but themselves: an uvicorn protocol with patience that ends.

uvicorn bounds the time between two requests, but not that of a request's head: a client that sends a byte now and then keeps
its connection for ever. Here one clock runs from the connection, or the end of an answer, to the end of the next head, whatever
comes meanwhile; another for an answer that nobody reads. Where there are as many connections as there may be, the one that has
been silent longest makes room for a new one. The time of a body is bounded by the gate.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from electra.deploy.settings import CONNECTIONS, IDLE_SECONDS, UNREAD_SECONDS


class Crowd:
    """The connections of a server.

    Args:
        most: there may be.

    Attributes:
        silent: those that wait for a request, the oldest first.
    """

    def __init__(self, most: int = CONNECTIONS) -> None:
        self.most = most
        self.silent: dict[PatientProtocol, None] = {}


class PatientProtocol(H11Protocol):
    """One connection; see the module.

    Args:
        crowd: it belongs to.
        given: as uvicorn gives it.
    """

    def __init__(self, crowd: Crowd, **given: Any) -> None:
        super().__init__(**given)
        self._crowd = crowd
        self._clock: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._crowd.most and self._crowd.silent:
            next(iter(self._crowd.silent))._leave()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hear()
        self.resume_writing()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._hear()

    def on_response_complete(self) -> None:
        self._wait()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self._unread or self.loop.call_later(UNREAD_SECONDS, self._leave)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _wait(self) -> None:
        """For a request, from now."""
        self._hear()
        self._crowd.silent[self] = None
        self._clock = self.loop.call_later(IDLE_SECONDS, self._leave)

    def _hear(self) -> None:
        """There is a request."""
        self._crowd.silent.pop(self, None)
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _leave(self) -> None:
        """Close, whatever has not been read."""
        self._crowd.silent.pop(self, None)
        self.transport.abort()
