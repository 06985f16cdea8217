"""Long contexts in windows, and the spans that a network sees in each of them; all in numpy.

These are windows of a context behind a question, as SQuAD's users cut them; a text alone is cut by `common.cut_windows`.

In: the rows of `span.Span.encode` and what the network says about their tokens. Out: log-probabilities of spans, of which each
is told by one window alone.

Shapes: n tokens of a row, S starts, A tokens of an answer at most, C channels of the joint head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from electra.contracts import Encoded

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Spans(NamedTuple):
    """Spans of one window.

    Args:
        starts: [S], first tokens, as positions in the row.
        log_probability: [S, A], of the span of each start and each number of tokens; -inf where there is none.
        null: how much speaks for "no answer" in this window: a log-probability (plain head) or the head's logit (joint).
    """

    starts: Ints
    log_probability: Floats
    null: float


def windows_of(length: int, room: int, stride: int) -> list[slice]:
    """Windows of `room` tokens at most, one every `stride`, until the last one reaches the end."""
    last = max(0, -(-(length - room) // stride))
    return [slice(start, min(start + room, length)) for start in range(0, last * stride + 1, stride)]


def shown_best(windows: Sequence[slice]) -> Ints:
    """For each token, the number of the window that shows most of what is around it: the most on its poorer side; where
    that is equal, the longer window; the first one of equals (as BERT's code for SQuAD)."""
    length = windows[-1].stop
    most, number = np.full(length, -1.0), np.zeros(length, dtype=np.int64)
    for place, window in enumerate(windows):
        size = window.stop - window.start
        inner = np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.01 * size
        better = inner > most[window]
        most[window][better], number[window][better] = inner[better], place
    return number


# -- spans of one window ------------------------------------------------------------------------------------------------


def plain_spans(row: Encoded, scores_n2: Floats, length: int) -> Spans:
    """Starts and ends on their own."""
    start_n, end_n = (_log_softmax(scores_n2[:, channel], row) for channel in (0, 1))
    starts = np.flatnonzero(row.targets["keep"])
    return Spans(starts, start_n[starts, None] + _following(end_n, row, length)[starts], float(start_n[0] + end_n[0]))


def joint_spans(row: Encoded, outputs_nC: Floats, length: int) -> Spans:
    """Ends given each of the beam's starts; see `JointSpanHead` for the channels."""
    start_n, rank_n = _log_softmax(outputs_nC[:, 0], row), outputs_nC[:, 2].astype(np.int64)
    starts = np.flatnonzero((rank_n < outputs_nC.shape[1] - 3) & row.targets["keep"])
    spans = np.full((len(starts), length), -np.inf)
    for place, start in enumerate(starts):
        end_n = _log_softmax(outputs_nC[:, 3 + rank_n[start]], row)
        spans[place] = start_n[start] + _following(end_n, row, length)[start]
    return Spans(starts, spans, float(outputs_nC[0, 1]))


def _log_softmax(scores_n: Floats, row: Encoded) -> Floats:
    """Over the context and the first token; -inf elsewhere."""
    allowed = row.targets["context"].astype(np.bool_)
    allowed[0] = True
    scores_n = np.where(allowed, scores_n, -np.inf)
    top = scores_n.max()
    normalised: Floats = scores_n - top - np.log(np.exp(scores_n - top).sum())
    return normalised


def _following(end_n: Floats, row: Encoded, length: int) -> Floats:
    """[n, A]: for each token, the ends at it and at the tokens behind it, -inf outside of the context."""
    inside = np.where(row.targets["context"], end_n, -np.inf)
    return sliding_window_view(np.pad(inside, (0, length - 1), constant_values=-np.inf), length)


def characters(context: str, row: Encoded, first: int, last: int) -> tuple[int, int]:
    """Characters of the context that tokens `first` to `last` stand for, without white space at either end."""
    start, end = int(row.targets["char_start"][first]), int(row.targets["char_end"][last])
    text = context[start:end]
    return start + len(text) - len(text.lstrip()), start + len(text.rstrip())
