"""AdamW per network, its schedule, and clipping.

In: the networks of an objective by name. Out: `Optimizers`, one AdamW for each network, stepped together or apart. A
parameter that two networks share belongs to the first one that has it. Decay acts on matrices and tables only: not on
norms and biases. The schedule is the reference's: lr = peak * (1 - u/N) * min(1, u/W), multiplied, so that the first update
has learning rate 0 (ELECTRA_SPEC: optimiser; google-research/electra `optimization.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from electra.config import STRICT
from electra.errors import ElectraError

#: With the step counter of Adam this high, beta ** step is 0 and the fused kernel divides by 1: no bias correction.
_NO_BIAS_CORRECTION = 1e7


@dataclass(frozen=True, kw_only=True)
class AdamWConfig:
    """Optimiser and schedule of one phase.

    Args:
        lr: peak learning rate.
        lr_scale: factor on `lr` for single networks, by name.
        betas, eps, weight_decay: as in torch.
        bias_correction: False in the reference's pre-training.
        clip: largest global gradient norm.
        clip_per_network: clip each network by its own norm; else all together by the common norm.
        warmup_ratio: share of the phase's steps over which the rate rises.
        warmup_steps: the same in steps; takes the place of the ratio when given.
        layer_decay: factor on the learning rate per layer of depth (fine-tuning); 1 = none.
    """

    __pydantic_config__ = STRICT
    lr: float
    lr_scale: dict[str, float] = field(default_factory=dict)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    weight_decay: float = 0.01
    bias_correction: bool = True
    clip: float = 1.0
    clip_per_network: bool = False
    warmup_ratio: float = 0.05
    warmup_steps: int | None = None
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.clip <= 0 or not 0 <= self.warmup_ratio <= 1 or not 0 < self.layer_decay <= 1:
            raise ElectraError("E-C400", "optimizer", f"lr {self.lr}, clip {self.clip}, warmup_ratio {self.warmup_ratio} or "
                               f"layer_decay {self.layer_decay} is out of range",
                               "lr and clip > 0, warmup_ratio in [0, 1], layer_decay in (0, 1]")  # fmt: skip

    def warmup(self, steps: int) -> int:
        return self.warmup_steps if self.warmup_steps is not None else math.ceil(self.warmup_ratio * steps)


def learning_rate_factor(step: int, steps: int, warmup: int) -> float:
    """(1 - u/N) * min(1, u/W) of update u = `step`, counted from 0; W = 0 means no warm-up."""
    return (1 - step / steps) * (min(1.0, step / warmup) if warmup > 0 else 1.0)


def owned_parameters(networks: Mapping[str, nn.Module]) -> dict[str, dict[str, nn.Parameter]]:
    """Trainable parameters by network and name; a shared one only under the first network that has it."""
    seen: set[int] = set()
    owned: dict[str, dict[str, nn.Parameter]] = {}
    for network, module in networks.items():
        owned[network] = {n: p for n, p in module.named_parameters() if p.requires_grad and id(p) not in seen}
        seen.update(id(parameter) for parameter in owned[network].values())
    return owned


class Optimizers:
    """One fused AdamW for each network of an objective.

    Args:
        networks: module by name.
        config: settings for all of them.
        steps: length of the schedule, in updates.
        depths: for layer-wise decay, the exponent of `layer_decay` by parameter name ("network.parameter"); missing = 0.
    """

    def __init__(
        self, networks: Mapping[str, nn.Module], config: AdamWConfig, steps: int, depths: Mapping[str, int] | None = None
    ) -> None:
        unknown = set(config.lr_scale) - set(networks)
        if unknown:
            raise ElectraError("E-C401", "optimizer.lr_scale", f"no network is called {', '.join(sorted(unknown))}",
                               f"the networks here are {', '.join(networks)}")  # fmt: skip
        self.config, self.steps, self.warmup = config, steps, config.warmup(steps)
        self.parameters = owned_parameters(networks)
        self.adam = {
            network: _adamw(parameters, config, config.lr * config.lr_scale.get(network, 1.0), network, depths or {})
            for network, parameters in self.parameters.items()
            if parameters
        }

    def learning_rates(self, step: int) -> dict[str, float]:
        """The rate of each network's undecayed parameters at update `step`."""
        factor = learning_rate_factor(step, self.steps, self.warmup)
        return {name: factor * self.config.lr * self.config.lr_scale.get(name, 1.0) for name in self.adam}

    def clip(self, networks: Sequence[str]) -> dict[str, Tensor]:
        """Measure, and have the next `step` clip; returns each network's gradient norm (a 0-d tensor, not yet read).

        The fused kernel divides by `grad_scale` as it reads the gradients (what it does for torch's GradScaler), which saves a
        pass over all of them.
        """
        grads = {n: [p.grad for p in self.parameters[n].values() if p.grad is not None] for n in networks if n in self.adam}
        norms = {n: torch.nn.utils.get_total_norm(g) for n, g in grads.items()}
        common = torch.linalg.vector_norm(torch.stack(list(norms.values())))
        for name, own in norms.items():
            norm = own if self.config.clip_per_network else common
            self.adam[name].grad_scale = ((norm + 1e-6) / self.config.clip).clamp(min=1.0)  # type: ignore[attr-defined]
        return norms

    def step(self, networks: Sequence[str], step: int) -> None:
        """One update of `networks`, clipped, with the learning rate of update `step`; their gradients are freed."""
        factor = learning_rate_factor(step, self.steps, self.warmup)
        for name in networks:
            if name in self.adam:
                for group in self.adam[name].param_groups:
                    group["lr"] = factor * group["peak_lr"]
                self.adam[name].step()
                self.adam[name].grad_scale = None  # type: ignore[attr-defined]  # it was this step's
        self.zero_grad()

    def zero_grad(self) -> None:
        for adam in self.adam.values():
            adam.zero_grad(set_to_none=True)

    @property
    def state_bytes(self) -> int:
        """Bytes of weights and optimiser state: what a checkpoint weighs."""
        return sum(3 * p.numel() * p.element_size() for own in self.parameters.values() for p in own.values())

    def state_tensors(self) -> dict[str, Tensor]:
        """Every state tensor by "network.parameter.key", for the checkpoint."""
        return {
            f"{network}.{name}.{key}": tensor
            for network, parameters in self.parameters.items()
            for name, parameter in parameters.items()
            for key, tensor in self.adam[network].state[parameter].items()
        }

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The reverse of `state_tensors`."""
        for network, parameters in self.parameters.items():
            for name, parameter in parameters.items():
                for key, tensor in self.adam[network].state[parameter].items():
                    tensor.copy_(tensors[f"{network}.{name}.{key}"])


def _adamw(
    parameters: Mapping[str, nn.Parameter], config: AdamWConfig, lr: float, network: str, depths: Mapping[str, int]
) -> torch.optim.AdamW:
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        key = (depths.get(f"{network}.{name}", 0), parameter.ndim >= 2)
        groups.setdefault(key, []).append(parameter)
    adam = torch.optim.AdamW(
        [
            {
                "params": members,
                "peak_lr": lr * config.layer_decay**depth,
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (depth, decays), members in groups.items()
        ],
        lr=lr,
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )
    _fill_state(adam, parameters.values(), 0.0 if config.bias_correction else _NO_BIAS_CORRECTION)
    return adam


def _fill_state(adam: torch.optim.AdamW, parameters: Iterable[nn.Parameter], step: float) -> None:
    """State from the start, so that every checkpoint has the same names, and so that `step` can be chosen."""
    for parameter in parameters:
        state: dict[str, Any] = adam.state[parameter]
        state["step"] = torch.tensor(step, dtype=torch.float32, device=parameter.device)
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)
