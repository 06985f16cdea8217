"""Where sentences begin and end in a text, by rules for Chinese, English and their like.

In: a text. Out: spans in characters, in order, without white space at their ends; together they hold all that is no white
space. A sentence ends

    at a line break,
    behind 。！？… and their like, in any script,
    behind ! and ?, and behind a full stop, if white space follows and then no small letter; or between two characters of a
    script without spaces, where a full stop of ASCII stands for 。,

each with the closing quotes and brackets that follow. A full stop ends none behind an abbreviation of `_SHORT` or a single
capital (initials), and within numbers, names of files and the like, where no space follows.
"""

from __future__ import annotations

import re

from electra.text.scripts import IDEOGRAPHS_AND_KANA

_CLOSERS = "\"'”’」』）》】)\\]"
_END = re.compile(
    rf"[。！？｡؟।։።]+[…。！？]*[{_CLOSERS}]*"
    rf"|…+[{_CLOSERS}]*(?=\s|[{IDEOGRAPHS_AND_KANA}]|$)"
    rf"|[.!?]+[{_CLOSERS}]*(?=\s+(?![a-z])|\s*$)"
    rf"|(?<=[{IDEOGRAPHS_AND_KANA}])[.!?]+[{_CLOSERS}]*(?=[{IDEOGRAPHS_AND_KANA}])"
    r"|[\r\n\u2028\u2029]+"
)
#: what a full stop ends no sentence behind, without its last one
_SHORT = frozenset({
    "mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "gen", "col", "sgt", "capt", "lt", "rev", "hon", "vs", "etc", "al",
    "cf", "fig", "figs", "no", "nos", "vol", "pp", "ed", "eds", "approx", "dept", "inc", "ltd", "co", "corp", "jan", "feb",
    "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec", "e.g", "i.e", "u.s", "u.k", "a.m", "p.m",
})  # fmt: skip
_LAST_WORD = re.compile(r"(?:^|[\s(\"'“‘\[])((?:[^\W\d_]\.)*[^\W\d_]+)$")


def sentences(text: str) -> list[tuple[int, int]]:
    """The (start, end) of each sentence, end exclusive."""
    found, begin = list[tuple[int, int]](), 0
    for end in (*(match.end() for match in _END.finditer(text) if _ends(text, match)), len(text)):
        part = text[begin:end]
        if solid := part.strip():
            start = begin + len(part) - len(part.lstrip())
            found.append((start, start + len(solid)))
        begin = end
    return found


def _ends(text: str, match: re.Match[str]) -> bool:
    if match[0] != ".":
        return True
    word = _LAST_WORD.search(text, max(0, match.start() - 40), match.start())
    return word is None or not (word[1].lower() in _SHORT or (len(word[1]) == 1 and word[1].isupper() and word[1] != "I"))
