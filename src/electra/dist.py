"""The processes of a run: who am I among them, what all of them say, and seeds that do not depend on it.

A launcher such as torchrun starts N processes with the same command; `processes` makes them a group, over gloo (and NCCL for
tensors on GPUs). They talk in values of JSON: `gather` gives everybody what everybody said, `first` and `led` have the first
process work (files, probes, evaluation) while the others wait for what came of it, errors included. All of it works alone, too.
`sum_gradients` is what data parallelism comes to; `whole` and `fill` know tensors of which each process holds a part.

`fold_seed` hashes any parts into 63 bits: order, masks and noise are keyed by (seed, epoch, row), dropout by
(seed, step, rank, micro-batch). So nothing random has a state that a checkpoint would have to hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as td
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from electra.errors import ElectraError, Preempted, RelayedError

T = TypeVar("T")

#: bytes that a process says at once; what is longer takes a second round
_SLOT = 4096
#: bytes of gradients that are summed at once
_BUCKET = 64 << 20


def fold_seed(*parts: int | str) -> int:
    """63 bits from `parts`; the same parts give the same bits on every machine and in every version of Python."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


# -- the group ------------------------------------------------------------------------------------------------------------


def rank() -> int:
    return td.get_rank() if td.is_available() and td.is_initialized() else 0


def world_size() -> int:
    return td.get_world_size() if td.is_available() and td.is_initialized() else 1


def on_this_machine() -> int:
    """How many processes of the group share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if world_size() > 1 else 1


@contextmanager
def processes(timeout_minutes: float) -> Iterator[None]:
    """Within, this process is one of the group that its launcher has started; without a launcher, it is alone.

    The launcher says who is who in the environment, as torchrun does: WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT.

    Args:
        timeout_minutes: how long a process waits for the others.

    Raises:
        ElectraError: E-C800 the environment is incomplete, E-C801 there are more processes than GPUs, E-R800 another process
            has ended, E-R801 one does not answer.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield
        return
    _require_environment()
    try:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        _form(backend, timedelta(minutes=timeout_minutes))
        yield
    except RuntimeError as error:
        if (lost := _lost(error, timeout_minutes)) is None:
            raise
        raise lost from error
    td.destroy_process_group()  # not behind an error: it might wait for a process that is no more


def _form(backend: str, timeout: timedelta) -> None:
    """Meet the others, and no others: where a launcher starts all again, the store still has what the dead have written, with
    the addresses at which they could be reached."""
    store, number, size = next(iter(rendezvous("env://", timeout=timeout)))
    own = PrefixStore(_common_name(store, number, size, timeout), store)
    td.init_process_group(backend, store=own, rank=number, world_size=size, timeout=timeout)


def _common_name(store: Store, number: int, size: int, timeout: timedelta) -> str:
    """A name that all processes of this attempt have, and none of another: drawn by the first one, which answers every number
    that the others draw until each has heard it. Only who is alive hears the answer to its own."""
    own = uuid.uuid4().hex
    if number:
        store.set(f"electra/asks/{number}", own)
        name = store.get(f"electra/answer/{own}").decode()
        store.set(f"electra/heard/{name}/{number}", "")
        return name
    missing, answered, deadline = set(range(1, size)), set[str](), time.monotonic() + timeout.total_seconds()
    while missing:
        if time.monotonic() > deadline:
            raise td.DistStoreError(f"timed out: processes {sorted(missing)} have not come")
        for other in sorted(missing):
            if store.check([f"electra/heard/{own}/{other}"]):
                missing.remove(other)
            elif store.check([f"electra/asks/{other}"]):
                asks = store.get(f"electra/asks/{other}").decode()
                if asks not in answered:
                    store.set(f"electra/answer/{asks}", own)
                    answered.add(asks)
        time.sleep(0.01)
    return own


def _require_environment() -> None:
    size = os.environ["WORLD_SIZE"]
    wanted = ["RANK", "MASTER_ADDR", "MASTER_PORT", *(["LOCAL_RANK"] if torch.cuda.is_available() else [])]
    missing = [name for name in wanted if name not in os.environ]
    numbers = [os.environ[name] for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK") if name in os.environ]
    if missing or not all(number.isdecimal() for number in numbers):
        cause = f"WORLD_SIZE is {size}, and {missing[0]} is not set" if missing else f"{' '.join(numbers)} are not all numbers"
        raise ElectraError("E-C800", "environment", cause, "start the processes with torchrun, or unset WORLD_SIZE")
    if torch.cuda.is_available() and int(os.environ["LOCAL_RANK"]) >= torch.cuda.device_count():
        cause = f"LOCAL_RANK is {os.environ['LOCAL_RANK']}, and this machine has {torch.cuda.device_count()} GPUs"
        raise ElectraError("E-C801", "environment", cause, "start as many processes on a machine as it has GPUs")


def _lost(error: RuntimeError, timeout_minutes: float) -> ElectraError | None:
    """What it means that a collective call failed; None for an error of another kind."""
    text = str(error)
    if not isinstance(error, td.DistError) and "gloo" not in text:
        return None
    where = f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} on {socket.gethostname()}"
    mend = "the same command goes on from the last checkpoint; torchrun does it by itself with --max-restarts"
    if "time" in text.lower() and "out" in text.lower():
        cause = f"another process does not answer (parallel.timeout_minutes = {timeout_minutes:g})"
        return ElectraError("E-R801", where, cause, f"see whether its machine is up and can be reached; {mend}")
    return ElectraError("E-R800", where, "another process of this run has ended", f"see what it said last; {mend}")


