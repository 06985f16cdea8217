"""Texts in; who stands to whom in which relation out: a tagger finds the mentions, a relation model judges every pair of them.

Pairs are those of a sentence. Labels without direction are asked for every ordered pair, head first; directed labels name the
subject themselves, so each pair is asked once, in the order of the text, as such models are trained. No pair is left out: a
sentence with k mentions takes k (k - 1) questions, or half as many. Mentions in different sentences are not asked about.

A text is cut where `text.encode` sees the end of a sentence, except within a mention and before a small letter ("Inc. buys").
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, combinations, islice, permutations
from pathlib import Path
from typing import Any, cast

from electra.contracts import Example, Mention, Prediction
from electra.errors import ElectraError
from electra.predict.predictor import Predictor, load
from electra.tasks.relation import Relation, relation_of
from electra.text.encode import sentences_of

#: texts whose mentions are held at once
CHUNK = 256
_SMALL = re.compile(r"\s*(\w)")


@dataclass(frozen=True, kw_only=True)
class Triple:
    """A relation that was found, between two mentions in a text; `sentence` is where, in characters of it."""

    subject: Mention
    relation: str
    object: Mention
    score: float
    sentence: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found in one text.

    Args:
        example: the text.
        mentions: in its order.
        triples: those with a relation, by sentence, subject and object.
        sentences, pairs: how many there were, and how many were asked.
        truncated: tokens that the relation model did not see, over all pairs.
    """

    example: Example
    mentions: tuple[Mention, ...]
    triples: tuple[Triple, ...]
    sentences: int
    pairs: int
    truncated: int


class TripleFinder:
    """Tagger and relation model as one.

    Args:
        relation: predicts for given mentions.
        tagger: predicts `entities`.

    Raises:
        ElectraError: E-M326 the first is no relation model.
    """

    def __init__(self, relation: Predictor, tagger: Predictor) -> None:
        if not isinstance(relation.task, Relation):
            raise ElectraError("E-M326", "model", "was not fine-tuned for task relation, which --tagger goes with",
                               "give a relation model")  # fmt: skip
        self.relation, self.tagger, self.task = relation, tagger, relation.task

    def find(self, examples: Iterable[Example], split: bool = True) -> Iterator[Found]:
        """What is in each text, in order, a few hundred at a time: memory does not grow with their number.

        Args:
            split: cut texts into sentences; False = each is one.

        Raises:
            ElectraError: E-M327 the tagger finds no entities, being none.
        """
        remaining = iter(examples)
        while some := [replace(example, target=None) for example in islice(remaining, CHUNK)]:
            texts = [
                _Text(example, _mentions(prediction), split)
                for example, prediction in zip(some, self.tagger.stream(some), strict=True)
            ]
            answers = self.relation.stream(question for text in texts for _, question in self._questions(text))
            yield from (self._answered(text, answers) for text in texts)

    def _questions(self, text: _Text) -> Iterator[tuple[tuple[Mention, Mention], Example]]:
        """Every pair of mentions of every sentence, and what the relation model is asked about it."""
        pairs = combinations if self.task.directed else permutations
        for start, end in text.sentences:
            inside = [mention for mention in text.mentions if start <= mention.start and mention.end <= end]
            for head, tail in pairs(inside, 2):
                first, second = ((one.start - start, one.end - start, one.label) for one in (head, tail))
                given = {"head": first, "tail": second}
                yield (head, tail), Example(text=text.example.text[start:end], where=text.example.where, given=given)

    def _answered(self, text: _Text, answers: Iterator[Prediction]) -> Found:
        triples, pairs, truncated = [], 0, 0
        for (head, tail), _ in self._questions(text):
            answer = next(answers)
            pairs, truncated = pairs + 1, truncated + answer.truncated
            label = str(answer.output["label"])
            if label != self.task.none:
                relation, turned = relation_of(label)
                subject, object_ = (tail, head) if turned else (head, tail)
                triples.append(Triple(
                    subject=subject, relation=relation, object=object_, score=cast(float, answer.output["score"]),
                    sentence=text.sentence_of(head),
                ))  # fmt: skip
        return Found(example=text.example, mentions=text.mentions, triples=tuple(triples), sentences=len(text.sentences),
                     pairs=pairs, truncated=truncated)  # fmt: skip


class _Text:
    """A text with its mentions and sentences."""

    def __init__(self, example: Example, mentions: tuple[Mention, ...], split: bool) -> None:
        self.example, self.mentions = example, mentions
        self.sentences = sentences(example.text, mentions) if split else [(0, len(example.text))]

    def sentence_of(self, mention: Mention) -> tuple[int, int]:
        return self.sentences[bisect_left(self.sentences, mention.end, key=lambda sentence: sentence[1])]


def sentences(text: str, mentions: Sequence[Mention]) -> list[tuple[int, int]]:
    """Characters (start, end) of the sentences of `text`; together they are the text, and no mention lies in two.

    Args:
        mentions: in the order of the text.
    """
    starts, furthest = [one.start for one in mentions], list(accumulate((one.end for one in mentions), max))
    found, begin = list[tuple[int, int]](), 0
    for _, end in sentences_of(text):
        before = bisect_left(starts, end)  # mentions that begin before the end
        following = _SMALL.match(text, end)
        inside = before > 0 and furthest[before - 1] > end
        if end > begin and (end == len(text) or not (inside or (following and following[1].islower()))):
            found.append((begin, end))
            begin = end
    return found


def load_finder(model: Path, tagger: Path) -> TripleFinder:
    """The finder of two model directories.

    Raises:
        ElectraError: as `load` and `TripleFinder`.
    """
    return TripleFinder(load(model), load(tagger))


def _mentions(prediction: Prediction) -> tuple[Mention, ...]:
    """The entities of a tagger's prediction, in the order of the text."""
    entities = prediction.output.get("entities")
    if not isinstance(entities, list):
        raise ElectraError("E-M327", "tagger", f"finds no entities, only {', '.join(prediction.output)}",
                           "give a model that was fine-tuned for task tag")  # fmt: skip
    found: list[dict[str, Any]] = entities
    mentions = {Mention(start=one["start"], end=one["end"], label=str(one["entity_group"])) for one in found}
    return tuple(sorted(mentions, key=lambda one: (one.start, one.end, one.label)))
