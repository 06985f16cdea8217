"""Which columns hold texts and label, where the user does not say.

With names (a header, JSON fields, parquet) those are taken that everyone uses: `sentence1` and `sentence2`, `text`, `label`
...; the first line of a table is a header if it holds one of the names of texts. Without a header, the whole file is looked
through:

- a column of *codes* has between two and rows / 10 different values, all short, none empty (two are always few);
- a column of *numbers* has numbers only, but is no running index (whole numbers that are all different);
- a *text* is any other column that is neither an index, nor constant, nor as few and short as codes, but with empty cells.

The label is the only column of codes; among several, the only one whose values are the whole numbers from 0 or 1 on; without
any, the only column of numbers. The texts are the one or two columns of text, in their order. Whatever these rules leave open
is an error that shows the first row: nothing is guessed. It takes four rows to tell a label, and a first row whose label occurs
nowhere else is refused: it may be a header.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from electra.errors import ElectraError
from electra.tasks.readers.columns import Column
from electra.tasks.readers.rows import Table

#: names of two texts that belong together, the most certain first
PAIRS = (
    ("sentence1", "sentence2"), ("sentence_1", "sentence_2"), ("sentence_a", "sentence_b"), ("text1", "text2"),
    ("text_a", "text_b"), ("question1", "question2"), ("premise", "hypothesis"), ("#1 string", "#2 string"),
    ("question", "sentence"), ("query", "passage"), ("query", "document"), ("anchor", "positive"), ("text", "pair"),
)  # fmt: skip
TEXTS = ("text", "sentence", "content", "review", "comment", "tweet", "title", "question", "query", "document")
LABELS = (
    "label", "labels", "gold_label", "target", "class", "category", "intent", "sentiment", "quality", "is_duplicate",
    "score", "similarity", "rating", "stars",
)  # fmt: skip
NEGATIVES = ("negative", "hard_negative")

#: characters of a code at most
_SHORT = 40
_MOST_CODES = 1000
#: rows beside the first one that it takes to see what a column holds
_FEWEST = 3
_Cells = Mapping[Column, str]


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The columns that were found; those that a file does not have are None."""

    text: Column
    pair: Column | None = None
    label: Column | None = None
    negative: Column | None = None


def fold(name: Column) -> str:
    """A name as it is compared."""
    return str(name).strip().casefold()


def known_header(cells: Sequence[str]) -> bool:
    """Whether the cells of a first line are names of columns: one is that of a text."""
    names = {fold(cell) for cell in cells}
    return any(text in names for text in TEXTS) or any(set(pair) <= names for pair in PAIRS)


def by_name(table: Table, label: Column | None = None) -> Roles:
    """The columns of a table with names, by the names that everyone uses.

    Args:
        table: with names.
        label: the column of the label, if the user gave it.

    Raises:
        ElectraError: E-D303 no text among the names, E-D332 several candidates.
    """
    names = {fold(name): name for name in table.names}
    label = label_by_name(table) if label is None else label
    names = {name: column for name, column in names.items() if column != label}
    pair = next(((names[first], names[second]) for first, second in PAIRS if first in names and second in names), None)
    negative = _one(table, "negative", [names[known] for known in NEGATIVES if known in names])
    if pair is not None:
        return Roles(text=pair[0], pair=pair[1], label=label, negative=negative)
    text = _one(table, "text", [names[known] for known in TEXTS if known in names])
    if text is None:
        raise ElectraError("E-D303", table.file.at(1), f"no column is known to hold a text among {table.listed()}",
                           "set columns.text to one of these (and columns.pair, columns.label)")  # fmt: skip
    return Roles(text=text, label=label)


def label_by_name(table: Table) -> Column | None:
    """The column of the label, if there is one of a usual name.

    Raises:
        ElectraError: E-D332 several candidates.
    """
    names = {fold(name): name for name in table.names}
    return _one(table, "label", [names[known] for known in LABELS if known in names])


def _one(table: Table, role: str, found: Sequence[Column]) -> Column | None:
    if len(found) > 1:
        raise ElectraError("E-D332", table.file.at(1), f"{' and '.join(map(repr, found))} may each be the {role}",
                           f"set columns.{role} to one of these")  # fmt: skip
    return found[0] if found else None


