"""SQuAD's JSON, 1.1 and 2.0 (also DRCD, CMRC, XQuAD), and its flat form as JSON lines -> questions about texts.

An answer must stand where its `answer_start` says. Where it does not, but occurs exactly once elsewhere in the context, it is
taken from there and counted; otherwise reading stops. In 2.0 a question without an answer has none (`plausible_answers` are no
answers).

The flat form: {"id": "...", "question": "...", "context": "...", "answers": {"text": ["..."], "answer_start": [7]}}, where
`answers` may also be SQuAD's list of objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from electra.contracts import Example, Reading
from electra.errors import ElectraError
from electra.tasks.readers.reading import Mended, reading
from electra.tasks.readers.source import LabelledFile, kind_of

_FORM = "write SQuAD's JSON: data > paragraphs > context, qas > id, question, answers > text, answer_start"


def read_answers(path: Path) -> Reading:
    """Questions, their contexts and answers.

    Args:
        path: SQuAD's JSON, or JSON lines of its flat form.

    Returns:
        Examples with text = question, pair = context, target = a tuple of (start, answer) as it stands in the file, empty where
        the question cannot be answered, None where the file has no answers; `given["id"]`, and `given["title"]` of the article.

    Raises:
        ElectraError: E-D300, E-D302, E-D306, E-D307 as for other files; E-D340 no SQuAD, E-D341 two questions with the same id,
            E-D342 an answer that is not in its context.
    """
    file = LabelledFile(path)
    kind = kind_of(file)
    if kind not in ("json", "jsonl"):
        raise ElectraError("E-D301", str(path), f"unknown kind of file {file.suffix!r}", _FORM)
    flat = kind == "jsonl"
    moved = Mended(what="answers that stood elsewhere than their answer_start moved to the only place where they occur")
    questions = _flat(file) if flat else _nested(file)
    return reading(str(path), _examples(questions, moved), ["SQuAD's flat JSON lines" if flat else "SQuAD's JSON"], moved)


_Question = tuple[str, Mapping[str, Any], str, str]
"""Where, the question's object, context, title."""


def _flat(file: LabelledFile) -> Iterator[_Question]:
    for number, row in file.objects():
        yield file.at(number), row, _text(file.at(number), row, "context"), str(row.get("title", ""))


def _nested(file: LabelledFile) -> Iterator[_Question]:
    value = file.value
    for article in _items(str(file.path), value, "data"):
        title = str(article.get("title", ""))
        for number, paragraph in enumerate(_items(f"{file.path} article {title!r}", article, "paragraphs"), start=1):
            place = f"{file.path} article {title!r}, paragraph {number}"
            context = _text(place, paragraph, "context")
            for question in _items(place, paragraph, "qas"):
                if not question.get("id"):
                    raise ElectraError("E-D340", place, f"a question without id: {question!r:.80}", _FORM)
                yield f"{file.path}#{question['id']}", question, context, title


def _items(where: str, value: Any, name: str) -> list[dict[str, Any]]:
    items = value.get(name) if isinstance(value, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ElectraError("E-D340", where, f"no list of objects {name!r}", _FORM)
    return items


def _text(where: str, value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str):
        raise ElectraError("E-D340", where, f"no text {name!r} among {list(value)[:20]}", _FORM)
    return text


def _examples(questions: Iterator[_Question], moved: Mended) -> Iterator[Example]:
    seen = dict[str, str]()
    for where, question, context, title in questions:
        identity = str(question.get("id", "")) or where.rpartition(":")[2]
        if identity in seen:
            raise ElectraError(
                "E-D341", where, f"id {identity!r} is already that of {seen[identity]!r:.60}", "give every question its own id"
            )
        text = seen[identity] = _text(where, question, "question")
        given = {"id": identity} | ({"title": title} if title else {})
        target = _answers(where, question, context, moved)
        yield Example(text=text, pair=context, target=target, where=where, given=given)


def _answers(where: str, question: Mapping[str, Any], context: str, moved: Mended) -> tuple[tuple[int, str], ...] | None:
    answers = question.get("answers")
    if isinstance(answers, dict):
        texts, starts = answers.get("text"), answers.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise ElectraError("E-D340", where, "as many texts as answer_starts are needed in 'answers'", _FORM)
        answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    impossible = question.get("is_impossible") is True
    if answers is None:
        return () if impossible else None
    if not isinstance(answers, list) or (impossible and answers):
        raise ElectraError("E-D340", where, "an impossible question with answers" if impossible else "no list 'answers'", _FORM)
    return tuple(_answer(where, answer, context, moved) for answer in answers)


def _answer(where: str, answer: Any, context: str, moved: Mended) -> tuple[int, str]:
    text = answer.get("text") if isinstance(answer, dict) else None
    if not isinstance(text, str) or not text:
        raise ElectraError("E-D340", where, f"an answer without text: {answer!r:.80}", _FORM)
    start = answer.get("answer_start", -1)
    if isinstance(start, int) and start >= 0 and context.startswith(text, start):
        return start, text
    found = context.find(text)
    if found < 0 or context.find(text, found + 1) >= 0:
        there = context[start : start + len(text)] if isinstance(start, int) and start >= 0 else ""
        often = "and nowhere else in the context" if found < 0 else "but at several other places"
        raise ElectraError("E-D342", where, f"answer {text!r:.60} is not at {start!r} (there is {there!r:.60}), {often}",
                           "mend answer_start or the answer's text")  # fmt: skip
    moved.add(where)
    return found, text
