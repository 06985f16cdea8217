"""Runs the command line in a forked child that sends itself signals at chosen calls; started by test_resume.py.

Given as globals: ARGV (after `electra`), THREADS, LOG (file for what it prints), FILE_LIMIT (bytes that a file may have; -1 =
any number) and MOMENTS: (module, dotted name, number of the call, signals). A moment is deterministic where a parent that
watches a log would only come close.
"""

from __future__ import annotations

import importlib
import os
import resource
import sys
from functools import reduce
from pathlib import Path
from typing import Any

import torch

from electra.build import pretrain
from electra.cli import main

ARGV: list[str]
THREADS: int
LOG: str
FILE_LIMIT: int
MOMENTS: list[tuple[str, str, int, list[int]]]


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


torch.set_num_threads(THREADS)
resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, resource.RLIM_INFINITY))
pretrain.write_report = lambda directory: directory  # type: ignore[assignment]  # pictures take longer than the run
pretrain._PROBE_SECONDS = 0.0  # the dry batch of each phase alone, so that calls can be counted
for moment in MOMENTS:
    arm(*moment)
sys.argv = ["electra", *ARGV]
sys.stdout = sys.stderr = Path(LOG).open("a", encoding="utf-8", buffering=1)
main()
