"""Documents one a row, whatever the layout of their batch, and back: for networks that read one text at a time.

Shapes: ... = [B, L] or [T], T all positions flattened, N documents, M longest document, E and D sizes of a vector.
"""

from __future__ import annotations

import torch
from torch import Tensor

from electra.contracts import Layout, Packed


class Documents:
    """Index maps between the positions of a batch, flattened, [T], and one document a row, [N, M].

    Of a packed batch all shapes are known to the layout; of a padded one the number of documents is read from it.
    """

    def __init__(self, layout: Layout) -> None:
        if isinstance(layout, Packed):
            starts_N, lengths_N, longest = layout.cu_seqlens[:-1].long(), layout.cu_seqlens.diff().long(), layout.max_seqlen
            self.real_T = layout.real
            documents = torch.arange(len(starts_N), device=starts_N.device)
            document_T = torch.repeat_interleave(documents, lengths_N, output_size=len(self.real_T))
        elif torch.compiler.is_exporting():  # a graph has one document a row, since none of its shapes may hang on values
            rows, longest = layout.segments.shape
            self.real_T, lengths_N = layout.real.flatten(), layout.real.sum(dim=1)
            documents = torch.arange(rows, device=layout.segments.device)
            starts_N, document_T = documents * longest, documents[:, None].expand(rows, longest).flatten()
        else:
            first_BL = layout.real.clone()
            first_BL[:, 1:] &= layout.segments[:, 1:] != layout.segments[:, :-1]
            self.real_T, first_T = layout.real.flatten(), first_BL.flatten()
            starts_N = first_T.nonzero()[:, 0]
            document_T = (first_T.cumsum(0) - 1).clamp(min=0)
            lengths_N = torch.bincount(document_T, weights=self.real_T.float(), minlength=len(starts_N)).long()
            longest = int(lengths_N.max())
        column_M = torch.arange(longest, device=starts_N.device)
        self.real_NM = column_M < lengths_N[:, None]
        self.token_NM = torch.where(self.real_NM, starts_N[:, None] + column_M, 0)
        #: columns of each row from its last token on; padding stays where it is
        self.turned_NM = torch.where(self.real_NM, lengths_N[:, None] - 1 - column_M, column_M)
        place_T = torch.arange(document_T.shape[0], device=starts_N.device) - starts_N[document_T]
        self.slot_T = torch.where(self.real_T, document_T * longest + place_T, 0)

    def laid_out(self, hidden: Tensor) -> Tensor:
        """[N, M, E] of [..., E], zeros behind each document."""
        rows_NME = hidden.flatten(0, -2).index_select(0, self.token_NM.flatten()).view(*self.token_NM.shape, -1)
        return rows_NME * self.real_NM[..., None].to(hidden.dtype)

    def put_back(self, hidden_NMD: Tensor) -> Tensor:
        """[T, ...] of [N, M, ...], zeros in padding."""
        real = self.real_T.view(-1, *[1] * (hidden_NMD.ndim - 2))
        return hidden_NMD.flatten(0, 1).index_select(0, self.slot_T) * real.to(hidden_NMD.dtype)

    def turned(self, hidden_NMD: Tensor) -> Tensor:
        """[N, M, D] with the tokens of each document in the other order; twice is once."""
        return hidden_NMD.gather(1, self.turned_NM[..., None].expand(*self.turned_NM.shape, hidden_NMD.shape[-1]))
