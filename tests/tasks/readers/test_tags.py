"""Tagged text: CoNLL columns of every kind, JSON spans of every form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra.contracts import Example
from electra.errors import ElectraError
from electra.tasks.readers import TagColumns, read_tags
from electra.tasks.readers.conll import join

Write = Callable[[str, object], Path]

_CONLL = """-DOCSTART- -X- O

EU NNP B-ORG
rejects VBZ O
German JJ I-MISC
call NN I-MISC
. . O

Peter NNP B-PER
"""


def read(path: Path, columns: TagColumns | None = None) -> tuple[list[Example], list[str]]:
    reading = read_tags(path, columns or TagColumns())
    return list(reading.examples), reading.notes


def surfaces(example: Example) -> list[tuple[str, str]]:
    assert isinstance(example.target, tuple)
    return [(example.text[mention.start : mention.end], mention.label) for mention in example.target]


def test_sentences_of_words_with_repairs_counted(write: Write) -> None:
    path = write("eng.train", _CONLL)
    [first, second], notes = read(path)
    assert (first.text, first.where) == ("EU rejects German call .", f"{path}:3")
    assert [first.text[start:end] for start, end in first.given["words"]] == ["EU", "rejects", "German", "call", "."]
    assert surfaces(first) == [("EU", "ORG"), ("German call", "MISC")]
    assert (surfaces(second), second.where) == ([("Peter", "PER")], f"{path}:9")
    assert notes == [
        "conll; columns: word = 1, tag = 3 of 3, scheme BIO; words joined by spaces, but for CJK neighbours",
        f"1 tags that BIO does not allow repaired, first at {path}:5 (I-MISC)",
    ]


def test_another_column_may_hold_plain_tags(write: Write) -> None:
    [first, _], notes = read(write("eng.train", _CONLL), TagColumns(tag=2))
    assert surfaces(first)[:2] == [("EU", "NNP"), ("rejects", "VBZ")]
    assert first.given["tagged"] == "words"
    assert "scheme plain" in notes[0]
    [unlabelled, _], _ = read(write("eng.train", _CONLL), TagColumns(tag=0, format="conll"))
    assert unlabelled.target is None
    assert len(unlabelled.given["words"]) == 5


def test_a_first_word_that_is_also_the_name_of_a_column(write: Write) -> None:
    examples, notes = read(write("a.tsv", "Title\tO\nof\tO\nAda\tB-PER\n\nText\tO\n"))
    assert [surfaces(example) for example in examples] == [[("Ada", "PER")], []]
    assert notes[0].startswith("conll")


def test_characters_join_to_their_text(write: Write) -> None:
    [one, two], notes = read(write("a.char.bmes", "高 B-NAME\n小 M-NAME\n勇 E-NAME\n： O\nC O\nE O\nO O\n\n男 S-X\n"))
    assert (one.text, two.text) == ("高小勇：CEO", "男")
    assert surfaces(one) == [("高小勇", "NAME")]
    assert notes == ["conll; columns: word = 1, tag = 2 of 2, scheme BMES; characters joined"]


def test_tabs_between_words_and_a_line_of_tabs_between_sentences(write: Write) -> None:
    examples, _ = read(write("a.conll", "中国\tB_LOC\n人\tO\n2008\tO\nnew york\tB_LOC\n\t\nx\tO\n"))
    assert [example.text for example in examples] == ["中国人 2008 new york", "x"]
    assert surfaces(examples[0]) == [("中国", "LOC"), ("new york", "LOC")]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1), min_size=1), st.booleans())
def test_words_stand_where_they_are_said_to_stand(words: list[str], joined: bool) -> None:
    text, places = join(words, joined)
    assert [text[start:end] for start, end in places] == words
    rest = list(text)
    for start, end in places:
        rest[start:end] = [""] * (end - start)
    assert set(rest) <= {"", " "}
    assert (text == "".join(words)) or not joined


@pytest.mark.parametrize(
    ("data", "code", "line"),
    [
        ("EU B-ORG\nrejects\n", "E-D304", 2),
        ("EU\tB-ORG\nx\tO\n\tO\n", "E-D334", 3),
        ("EU B-ORG\nx LOC\ny O\n", "E-D336", 2),
    ],
)
def test_what_is_wrong_has_its_line(write: Write, data: str, code: str, line: int) -> None:
    path = write("a.conll", data)
    with pytest.raises(ElectraError) as caught:
        read(path, TagColumns(format="conll"))
    assert (caught.value.code, caught.value.where) == (code, f"{path}:{line}")


def test_texts_without_tags(write: Write) -> None:
    for name, data in (
        ("a.txt", "one two three\nfour\n"),
        ("a.tsv", "text\tlabel\none two three\tx\n"),
        ("a.jsonl", '{"text": "one two three"}\n'),
    ):
        examples, _ = read(write(name, data))
        assert (examples[0].text, examples[0].target) == ("one two three", None)
    with pytest.raises(ElectraError, match="E-D335"):
        read(write("b.txt", "good morning\nhello world\nred rose\n"))
    assert len(read(write("b.txt", "good morning\nhello world\nred rose\n"), TagColumns(format="txt"))[0]) == 3


# -- JSON ---------------------------------------------------------------------------------------------------------------

_TEXT = "Ada met Bo"


@pytest.mark.parametrize(
    "fields",
    [
        {"spans": [{"start": 8, "end": 10, "label": "P"}, {"start": 0, "end": 3, "label": "P", "text": "Ada"}]},
        {"entities": [[0, 3, "P"], [8, 10, "P"]]},
        {"label": [[8, 10, "P"], [0, 3, "P"]]},
        {"label": {"P": {"Ada": [[0, 2]], "Bo": [[8, 9]]}}},
    ],
)
def test_spans_in_every_form(write: Write, fields: dict[str, object]) -> None:
    examples, notes = read(write("a.jsonl", [{"text": _TEXT} | fields, {"text": "no one", "spans": []}, {"text": "who?"}]))
    assert surfaces(examples[0]) == [("Ada", "P"), ("Bo", "P")]
    assert [example.target for example in examples[1:]] == [(), None]
    assert notes == ["JSON spans"]


def test_spans_twice_and_over_each_other_are_counted(write: Write) -> None:
    path = write("a.json", '{"text": "Ada met Bo", "spans": [[0, 3, "P"], [0, 3, "P"], [0, 10, "S"]]}\n{"text": "x"}\n')
    examples, notes = read(path)
    assert surfaces(examples[0]) == [("Ada", "P"), ("Ada met Bo", "S")]
    assert notes[1:] == [
        f"1 spans that were listed twice left out, first at {path}:1",
        f"1 spans overlap another one, first at {path}:1",
    ]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"spans": [[0, 11, "P"]]}, "E-D338"),
        ({"spans": [[3, 3, "P"]]}, "E-D338"),
        ({"spans": [{"start": 0, "end": 3, "label": "P", "text": "Bo"}]}, "E-D338"),
        ({"label": {"P": {"Bo": [[0, 2]]}}}, "E-D338"),
        ({"label": {"P": [[0, 2]]}}, "E-D337"),
        ({"spans": [[0, 3]]}, "E-D337"),
        ({"spans": [{"start": 0, "end": 3}]}, "E-D337"),
        ({"spans": [{"start": True, "end": 3, "label": "P"}]}, "E-D337"),
        ({"spans": "Ada"}, "E-D337"),
    ],
)
def test_spans_that_do_not_fit_have_their_line(write: Write, fields: dict[str, object], code: str) -> None:
    path = write("a.jsonl", [{"text": "fine", "spans": []}, {"text": _TEXT} | fields])
    with pytest.raises(ElectraError) as caught:
        read(path)
    assert (caught.value.code, caught.value.where) == (code, f"{path}:2")


def _task(number: int, text: str, *results: dict[str, object], **more: object) -> dict[str, object]:
    return {"id": number, "data": {"text": text, "meta": 1}, "annotations": [{"result": list(results), **more}]}


def _span(name: str, start: int, end: int, surface: str, label: str = "P") -> dict[str, object]:
    return {"id": name, "type": "labels", "value": {"start": start, "end": end, "text": surface, "labels": [label]}}


def test_label_studio_spans_and_browsers_offsets(write: Write) -> None:
    smile = "\U0001f600 Ada met Bo"
    path = write("a.json", [_task(7, _TEXT, _span("a", 8, 10, "Bo")), _task(8, smile, _span("b", 3, 6, "Ada"))])
    examples, notes = read(path)
    assert [surfaces(example) for example in examples] == [[("Bo", "P")], [("Ada", "P")]]
    assert [example.where for example in examples] == [f"{path}#7", f"{path}#8"]
    assert notes == ["Label Studio's export; spans", f"1 spans that counted UTF-16 units mended, first at {path}#8"]


@pytest.mark.parametrize(
    ("task", "code"),
    [
        (_task(7, _TEXT, _span("a", 0, 3, "Bo")), "E-D338"),
        (_task(7, _TEXT, _span("a", 0, 3, "Ada")) | {"data": {"a": "x", "b": "y"}}, "E-D337"),
        (_task(7, _TEXT) | {"annotations": [{"result": []}, {"result": [_span("a", 0, 3, "Ada")]}]}, "E-D337"),
    ],
)
def test_label_studio_tasks_that_do_not_fit(write: Write, task: dict[str, object], code: str) -> None:
    path = write("a.json", [task])
    with pytest.raises(ElectraError) as caught:
        read(path)
    assert (caught.value.code, caught.value.where) == (code, f"{path}#7")


def test_label_studio_cancelled_annotations_do_not_count(write: Write) -> None:
    task = _task(7, _TEXT, _span("a", 0, 3, "Ada"))
    task["annotations"] = [{"result": [], "was_cancelled": True}, *task["annotations"]]  # type: ignore[misc]
    assert surfaces(read(write("a.json", [task]))[0][0]) == [("Ada", "P")]
    assert read(write("a.json", [_task(7, _TEXT, was_cancelled=True)]))[0][0].target is None
