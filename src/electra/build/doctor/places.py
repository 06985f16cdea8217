"""Where a run writes and listens: the file system, its room, renaming and syncing, locks, /dev/shm, ports.

A run is safe if three things hold in its directory: what was synced is on the disk, a renaming happens whole or not at all, and
the directory itself can be synced. Local disks do that; some network file systems and object stores do not, so it is tried
with the calls of `storage.py`. What only a power cut would show (a disk that lies about fsync) is not found out this way.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from electra.build.doctor.check import Check
from electra.events import size
from electra.storage import sync

#: of the server, and of the live page
PORTS = (8000, 8321)
#: bytes below which not even the smallest run fits, and those that a small one fills with its checkpoints
_NO_DISK, _LITTLE_DISK = 100 << 20, 5 << 30
_LITTLE_SHARED_MEMORY = 512 << 20
_FEW_FILES = 1000

_NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "afs",
    "ceph",
    "lustre",
    "beegfs",
    "gpfs",
    "panfs",
    "fuse.sshfs",
    "fuse.glusterfs",
    "ocfs",
)
_OBJECT_STORES = ("fuse.s3fs", "fuse.gcsfuse", "fuse.goofys", "fuse.rclone", "fuse.blobfuse", "fuse.mount-s3", "fuse.geesefs")
_ELSEWHERE = "give the directory of a run on a local disk"


# -- the directory of a run ------------------------------------------------------------------------------------------------


def file_system(directory: Path, mounts: Path = Path("/proc/self/mounts")) -> Check:
    """What it is, and what its kind is known for.

    Args:
        directory: exists.
        mounts: the system's table of mounts.
    """
    if not mounts.is_file():
        return Check(name="file system", state="ok", found="this system does not say what it is")
    point, kind = _mount(directory, mounts)
    found = f"{kind} at {point}, for {directory}"
    if kind.startswith(_OBJECT_STORES):
        mend = f"{_ELSEWHERE}: an object store does not rename in one step"
    elif kind.startswith(_NETWORK):
        mend = "safe as far as its server is: NFS has to be exported with `sync`; one machine at a time writes a run"
    elif kind in ("tmpfs", "ramfs"):
        mend = f"{_ELSEWHERE}: this one is memory, and gone when the machine restarts"
    elif kind == "overlay":
        mend = "mount a volume there: what a container writes to its own layer goes with it"
    else:
        return Check(name="file system", state="ok", found=found)
    return Check(name="file system", state="warn", found=found, mend=mend)


def _mount(directory: Path, mounts: Path) -> tuple[str, str]:
    """(mount point, kind) of the file system of a directory."""
    resolved, best = directory.resolve(), ("/", "unknown")
    for line in mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        _, escaped, kind, *_ = line.split(" ")
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), escaped)  # blanks are written as \040
        if resolved.is_relative_to(point) and len(point) >= len(best[0]):  # of two at one place, the later one is seen
            best = (point, kind)
    return best


def disk(directory: Path) -> Check:
    """Free bytes and files where a run is."""
    free, state = shutil.disk_usage(directory).free, os.statvfs(directory)
    found = f"{size(free)} free for {directory}"
    if state.f_files and state.f_favail < _FEW_FILES:
        found = f"{found}, but for {state.f_favail} files only"
        return Check(name="disk", state="fail", found=found, mend="remove files, small ones too, or take another directory")
    if free < _NO_DISK:
        return Check(name="disk", state="fail", found=found, mend="free space, or take another directory")
    if free < _LITTLE_DISK:
        return Check(name="disk", state="warn", found=found, mend="`electra plan` says what a run will write; free space")
    return Check(name="disk", state="ok", found=found)


def rename_and_fsync(directory: Path) -> Check:
    """Do what a checkpoint does, and read it back."""
    name = "rename and fsync"
    times = list[float]()
    try:
        with _scratch(directory) as scratch:
            for step, tried in _STEPS.items():
                began = time.perf_counter()
                try:
                    wrong = tried(scratch)
                except OSError as error:
                    wrong = error.strerror or str(error)
                if wrong:
                    found = f"{directory}: to {step} does not work: {wrong}"
                    return Check(name=name, state="fail", found=found, mend=f"{_ELSEWHERE}: checkpoints would not be safe here")
                times.append(time.perf_counter() - began)
    except OSError as error:
        found = f"{directory} cannot be written: {error.strerror or error}"
        return Check(name=name, state="fail", found=found, mend="get access, free space, or take another directory")
    return Check(name=name, state="ok", found=f"tried in {directory}: whole and in order; fsync took {1000 * times[0]:.1f} ms")


def _write_and_sync(scratch: Path) -> str | None:
    written = scratch / "first"
    written.write_bytes(_FIRST)
    sync(written)
    return None if written.read_bytes() == _FIRST else "other bytes are read than were written"


def _rename_over(scratch: Path) -> str | None:
    """What was open before goes on as the old file; whoever opens it now sees the new one."""
    target, new = scratch / "first", scratch / "second"
    new.write_bytes(_SECOND)
    sync(new)
    with target.open("rb") as before:
        new.rename(target)
        sync(scratch)
        if target.read_bytes() != _SECOND:
            return "who opens the file afterwards reads the old one"
        if before.read() != _FIRST:
            return "who had the file open lost it"
    return "the file is still there by its old name" if new.exists() else None


def _rename_directories(scratch: Path) -> str | None:
    made, final, aside = scratch / "made", scratch / "final", scratch / "aside"
    for directory, content in ((final, _FIRST), (made, _SECOND)):
        directory.mkdir()
        (directory / "file").write_bytes(content)
        sync(directory / "file")
        sync(directory)
    final.rename(aside)
    made.rename(final)
    sync(scratch)
    there = sorted(path.name for path in scratch.iterdir())
    if there != ["aside", "final", "first"]:
        return f"the directory now holds {', '.join(there)}"
    read = ((final / "file").read_bytes(), (aside / "file").read_bytes())
    return None if read == (_SECOND, _FIRST) else "a file is another one after its directory was renamed"


_FIRST, _SECOND = b"first " * 4096, b"second " * 4096
_STEPS: dict[str, Callable[[Path], str | None]] = {
    "write and sync a file": _write_and_sync,
    "rename a file over another": _rename_over,
    "sync a directory": lambda scratch: sync(scratch),
    "rename directories": _rename_directories,
}


def locks(directory: Path) -> Check:
    """Whether a locked directory is locked for others: the building of a corpus relies on it."""
    mend = "build corpora on a local disk, and copy them: nothing keeps two builds of one corpus apart here"
    try:
        with _scratch(directory) as scratch, _opened(scratch) as ours, _opened(scratch) as theirs:
            fcntl.flock(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Check(name="locks", state="ok", found=f"tried in {directory}: a lock keeps others out")
            return Check(name="locks", state="warn", found=f"{directory}: a lock keeps nobody out", mend=mend)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EPERM):
            mend = "as for renaming, above"
        found = f"{directory}: no lock can be taken: {error.strerror or error}"
        return Check(name="locks", state="warn", found=found, mend=mend)


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _scratch(directory: Path) -> Iterator[Path]:
    """A directory in `directory`, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=".electra-doctor-", dir=directory, ignore_cleanup_errors=True) as scratch:
        yield Path(scratch)


