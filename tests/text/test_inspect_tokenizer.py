from __future__ import annotations

import pytest

from electra.text.inspect_tokenizer import ScriptFigures, inspect, table
from electra.text.tokenizer import SPECIAL_TOKENS, Tokenizer, complete, wordpiece
from electra.text.train_tokenizer import train

PIECES = ["the", "un", "##believ", "##able", "cafe", ".", "中", "国", "##á", "1"]


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    """A vocabulary that one sees through."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL_TOKENS, *PIECES])}
    return complete(wordpiece(vocabulary, lowercase=True, strip_accents=False), "test")


def by_script(tokenizer: Tokenizer, *texts: str) -> dict[str, ScriptFigures]:
    return {each.script: each for each in inspect(tokenizer, texts)}


def test_fertility_by_word_and_by_character(small: Tokenizer) -> None:
    found = by_script(small, "the unbelievable\ncafe", "中国 1.")
    latin, han, other = found["Latin"], found["Han"], found["Other"]
    assert (latin.words, latin.tokens, latin.characters, latin.unit) == (3, 5, 19, "word")
    assert latin.fertility == pytest.approx(5 / 3)
    assert (han.words, han.tokens, han.characters, han.unit, han.fertility) == (0, 2, 2, "character", 1.0)
    assert (other.words, other.tokens, other.characters) == (2, 2, 2)
    assert sum(each.unknown + each.lossy for each in found.values()) == 0


def test_unknown_texts_and_lossy_characters(small: Tokenizer) -> None:
    found = by_script(small, "The 龘龘 xyz café 中国. xyz", "Ж")
    assert found["Han"].unknown == 2
    assert found["Han"].unknown_texts == (("龘", 2),)
    assert found["Han"].lossy_characters == (("龘", "", 2),)
    assert found["Latin"].unknown == 2 * 3 + 4
    assert found["Latin"].unknown_texts == (("xyz", 2), ("café", 1))
    # a known word with a capital, and two words that are unknown; "T" alone is no token
    assert found["Latin"].lossy == 2 * 3 + 4 + 1
    assert found["Latin"].lossy_characters == (("x", "", 2), ("y", "", 2), ("z", "", 2), ("T", "", 1), ("a", "", 1))
    assert found["Cyrillic"].fertility == 1.0
    assert list(found) == ["Latin", "Han", "Other", "Cyrillic"]


def test_folded_characters_say_what_comes_back(texts: list[str]) -> None:
    folded = train(texts, 400, min_frequency=1, lowercase=True, strip_accents=True)
    latin = by_script(folded, "Did the café")["Latin"]
    assert {character: back for character, back, _ in latin.lossy_characters} == {"D": "d", "é": "e"}
    assert latin.lossy == 2
    assert latin.unknown == 0


def test_bytes_lose_nothing_and_cost_tokens(texts: list[str]) -> None:
    tokenizer = train(texts, 300, kind="bpe", min_frequency=1)
    found = by_script(tokenizer, "ж龘 สวัสดี हिन्दी")
    assert all(each.unknown == each.lossy == 0 for each in found.values())
    assert (found["Cyrillic"].tokens, found["Thai"].characters, found["Devanagari"].words) == (2, 6, 1)
    assert found["Han"].fertility == 3.0


def test_the_table_shows_all_of_it(small: Tokenizer) -> None:
    lines = list(table(inspect(small, ["the 龘", "É \u0301 " + "中" * 2])))
    assert lines[0].split() == ["script", "characters", "tokens", "fertility", "unknown", "lossy"]
    assert any(line.startswith("Han") and "1.00 tokens per character" in line and "33.333%" in line for line in lines)
    assert "Han, unknown: 龘 (1)" in lines
    assert "Han, lossy: 龘 U+9F98 (1)" in lines


@pytest.mark.parametrize("texts", [[], [""], ["\n"]])
def test_no_text_gives_no_figures(small: Tokenizer, texts: list[str]) -> None:
    assert inspect(small, texts) == ()
