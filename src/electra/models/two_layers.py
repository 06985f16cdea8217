"""Classic heads of one layer as the two layers that their classes in transformers have, exactly, and back.

Shapes: N labels, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layers:
    """Names here of a head that has one layer more in theirs: our one layer, and their two."""

    one: str
    dense: str
    output: str


TWO_LAYERS = {
    "ElectraForSequenceClassification": Layers(
        "classification_head.classifier", "two_layer_head.dense", "two_layer_head.classifier"
    ),
    "ElectraForMultipleChoice": Layers("choice_head.classifier", "choice_head.widened", "choice_head.classifier"),
}


def two_layers(state: Mapping[str, Tensor], names: Layers) -> dict[str, Tensor]:
    """Our output layer (W, b) as dense -> GELU -> out_proj, exactly.

    While there is room (2 * labels <= hidden), by gelu(z) - gelu(-z) = z: dense rows [W; -W; 0], out_proj [I, -I, 0]. With
    more labels the hidden state itself is passed on, moved up to where GELU is the identity in fp32: dense (I, c), out_proj
    (W, b - W c). c is beyond what the last LayerNorm can give: |weight| sqrt(D) + |bias| + 6.
    """
    weight_ND, bias_N = state[f"{names.one}.weight"], state[f"{names.one}.bias"]
    labels, size = weight_ND.shape
    if 2 * labels <= size:
        spare = size - 2 * labels
        eye, rest = torch.eye(labels), torch.zeros(labels, spare)
        return {
            f"{names.dense}.weight": torch.cat([weight_ND, -weight_ND, torch.zeros(spare, size)]),
            f"{names.dense}.bias": torch.cat([bias_N, -bias_N, torch.zeros(spare)]),
            f"{names.output}.weight": torch.cat([eye, -eye, rest], dim=1),
            f"{names.output}.bias": torch.zeros(labels),
        }
    shift_D = _shift(state)
    return {
        f"{names.dense}.weight": torch.eye(size),
        f"{names.dense}.bias": shift_D,
        f"{names.output}.weight": weight_ND,
        f"{names.output}.bias": (bias_N.double() - weight_ND.double() @ shift_D.double()).float(),
    }


def one_layer(state: Mapping[str, Tensor], names: Layers) -> dict[str, Tensor] | None:
    """The inverse of `two_layers`; None for two layers that it did not make."""
    wide_DD, wide_D = state[f"{names.dense}.weight"], state[f"{names.dense}.bias"]
    out_ND, out_N = state[f"{names.output}.weight"], state[f"{names.output}.bias"]
    labels, size = len(out_N), len(wide_D)
    if (wide_DD.shape, out_ND.shape) != ((size, size), (labels, size)):
        return None
    if 2 * labels <= size:
        found = {f"{names.one}.weight": wide_DD[:labels].clone(), f"{names.one}.bias": wide_D[:labels].clone()}
    else:
        bias_N = (out_N.double() + out_ND.double() @ wide_D.double()).float()
        found = {f"{names.one}.weight": out_ND, f"{names.one}.bias": bias_N}
    again = two_layers({**state, **found}, names)
    return found if all(torch.allclose(state[name], tensor, atol=1e-4) for name, tensor in again.items()) else None


def _shift(state: Mapping[str, Tensor]) -> Tensor:
    last = max(int(name.split(".")[2]) for name in state if name.startswith("encoder.layers."))
    weight_D, bias_D = state[f"encoder.layers.{last}.norm.weight"], state[f"encoder.layers.{last}.norm.bias"]
    bound_D: Tensor = weight_D.abs() * len(weight_D) ** 0.5 + bias_D.abs()
    return bound_D + 6.0
