"""Torch's elastic agent (what `torchrun` runs) with workers that run the command line; started by test_runs.py.

Given as the global GIVEN: `argv`, `size`, `directory` (of the workers' logs), `moments` by rank (those of resume/child.py),
which count in the first attempt.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from pathlib import Path
from typing import Any

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

#: None where a worker first reads the file that its parent was started with
given: dict[str, Any] | None = globals().get("GIVEN")

if given is not None and "worker" in given:  # in a worker, which the agent has told who it is
    attempt, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]
    log = str(Path(given["directory"]) / f"attempt-{attempt}-{rank}.log")
    moments = given["moments"].get(rank, []) if attempt == "0" else []
    child = {"argv": given["argv"], "threads": 1, "log": log, "file_limit": -1, "moments": moments}
    runpy.run_path(str(Path(__file__).parents[1] / "resume" / "child.py"), {"GIVEN": child}, "__main__")
elif given is not None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    server = ["electra.cli", "electra.build.pretrain", "torch.distributed.fsdp", "torch._dynamo", "rich.console", "rich.text"]
    multiprocessing.get_context("forkserver").set_forkserver_preload(server)
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=given["size"], max_restarts=1, rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0", start_method="forkserver", monitor_interval=0.1,
    )  # fmt: skip
    sys.stdout = sys.stderr = Path(given["log"]).open("w", encoding="utf-8", buffering=1)  # noqa: SIM115
    elastic_launch(config, runpy.run_path)(__file__, {"GIVEN": {**given, "worker": True}}, "__main__")
