"""The pseudo-log-likelihood of every token in one pass, from an energy model (Electric; Clark et al., EMNLP 2020, section 4.2).

Its energies are minus log probabilities of tokens, each given all others: no mask, no softmax, no second pass. They are not
normalised, so figures of different models compare as far as both have converged. The energy of [CLS] and [SEP] was never
trained and means nothing.

Shapes: B rows, L positions, T tokens of a packed batch.
"""

from __future__ import annotations

from torch import Tensor, nn

from electra.contracts import Batch
from electra.errors import ElectraError
from electra.models.encoder import Encoder
from electra.models.heads import EnergyHead
from electra.models.model_dir import ModelDir


class EnergyNetwork(nn.Module):
    """`network(batch)` -> log p^(x_t | all other tokens), in nats, float32 [B, L] or [T]."""

    def __init__(self, encoder: Encoder, head: EnergyHead) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, batch: Batch) -> Tensor:
        energy: Tensor = self.head(self.encoder(batch.tokens, batch.positions, batch.types, batch.layout))
        return -energy.float()


def energy_network(model: ModelDir) -> EnergyNetwork:
    """The network that scores with `model`.

    Raises:
        ElectraError: E-M310 it is no energy model.
    """
    if model.energy_head is None:
        raise ElectraError("E-M310", str(model.path), "has no energy head, which scoring in one pass needs",
                           "give a model that the objective electric has trained")  # fmt: skip
    return EnergyNetwork(model.encoder, model.energy_head)
