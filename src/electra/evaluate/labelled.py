"""What labelled files hold, before anything is trained on them: `electra data inspect`.

In: files of one task, the splits of a data set say; a tokenizer, if lengths in tokens and spans are to be judged. Out: a tree
that is ready for JSON, and lines of text that tell it:

    rows, notes of the reader, labels or answers by number, lengths in characters and tokens, the share longer than a row;
    rows that occur twice within a file or in two of them, and equal rows with different labels;
    spans whose ends lie within a token, with the nearest that a tagger could find;
    targets that are texts (`evaluate.written`);
    labels that a simple classifier would not have given (`evaluate.suspects`).

Files are read once, as streams; kept are 16 bytes and a place for each row, to find it again, and a sample of texts for the
classifier.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from electra.config import build
from electra.contracts import Example, Mention, Reading
from electra.errors import ElectraError
from electra.evaluate import written
from electra.evaluate.suspects import Sample, suspects
from electra.evaluate.written import Written, lengths, spread
from electra.tasks import readers
from electra.tasks.generate import GenerateConfig
from electra.tasks.readers.infer import is_number
from electra.text.tokenizer import Tokenizer

TaskName = Literal["classify", "tag", "span", "relation", "embed", "choice", "generate"]

#: how each task reads a file, the settings that name its columns, and the tokens of a row
_FAMILIES: dict[TaskName, tuple[Callable[..., Reading], type[Any] | None, int]] = {
    "classify": (readers.read_texts, readers.Columns, 128),
    "tag": (readers.read_tags, readers.TagColumns, 128),
    "span": (readers.read_answers, None, 384),
    "relation": (readers.read_relations, readers.RelationColumns, 128),
    "embed": (readers.read_pairs, readers.PairColumns, 128),
    "choice": (readers.read_choices, None, 128),
    "generate": (readers.read_targets, readers.TargetColumns, 128),
}
#: places that are shown of everything that is odd
SHOWN = 10
#: different numbers from which on targets are numbers, not labels
_MANY = 30
_CUT = 60
_GIST = 200


@dataclass(kw_only=True)
class _File:
    """What is counted of one file."""

    path: str
    written: Written | None
    notes: list[str] = field(default_factory=list)
    rows: int = 0
    unlabelled: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    characters: array[int] = field(default_factory=lambda: array("q"))
    tokens: array[int] = field(default_factory=lambda: array("q"))
    spans: int = 0
    misaligned: list[dict[str, str]] = field(default_factory=list)
    misaligned_count: int = 0
    twice: Counter[str] = field(default_factory=Counter)
    """Rows that were met before, by the file where they were."""
    twice_first: dict[str, str] = field(default_factory=dict)


def inspect(
    paths: Sequence[Path],
    task: TaskName,
    tokenizer: Tokenizer | None = None,
    max_length: int | None = None,
    columns: Mapping[str, Any] | None = None,
    target_length: int | None = None,
) -> dict[str, Any]:
    """What the files hold; see the module.

    Args:
        paths: files of the same task.
        task: whose files they are.
        tokenizer: None = lengths in characters only, and spans are not compared with tokens.
        max_length: tokens of a row; None = the task's default.
        columns: settings of the task's columns, by name, as in a recipe.
        target_length: tokens of a target that are learnt, of `generate`; None = its default.

    Raises:
        ElectraError: E-C317 columns for a task that has none, E-C882 a length of targets for a task whose targets are no texts,
            and those of the reader.
    """
    read, settings, room = _FAMILIES[task]
    if columns and settings is None:
        raise ElectraError("E-C317", "--column", f"files of {task!r} have no columns to name", "leave it out")
    if target_length is not None and task != "generate":
        raise ElectraError("E-C882", "--target-length", f"the targets of {task!r} are no texts", "leave it out")
    options = {} if settings is None else {"columns": build(settings, columns or {})}
    room = max_length or room
    learnt = target_length or GenerateConfig().target_length
    inspector = _Inspector(task, tokenizer)
    files = [inspector.file(path, read(path, **options), Written(tokenizer, room, learnt) if task == "generate" else None)
             for path in paths]  # fmt: skip
    return {
        "task": task,
        "files": [_told(file, room) for file in files],
        "contradictions": {"count": inspector.contradictions_count, "first": inspector.contradictions},
        "suspects": suspects(inspector.sample) if task == "classify" else None,
    }


class _Inspector:
    """Looks at the examples of all files, one after the other."""

    def __init__(self, task: TaskName, tokenizer: Tokenizer | None) -> None:
        self._task, self._tokenizer = task, tokenizer
        self._seen: dict[bytes, tuple[str, str, str]] = {}
        self.sample = Sample()
        self.contradictions: list[dict[str, str]] = []
        self.contradictions_count = 0

    def file(self, path: Path, reading: Reading, targets: Written | None) -> _File:
        found = _File(path=str(path), written=targets)
        for example in reading.examples:
            found.rows += 1
            found.unlabelled += example.target is None
            found.labels.update(_labels(self._task, example.target))
            found.characters.append(len(example.text) + len(example.pair or ""))
            if self._tokenizer is not None:
                self._count_tokens(found, example, self._tokenizer)
            key = self._find_again(found, example)
            if targets is not None:
                targets.add(example)
            elif isinstance(example.target, str):
                text = example.text if example.pair is None else f"{example.text}\n{example.pair}"
                self.sample.add(key, example.where, text, example.target)
        found.notes = reading.notes
        return found

    def _find_again(self, found: _File, example: Example) -> bytes:
        given = sorted((name, value) for name, value in example.given.items() if name not in ("id", "title", "words"))
        content = repr((example.text, example.pair, given)).encode("utf-8", "surrogatepass")
        key = hashlib.blake2b(content, digest_size=16).digest()
        target = _gist(self._task, example.target)
        if key not in self._seen:
            self._seen[key] = (found.path, example.where, target)
            return key
        file, where, before = self._seen[key]
        found.twice[file] += 1
        found.twice_first.setdefault(file, f"{example.where} = {where}")
        if target and before and target != before:
            self.contradictions_count += 1
            if len(self.contradictions) < SHOWN:
                self.contradictions.append({"where": example.where, "label": target, "other": where, "other_label": before,
                                            "text": example.text[:_CUT]})  # fmt: skip
        return key

    def _count_tokens(self, found: _File, example: Example, tokenizer: Tokenizer) -> None:
        encoding = tokenizer.encode_literally(example.text, example.pair)
        apart = [example.text, example.pair, example.given.get("negative")] if self._task == "embed" else []
        lengths = [len(tokenizer.encode_literally(text).ids) for text in apart if isinstance(text, str)] or [len(encoding.ids)]
        more = [len(tokenizer.encode_literally(choice).ids) - 1 for choice in example.given.get("choices", ())]
        found.tokens.append(max(lengths) + max(more, default=0))
        for in_pair, start, end in _places(example):
            found.spans += 1
            text = (example.pair or "") if in_pair else example.text
            numbers = encoding.sequence_ids
            offsets = [place for place, number in zip(encoding.offsets, numbers, strict=True) if number == int(in_pair)]
            mend = nearest(text, start, end, offsets)
            if mend == (start, end):
                continue
            found.misaligned_count += 1
            if len(found.misaligned) < SHOWN:
                proposed = "no token" if mend is None else text[slice(*mend)]
                found.misaligned.append({"where": example.where, "text": text[start:end], "proposed": proposed})


def nearest(text: str, start: int, end: int, offsets: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """The characters from the first to the last token that a span touches, spaces at the ends left out; None if it touches
    none.

    Equal to (start, end) exactly if the span's ends are those of tokens.
    """
    touched = [(first, last) for first, last in offsets if first < end and last > start]
    if not touched:
        return None
    first, last = touched[0][0], touched[-1][1]
    surface = text[first:last]
    return first + len(surface) - len(surface.lstrip()), last - len(surface) + len(surface.rstrip())


def _places(example: Example) -> Iterator[tuple[bool, int, int]]:
    """(in the pair, start, end) of every span that an example marks: mentions, arguments of a relation, answers."""
    for name in ("head", "tail"):
        if name in example.given:
            yield False, example.given[name][0], example.given[name][1]
    for one in example.target if isinstance(example.target, tuple) else ():
        if isinstance(one, Mention):
            yield False, one.start, one.end
        elif isinstance(one, tuple):
            yield True, one[0], one[0] + len(one[1])


def _labels(task: TaskName, target: object) -> list[str]:
    """What is counted of a target."""
    if target is None or task == "generate":
        return []
    if task == "span":
        return ["answered" if target else "not answerable"]
    if isinstance(target, tuple):
        return [one.label if isinstance(one, Mention) else str(one) for one in target]
    return [str(target)]


def _gist(task: TaskName, target: object) -> str:
    """What equal rows must have in common; of questions, whether they can be answered: annotators differ in the words."""
    if task == "generate":
        return str(target or "")[:_GIST]
    if isinstance(target, tuple) and target and isinstance(target[0], Mention):
        return ", ".join(f"{one.label} {one.start}:{one.end}" for one in target)[:_GIST]
    labels = ", ".join(_labels(task, target))[:_GIST] or ("none" if target == () else "")
    return f"{float(labels):g}" if is_number(labels) else labels


def _told(file: _File, room: int) -> dict[str, Any]:
    """A file's part of the tree."""
    tokens = None if not file.tokens else {**spread(file.tokens), "room": room, "longer": sum(n > room for n in file.tokens)}
    spans = None if not file.spans else {"count": file.spans, "misaligned": file.misaligned_count, "first": file.misaligned}
    numbers = [float(label) for label in file.labels if is_number(label)]
    measured = len(numbers) > _MANY and len(numbers) == len(file.labels)
    weights = [file.labels[label] for label in file.labels]
    return {
        "file": file.path, "rows": file.rows, "unlabelled": file.unlabelled, "notes": file.notes,
        "labels": None if measured else dict(file.labels.most_common()),
        "numbers": {"lowest": min(numbers), "mean": float(np.average(numbers, weights=weights)), "highest": max(numbers)}
        if measured else None,
        "characters": spread(file.characters), "tokens": tokens, "spans": spans,
        "written": None if file.written is None else file.written.tree(file.tokens),
        "duplicates": [{"of": other, "count": count, "first": file.twice_first[other]} for other, count in file.twice.items()],
    }  # fmt: skip


