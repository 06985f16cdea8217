"""Which documents a corpus is built of: filters, removal of evaluation text, duplicates.

In: clean documents in reading order, and what to look for. Out: those that stay, in the same order; everything else is counted
by cause and file. Nothing is done unless it is asked for.

Filters look at one document at a time and at characters alone, so they know no language. Two things need a look at all
documents first: lines that stand in many documents, and duplicates (`duplicates.py`). The text is read once more for each of
them; what was found is a function of the text and the options, is kept in a directory, and is not looked for again if it lies
there already.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from electra.config import STRICT
from electra.errors import ElectraError
from electra.storage import sync
from electra.text.against import Against
from electra.text.disksort import DiskSort, Keys, is_among, text_keys
from electra.text.drops import Drops
from electra.text.duplicates import (
    BATCH_CHARACTERS,
    EXACT,
    NEAR,
    UNCOMPARED,
    NearSignatures,
    bytes_per_document,
    find_duplicates,
    near_package,
)
from electra.text.readers import Document, batches
from electra.text.shingles import categories, codes_of

EXACT_DUPLICATES, NEAR_DUPLICATES = "dropped: exact duplicates", "dropped: near duplicates"
_VERDICTS = {
    EXACT: EXACT_DUPLICATES,
    NEAR: NEAR_DUPLICATES,
    UNCOMPARED: "skipped: comparisons of documents that resemble too many",
}


@dataclass(frozen=True, kw_only=True)
class FilterOptions:
    """Which documents stay. None means that it is not looked at.

    Args:
        min_characters, max_characters: of a document, line breaks included.
        min_letters: share of letters and marks, of any script, among its characters that are no spaces: 0 to 1.
        max_repeated: share of its characters that stand in lines which stood in it before: 0 to 1.
        max_line_documents: a line that stands in more documents than this is removed from all of them.
        against: files of evaluation text: `.txt`, `.tsv`, `.csv`, `.jsonl`, `.json`.
        duplicates: `none`, `exact` (the same text), or `near` (similar text too); the first one stays.
        similarity: of near duplicates, from 0.5 to below 1: the Jaccard similarity of their runs of five words.

    Raises:
        ElectraError: E-C120 a value is out of range, or `similarity` goes with no near duplicates.
    """

    __pydantic_config__ = STRICT
    min_characters: int | None = None
    max_characters: int | None = None
    min_letters: float | None = None
    max_repeated: float | None = None
    max_line_documents: int | None = None
    against: tuple[str, ...] = ()
    duplicates: Literal["none", "exact", "near"] = "none"
    similarity: float | None = None

    def __post_init__(self) -> None:
        for name, least, most in (
            ("min_characters", 1, None), ("max_characters", self.min_characters or 1, None), ("max_line_documents", 1, None),
            ("min_letters", 0, 1), ("max_repeated", 0, 1), ("similarity", 0.5, 0.999),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not (least <= value and (most is None or value <= most)):
                bounds = f"{least} or more" if most is None else f"{least} to {most}"
                raise ElectraError("E-C120", name, f"{value} is out of range", f"give {bounds}, or leave it out")
        if self.similarity is not None and self.duplicates != "near":
            raise ElectraError("E-C120", "similarity", "is that of near duplicates", "add duplicates=near, or leave it out")

    @property
    def looks_ahead(self) -> bool:
        """Whether it takes a look at all documents to know which of them stay."""
        return self.duplicates != "none" or self.max_line_documents is not None

    @property
    def packages(self) -> tuple[str, ...]:
        """Whose versions decide what stays. Raises ElectraError E-R120 if one is not installed."""
        return (near_package(),) if self.duplicates == "near" else ()

    @property
    def bytes_per_document(self) -> int:
        """On disk, while duplicates are looked for; 0 if they are not."""
        if self.duplicates == "none":
            return 0
        return bytes_per_document(self.near_similarity if self.duplicates == "near" else None)

    @property
    def near_similarity(self) -> float:
        """The similarity of near duplicates, given or not."""
        return 0.8 if self.similarity is None else self.similarity

    def __str__(self) -> str:
        """What differs from the defaults."""
        return ", ".join(
            f"{field.name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"
            for field in fields(self) if (value := getattr(self, field.name)) != field.default
        )  # fmt: skip


NO_FILTERS = FilterOptions()


def filtered(
    read: Callable[[Drops], Iterator[Document]], options: FilterOptions, directory: Path, drops: Drops
) -> Iterator[Document]:
    """The documents that stay.

    Args:
        read: gives all documents from the beginning, and adds what it leaves out to what it is given; called up to three times.
        options: which stay.
        directory: made if it is needed; what an interrupted build left there is used.
        drops: what is left out is added here, by cause and file.

    Raises:
        ElectraError: E-D127 the files have changed meanwhile, E-R120 the extra `dedup` is missing; what `Against` and `read`
            raise.
    """
    near = NearSignatures(options.near_similarity) if options.duplicates == "near" else None
    against = Against(options.against) if options.against else None
    lines = None
    if (most := options.max_line_documents) is not None:
        found = _once(directory / "lines", lambda scratch: find_frequent_lines(_unheard(read), most, scratch))
        lines = np.memmap(found, "<u8", "r") if found.stat().st_size else np.zeros(0, np.uint64)

    def stay(drops: Drops) -> Iterator[Document]:
        documents = read(drops)
        if lines is not None:
            documents = without_lines(documents, lines, drops)
        for cause, holds in _conditions(options):
            documents = _fulfilling(documents, cause, holds, drops)
        return against.without_matches(documents, drops) if against is not None else documents

    if options.duplicates == "none":
        yield from stay(drops)
    else:
        verdicts = _once(directory / "verdicts", lambda scratch: find_duplicates(_unheard(stay), near, scratch))
        yield from _judged(stay(drops), verdicts, drops)


def _unheard(stay: Callable[[Drops], Iterator[Document]]) -> Iterator[Document]:
    """The documents that stay; what is left out is forgotten, file by file."""
    drops = Drops()
    for document in stay(drops):
        drops.take(document.file)
        yield document


def _once(result: Path, make: Callable[[Path], Path]) -> Path:
    """The file `result`; unless it is there, what `make` writes in an empty directory becomes it, so that it is whole."""
    if not result.is_file():
        scratch = result.with_name("scratch")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        made = make(scratch)
        sync(made)
        made.rename(result)
        shutil.rmtree(scratch)
    return result


def _judged(documents: Iterable[Document], verdicts: Path, drops: Drops) -> Iterator[Document]:
    with verdicts.open("rb") as file:
        given = itertools.chain.from_iterable(iter(lambda: file.read(1 << 16), b""))
        for document, verdict in itertools.zip_longest(documents, given):
            if document is None or verdict is None:
                cause = "the files hold other documents than when duplicates were looked for"
                raise ElectraError("E-D127", "corpus", cause, "build it again while nobody writes to the files")
            if verdict in _VERDICTS:
                drops.add(_VERDICTS[verdict], document.file, document.line, document.text)
            if verdict not in (EXACT, NEAR):
                yield document


# -- one document --------------------------------------------------------------------------------------------------------


def _conditions(options: FilterOptions) -> Iterator[tuple[str, Callable[[str], bool]]]:
    """(what it is called if it does not hold, what has to hold for a text) of each option that was given."""
    if (shortest := options.min_characters) is not None:
        yield "dropped: documents with too few characters", lambda text: len(text) >= shortest
    if (longest := options.max_characters) is not None:
        yield "dropped: documents with too many characters", lambda text: len(text) <= longest
    if (letters := options.min_letters) is not None:
        yield "dropped: documents with too few letters", lambda text: letter_share(text) >= letters
    if (repeated := options.max_repeated) is not None:
        yield "dropped: documents that repeat their lines", lambda text: repeated_share(text) <= repeated


def _fulfilling(documents: Iterable[Document], cause: str, holds: Callable[[str], bool], drops: Drops) -> Iterator[Document]:
    for document in documents:
        if holds(document.text):
            yield document
        else:
            drops.add(cause, document.file, document.line, document.text)


def letter_share(text: str) -> float:
    """Share of letters and marks among the characters of a clean text that are no spaces and no line breaks."""
    visible = len(text) - text.count(" ") - text.count("\n")
    return int(np.count_nonzero(_letters()[codes_of(text)])) / visible


@cache
def _letters() -> npt.NDArray[np.bool_]:
    return np.isin(categories(), ["L", "M"])


def repeated_share(text: str) -> float:
    """Share of the characters of a clean text, line breaks left out, that stand in lines which stood in it before."""
    lines = text.split("\n")
    return 1 - sum(map(len, set(lines))) / sum(map(len, lines))


# -- lines of many documents ---------------------------------------------------------------------------------------------


def find_frequent_lines(documents: Iterable[Document], most: int, directory: Path) -> Path:
    """Which lines stand in more than `most` documents.

    Args:
        directory: an empty one, for what is sorted: 16 bytes for each line of text.

    Returns:
        A file in the directory: the `text_keys` of these lines, rising.
    """
    sort, count = DiskSort(directory / "keys"), 0
    for batch in batches(documents, BATCH_CHARACTERS):
        lines = [set(document.text.split("\n")) for document in batch]
        numbers = np.arange(count, count + len(batch), dtype=np.uint64)
        sort.add(text_keys([line for own in lines for line in own]), np.repeat(numbers, [len(own) for own in lines]))
        count += len(batch)
    frequent = directory / "frequent"
    last, times = None, 0
    with frequent.open("wb") as file:
        for records in sort.blocks():
            keys, counts = np.unique(records["key"], return_counts=True)
            counts[0] += times if keys[0] == last else 0  # a key may go on in the next block
            file.write(keys[counts > most].astype("<u8").data)
            last, times = keys[-1], counts[-1]
    return frequent


def without_lines(documents: Iterable[Document], lines: Keys, drops: Drops) -> Iterator[Document]:
    """The documents without the lines whose `text_keys` are `lines`; what is nothing but such lines goes."""
    for batch in batches(documents, BATCH_CHARACTERS):
        texts = [document.text.split("\n") for document in batch]
        frequent = iter(is_among(text_keys([line for own in texts for line in own]), lines).tolist())
        for document, own in zip(batch, texts, strict=True):
            kept = list[str]()
            for line in own:
                if next(frequent):
                    drops.add("removed: lines that stand in many documents", document.file, document.line, line)
                else:
                    kept.append(line)
            if kept:
                yield replace(document, text="\n".join(kept))
            else:
                drops.add("dropped: documents with nothing but such lines", document.file, document.line, document.text)
