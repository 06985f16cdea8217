"""Cores, memory, precision and GPU, as this process may use them; a container has less than the machine it is on."""

from __future__ import annotations

import os
from pathlib import Path

from electra.build.doctor.check import Check
from electra.events import size

#: bytes that training the smallest recipes takes, torch included
_LITTLE_MEMORY = 1 << 30
#: what the driver of an NVIDIA GPU makes
_DRIVER = Path("/proc/driver/nvidia/version")


def cores() -> Check:
    """Whether torch begins more threads than there are cores: they wait for each other, and all is slower."""
    import torch

    from electra.train import machine

    usable, threads = machine.cores(), torch.get_num_threads()
    found = f"{usable} of {os.cpu_count()} may be used, torch takes {threads} thread{'s' * (threads > 1)}"
    if threads > usable:
        mend = f"export OMP_NUM_THREADS={usable}: more threads than cores slow each other down"
        return Check(name="cores", state="warn", found=found, mend=mend)
    return Check(name="cores", state="ok", found=found)


def memory() -> Check:
    """Bytes that can still be taken, within the limit of the container."""
    from electra.train import machine

    free = machine.free_memory()
    if free is None:
        return Check(name="memory", state="ok", found="this system does not say how much is free")
    where = "on the GPU" if machine.device().type == "cuda" else "within the limits of this machine and its container"
    found = f"{size(free)} can be taken {where}"
    if free < _LITTLE_MEMORY:
        mend = f"free some, or raise the container's limit: training begins at about {size(_LITTLE_MEMORY)}"
        return Check(name="memory", state="warn", found=found, mend=mend)
    return Check(name="memory", state="ok", found=found)


def precision() -> Check:
    """What `precision=auto` will choose, found as a run finds it."""
    from electra.train import machine

    chosen = machine.faster_precision()
    told = {"bf16": "bf16: at least 1.3 times as fast as fp32 here", "fp32": "fp32: bf16 is not faster here"}
    return Check(name="precision", state="ok", found=told[chosen])


def gpu() -> Check:
    """Whether a GPU is there, torch uses it, and it multiplies as the CPU does."""
    import torch

    if not torch.cuda.is_available():
        if _DRIVER.exists():
            found = f"an NVIDIA driver is here, but torch {torch.__version__} sees no GPU"
            mend = "install a build of torch for its CUDA version, and look at CUDA_VISIBLE_DEVICES and the container's devices"
            return Check(name="gpu", state="warn", found=found, mend=mend)
        return Check(name="gpu", state="ok", found="none; the CPU is used")
    numbers = torch.arange(4096, dtype=torch.float32).reshape(64, 64) % 7
    wrong, told = list[str](), list[str]()
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        there = torch.cuda.get_device_properties(device)
        told.append(f"{there.name}, {size(there.total_memory)}, compute capability {there.major}.{there.minor}")
        if not torch.equal((numbers.to(device) @ numbers.to(device)).cpu(), numbers @ numbers):
            wrong.append(f"GPU {index}")
    if wrong:
        found = f"{'; '.join(told)}: wrong products on {', '.join(wrong)}"
        return Check(name="gpu", state="fail", found=found, mend="take it out of CUDA_VISIBLE_DEVICES, and have it looked at")
    return Check(name="gpu", state="ok", found="; ".join(told))
