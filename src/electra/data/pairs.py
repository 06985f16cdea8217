"""Rows of two segments from one document: [CLS] A [SEP] B [SEP], types 0 and 1, or one segment [CLS] A [SEP].

In comes a `Corpus`, out come rows as `Encoded`, by number. Row j of a document has a target length, `length` or, with
probability `short`, uniform in 5..`length`, and is a single segment with probability `single_segment`. Both, and the coin
below, are hashes of (seed, document, j), so rows stay what they are in every epoch and on every machine.

A takes the row's first sentence, then every sentence that leaves it shorter than half of the target; the first one that
does not goes to A if the coin says so; the rest is B. Two builders differ in the rest:

`paper` cuts the document's text exactly where the target is full. No token is lost, and A and B are in order.

`reference` follows the published code (google-research/electra, build_pretraining_dataset.py): a row takes whole sentences
until its target is reached, a later sentence that is short enough still goes back into A, and what exceeds `length` is cut
off. What is cut off is counted: `dropped` for the corpus, `Encoded.truncated` for a row.

The row table is one number per document and one per row. The start costs O(documents) for `paper`, which needs no more than
their lengths, and one pass over all sentence ends for `reference`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from electra.config import STRICT
from electra.contracts import Encoded, Noise
from electra.data.rows import locate, require_length, running_start
from electra.dist import fold_seed
from electra.errors import ElectraError
from electra.text.corpus import Corpus

Ints = npt.NDArray[np.int64]
T = TypeVar("T", bound=np.generic)

_SHORTEST = 5  # tokens of the shortest target, specials included
_ROW_BITS = 24  # a key is (document, row of the document): room for 2**24 rows of one document, 2**39 documents


@dataclass(frozen=True, kw_only=True)
class PairRowsConfig:
    """Segment pairs from single documents, as ELECTRA's authors trained on.

    Args:
        length: tokens of a row at most.
        single_segment: probability that a row is one segment.
        short: probability that a row's target length is drawn from 5..`length`.
        builder: `paper` loses nothing; `reference` loses what the published code loses.
    """

    __pydantic_config__ = STRICT
    type: Literal["pairs"] = "pairs"
    length: int = 128
    single_segment: float = 0.1
    short: float = 0.05
    builder: Literal["paper", "reference"] = "paper"

    def __post_init__(self) -> None:
        require_length(self.length)
        for name, share in (("single_segment", self.single_segment), ("short", self.short)):
            if not 0 <= share <= 1:
                raise ElectraError("E-C243", f"rows.{name}", f"{share} is not a probability", "give a number from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class _Draws:
    """What is drawn for n rows: target length, single segment or two, the coin of the sentence across the middle."""

    target: Ints
    single: npt.NDArray[np.bool_]
    coin: npt.NDArray[np.bool_]

    @property
    def half(self) -> Ints:
        """The length that A stays below."""
        return np.where(self.single, np.iinfo(np.int64).max, (self.target - 3) // 2)


class PairRows:
    """See the module. Lengths here count text, without the [CLS] and [SEP] that are stored with a document.

    Args:
        corpus: the stored documents.
        config: format.
        seed: key of everything that is drawn.
        cls_id, sep_id: the tokens around the segments.
        words: give each row the target `word_starts`, bool [n]: which tokens begin a word.
    """

    def __init__(
        self, corpus: Corpus, config: PairRowsConfig, seed: int, *, cls_id: int, sep_id: int, words: bool = False
    ) -> None:
        self.length = config.length
        self._words = words
        self.dropped = 0
        self._corpus = corpus
        self._config = config
        self._key = np.uint64(fold_seed(seed, "pairs"))
        self._cls_id, self._sep_id = cls_id, sep_id
        self._first_document = running_start(np.array([shard.documents for shard in corpus.shards], dtype=np.int64))
        index = self._paper_index if config.builder == "paper" else self._reference_index
        indices = [index(shard, int(first)) for shard, first in enumerate(self._first_document[:-1])]
        counts = [rows for rows, _ in indices]
        self._first_row = running_start(np.concatenate(counts) if counts else np.zeros(0, np.int64))
        self._starts = np.concatenate([starts for _, starts in indices]) if indices else np.zeros(0, np.uint32)
        self._text: int = sum(shard.tokens - 2 * shard.documents for shard in corpus.shards)

    def __len__(self) -> int:
        return int(self._first_row[-1])

    @cached_property
    def lengths(self) -> Ints:
        """int64 [rows], exact. Nothing in pre-training asks for it: it makes every row once."""
        return np.array([len(self[row].tokens) for row in range(len(self))], dtype=np.int64)

    @property
    def tokens_per_row(self) -> float:
        """Mean tokens of a row, counting three specials for each: up to one too many where rows are single segments."""
        return (self._text - self.dropped) / max(1, len(self)) + 3

    def __getitem__(self, index: int) -> Encoded:
        document, number = locate(self._first_row, index)
        shard, local = locate(self._first_document, document)
        offset, end = self._corpus.offsets(shard, local, local + 2).tolist()
        start = int(self._starts[index])
        last = index + 1 == self._first_row[document + 1]
        stop = end - offset - 2 if last else int(self._starts[index + 1])
        stored = shard, offset + 1 + start, offset + 1 + stop
        text = self._corpus.tokens(*stored).astype(np.int64)
        draws = self._draws(np.array([document]), np.array([number]))
        sentences = np.diff(_ends_within(self._corpus.sentence_ends(shard, local), start, stop), prepend=start)
        in_first = np.repeat(self._split(sentences, int(draws.half[0]), bool(draws.coin[0])), sentences)
        first, second = np.flatnonzero(in_first)[: self.length - 2], np.flatnonzero(~in_first)
        second = second[: max(0, self.length - len(first) - 3)]
        tokens = self._joined(text, first, second, self._cls_id, self._sep_id)
        types = (np.arange(len(tokens)) >= len(first) + 2).astype(np.int64)
        targets = {}
        if self._words:
            targets["word_starts"] = self._joined(self._corpus.word_starts(*stored), first, second, True, True)
        return Encoded(tokens=tokens, types=types, targets=targets, truncated=len(text) - len(first) - len(second))

    @staticmethod
    def _joined(text: npt.NDArray[T], first: Ints, second: Ints, cls: int, sep: int) -> npt.NDArray[T]:
        """[CLS] A [SEP] B [SEP] of one number for each token of a text, A and B given by their places in it."""
        tail = [text[second], [sep]] if len(second) else []
        return np.concatenate([[cls], text[first], [sep], *tail]).astype(text.dtype)

    def _draws(self, documents: Ints, numbers: Ints) -> _Draws:
        """For rows `numbers` of `documents`, both int64 [n]."""
        keys = documents.astype(np.uint64) << np.uint64(_ROW_BITS) | numbers.astype(np.uint64)
        uniform = Noise(keys ^ self._key).uniform("pairs", 4).astype(np.float64)
        short = _SHORTEST + (uniform[:, 1] * (self.length - _SHORTEST + 1)).astype(np.int64)
        return _Draws(
            target=np.where(uniform[:, 0] < self._config.short, short, self.length),
            single=uniform[:, 2] < self._config.single_segment,
            coin=uniform[:, 3] < 0.5,
        )

    def _split(self, sentences: Ints, half: int, coin: bool) -> npt.NDArray[np.bool_]:
        """Which sentences of a row, given by their lengths, go to A."""
        return (_split_in_order if self._config.builder == "paper" else _split_as_reference)(sentences, half, coin)

    def _room(self, documents: Ints, numbers: Ints) -> Ints:
        """The text that `paper` puts into each row."""
        draws = self._draws(documents, numbers)
        return draws.target - np.where(draws.single, 2, 3)

    def _paper_index(self, shard: int, first_document: int) -> tuple[Ints, npt.NDArray[np.uint32]]:
        """Rows of each document of a shard, and where each row starts in its document's text."""
        left = np.diff(self._corpus.offsets(shard)).astype(np.int64) - 2
        rows = np.zeros(len(left), dtype=np.int64)
        active = np.flatnonzero(left > 0)
        while active.size:
            more = -(-left[active] // (self.length - 2))  # never too many, as no row has room for more text than that
            group, turn = _ragged(more)
            room = self._room(first_document + active[group], rows[active[group]] + turn)
            left[active] -= np.add.reduceat(room, running_start(more)[:-1])
            rows[active] += more
            active = active[left[active] > 0]
        local, number = _ragged(rows)
        before = running_start(self._room(first_document + local, number))[:-1]
        return rows, (before - before[running_start(rows)[local]]).astype(np.uint32)

    def _reference_index(self, shard: int, first_document: int) -> tuple[Ints, npt.NDArray[np.uint32]]:
        """As `_paper_index`; adds what is cut off to `dropped`."""
        rows, starts = [], []
        texts = (np.diff(self._corpus.offsets(shard)).astype(np.int64) - 2).tolist()
        for local, text in enumerate(texts):
            ends = _ends_within(self._corpus.sentence_ends(shard, local), 0, text)
            draws = self._draws(np.full(len(ends), first_document + local), np.arange(len(ends)))
            halves = draws.half
            start, number, sentence = 0, 0, 0
            while start < text:
                last = min(int(np.searchsorted(ends, start + draws.target[number])), len(ends) - 1)
                sentences = np.diff(ends[sentence : last + 1], prepend=start)
                self.dropped += self._overflow(sentences, int(halves[number]), bool(draws.coin[number]))
                starts.append(start)
                start, number, sentence = int(ends[last]), number + 1, last + 1
            rows.append(number)
        return np.array(rows, dtype=np.int64), np.array(starts, dtype=np.uint32)

    def _overflow(self, sentences: Ints, half: int, coin: bool) -> int:
        """What `length` cuts off from a row of these sentences."""
        in_first = self._split(sentences, half, coin)
        first, second = int(sentences[in_first].sum()), int(sentences[~in_first].sum())
        kept = min(first, self.length - 2)
        return first + second - kept - min(second, max(0, self.length - kept - 3))


def _split_in_order(sentences: Ints, half: int, coin: bool) -> npt.NDArray[np.bool_]:
    ends = np.cumsum(sentences)
    count = max(1, int(np.searchsorted(ends, half)))
    if ends[count - 1] < half and coin:
        count += 1
    return np.arange(len(sentences)) < count


def _split_as_reference(sentences: Ints, half: int, coin: bool) -> npt.NDArray[np.bool_]:
    in_first = np.zeros(len(sentences), dtype=np.bool_)
    first = second = 0
    for number, sentence in enumerate(sentences.tolist()):
        crosses = second == 0 and first < half and coin  # the coin counts once: afterwards A is full or B is begun
        if first == 0 or first + sentence < half or crosses:
            in_first[number] = True
            first += sentence
        else:
            second += sentence
    return in_first


def _ends_within(stored_ends: npt.NDArray[np.uint32], start: int, stop: int) -> Ints:
    """Where sentences end in start < end <= stop of a document's text, rising; `stop` is always an end.

    Only the places in between are touched: a document may be as long as a shard.
    """
    kind = stored_ends.dtype.type  # another type would make numpy convert the whole array
    begin, end = np.searchsorted(stored_ends, kind(start + 1), side="right"), np.searchsorted(stored_ends, kind(stop + 1))
    within = stored_ends[begin:end].astype(np.int64) - 1  # stored with [CLS] in front
    return np.append(within, stop)


def _ragged(sizes: Ints) -> tuple[Ints, Ints]:
    """For groups of `sizes` items: the group of each item, and its number there."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    return group, np.arange(len(group)) - running_start(sizes)[group]
