"""AdamW or Muon per network, their schedule, clipping, and averages of the weights.

In: the networks of an objective by name. Out: `Optimizers`, which update each network, together or apart. A parameter that two
networks share belongs to the first one that has it. Decay acts on matrices and tables only: not on norms and biases.

The schedule is the reference's: lr = peak * (1 - u/N) * min(1, u/W), multiplied, so that the first update has learning rate 0
(ELECTRA_SPEC: optimiser; google-research/electra `optimization.py`). Where the decay has only the last part r of the steps, the
first factor is min(1, (1 - u/N) / r): warm-up, plateau, decay (Hu et al., MiniCPM, 2024, section 4; Zhai et al., 2022).

Muon (Jordan et al., 2024) replaces the update of a matrix by the nearest orthogonal one. It is made for matrices inside of
layers; tables, heads, norms and biases stay with AdamW. Updates are scaled to the size that AdamW's have, so that rate and
decay are the same for both (Liu et al., "Muon is scalable for LLM training", 2025, section 2.2).

Averages are exponential ones over the steps, of every trained parameter, in the optimiser's state; they follow faster in the
first steps, so that the initial weights do not stay in them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from electra.config import STRICT
from electra.dist import fill
from electra.errors import ElectraError

#: With the step counter of Adam this high, beta ** step is 0 and the fused kernel divides by 1: no bias correction.
_NO_BIAS_CORRECTION = 1e7


#: module lists whose matrices Muon updates
_LAYERS = "layers"


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimiser and schedule of one phase, whatever its type.

    Args:
        lr: peak learning rate.
        lr_scale: factor on `lr` for single networks, by name.
        betas, eps, weight_decay: as in torch.
        bias_correction: False in the reference's pre-training.
        clip: largest global gradient norm.
        clip_per_network: clip each network by its own norm; else all together by the common norm.
        warmup_ratio: share of the phase's steps over which the rate rises.
        warmup_steps: the same in steps; takes the place of the ratio when given.
        decay_ratio: share of the phase's steps, its last ones, over which the rate falls to 0; 1 = from the first step on.
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
    decay_ratio: float = 1.0
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.clip <= 0 or not 0 <= self.warmup_ratio <= 1 or not 0 < self.layer_decay <= 1:
            raise ElectraError("E-C400", "optimizer", f"lr {self.lr}, clip {self.clip}, warmup_ratio {self.warmup_ratio} or "
                               f"layer_decay {self.layer_decay} is out of range",
                               "lr and clip > 0, warmup_ratio in [0, 1], layer_decay in (0, 1]")  # fmt: skip
        if not 0 < self.decay_ratio <= 1:
            raise ElectraError("E-C550", "optimizer.decay_ratio", f"{self.decay_ratio} is no share of the steps",
                               "give 0 < decay_ratio <= 1; 1 falls from the first step on")  # fmt: skip

    def warmup(self, steps: int) -> int:
        return self.warmup_steps if self.warmup_steps is not None else math.ceil(self.warmup_ratio * steps)


@dataclass(frozen=True, kw_only=True)
class AdamWConfig(OptimizerConfig):
    """AdamW for every parameter."""

    type: Literal["adamw"] = "adamw"


@dataclass(frozen=True, kw_only=True)
class MuonConfig(OptimizerConfig):
    """Muon for the matrices of layers, AdamW for the rest.

    Args:
        momentum: of Muon, with Nesterov's look ahead.
    """

    type: Literal["muon"] = "muon"
    momentum: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ElectraError("E-C551", "optimizer.momentum", f"is {self.momentum}", "give 0 <= momentum < 1, such as 0.95")


def learning_rate_factor(step: int, steps: int, warmup: int, decay_ratio: float = 1.0) -> float:
    """min(1, (1 - u/N) / r) * min(1, u/W) of update u = `step`, counted from 0; W = 0 means no warm-up."""
    return min(1.0, (1 - step / steps) / decay_ratio) * (min(1.0, step / warmup) if warmup > 0 else 1.0)


def following_rate(decay: float, updates: int) -> float:
    """How far an average goes towards the weights after `updates` earlier ones: 1 - min(`decay`, (1 + n) / (10 + n)), as in
    TensorFlow's ExponentialMovingAverage."""
    return 1 - min(decay, (1 + updates) / (10 + updates))


