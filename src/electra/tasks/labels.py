"""Labels of a fixed set, in every task that has some: what is wrong with a list of them, or with the one of an example.

In: names as they stand in settings and files. Out: their numbers, or an `ElectraError` that says where and what is nearest.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from electra.contracts import Example
from electra.errors import ElectraError

#: the number of no label, which losses leave out: torch's ignore_index
NO_LABEL = -100


def check_labels(labels: Sequence[str] | None, least: int) -> None:
    """Raises ElectraError E-C300 unless `labels` are None, or `least` or more different ones."""
    if labels is not None and (len(labels) < least or len(set(labels)) < len(labels)):
        number = "two or more different labels" if least == 2 else "different labels"
        raise ElectraError("E-C300", "task.labels", f"{list(labels)} are not {number}", "mend the list")


def known_labels(labels: Sequence[str] | None) -> tuple[str, ...]:
    """The labels in the order of the outputs. Raises ElectraError E-C302 before they are known."""
    if labels is None:
        raise ElectraError("E-C302", "task.labels", "not known yet", "name them, or take them from the training file first")
    return tuple(labels)


def label_id(label: str, ids: Mapping[str, int], example: Example) -> int:
    """The number of a label that must be known.

    Raises:
        ElectraError: E-D312, with the nearest one.
    """
    if label not in ids:
        near = difflib.get_close_matches(label, ids, n=1, cutoff=0.0)
        known = ", ".join(list(ids)[:20])
        raise ElectraError("E-D312", example.where or "example", f"label {label!r} is not one of {known}",
                           f"nearest is {near[0]!r}; mend the row or add it to task.labels")  # fmt: skip
    return ids[label]


def no_label(example: Example) -> ElectraError:
    """E-D311: the example has no label, and must have one."""
    return ElectraError("E-D311", example.where or "example", "has no label",
                        "add it, or set columns.label to the column that holds the labels")  # fmt: skip


def file_of(examples: Sequence[Example]) -> str:
    """Where examples came from, for errors about all of them."""
    return examples[0].where.rpartition(":")[0] if examples else "training data"
