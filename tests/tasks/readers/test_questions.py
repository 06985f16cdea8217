"""Questions about texts, relations, multiple choice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra.contracts import Example, Reading
from electra.errors import ElectraError
from electra.tasks.readers import Columns, RelationColumns, read_answers, read_choices, read_relations, read_texts
from electra.tasks.readers.relations import first_places

Write = Callable[[str, object], Path]


def whole(reading: Reading) -> tuple[list[Example], list[str]]:
    return list(reading.examples), reading.notes


# -- questions about texts ----------------------------------------------------------------------------------------------

_CONTEXT = "Ada was born in London. Ada lived in Paris."


def _squad(*questions: dict[str, object]) -> dict[str, object]:
    return {"version": "v2.0", "data": [{"title": "Ada", "paragraphs": [{"context": _CONTEXT, "qas": list(questions)}]}]}


def _question(identity: str, *answers: tuple[str, int], **more: object) -> dict[str, object]:
    listed = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": identity, "question": f"{identity}?", "answers": listed, **more}


def test_questions_with_answers_and_without(write: Write) -> None:
    path = write("a.json", _squad(_question("a", ("London", 16), ("in London", 13)), _question("b", is_impossible=True),
                                  {"id": "c", "question": "c?"}))  # fmt: skip
    examples, notes = whole(read_answers(path))
    assert [(e.text, e.pair) for e in examples] == [("a?", _CONTEXT), ("b?", _CONTEXT), ("c?", _CONTEXT)]
    assert [example.target for example in examples] == [((16, "London"), (13, "in London")), (), None]
    assert (examples[0].given, examples[0].where) == ({"id": "a", "title": "Ada"}, f"{path}#a")
    assert notes == ["SQuAD's JSON"]


def test_an_answer_elsewhere_is_moved_where_it_can_only_be_meant(write: Write) -> None:
    path = write("a.json", _squad(_question("a", ("London", 15)), _question("b", ("Paris", 0))))
    examples, notes = whole(read_answers(path))
    assert [example.target for example in examples] == [((16, "London"),), ((37, "Paris"),)]
    moved = "2 answers that stood elsewhere than their answer_start moved to the only place where they occur"
    assert notes[1] == f"{moved}, first at {path}#a"


@pytest.mark.parametrize(
    ("question", "code"),
    [
        (_question("a", ("Ada", 3)), "E-D342"),
        (_question("a", ("Rome", 0)), "E-D342"),
        (_question("a", ("", 0)), "E-D340"),
        (_question("a", ("London", 16), is_impossible=True), "E-D340"),
        (_question("first", ("London", 16)), "E-D341"),
    ],
)
def test_answers_that_do_not_fit_are_named(write: Write, question: dict[str, object], code: str) -> None:
    path = write("a.json", _squad(_question("first"), question))
    with pytest.raises(ElectraError) as caught:
        whole(read_answers(path))
    assert (caught.value.code, caught.value.where) == (code, f"{path}#{question['id']}")


def test_the_flat_form(write: Write) -> None:
    row = {"id": "a", "question": "?", "context": _CONTEXT, "answers": {"text": ["London"], "answer_start": [16]}}
    [example], _ = whole(read_answers(write("a.jsonl", [row])))
    assert (example.target, example.given) == (((16, "London"),), {"id": "a"})
    for wrong in ({"data": 1}, {"data": [{"paragraphs": [{"context": 3}]}]}, [1]):
        with pytest.raises(ElectraError, match="E-D340"):
            whole(read_answers(write("b.json", wrong)))


# -- relations ----------------------------------------------------------------------------------------------------------

_SEMEVAL = (
    '1\t"The <e1>fire</e1> was caused by a <e2>spark</e2>."\r\nCause-Effect(e2,e1)\r\nComment: plain\r\n\r\n'
    '2\t"A <e2>box</e2> of <e1>wine</e1>"\r\nOther\r\nComment:\r\n\r\n'
)


def mentions(example: Example) -> list[str]:
    return [example.text[slice(*example.given[role][:2])] for role in ("head", "tail")]


def test_semeval(write: Write) -> None:
    path = write("TRAIN.TXT", _SEMEVAL)
    [first, second], _ = whole(read_relations(path))
    assert (first.text, first.target, first.where) == ("The fire was caused by a spark.", "Cause-Effect(e2,e1)", f"{path}:1")
    assert (mentions(first), mentions(second)) == (["fire", "spark"], ["wine", "box"])
    assert (second.given["head"], second.where) == ((9, 13, None), f"{path}:5")


@pytest.mark.parametrize("wrong", ["<e1>a</e1> and b", "<e1>a</e1> <e1>b</e1> <e2>c</e2>", "<e1>a <e2>b</e2></e1>"])
def test_markers_that_make_no_two_mentions(write: Write, wrong: str) -> None:
    path = write("TRAIN.TXT", f'{_SEMEVAL}3\t"{wrong}"\nOther\n')
    with pytest.raises(ElectraError) as caught:
        whole(read_relations(path))
    assert (caught.value.code, caught.value.where) == ("E-D344", f"{path}:9")


_FINRE = (
    "东方航空\t上航\tunknown\t东方航空将与上航合并\n\n上航\t东方航空\t合并\t东方航空将与上航合并，上航董事会说\n\n"
    "甲\t乙\t无\t甲和乙\n"
)


def test_tables_with_and_without_header(write: Write) -> None:
    path = write("train.txt", _FINRE)
    [first, second, _], notes = whole(read_relations(path))
    assert [(mentions(one), one.target) for one in (first, second)] == [
        (["东方航空", "上航"], "unknown"), (["上航", "东方航空"], "合并")
    ]  # fmt: skip
    assert notes[0] == "tsv; columns: text = 4, head = 1, tail = 2, label = 3 (no header)"
    several = "1 sentences in which a mention occurs several times; the first places that do not overlap are taken"
    assert notes[1] == f"{several}, first at {path}:3"
    assert notes[2] == f"2 empty lines between rows, first at {path}:2"
    named = write("a.csv", "relation,sentence,subject,object\nlikes,Ada likes Bo,Ada,Bo\n")
    [third], _ = whole(read_relations(named))
    assert (mentions(third), third.target) == (["Ada", "Bo"], "likes")
    swapped = RelationColumns(text="sentence", head="object", tail="subject")
    [fourth], _ = whole(read_relations(named, swapped))
    assert (mentions(fourth), fourth.target) == (["Bo", "Ada"], None)


def test_tables_that_hold_no_mentions(write: Write) -> None:
    with pytest.raises(ElectraError, match="E-D332"):
        read_relations(write("a.tsv", "Ada\tBo\tlikes\tCy likes Bo\n"))
    with pytest.raises(ElectraError, match=r"E-D368 .*:1: a text whose two mentions are not marked; mark them .* --tagger"):
        read_relations(write("a.txt", "Cy likes Bo\n"))
    with pytest.raises(ElectraError, match=r"E-D343 .*:1: 'Ada' and 'Ad'"):
        whole(read_relations(write("a.tsv", "Ada\tAd\tx\tAda\n"), RelationColumns(text=4, head=1, tail=2, label=3)))
    with pytest.raises(ElectraError, match="E-C315"):
        RelationColumns(text="x")


@given(st.text("ab", max_size=12), st.text("ab", max_size=3), st.text("ab", max_size=3))
def test_mentions_are_taken_at_their_first_places_without_overlap(text: str, head: str, tail: str) -> None:
    ways = [
        (first, second)
        for first in range(len(text))
        for second in range(len(text))
        if text.startswith(head, first) and text.startswith(tail, second)
        and (first + len(head) <= second or second + len(tail) <= first)
    ] if head and tail else []  # fmt: skip
    expected = (*ways[0], len(ways) == 1) if ways else None
    assert first_places(text, head, tail) == expected


def test_json_relations(write: Write) -> None:
    row = {
        "text": "Ada likes Bo",
        "head": {"start": 0, "end": 3, "type": "PER"},
        "tail": {"start": 10, "end": 12},
        "relation": "likes",
    }
    [example], _ = whole(read_relations(write("a.jsonl", [row])))
    assert (example.given, example.target) == ({"head": (0, 3, "PER"), "tail": (10, 12, None)}, "likes")
    for wrong, code in (({"head": [0, 3]}, "E-D337"), ({"tail": {"start": 0, "end": 13}}, "E-D338")):
        path = write("b.jsonl", [row | wrong])
        with pytest.raises(ElectraError, match=f"{code} .*b.jsonl:1"):
            whole(read_relations(path))


def test_label_studio_relations_and_choices(write: Write) -> None:
    spans = [{"id": name, "type": "labels", "value": {"start": s, "end": e, "text": t, "labels": ["PER"]}}
             for name, s, e, t in (("a", 0, 3, "Ada"), ("b", 10, 12, "Bo"))]  # fmt: skip
    drawn = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "left", "labels": ["liked by"]}
    other = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right", "labels": ["likes"]}
    chosen = {"type": "choices", "value": {"choices": ["good"]}}
    tasks = [{"id": 3, "data": {"text": "Ada likes Bo"}, "annotations": [{"result": [*spans, drawn, other, chosen]}]}]
    path = write("a.json", tasks)
    [relation, second], _ = whole(read_relations(path))
    assert (relation.target, relation.given) == ("liked by", {"head": (10, 12, "PER"), "tail": (0, 3, "PER"), "id": "3-1"})
    assert (second.target, second.given["id"]) == ("likes", "3-2")
    [choice], notes = whole(read_texts(path, Columns()))
    assert (choice.text, choice.target, notes) == ("Ada likes Bo", "good", ["Label Studio's export; one choice a task"])


# -- multiple choice ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "expected"), [(1, 1), ("no", 1), ("B", 1), (None, None)])
def test_choices(write: Write, answer: object, expected: int | None) -> None:
    row = {"id": 4, "question": "is it?", "context": "It is not.", "choices": ["yes", "no"], "answer": answer}
    path = write("a.jsonl", [row])
    [example], notes = whole(read_choices(path))
    assert (example.text, example.pair, example.target) == ("is it?", "It is not.", expected)
    assert example.given == {"choices": ("yes", "no"), "id": "4"}
    assert notes[1:] == ([f"1 answers given by letter, first at {path}:1"] if answer == "B" else [])


def test_choices_that_continue_a_context(write: Write) -> None:
    [example], _ = whole(read_choices(write("a.jsonl", [{"context": "It is", "options": ["so", "not so"], "label": 0}])))
    assert (example.text, example.pair, example.target) == ("It is", None, 0)


@pytest.mark.parametrize(
    "wrong",
    [{"answer": 2}, {"answer": "maybe"}, {"answer": "C"}, {"choices": ["yes"]}, {"choices": ["a", "a"]}, {"answer": True}],
)
def test_choices_that_cannot_be_read(write: Write, wrong: dict[str, object]) -> None:
    path = write("a.jsonl", [{"question": "?", "choices": ["yes", "no"], "answer": 0} | wrong])
    with pytest.raises(ElectraError) as caught:
        whole(read_choices(path))
    assert (caught.value.code, caught.value.where) == ("E-D345", f"{path}:1")


@pytest.mark.parametrize("read", [read_answers, read_choices])
def test_kinds_of_files_that_cannot_hold_it(write: Write, read: object, tmp_path: Path) -> None:
    assert callable(read)
    for name, code in (("a.tsv", "E-D301"), ("none.json", "E-D300")):
        with pytest.raises(ElectraError, match=code):
            read(write(name, "text\tlabel\n") if code == "E-D301" else tmp_path / name)
