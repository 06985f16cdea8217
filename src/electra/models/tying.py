"""Which parameters generator and discriminator have in common.

    none           nothing
    embeddings     the tables and the embeddings' norm (the paper)
    all            the whole encoders, which must be alike
    gdes           gradient-disentangled sharing (DeBERTaV3, section 3.3): each table of the discriminator is the generator's,
                   which gets no gradient from it, plus a difference; the norms are separate. What the discriminator computes
                   stays the same, so a loaded one keeps what it knows; a fresh one starts at the generator's tables
    bottom-layers  the embeddings and the lowest layers (TEAMS, Shen et al., 2021)

Sharing = both encoders hold the same submodule object; parameters are told apart by identity.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from electra.errors import ElectraError
from electra.models.encoder import Encoder
from electra.nn.layers import Embeddings

TyingMode = Literal["none", "embeddings", "all", "gdes", "bottom-layers"]


class DeltaEmbeddings(Embeddings):
    """Embeddings whose tables are the source's, without gradient, plus a difference.

    Args:
        source: the generator's embeddings. Not a submodule: its parameters stay the generator's alone, in optimisers and
            in state dicts.
        own: the discriminator's embeddings; its norm is kept, its tables become the difference from the source's.
    """

    def __init__(self, source: Embeddings, own: Embeddings) -> None:
        super().__init__(own.norm, own.dropout)
        del own.norm  # it is this module's now: one name in the state dict
        self.delta = own
        self._source = (source,)  # in a tuple, so that nn.Module does not register it
        given = _tables(source)
        with torch.no_grad():
            for name, table in _tables(own).items():
                table.sub_(given[name])

    def start_at_source(self) -> None:
        """Set the difference to 0, as a fresh discriminator has it."""
        for table in _tables(self.delta).values():
            nn.init.zeros_(table)

    @property
    def table(self) -> Tensor:
        return self._source[0].table.detach() + self.delta.table

    def look_up(self, tokens: Tensor, positions: Tensor, types: Tensor) -> Tensor:
        return self._source[0].look_up(tokens, positions, types).detach() + self.delta.look_up(tokens, positions, types)

    @torch.no_grad()
    def merged(self) -> Embeddings:
        """Plain embeddings that compute the same, for export."""
        plain = copy.deepcopy(self.delta)
        plain.norm = copy.deepcopy(self.norm)
        given = _tables(self._source[0])
        for name, table in _tables(plain).items():
            table.add_(given[name])
        return plain


def tie(generator: Encoder, discriminator: Encoder, mode: TyingMode, layers: int = 0) -> None:
    """Make the two encoders share what `mode` says, in place; shared values are the discriminator's.

    Args:
        layers: how many of the lowest layers `bottom-layers` shares.

    Raises:
        ElectraError: E-C204 the encoders do not have what is to be shared in one shape.
    """
    if mode == "none":
        return
    _require_same_shapes("embeddings", generator.embeddings, discriminator.embeddings)
    if mode == "gdes":
        discriminator.embeddings = DeltaEmbeddings(generator.embeddings, discriminator.embeddings)
        return
    if mode == "all":
        _require_same_shapes("encoders", generator, discriminator)
        for name, child in list(discriminator.named_children()):
            setattr(generator, name, child)
        return
    generator.embeddings = discriminator.embeddings
    if mode == "bottom-layers":
        if not 1 <= layers <= min(len(generator.layers), len(discriminator.layers)):
            depths = f"{len(generator.layers)} and {len(discriminator.layers)}"
            raise ElectraError(
                "E-C204", "tying", f"cannot share the lowest {layers} layers of networks with {depths}",
                "share at least one and at most all of them",
            )  # fmt: skip
        for index in range(layers):
            _require_same_shapes(f"layers.{index}", generator.layers[index], discriminator.layers[index])
            generator.layers[index] = discriminator.layers[index]


@torch.no_grad()
def plain_state(encoder: Encoder) -> dict[str, Tensor]:
    """The encoder's state dict under the names of an untied encoder, differences merged."""
    state = {name: tensor.detach() for name, tensor in encoder.state_dict().items() if not name.startswith("embeddings.")}
    embeddings = encoder.embeddings
    plain = embeddings.merged() if isinstance(embeddings, DeltaEmbeddings) else embeddings
    return {**{f"embeddings.{name}": tensor.detach() for name, tensor in plain.state_dict().items()}, **state}


def _tables(embeddings: Embeddings) -> dict[str, Tensor]:
    return {name: child.weight for name, child in embeddings.named_children() if isinstance(child, nn.Embedding)}


def _require_same_shapes(what: str, generator: nn.Module, discriminator: nn.Module) -> None:
    ours, theirs = ({name: tuple(p.shape) for name, p in m.named_parameters()} for m in (generator, discriminator))
    if ours != theirs:
        name = next(name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name))
        raise ElectraError(
            "E-C204", f"tying of {what}",
            f"{name} is {ours.get(name)} in the generator and {theirs.get(name)} in the discriminator",
            "make the generator's sizes equal, or tie less",
        )  # fmt: skip
