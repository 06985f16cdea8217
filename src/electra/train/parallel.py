"""How the weights of a run lie in its processes.

`Replicas` (`ddp`): every process holds all of them. It runs the micro-batches of its share of a step; then the gradients of a
phase are summed over the processes, once, and each makes the same update. What a process has no gradient for counts as 0, so
phases, tied tables and shares of any length need no care; a network that no process has touched stays untouched.

`Shards` (`fsdp2`, torch's `fully_shard`): a process holds a part of each tensor, of its gradient and of its optimiser
state. A layer is gathered when it is run and let go behind it; what lies outside of layers (tables, which networks may share,
and heads) is gathered once for a micro-batch. Gradients stay whole until the last micro-batch of a phase, which scatters them.

Losses are divided by global counts before the backward pass, so gradients are summed, not averaged (decision 0080).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from electra.config import STRICT
from electra.dist import added, digest, gather, spread_from_first, sum_gradients, world_size
from electra.errors import ElectraError
from electra.train.optim import Optimizers

Strategy = Literal["ddp", "fsdp2"]

#: module lists whose members are sharded one by one
_LAYERS = "layers"


@dataclass(frozen=True, kw_only=True)
class ProcessesConfig:
    """What holds where torchrun starts several processes.

    Args:
        timeout_minutes: how long a process waits for the others before it ends.
    """

    __pydantic_config__ = STRICT
    timeout_minutes: float = 30.0

    def __post_init__(self) -> None:
        if self.timeout_minutes <= 0:
            raise ElectraError("E-C802", "parallel.timeout_minutes", f"is {self.timeout_minutes:g}", "give a positive number")


@dataclass(frozen=True, kw_only=True)
class ParallelConfig(ProcessesConfig):
    """The same, and how the weights lie in them.

    Args:
        strategy: `ddp`, all of them in every process, or `fsdp2`, sharded; alone, a process has all of them either way.
    """

    strategy: Strategy = "ddp"


class Replicas:
    """Every process has all weights; a process that is alone, too."""

    sharded = False

    def place(self, objective: nn.Module, device: torch.device) -> None:
        """Put the networks of `objective`, which every process has built, where they are trained."""
        objective.to(device)
        spread_from_first(tensor.detach() for tensor in (*objective.parameters(), *objective.buffers()))

    def enter(self, objective: nn.Module, last: bool) -> None:
        """A micro-batch of a phase comes, perhaps its last."""

    def reduce(self, optimizers: Optimizers, networks: Sequence[str], totals: Mapping[str, Tensor], full: bool) -> Any:
        """Behind the last micro-batch of a phase: sums the gradients of `networks`, and `totals`, over the processes.

        Args:
            full: memory has run out here.

        Returns:
            The totals, or None if memory has run out anywhere; then nothing was summed.
        """
        if world_size() == 1:
            return None if full else dict(totals)
        parameters = [own for name in networks for own in optimizers.parameters[name].values()]
        plain = {name: tensor.tolist() for name, tensor in totals.items()}
        touched = "".join("1" if own.grad is not None else "0" for own in parameters)
        heard = gather({"full": full, "totals": plain, "touched": touched})
        if any(each["full"] for each in heard):
            return None
        columns = zip(*(each["touched"] for each in heard), strict=True)
        sum_gradients([own for own, column in zip(parameters, columns, strict=True) if "1" in column])
        return _summed(each["totals"] for each in heard)

    def require_same(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """All processes are at the same step, with the same weights, bit by bit: asked before a checkpoint is written.

        Raises:
            ElectraError: E-T800 they are not.
        """
        if world_size() == 1:
            return
        heard = gather({"step": step, "weights": digest(tensors)})
        different = [number for number, each in enumerate(heard) if each != heard[0]]
        if different:
            raise ElectraError("E-T800", f"step {step}", f"the weights of process {different[0]} of {len(heard)} are not those "
                               "of process 0", "its machine computes differently or wrongly: leave it out, and run the same "
                               "command again; the last checkpoint is intact")  # fmt: skip


class Shards(Replicas):
    """Every process has a part of each weight."""

    sharded = True

    def place(self, objective: nn.Module, device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        spread_from_first(tensor.detach() for tensor in (*objective.parameters(), *objective.buffers()))
        mesh = init_device_mesh(device.type, (world_size(),))
        lists = [module for name, module in objective.named_modules() if name.rpartition(".")[2] == _LAYERS]
        layers = {id(layer): layer for members in lists for layer in members.children()}  # networks may share some
        for layer in layers.values():
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)
        fully_shard(objective, mesh=mesh, reshard_after_forward=False)
        for module in objective.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        objective.to(device)  # buffers

    def enter(self, objective: nn.Module, last: bool) -> None:
        from torch.distributed.fsdp import FSDPModule

        assert isinstance(objective, FSDPModule)
        objective.set_requires_gradient_sync(last)

    def reduce(self, optimizers: Optimizers, networks: Sequence[str], totals: Mapping[str, Tensor], full: bool) -> Any:
        """The same for the totals; gradients were summed in the backward pass.

        Raises:
            ElectraError: E-R802 memory has run out: the others wait in the middle of a pass, so it cannot be tried again.
        """
        if full:
            raise ElectraError("E-R802", "memory", "a micro-batch does not fit, and sharded networks cannot try a smaller one",
                               "lower batch.micro_rows, or start more processes")  # fmt: skip
        heard = gather({name: tensor.tolist() for name, tensor in totals.items()})
        return _summed(heard)

    def require_same(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Each process has other weights; the step is the same, or a meeting before would have failed."""


def placement(config: ParallelConfig) -> Replicas:
    """How the weights of a run lie in the processes that there are."""
    return Shards() if config.strategy == "fsdp2" and world_size() > 1 else Replicas()


def _summed(each: Any) -> dict[str, Tensor]:
    """Totals of all processes, in the order of their ranks."""
    tensors = [{name: torch.tensor(held, dtype=torch.float64) for name, held in totals.items()} for totals in each]
    return added(tensors)