def owned_parameters(networks: Mapping[str, nn.Module]) -> dict[str, dict[str, nn.Parameter]]:
    """Trainable parameters by network and name; a shared one only under the first network that has it."""
    seen: set[int] = set()
    owned: dict[str, dict[str, nn.Parameter]] = {}
    for network, module in networks.items():
        owned[network] = {n: p for n, p in module.named_parameters() if p.requires_grad and id(p) not in seen}
        seen.update(id(parameter) for parameter in owned[network].values())
    return owned


def copies_of_state(name: str, parameter: nn.Parameter, config: OptimizerConfig, average: float | None) -> int:
    """How many tensors of its size the state of a parameter holds."""
    return (1 if isinstance(config, MuonConfig) and _is_hidden_matrix(name, parameter) else 2) + (average is not None)


class Optimizers:
    """The optimisers of an objective: for each network a fused AdamW, and a Muon where the config says so.

    Args:
        networks: module by name.
        config: settings for all of them.
        steps: length of the schedule, in updates.
        depths: for layer-wise decay, the exponent of `layer_decay` by parameter name ("network.parameter"); missing = 0.
        average: decay of the averages of the weights; None = there are none.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        config: OptimizerConfig,
        steps: int,
        depths: Mapping[str, int] | None = None,
        average: float | None = None,
    ) -> None:
        unknown = set(config.lr_scale) - set(networks)
        if unknown:
            raise ElectraError("E-C401", "optimizer.lr_scale", f"no network is called {', '.join(sorted(unknown))}",
                               f"the networks here are {', '.join(networks)}")  # fmt: skip
        self.config, self.steps, self.warmup, self.average = config, steps, config.warmup(steps), average
        self.parameters = owned_parameters(networks)
        self.of_network: dict[str, list[torch.optim.Optimizer]] = {}
        #: by network and parameter; filled before the first step, so that every checkpoint has the same names
        self.state: dict[str, dict[str, dict[str, Any]]] = {}
        for network, parameters in self.parameters.items():
            if parameters:
                self.of_network[network] = _optimizers(parameters, config, network, depths or {})
                held = [optimizer.state for optimizer in self.of_network[network]]
                self.state[network] = {
                    name: next(state[own] for state in held if own in state) for name, own in parameters.items()
                }
        if average is not None:
            for own, state in self._with_state():
                state["average"] = own.detach().clone()

    def learning_rates(self, step: int) -> dict[str, float]:
        """The rate of each network's undecayed parameters at update `step`."""
        factor = self._factor(step)
        return {name: factor * self.config.lr * self.config.lr_scale.get(name, 1.0) for name in self.of_network}

    def clip(self, networks: Sequence[str]) -> dict[str, Tensor]:
        """Measure, and have the next `step` clip; returns each network's gradient norm (a 0-d tensor, not yet read).

        The fused kernel divides by `grad_scale` as it reads the gradients (what it does for torch's GradScaler), which saves a
        pass over all of them.
        """
        known = [name for name in networks if name in self.of_network]
        grads = {name: [p.grad for p in self.parameters[name].values() if p.grad is not None] for name in known}
        norms = {n: _everywhere(torch.nn.utils.get_total_norm(g)) for n, g in grads.items()}
        common = torch.linalg.vector_norm(torch.stack(list(norms.values())))
        for name, own in norms.items():
            norm = own if self.config.clip_per_network else common
            for optimizer in self.of_network[name]:
                if isinstance(optimizer, torch.optim.AdamW):
                    optimizer.grad_scale = ((norm + 1e-6) / self.config.clip).clamp(min=1.0)  # type: ignore[attr-defined]
                else:
                    members = [parameter for group in optimizer.param_groups for parameter in group["params"]]
                    torch.nn.utils.clip_grads_with_norm_(members, self.config.clip, norm)
        return norms

    def step(self, networks: Sequence[str], step: int) -> None:
        """One update of `networks`, clipped, with the learning rate of update `step`; their gradients are freed."""
        factor = self._factor(step)
        for name in networks:
            for optimizer in self.of_network.get(name, []):
                for group in optimizer.param_groups:
                    group["lr"] = factor * group["peak_lr"]
                optimizer.step()
                if isinstance(optimizer, torch.optim.AdamW):
                    optimizer.grad_scale = None  # type: ignore[attr-defined]  # it was this step's
        if self.average is not None:
            rate = following_rate(self.average, step)
            for own, state in self._with_state(networks):
                state["average"].lerp_(own.detach(), rate)
        self.zero_grad()

    @torch.no_grad()
    def use_averages(self) -> None:
        """Put the averages in the place of the weights, if there are any."""
        if self.average is not None:
            for own, state in self._with_state():
                own.copy_(state["average"])

    def zero_grad(self) -> None:
        for optimizers in self.of_network.values():
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)

    @property
    def state_bytes(self) -> int:
        """Bytes of weights and optimiser state: what a checkpoint weighs."""
        return sum(
            (1 + copies_of_state(name, parameter, self.config, self.average)) * parameter.numel() * parameter.element_size()
            for own in self.parameters.values()
            for name, parameter in own.items()
        )

    def state_tensors(self) -> dict[str, Tensor]:
        """Every state tensor by "network.parameter.key", for the checkpoint."""
        return {
            f"{network}.{name}.{key}": tensor
            for network, states in self.state.items()
            for name, state in states.items()
            for key, tensor in state.items()
        }

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The reverse of `state_tensors`."""
        for name, tensor in self.state_tensors().items():
            fill(tensor, tensors[name])

    def _factor(self, step: int) -> float:
        return learning_rate_factor(step, self.steps, self.warmup, self.config.decay_ratio)

    def _with_state(self, networks: Sequence[str] | None = None) -> Iterator[tuple[nn.Parameter, dict[str, Any]]]:
        """The parameters of `networks` (None = of all), each with its state."""
        for network, states in self.state.items():
            if networks is None or network in networks:
                yield from ((self.parameters[network][name], state) for name, state in states.items())


def _everywhere(norm: Tensor) -> Tensor:
    """The norm over all processes, where gradients are sharded."""
    whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return whole


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and _LAYERS in name.split(".")


def _optimizers(
    parameters: Mapping[str, nn.Parameter], config: OptimizerConfig, network: str, depths: Mapping[str, int]
) -> list[torch.optim.Optimizer]:
    """The optimisers of one network, each with the state of all of its parameters."""
    hidden = {n: p for n, p in parameters.items() if isinstance(config, MuonConfig) and _is_hidden_matrix(n, p)}
    rest = {name: parameter for name, parameter in parameters.items() if name not in hidden}
    made: list[torch.optim.Optimizer] = []
    if rest:
        adam = torch.optim.AdamW(
            _groups(rest, config, network, depths), lr=config.lr, betas=config.betas, eps=config.eps, fused=True
        )
        _fill_state(adam, rest.values(), 0.0 if config.bias_correction else _NO_BIAS_CORRECTION)
        made.append(adam)
    if hidden:
        assert isinstance(config, MuonConfig)
        groups = _groups(hidden, config, network, depths)
        muon = torch.optim.Muon(groups, lr=config.lr, momentum=config.momentum, adjust_lr_fn="match_rms_adamw")
        for parameter in hidden.values():
            muon.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        made.append(muon)
    return made


def _groups(
    parameters: Mapping[str, nn.Parameter], config: OptimizerConfig, network: str, depths: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Parameters by their peak learning rate and their weight decay."""
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        key = (depths.get(f"{network}.{name}", 0), parameter.ndim >= 2)
        groups.setdefault(key, []).append(parameter)
    lr = config.lr * config.lr_scale.get(network, 1.0)
    return [
        {
            "params": members,
            "peak_lr": lr * config.layer_decay**depth,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (depth, decays), members in groups.items()
    ]


def _fill_state(adam: torch.optim.AdamW, parameters: Iterable[nn.Parameter], step: float) -> None:
    """State from the start, so that every checkpoint has the same names, and so that `step` can be chosen."""
    for parameter in parameters:
        state: dict[str, Any] = adam.state[parameter]
        state["step"] = torch.tensor(step, dtype=torch.float32, device=parameter.device)
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)
