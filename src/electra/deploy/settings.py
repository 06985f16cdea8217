"""What `electra serve` is told, and the limits that hold for every server.

In: options of the command line. Out: a checked, frozen `ServeSettings`. What keeps one request from taking the machine is not
for choosing: those limits are constants here, and docs/serving.md lists them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from electra.errors import ElectraError

#: bytes of a request's body, and how many more are read before a longer one is answered
BODY_BYTES, DISCARDED_BYTES = 1_000_000, 16_000_000
#: texts of a request, and the characters of all of them
TEXTS, CHARACTERS = 64, 100_000
#: tokens that a network reads for one request, windows and masked copies counted
REQUEST_TOKENS = 1 << 18
#: characters of proposals that repeat a text, in one answer
ANSWER_CHARACTERS = 4_000_000
#: tokens that may wait, of all models together; one more request is let in below it
QUEUED_TOKENS = 1 << 16
#: tokens that are computed before it is another model's turn; seconds of writing
TURN_TOKENS, TURN_SECONDS = 8192, 0.05
#: seconds a request's head may take, from the connection or the answer before; seconds of its body, of an unread answer
IDLE_SECONDS, BODY_SECONDS, UNREAD_SECONDS = 15.0, 10.0, 30.0
#: seconds after which a client is told that the server is full
REFUSED_SECONDS = 0.1
#: bytes of a request's head
HEAD_BYTES = 16_384
#: connections at most; above, the one that has been silent longest is closed
CONNECTIONS = 4096
#: seconds for which a server that ends still answers on open connections
LINGER_SECONDS = 1.0
#: characters of a key at least
KEY_LENGTH = 16

_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Settings of `electra serve`.

    Args:
        host: address to listen at; any but this machine's own needs a key.
        port: 0 = any that is free.
        keys: what callers show as `Authorization: Bearer KEY`; none = everybody may ask.
        hosts: names in a request's `Host` that are allowed beside this machine's own.
        timeout: seconds that a request may take; a caller may ask for fewer.
        queue: requests that may be waited for at the same time.
        log: a line on standard error for each request, without its texts.

    Raises:
        ElectraError: E-C732 a value out of its bounds, E-C733 a key that is too short.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = field(default=(), repr=False)
    hosts: tuple[str, ...] = ()
    timeout: float = 30.0
    queue: int = 256
    log: bool = False

    def __post_init__(self) -> None:
        bounds = {"port": (self.port, 0, 65_535), "timeout": (self.timeout, 0.1, 600), "queue": (self.queue, 1, 10_000)}
        for name, (value, least, most) in bounds.items():
            if not least <= value <= most:
                raise ElectraError("E-C732", f"--{name}", f"{value:g} is out of range", f"give {least:g} to {most:g}")
        for name in self.hosts:
            if not _HOST.fullmatch(name.lower()):
                raise ElectraError(
                    "E-C732", "--allow-host", f"{name!r} is no name of a host", "give it without port and scheme"
                )
        for key in self.keys:
            if len(key) < KEY_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
                raise ElectraError("E-C733", "key", f"has fewer than {KEY_LENGTH} characters, or not ASCII ones",
                                   "python -c 'import secrets; print(secrets.token_urlsafe())' makes one")  # fmt: skip


def keys_of(file: Path | None, variable: str | None) -> tuple[str, ...]:
    """The keys of a file, one a line, and of an environment variable.

    Raises:
        ElectraError: E-C733 a file that cannot be read or has no key, an empty variable.
    """
    if variable is not None and not variable.strip():
        raise ElectraError("E-C733", "ELECTRA_API_KEY", "is empty", "unset it, or put a key into it")
    found = [] if variable is None else [variable.strip()]
    if file is not None:
        try:
            lines: Sequence[str] = file.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            cause = getattr(error, "strerror", None) or "is not UTF-8"
            raise ElectraError("E-C733", str(file), cause, "give a text file with a key a line") from None
        keys = [line.strip() for line in lines if line.strip()]
        if not keys:
            raise ElectraError("E-C733", str(file), "has no key", "write one a line")
        found += keys
    return tuple(found)
