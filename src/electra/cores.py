"""How many cores a process may keep busy: its affinity, and the quota of its container."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUPS, _OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def available_cores() -> int:
    """Cores that this process may keep busy: those it may run on, within the quota of its container.

    A container with a quota still sees the cores of its host, and threads beyond the quota only wait for one another.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *_quotas(_CGROUPS, _OWN_CGROUP)]))


def _quotas(root: Path, own: Path) -> list[int]:
    """Whole cores of every quota that holds for this process: its control group's and those above it, versions 2 and 1."""
    lines = own.read_text(encoding="utf-8").splitlines() if own.is_file() else []
    found = []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if not controllers:
            tree = root
        elif "cpu" in controllers.split(","):
            tree = root / controllers if (root / controllers).is_dir() else root / "cpu"
        else:
            continue
        group = tree / path.lstrip("/")
        for place in (group, *group.parents):
            found += _quota(place)
            if place == tree:
                break
    return found


def _quota(group: Path) -> list[int]:
    """The whole cores of a control group's own quota, if it has one."""
    both = group / "cpu.max"
    if both.is_file():
        quota, period = both.read_text(encoding="ascii").split()
    elif (group / "cpu.cfs_quota_us").is_file():
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text(encoding="ascii").strip() for name in ("quota", "period"))
    else:
        return []
    return [int(quota) // int(period)] if quota.isdecimal() else []
