"""The objective of fine-tuning: any trainable task, handed to the loop.

In: an encoder and a task. Out: the task's loss on what encoder and fresh head say about a batch. One network, `model`, and one
phase. `layer_depths` says how deep each parameter lies: for layer-wise decay of the learning rate, and for freezing.

What is frozen is a function that stays as it was: its parameters get no gradients, and it runs without dropout, as in
prediction. Since nothing below it is trained either, autograd keeps nothing of it and the backward pass ends above it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from torch import Tensor, nn

from electra.config import STRICT
from electra.contracts import Batch, Losses, Noise, Objective, Phase, TrainableTask
from electra.errors import ElectraError
from electra.models.encoder import Encoder
from electra.models.model_dir import Provenance, save_model_dir
from electra.tasks.common import TaskNetwork, check_length

#: what is not trained: nothing, the embeddings, these and so many of the lowest layers, or the whole encoder
Freeze = Literal["nothing", "embeddings", "encoder"] | int
#: how layer-wise decay counts; see `Supervised.decay_exponents`
DecayRule = Literal["fixed", "reference"]


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    """The loss of the task on labelled examples, and nothing else."""

    __pydantic_config__ = STRICT
    type: Literal["supervised"] = "supervised"

    def build(self, encoder: Encoder, task: TrainableTask, provenance: Provenance, freeze: Freeze) -> Supervised:
        return Supervised(encoder, task, provenance, freeze)


class Supervised(nn.Module, Objective):
    """`contracts.Objective` for any trainable task.

    Args:
        encoder: the (pre-trained) encoder.
        task: brings head, loss and task.json.
        provenance: what the exported model directory says about where it comes from.
        freeze: what is not trained.

    Raises:
        ElectraError: E-C313 the task's rows are longer than the encoder's positions, E-C454 more layers are to be frozen than
            there are.
    """

    def __init__(self, encoder: Encoder, task: TrainableTask, provenance: Provenance, freeze: Freeze = "nothing") -> None:
        super().__init__()
        check_length(task, encoder.config)
        self.model = TaskNetwork(encoder, task.head(encoder))
        self.task, self.provenance = task, provenance
        self._freeze(freeze)

    def _freeze(self, freeze: Freeze) -> None:
        encoder, layers = self.model.encoder, len(self.model.encoder.layers)
        if isinstance(freeze, int) and not 1 <= freeze <= layers:
            raise ElectraError("E-C454", "freeze", f"{freeze} lowest layers, but the encoder has {layers}",
                               f'give 1 to {layers}, or "nothing", "embeddings", "encoder"')  # fmt: skip
        deepest = {"nothing": -1, "embeddings": 0, "encoder": layers}[freeze] if isinstance(freeze, str) else freeze
        depths = self.layer_depths()
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(depths[name] > deepest)
        self._frozen: list[nn.Module] = [encoder] if deepest == layers else []
        if 0 <= deepest < layers:
            below = [module for name, module in encoder.named_children() if name not in ("layers", "final_norm")]
            self._frozen = [*below, *encoder.layers[:deepest]]

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is trained; what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        return {"model": self.model}

    def phases(self, step: int, steps: int) -> Sequence[Phase]:
        return (Phase(name="supervised", networks=tuple(self.networks), progress=step / steps),)

    def forward(self, batch: Batch, noise: Noise, phase: Phase) -> Losses:
        return self.task.loss(self.model(batch), batch)

    def summarise(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        """Means over the examples of whatever the task's loss sums up: `loss`, `accuracy` ..."""
        examples = max(float(totals["examples"]), 1.0)
        return {name: float(total) / examples for name, total in totals.items() if name != "examples"}

    def decay_exponents(self, rule: DecayRule) -> dict[str, int]:
        """By "network.parameter", the power of the layer-wise decay that its learning rate is multiplied by.

        Args:
            rule: `fixed`: the head 0, the last of n layers 1, the first n, embeddings n + 1. `reference`: as in the published
                code, where the head counts as two above the last layer: the head 0, the last layer 2, the first n + 1,
                embeddings n + 2 (ELECTRA_SPEC: optimiser; google-research/electra `optimization.py`).
        """
        head = len(self.model.encoder.layers) + 1
        above = 1 if rule == "reference" else 0
        return {name: 0 if depth == head else head + above - depth for name, depth in self.layer_depths().items()}

    def layer_depths(self) -> dict[str, int]:
        """Depth of each parameter by "network.parameter": everything before the layers 0, layer i i + 1, a final norm as the
        last layer, the head one more."""
        layers = len(self.model.encoder.layers)
        depths = {}
        for name, _ in self.named_parameters():
            _, owner, *rest = name.split(".")
            if owner != "encoder":
                depths[name] = layers + 1
            elif rest[0] == "layers":
                depths[name] = int(rest[1]) + 1
            else:
                depths[name] = layers if rest[0] == "final_norm" else 0
        return depths

    def export(self, directory: Path) -> None:
        """Write a model directory with task.json, which the head's class in transformers loads if it has one.

        Raises:
            ElectraError: as `save_model_dir`.
        """
        save_model_dir(
            directory,
            encoder=self.model.encoder,
            head=self.model.head,
            labels=self.task.labels,
            task=self.task.to_json(),
            provenance=self.provenance,
        )
