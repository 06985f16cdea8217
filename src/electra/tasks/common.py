"""What every task shares: encoded examples, cutting and windowing of long texts, the network of a task.

In: `Example`s. Out: `Encoded` numbers. A text longer than a row is either cut, with the cut counted (`encode_text`), or becomes
overlapping windows (`cut_windows`), each token's output taken from the window that shows the most context around it (`joined`).
Texts that are compared with each other stand in one row (`side_by_side`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Encoding
from torch import Tensor, nn

from electra.contracts import Batch, Encoded, Example, Layout, Packed, Task, TrainableTask
from electra.errors import ElectraError
from electra.models.encoder import Encoder, EncoderConfig
from electra.models.heads import PlacesHead
from electra.models.model_dir import ModelDir
from electra.nn.layers import shapes_alone
from electra.text.tokenizer import Tokenizer

# -- examples -> numbers ------------------------------------------------------------------------------------------------


class EncodedExamples:
    """Encoded examples in memory, as `contracts.Examples`."""

    def __init__(self, items: Sequence[Encoded]) -> None:
        self._items = items
        self._lengths = np.array([len(item.tokens) for item in items], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """int64 [len], tokens of each example, specials included."""
        return self._lengths

    def __getitem__(self, index: int) -> Encoded:
        return self._items[index]


def encode_text(tokenizer: Tokenizer, example: Example, max_length: int) -> Encoded:
    """[CLS] text [SEP], or [CLS] text [SEP] pair [SEP], cut to `max_length` tokens from the end, the longer text first.

    A special token that is written out in a text is text.

    Returns:
        tokens and types, int64 [n <= max_length], with the tokens cut away counted in `truncated`.
    """
    encoding = tokenizer.encode_literally(example.text, example.pair)
    tokens, types = np.array(encoding.ids, dtype=np.int64), np.array(encoding.type_ids, dtype=np.int64)
    excess = max(0, len(tokens) - max_length)
    if excess:
        kept = _kept_of_pair(types, max_length) if example.pair is not None else np.append(np.arange(max_length - 1), -1)
        tokens, types = tokens[kept], types[kept]
    return Encoded(tokens=tokens, types=types, truncated=excess)


def _kept_of_pair(types: npt.NDArray[np.int64], max_length: int) -> npt.NDArray[np.intp]:
    """The positions of [CLS] text [SEP] pair [SEP] to keep: both texts get half of the room, and what the other leaves."""
    begin = int((types == 0).sum())  # of the pair
    text, pair, room = begin - 2, len(types) - begin - 1, max_length - 3
    kept_pair = min(pair, max(room // 2, room - text))
    kept = np.arange(1 + room - kept_pair), np.arange(begin - 1, begin + kept_pair), np.array([len(types) - 1])
    return np.concatenate(kept)


def side_by_side(texts: Sequence[Encoded], **targets: npt.NDArray[np.generic]) -> Encoded:
    """One row of texts that belong together, each a segment: none sees another, and each has positions of its own.

    Args:
        texts: at least one, with specials.
        targets: those of the row; `texts`, int64 [], how many there are, is added.
    """
    return Encoded(
        tokens=np.concatenate([text.tokens for text in texts]),
        types=np.concatenate([text.types for text in texts]),
        segments=np.repeat(np.arange(len(texts)), [len(text.tokens) for text in texts]),
        targets={"texts": np.array(len(texts), dtype=np.int64), **targets},
        truncated=sum(text.truncated for text in texts),
    )


def whole_text(encoding: Encoding) -> Encoded:
    """A text with specials, uncut, with the characters of its tokens as targets: `start` and `end`, int64 [n]."""
    offsets = np.array(encoding.offsets, dtype=np.int64)
    return Encoded(
        tokens=np.array(encoding.ids, dtype=np.int64),
        types=np.array(encoding.type_ids, dtype=np.int64),
        targets={"start": offsets[:, 0], "end": offsets[:, 1]},
    )


def cut_windows(encoded: Encoded, max_length: int) -> list[Encoded]:
    """`encoded`, a single text with specials at both ends, as rows of `max_length` tokens that overlap by half.

    Each token's output is kept from the window in which it stands at least a quarter of the window away from the cut edges,
    so a token near a border is judged with context on both sides.

    Returns:
        rows with the targets of their tokens and one more, `keep`, bool [n]: the outputs that count. Over all rows, in
        order, the kept positions are those of `encoded`.
    """
    content, room = len(encoded.tokens) - 2, max_length - 2
    if content <= room:
        return [replace(encoded, targets={**encoded.targets, "keep": np.ones(content + 2, dtype=np.bool_)})]
    margin = room // 4
    starts = [*range(0, content - room, room - 2 * margin), content - room]
    borders = [-1, *(start + margin for start in starts[1:]), content + 1]  # in content positions; [CLS] is -1
    windows = []
    for start, begin, end in zip(starts, borders, borders[1:], strict=False):
        places = np.concatenate([[0], np.arange(start + 1, start + 1 + room), [-1]])
        keep = np.zeros(max_length, dtype=np.bool_)
        keep[begin - start + 1 : end - start + 1] = True
        targets = {name: array[places] for name, array in encoded.targets.items()}
        windows.append(Encoded(tokens=encoded.tokens[places], types=encoded.types[places], targets={**targets, "keep": keep}))
    return windows


def shown_by(windows: int, max_length: int) -> int:
    """Tokens of a text, with specials, that so many rows of `cut_windows` show."""
    room = max_length - 2
    return max_length + (windows - 1) * (room - 2 * (room // 4))


def check_window(max_length: int) -> None:
    """Raises ElectraError E-C303 where a window has no room for a text."""
    if max_length < 8:
        raise ElectraError("E-C303", "task.max_length", f"{max_length} tokens leave no room for a text", "give 8 or more")


def learnt(before: TrainableTask, after: TrainableTask) -> list[str]:
    """What `fit` took from the examples, as a note: `from the training file: task.range = [0.0, 5.0]`; none for nothing."""
    given, taken = before.to_json(), after.to_json()
    new = {name: value for name, value in taken.items() if value != given.get(name)}
    shown = [f"task.{name} = {json.dumps(value, ensure_ascii=False):.200}" for name, value in new.items()]
    return [f"from the training file: {', '.join(shown)}"] if shown else []


# -- numbers -> outputs -------------------------------------------------------------------------------------------------


def rows_of(values: Tensor, layout: Layout) -> list[Tensor]:
    """What belongs to each row or document of [B, L, ...] or [T, ...], as [n, ...] without padding."""
    if isinstance(layout, Packed):
        return list(torch.split(values, layout.cu_seqlens.diff().tolist()))
    return [row[:length] for row, length in zip(values, layout.real.sum(dim=1).tolist(), strict=True)]


def joined(rows: Sequence[Encoded], values: Sequence[Tensor]) -> Tensor:
    """What belongs to the tokens of a text that was cut into windows, [n, ...], each token's from the window that keeps it.

    Args:
        rows: from `cut_windows`.
        values: [n, ...] of each row, outputs or others.
    """
    return torch.cat([value[torch.from_numpy(row.targets["keep"])] for row, value in zip(rows, values, strict=True)])


def characters_of(rows: Sequence[Encoded]) -> list[tuple[int, int]]:
    """The characters (start, end) of each token of a text, specials included.

    Args:
        rows: from `cut_windows`, of a `whole_text`.
    """
    columns = [np.stack([row.targets["start"], row.targets["end"]], axis=1)[row.targets["keep"]] for row in rows]
    return [(int(start), int(end)) for start, end in np.concatenate(columns)]


def tokens_of(rows: Sequence[Encoded]) -> list[tuple[int, int, int]]:
    """Id, start and end of each token of the text, specials included."""
    ids = np.concatenate([row.tokens[row.targets["keep"]] for row in rows]).tolist()
    return [(token, *characters) for token, characters in zip(ids, characters_of(rows), strict=True)]


#: of heads that may be read at a few places; one that inherits from them and reads otherwise is not
_FORWARD_AT_PLACES = [kind.forward for kind in get_args(PlacesHead)]


class TaskNetwork(nn.Module):
    """Encoder and head as one: `network(batch)` returns what the task's `loss` and `decode` take.

    Outside of training, hidden states that the head does not read are not computed behind the last layer's attention.

    Args:
        encoder: called with (tokens, positions, types, layout, at=...), returns hidden [B, L, D] or [T, D], or [N, D] at `at`.
        head: called with (hidden, batch).
    """

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, batch: Batch) -> Tensor:
        inputs, head = (batch.tokens, batch.positions, batch.types, batch.layout), self.head
        if not self.training and isinstance(head, PlacesHead) and type(head).forward in _FORWARD_AT_PLACES:
            places = head.places(batch)
            if places is not None:
                return head.at_places(self.encoder(*inputs, at=places))
        outputs: Tensor = head(self.encoder(*inputs), batch)
        return outputs


def saved_network(task: TrainableTask, model: ModelDir) -> TaskNetwork:
    """The network of a fine-tuned model: its encoder under the head that its task makes, with the saved weights.

    Raises:
        ElectraError: E-M310 the model has no such head, E-M311 a head of another shape than task.json says.
    """
    with shapes_alone():  # no memory until the shapes have been compared: task.json may say anything
        head = task.head(model.encoder)
    if not head.state_dict():  # nothing to be saved: any encoder will do
        return TaskNetwork(model.encoder, task.head(model.encoder).eval())
    state = model.own_head if model.task_head is None else model.task_head.state_dict()
    if state is None or (model.task_head is not None and type(model.task_head) is not type(head)):
        raise ElectraError("E-M310", str(model.path), f"has no {type(head).__name__}, which its task needs",
                           "give a model that was fine-tuned for this task")  # fmt: skip
    expected = {name: tensor.shape for name, tensor in head.state_dict().items()}
    if {name: tensor.shape for name, tensor in state.items()} != expected:
        outputs = f"{len(task.labels)} labels for other outputs" if task.labels else "settings of another head"
        raise ElectraError("E-M311", str(model.path / "task.json"), outputs, "restore the file of these weights")
    if model.task_head is None:
        head = task.head(model.encoder)
        head.load_state_dict(state)
    return TaskNetwork(model.encoder, (model.task_head or head).eval())


def check_length(task: Task, encoder: EncoderConfig) -> None:
    """Refuse rows that an encoder of these sizes has no positions for.

    Raises:
        ElectraError: E-C313.
    """
    positions = encoder.max_position_embeddings
    if task.max_length > positions:
        raise ElectraError("E-C313", "task.max_length", f"{task.max_length} tokens, but the encoder has {positions} positions",
                           f"give at most {positions}")  # fmt: skip
