"""Removal of evaluation text, so that a model is not tested on what it was trained on.

In: files that models are evaluated on, whatever their columns and fields, and the documents of a corpus. Out: the documents
that have no run of 13 words in common with these files (Brown et al. 2020, appendix C), or of 26 characters in scripts without
spaces. Case and punctuation do not count (`shingles.py`). A shorter text of evaluation is found where it is a whole document.

Of each file every cell or string is a text, so no column needs to be named. Memory: 8 bytes for each run of evaluation text.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from electra.errors import ElectraError
from electra.text.clean import Counts, clean
from electra.text.disksort import is_among
from electra.text.drops import Drops
from electra.text.duplicates import BATCH_CHARACTERS
from electra.text.readers import Document, batches
from electra.text.shingles import Hashes, shingles

#: of a run that a document must not share
WORDS, CHARACTERS = 13, 26

_TEXTS_AT_ONCE = 1 << 10


class Against:
    """Evaluation text to compare documents with.

    Args:
        paths: `.txt` (a text a line), `.tsv`, `.csv` (a text a cell), `.jsonl`, `.json` (a text a string), in UTF-8.

    Raises:
        ElectraError: E-C121 a file of another kind, E-D100 not UTF-8, E-D101 cannot be read, E-D125 no text,
            E-D126 broken JSON or CSV.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._hashes = np.unique(np.concatenate([np.zeros(0, np.uint64), *(_hashes(Path(path)) for path in paths)]))

    def without_matches(self, documents: Iterable[Document], drops: Drops) -> Iterator[Document]:
        """The documents that share nothing with the evaluation text."""
        for batch in batches(documents, BATCH_CHARACTERS):
            hashes, offsets = shingles([document.text for document in batch], WORDS, CHARACTERS)
            before = np.append(0, np.cumsum(is_among(hashes, self._hashes)))
            for document, matches in zip(batch, np.diff(before[offsets]).tolist(), strict=True):
                if matches:
                    drops.add("dropped: documents with evaluation text", document.file, document.line, document.text)
                else:
                    yield document


def _hashes(path: Path) -> Hashes:
    found = [np.zeros(0, np.uint64)]
    texts = evaluation_texts(path)
    while some := [clean(text, Counts()) for text in itertools.islice(texts, _TEXTS_AT_ONCE)]:
        found.append(np.unique(shingles(some, WORDS, CHARACTERS)[0]))
    hashes = np.concatenate(found)
    if not len(hashes):
        raise ElectraError("E-D125", str(path), "holds no text to compare with", "give the file that models are evaluated on")
    return hashes


def evaluation_texts(path: Path) -> Iterator[str]:
    """Every text of a file of evaluation text. Raises as `Against`."""
    readers: dict[str, Callable[[TextIO], Iterator[str]]] = {
        ".txt": iter,
        ".tsv": _cells_of_tsv,
        ".csv": _cells_of_csv,
        ".jsonl": _strings_of_rows,
        ".json": _strings_of_file,
    }
    if path.suffix not in readers:
        raise ElectraError("E-C121", str(path), "no kind of evaluation file", f"known: {', '.join(readers)}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from readers[path.suffix](file)
    except OSError as error:
        raise ElectraError("E-D101", str(path), f"cannot be read: {error.strerror}", "mend the path") from None
    except UnicodeDecodeError as error:
        raise ElectraError("E-D100", str(path), f"is not UTF-8: {error}", "convert it to UTF-8") from None
    except (ValueError, RecursionError, csv.Error) as error:
        raise ElectraError("E-D126", str(path), f"is not what its name says: {error}", "mend or rename the file") from None


def _cells_of_tsv(file: TextIO) -> Iterator[str]:
    for line in file:
        yield from line.split("\t")


def _cells_of_csv(file: TextIO) -> Iterator[str]:
    csv.field_size_limit((1 << 31) - 1)  # the default refuses long texts
    for row in csv.reader(file, strict=True):
        yield from row


def _strings_of_rows(file: TextIO) -> Iterator[str]:
    for line in file:
        if line.strip():
            yield from _strings(json.loads(line))


def _strings_of_file(file: TextIO) -> Iterator[str]:
    yield from _strings(json.load(file))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
