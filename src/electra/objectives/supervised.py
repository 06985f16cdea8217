"""The objective of fine-tuning: any trainable task, handed to the loop.

In: an encoder and a task. Out: the task's loss on what encoder and fresh head say about a batch. One network, `model`, and one
phase. `layer_depths` tells the optimiser how deep each parameter lies, for layer-wise decay of the learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from electra.contracts import Batch, Losses, Noise, Phase, TrainableTask
from electra.models.encoder import Encoder
from electra.models.model_dir import Provenance, save_model_dir
from electra.tasks.common import TaskNetwork, check_length


class Supervised(nn.Module):
    """`contracts.Objective` for any trainable task.

    Args:
        encoder: the (pre-trained) encoder.
        task: brings head, loss and task.json.
        provenance: what the exported model directory says about where it comes from.

    Raises:
        ElectraError: E-C313 the task's rows are longer than the encoder's positions.
    """

    def __init__(self, encoder: Encoder, task: TrainableTask, provenance: Provenance) -> None:
        super().__init__()
        check_length(task, encoder)
        self.model = TaskNetwork(encoder, task.head(encoder))
        self.task, self.provenance = task, provenance

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        return {"model": self.model}

    def phases(self, step: int, steps: int) -> Sequence[Phase]:
        return [Phase(name="supervised", networks=("model",), progress=step / steps)]

    def forward(self, batch: Batch, noise: Noise, phase: Phase) -> Losses:
        return self.task.loss(self.model(batch), batch)

    def summarise(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        """Means over the examples of whatever the task's loss sums up: `loss`, `accuracy` ..."""
        examples = max(float(totals["examples"]), 1.0)
        return {name: float(total) / examples for name, total in totals.items() if name != "examples"}

    @property
    def head_depth(self) -> int:
        """Depth of the head: number of layers + 1. The factor on a parameter's rate is decay ** (head_depth - depth)."""
        return len(self.model.encoder.layers) + 1

    def layer_depths(self) -> dict[str, int]:
        """Depth of each trained parameter by "network.parameter": everything before the layers 0, layer i i + 1, a final norm
        as the last layer, the head one more."""
        layers = self.head_depth - 1
        depths = {}
        for name, _ in self.named_parameters():
            _, owner, *rest = name.split(".")
            if owner == "head":
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
