from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from electra.text.scripts import END, SCRIPTS, WITHOUT_SPACES, code_points, ranges, script_table


def script(character: str) -> str:
    return SCRIPTS[script_table()[ord(character)]]


@pytest.mark.parametrize(
    ("name", "characters"),
    [
        ("Latin", "aZéßǆɐﬁＡ"), ("Greek", "Ωάᾳ"), ("Cyrillic", "жЇ"), ("Arabic", "مپ"), ("Hebrew", "ש"), ("Devanagari", "हि"),
        ("Thai", "สั"), ("Hangul", "한ㄱ"), ("Hiragana", "か"), ("Katakana", "カｶー"), ("Han", "中龘𠀀々〇"), ("Georgian", "ა"),
        ("Other", "1 .！，。×µ😀\n"),
    ],
)  # fmt: skip
def test_characters_of_scripts(name: str, characters: str) -> None:
    assert {character: script(character) for character in characters} == dict.fromkeys(characters, name)


def test_ranges_do_not_overlap_and_fit_the_table() -> None:
    covered = np.zeros(END, dtype=np.int64)
    for _, first, last in ranges():
        covered[first : last + 1] += 1
    assert covered.max() == 1
    assert set(SCRIPTS) > WITHOUT_SPACES


def test_names_of_letters_agree() -> None:
    """Unicode's names of letters begin with their script, apart from two that several scripts have in common."""
    names = {name.upper(): name for name in SCRIPTS}
    wrong = []
    for code in range(0x10000):
        first = unicodedata.name(chr(code), "").replace("-", " ").split(" ")[0]
        if first in names and unicodedata.category(chr(code))[0] == "L" and script(chr(code)) != names[first]:
            wrong.append(chr(code))
    assert wrong == ["\u0374", "\u0640"]


def test_code_points_of_any_string() -> None:
    assert code_points("a\ud800\U00020000").tolist() == [0x61, 0xD800, 0x20000]
