"""Where words begin in a text, whatever the tokenizer; which tokens begin one, `words.py` tells.

In: a text. Out: for each character whether a word can begin there. It is cut as BERT cuts it: a word begins

    at a letter or digit behind white space or punctuation, or at the beginning,
    at every punctuation mark and every line break,
    at every character of a script without spaces between words (scripts.WITHOUT_SPACES), because the words of such a text are
    not known here; a mark that belongs to the character before it begins none.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

from electra.text.scripts import END, SCRIPTS, WITHOUT_SPACES, code_points, script_table

#: what a character does: a word begins at it; a word begins behind it; no word begins at it; it is a space
_BEGINS, _ENDS, _JOINS, _SPACE = 1, 2, 4, 8


def starts_of_text(text: str) -> npt.NDArray[np.bool_]:
    """[len(text) + 1], at which characters a word can begin; the end counts as one."""
    traits = _traits_of(text)
    before = np.roll(traits, 1)  # at the beginning that is the end, behind which a word may begin
    starts: npt.NDArray[np.bool_] = (traits & _BEGINS > 0) | ((before & (_ENDS | _SPACE) > 0) & (traits & _JOINS == 0))
    return starts


def first_solid(text: str) -> npt.NDArray[np.int64]:
    """[len(text) + 1], the first character from each one on that is no space; len(text) where there is none."""
    traits = _traits_of(text)
    solid = np.where(traits & _SPACE, len(text), np.arange(len(traits)))
    first: npt.NDArray[np.int64] = np.minimum.accumulate(solid[::-1])[::-1]
    return first


def _traits_of(text: str) -> npt.NDArray[np.uint8]:
    """[len(text) + 1], traits of each character, then a sentinel that ends a word."""
    codes = code_points(text)
    traits = np.full(len(codes) + 1, _ENDS, dtype=np.uint8)
    traits[:-1] = _table()[np.minimum(codes, END - 1)]
    return traits


@cache
def _table() -> npt.NDArray[np.uint8]:
    """[END], traits of each code point. Letters, digits, symbols and marks have none."""
    table = np.zeros(END, dtype=np.uint8)
    unspaced = np.isin(script_table(), [SCRIPTS.index(name) for name in WITHOUT_SPACES])
    table[unspaced] = _BEGINS | _ENDS
    # marks and punctuation lie in the first two planes
    for code in range(0x20000):
        category = unicodedata.category(chr(code))
        if category[0] == "P" or (code < 0x80 and category[0] == "S"):  # BERT's punctuation
            table[code] = _BEGINS | _ENDS
        elif category[0] == "M" and unspaced[code]:
            table[code] = _JOINS | _ENDS
    table[[0x09, 0x20, 0xA0, 0x3000]] = _SPACE
    table[[0x0A, 0x0D]] = _BEGINS | _ENDS
    return table