# -- as text ------------------------------------------------------------------------------------------------------------


def to_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The tree of `inspect` as lines for a person."""
    for file in found["files"]:
        yield from _lines_of(file)
    contradictions = found["contradictions"]
    if contradictions["count"]:
        equal = "equal sources with different targets" if found["task"] == "generate" else "equal rows with different labels"
        yield f"{equal}: {contradictions['count']:,}"
        for one in contradictions["first"]:
            yield f"  {one['where']} has {one['label']}, {one['other']} has {one['other_label']}: {one['text']!r}"
    if found["suspects"] is not None:
        yield from _lines_of_suspects(found["suspects"])


def _lines_of(file: Mapping[str, Any]) -> Iterator[str]:
    rows = file["rows"]
    without = f", {file['unlabelled']:,} of them without label" if file["unlabelled"] > 0 else ""
    yield f"{file['file']}: {rows:,} rows{without}"
    yield from (f"  {note}" for note in file["notes"])
    if file["numbers"]:
        numbers = file["numbers"]
        yield f"  numbers: from {numbers['lowest']:g} to {numbers['highest']:g}, mean {numbers['mean']:.3g}"
    if file["labels"]:
        total = sum(file["labels"].values())
        shown = [f"{label} {count:,} ({count / total:.1%})" for label, count in list(file["labels"].items())[: 2 * SHOWN]]
        more = f" and {len(file['labels']) - 2 * SHOWN} more" if len(file["labels"]) > 2 * SHOWN else ""
        yield f"  labels: {', '.join(shown)}{more}"
    yield f"  characters: {lengths(file['characters'])}"
    if file["tokens"]:
        tokens = file["tokens"]
        yield f"  tokens: {lengths(tokens)}; over {tokens['room']}: {tokens['longer']:,} ({tokens['longer'] / rows:.1%})"
    if file["written"] is not None:
        yield from written.to_lines(file["written"], rows)
    for one in file["duplicates"]:
        where = "twice in the file" if one["of"] == file["file"] else f"also in {one['of']}"
        yield f"  rows that are {where}: {one['count']:,}, first {one['first']}"
    if file["spans"]:
        spans = file["spans"]
        yield f"  spans that do not align with tokens: {spans['misaligned']:,} of {spans['count']:,}"
        yield from (f"    {one['where']}: {one['text']!r}, nearest {one['proposed']!r}" for one in spans["first"])


def _lines_of_suspects(found: Mapping[str, Any]) -> Iterator[str]:
    judged = f"TF-IDF and logistic regression, {found['accuracy']:.1%} right out of fold on {found['rows']:,} rows"
    if not found["judged"]:
        yield f"suspected label errors: not judged; {found['why']}"
        return
    yield f"suspected label errors: {found['count']:,} ({judged})"
    for one in found["first"]:
        yield f"  {one['where']} is {one['label']}, looks like {one['likely']} ({one['probability']:.2f}): {one['text']!r}"
