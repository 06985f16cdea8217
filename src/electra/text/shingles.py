"""Text -> the hashes of its shingles: runs of consecutive words, by which texts are compared.

In: clean texts. Out: 64-bit numbers, one for each shingle, the same on every machine.

What counts is letters, digits and marks, in lower case; punctuation and spaces only separate. A unit is a word; in scripts that
are written without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan) each character is a unit, so no segmenter is
needed and a text may mix scripts. A shingle is a run of so many words, or of so many characters where there are no words; a
text that is shorter is one shingle as a whole.

Runs are hashed all at once: with the sums S[i] of value[j] * P^j for j < i, modulo 2^64, the hash of the run from s to e is
(S[e] - S[s]) * P^-s, where P is odd and so has an inverse. Characters become words this way, and words become shingles.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

_SEPARATOR, _OF_A_WORD, _ALONE = 0, 1, 2
#: code points, inclusive, of the scripts without spaces between words
_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x19E0, 0x19FF), (0x2E80, 0x2FDF),
    (0x3005, 0x3007), (0x3021, 0x312F), (0x31A0, 0x31BF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
    (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F), (0xF900, 0xFAFF), (0xFF66, 0xFF9D), (0x1AFF0, 0x1B16F), (0x20000, 0x323AF),
)  # fmt: skip
#: behind the last code point that is assigned, but for tags and private use
_BEYOND = 0x323B0
_MULTIPLIER = 0x9E3779B97F4A7C15 | 1


def shingles(texts: Sequence[str], words: int, characters: int) -> tuple[Hashes, Places]:
    """The hash of every shingle of each text, in order, repeated ones too.

    Args:
        texts: [n], clean.
        words: words in a shingle.
        characters: characters in a shingle where words are not separated; in mixed text a word counts as much as
            `characters / words` of them.

    Returns:
        hashes: of all texts, one behind the other; one of a text that is shorter than a shingle, none of a text without letter
            and digit.
        offsets: [n + 1], where those of each text begin, and the end.
    """
    hashes, alone, borders = _units(texts)
    # what lies before each unit, weighed so that both kinds of shingle weigh words * characters
    before = np.concatenate([[0], np.cumsum(np.where(alone, words, characters))])
    firsts, ends = borders[:-1], borders[1:]
    sizes = ends - firsts
    # a shingle begins at each unit that has enough of its text behind it, and at the first one in any case
    begins = before[:-1] + words * characters <= np.repeat(before[ends], sizes)
    begins[firsts[sizes > 0]] = True
    starts = np.flatnonzero(begins)
    stops = np.searchsorted(before, before[starts] + words * characters)
    stops = np.minimum(stops, np.repeat(ends, sizes)[starts])
    return _runs(hashes, starts, stops), np.searchsorted(starts, borders)


def mix(values: Hashes) -> Hashes:
    """Each number scattered over all 64 bits: the finaliser of SplitMix64 (Steele, Lea, Flood 2014), a bijection."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _units(texts: Sequence[str]) -> tuple[Hashes, npt.NDArray[np.bool_], Places]:
    """The hash of each unit, whether it is a character that stands alone, and [n + 1] between which units each text lies."""
    lowered = [text.lower() + " " for text in texts]
    codes = codes_of("".join(lowered))
    of_kinds, of_values = _tables()
    kinds, values = of_kinds[codes], of_values[codes]
    alone, inside = kinds == _ALONE, (kinds == _OF_A_WORD).view(np.int8)
    edges = np.diff(inside, prepend=0, append=0)
    starts = np.flatnonzero(alone | (edges[:-1] == 1))
    alone = alone[starts]
    hashes = values[starts]
    hashes[~alone] = _runs(values, starts[~alone], np.flatnonzero(edges == -1))
    borders = np.cumsum([0] + [len(text) for text in lowered])
    return hashes, alone, np.searchsorted(starts, borders)


def _runs(values: Hashes, starts: Places, stops: Places) -> Hashes:
    """The hash of values[start:stop] for each start and stop."""
    powers, inverses = _powers(1 << max(12, len(values).bit_length()))
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * powers[: len(values)], out=sums[1:])
    return mix((sums[stops] - sums[starts]) * inverses[starts])


@cache
def _powers(length: int) -> tuple[Hashes, Hashes]:
    """P^i and P^-i for i < length, modulo 2^64."""
    multipliers = _MULTIPLIER, pow(_MULTIPLIER, -1, 1 << 64)
    first, second = (np.cumprod(np.array([1] + [m] * (length - 1), dtype=np.uint64), dtype=np.uint64) for m in multipliers)
    return first, second


def codes_of(text: str) -> Places:
    """[n] the code points of `text`, as an index into tables such as `categories`; unassigned ones in one."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4").astype(np.int64)
    return np.minimum(codes, _BEYOND, out=codes)


@cache
def categories() -> npt.NDArray[np.str_]:
    """The first letter of each code point's Unicode category: L letter, M mark, N number, P punctuation ..."""
    return np.array([unicodedata.category(chr(code))[0] for code in range(_BEYOND)] + ["C"])


@cache
def _tables() -> tuple[npt.NDArray[np.uint8], Hashes]:
    """What each code point is to us, and its hash."""
    kinds = np.where(np.isin(categories(), ["L", "M", "N"]), _OF_A_WORD, _SEPARATOR).astype(np.uint8)
    for first, last in _WITHOUT_SPACES:
        part = kinds[first : last + 1]
        part[part == _OF_A_WORD] = _ALONE
    return kinds, mix(np.arange(1, _BEYOND + 2, dtype=np.uint64))