# -- what all of them say -------------------------------------------------------------------------------------------------


def gather(said: Any) -> list[Any]:
    """What each process said, by rank; values of JSON."""
    if world_size() == 1:
        return [said]
    text = json.dumps(said, default=lambda scalar: scalar.item()).encode()
    parts = _gather_bytes(len(text).to_bytes(8, "little") + text, _SLOT)
    lengths = [8 + int.from_bytes(part[:8], "little") for part in parts]
    if max(lengths) > _SLOT:
        rest = _gather_bytes(text[_SLOT - 8 :], max(lengths) - _SLOT)
        parts = [part + more for part, more in zip(parts, rest, strict=True)]
    return [json.loads(part[8:length]) for part, length in zip(parts, lengths, strict=True)]


def _gather_bytes(said: bytes, size: int) -> list[bytes]:
    """The first `size` bytes of what each process said, filled up with zeros."""
    own = torch.from_numpy(np.frombuffer(said[:size].ljust(size, b"\0"), np.uint8).copy())
    parts = [torch.empty_like(own) for _ in range(world_size())]
    td.all_gather(parts, own)
    return [part.numpy().tobytes() for part in parts]


def any_of(flag: bool) -> bool:
    """Whether it holds for any process."""
    return any(gather(flag))


def first(work: Callable[[], T]) -> T:
    """What `work` gives on the first process, to all of them; a value of JSON. They wait for it, so it is a meeting, too.

    Raises:
        ElectraError: what `work` raised, in all of them.
    """
    return led(lambda ask: work(), lambda: False)


def on_first(work: Callable[[], object]) -> None:
    """As `first`, where nothing comes of it."""

    def only_act(ask: Callable[[], bool]) -> None:
        work()

    led(only_act, lambda: False)


def led(work: Callable[[Callable[[], bool]], T], wish: Callable[[], bool]) -> T:
    """As `first`; `work` may ask, as often as it likes, whether any process has a wish. Asking says that it is still at work.

    Raises:
        Preempted, ElectraError: what `work` raised, in all of them.
    """
    if world_size() == 1:
        return work(wish)
    if rank() > 0:
        while (told := gather({"wish": wish()})[0]).get("going"):
            pass
        if "error" in told:
            raise RelayedError(*told["error"])
        if "preempted" in told:
            raise Preempted
        result: T = told["result"]
        return result

    def ask() -> bool:
        return any(answer["wish"] for answer in gather({"going": True, "wish": wish()}))

    try:
        done = work(ask)
    except ElectraError as error:
        gather({"error": [error.code, error.where, error.cause, error.fix]})
        raise
    except Preempted:
        gather({"preempted": True})
        raise
    gather({"result": done})
    return done


def sum_counts(counts: Mapping[str, float]) -> dict[str, float]:
    """The counts of this process's micro-batches, summed over all processes, which need not have the same ones."""
    return added(gather(dict(counts)))


def added(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The values of several mappings, numbers or tensors, summed by name, in the order given."""
    total = dict[str, Any]()
    for values in each:
        for name, value in values.items():
            total[name] = total[name] + value if name in total else value
    return total


# -- gradients, and tensors in parts --------------------------------------------------------------------------------------


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give each parameter the sum of its gradients over all processes, in which one that has none counts as 0.

    All processes name the same parameters in the same order; every one gets the same bits. Many are summed at once.
    """
    begin = 0
    while begin < len(parameters):
        end, held = begin, 0
        while end < len(parameters) and (end == begin or held < _BUCKET) and parameters[end].dtype == parameters[begin].dtype:
            held += parameters[end].numel() * parameters[end].element_size()
            end += 1
        bucket = parameters[begin:end]
        flat = torch.cat([(torch.zeros_like(own) if own.grad is None else own.grad).flatten() for own in bucket])
        td.all_reduce(flat)
        for own, summed in zip(bucket, torch.split(flat, [own.numel() for own in bucket]), strict=True):
            own.grad = summed.view_as(own)
        begin = end


def spread_from_first(tensors: Iterator[Tensor]) -> None:
    """Fill `tensors`, of which all processes have the same, with the values of the first process."""
    if world_size() > 1:
        for tensor in tensors:
            td.broadcast(tensor, 0)


def own_part(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that this process holds; any other tensor as it is."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as they are; of sharded ones the first process gets the whole, on the CPU, and the others get none.

    A meeting of all processes where something is sharded.
    """
    found = dict[str, Tensor]()
    for name, tensor in tensors.items():
        if not hasattr(tensor, "full_tensor"):
            found[name] = tensor
            continue
        full = tensor.full_tensor()
        if rank() == 0:
            found[name] = full.cpu()
    return found


@torch.no_grad()
def fill(target: Tensor, full: Tensor) -> None:
    """Copy `full`, which every process has, into `target`, or this process's part of it where `target` is sharded."""
    if not hasattr(target, "full_tensor"):
        target.copy_(full)
        return
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(target, DTensor)
    full = full.to(target.device)
    part = distribute_tensor(full, target.device_mesh, target.placements, src_data_rank=None)
    target.to_local().copy_(part.to_local())


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names and bits, for comparing processes: it sums up the bits of each tensor, and reads them where they are."""
    bits = [
        own.detach().reshape(-1).view(torch.int32 if own.element_size() % 4 == 0 else torch.uint8).sum(dtype=torch.int64)
        for own in tensors.values()
    ]
    sums = torch.stack([each.cpu() for each in bits]).tolist() if bits else []
    return f"{fold_seed(*(part for pair in zip(tensors, sums, strict=True) for part in pair)):016x}"
