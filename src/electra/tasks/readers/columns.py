"""Which columns of a file hold what, as settings; whatever is left None is inferred, and the inference is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from electra.config import STRICT
from electra.errors import ElectraError
from electra.tasks.schemes import SchemeName

#: a name in a file with header or of a JSON field, or a number counted from 1 in a file without header
Column = str | int


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns of a table, or fields of a JSON line, hold texts and label; see `readers.texts`.

    Args:
        text: name of the column, or its number counted from 1 in a file without header; None = inferred, and then `pair` too.
        pair: the same for the second text; None = the task has one text, if `text` is given.
        label: the same for the label; None = inferred. A file without this column is unlabelled.
        separator: what stands between the labels of one cell (`,` say), for several labels a row; None = a cell is one label.
        format: of the file, whatever its name: a table, JSON lines, parquet, `txt` with one text a line, `labelled-lines` with
            a label, a space and a text a line; None = by suffix and content.
        encoding: by Python's names (`latin-1`, `gb18030` ...); None = UTF-8.
        inferred: numbers of text, pair and label that were inferred from a training file without header: other files without
            header, of several columns, are read by them where `text` is not given. None = no such training file.
    """

    __pydantic_config__ = STRICT
    text: Column | None = None
    pair: Column | None = None
    label: Column | None = None
    separator: str | None = None
    format: Literal["tsv", "csv", "jsonl", "json", "parquet", "txt", "labelled-lines"] | None = None
    encoding: str | None = None
    inferred: dict[Literal["text", "pair", "label"], int] | None = None

    def __post_init__(self) -> None:
        check({"text": self.text, "pair": self.pair, "label": self.label})
        if self.inferred is not None:
            check({str(role): number for role, number in self.inferred.items()})
        if self.separator == "":
            raise ElectraError("E-C316", "columns.separator", "is empty", "give the character between labels, or leave it out")


@dataclass(frozen=True, kw_only=True)
class PairColumns:
    """Which columns hold texts that belong together, for training and testing embeddings; see `readers.pairs`.

    Args:
        text: the first text; None = inferred, and then all others too.
        pair: the text that belongs to it.
        negative: a text that does not; None = the file has none.
        score: how similar `text` and `pair` are, a number, or a label; None = the file does not say.
        format, encoding: as of `Columns`.
    """

    __pydantic_config__ = STRICT
    text: Column | None = None
    pair: Column | None = None
    negative: Column | None = None
    score: Column | None = None
    format: Literal["tsv", "csv", "jsonl", "json", "parquet"] | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        check({"text": self.text, "pair": self.pair, "negative": self.negative, "score": self.score})
        if self.text is None and (self.negative is not None or self.score is not None):
            raise ElectraError("E-C315", "columns", "names some columns, but not text", "name text and pair too, or none")


@dataclass(frozen=True, kw_only=True)
class TargetColumns:
    """Which columns hold a text and what is to be written from it; see `readers.targets`.

    Args:
        text: the source; None = inferred, and then the target too.
        target: what is to be written; a file without this column has sources alone.
        format, encoding: as of `Columns`; `txt` has one source a line.
    """

    __pydantic_config__ = STRICT
    text: Column | None = None
    target: Column | None = None
    format: Literal["tsv", "csv", "jsonl", "json", "parquet", "txt"] | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        check({"text": self.text, "target": self.target})
        if self.target is not None and self.text is None:
            raise ElectraError("E-C315", "columns.target", "names the target without the source", "name columns.text too")


@dataclass(frozen=True, kw_only=True)
class TagColumns:
    """How a file holds tagged text; see `readers.tags`.

    Args:
        word: number of the column of a CoNLL file that holds the words; None = the first.
        tag: number of the column that holds the tags; None = the last. 0 = none: the file is unlabelled.
        scheme: how tags spell spans; None = detected over the file.
        format: of the file, whatever its name: `conll` has one word a line and empty lines between sentences, `txt` one text
            a line; `jsonl` and `json` hold spans; None = by suffix and content.
        encoding: by Python's names; None = UTF-8.
    """

    __pydantic_config__ = STRICT
    word: int | None = None
    tag: int | None = None
    scheme: SchemeName | None = None
    format: Literal["conll", "jsonl", "json", "txt", "tsv", "csv", "parquet"] | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        if (self.word is not None and self.word < 1) or (self.tag is not None and self.tag < 0):
            raise ElectraError("E-C311", "columns", f"numbers start at 1: {[self.word, self.tag]}", "mend the numbers")
        if self.word is not None and self.word == self.tag:
            raise ElectraError("E-C311", "columns", f"no column serves twice: {[self.word, self.tag]}", "mend the numbers")


@dataclass(frozen=True, kw_only=True)
class RelationColumns:
    """Which columns of a table hold a relation; see `readers.relations`. JSON lines and SemEval's form need none of them.

    Args:
        text: the sentence; None = inferred, and then all others too.
        head: the first argument of the relation, as it is written in the sentence.
        tail: the second.
        label: the relation; a file without this column is unlabelled.
        format: of the file, whatever its name; None = by suffix and content.
        encoding: by Python's names; None = UTF-8.
    """

    __pydantic_config__ = STRICT
    text: Column | None = None
    head: Column | None = None
    tail: Column | None = None
    label: Column | None = None
    format: Literal["semeval", "tsv", "csv", "jsonl", "json"] | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        check({"text": self.text, "head": self.head, "tail": self.tail, "label": self.label})
        given = [self.text, self.head, self.tail]
        if any(one is None for one in given) and any(one is not None for one in given):
            raise ElectraError("E-C315", "columns", "names some of text, head and tail", "name all three, or none")


def check(chosen: Mapping[str, Column | None]) -> None:
    """Refuse columns that make no sense together.

    Raises:
        ElectraError: E-C310 names and numbers mixed, E-C311 a number below 1 or a column that serves twice, E-C315 a column
            that cannot be understood without another.
    """
    given = {role: column for role, column in chosen.items() if column is not None}
    values = list(given.values())
    if len({type(column) for column in values}) > 1:
        raise ElectraError("E-C310", "columns", f"names and numbers are mixed: {values}",
                           f"give names (file with header) or numbers (file without) for {', '.join(chosen)}")  # fmt: skip
    if any(isinstance(column, int) and column < 1 for column in values) or len(set(values)) < len(values):
        raise ElectraError("E-C311", "columns", f"numbers start at 1 and no column serves twice: {values}", "mend the numbers")
    if "pair" in given and "text" not in given:
        raise ElectraError("E-C315", "columns.pair", "names the second text without the first", "name columns.text too")
