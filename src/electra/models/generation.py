"""The head of a sequence-to-sequence model: a decoder on the hidden states of a source.

In: hidden states of the sources, and their batch. Out, in training: of each token of `batch.targets["target"]` the
loss, its cross entropy, and whether it was the most likely one. Out, in evaluation mode: the texts that decoding writes, packed
into one tensor, from which `unpacked` takes them.

Label smoothing mixes the cross entropy with its mean over the vocabulary, share e: (1 - e) * -log p(y) + e * mean_v -log p(v)
(Szegedy et al., 2016). The mean needs no tensor of its own: logits are linear in the table, so the mean logit is the product
of the hidden state and the mean of the table, and mean_v -log p(v) = -log p(y) + logit(y) - mean logit.

Shapes: B sources, T target tokens, N = B * T, E embedding size, V vocabulary, R outputs of a source, M tokens of an output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from electra.contracts import Batch
from electra.models.decoder import Decoder, Memory
from electra.models.decoding import Ended, Hypothesis, Signs, generate
from electra.models.decoding_config import DecodingConfig
from electra.models.vocabulary import guess
from electra.text.tokenizer import Tokenizer

#: figures of an output that stand before its tokens: length, why it ended, log probability, score
_FIGURES = 4
_ENDED: tuple[Ended, ...] = get_args(Ended)


def signs_of(tokenizer: Tokenizer, vocab_size: int) -> Signs:
    """[CLS] starts an output and [SEP] ends it; other special tokens, and rows of the table without a token, are not written.

    Args:
        vocab_size: rows of the table.
    """
    never = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.mask_id)
    return Signs(start=tokenizer.cls_id, end=tokenizer.sep_id, never=(*never, *range(tokenizer.vocab_size, vocab_size)))


class GenerationHead(nn.Module):
    """See the module's docstring.

    Args:
        decoder: attends to the sources.
        decoding: how texts are written.
        signs: what starts and ends them.
        label_smoothing: share of the loss that is its mean over the vocabulary.
    """

    def __init__(self, decoder: Decoder, decoding: DecodingConfig, signs: Signs, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.decoder, self.decoding, self.signs, self.label_smoothing = decoder, decoding, signs, label_smoothing

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Of hidden states [B, L, D] or [T, D], sources in windows as `Memory.joined` takes them.

        Returns:
            In training, fp32 [B, T, 3]: loss (with gradient), cross entropy in nats, and 1 where no token is likelier; anything
            where `target` is -100. Else fp32 [B, R, 4 + M], see `unpacked`.
        """
        memory = Memory.joined(hidden, batch)
        return self._losses(memory, batch.targets["target"]) if self.training else self._outputs(memory)

    def _losses(self, memory: Memory, target_BT: Tensor) -> Tensor:
        real_BT, wanted_BT = target_BT >= 0, target_BT.clamp(min=0)
        start_B1 = torch.full_like(wanted_BT[:, :1], self.signs.start)
        hidden_BTD = self.decoder(torch.cat([start_B1, wanted_BT[:, :-1]], dim=1), real_BT, memory)
        hidden_NE = self.decoder.head.transform(hidden_BTD).flatten(0, 1)
        table_VE, bias_V, wanted_N = self.decoder.encoder.embeddings.table, self.decoder.head.bias, wanted_BT.flatten()
        said = guess(hidden_NE, table_VE, bias_V, wanted_N)
        loss_N = said.nll_N
        if self.label_smoothing:
            with torch.autocast(hidden_NE.device.type, enabled=False):
                exact_NE, exact_VE = hidden_NE.float(), table_VE.float()
                own_N = (exact_NE * exact_VE.index_select(0, wanted_N)).sum(-1) + bias_V.index_select(0, wanted_N)
                mean_N = exact_NE @ exact_VE.mean(0) + bias_V.mean()
            loss_N = loss_N + self.label_smoothing * (own_N - mean_N)
        found_N3 = torch.stack([loss_N.float(), said.nll_N.detach().float(), said.correct_N.float()], dim=-1)
        return found_N3.view(*target_BT.shape, 3)

    def _outputs(self, memory: Memory) -> Tensor:
        sources = len(memory.hidden_BSD)
        found = generate(self.decoder, memory, [()] * sources, self.decoding, self.signs)
        return packed(found, self.decoding.max_new_tokens)


def packed(found: Sequence[Sequence[Hypothesis]], room: int) -> Tensor:
    """Outputs as fp32 [B, R, 4 + room]; token ids are exact below 2**24.

    Args:
        found: as many outputs of each source.
        room: tokens of an output at most.
    """
    values = torch.zeros(len(found), max(map(len, found), default=0), _FIGURES + room)
    for row, outputs in zip(values, found, strict=True):
        for place, one in enumerate(outputs):
            figures = [len(one.tokens), _ENDED.index(one.ended), one.log_probability, one.score]
            row[place, : _FIGURES + len(one.tokens)] = torch.tensor([*figures, *one.tokens])
    return values


def unpacked(values: Tensor) -> list[Hypothesis]:
    """The outputs of one source, the best first, from fp32 [R, 4 + M]."""
    return [
        Hypothesis(
            tokens=tuple(map(int, row[_FIGURES : _FIGURES + int(row[0])])),
            ended=_ENDED[int(row[1])],
            log_probability=row[2],
            score=row[3],
        )
        for row in values.tolist()
    ]
