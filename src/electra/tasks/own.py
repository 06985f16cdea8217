"""Tasks of the user's own: an entry point of an installed package in, the class of its settings out.

A package names the class of a task's settings in the entry point group `electra.tasks`; the name of the entry point is the
task's. Nothing is imported but the one package whose task a caller names: in a recipe (`task=NAME`), on the command line
(`--task NAME`) or in Python. A model directory cannot do so by itself: its task.json is data, and data names no code.

The class is a frozen dataclass like those of the built-in tasks: strict, tagged by its name in `type`, with a method
`build(tokenizer)` that returns a `contracts.TrainableTask`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

from electra.config import STRICT
from electra.contracts import Task, TrainableTask
from electra.errors import ElectraError
from electra.text.tokenizer import Tokenizer

GROUP = "electra.tasks"


class TaskSettings(Protocol):
    """What the settings of a trainable task are, whoever wrote them: a frozen dataclass, and these."""

    @property
    def type(self) -> str:
        """The task's name."""

    def build(self, tokenizer: Tokenizer) -> TrainableTask:
        """The task."""


def own_task(name: str, built_in: Collection[str]) -> type[TaskSettings] | None:
    """The class of the settings of the task `name` from an installed package; None where no package has such a task.

    Args:
        name: of the task, as the caller gave it.
        built_in: names that are taken.

    Raises:
        ElectraError: E-C349 the name is taken, or two packages have it; E-M336 the package cannot be imported, E-M337 what its
            entry point names is not the class of a task's settings.
    """
    found = list(entry_points(group=GROUP, name=name))
    if not found:
        return None
    packages = " and ".join(sorted(_package(point) for point in found))
    if name in built_in:
        raise ElectraError("E-C349", f"task {name!r}", f"is built in, and {packages} has a task of that name",
                           "rename that one, or uninstall the package")  # fmt: skip
    if len(found) > 1:
        raise ElectraError("E-C349", f"task {name!r}", f"{packages} have a task of that name", "uninstall one of them")
    [point] = found
    where = f"task {name!r} of {packages}"
    try:
        settings = point.load()
    except Exception as error:  # whatever the package's code does when it is imported
        raise ElectraError("E-M336", where, f"{point.value} cannot be imported: {type(error).__name__}: {error}",
                           "mend the package, or install what it needs") from error  # fmt: skip
    if (problem := _problem(settings, name)) is not None:
        raise ElectraError("E-M337", where, f"{point.value} {problem}", "mend the package as docs/own-task.md shows")
    return typing.cast(type[TaskSettings], settings)


def checked(task: TrainableTask) -> TrainableTask:
    """`task`, if it has all that a task has.

    Raises:
        ElectraError: E-M338, with what is missing.
    """
    asked = ["max_length", "per_token", "whole_batch", *(name for protocol in (Task, TrainableTask) for name in vars(protocol))]
    missing = [name for name in asked if name[0] != "_" and not hasattr(type(task), name) and name not in vars(task)]
    if missing:
        raise ElectraError("E-M338", type(task).__name__, f"a task needs {', '.join(dict.fromkeys(missing))}",
                           "add them; electra.contracts.TrainableTask says what they do")  # fmt: skip
    return task


def name_of(setting: object) -> str | None:
    """The name of the task that a recipe's setting `task` asks for, in its long or its short form."""
    name = setting.get("type") if isinstance(setting, Mapping) else setting
    return name if isinstance(name, str) else None


def _package(point: EntryPoint) -> str:
    return f"the package {point.dist.name!r}" if point.dist is not None else f"{point.value!r}"


def _problem(settings: Any, name: str) -> str | None:
    """What keeps a class from being the settings of the task `name`."""
    if not (isinstance(settings, type) and dataclasses.is_dataclass(settings)):
        return "is no dataclass"
    if not settings.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return "is a dataclass that is not frozen"
    if getattr(settings, "__pydantic_config__", None) != STRICT:
        return "does not set __pydantic_config__ = STRICT (of electra.config)"
    try:
        tag = typing.get_type_hints(settings).get("type")
    except Exception as error:
        return f"has annotations that cannot be resolved: {error}"
    if typing.get_origin(tag) is not typing.Literal or typing.get_args(tag) != (name,):
        return f"has no field type: Literal[{name!r}] = {name!r}"
    if not callable(getattr(settings, "build", None)):
        return "has no method build(tokenizer)"
    return None
