from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra.text.clean import Counts, clean

# the characters at which cleaning could go wrong, much more often than chance would give them
AWKWARD_CHARACTERS = (
    "a \n\r\t\x00\x0b\x1c\x85\xa0\u200b\u200d\u2028\u3000\ufeff\u202e\ud800\udc00e\u0301\u0323\u0344\uac00\u1100\u1161\u11a8"
)
AWKWARD = st.text(st.one_of(st.sampled_from(AWKWARD_CHARACTERS), st.characters()), max_size=60)


@given(AWKWARD)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = clean(text, Counts())
    again = Counts()
    assert clean(once, again) == once
    assert not again


@given(AWKWARD)
def test_result_is_nfc_encodable_and_has_neat_lines(text: str) -> None:
    cleaned = clean(text, Counts())
    assert unicodedata.is_normalized("NFC", cleaned)
    cleaned.encode()
    lines = cleaned.split("\n")
    assert cleaned == "" or all(line and line == " ".join(line.split()) for line in lines)


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=40))
def test_readable_characters_stay(text: str) -> None:
    assert clean(text, Counts()) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    ("text", "cleaned", "cause", "count"),
    [
        ("a\x00b\x00", "ab", "removed: nul characters", 2),
        ("a\x07b\x9f", "ab", "removed: control characters", 2),
        ("\ufeffa\u200bb\u202e\xad", "ab", "removed: invisible characters", 4),
        ("a\ud800b", "ab", "removed: lone surrogates", 1),
        ("a" + "\u0323" * 50, "ạ" + "\u0323" * 29, "removed: combining marks beyond 30 in a row", 20),
        ("a" + "\U0001d165" * 31, "a" + "\U0001d165" * 30, "removed: combining marks beyond 30 in a row", 1),
    ],
)
def test_what_is_removed_is_counted(text: str, cleaned: str, cause: str, count: int) -> None:
    counts = Counts()
    assert clean(text, counts) == cleaned
    assert counts == {cause: count}


def test_composes_accents_even_around_removed_characters() -> None:
    assert clean("cafe\u200b\u0301", Counts()) == "café"


def test_compatibility_forms_stay() -> None:
    assert clean("ＡＢＣ　①", Counts()) == "ＡＢＣ ①"


def test_joiners_stay_because_scripts_are_spelled_with_them() -> None:
    persian, family = "می\u200cخواهم", "👩\u200d👧"
    assert clean(persian, Counts()) == persian
    assert clean(family, Counts()) == family


def test_lines_stay_and_blanks_collapse() -> None:
    assert clean("  a \t b\r\n\r\n\x85c\u2028d\n \n", Counts()) == "a b\nc\nd"


def test_a_million_combining_marks_take_linear_time() -> None:
    # in canonical order already or not: sorting them would take hours
    started = time.perf_counter()
    assert len(clean("a" + "\u0301\u0323" * 500_000, Counts())) == 30
    assert time.perf_counter() - started < 5
