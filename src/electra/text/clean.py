"""Unicode cleaning of one document.

In: text as it was decoded. Out: the same text in NFC, without characters that carry no meaning for a reader, one sentence or
paragraph a line, words separated by single spaces. Everything removed is counted by cause.

Order matters, so that cleaning twice changes nothing: first characters are removed (that may bring a letter and its accent
together), then composed (NFC, not NFKC: compatibility forms such as full-width letters are the writer's choice), then
whitespace is collapsed. Unicode's line separators count as line breaks; empty lines vanish.

Zero-width joiner and non-joiner stay: Persian, the Indic scripts and emoji are spelled with them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

#: how often something happened, by cause: `dropped: empty documents`, `removed: nul characters` ...
Counts = Counter[str]

#: Unicode's Stream-Safe Text Format (UAX #15, section 13) allows this many combining marks in a row; no language needs more
#: and normalising them takes quadratic time
LONGEST_MARK_RUN = 30

_REMOVED = {
    "removed: nul characters": "\x00",
    "removed: control characters": "\x01-\x08\x0e-\x1b\x7f-\x84\x86-\x9f",
    "removed: invisible characters": "\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff",
    "removed: lone surrogates": "\ud800-\udfff",
}
_REMOVED_BY_CAUSE = {cause: re.compile(f"[{characters}]+") for cause, characters in _REMOVED.items()}
_PERHAPS_ASTRAL_MARKS = re.compile("[\U000101fd-\U0001e94a]")
_ANY_REMOVED = re.compile(f"[{''.join(_REMOVED.values())}]")


def clean(text: str, counts: Counts) -> str:
    """`text` cleaned; what was removed is added to `counts`, in characters.

    Idempotent. The result is empty if nothing readable was there, has no empty line and no space at either end of a line.
    """
    if _ANY_REMOVED.search(text):
        for cause, pattern in _REMOVED_BY_CAUSE.items():
            text = _shorten(pattern, 0, cause, text, counts)
    if not text.isascii():
        # before, to bound the time of NFC; after, because NFC takes some marks apart into two
        text = _limit_marks(unicodedata.normalize("NFC", _limit_marks(text, counts)), counts)
    return "\n".join([line for raw in text.splitlines() if (line := " ".join(raw.split()))])


def _limit_marks(text: str, counts: Counts) -> str:
    runs = _long_mark_runs(_PERHAPS_ASTRAL_MARKS.search(text) is not None)
    return _shorten(runs, LONGEST_MARK_RUN, "removed: combining marks beyond 30 in a row", text, counts)


def _shorten(pattern: re.Pattern[str], keep: int, cause: str, text: str, counts: Counts) -> str:
    """`text` with only the first `keep` characters of each match."""
    shorter = pattern.sub(lambda match: match.group()[:keep], text)
    if len(shorter) < len(text):
        counts[cause] += len(text) - len(shorter)
    return shorter


@lru_cache(maxsize=2)
def _long_mark_runs(astral: bool) -> re.Pattern[str]:
    """Runs of more than `LONGEST_MARK_RUN` combining marks (canonical combining class not 0).

    With characters beyond U+FFFF in its set, `re` is 20 times slower; so these are left out where a text has none. The first
    mark stands alone because `re` looks ahead for a pattern's first set, but not for a repetition.
    """
    codes = range(0x300, 0x20000 if astral else 0x10000)
    marks = "".join(character for code in codes if unicodedata.combining(character := chr(code)))
    return re.compile(f"[{marks}][{marks}]{{{LONGEST_MARK_RUN},}}")
