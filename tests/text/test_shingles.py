from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra.text.shingles import shingles

ALONE = "我们散步公园のカ๒กမ"
TEXTS = st.lists(
    st.text(
        st.one_of(st.sampled_from(f"abBé1 .\n'\u0301한İ\U0001f600\U000e0041{ALONE}"), st.characters(exclude_categories=["Cs"]))
    )
)


def units(text: str) -> list[tuple[str, bool]]:
    """(a word or a character that stands alone, which of them), the slow way."""
    found = list[tuple[str, bool]]()
    inside = False
    for character in text.lower():
        name = unicodedata.name(character, "")
        letter = unicodedata.category(character)[0] in "LMN"
        alone = letter and name.startswith(("CJK", "HIRAGANA", "KATAKANA", "THAI", "MYANMAR"))
        if inside and letter and not alone:
            found[-1] = (found[-1][0] + character, False)
        elif letter:
            found.append((character, alone))
        inside = letter and not alone
    return found


def runs(text: str, words: int, characters: int) -> list[tuple[str, ...]]:
    """The shingles of a text, the slow way."""
    of_text, found = units(text), []
    for start in range(len(of_text)):
        weight = 0
        for stop in range(start, len(of_text)):
            weight += words if of_text[stop][1] else characters
            if weight >= words * characters:
                found.append(tuple(unit for unit, _ in of_text[start : stop + 1]))
                break
    return found or [tuple(unit for unit, _ in of_text)] * bool(of_text)


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from(f"abBé1 .\n'\u0301한İ\U0001f600{ALONE}"), max_size=30), max_size=6),
       st.sampled_from([(5, 5), (2, 4), (1, 1), (3, 2)]))  # fmt: skip
def test_hashes_are_equal_where_runs_of_words_are(texts: list[str], size: tuple[int, int]) -> None:
    hashes, offsets = shingles(texts, *size)
    expected = [runs(text, *size) for text in texts]
    assert np.diff(offsets).tolist() == [len(own) for own in expected]
    of_run = dict[tuple[str, ...], int]()
    for run, value in zip([run for own in expected for run in own], hashes.tolist(), strict=True):
        assert of_run.setdefault(run, value) == value
    assert len(set(of_run.values())) == len(of_run)


@settings(deadline=None)
@given(TEXTS)
def test_a_text_has_the_same_shingles_in_any_company(texts: list[str]) -> None:
    hashes, offsets = shingles(texts, 3, 4)
    for number, text in enumerate(texts):
        assert hashes[offsets[number] : offsets[number + 1]].tolist() == shingles([text], 3, 4)[0].tolist()


def test_case_and_punctuation_do_not_count() -> None:
    one, _ = shingles(["The river's bridges held -- so far. 我们去公园散步。"], 3, 3)
    other, _ = shingles(["the RIVER s bridges\nheld, so (far) 我们，去公园：散步"], 3, 3)
    assert one.tolist() == other.tolist()


@pytest.mark.parametrize(("text", "count"), [("a b c d e f", 2), ("a b c", 1), ("我们去公园散步", 3), ("", 0), ("。!? …", 0)])
def test_how_many(text: str, count: int) -> None:
    assert len(shingles([text], 5, 5)[0]) == count


def test_hashes_never_change() -> None:
    # a build that was interrupted goes on, perhaps with another version of numpy
    assert shingles(["Nobody came before eight", "去公园散步"], 3, 4)[0].tolist() == [
        7331902140975108349,
        16622609685020943084,
        5193960863827775544,
        9451465171902164786,
    ]
