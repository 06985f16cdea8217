"""An input of a request -> an example of a task.

Which fields a task reads is said here; one that it does not read is refused, not ignored. The places of errors are paths into
the request's JSON, `inputs[3].text` say, and become the `where` of the examples.
"""

from __future__ import annotations

from collections.abc import Sequence

from electra.contracts import Example, Task
from electra.deploy.refusal import Refusal
from electra.deploy.schemas import InputFields
from electra.deploy.settings import CHARACTERS
from electra.tasks.choice import Choice
from electra.tasks.embed import Embed
from electra.tasks.labelled_text import LabelledText
from electra.tasks.relation import Relation
from electra.tasks.span import Span

_NAMES = ("text", "pair", "question", "context", "head", "tail", "choices")


def fields_of(task: object) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The fields of an input that a task needs, and those that it may have besides."""
    match task:
        case Span():
            return ("question", "context"), ()
        case Relation():
            return ("text", "head", "tail"), ()
        case Choice():
            return ("text", "choices"), ("pair",)
        case Embed():
            return ("text",), ("pair",)
        case LabelledText():
            pairs = task.config.pairs
            return (("text", "pair"), ()) if pairs else (("text",), ("pair",) if pairs is None else ())
    return ("text",), ()


def examples_of(task: Task, given: Sequence[InputFields], path: str, many: bool = True) -> list[Example]:
    """The inputs of a request as examples.

    Args:
        task: reads them.
        given: the inputs.
        path: where they stand in the request's JSON.
        many: as a list.

    Raises:
        Refusal: 413 E-S740 too many characters; 422 E-S742 a field is missing, or is none of the task's.
    """
    if sum(map(_characters, given)) > CHARACTERS:
        raise Refusal(413, "E-S740", f"the texts have more than {CHARACTERS:,} characters", "send less text at once", path)
    return [_example(task, one, f"{path}[{place}]" if many else path) for place, one in enumerate(given)]


def _characters(given: InputFields) -> int:
    texts = (given.text, given.pair, given.question, given.context, *(given.choices or ()))
    return sum(len(text) for text in texts if text is not None)


def _example(task: Task, given: InputFields, where: str) -> Example:
    needed, allowed = fields_of(task)
    for name in _NAMES:
        there = getattr(given, name) is not None
        if name in needed and not there:
            raise Refusal(422, "E-S742", f"{name} is missing", f"give {', '.join(needed)}", f"{where}.{name}")
        if there and name not in needed + allowed:
            raise Refusal(422, "E-S742", f"the model's task has no {name}", f"give {', '.join(needed)}", f"{where}.{name}")
    if isinstance(task, Span):
        return Example(text=given.question or "", pair=given.context, where=where)
    marked = {name: (*place, None)[:3] for name, place in (("head", given.head), ("tail", given.tail)) if place is not None}
    choices = {} if given.choices is None else {"choices": given.choices}
    return Example(text=given.text or "", pair=given.pair, where=where, given={**marked, **choices})
