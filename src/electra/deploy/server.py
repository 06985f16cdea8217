"""The server's life: an address, models, answers, an end that loses nothing.

The address is taken before the models are loaded, so that a taken one is told at once; connections are accepted when all of
them are there. A first SIGTERM or SIGINT lets it end: /readyz says 503, connections that were made are still heard, each answer
is the last of its connection, what was accepted is answered, the exit code is 0. A second one ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ipaddress
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import uvicorn

from electra.deploy.app import build_app
from electra.deploy.connection import Crowd, PatientProtocol
from electra.deploy.familiar import add_familiar
from electra.deploy.gate import Gate
from electra.deploy.openapi import add_schema
from electra.deploy.served import ServedModel
from electra.deploy.service import Service
from electra.deploy.settings import CONNECTIONS, HEAD_BYTES, IDLE_SECONDS, LINGER_SECONDS, ServeSettings
from electra.deploy.writing import add_writing
from electra.errors import ElectraError

#: open files that are not connections
_FILES = 128
#: the worker gives Python's lock away at each operation of torch, and gets it back from a busy event loop after this time; with
#: the usual .005 a batch of some hundred operations takes seconds longer
_SWITCH_SECONDS = 0.0002
_ATTACH_FILTER = 26  # SO_ATTACH_FILTER, which Python has no name for
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve(models: Callable[[], Sequence[ServedModel]], settings: ServeSettings, say: Callable[[str], None]) -> None:
    """Serve until a signal.

    Args:
        models: loads them.
        settings: of the server.
        say: is told address and models when requests are accepted.

    Raises:
        ElectraError: E-C730 an address of other machines without a key, E-R730 an address that cannot be taken; and those of
            `models`.
    """
    with contextlib.closing(take(settings)) as listener:
        service = Service(models(), settings)

        def tell() -> None:
            host, port = listener.getsockname()[:2]
            say(
                f"serving http://{f'[{host}]' if ':' in host else host}:{port} ({'with' if settings.keys else 'without'} a key)"
            )
            for model in service.models.values():
                say(f"  {model.name}: {', '.join(model.tasks)}")

        service.start()
        sys.setswitchinterval(_SWITCH_SECONDS)
        Running(service, tell).run_on(listener)
        service.close()


def take(settings: ServeSettings) -> socket.socket:
    """A socket bound to the address, which does not listen yet.

    Raises:
        ElectraError: E-C730 an address of other machines without a key, E-R730 an address that cannot be taken.
    """
    where = f"{settings.host}:{settings.port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise _taken(where, error) from None
    if not settings.keys and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise ElectraError("E-C730", "--host", f"{settings.host} can be reached from other machines, and there is no key",
                           "give --api-key-file or set ELECTRA_API_KEY, or leave --host out")  # fmt: skip
    # asyncio sends at once (TCP_NODELAY) where a socket is said to be TCP's; else an answer waits for an acknowledgement, 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _taken(where, error) from None
    return listener


def _taken(where: str, error: Exception) -> ElectraError:
    return ElectraError("E-R730", where, f"cannot listen there: {getattr(error, 'strerror', None) or error}",
                        "choose another --port, or --host")  # fmt: skip


class Running(uvicorn.Server):
    """uvicorn with this module's way to end.

    Args:
        service: what is served.
        tell: called when requests are accepted.
    """

    def __init__(self, service: Service, tell: Callable[[], None]) -> None:
        crowd = Crowd(_connections())
        app = build_app(service)
        for add in (add_familiar, add_writing, add_schema):
            add(app, service)
        super().__init__(uvicorn.Config(
            Gate(app, service), http=cast(Any, partial(PatientProtocol, crowd)), ws="none", lifespan="off",
            loop="asyncio", log_config=None, log_level="critical", access_log=False, server_header=False, proxy_headers=False,
            timeout_keep_alive=int(IDLE_SECONDS), h11_max_incomplete_event_size=HEAD_BYTES, backlog=2048,
            timeout_graceful_shutdown=int(service.settings.timeout) + 5,
        ))  # fmt: skip
        self._service, self._tell, self._crowd = service, tell, crowd

    def run_on(self, listener: socket.socket) -> None:
        """Serve on a bound socket until a signal. Raises ElectraError E-R730: somebody else listens there meanwhile."""
        try:
            self.run(sockets=[listener])
        except OSError as error:
            raise _taken("{}:{}".format(*listener.getsockname()[:2]), error) from None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals ask for this module's end, while it serves."""
        loop, before = asyncio.get_running_loop(), {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._asked_to_end, number)
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _asked_to_end(self, number: int) -> None:
        if self._service.draining:
            print("ended at once: requests were lost", file=sys.stderr, flush=True)
            os._exit(128 + number)
        self._service.draining = self.should_exit = True
        print("ending: accepted requests are answered; a second signal ends at once", file=sys.stderr, flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the door when those before it are in; hear, for a moment, those who are; then uvicorn's own end."""
        for listener in sockets or ():
            _let_nobody_come(listener)
        for _ in range(4):  # the loop accepts those whom the system has connected
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        ends = asyncio.get_running_loop().time() + LINGER_SECONDS
        while self._crowd.silent and asyncio.get_running_loop().time() < ends:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


def _let_nobody_come(listener: socket.socket) -> None:
    """Have Linux drop what knocks from now on, by a filter that lets nothing pass: who would be connected and never accepted
    would be lost. Other systems have no such filter."""
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET: 0 bytes pass
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(drop_all)))


def _connections() -> int:
    """As many as there are open files for, up to the limit that the process may give itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + _FILES
    if soft < wanted and soft != resource.RLIM_INFINITY:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return CONNECTIONS if soft == resource.RLIM_INFINITY else max(16, min(CONNECTIONS, soft - _FILES))
