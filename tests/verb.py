"""Runs the command line in a forked child; started by the fixture `process` of conftest.py.

Given as the global GIVEN: `argv` (after `electra`), `file_limit` (bytes that a file may have; -1 = any number) and `told`, a
connection to which what was written to the two streams is sent.
"""

from __future__ import annotations

import io
import resource
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from electra.cli import main

given: dict[str, Any] = globals()["GIVEN"]

resource.setrlimit(resource.RLIMIT_FSIZE, (given["file_limit"], resource.RLIM_INFINITY))
sys.argv = ["electra", *given["argv"]]
out, err = io.StringIO(), io.StringIO()
try:
    with redirect_stdout(out), redirect_stderr(err):
        main()
finally:
    given["told"].send((out.getvalue(), err.getvalue()))
