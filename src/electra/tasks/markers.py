"""A text with two marked mentions -> tokens, in which the network sees what it is asked about.

    Bill was born in Seattle.    ->    @ * person * Bill @ was born in # ^ city ^ Seattle #.

Each mention stands between punctuation marks, its type in words before it (Zhou & Chen, 2022, "An Improved Baseline for
Sentence-level Relation Extraction": typed entity markers with punctuation). Nothing is added to the vocabulary. The text is
cut where the mentions begin and end, and each piece is encoded by itself, as if spaces stood around it: so a mention begins
and ends with a token, whatever the tokenizer, and where each marker stands is known by construction. Mentions may lie within
each other or overlap.

A text that does not fit keeps its markers, then its mentions, then the tokens nearest to a marker: it is cut at both ends,
and in the middle too if the mentions are far apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from electra.contracts import Example
from electra.errors import ElectraError
from electra.text.tokenizer import Tokenizer

#: what marks mentions, best first; the first four that the tokenizer knows are taken: of head, of tail, of their types
_MARKS = "@#*^~|$&%+=<>/\\_`{}!?;:()-、；：《》（）"
#: tag names that are no words, as words
_WORDS = {"per": "person", "org": "organization", "loc": "location", "misc": "miscellaneous", "gpe": "place", "fac": "facility"}


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One of the two mentions: characters `start` to `end` of the text, end exclusive, and its type if known."""

    start: int
    end: int
    type: str | None = None


@dataclass(frozen=True, kw_only=True)
class Marked:
    """Tokens of a text with its markers and specials.

    Args:
        tokens: int64 [n].
        head, tail: the token that opens each mention.
        truncated: tokens of the text that did not fit.
    """

    tokens: npt.NDArray[np.int64]
    head: int
    tail: int
    truncated: int


def arguments(example: Example) -> tuple[Argument, Argument]:
    """Head and tail of an example.

    Raises:
        ElectraError: E-D380 there are none, E-D381 one does not fit the text.
    """
    head, tail = (_argument(example, role) for role in ("head", "tail"))
    return head, tail


def _argument(example: Example, role: str) -> Argument:
    where, value = example.where or "example", example.given.get(role)
    if value is None:
        raise ElectraError("E-D380", where, f"no {role} is marked in the text",
                           "give relation data, or find the mentions with a tagger (--tagger)")  # fmt: skip
    match value:
        case (int(start), int(end), str() | None as kind) if 0 <= start < end <= len(example.text):
            return Argument(start=start, end=end, type=kind)
    raise ElectraError("E-D381", where, f"{role} is {value!r:.80} in a text of {len(example.text)} characters",
                       "give (start, end, type or None), counted from 0, end exclusive")  # fmt: skip


class Markers:
    """Encodes texts with marked mentions.

    Args:
        tokenizer: the encoder's.

    Raises:
        ElectraError: E-M325 the tokenizer knows too few punctuation marks.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._ids = lru_cache(maxsize=1024)(lambda text: tuple(tokenizer.encode_literally(f" {text}").ids[1:-1]))
        self._ends = tokenizer.cls_id, tokenizer.sep_id
        self._encode = tokenizer.encode
        ids = {self._ids(mark): mark for mark in reversed(_MARKS)}  # some tokenizers write two marks alike
        known = [mark for tokens, mark in ids.items() if tokens and tokenizer.unk_id not in tokens]
        marks = sorted(known, key=_MARKS.index)[:4]
        if len(marks) < 4:
            raise ElectraError("E-M325", "tokenizer", f"knows only {len(marks)} of the marks {' '.join(_MARKS)}",
                               "take a tokenizer that was trained on text with punctuation; four are needed")  # fmt: skip
        self.marks = tuple(marks)

    def encode(self, example: Example, head: Argument, tail: Argument, max_length: int) -> Marked:
        """[CLS] text [SEP] with markers around `head` and `tail`, at most `max_length` tokens.

        Raises:
            ElectraError: E-D382 the markers alone do not fit, because the types are so long.
        """
        tokens, opened = list[int](), [0, 0]
        rank = list[int]()  # 0 = of a marker, 1 = of a mention, 2 = of the rest
        before, depth = 0, 0
        for place, opens, role in _borders((head, tail)):
            self._add(tokens, rank, example.text[before:place], 1 if depth else 2)
            mark = self._ids(self.marks[role])
            if opens:
                opened[role] = len(tokens) + len(mark) - 1
            marker = [*mark, *self._type(role, (head, tail)[role])] if opens else list(mark)
            tokens += marker
            rank += [0] * len(marker)
            before, depth = place, depth + (1 if opens else -1)
        self._add(tokens, rank, example.text[before:], 2)
        kept = _nearest(np.array(rank), max_length - 2, example.where)
        first, last = self._ends
        return Marked(
            tokens=np.concatenate([[first], np.array(tokens, dtype=np.int64)[kept], [last]]),
            head=1 + int(np.searchsorted(kept, opened[0])), tail=1 + int(np.searchsorted(kept, opened[1])),
            truncated=len(tokens) - len(kept),
        )  # fmt: skip

    def _add(self, tokens: list[int], rank: list[int], piece: str, of: int) -> None:
        if piece.strip():
            ids = self._encode(f" {piece.strip()}").ids[1:-1]
            tokens += ids
            rank += [of] * len(ids)

    def _type(self, role: int, argument: Argument) -> tuple[int, ...]:
        """`* person *`; nothing where there is no type."""
        if argument.type is None or not argument.type.strip():
            return ()
        mark = self._ids(self.marks[2 + role])
        words = argument.type.casefold().replace("_", " ").replace("-", " ").strip()
        return (*mark, *self._ids(_WORDS.get(words, words)), *mark)


def _borders(pair: tuple[Argument, Argument]) -> list[tuple[int, bool, int]]:
    """(character, whether a mention opens there, whose), in the order of the text.

    Of two at one place, the inner closes first and the outer opens first.
    """
    borders: list[tuple[Any, tuple[int, bool, int]]] = []
    for role, argument in enumerate(pair):
        borders.append(((argument.start, 1, -argument.end, role), (argument.start, True, role)))
        borders.append(((argument.end, 0, -argument.start, -role), (argument.end, False, role)))
    return [border for _, border in sorted(borders)]


def _nearest(rank: npt.NDArray[np.int64], room: int, where: str) -> npt.NDArray[np.intp]:
    """The places of the `room` tokens to keep, in order: by rank, then by their distance to a marker, the left one of two."""
    places, markers = np.arange(len(rank)), np.flatnonzero(rank == 0)
    if len(markers) > room:
        raise ElectraError("E-D382", where or "example", f"the markers of the mentions take {len(markers)} tokens of {room}",
                           "raise task.max_length, shorten the names of the types, or set task.types=false")  # fmt: skip
    if len(rank) <= room:
        return places
    after = np.searchsorted(markers, places)
    distances = [np.abs(places - markers[np.clip(after - step, 0, len(markers) - 1)]) for step in (0, 1)]
    return np.sort(np.lexsort((np.minimum(*distances), rank))[:room])