# -- the machine -----------------------------------------------------------------------------------------------------------


def shared_memory(directory: Path = Path("/dev/shm")) -> Check:
    """Room through which processes on several GPUs talk; containers have 64 MB of it unless told otherwise."""
    if not directory.is_dir():
        return Check(name="shared memory", state="ok", found=f"there is no {directory}; one process needs none")
    usage = shutil.disk_usage(directory)
    found = f"{size(usage.free)} free of {size(usage.total)} in {directory}"
    if usage.free < _LITTLE_SHARED_MEMORY:
        mend = "for training in several processes give the container more: docker run --shm-size=2g"
        return Check(name="shared memory", state="warn", found=found, mend=mend)
    return Check(name="shared memory", state="ok", found=found)


def port(number: int) -> Check:
    """Whether something can listen on it, on 127.0.0.1."""
    name = f"port {number}"
    with closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: one that just ended is no hindrance
        try:
            listener.bind(("127.0.0.1", number))
        except OSError as error:
            found = f"cannot be bound on 127.0.0.1: {error.strerror or error}"
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return Check(name=name, state="warn", found=found, mend="give another --port to what listens there by default")
            return Check(name=name, state="fail", found=found, mend="bring the loopback interface up: ip link set lo up")
    return Check(name=name, state="ok", found="free on 127.0.0.1")
