"""One finding of `electra doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was looked at.

    Args:
        name: of what was looked at.
        state: `ok`; `warn`, it works but may surprise; `fail`, something will not work.
        found: what is there.
        mend: what to do; empty where nothing needs to be done.
    """

    name: str
    state: State
    found: str
    mend: str = ""
