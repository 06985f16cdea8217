"""The words of a text that a network can label: each has a token of its own at which it is read.

In: a text, the characters of its tokens, and the words that a file gives, if it does. Out: where each word starts and ends, and
its first token. A word begins

    where `text.boundaries` cuts, which is where BERT's tokenizers cut: at every Chinese character, every punctuation mark,
    behind every space, of whatever kind,
    where a given word begins and where it ends,

unless a token lies across that place (byte-level BPE and unigram join Chinese characters, say): then there is none. So a text
is cut alike with its given words and without, but for borders within words. Which of its words begin with a given one,
`WordGrid.begins` tells.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from electra.contracts import Mention
from electra.text.boundaries import starts_of_text
from electra.text.scripts import code_points

Places = npt.NDArray[np.int64]
Characters = Sequence[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class WordGrid:
    """Words in the order of the text, w of them.

    Args:
        starts: int64 [w], first character of each.
        ends: int64 [w], the character behind its last.
        tokens: int64 [w], its first token, as a number in the offsets that the grid was made from.
    """

    starts: Places
    ends: Places
    tokens: Places

    def __len__(self) -> int:
        return len(self.starts)

    def of(self, given: Characters) -> WordGrid:
        """The given words, at the same tokens; one without a token of its own is left out."""
        starts, ends = _columns(given)
        if not len(self):
            return self
        first = np.minimum(np.searchsorted(self.starts, starts), len(self) - 1)
        found = self.starts[first] == starts
        return WordGrid(starts=starts[found], ends=ends[found], tokens=self.tokens[first[found]])

    def begins(self, given: Characters) -> npt.NDArray[np.bool_]:
        """bool [w], whether a given word begins with the word; True of all where none is given."""
        if not len(given):
            return np.ones(len(self), dtype=np.bool_)
        starts, _ = _columns(given)
        return np.isin(self.starts, starts)

    def touched(self, mentions: Sequence[Mention]) -> tuple[Places, Places, npt.NDArray[np.bool_]]:
        """The words [first, behind) that share a character with each mention, and whether it is made of whole words."""
        starts, ends = _columns([(mention.start, mention.end) for mention in mentions])
        first, behind = np.searchsorted(self.ends, starts, "right"), np.searchsorted(self.starts, ends, "left")
        whole = first < behind
        whole[whole] = (self.starts[first[whole]] == starts[whole]) & (self.ends[behind[whole] - 1] == ends[whole])
        return first, behind, whole


def word_grid(text: str, offsets: Characters, given: Characters = ()) -> WordGrid:
    """The words of a text, see the module.

    Args:
        text: any string.
        offsets: characters [start, end) of each token, without specials; a space before a word may count to its token.
        given: characters of each word that a file gives, in order, none overlapping.
    """
    solid = _table()[code_points(text)]
    tokens, firsts, behind = _solid_tokens(solid, offsets)
    if not len(tokens):
        return WordGrid(starts=firsts, ends=behind, tokens=tokens)
    given_starts, given_ends = _columns(given)
    cuts = starts_of_text(text)
    cuts[1:] |= ~solid
    cuts[given_starts] = cuts[given_ends] = True
    places = np.flatnonzero(cuts[:-1] & solid)
    at = np.searchsorted(firsts, places)
    between = (at == 0) | (behind[at - 1] <= places)
    words = np.union1d([0], at[between & (at < len(tokens))])
    starts, ends = firsts[words], np.append(behind[words[1:] - 1], behind[-1])
    if len(given):
        _stretch(starts, ends, given_starts, given_ends)
    return WordGrid(starts=starts, ends=ends, tokens=tokens[words])


@cache
def _table() -> npt.NDArray[np.bool_]:
    """For each code point, whether it is no space."""
    return np.array([not chr(code).isspace() for code in range(sys.maxunicode + 1)])


def _columns(given: Characters) -> tuple[Places, Places]:
    starts, ends = np.array(given, dtype=np.int64).reshape(-1, 2).T
    return starts, ends


def _solid_tokens(solid: npt.NDArray[np.bool_], offsets: Characters) -> tuple[Places, Places, Places]:
    """Tokens that hold more than spaces, their first character and the one behind their last, both without spaces around them.

    Of several tokens that begin in one character (byte-level BPE) it is the first one.
    """
    length = len(solid)
    next_solid, end_solid = np.full(length + 1, length), np.zeros(length + 1, dtype=np.int64)
    next_solid[:-1][solid] = np.flatnonzero(solid)
    end_solid[1:][solid] = np.flatnonzero(solid) + 1
    starts, ends = _columns(offsets)
    firsts = np.minimum.accumulate(next_solid[::-1])[::-1][starts]
    behind = np.maximum.accumulate(end_solid)[ends]
    tokens = np.flatnonzero(firsts < behind)
    behind = np.maximum.accumulate(behind[tokens])
    firsts, which = np.unique(firsts[tokens], return_index=True)
    return tokens[which], firsts, behind[np.append(which[1:], len(tokens))[: len(which)] - 1]


def _stretch(starts: Places, ends: Places, given_starts: Places, given_ends: Places) -> None:
    """Words at the edges of a given word take its edges: characters that no token holds (joiners, say) belong to the word."""
    first, last = np.searchsorted(starts, given_starts), np.searchsorted(starts, given_ends) - 1
    previous_end = np.concatenate([[0], ends])[first]
    known = (first <= last) & (previous_end <= given_starts)
    starts[first[known]] = given_starts[known]
    known &= ends[last] <= given_ends
    ends[last[known]] = given_ends[known]
