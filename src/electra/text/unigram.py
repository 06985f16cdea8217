"""The pieces of a unigram tokenizer and their log probabilities (Kudo, 2018, section 3.2).

In: words with their counts, and the characters that get a piece. Out: a given number of pieces, the probable first.

1. Seeds: the substrings of words that occur often enough, by occurrences times length; none whose every occurrence goes on
   with the same character, since the longer one says the same.
2. Expectation and maximisation, twice: how often each piece is used, over all ways to cut every word, each weighted by its
   probability; these numbers, normalised, are the new probabilities.
3. A piece is worth its uses times what the best way to spell it with other pieces is less probable. A quarter of the pieces,
   those of least worth, goes; single characters stay. Again from 2, until the number is reached.

It is ours because the library's trainer sums in the order of a hash table, so that two runs differ, and takes minutes and
much memory for writing without spaces. Here all words are one array of characters, the ways to cut them one graph whose
edges are the occurrences of pieces, and each step along the words is taken for all of them at once. Every sum has a
fixed order, and so have ties.

Shapes: C characters of all words, G segments, N = C + G nodes (the gaps between characters), E edges, P pieces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from electra.text.scripts import code_points

#: characters of the longest piece
LONGEST_PIECE = 16
#: characters; longer words are cut here while training
_LONGEST_WORD = 64
#: seeds for each piece that is wanted
_SEEDS = 8
#: share of the pieces that outlives a round
_SURVIVORS = 0.75
#: a piece that is not used counts as half a use, so that its probability is not 0
_LEAST_USES = 0.5

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def unigram_pieces(
    words: Mapping[str, int], alphabet: Sequence[str], count: int, min_frequency: int = 2
) -> list[tuple[str, float]]:
    """The `count` pieces that make `words` most probable, or fewer if there are no more.

    Args:
        words: with how often they occur.
        alphabet: characters that are pieces whatever they are worth, at most `count`; words are cut at all others.
        count: how many pieces.
        min_frequency: how often a substring must occur to become a piece.

    Returns:
        (piece, natural logarithm of its probability, rounded to 6 digits), the probable first.
    """
    text = _text_of(words, alphabet)
    seeds, frequency_P = _seeds(text, len(alphabet), _SEEDS * count, min_frequency)
    cuts = _graph(text, seeds, len(alphabet))
    spellings = _graph(_text_of_seeds(seeds), seeds, len(alphabet)).without_whole_segments()
    alive = np.arange(len(seeds))
    scores_P = _normalised(frequency_P)
    while True:
        for _ in range(2):
            scores_P = _normalised(cuts.expected_uses(scores_P))
        if len(alive) <= count:
            break
        worth_P = np.exp(scores_P) * (scores_P - spellings.best(scores_P)[alive])
        worth_P[: len(alphabet)] = np.inf
        wanted = max(count, int(_SURVIVORS * len(alive)))
        kept = np.sort(np.argsort(-worth_P, kind="stable")[:wanted])
        cuts, spellings = cuts.restricted(kept, len(alive)), spellings.restricted(kept, len(alive))
        alive, scores_P = alive[kept], scores_P[kept]
    spelled = ["".join(alphabet[code] for code in seeds[index]) for index in alive]
    rounded = [round(score, 6) for score in scores_P.tolist()]
    return sorted(zip(spelled, rounded, strict=True), key=lambda entry: (-entry[1], entry[0]))


def _normalised(uses_P: Floats) -> Floats:
    """Log probabilities of pieces from how often they are used."""
    uses_P = np.maximum(uses_P, _LEAST_USES)
    logarithms: Floats = np.log(uses_P / uses_P.sum())
    return logarithms


def _sums(numbers: npt.NDArray[np.integer[Any]], weights: Floats, count: int) -> Floats:
    """[count], the weights of each number."""
    return np.bincount(numbers, weights, minlength=count).astype(np.float64, copy=False)


# -- words as one array --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Text:
    """Segments (words, or what is left of them) as one array.

    Args:
        codes_C: places of the characters in the alphabet.
        segment_C: the segment of each character.
        first_G: where each segment begins.
        length_G: its characters.
        weight_G: how often it occurs.
    """

    codes_C: Integers
    segment_C: Integers
    first_G: Integers
    length_G: Integers
    weight_G: Floats

    def room(self) -> Integers:
        """Characters from each one to the end of its segment, itself included."""
        ends: Integers = (self.first_G + self.length_G)[self.segment_C]
        return ends - np.arange(len(self.codes_C))


def _text_of(words: Mapping[str, int], alphabet: Sequence[str]) -> _Text:
    """`words`, cut at characters outside of the alphabet and behind every `_LONGEST_WORD` characters."""
    ordered = sorted(words)
    points = code_points("".join(ordered)).astype(np.int64)
    numbers = np.full(0x110000, -1, dtype=np.int64)
    numbers[[ord(character) for character in alphabet]] = np.arange(len(alphabet))
    lengths = np.array([len(word) for word in ordered], dtype=np.int64)
    word_C = np.repeat(np.arange(len(ordered)), lengths)
    place_C = np.arange(len(points)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    known_C = numbers[points] >= 0
    begins_C = place_C % _LONGEST_WORD == 0
    begins_C[1:] |= ~known_C[:-1]
    # a segment that begins at an unknown character begins at the next known one of its word, if there is one
    group_C = np.cumsum(begins_C)[known_C]
    _, first_G, length_G = np.unique(group_C, return_index=True, return_counts=True)
    weights = np.array([words[word] for word in ordered], dtype=np.float64)
    return _Text(
        codes_C=numbers[points][known_C],
        segment_C=np.repeat(np.arange(len(first_G)), length_G),
        first_G=first_G.astype(np.int64),
        length_G=length_G.astype(np.int64),
        weight_G=weights[word_C[known_C][first_G]],
    )


def _text_of_seeds(seeds: Sequence[Integers]) -> _Text:
    length_G = np.array([len(seed) for seed in seeds], dtype=np.int64)
    return _Text(
        codes_C=np.concatenate(seeds),
        segment_C=np.repeat(np.arange(len(seeds)), length_G),
        first_G=np.cumsum(length_G) - length_G,
        length_G=length_G,
        weight_G=np.ones(len(seeds)),
    )


def _seeds(text: _Text, characters: int, most: int, min_frequency: int) -> tuple[list[Integers], Floats]:
    """The first pieces, as places in the alphabet, and how often they occur: all characters, then the best substrings.

    Substrings of n characters are told apart by numbers: that of their first n - 1 and the last character make a pair, and
    pairs are numbered in order.
    """
    codes_C, room_C, weight_C = text.codes_C, text.room(), text.weight_G[text.segment_C]
    frequency = _sums(codes_C, weight_C, characters)
    found = list[tuple[Integers, int, Floats]]()  # (where each occurs first, its length, how often it occurs)
    here, number = np.arange(len(codes_C)), codes_C
    for length in range(2, LONGEST_PIECE + 2):
        inside = room_C[here] >= length
        here, number = here[inside], number[inside]
        pairs, first, inverse = np.unique(
            number * characters + codes_C[here + length - 1], return_index=True, return_inverse=True
        )
        occurs = _sums(inverse, weight_C[here], len(pairs))
        if found:  # a shorter one with an extension that is as frequent says nothing more
            starts, shorter, often = found[-1]
            longest = np.zeros(len(often))
            np.maximum.at(longest, pairs // characters, occurs)
            said = longest < often
            found[-1] = (starts[said], shorter, often[said])
        often_enough = occurs >= min_frequency
        if length > LONGEST_PIECE or not often_enough.any():
            break
        found.append((here[first[often_enough]], length, occurs[often_enough]))
        renumbered = np.cumsum(often_enough) - 1
        stays = often_enough[inverse]
        here, number = here[stays], renumbered[inverse[stays]]
    starts = np.concatenate([np.zeros(0, dtype=np.int64), *(start for start, _, _ in found)])
    lengths = np.concatenate([np.zeros(0, dtype=np.int64), *(np.full(len(start), length) for start, length, _ in found)])
    often_P = np.concatenate([np.zeros(0), *(often for _, _, often in found)])
    best = np.argsort(-often_P * lengths, kind="stable")[:most]
    seeds = [np.array([character]) for character in range(characters)]
    seeds += [codes_C[start : start + length] for start, length in zip(starts[best], lengths[best], strict=True)]
    return seeds, np.concatenate([frequency, often_P[best]])


# -- all ways to cut them ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Graph:
    """Every occurrence of a piece in a text, as an edge between two gaps of a segment.

    Args:
        start_E, end_E: nodes.
        piece_E: number of the piece.
        step_E: characters from the beginning of the segment to the edge's end; edges are sorted by it.
        first_G, last_G: nodes where segments begin and end.
        weight_G: how often they occur.
        nodes: N.
    """

    start_E: npt.NDArray[np.int32]
    end_E: npt.NDArray[np.int32]
    piece_E: npt.NDArray[np.int32]
    step_E: npt.NDArray[np.int16]
    first_G: Integers
    last_G: Integers
    weight_G: Floats
    nodes: int

    def restricted(self, kept: Integers, pieces: int) -> _Graph:
        """The graph of those of `pieces` pieces that are `kept`, renumbered."""
        numbers = np.full(pieces, -1, dtype=np.int32)
        numbers[kept] = np.arange(len(kept))
        piece_E = numbers[self.piece_E]
        return replace(self._only(piece_E >= 0), piece_E=piece_E[piece_E >= 0])

    def without_whole_segments(self) -> _Graph:
        """The graph without edges of two characters or more from a segment's first node to its last."""
        whole = np.isin(self.start_E, self.first_G) & np.isin(self.end_E, self.last_G) & (self.end_E - self.start_E > 1)
        return self._only(~whole)

    def _only(self, chosen: npt.NDArray[np.bool_]) -> _Graph:
        return replace(
            self, start_E=self.start_E[chosen], end_E=self.end_E[chosen], piece_E=self.piece_E[chosen],
            step_E=self.step_E[chosen],
        )  # fmt: skip

    def _steps(self) -> list[slice]:
        """The edges of each step along the segments."""
        borders = np.searchsorted(self.step_E, np.arange(1, int(self.step_E[-1]) + 2))
        return [slice(begin, end) for begin, end in pairwise(borders.tolist())]

    def best(self, scores_P: Floats) -> Floats:
        """[G], the log probability of the best way to cut each segment."""
        best_N = np.full(self.nodes, -np.inf)
        best_N[self.first_G] = 0.0
        for step in self._steps():
            np.maximum.at(best_N, self.end_E[step], best_N[self.start_E[step]] + scores_P[self.piece_E[step]])
        return best_N[self.last_G]

    def expected_uses(self, scores_P: Floats) -> Floats:
        """[P], how often each piece is used, over all ways to cut every segment.

        Forward, the log probability of all ways to each node; with it, the share of each edge in what arrives at its end.
        Backward, a segment's weight flows from its end to its beginning, divided by these shares.
        """
        ways_N = np.zeros(self.nodes)
        top_N, sum_N = np.full(self.nodes, -np.inf), np.zeros(self.nodes)
        share_E = np.empty(len(self.start_E))
        for step in self._steps():
            end = self.end_E[step]
            through = ways_N[self.start_E[step]] + scores_P[self.piece_E[step]]
            np.maximum.at(top_N, end, through)
            through = np.exp(through - top_N[end])
            np.add.at(sum_N, end, through)
            share_E[step] = through / sum_N[end]
            ways_N[end] = top_N[end] + np.log(sum_N[end])
        flow_N = np.zeros(self.nodes)
        flow_N[self.last_G] = self.weight_G
        for step in reversed(self._steps()):
            share_E[step] *= flow_N[self.end_E[step]]
            np.add.at(flow_N, self.start_E[step], share_E[step])
        return _sums(self.piece_E, share_E, len(scores_P))


