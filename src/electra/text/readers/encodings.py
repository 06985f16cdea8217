"""What bytes say about their encoding: what is certain, and what is worth proposing to a person who sees the result.

Certain are byte order marks. Proposals are for an error's message alone. An encoding is proposed if it can read the bytes
behind the first bad one, and if most of what comes out is common in its language: the characters of the first level of East
Asian sets, which lie in known rows of their tables; small letters in Cyrillic; in Latin text, few letters with accents among
many without. Several may remain, so each is shown with what it reads.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
    b"\x84\x31\x95\x33": "gb18030",
}
_WINDOW_BYTES = 1024
_SHOWN_BEFORE, _SHOWN = 8, 12
_COMMON_SHARE = 0.8
_WIDE = re.compile(r"[\n\r\t -~\u00a0-\u024f\u0400-\u04ff\u2010-\u2030\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff00-\uffef]")


def certain(raw: bytes) -> tuple[str, bytes] | None:
    """(encoding, byte order mark) of a file that begins with `raw`; None without a mark."""
    return next(((encoding, mark) for mark, encoding in _MARKS.items() if raw.startswith(mark)), None)


def plausible(raw: bytes, at: int) -> str:
    """The encodings that may be meant, and what each reads: ` gb18030 "...", cp1251 "..."`; empty if there is none.

    Args:
        raw: the beginning of a file, or any part of it; ASCII up to `at`.
        at: the first byte that is not UTF-8.
    """
    found = []
    for encoding, fits in _TESTS.items():
        wide = encoding.startswith("utf-16")
        start = at - at % 2 if wide else at
        try:
            text = codecs.getincrementaldecoder(encoding)().decode(raw[start : start + _WINDOW_BYTES])
        except UnicodeDecodeError:
            continue
        if fits(text) and (0 in raw) == wide:
            before = "" if wide else raw[max(0, at - _SHOWN_BEFORE) : at].decode("ascii", "replace")
            found.append(f'{encoding} "{" ".join((before + text[:_SHOWN]).split())}"')
    return f" {', '.join(found)}" if found else ""


def _in_rows(encoding: str, *rows: tuple[int, int]) -> Callable[[str], bool]:
    """Whether the first bytes of most characters are those of punctuation, kana, Hangul and common characters."""

    def fits(text: str) -> bool:
        leads = [character.encode(encoding)[0] for character in text if not character.isascii()]
        common = sum(any(low <= lead <= high for low, high in rows) for lead in leads)
        return common >= _COMMON_SHARE * len(leads)

    return fits


def _cyrillic(text: str) -> bool:
    letters = re.findall("[\u0400-\u04ff]", text)
    small = sum(letter.islower() for letter in letters)
    return small >= _COMMON_SHARE * len(letters) and len(letters) >= _COMMON_SHARE * len(re.findall("[^\0-\x7f]", text))


def _latin(text: str) -> bool:
    accented, plain = len(re.findall("[^\0-\x7f]", text)), len(re.findall("[A-Za-z]", text))
    fitting = len(re.findall("[\u00c0-\u017f\u00a3\u00a7\u00ab\u00b0\u00bb\u2013-\u2026\u20ac]", text))
    return fitting >= _COMMON_SHARE * accented and accented < (1 - _COMMON_SHARE) * (plain + accented) + 1


def _wide(text: str) -> bool:
    return len(_WIDE.findall(text)) >= 0.95 * len(text)


_TESTS: dict[str, Callable[[str], bool]] = {
    "utf-16-le": _wide,
    "utf-16-be": _wide,
    "gb18030": _in_rows("gb18030", (0xA1, 0xA3), (0xB0, 0xD7)),
    "big5": _in_rows("big5", (0xA1, 0xC6)),
    "shift_jis": _in_rows("shift_jis", (0x81, 0x83), (0x88, 0x97)),
    "euc_jp": _in_rows("euc_jp", (0xA1, 0xA5), (0xB0, 0xCF)),
    "euc_kr": _in_rows("euc_kr", (0xA1, 0xA3), (0xB0, 0xC8)),
    "cp1252": _latin,
    "cp1250": _latin,
    "cp1251": _cyrillic,
    "koi8-r": _cyrillic,
}
