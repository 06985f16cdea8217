"""A text in pieces, each as odd as the tokens in it: what a terminal or a page colours.

In: a text and its tokens with places and figures. Out: pieces that join to the text, character by character. Tokens that share
a character (bytes of it, in byte-level BPE) are one piece, as odd as the oddest of them; white space at the ends of a token is
left out of its piece; and what is drawn together with the character before it (combining marks, joiners, variation selectors,
skin tones) stays in its piece.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

#: (first character, the one behind the last, how odd)
Place = tuple[int, int, float]
#: a joiner takes the character behind it along
_JOINER = "\u200d"


def oddity(doubt: float) -> int:
    """0 to 3, how strongly a piece is coloured: from .1, .2 and .5 on."""
    return sum(doubt >= border for border in (0.1, 0.2, 0.5))


def pieces(text: str, places: Sequence[Place]) -> list[tuple[str, float | None]]:
    """Pieces of `text` in order, with how odd they are; None where no token stands. Empty pieces are left out.

    Args:
        text: any string.
        places: of tokens, in the order of their first characters; may overlap, be empty, or hold white space.
    """
    whole: list[Place] = []
    for start, end, figure in (_solid(text, place) for place in places):
        if whole and start < whole[-1][1]:
            before, last, most = whole[-1]
            whole[-1] = (before, max(last, end), max(most, figure))
        elif start < end:
            whole.append((start, _drawn_with(text, end), figure))
    found: list[tuple[str, float | None]] = []
    behind = 0
    for start, end, figure in whole:
        found += [(text[behind:start], None), (text[start:end], figure)]
        behind = end
    found.append((text[behind:], None))
    return [(piece, figure) for piece, figure in found if piece]


def _solid(text: str, place: Place) -> Place:
    start, end, figure = place
    part = text[start:end]
    start += len(part) - len(part.lstrip())
    return start, max(start, start + len(part.strip())), figure


def _drawn_with(text: str, end: int) -> int:
    """Where the character that ends at `end` ends as it is drawn."""
    while end < len(text) and (_joins(text[end]) or text[end - 1] == _JOINER):
        end += 1
    return end


def _joins(character: str) -> bool:
    skin_tone = "\U0001f3fb" <= character <= "\U0001f3ff"
    return character == _JOINER or unicodedata.category(character).startswith("M") or skin_tone
