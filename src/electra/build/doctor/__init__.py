"""What `electra doctor` looks at: whether this machine, its packages and a run directory will do.

In: the directory of a run, which need not exist yet. Out: a stream of `Check`s, each with what was found and what to do.

Nothing is concluded from names where it can be tried: files are synced and renamed, ports are bound, a network is trained.
A check that itself fails is a finding, too: a torch that does not load is what somebody asks a doctor about. So nothing heavy
is imported here, only inside of the checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from electra.build.doctor import hardware, packages, places, training
from electra.build.doctor.check import Check
from electra.errors import ElectraError
from electra.storage import standing

__all__ = ["Check", "examine"]


def examine(run_dir: Path, seconds: float) -> Iterator[Check]:
    """All checks, each made when it is asked for.

    Args:
        run_dir: where a run is, or will be; nothing stays there.
        seconds: of training; 0 = none.

    Raises:
        ElectraError: E-C850 `run_dir` is a file, E-C851 a negative time.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise ElectraError("E-C850", str(run_dir), "is no directory", "give the directory of a run, or none")
    if seconds < 0:
        raise ElectraError("E-C851", "--seconds", f"{seconds:g} is below 0", "give the seconds of training, or 0 for none")
    return _made(run_dir.absolute(), seconds)


def _made(run_dir: Path, seconds: float) -> Iterator[Check]:
    yield from packages.checks()
    directory = standing(run_dir)
    checks: dict[str, Callable[[], Check]] = {
        "cores": hardware.cores,
        "memory": hardware.memory,
        "precision": hardware.precision,
        "gpu": hardware.gpu,
        "shared memory": places.shared_memory,
        "file system": partial(places.file_system, directory),
        "disk": partial(places.disk, directory),
        "rename and fsync": partial(places.rename_and_fsync, directory),
        "locks": partial(places.locks, directory),
        **{f"port {number}": partial(places.port, number) for number in places.PORTS},
    }
    for name, check in checks.items():
        yield _tried(name, check)
    if seconds:
        yield _tried("training", partial(training.training, seconds))


def _tried(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:
        found = f"could not be looked at: {type(error).__name__}: {error}"
        return Check(name=name, state="fail", found=found, mend="see what is said of the packages above, and mend that first")
