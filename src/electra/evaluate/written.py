"""What is counted of targets that are texts, for `electra data inspect --task generate`.

In: the examples of a file, one after the other; a tokenizer, if lengths in tokens are wanted. Out: a tree that is ready for
JSON, and lines that tell it:

    pairs      the first of them, both sides
    empty      sources or targets without text: fine-tuning refuses them
    copies     targets that are their source, which teach to write what was read
    lengths    of targets in characters and tokens; how many are longer than what is learnt, and how many sources than what the
               windows of a model show
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from electra.contracts import Example
from electra.tasks.common import shown_by
from electra.tasks.generate import GenerateConfig
from electra.text.tokenizer import Tokenizer

#: pairs that are shown, and characters of each side
_SHOWN, _CUT = 3, 100


class Written:
    """Sources and targets of one file.

    Args:
        tokenizer: None = lengths in characters only; targets are counted by its own target, if it has one.
        max_length: tokens of a window of a source.
        target_length: tokens of a target that are learnt.
    """

    def __init__(self, tokenizer: Tokenizer | None, max_length: int, target_length: int) -> None:
        self._tokenizer = None if tokenizer is None else tokenizer.target or tokenizer
        self._room, self._source_room = target_length, shown_by(GenerateConfig().max_windows, max_length)
        self._characters, self._tokens = array("q"), array("q")
        self._empty, self._copies = _Places(), _Places()
        self._pairs = list[dict[str, str]]()

    def add(self, example: Example) -> None:
        """Count an example; of one without target only whether its source is empty."""
        target = example.target if isinstance(example.target, str) else None
        if not example.text.strip() or (target is not None and not target.strip()):
            self._empty.add(example.where)
        if target is None:
            return
        self._characters.append(len(target))
        if self._tokenizer is not None:
            self._tokens.append(len(self._tokenizer.encode_literally(target.strip()).ids) - 1)  # the end counts, the start not
        if target.strip() and target.strip() == example.text.strip():
            self._copies.add(example.where)
        if len(self._pairs) < _SHOWN:
            self._pairs.append({"where": example.where, "source": example.text[:_CUT], "target": target[:_CUT]})

    def tree(self, source_tokens: Sequence[int]) -> dict[str, Any]:
        """The counts.

        Args:
            source_tokens: of each source, with specials; none without a tokenizer.
        """
        longer = sum(length > self._room for length in self._tokens)
        tokens = {**spread(self._tokens), "room": self._room, "longer": longer} if self._tokens else None
        shown = {"room": self._source_room, "longer": sum(length > self._source_room for length in source_tokens)}
        return {"pairs": self._pairs, "empty": self._empty.tree(), "copies": self._copies.tree(),
                "characters": spread(self._characters) if self._characters else None, "tokens": tokens,
                "windows": shown if len(source_tokens) else None}  # fmt: skip


class _Places:
    """How many rows there are of a kind, and where the first is."""

    def __init__(self) -> None:
        self._count, self._first = 0, ""

    def add(self, where: str) -> None:
        self._first = self._first or where
        self._count += 1

    def tree(self) -> dict[str, Any]:
        return {"count": self._count, "first": self._first}


def spread(lengths: Sequence[int]) -> dict[str, int]:
    """Median, 95th percentile and the longest of at least one."""
    values = np.asarray(lengths)
    return {"median": int(np.median(values)), "p95": int(np.quantile(values, 0.95)), "longest": int(values.max())}


def lengths(found: Mapping[str, int]) -> str:
    """A `spread` as text."""
    return f"median {found['median']:,}, 95% up to {found['p95']:,}, longest {found['longest']:,}"


def to_lines(found: Mapping[str, Any], rows: int) -> Iterator[str]:
    """The tree of `Written.tree` as lines for a person; `rows` of the file."""
    if (windows := found["windows"]) is not None:
        most = GenerateConfig().max_windows
        yield f"  sources over {windows['room']}, the tokens that {most} windows show: {windows['longer']:,}"
    if found["characters"]:
        yield f"  characters of targets: {lengths(found['characters'])}"
    if (tokens := found["tokens"]) is not None:
        over = f"over {tokens['room']}: {tokens['longer']:,} ({tokens['longer'] / rows:.1%})"
        yield f"  tokens of targets: {lengths(tokens)}; {over}"
    for name, what in (("empty", "without source or target"), ("copies", "whose target is their source")):
        if found[name]["count"]:
            yield f"  rows {what}: {found[name]['count']:,}, first {found[name]['first']}"
    for pair in found["pairs"]:
        yield f"  {pair['source']!r} -> {pair['target']!r}"
