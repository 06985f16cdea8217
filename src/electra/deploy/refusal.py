"""What a caller is told when it gets no answer: a status, and an error with code, message, the place in its JSON, and a mend.

{"error": {"code": "E-S742", "message": "...", "path": "inputs[3].text", "mend": "..."}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response


class Refusal(HTTPException):
    """A request that is not answered.

    Args:
        status: of HTTP.
        code: as in docs/errors.md.
        message: what is wrong.
        mend: what to do about it.
        path: the place in the request's JSON; None = it is not about one.
        headers: further ones of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        mend: str,
        path: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.code, self.message, self.mend, self.path = code, message, mend, path

    def error(self) -> dict[str, Any]:
        """The error as JSON."""
        place = {} if self.path is None else {"path": self.path}
        return {"code": self.code, "message": self.message, **place, "mend": self.mend}

    def response(self) -> Response:
        return Json({"error": self.error()}, self.status_code, self.headers)


class Json(Response):
    """JSON in UTF-8; half a surrogate pair, which UTF-8 cannot hold, stays an escape.

    Raises:
        ValueError: a number that is not finite.
    """

    media_type = "application/json"

    def __init__(self, content: object, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(to_json(content), status_code, headers)


def to_json(content: object) -> bytes:
    """JSON as bytes. Raises ValueError, a number that is not finite."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")
