"""What this machine is and does best: device, precision by probe, allocator; and the wish to stop.

A probe runs once before step 0; its answer is written to recipe.json, and a resumed run reads it there.
"""

from __future__ import annotations

import ctypes
import platform
import signal
import time
from types import FrameType, TracebackType

import torch


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
    seconds = {dtype: _matmul_seconds(dtype) for dtype in (torch.float32, torch.bfloat16)}
    return "bf16" if seconds[torch.float32] > 1.3 * seconds[torch.bfloat16] else "fp32"


def _matmul_seconds(dtype: torch.dtype) -> float:
    """Best of five products of [2048, 256] x [256, 1024]: about 1 GFLOP each, some milliseconds."""
    left, right = torch.ones(2048, 256, dtype=dtype), torch.ones(256, 1024, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - start)
    return best


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


class StopFlag:
    """Turns the first SIGTERM or SIGINT into a wish that the loop reads, and the second into an end at once.

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
        if self.requested:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.requested = True
