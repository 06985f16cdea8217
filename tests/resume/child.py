"""Runs the command line in a forked child that sends itself signals at chosen calls; for tests of resuming and of groups.

Given as the global GIVEN: `argv` (after `electra`), `environment` (variables to set), `threads`, `log` (file for what it
prints), `file_limit` (bytes that a file may have; -1 = any number) and `moments`: (module, dotted name, number of the call,
signals). A moment is deterministic where a parent that watches a log would only come close. In modules of `no_dropout` (where
given) nothing is dropped.
"""

from __future__ import annotations

import importlib
import os
import resource
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import reduce
from pathlib import Path
from typing import Any

import torch

from electra.build import finetune, pretrain, sweep
from electra.cli import main

given: dict[str, Any] = globals()["GIVEN"]


def arm(module: str, name: str, call: int, signals: list[int]) -> None:
    """Send `signals` to this process when `module.name` is called for the `call`-th time (counted from 1), before it acts."""
    *owners, attribute = name.split(".")
    owner = reduce(getattr, owners, importlib.import_module(module))
    original, calls = getattr(owner, attribute), 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            for number in signals:
                os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    setattr(owner, attribute, counted)


os.environ |= given.get("environment", {})
torch.set_num_threads(given["threads"])
resource.setrlimit(resource.RLIMIT_FSIZE, (given["file_limit"], resource.RLIM_INFINITY))
for room in (pretrain, finetune, sweep):
    room.write_report = lambda directory: directory  # type: ignore[assignment]  # pictures take longer than the run
pretrain._PROBE_SECONDS = 0.0  # the dry batch of each phase alone, so that calls can be counted
for module in given.get("no_dropout", []):
    importlib.import_module(module).dropout = lambda x, p: x  # type: ignore[attr-defined]
for moment in given["moments"]:
    arm(*moment)
sys.argv = ["electra", *given["argv"]]
with Path(given["log"]).open("a", encoding="utf-8", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
    main()
