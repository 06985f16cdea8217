"""An n-gram model of a text, as a floor for the scores of encoders: what is known without any network.

In: a text file, and sentences. Out: the log-probability of each sentence. Interpolated Kneser-Ney with one discount an order,
D = n1 / (n1 + 2 n2) (Chen & Goodman, 1999, equations 14 and 24):

    P_k(w | h) = max(a(hw) - D, 0) / A(h)  +  D T(h) / A(h)  P_(k-1)(w | h without its first word),   P_0 = 1 / V

a is the count in the text for the highest order, and the number of different words before `hw` for the others; A(h) is its sum
and T(h) the number of different words behind h. Order 1 is word frequency. Words are runs of letters and digits, in lower case,
and single other signs; each sentence of the text and each one asked for stands between begin marks and one end mark; a word
that the text lacks has the probability of what is left for it.

A k-gram is numbered as (number of its first k - 1 words, last word), so numbers are exact, and one sort of the text an order is
all the work. The k-grams of one order are held at a time, so memory is some 60 bytes for each word of the text, at any order.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from electra.errors import ElectraError

#: words of a text at most: 6 GB of memory
MOST_WORDS = 100_000_000
_WORD = re.compile(r"\w+|[^\w\s]")
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+")
_BEGIN, _END, _UNKNOWN = 0, 1, 2
Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]
Counts = Ints | Numbers
Floats = npt.NDArray[np.float64]


def log_probabilities(text: Path, sentences: Sequence[str], order: int) -> list[float]:
    """Natural logarithm of the probability of each sentence, its end included, by a model of `text`.

    Sums are exactly rounded: sentences of the same words have the same frequency, whatever their order.

    Args:
        text: a file, in UTF-8.
        sentences: any strings.
        order: n; 1 = word frequency.

    Raises:
        ElectraError: E-C100 no such file, E-D585 it has no words, or too many.
    """
    if not text.is_file():
        raise ElectraError("E-C100", str(text), "no such file", "mend the path")
    numbers = {"": _BEGIN, "\n": _END, "\0": _UNKNOWN}
    learnt = _numbered(_sentences(text), numbers, order, grow=True)
    words = len(learnt) and int((learnt > _UNKNOWN).sum())
    if not 0 < words <= MOST_WORDS:
        raise ElectraError("E-D585", str(text), f"{words:,} words", f"give a text of 1 to {MOST_WORDS:,} words")
    asked = _numbered(sentences, numbers, order, grow=False)
    logs = np.log(_probabilities(learnt, asked, order, len(numbers) - 1))
    ends = np.flatnonzero(asked == _END)
    starts = [0, *(ends[:-1] + 1).tolist()]
    return [math.fsum(logs[start + order - 1 : end + 1].tolist()) for start, end in zip(starts, ends.tolist(), strict=True)]


def _sentences(text: Path) -> Iterator[str]:
    with text.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            yield from _SENTENCE_END.split(line.strip()) if line.strip() else ()


def _numbered(sentences: Iterable[str], numbers: dict[str, int], order: int, grow: bool) -> Numbers:
    """The words of all sentences as numbers, each sentence behind order - 1 begin marks and before an end mark."""
    found, begin = array("i"), [_BEGIN] * (order - 1)
    for sentence in sentences:
        words = _WORD.findall(sentence.lower())
        found.extend(begin)
        found.extend([numbers.setdefault(word, len(numbers)) if grow else numbers.get(word, _UNKNOWN) for word in words])
        found.append(_END)
    return np.frombuffer(found, dtype=np.int32)


@dataclass(frozen=True)
class _Order:
    """The k-grams of the text.

    Args:
        keys: their keys, sorted; (number of the first k - 1 words) * width + last word.
        counts: how often each stands in the text.
        context, suffix: numbers of the first and of the last k - 1 words of each.
        number: at each place of the text, that of the k-gram that ends there.
        events: whether each ends in what is predicted, so not in a begin mark.
    """

    keys: Ints
    counts: Numbers
    context: Numbers
    suffix: Numbers
    number: Numbers
    events: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, learnt: Numbers, shorter: Numbers, width: int) -> _Order:
        """Args: shorter: numbers of the (k - 1)-grams at each place."""
        before = np.concatenate([shorter[:1], shorter[:-1]])
        keys = before * np.int64(width) + learnt
        order = keys.argsort(kind="stable")
        keys = keys[order]
        new = np.concatenate([[True], keys[1:] != keys[:-1]])
        number = np.empty_like(shorter)
        number[order] = np.cumsum(new, dtype=np.int32) - 1
        starts = np.flatnonzero(new)
        keys, first = keys[starts], order[starts]
        counts = np.diff(starts, append=len(order)).astype(np.int32)
        return cls(keys, counts, before[first], shorter[first], number, learnt[first] != _BEGIN)


def _probabilities(learnt: Numbers, asked: Numbers, order: int, vocabulary: int) -> Floats:
    """P_n at each place of `asked`; what stands at begin marks means nothing."""
    width = int(max(learnt.max(), asked.max())) + 1
    probability: Floats = np.full(len(asked), 1 / vocabulary)
    now = _Order.of(learnt, np.zeros_like(learnt), width)
    above: Ints = np.zeros(
        len(asked), dtype=np.int64
    )  # the number of the (k - 1)-gram at each place of `asked`; -1 = the text lacks it
    for k in range(1, order + 1):
        longer = _Order.of(learnt, now.number, width) if k < order else None
        weight: Counts = now.counts if longer is None else np.bincount(longer.suffix[longer.events], minlength=len(now.keys))
        before = np.concatenate([above[:1], above[:-1]])
        above = _found(now.keys, np.where(before < 0, -1, before * width + asked))
        probability = _interpolated(now, weight, before, above, probability)
        now = now if longer is None else longer
    return probability


def _interpolated(grams: _Order, weight: Counts, before: Ints, here: Ints, lower: Floats) -> Floats:
    """P_k from P_(k-1).

    Args:
        weight: a of each k-gram.
        before, here: numbers of the context and of the k-gram at each place that is asked for, -1 = the text lacks it.
        lower: P_(k-1).
    """
    context, weight_of_events = grams.context[grams.events], weight[grams.events]
    size = max(int(grams.context.max()), int(before.max())) + 1
    total = np.bincount(context, weights=weight_of_events, minlength=size)
    different = np.bincount(context, minlength=size)
    once, twice = int((weight_of_events == 1).sum()), int((weight_of_events == 2).sum())
    discount = once / (once + 2 * twice) if once else 0.5
    seen = np.where(here < 0, 0.0, np.maximum(weight[here] - discount, 0.0))
    whole = np.where(before < 0, 0.0, total[before])
    known = whole > 0
    divisor = np.where(known, whole, 1.0)
    found: Floats = np.where(known, seen / divisor + discount * different[before] / divisor * lower, lower)
    return found


def _found(keys: Ints, asked: Ints) -> Ints:
    """The places of `asked` in the sorted `keys`, -1 where it is not among them."""
    place = np.searchsorted(keys, asked).clip(max=len(keys) - 1)
    found: Ints = np.where(keys[place] == asked, place, -1)
    return found
