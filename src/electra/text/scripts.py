"""Which script a character belongs to, and which scripts are written without spaces between words.

In: Unicode code points. Out: numbers of scripts. Python's `unicodedata` lacks the property, so the scripts of the larger
written languages stand here as ranges of code points (after Unicode's Scripts.txt, version 16, rounded to whole blocks); what
is in none of them is "Other", as digits, punctuation and symbols that several scripts share.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt

#: everything that is in no range below: digits, punctuation, symbols, small scripts
OTHER = "Other"
#: CJK ideographs and kana, for classes of regular expressions
IDEOGRAPHS_AND_KANA = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"

#: script -> its ranges, both ends included
_RANGES: dict[str, tuple[tuple[int, int], ...]] = {
    "Latin": ((0x41, 0x5A), (0x61, 0x7A), (0xAA, 0xAA), (0xBA, 0xBA), (0xC0, 0xD6), (0xD8, 0xF6), (0xF8, 0x2B8),
              (0x1D00, 0x1D25), (0x1D2C, 0x1D5C), (0x1D62, 0x1D65), (0x1D6B, 0x1D77), (0x1D79, 0x1DBE), (0x1E00, 0x1EFF),
              (0x2071, 0x2071), (0x207F, 0x207F), (0x2090, 0x209C), (0x2183, 0x2184), (0x2C60, 0x2C7F), (0xA722, 0xA7FF),
              (0xAB30, 0xAB64), (0xAB66, 0xAB69), (0xFB00, 0xFB06), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A)),
    "Greek": ((0x370, 0x373), (0x375, 0x37D), (0x37F, 0x3E1), (0x3F0, 0x3FF), (0x1D26, 0x1D2A), (0x1D66, 0x1D6A),
              (0x1F00, 0x1FFF), (0xAB65, 0xAB65)),
    "Cyrillic": ((0x400, 0x52F), (0x1C80, 0x1C8F), (0x1D2B, 0x1D2B), (0x2DE0, 0x2DFF), (0xA640, 0xA69F)),
    "Armenian": ((0x531, 0x588), (0xFB13, 0xFB17)),
    "Hebrew": ((0x591, 0x5F4), (0xFB1D, 0xFB4F)),
    "Arabic": ((0x600, 0x604), (0x606, 0x60B), (0x60D, 0x61A), (0x61C, 0x61E), (0x620, 0x63F), (0x641, 0x6FF),
               (0x750, 0x77F), (0x870, 0x8FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC)),
    "Devanagari": ((0x900, 0x963), (0x966, 0x97F), (0xA8E0, 0xA8FF)),
    "Bengali": ((0x980, 0x9FF),),
    "Gurmukhi": ((0xA00, 0xA7F),),
    "Gujarati": ((0xA80, 0xAFF),),
    "Oriya": ((0xB00, 0xB7F),),
    "Tamil": ((0xB80, 0xBFF),),
    "Telugu": ((0xC00, 0xC7F),),
    "Kannada": ((0xC80, 0xCFF),),
    "Malayalam": ((0xD00, 0xD7F),),
    "Sinhala": ((0xD80, 0xDFF),),
    "Thai": ((0xE01, 0xE3A), (0xE40, 0xE7F)),
    "Lao": ((0xE80, 0xEFF),),
    "Tibetan": ((0xF00, 0xFFF),),
    "Myanmar": ((0x1000, 0x109F), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F)),
    "Georgian": ((0x10A0, 0x10FA), (0x10FC, 0x10FF), (0x1C90, 0x1CBF), (0x2D00, 0x2D2D)),
    "Hangul": ((0x1100, 0x11FF), (0x3131, 0x318E), (0xA960, 0xA97F), (0xAC00, 0xD7FF), (0xFFA0, 0xFFDC)),
    "Ethiopic": ((0x1200, 0x139F), (0x2D80, 0x2DDF), (0xAB01, 0xAB2E)),
    "Khmer": ((0x1780, 0x17FF), (0x19E0, 0x19FF)),
    "Mongolian": ((0x1800, 0x18AF),),
    "Hiragana": ((0x3041, 0x3096), (0x309D, 0x309F), (0x1B001, 0x1B11F)),
    "Katakana": ((0x30A1, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9D)),
    "Bopomofo": ((0x3105, 0x312F), (0x31A0, 0x31BF)),
    "Han": ((0x2E80, 0x2FD5), (0x3005, 0x3005), (0x3007, 0x3007), (0x3021, 0x3029), (0x3038, 0x303B), (0x3400, 0x4DBF),
            (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF)),
}  # fmt: skip

#: names of the scripts; a script's number is its place here
SCRIPTS = (OTHER, *_RANGES)
#: scripts that put no spaces between words
WITHOUT_SPACES = frozenset(("Thai", "Lao", "Myanmar", "Khmer", "Hiragana", "Katakana", "Bopomofo", "Han"))

#: code points from here on are "Other": tags, private use
END = 0x32400


def ranges() -> Iterator[tuple[int, int, int]]:
    """(number of the script, first and last code point) of every range."""
    for number, name in enumerate(SCRIPTS[1:], start=1):
        for first, last in _RANGES[name]:
            yield number, first, last


@cache
def script_table() -> npt.NDArray[np.uint8]:
    """[END], the number of the script of each code point; 0 = Other."""
    table = np.zeros(END, dtype=np.uint8)
    for number, first, last in ranges():
        table[first : last + 1] = number
    return table


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """[characters of `text`], lone surrogates included."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
