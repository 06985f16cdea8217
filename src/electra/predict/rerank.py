"""Lists of candidates for one text (of a recogniser of speech or letters, a translator), put in order by a model's scores.

In: JSON lines, each an object with `candidates`: texts, or objects with `text` and perhaps a `score` of their own, higher =
better. Out: the same objects, their candidates as objects with `model_score` and `total`, the highest total first; equal ones
keep their order. total = model_score + weight * score, natural logarithms both (Salazar et al., 2020, section 4.1).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra.contracts import Example
from electra.errors import ElectraError
from electra.predict.predictor import Predictor
from electra.tasks.readers.source import LabelledFile


@dataclass(frozen=True, kw_only=True)
class NBest:
    """A line: what stands there, and its candidates, each with `text`.

    Args:
        where: file and line.
    """

    where: str
    given: dict[str, Any]
    candidates: list[dict[str, Any]]


def read_nbest(path: Path, weighted: bool = False) -> Iterator[NBest]:
    """The lines of a file.

    Args:
        path: JSON lines.
        weighted: every candidate must have a score of its own.

    Raises:
        ElectraError: E-D300 no such file, E-D302 not UTF-8, E-D306 a line that is no JSON object, E-D570 one without candidates
            that are texts, E-D571 a candidate whose own score is missing or no finite number; each with file and line.
    """
    file = LabelledFile(path)
    for number, given in file.objects():
        where, candidates = file.at(number), given.get("candidates")
        if not isinstance(candidates, list):
            raise ElectraError("E-D570", where, "has no list of candidates", 'give {"candidates": ["...", "..."]}')
        yield NBest(where=where, given=given, candidates=[_candidate(where, one, weighted) for one in candidates])


def _candidate(where: str, candidate: object, weighted: bool) -> dict[str, Any]:
    found = {"text": candidate} if isinstance(candidate, str) else candidate
    if not isinstance(found, dict) or not isinstance(found.get("text"), str):
        raise ElectraError("E-D570", where, f"candidate {candidate!r:.80} is neither a text nor an object with `text`",
                           'give texts, or {"text": "...", "score": -1.5}')  # fmt: skip
    own = found.get("score")
    if weighted and (isinstance(own, bool) or not isinstance(own, int | float) or not math.isfinite(own)):
        raise ElectraError("E-D571", where, f"candidate {found['text']!r:.60} has the score {own!r:.40}",
                           "give every candidate a number as `score`, or leave --weight out")  # fmt: skip
    return found


def rerank(predictor: Predictor, lines: Iterator[NBest], weight: float | None = None) -> Iterator[dict[str, Any]]:
    """The objects of `lines`, in order, with their candidates sorted; see the module.

    Args:
        predictor: of task `score`.
        lines: some thousands of candidates are held at a time.
        weight: of the candidates' own scores; None = these are not looked at.
    """
    waiting = deque[NBest]()

    def examples() -> Iterator[Example]:
        for line in lines:
            waiting.append(line)
            for candidate in line.candidates:
                yield Example(text=candidate["text"], where=line.where)

    scores: list[float] = []
    for prediction in predictor.stream(examples()):
        while not waiting[0].candidates:
            yield _ranked(waiting.popleft(), (), weight)
        score = prediction.output["score"]
        assert isinstance(score, float)
        scores.append(score)
        if len(scores) == len(waiting[0].candidates):
            yield _ranked(waiting.popleft(), scores, weight)
            scores = []
    yield from (_ranked(line, (), weight) for line in waiting)


def _ranked(line: NBest, scores: list[float] | tuple[()], weight: float | None) -> dict[str, Any]:
    candidates = [
        {**candidate, "model_score": score, "total": score + (0.0 if weight is None else weight * candidate["score"])}
        for candidate, score in zip(line.candidates, scores, strict=True)
    ]
    return {**line.given, "candidates": sorted(candidates, key=lambda candidate: -candidate["total"])}
