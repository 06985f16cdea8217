"""Label Studio's JSON export: a list of tasks, each with `data` and `annotations` -> mentions, relations, choices.

The text is the one string in a task's `data` (or its field `text`). A task has one annotation that was not cancelled, or
several that say the same; where annotators differ, someone has to decide, and reading stops. Offsets count characters; those
that count UTF-16 units, as browsers do, are mended where the surface shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra.contracts import Example, Mention, Reading
from electra.errors import ElectraError
from electra.tasks.readers.reading import Mended, in_order, reading

_FIX = "export again as JSON, or mend the task"


@dataclass(frozen=True, kw_only=True)
class _Task:
    where: str
    text: str
    identity: str
    results: list[dict[str, Any]] | None
    """None = nobody has annotated it."""


def is_export(value: Any) -> bool:
    """Whether a JSON value is an export of Label Studio."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and {"data", "annotations"} <= value[0].keys()


def mentions(path: Path, value: Any) -> Reading:
    """Targets are Mentions.

    Raises:
        ElectraError: E-D337 a task that cannot be read, E-D338 a span that does not fit its text, each with its id.
    """
    mended = _mended()

    def examples() -> Iterator[Example]:
        for task in _tasks(path, value):
            spans = None if task.results is None else _spans(task, mended)
            target = None if spans is None else in_order(spans.values())
            yield Example(text=task.text, target=target, where=task.where, given={"id": task.identity})

    return reading(str(path), examples(), ["Label Studio's export; spans"], mended)


def relations(path: Path, value: Any) -> Reading:
    """One example for each relation that was drawn; `given` has `head` and `tail`, (start, end, type), and an `id` of task and
    number.

    Raises:
        ElectraError: as `mentions`.
    """
    mended = _mended()

    def examples() -> Iterator[Example]:
        for task in _tasks(path, value):
            spans = _spans(task, mended)
            drawn = (result for result in task.results or [] if result.get("type") == "relation")
            for number, result in enumerate(drawn, start=1):
                ends = [spans.get(str(result.get(end))) for end in ("from_id", "to_id")]
                labels = result.get("labels") or []
                if ends[0] is None or ends[1] is None or len(labels) != 1:
                    raise ElectraError(
                        "E-D337", task.where, f"a relation without two spans and one label: {result!r:.120}", _FIX
                    )
                ends = ends if result.get("direction", "right") != "left" else ends[::-1]
                head, tail = ((one.start, one.end, one.label) for one in ends if one is not None)
                given = {"head": head, "tail": tail, "id": f"{task.identity}-{number}"}
                yield Example(text=task.text, target=str(labels[0]), where=task.where, given=given)

    return reading(str(path), examples(), ["Label Studio's export; relations"], mended)


def choices(path: Path, value: Any) -> Reading:
    """Targets are the chosen label, or a tuple where the choice was multiple or any task has several.

    Raises:
        ElectraError: as `mentions`.
    """
    tasks = list(_tasks(path, value))
    chosen = [None if task.results is None else _chosen(task) for task in tasks]
    several = any(len(labels) != 1 for labels in chosen if labels is not None)

    def examples() -> Iterator[Example]:
        for task, labels in zip(tasks, chosen, strict=True):
            target = None if labels is None else labels if several else labels[0]
            yield Example(text=task.text, target=target, where=task.where, given={"id": task.identity})

    return reading(str(path), examples(), [f"Label Studio's export; {'several choices' if several else 'one choice'} a task"])


def _mended() -> Mended:
    return Mended(what="spans that counted UTF-16 units mended")


def _tasks(path: Path, value: Any) -> Iterator[_Task]:
    for number, task in enumerate(value, start=1):
        identity = str(task.get("id", number)) if isinstance(task, dict) else str(number)
        where = f"{path}#{identity}"
        if (
            not isinstance(task, dict)
            or not isinstance(task.get("data"), dict)
            or not isinstance(task.get("annotations"), list)
        ):
            raise ElectraError("E-D337", where, "a task without data and annotations", _FIX)
        data = {name: text for name, text in task["data"].items() if isinstance(text, str)}
        name = "text" if "text" in data else next(iter(data), "")
        if not data or (name != "text" and len(data) > 1):
            raise ElectraError("E-D337", where, f"which field is the text? data has {', '.join(data) or 'none'}",
                               "keep one field of text, or call it text")  # fmt: skip
        done = [one["result"] for one in task["annotations"] if isinstance(one, dict) and isinstance(one.get("result"), list)
                and not one.get("was_cancelled")]  # fmt: skip
        if any(_meaning(one) != _meaning(done[0]) for one in done[1:]):
            raise ElectraError("E-D337", where, f"{len(done)} annotations that differ", "keep the right one and export again")
        yield _Task(where=where, text=data[name], identity=identity, results=done[0] if done else None)


def _meaning(results: list[dict[str, Any]]) -> list[str]:
    """What two annotations must have in common: everything but the ids that the browser drew."""
    return sorted(repr((one.get("type"), one.get("value"), one.get("labels"))) for one in results)


def _spans(task: _Task, mended: Mended) -> dict[str, Mention]:
    """The spans of a task by the ids of their results."""
    found = dict[str, Mention]()
    for number, result in enumerate(task.results or []):
        value = result.get("value", {})
        if result.get("type") not in ("labels", "hypertextlabels"):
            continue
        labels, start, end = value.get("labels") or [], value.get("start"), value.get("end")
        if len(labels) != 1 or not isinstance(start, int) or not isinstance(end, int):
            raise ElectraError("E-D337", task.where, f"a span without one label, start and end: {value!r:.120}", _FIX)
        surface = value.get("text")
        if isinstance(surface, str) and task.text[start:end] != surface:
            start, end = _from_utf16(task, start, end, surface)
            mended.add(task.where)
        if not 0 <= start < end <= len(task.text):
            raise ElectraError("E-D338", task.where, f"span {start}:{end} of {len(task.text)} characters", _FIX)
        found[str(result.get("id", number))] = Mention(start=start, end=end, label=str(labels[0]))
    return found


def _from_utf16(task: _Task, start: int, end: int, surface: str) -> tuple[int, int]:
    units = task.text.encode("utf-16-le", "surrogatepass")
    head, middle = (units[2 * a : 2 * b].decode("utf-16-le", "replace") for a, b in ((0, start), (start, end)))
    if middle != surface:
        raise ElectraError(
            "E-D338", task.where, f"{surface!r} does not stand at {start}:{end}, but {task.text[start:end]!r}", _FIX
        )
    return len(head), len(head) + len(middle)


def _chosen(task: _Task) -> tuple[str, ...]:
    values = [one.get("value", {}).get("choices") or [] for one in task.results or [] if one.get("type") == "choices"]
    return tuple(str(choice) for choices in values for choice in choices)
