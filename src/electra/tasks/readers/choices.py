"""Multiple choice as JSON lines: {"question": "...", "context": "...", "choices": ["...", "..."], "answer": 0}.

`question` or `context` may be missing; `choices` may be called `options`; `answer` may be called `label`. An answer is the
number of the choice, counted from 0, or its text; a single letter A, B ... counts where no choice is that letter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from electra.contracts import Example, Reading
from electra.errors import ElectraError
from electra.tasks.readers.columns import Column
from electra.tasks.readers.reading import Mended, reading
from electra.tasks.readers.rows import Table, open_table
from electra.tasks.readers.source import LabelledFile, kind_of
from electra.tasks.readers.texts import text_field

_FORM = 'write {"question": "...", "context": "...", "choices": ["...", "..."], "answer": 0}'
_CHOICES, _ANSWERS = ("choices", "options"), ("answer", "label")


def read_choices(path: Path) -> Reading:
    """Questions with the answers to choose from.

    Args:
        path: JSON lines, a JSON list of objects, or parquet.

    Returns:
        Examples with text = question (or context, where there is no question), pair = context or None, `given["choices"]` a
        tuple of strings, target = the number of the right one, from 0, or None.

    Raises:
        ElectraError: E-D300 to E-D307 as `read_texts`; E-D345 choices or answer that cannot be read.
    """
    file = LabelledFile(path)
    kind = kind_of(file)
    if kind not in ("jsonl", "json", "parquet"):
        raise ElectraError("E-D301", str(path), f"unknown kind of file {file.suffix!r}", _FORM)
    letters = Mended(what="answers given by letter")
    table = open_table(file, kind, (), lambda _: False)
    return reading(str(path), _examples(table, letters), [f"{kind}; multiple choice"], letters)


def _examples(table: Table, letters: Mended) -> Iterator[Example]:
    for where, row in table.rows():
        has_question, has_context = row.get("question") is not None, row.get("context") is not None
        text = text_field(where, row, "question" if has_question or not has_context else "context")
        pair = text_field(where, row, "context") if has_question and has_context else None
        choices = _choices(where, row)
        answer = next((row[name] for name in _ANSWERS if row.get(name) is not None), None)
        target = None if answer is None else _index(where, answer, choices, letters)
        given = {"choices": choices} | ({"id": str(row["id"])} if "id" in row else {})
        yield Example(text=text, pair=pair, target=target, where=where, given=given)


def _choices(where: str, row: Mapping[Column, Any]) -> tuple[str, ...]:
    value = next((row[name] for name in _CHOICES if name in row), None)
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(one, str) for one in value):
        raise ElectraError("E-D345", where, f"no list of two or more texts to choose from: {value!r:.80}", _FORM)
    if len(set(value)) < len(value):
        raise ElectraError("E-D345", where, f"two choices are equal: {value!r:.80}", "make them different")
    return tuple(value)


def _index(where: str, answer: Any, choices: Sequence[str], letters: Mended) -> int:
    if type(answer) is int and 0 <= answer < len(choices):
        return answer
    if isinstance(answer, str) and answer in choices:
        return choices.index(answer)
    letter = ord(answer) - ord("A") if isinstance(answer, str) and len(answer) == 1 else -1
    if not 0 <= letter < len(choices):
        raise ElectraError("E-D345", where, f"answer {answer!r:.60} is none of {len(choices)} choices",
                           "give its number, counted from 0, or its text")  # fmt: skip
    letters.add(where)
    return letter