def _graph(text: _Text, pieces: Sequence[Integers], characters: int) -> _Graph:
    """Finds the pieces in the text, all beginnings at once: those of n characters among those whose first n - 1 begin one."""
    lengths = np.array([len(piece) for piece in pieces])
    spelled = np.zeros((len(pieces), LONGEST_PIECE), dtype=np.int64)
    spelled[np.arange(LONGEST_PIECE) < lengths[:, None]] = np.concatenate(pieces)
    state, room_C = spelled[:, 0].copy(), text.room()
    here, at = np.arange(len(text.codes_C)), text.codes_C
    starts, ends, found = [here], [here + 1], [at]
    for length in range(2, int(lengths.max()) + 1):
        longer = np.flatnonzero(lengths >= length)
        pairs, state[longer] = np.unique(state[longer] * characters + spelled[longer, length - 1], return_inverse=True)
        whole = np.full(len(pairs), -1)
        complete = longer[lengths[longer] == length]
        whole[state[complete]] = complete
        inside = room_C[here] >= length
        here, at = here[inside], at[inside]
        pair = at * characters + text.codes_C[here + length - 1]
        place = np.minimum(np.searchsorted(pairs, pair), len(pairs) - 1)
        hit = pairs[place] == pair
        here, at = here[hit], place[hit]
        is_piece = whole[at] >= 0
        starts.append(here[is_piece])
        ends.append(here[is_piece] + length)
        found.append(whole[at[is_piece]])
    start, end = np.concatenate(starts), np.concatenate(ends)
    step = (end - text.first_G[text.segment_C[start]]).astype(np.int16)
    order = np.argsort(step, kind="stable")
    first_G = text.first_G + np.arange(len(text.first_G))  # every segment has one node more than characters
    return _Graph(
        start_E=(start + text.segment_C[start])[order].astype(np.int32),
        end_E=(end + text.segment_C[start])[order].astype(np.int32),
        piece_E=np.concatenate(found)[order].astype(np.int32),
        step_E=step[order],
        first_G=first_G,
        last_G=first_G + text.length_G,
        weight_G=text.weight_G,
        nodes=len(text.codes_C) + len(text.first_G),
    )
