"""Where a model of task `generate` looked in the source while it wrote: its cross attention, as an alignment.

In: a predictor of such a model. Out: a predictor whose predictions also have `attention`:

    source    the tokens of the source, of all its windows, [CLS] and [SEP] too, as they stand in the text
    target    the tokens that were written, the end too if there is one
    weights   of each target token a row, of each source token a column: how much of the attention with which that token was
              chosen went there. A row sums to 1, but for rounding to five digits.

The weights are those of the last layer, the mean over its heads: of the layers and their mean it is the one whose greatest
weight was most often at the right token, where models learnt to copy and to reverse (docs/generation.md). Attention is where a
model looked, not why it wrote what it wrote.

The best output of each source is read once more, together with its source, in batches.

Shapes: B sources, T target tokens, S source tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from electra.contracts import Encoded, Example, Prediction
from electra.errors import ElectraError
from electra.models.decoding import Hypothesis
from electra.models.generation import GenerationHead, unpacked
from electra.predict.predictor import Predictor
from electra.predict.writer import writer_of
from electra.tasks.common import TaskNetwork
from electra.tasks.generate import Generate

#: sources that are read together, and digits of a weight
_TOGETHER, _DIGITS = 32, 5


class AligningPredictor(Predictor):
    """A predictor of task `generate` that also says where the decoder looked, see the module.

    Args:
        predictor: of a model that was fine-tuned for the task.

    Raises:
        ElectraError: E-M890 a model of another task, or an export.
    """

    def __init__(self, predictor: Predictor) -> None:
        task, network = predictor.task, predictor.network
        if not isinstance(task, Generate) or not isinstance(network, TaskNetwork):
            raise ElectraError("E-M890", "attention", "the model has no decoder that looks at a source",
                               "give a model directory that was fine-tuned with task=generate")  # fmt: skip
        super().__init__(network, task, predictor.batch_tokens, packed=predictor.packed, precision=predictor.precision)
        self.writes, self.head = task, cast(GenerationHead, network.head)
        reader = writer_of(predictor).reader
        assert reader is not None, "a model of task generate reads sources"
        self.read = reader.read

    def answer(self, examples: Sequence[tuple[Example, list[Encoded]]]) -> Iterator[Prediction]:
        """The prediction for each example, with `attention`."""
        outputs = self.outputs([rows[0] for _, rows in examples])
        for first in range(0, len(examples), _TOGETHER):
            some = examples[first : first + _TOGETHER]
            given = outputs[first : first + _TOGETHER]
            written = [unpacked(output)[0] for output in given]
            weights = self._weights([rows[0] for _, rows in some], written)
            for (example, rows), output, hypothesis, weights_TS in zip(some, given, written, weights, strict=True):
                prediction = self.task.decode(example, rows, [output])
                told = self._told(example, rows[0], hypothesis, weights_TS)
                yield replace(prediction, output={**prediction.output, "attention": told}, truncated=rows[0].truncated)

    @torch.inference_mode()
    def _weights(self, rows: Sequence[Encoded], written: Sequence[Hypothesis]) -> Iterator[Tensor]:
        """fp32 [T, S] of each source and what was written from it."""
        head, memory = self.head, self.read(rows)
        lengths = [len(_chosen(one, head.signs.end)) for one in written]
        # what stands before a token chooses it: start, then all but the last
        read = [[head.signs.start, *_chosen(one, head.signs.end)[:-1]] for one in written]
        longest = max(map(len, read))
        tokens_BT = torch.tensor(
            [[*one, *[head.signs.end] * (longest - len(one))] for one in read], device=memory.hidden_BSD.device
        )
        weights_BTS = head.decoder.attention(tokens_BT, torch.ones_like(tokens_BT, dtype=torch.bool), memory)[-1].cpu()
        for row, length, weights_TS in zip(rows, lengths, weights_BTS, strict=True):
            yield weights_TS[:length, : row.targets["keep"].sum()]

    def _told(self, example: Example, row: Encoded, written: Hypothesis, weights_TS: Tensor) -> dict[str, object]:
        tokenizer = self.writes.target_tokenizer
        target = _chosen(written, tokenizer.sep_id) if example.text.strip() else ()
        weights = [[round(weight, _DIGITS) for weight in weights_S] for weights_S in weights_TS[: len(target)].tolist()]
        return {
            "source": self._source(example, row),
            "target": [tokenizer.surface(token) for token in target],
            "weights": weights,
        }

    def _source(self, example: Example, row: Encoded) -> list[str]:
        """The tokens that the decoder attends to, each once, as they stand in the text; special ones by their names."""
        tokenizer, special = self.writes.tokenizer, set(self.writes.tokenizer.special_ids)
        tokens = row.tokens[row.targets["keep"]].tolist()
        offsets = tokenizer.encode_literally(example.text).offsets
        places = [*offsets[: len(tokens) - 1], offsets[-1]]  # as `encode_text` cuts
        return [
            example.text[start:end] if start < end and (token == tokenizer.unk_id or token not in special)
            else tokenizer.surface(token)
            for token, (start, end) in zip(tokens, places, strict=True)
        ]  # fmt: skip


def _chosen(written: Hypothesis, end: int) -> tuple[int, ...]:
    """The tokens of an output, with the end where it came to one."""
    return (*written.tokens, end) if written.ended == "end" else written.tokens
