"""Questions in, answers out, from a folder of text files: retrieve, then read.

In: a folder, questions, and a predictor for task `span`. Out: for each question the best answer with file and characters, and
others. The texts are cut into passages of about a thousand characters, at paragraphs, lines, sentences or spaces. A ranking
names the passages that are worth reading for a question, the network reads them, and the most probable answers win.

The ranking here is BM25 of words, and of single characters and pairs of them where a script has no spaces. Any other function
that ranks passages fits. Texts and index are held in memory.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np

from electra.contracts import Example, Prediction
from electra.errors import ElectraError
from electra.predict.predictor import Predictor
from electra.tasks.answers import unspaced
from electra.tasks.span import Span
from electra.text.scripts import SCRIPTS, WITHOUT_SPACES, ranges

#: (question, number) -> the numbers of as many passages at most, the best first
Ranking = Callable[[str, int], list[int]]

_KINDS = (".txt", ".md")
_SIZE = 1000  # characters of a passage; one of a script without spaces counts as three
_CUTS = [re.compile(cut) for cut in (r"\n\s*\n", r"\n", r"[.!?]\s|[。！？]", r"\s")]
_NO_SPACES = "".join(f"{chr(first)}-{chr(last)}" for n, first, last in ranges() if SCRIPTS[n] in WITHOUT_SPACES)
_PIECES = re.compile(rf"([{_NO_SPACES}]+)|[^\W{_NO_SPACES}]+")


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A part of a file.

    Args:
        file: its path.
        start: where the passage begins, in characters of the file's text.
        text: the passage.
    """

    file: Path
    start: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Documents:
    """The passages of a folder.

    Args:
        passages: in the order of the files' names.
        files: files that were read.
        others: files of other kinds, which were not.
    """

    passages: list[Passage]
    files: int
    others: int


def read_documents(folder: Path) -> Documents:
    """The `.txt` and `.md` files of a folder and the folders in it; hidden ones are left alone.

    Characters are counted in the file as it is decoded from UTF-8, line ends and byte order mark included.

    Raises:
        ElectraError: E-C327 no such folder, or no text in it; E-D377 a file that is not UTF-8.
    """
    if not folder.is_dir():
        raise ElectraError("E-C327", str(folder), "no such folder", "give a folder with .txt or .md files")
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(folder)))
    files = [path for path in paths if path.suffix.lower() in _KINDS]
    passages = [passage for path in files for passage in _passages(path)]
    if not passages:
        raise ElectraError("E-C327", str(folder), f"none of its {len(paths)} files holds text", "give .txt or .md files")
    return Documents(passages=passages, files=len(files), others=len(paths) - len(files))


def bm25(passages: Iterable[Passage]) -> Ranking:
    """A ranking by BM25 (Lucene's form, k1 = 1.5, b = 0.75); passages that share no word with the question are left out.

    Raises:
        ElectraError: E-R325 the package bm25s is not installed.
    """
    try:
        import bm25s
    except ImportError:
        raise ElectraError(
            "E-R325", "documents", "the package bm25s is not installed", "pip install 'electra-toolkit[documents]'"
        ) from None
    index = bm25s.BM25()
    index.index([terms(passage.text) for passage in passages], show_progress=False)

    def rank(question: str, number: int) -> list[int]:
        asked = terms(question)
        scores = index.get_scores(asked) if asked else np.zeros(0)
        best = np.argsort(-scores, kind="stable")[:number]
        return [int(place) for place in best if scores[place] > 0]

    return rank


def terms(text: str) -> list[str]:
    """What BM25 counts: words in small letters; of scripts without spaces, characters and pairs of neighbours."""
    found: list[str] = []
    for match in _PIECES.finditer(unicodedata.normalize("NFKC", text).casefold()):
        run = match[0]
        found += [*run, *map("".join, pairwise(run))] if match[1] else [run]
    return found


def answer(
    predictor: Predictor, passages: list[Passage], rank: Ranking, questions: Iterable[str], top: int
) -> Iterator[Prediction]:
    """An answer to each question, in order.

    Output: `answer`, `score`, `file`, `start`, `end` (characters of the file, end exclusive), `n_best`, the same five of the
    best answer of each passage; where there is none, "" and None, and a `note` that says why.

    Args:
        predictor: with task `span`.
        passages: what is read.
        rank: says which ones, for a question.
        questions: texts.
        top: passages that are read for each question.

    Raises:
        ElectraError: E-C328 a predictor for another task, E-C329 `top` below 1.
    """
    if not isinstance(predictor.task, Span):
        raise ElectraError("E-C328", "documents", "the model was not fine-tuned to answer questions", "give one of task=span")
    if top < 1:
        raise ElectraError("E-C329", "top", f"{top} passages", "give 1 or more")
    return (_answer(predictor, passages, rank(question, top), question) for question in questions)


def _answer(predictor: Predictor, passages: list[Passage], chosen: list[int], question: str) -> Prediction:
    if not chosen:
        return _none(question, "no passage shares a word with the question")
    read = [passages[number] for number in chosen]
    said = predictor.predict([Example(text=question, pair=passage.text) for passage in read])
    found = [_placed(passage, one.output) for passage, one in zip(read, said, strict=True) if one.output["answer"]]
    found.sort(key=lambda output: -cast(float, output["score"]))
    if not found:
        return _none(question, f"none of the {len(read)} passages that were read answers it", said[0].truncated)
    return Prediction(text=question, output={**found[0], "n_best": found}, truncated=said[0].truncated)


def _placed(passage: Passage, output: Mapping[str, object]) -> dict[str, Any]:
    start, end = (passage.start + cast(int, output[name]) for name in ("start", "end"))
    return {"answer": output["answer"], "score": output["score"], "file": str(passage.file), "start": start, "end": end}


def _none(question: str, why: str, truncated: int = 0) -> Prediction:
    nothing = {"answer": "", "score": 0.0, "file": None, "start": None, "end": None, "n_best": [], "note": why}
    return Prediction(text=question, output=nothing, truncated=truncated)


# -- files -> passages --------------------------------------------------------------------------------------------------


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _passages(path: Path) -> Iterator[Passage]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ElectraError(
            "E-D377", f"{path}:{line}", f"byte {error.start} is not UTF-8", "convert the file, or take it out of the folder"
        ) from None
    for start, end in _cut(text):
        part = text[start:end]
        if part.strip().strip("\ufeff"):
            yield Passage(file=path, start=start + len(part) - len(part.lstrip()), text=part.strip())


def _cut(text: str) -> Iterator[tuple[int, int]]:
    """Parts of `text`, without gaps, of `_SIZE` at most: each ends at the last paragraph in the second half of what fits, else
    at the last line, sentence or space there."""
    weight = np.cumsum(1 + 2 * unspaced(text).astype(np.int64))
    start = 0
    while start < len(text):
        used = int(weight[start - 1]) if start else 0
        end = int(np.searchsorted(weight, used + _SIZE, side="right"))
        if end < len(text):
            end = _last_cut(text, (start + end + 1) // 2, end)
        yield start, end
        start = end


def _last_cut(text: str, low: int, high: int) -> int:
    for cut in _CUTS:
        ends = [match.end() for match in cut.finditer(text, low, high)]
        if ends:
            return ends[-1]
    return high
