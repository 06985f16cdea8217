"""Which documents of a stream are duplicates of earlier ones: exact, and near.

In: documents in reading order. Out: a file with one byte for each, in the same order: keep, near duplicate, exact duplicate ...
Nothing is random, so the same documents give the same verdicts. Memory does not grow with their number; what does lies on disk.

Exact duplicates have the same clean text: blake2b of it (64 bits) is sorted with the document's number, and of equal ones the
first stays. Among a billion documents the chance that two different ones share a hash is 3 %.

Near duplicates share most of their shingles: runs of five words, or of five characters in scripts without spaces
(`shingles.py`). Of the set of a document's shingles a MinHash signature of 128 numbers is made (the extra `dedup`: rensa); the
share of numbers in which two signatures agree estimates the Jaccard similarity of the two sets (Broder 1997). So that not all
pairs need to be looked at, the signature is cut into bands, and only documents that agree in a whole band are candidates
(locality sensitive hashing: Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4). Bands are such that a pair at the
threshold is a candidate with a probability of 98 % or more. Candidates are then verified on the lowest byte of all 128 numbers,
which lies on disk for each document (b-bit minwise hashing: Li and König 2010): a document goes if it is as similar as the
threshold to an earlier candidate of one of its bands, which does not itself go by that band.

So of what is kept no two documents are both candidates and similar: the pass finds nothing in its own output.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from electra.errors import ElectraError
from electra.text.disksort import RECORD, DiskSort, text_keys
from electra.text.readers import Document, batches
from electra.text.shingles import Hashes, mix, shingles

Verdicts = npt.NDArray[np.uint8]
Signatures = npt.NDArray[np.uint8]

#: in rising order of what they outvote, where bands disagree
KEEP, UNCOMPARED, NEAR, EXACT = range(4)
#: words in a shingle, or characters in a script without spaces
SHINGLE = 5
#: numbers of a signature
SLOTS = 128
#: candidates of one band that a document is compared with
MOST_COMPARED = 1000

_SEED = 1
#: documents are taken in lists of so many characters: worth a call of numpy
BATCH_CHARACTERS = 1 << 16
_BATCH_CANDIDATES = 1 << 12


def near_package() -> str:
    """The package that makes signatures. Raises ElectraError E-R120 if it is not installed."""
    if find_spec("rensa") is None:
        raise ElectraError(
            "E-R120", "--duplicates near", "needs a package that is not installed", "pip install 'electra-toolkit[dedup]'"
        )
    return "rensa"


class NearSignatures:
    """MinHash signatures, and the bands that belong to a threshold.

    Args:
        similarity: Jaccard similarity of shingles from which on two documents are near duplicates.

    Raises:
        ElectraError: E-R120 rensa is not installed.
    """

    def __init__(self, similarity: float) -> None:
        near_package()
        from rensa import RMinHash

        self._digests: Callable[..., Any] = RMinHash.digest_matrix_from_flat_token_hashes
        self.similarity = similarity
        self.bands, self.rows = bands_of(similarity)

    def of(self, texts: Sequence[str]) -> tuple[Signatures, npt.NDArray[np.bool_], Hashes]:
        """Of n texts: [n, SLOTS] the lowest bytes of the signatures, [n] whether there is anything to compare, and
        [n, bands] the keys of the bands."""
        hashes, offsets = shingles(texts, SHINGLE, SHINGLE)
        rows = self._digests(hashes, offsets.astype(np.uint64), SLOTS, _SEED).to_rows()
        signatures = np.array(rows, dtype=np.uint32).reshape(len(texts), SLOTS)
        banded = signatures[:, : self.bands * self.rows].reshape(len(texts), self.bands, self.rows)
        keys = np.tile(mix(np.arange(self.bands, dtype=np.uint64)), (len(texts), 1))
        for slot in range(self.rows):
            keys = mix(keys ^ banded[:, :, slot])
        return signatures.astype(np.uint8), np.diff(offsets) > 0, keys


def bands_of(similarity: float) -> tuple[int, int]:
    """(bands, numbers in a band): as long a band as still makes 98 % of the pairs of this similarity candidates."""
    found = (rows for rows in range(SLOTS, 0, -1) if 1 - (1 - similarity**rows) ** (SLOTS // rows) >= 0.98)
    rows = next(found)
    return SLOTS // rows, rows


def agreement(one: Signatures, others: Signatures) -> npt.NDArray[np.float64]:
    """The estimated Jaccard similarity of a signature [SLOTS] with each of [n, SLOTS]; a 256th agrees by chance."""
    agree: npt.NDArray[np.float64] = (others == one).mean(axis=1)
    return (agree - 1 / 256) / (1 - 1 / 256)


def bytes_per_document(similarity: float | None) -> int:
    """On disk, while duplicates are looked for: hash and verdict, for near ones also signature and bands; without a similarity,
    those of exact duplicates. Sorting takes the hashes' or the bands' part once more."""
    near = SLOTS + bands_of(similarity)[0] * RECORD.itemsize if similarity is not None else 0
    return RECORD.itemsize + 1 + near


def find_duplicates(documents: Iterable[Document], near: NearSignatures | None, directory: Path) -> Path:
    """Look at all documents, and write a verdict on each.

    Args:
        documents: in reading order.
        near: for near duplicates too.
        directory: an empty one, for what is sorted.

    Returns:
        A file in the directory: a byte for each document, in order.
    """
    texts, bands = DiskSort(directory / "texts"), DiskSort(directory / "bands")
    count = 0
    with (directory / "signatures").open("wb") as signatures:
        for batch in batches(documents, BATCH_CHARACTERS):
            numbers = np.arange(count, count + len(batch), dtype=np.uint64)
            texts.add(text_keys([document.text for document in batch]), numbers)
            if near is not None:
                rows, comparable, keys = near.of([document.text for document in batch])
                signatures.write(rows.data)
                bands.add(keys[comparable].ravel(), np.repeat(numbers[comparable], near.bands))
            count += len(batch)
    verdicts = directory / "verdicts"
    with verdicts.open("wb") as file:
        file.truncate(count)
    if count:
        mapped = np.memmap(verdicts, np.uint8, "r+")
        _mark_exact(texts, mapped)
        if near is not None:
            with (directory / "signatures").open("rb") as file:
                _mark_near(bands, file, near.similarity, mapped)
        mapped.flush()
    return verdicts


def _mark_exact(texts: DiskSort, verdicts: Verdicts) -> None:
    last = None
    for records in texts.blocks():
        keys = records["key"]
        repeated = np.append(keys[:1] == last, keys[1:] == keys[:-1])
        verdicts[records["document"][repeated]] = EXACT
        last = keys[-1]


def _mark_near(bands: DiskSort, signatures: BinaryIO, similarity: float, verdicts: Verdicts) -> None:
    last, group = None, Group(similarity)
    for records in bands.blocks():
        keys = records["key"]
        repeated = np.append(keys[:1] == last, keys[1:] == keys[:-1])
        shared = records[repeated | np.append(repeated[1:], False)]
        shared = shared[verdicts[shared["document"]] != EXACT]
        for members in np.split(shared, np.flatnonzero(np.diff(shared["key"])) + 1):
            if len(members) and members["key"][0] != last:
                last, group = members["key"][0], Group(similarity)
            for start in range(0, len(members), _BATCH_CANDIDATES):
                documents = members["document"][start : start + _BATCH_CANDIDATES]
                judged = group.judge(_read_rows(signatures, documents))
                verdicts[documents] = np.maximum(verdicts[documents], judged)
        last = keys[-1]


class Group:
    """Candidates that share a band, in reading order.

    Args:
        similarity: from which on two of them are near duplicates.
    """

    def __init__(self, similarity: float) -> None:
        self._similarity = similarity
        self._different: list[Signatures] = []

    def judge(self, rows: Signatures) -> Verdicts:
        """[n] verdicts on the next members, whose signatures are [n, SLOTS]: NEAR, if an earlier one that was not NEAR is as
        similar; UNCOMPARED, if there were too many of these."""
        verdicts = np.full(len(rows), KEEP, np.uint8)
        waiting = np.arange(len(rows))

        def compare(one: Signatures) -> None:
            nonlocal waiting
            alike = agreement(one, rows[waiting]) >= self._similarity
            verdicts[waiting[alike]] = NEAR
            waiting = waiting[~alike]

        for one in self._different:
            compare(one)
        while len(waiting) and len(self._different) < MOST_COMPARED:
            one, waiting = rows[waiting[0]], waiting[1:]
            self._different.append(one)
            compare(one)
        verdicts[waiting] = UNCOMPARED
        return verdicts


def _read_rows(file: BinaryIO, documents: Hashes) -> Signatures:
    """Read, not mapped: mapped pages would count as memory of ours."""
    data = b"".join([os.pread(file.fileno(), SLOTS, SLOTS * document) for document in documents.tolist()])
    return np.frombuffer(data, np.uint8).reshape(-1, SLOTS)
