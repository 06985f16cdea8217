"""Draws whole words, n-grams and spans: exactly as many positions as single tokens would be, each equally likely.

In come the candidates of B rows, where words begin, and the rows' noise; out comes which positions are drawn.

`span_starts` cuts the candidates of a row into spans of one or more whole words, side by side: the number of words of each is
drawn from a given distribution. A span ends early where no candidate follows, so it never crosses [SEP].

`draw_spans` draws k of the n candidates. The spans are laid on a circle in random order, each turned by a random number of its
own tokens, and the k tokens of a window that begins at a uniform place of the circle are drawn: any token is in it with
probability k / n, wherever in the row it stands and however long its span is (systematic sampling; Madow, 1949). Such a window
cuts the spans at both of its ends. So it slides forward or backward to the nearest place where one end cuts nothing, with the
two probabilities that leave the expectation of every span's share unchanged (the pivotal method; Deville and Tillé, 1998). In
the end at most one span of a row is drawn in part; being turned, it loses any of its tokens with equal probability.

What is usual is simpler and not uniform: to draw spans in random order and skip those that overshoot prefers short ones, and
to draw the places where spans begin neglects the beginning of the row.

Shapes: B rows, L positions; spans are numbered within their row, so there are L at most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from electra.contracts import Noise

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def span_starts(candidates_BL: Bools, word_starts_BL: Bools, shares: Sequence[float], noise: Noise) -> Bools:
    """Cuts the candidates of B rows into spans of whole words.

    Args:
        candidates_BL: bool [B, L], where a row may be drawn.
        word_starts_BL: bool [B, L], where words begin; a candidate behind none begins one in any case.
        shares: the probabilities of spans of 1, 2, 3 ... words.
        noise: the rows' random numbers.

    Returns:
        bool [B, L], where spans begin.
    """
    rows, length = candidates_BL.shape
    behind_none_BL = np.ones_like(candidates_BL)
    behind_none_BL[:, 1:] = ~candidates_BL[:, :-1]
    words_BL = candidates_BL & (word_starts_BL | behind_none_BL)
    word_number_BL = np.maximum(np.cumsum(words_BL, axis=1) - 1, 0)
    sizes_BL = 1 + np.searchsorted(np.cumsum(shares)[:-1], noise.uniform("span-words", length), side="right")
    first_word_BL = np.zeros((rows, length + 1), dtype=np.bool_)  # whether a row's word with this number begins a span
    first_word_BL[:, 0] = True
    np.put_along_axis(first_word_BL, np.minimum(np.cumsum(sizes_BL, axis=1), length), True, axis=1)
    starts_BL: Bools = words_BL & (behind_none_BL | np.take_along_axis(first_word_BL, word_number_BL, axis=1))
    return starts_BL


def draw_spans(candidates_BL: Bools, starts_BL: Bools, drawn_B: Ints, noise: Noise) -> Ints:
    """Draws positions of B rows, whole spans but for one.

    Args:
        candidates_BL: bool [B, L], where a row may be drawn.
        starts_BL: bool [B, L], which of them begin a span.
        drawn_B: k, how many are drawn, at most as many as there are candidates.
        noise: the rows' random numbers.

    Returns:
        int64 [B, L]: numbers 0 .. k - 1 at the drawn positions, each once; -1 elsewhere.
    """
    length = candidates_BL.shape[1]
    span_BL = np.maximum(np.cumsum(starts_BL, axis=1) - 1, 0)
    sizes_BS = _sizes(candidates_BL, span_BL)
    order_BS = np.argsort(np.where(sizes_BS > 0, noise.uniform("spans", length), 2.0), axis=1, kind="stable")
    ends_BS = np.cumsum(np.take_along_axis(sizes_BS, order_BS, axis=1), axis=1)  # on the circle, in order
    begins_BS = np.concatenate([np.zeros_like(ends_BS[:, :1]), ends_BS[:, :-1]], axis=1)
    span_begins_BS = np.empty_like(begins_BS)
    np.put_along_axis(span_begins_BS, order_BS, begins_BS, axis=1)
    turn_BS = (noise.uniform("span-turn", length).astype(np.float64) * sizes_BS).astype(np.int64)
    size_BL, begin_BL, turn_BL = (np.take_along_axis(of_BS, span_BL, axis=1) for of_BS in (sizes_BS, span_begins_BS, turn_BS))
    columns = np.arange(length)
    within_BL = columns - np.maximum.accumulate(np.where(starts_BL, columns, 0), axis=1)
    place_BL = begin_BL + (within_BL + turn_BL) % np.maximum(size_BL, 1)
    circle_B1 = np.maximum(ends_BS[:, -1:], 1)
    number_BL = (place_BL - _window(begins_BS, ends_BS, drawn_B, noise)[:, None]) % circle_B1
    return np.where(candidates_BL & (number_BL < drawn_B[:, None]), number_BL, -1)


def _sizes(candidates_BL: Bools, span_BL: Ints) -> Ints:
    """int64 [B, L]: the tokens of each span, by its number."""
    rows, length = span_BL.shape
    flat = (span_BL + np.arange(rows)[:, None] * length)[candidates_BL]
    return np.bincount(flat, minlength=rows * length).reshape(rows, length)


def _window(begins_BS: Ints, ends_BS: Ints, drawn_B: Ints, noise: Noise) -> Ints:
    """int64 [B]: where on its circle each row's window begins, one of its ends at the border of a span.

    Args:
        begins_BS, ends_BS: the spans on the circle, in order; those behind the last one are empty.
        drawn_B: the width of the window.
        noise: the rows' random numbers.
    """
    circle_B = np.maximum(ends_BS[:, -1], 1)
    uniform_B2 = noise.uniform("span-window", 2).astype(np.float64)
    first_B = (uniform_B2[:, 0] * circle_B).astype(np.int64)
    behind_B = (first_B + drawn_B) % circle_B  # the first place that is not drawn
    (before_first_B, after_first_B), (before_behind_B, after_behind_B) = (
        _to_borders(begins_BS, ends_BS, place_B) for place_B in (first_B, behind_B)
    )
    backward_B = np.minimum(before_first_B, before_behind_B)
    forward_B = np.minimum(after_first_B, after_behind_B)
    backs_B = uniform_B2[:, 1] * (backward_B + forward_B) < forward_B
    return first_B + np.where(backs_B, -backward_B, forward_B)


def _to_borders(begins_BS: Ints, ends_BS: Ints, place_B: Ints) -> tuple[Ints, Ints]:
    """How far each place of a circle lies behind the beginning of its span, and before the end of it."""
    span_B1 = np.minimum((ends_BS <= place_B[:, None]).sum(axis=1), ends_BS.shape[1] - 1)[:, None]
    begin_B, end_B = (np.take_along_axis(border_BS, span_B1, axis=1)[:, 0] for border_BS in (begins_BS, ends_BS))
    return place_B - begin_B, end_B - place_B
