"""A cloze model that needs no [MASK]: two towers, of which neither sees the token that is asked for.

In: whole texts. One encoder reads each document from left to right, another from right to left (`contracts.Order`). What may
stand at position t follows from the first one's state at t - 1, which has seen everything before t, and the second one's at
t + 1, which has seen everything behind it, joined. So one pass over a text gives the distributions of all its tokens, each
given all others (Clark, Luong, Le, Manning, EMNLP 2020, section 2.3; Baevski et al., 2019, have the same two towers).

Where a document begins or ends, or where a row cuts it, there is no neighbour: its state is zero. A neighbour in another
document of the row is none.

Shapes: T flat positions of a batch (B * L or packed), D hidden size of a tower, E embedding size.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from electra.contracts import Batch
from electra.models.encoder import Encoder
from electra.models.heads import MlmHead


class TwoTower(nn.Module):
    """See the module's docstring.

    Args:
        ltr, rtl: encoders of one config, which read from left to right and from right to left.
        head: of two states, over the token table of `ltr`.
    """

    def __init__(self, ltr: Encoder, rtl: Encoder, head: MlmHead) -> None:
        super().__init__()
        self.ltr, self.rtl, self.head = ltr, rtl, head

    @property
    def table(self) -> Tensor:
        """[V, E], the token table that the head's states are multiplied with."""
        return self.ltr.embeddings.table

    def forward(self, batch: Batch) -> Tensor:
        """[T, E], the head's states at every flat position: times `table`, plus `head.bias`, they are logits for what stands
        there, of which they have not seen it."""
        given = batch.tokens, batch.positions, batch.types
        ltr_TD = self.ltr(*given, replace(batch.layout, order="forward")).flatten(0, -2)
        rtl_TD = self.rtl(*given, replace(batch.layout, order="backward")).flatten(0, -2)
        follows_T1 = batch.layout.continued.view(-1, 1)
        none_1D, no_1 = ltr_TD.new_zeros(1, ltr_TD.shape[1]), follows_T1.new_zeros(1, 1)
        before_TD = torch.cat([none_1D, ltr_TD[:-1]]) * follows_T1
        behind_TD = torch.cat([rtl_TD[1:], none_1D]) * torch.cat([follows_T1[1:], no_1])
        return self.head.transform(torch.cat([before_TD, behind_TD], dim=-1))
