"""Schemes that spell spans of words as one tag a word: BIO, IOB1, BIOES, BMES and their like.

In: the tags of a sentence, `["B-PER", "I-PER", "O"]`. Out: spans of words, `[(0, 2, "PER")]`, and back. A tag is `O`, or a
letter and a label with `-` or `_` between them. A scheme is four letters: what begins a span, goes on with it, ends it, and is
a span of one word; BIO has `B I I B`. IOB1 writes B only where a span follows another of its label, else I.

`decode` understands every sequence, legal or not, as the scorer of CoNLL does: a span begins at a beginning letter, at another
label, and wherever none is open; it ends behind an ending letter, at `O`, and where another begins. What a sequence ought to be
is then `encode` of its spans, and the tags that differ are those that were repaired.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

SchemeName = Literal["BIO", "IOB1", "BIOES", "BIOS", "BILOU", "BMES", "plain"]
#: (first word, word behind the last, label)
WordSpan = tuple[int, int, str]

#: begin, inside, end, single
_LETTERS: dict[SchemeName, tuple[str, str, str, str]] = {
    "BIO": ("B", "I", "I", "B"),
    "IOB1": ("B", "I", "I", "B"),
    "BIOS": ("B", "I", "I", "S"),
    "BIOES": ("B", "I", "E", "S"),
    "BILOU": ("B", "I", "L", "U"),
    "BMES": ("B", "M", "E", "S"),
}
SCHEMES: tuple[SchemeName, ...] = (*_LETTERS, "plain")
_TAG = re.compile(r"([BIMELSU])[-_](.+)", re.DOTALL)
OUTSIDE = "O"


def parse(tag: str) -> tuple[str, str] | None:
    """(letter, label) of a tag, ("O", "") of O, None of what is neither."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    match = _TAG.fullmatch(tag)
    return (match[1], match[2]) if match else None


def decode(tags: Sequence[str], scheme: SchemeName) -> list[WordSpan]:
    """The spans that `tags` spell, in order, none overlapping; see the module for sequences that are not legal.

    `plain` tags are spans of one word each. A tag of no scheme counts as O; `detect` finds those.
    """
    if scheme == "plain":
        return [(place, place + 1, tag) for place, tag in enumerate(tags)]
    begin, inside, end, single = _LETTERS[scheme]
    spans, start, open_label, closed = list[WordSpan](), 0, "", True
    for place, tag in enumerate(tags):
        letter, label = parse(tag) or (OUTSIDE, "")
        begins = letter != OUTSIDE and (closed or label != open_label or letter in (begin, single))
        if not closed and (begins or letter == OUTSIDE):
            spans.append((start, place, open_label))
        if begins:
            start, open_label = place, label
        closed = letter == OUTSIDE
        if (letter == end != inside) or (letter == single != begin):
            spans.append((start, place + 1, open_label))
            closed = True
    if not closed:
        spans.append((start, len(tags), open_label))
    return spans


def encode(spans: Iterable[WordSpan], length: int, scheme: SchemeName) -> list[str]:
    """The tags, `length` of them, that spell `spans`, which are in order and do not overlap; `plain` needs one for each word.

    Raises:
        ValueError: spans that overlap, are empty, or lie outside; a word of `plain` without a span.
    """
    tags, free = [OUTSIDE] * length, 0
    before: WordSpan = (0, 0, "")
    for span in spans:
        start, end, label = span
        if not free <= start < end <= length:
            raise ValueError(f"span {span} of {length} words, of which {free} are taken")
        if scheme == "plain":
            tags[start:end] = [label] * (end - start)
        else:
            tags[start:end] = [f"{letter}-{label}" for letter in _letters_of(span, before, scheme)]
        free, before = end, span
    if scheme == "plain" and sum(end - start for start, end, _ in spans) != length:
        raise ValueError("a plain tag for every word is needed")
    return tags


def _letters_of(span: WordSpan, before: WordSpan, scheme: SchemeName) -> list[str]:
    begin, inside, end, single = _LETTERS[scheme]
    start, stop, label = span
    if scheme == "IOB1":
        begin = single = "B" if before[1:] == (start, label) else "I"
    return [single] if stop - start == 1 else [begin, *[inside] * (stop - start - 2), end]


def repairs(tags: Sequence[str], scheme: SchemeName) -> list[int]:
    """The places of the tags that differ from those that spell their spans."""
    if scheme == "plain":
        return []
    legal = encode(decode(tags, scheme), len(tags), scheme)
    return [place for place, (tag, right) in enumerate(zip(tags, legal, strict=True)) if parse(tag) != parse(right)]


@dataclass(frozen=True, kw_only=True)
class Detected:
    """What the tags of a file are.

    Args:
        scheme: the scheme; `BIO` where every tag is O; None where tags of a scheme stand beside others.
        others: tags of no scheme, the commonest first, where `scheme` is None.
    """

    scheme: SchemeName | None
    others: tuple[str, ...] = ()


def detect(sentences: Iterable[Sequence[str]]) -> Detected:
    """The scheme of the tags of a whole file, by its letters: M is BMES', L and U BILOU's, E BIOES', S without E BIOS'.

    B and I alone are BIO, but IOB1 where more spans begin with I than with a B that IOB1 would not write. Where not one tag has
    the form of a scheme (part of speech), tags are `plain`.
    """
    letters, others = Counter[str](), Counter[str]()
    begun_with_i = begun_with_b = 0
    for tags in sentences:
        before = (OUTSIDE, "")
        for tag in tags:
            found = parse(tag)
            if found is None:
                others[tag] += 1
                continue
            letters[found[0]] += 1
            follows = before[0] != OUTSIDE and before[1] == found[1]
            begun_with_i += found[0] == "I" and not follows
            begun_with_b += found[0] == "B" and not follows
            before = found
    used = letters.keys() - {OUTSIDE}
    if others:
        return Detected(scheme="plain") if not used else Detected(scheme=None, others=tuple(t for t, _ in others.most_common()))
    return Detected(scheme=_by_letters(used, begun_with_i > begun_with_b))


def _by_letters(used: set[str], begun_with_i: bool) -> SchemeName:
    for letter, scheme in (("M", "BMES"), ("L", "BILOU"), ("U", "BILOU"), ("E", "BIOES"), ("S", "BIOS")):
        if letter in used:
            return scheme  # type: ignore[return-value]
    return "IOB1" if begun_with_i else "BIO"
