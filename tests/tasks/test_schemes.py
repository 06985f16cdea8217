"""Schemes of tags: every one spells any spans so that they come back, and understands what is not legal in it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra.tasks.schemes import SCHEMES, Detected, SchemeName, WordSpan, decode, detect, encode, parse, repairs

_LABELS = st.sampled_from(["PER", "ORG", "creative-work", "B-X", "疾病和诊断"])
_WRITTEN = [scheme for scheme in SCHEMES if scheme != "plain"]


@st.composite
def spans(draw: st.DrawFn) -> tuple[list[WordSpan], int]:
    """Spans in order that do not overlap, and the number of words."""
    found, place = list[WordSpan](), 0
    for gap, width, label in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), _LABELS), max_size=6)):
        found.append((place + gap, place + gap + width, label))
        place += gap + width
    return found, place + draw(st.integers(0, 2))


_ANY_TAGS = st.lists(
    st.sampled_from(["O"]) | st.builds("{}{}{}".format, st.sampled_from("BIMELSU"), st.sampled_from("-_"), _LABELS)
)


@pytest.mark.parametrize("scheme", _WRITTEN)
@settings(max_examples=40)
@given(sentence=spans())
def test_spans_come_back_from_their_tags(scheme: SchemeName, sentence: tuple[list[WordSpan], int]) -> None:
    found, length = sentence
    tags = encode(found, length, scheme)
    assert len(tags) == length
    assert decode(tags, scheme) == found
    assert repairs(tags, scheme) == []


@given(tags=st.lists(st.text(min_size=1)))
def test_plain_tags_come_back(tags: list[str]) -> None:
    assert encode(decode(tags, "plain"), len(tags), "plain") == tags
    assert repairs(tags, "plain") == []


@pytest.mark.parametrize("scheme", _WRITTEN)
@settings(max_examples=40)
@given(tags=_ANY_TAGS)
def test_any_tags_make_spans_and_mended_ones_are_legal(scheme: SchemeName, tags: list[str]) -> None:
    found = decode(tags, scheme)
    mended = encode(found, len(tags), scheme)
    assert decode(mended, scheme) == found
    outside = [place for place, tag in enumerate(tags) if tag == "O"]
    assert [place for place, tag in enumerate(mended) if tag == "O"] == outside  # a repair never loses or invents a word
    assert repairs(tags, scheme) == [i for i, (a, b) in enumerate(zip(tags, mended, strict=True)) if parse(a) != parse(b)]


@pytest.mark.parametrize(
    ("scheme", "tags", "expected", "changed"),
    [
        ("BIO", "O I-A I-A B-A I-B O", [(1, 3, "A"), (3, 4, "A"), (4, 5, "B")], [1, 4]),
        ("IOB1", "I-A I-A B-A O B-A", [(0, 2, "A"), (2, 3, "A"), (4, 5, "A")], [4]),
        ("BIOES", "B-A O E-A S-A I-A", [(0, 1, "A"), (2, 3, "A"), (3, 4, "A"), (4, 5, "A")], [0, 2, 4]),
        ("BMES", "B-A M-A M-A O", [(0, 3, "A")], [2]),
        ("BMES", "B_A E_A S_A", [(0, 2, "A"), (2, 3, "A")], []),
        ("BILOU", "B-A I-A L-A U-B", [(0, 3, "A"), (3, 4, "B")], []),
        ("BIOS", "B-A I-A S-A", [(0, 2, "A"), (2, 3, "A")], []),
    ],
)
def test_what_sequences_mean(scheme: SchemeName, tags: str, expected: list[WordSpan], changed: list[int]) -> None:
    assert decode(tags.split(), scheme) == expected
    assert repairs(tags.split(), scheme) == changed


@pytest.mark.parametrize("scheme", _WRITTEN)
@settings(max_examples=40)
@given(sentences=st.lists(spans(), min_size=1))
def test_a_file_is_read_as_it_was_written(scheme: SchemeName, sentences: list[tuple[list[WordSpan], int]]) -> None:
    """Whatever the scheme that is detected, the spans are those that were meant: where files are too small to tell two
    schemes apart, both mean the same."""
    written = [encode(found, length, scheme) for found, length in sentences]
    detected = detect(written).scheme
    assert detected is not None
    assert [decode(tags, detected) for tags in written] == [found for found, _ in sentences]


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("O O", "BIO"),
        ("B-A I-A O", "BIO"),
        ("I-A I-A O I-A B-A", "IOB1"),
        ("B-A I-A O I-A B-B", "BIO"),
        ("B-A M-A E-A", "BMES"),
        ("B-A E-A S-B", "BIOES"),
        ("B-A I-A S-B", "BIOS"),
        ("U-A O", "BILOU"),
        ("NN VB O", "plain"),
        ("B M E S", "plain"),
    ],
)
def test_schemes_are_told_by_their_letters(tags: str, scheme: SchemeName) -> None:
    assert detect([tags.split()]) == Detected(scheme=scheme)


def test_tags_of_no_scheme_beside_others_are_named() -> None:
    assert detect([["B-A", "X", "Y", "X"]]) == Detected(scheme=None, others=("X", "Y"))


@pytest.mark.parametrize("wrong", [[(0, 2, "A"), (1, 3, "A")], [(2, 2, "A")], [(2, 4, "A")], [(1, 2, "A"), (0, 1, "A")]])
def test_spans_that_no_tags_can_spell_are_refused(wrong: list[WordSpan]) -> None:
    with pytest.raises(ValueError, match="span"):
        encode(wrong, 3, "BIO")
    with pytest.raises(ValueError, match="every word"):
        encode([(0, 1, "A")], 3, "plain")
