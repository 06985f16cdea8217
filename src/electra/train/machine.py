"""What this machine is and does best: device, precision by probe, cores, allocator, memory; and the wish to stop.

A probe runs once before step 0; its answer is written to recipe.json, and a resumed run reads it there.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType

import torch
from torch import nn

from electra.cores import available_cores
from electra.errors import Preempted


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe() -> dict[str, str]:
    """Device, threads and instruction set: what "the same kind of machine" means for bitwise equality."""
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "architecture": platform.machine(),
        "torch": torch.__version__,
    }


def faster_precision() -> str:
    """`bf16` where matrix products of an encoder's shape are at least 1.3 times as fast in it as in fp32, else `fp32`."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    for _ in range(20):  # in turn and by the best of many: a busy machine must not decide
        for dtype in best:
            best[dtype] = min(best[dtype], _matmul_seconds(dtype))
    return "bf16" if best[torch.float32] > 1.3 * best[torch.bfloat16] else "fp32"


def _matmul_seconds(dtype: torch.dtype) -> float:
    """One product of [512, 256] x [256, 1024], a quarter of a GFLOP: a millisecond or two."""
    left, right = torch.ones(512, 256, dtype=dtype), torch.ones(256, 1024, dtype=dtype)
    began = time.perf_counter()
    left @ right
    return time.perf_counter() - began


def keep_large_buffers() -> None:
    """Tell glibc to serve large buffers from the heap and to keep them.

    Every training step asks for the same buffers; by default glibc maps them anew and the kernel clears their pages each
    time, 15-20 % of a step on CPU.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_mmap_threshold = -1, -3
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def give_back_memory() -> None:
    """Give the kernel what `keep_large_buffers` kept and nobody uses: after loading a model its weights as they were read."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def prepare_to_predict() -> None:
    """Set up a process that predicts: a thread for each available core, unless OMP_NUM_THREADS says how many; buffers kept.

    The verbs call it once. It changes the whole process, so a program that loads predictors decides itself.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(available_cores())
    keep_large_buffers()


# -- memory: of the GPU if there is one, else of this process as Linux tells it; None where nobody tells ----------------------


def free_memory() -> int | None:
    """Bytes that can still be taken, within the limit of the container."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    if not Path("/proc/meminfo").is_file():
        return None
    within = [_kilobytes("/proc/meminfo", "MemAvailable:")]
    for limit, usage in _LIMITS:
        if limit.is_file() and (bytes_ := limit.read_text(encoding="ascii").strip()).isdecimal():
            within.append(int(bytes_) - int(usage.read_text(encoding="ascii")) + _page_cache(limit.with_name("memory.stat")))
    return max(0, min(within))


def used_memory() -> int | None:
    """Bytes that are taken now."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    return _kilobytes("/proc/self/status", "VmRSS:") if Path("/proc/self/status").is_file() else None


def restart_peak_memory() -> None:
    """Let `peak_memory` begin anew."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif _CLEAR.is_file() and os.access(_CLEAR, os.W_OK):
        _CLEAR.write_text("5", encoding="ascii")


def peak_memory() -> int | None:
    """The most bytes that were taken since `restart_peak_memory`."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return _kilobytes("/proc/self/status", "VmHWM:") if _CLEAR.is_file() and os.access(_CLEAR, os.W_OK) else None


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA has a class for it; the CPU allocator only words."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


_CLEAR = Path("/proc/self/clear_refs")
#: files with the limit of a container and its use, control groups of version 2 and 1
_LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def _kilobytes(file: str, name: str) -> int:
    """The bytes of a line such as `VmRSS:   512 kB`."""
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def _page_cache(stat: Path) -> int:
    """Bytes that count as used by a container but are given up for the asking."""
    lines = stat.read_text(encoding="ascii").splitlines() if stat.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)


@contextmanager
def stopping(network: nn.Module, asked: Callable[[], bool]) -> Iterator[None]:
    """Within, `asked()` raises `Preempted` before the next batch goes through `network`."""

    def look(module: nn.Module, given: object) -> None:
        if asked():
            raise Preempted

    watch = network.register_forward_pre_hook(look)
    try:
        yield
    finally:
        watch.remove()


class StopFlag:
    """Turns the first SIGTERM or SIGINT into a wish that the loop reads, and the second into an end at once.

    Under torchrun a second signal changes nothing: it passes on those that the same user or scheduler has sent to this process
    already, and ends by SIGKILL whatever does not stop in time.

    with StopFlag() as stop:
        while not stop.requested: ...
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopFlag:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned is what it takes

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and "TORCHELASTIC_RUN_ID" not in os.environ:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.requested = True
