"""Who am I among the processes, and seeds that do not depend on it.

`fold_seed` hashes any parts into 63 bits: order, masks and noise are keyed by (seed, epoch, row), dropout by
(seed, step, rank, micro-batch). So nothing random has a state that a checkpoint would have to hold.
"""

from __future__ import annotations

import hashlib

import torch
import torch.distributed as td
from torch import Tensor


def fold_seed(*parts: int | str) -> int:
    """63 bits from `parts`; the same parts give the same bits on every machine and in every version of Python."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def rank() -> int:
    return td.get_rank() if td.is_available() and td.is_initialized() else 0


def world_size() -> int:
    return td.get_world_size() if td.is_available() and td.is_initialized() else 1


def sum_over_ranks(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor summed over all processes, in the order of the names; with one process, as it is."""
    if world_size() == 1:
        return values
    summed = {name: values[name].clone() for name in sorted(values)}
    for tensor in summed.values():
        td.all_reduce(tensor)
    return summed


def sum_counts(counts: dict[str, float]) -> dict[str, float]:
    """The counts of this process's micro-batches, summed over all processes."""
    if world_size() == 1:
        return counts
    names = sorted(counts)
    tensor = torch.tensor([counts[name] for name in names], dtype=torch.float64)
    td.all_reduce(tensor)
    return dict(zip(names, tensor.tolist(), strict=True))
