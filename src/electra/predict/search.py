"""Semantic search: the passages of a file or folder by the cosine of their vectors with that of a question.

In: a model, and files of any kind that corpora are made of; a line of a text file, or a row of another, is a passage. The
vectors of all passages are computed once and kept in a directory beside the file (`notes.txt.index`), which is made again
when the passages or the model are no longer the same. A question is compared with every passage: the answer is exact, and
ties go to the earlier passage.

Memory: the texts, and 4 * D bytes a passage.

Shapes: N passages, Q questions, D size of a vector.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from electra import storage
from electra.contracts import Example
from electra.errors import ElectraError
from electra.predict.predictor import Predictor, load
from electra.text.drops import Drops
from electra.text.readers import Document, ReadOptions, find_files, read_files, try_files

Vectors = npt.NDArray[np.float32]

_VECTORS, _ABOUT = "vectors.safetensors", "index.json"
_OPTIONS = ReadOptions(document="line")
#: questions that are compared with all passages at once
_QUESTIONS = 64
#: files of a model directory that its vectors follow from
_OF_MODEL = (
    "config.json",
    "model.safetensors",
    "onnx/model.onnx",
    "tokenizer.json",
    "vocab.txt",
    "tokenizer_config.json",
    "task.json",
)


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A passage, by its number from 0, and the cosine of its vector with the question's."""

    number: int
    score: float


@dataclass(frozen=True, kw_only=True)
class Index:
    """Passages and their vectors.

    Args:
        passages: with file and line.
        vectors: float32 [N, D], of length 1.
        truncated: passages that were longer than the model reads, and so are found by their beginning.
        rebuilt: whether the vectors were computed now.
        drops: what was left out of the files, how often, by cause.
    """

    passages: Sequence[Document]
    vectors: Vectors
    truncated: int
    rebuilt: bool
    drops: Mapping[str, int]


def load_embedder(model: Path) -> Predictor:
    """The model as `embed`: its own task if it is that, else the means over what its encoder says.

    Raises:
        ElectraError: as `predictor.load`.
    """
    return load(model, "embed")


def embed(predictor: Predictor, texts: Iterable[str]) -> tuple[Vectors, list[int]]:
    """The vectors of texts, float32 [N, D], in order, and how many tokens of each were not seen.

    Args:
        predictor: of `embed`.
        texts: any number; memory grows by their vectors only.
    """
    predictions = predictor.stream(Example(text=text) for text in texts)
    found = [(np.array(one.output["embedding"], dtype=np.float32), one.truncated) for one in predictions]
    vectors = [vector for vector, _ in found]
    return np.stack(vectors) if vectors else np.zeros((0, 0), np.float32), [cut for _, cut in found]


def rank(predictor: Predictor, passages: Sequence[str], question: str) -> list[Hit]:
    """All passages by their closeness to a question, the closest first."""
    if not passages:
        return []
    vectors, _ = embed(predictor, [*passages, question])
    return next(closest(vectors[:-1], vectors[-1:], len(passages)))


def closest(vectors: Vectors, questions: Vectors, top: int) -> Iterator[list[Hit]]:
    """For each question the `top` closest passages, the closest first, equal ones in their order.

    Args:
        vectors: [N, D].
        questions: [Q, D].
        top: at least 1; fewer where there are fewer passages.
    """
    for begin in range(0, len(questions), _QUESTIONS):
        for row in questions[begin : begin + _QUESTIONS] @ vectors.T:
            least = np.partition(row, -top)[-top] if top < len(row) else -np.inf
            candidates = np.flatnonzero(row >= least)
            chosen = candidates[np.argsort(-row[candidates], kind="stable")][:top]
            yield [Hit(number=int(number), score=float(row[number])) for number in chosen]


def open_index(predictor: Predictor, model: Path, path: Path, place: Path | None = None) -> Index:
    """The index of a file or folder: the one that lies there, if it is of these files and this model, else a new one.

    Args:
        predictor: of `embed`.
        model: the directory that it was loaded from.
        path: a file or folder.
        place: where the index is kept; None = beside the file, `NAME.index`.

    Raises:
        ElectraError: E-D392 no passages, E-C338 `place` holds something else, E-R001, E-R002 the index cannot be written; and
            as `text.readers.read`.
    """
    drops = Drops()
    files = find_files([path], drops, _OPTIONS)
    try_files(files, _OPTIONS)
    passages = list(read_files(files, drops, _OPTIONS))
    if not passages:
        raise ElectraError(
            "E-D392",
            str(path),
            "holds no text to search in",
            "give .txt with a passage a line, .jsonl, .csv, .tsv or .parquet, or a folder of them",
        )
    place = place or path.absolute().with_name(f"{path.absolute().name}.index")
    if place.exists() and not (place / _ABOUT).is_file():
        raise ElectraError("E-C338", str(place), "is no index of ours, and is not overwritten", "give another with --index")
    fingerprint = _fingerprint(model, passages)
    known = _read(place, fingerprint, len(passages))
    vectors, truncated = known or _write(place, fingerprint, predictor, passages)
    return Index(passages=passages, vectors=vectors, truncated=truncated, rebuilt=known is None, drops=dict(drops.total.counts))


def _write(place: Path, fingerprint: str, predictor: Predictor, passages: Sequence[Document]) -> tuple[Vectors, int]:
    vectors, cut = embed(predictor, (passage.text for passage in passages))
    truncated = sum(map(bool, cut))
    with storage.published(place) as directory:
        save_file({"vectors": vectors}, directory / _VECTORS)
        storage.write_json(directory / _ABOUT, {"fingerprint": fingerprint, "passages": len(passages), "truncated": truncated})
    return vectors, truncated


def _read(place: Path, fingerprint: str, passages: int) -> tuple[Vectors, int] | None:
    """Vectors and number of cut passages of an index; None if there is none for this fingerprint, or it is broken."""
    try:
        about = json.loads((place / _ABOUT).read_text(encoding="utf-8"))
        if about["fingerprint"] != fingerprint:
            return None
        vectors = load_file(place / _VECTORS)["vectors"]
        return (vectors, int(about["truncated"])) if len(vectors) == passages else None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def _fingerprint(model: Path, passages: Sequence[Document]) -> str:
    """blake2b of the model's files and of all passages."""
    digest = hashlib.blake2b(digest_size=16)
    for name in _OF_MODEL:
        if (model / name).is_file():
            digest.update(f"{name} {storage.file_hash(model / name)}\n".encode())
    for passage in passages:
        digest.update(passage.text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()
