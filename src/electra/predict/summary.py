"""Extractive summaries: the sentences of a text that are closest to all of it, in the order of the text.

In: a text and a model of `embed`. Out: sentences with their places. A sentence's score is its centrality, the mean cosine of
its vector with those of all others: LexRank (Erkan and Radev, 2004) with the degree in place of the eigenvector, and without a
threshold.

Shapes: N sentences, D size of a vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from electra.predict.predictor import Predictor
from electra.predict.search import embed
from electra.tasks.readers import read_texts
from electra.tasks.readers.source import LabelledFile, kind_of
from electra.text.sentences import sentences


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """A sentence of a text: characters `start` to `end`, end exclusive, and its centrality, a mean cosine."""

    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The chosen sentences, in the order of the text.

    Args:
        of: sentences that the text has.
        truncated: tokens of its sentences that were not seen.
    """

    sentences: tuple[Sentence, ...]
    of: int
    truncated: int


def summarise(predictor: Predictor, text: str, count: int) -> Summary:
    """The `count` most central sentences of a text, all of it if there are no more; ties go to the earlier sentence."""
    spans = sentences(text)
    vectors_ND, cut = embed(predictor, (text[start:end] for start, end in spans))
    # each with itself adds the same to all; the mean with the others is what is shown
    others = max(len(spans) - 1, 1)
    score_N = (vectors_ND @ vectors_ND.sum(axis=0) - np.square(vectors_ND).sum(axis=1)) / others
    chosen = sorted(np.argsort(-score_N, kind="stable")[:count].tolist())
    parts = tuple(
        Sentence(start=spans[n][0], end=spans[n][1], text=text[slice(*spans[n])], score=float(score_N[n])) for n in chosen
    )
    return Summary(sentences=parts, of=len(spans), truncated=sum(cut))


def texts_of(path: Path, document: Literal["file", "line"]) -> Iterator[str]:
    """The texts of a file: a row of a table or of JSON lines is one; a text file is one as a whole, or each of its lines is.

    Line breaks are \\n, whatever the file has; offsets count characters of this text.

    Raises:
        ElectraError: as `readers.read_texts`.
    """
    file = LabelledFile(path)
    if document == "file" and kind_of(file) == "lines":
        yield "\n".join(line for _, line in file.lines())
    else:
        yield from (example.text for example in read_texts(path).examples)