# -- without names ------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Profile:
    """What the cells of a column are like, those of the first row left out."""

    values: set[str] = field(default_factory=set)
    rows: int = 0
    longest: int = 0
    empty: int = 0
    whole: bool = True
    numbers: bool = True

    def add(self, cell: str) -> None:
        cell = cell.strip()
        self.rows += 1
        self.empty += not cell
        self.longest = max(self.longest, len(cell))
        if len(self.values) <= _MOST_CODES:
            self.values.add(cell)
        if self.whole and not (cell.isascii() and cell.isdecimal()):
            self.whole = False
        if self.numbers and not is_number(cell):
            self.numbers = False

    @property
    def few(self) -> bool:
        """Few different values, all short."""
        most = min(_MOST_CODES, max(2, self.rows // 10))
        return len(self.values) <= most and self.longest <= _SHORT and self.rows >= _FEWEST

    @property
    def codes(self) -> bool:
        return self.few and len(self.values) > 1 and not self.empty

    @property
    def counted(self) -> bool:
        """The values are 0 ... n or 1 ... n."""
        if not self.whole:
            return False
        numbers = sorted(int(value) for value in self.values)
        return numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))

    @property
    def index(self) -> bool:
        """Whole numbers, all different (or too many to say)."""
        return self.whole and self.rows > 1 and len(self.values) >= min(self.rows, _MOST_CODES + 1)

    @property
    def text(self) -> bool:
        return not (self.few or self.numbers)


def is_number(cell: str) -> bool:
    """Whether a cell is a finite number: `3.5`, `-1`, `2e-3`."""
    try:
        return abs(float(cell)) < float("inf")
    except ValueError:
        return False


def by_content(table: Table, label: Column | None = None, texts_only: bool = False) -> Roles:
    """The columns of a table without header, by what they hold; see the module.

    Args:
        table: without header.
        label: the column of the label, if the user gave it.
        texts_only: two or three columns of text are a text, its pair and a negative, as embeddings learn from.

    Raises:
        ElectraError: E-D332 the rules leave it open, E-D333 the first row may be a header.
    """
    if len(table.names) == 1:
        return Roles(text=table.names[0])
    first, profiles = _profiles(table)
    texts = [column for column, profile in profiles.items() if profile.text and column != label]
    label = _label(table, profiles, first) if label is None else label
    most = 3 if texts_only else 2
    if not 1 <= len(texts) <= most or (label is None and not texts_only):
        raise _open(table, first, f"{len(texts)} columns look like texts, {'one' if label else 'none'} like a label")
    if label is not None and profiles[label].rows < _FEWEST:
        raise _open(table, first, f"{profiles[label].rows + 1} rows are too few to tell a label")
    if label is not None:
        _check_first_row(table, profiles[label], first[label].strip())
    return Roles(**dict(zip(("text", "pair", "negative"), texts, strict=False)), label=label)


def _profiles(table: Table) -> tuple[_Cells, dict[Column, _Profile]]:
    """The first row, and what the columns of all others are like."""
    profiles = {column: _Profile() for column in table.names}
    rows = table.rows()
    first = next(rows)[1]
    for _, row in rows:
        for column, profile in profiles.items():
            profile.add(row[column])
    return first, profiles


def _label(table: Table, profiles: Mapping[Column, _Profile], first: _Cells) -> Column | None:
    codes = [column for column, profile in profiles.items() if profile.codes and not profile.index]
    counted = [column for column in codes if profiles[column].counted]
    numbers = [column for column, profile in profiles.items() if profile.numbers and not profile.index]
    found = codes if len(codes) == 1 else counted if codes else numbers
    if len(found) > 1 or (codes and not found):
        raise _open(table, first, f"columns {' and '.join(map(str, found or codes))} may each be the label")
    return found[0] if found else None


def _open(table: Table, first: _Cells, why: str) -> ElectraError:
    shown = ", ".join(f"{column} = {value[:40]!r}" for column, value in first.items())
    return ElectraError("E-D332", table.file.at(1), f"no header, and {why}; the first row has {shown}",
                        "set columns.text (and pair, label) to these numbers, or to names if this row is a header")  # fmt: skip


def _check_first_row(table: Table, profile: _Profile, cell: str) -> None:
    """A header of names that nobody knows would become an example; its label gives it away."""
    if not is_number(cell) if profile.numbers else cell not in profile.values:
        raise ElectraError("E-D333", table.file.at(1), f"label {cell!r} occurs in the first row alone: is it a header?",
                           "set columns.text and columns.label to names if it is, to numbers if not")  # fmt: skip
