"""How good are triples from raw text: a tagger, a relation model and relation data in, strict scores out.

A triple is right if both mentions are exact, of the right type where the data has types for all, and the relation holds in
the right direction. Sentences are taken as the data has them. Rows with the same sentence belong together, wherever they
stand; what the data does not list as a relation is none, so a true triple that nobody annotated counts as wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from electra.contracts import Example, Mention
from electra.metrics import precision_recall_f1
from electra.predict.triples import Found, TripleFinder, load_finder
from electra.tasks.markers import Argument, arguments
from electra.tasks.relation import Relation, relation_of

Place = tuple[int, int, str | None]


@dataclass(kw_only=True)
class Gold:
    """What a sentence holds."""

    example: Example
    mentions: set[Place] = field(default_factory=set)
    triples: set[tuple[Place, str, Place]] = field(default_factory=set)


def evaluate_triples(model: Path, tagger: Path, data: Path) -> dict[str, object]:
    """Strict precision, recall and F1 of triples, and of the mentions they stand on.

    Returns:
        JSON-ready: `sentences`, `metrics`, `counts`, `notes` of the reader. The data is held in memory.

    Raises:
        ElectraError: as `load_finder`, and the task's `read` and `fit`.
    """
    finder = load_finder(model, tagger)
    reading = finder.task.read(data)
    examples = list(reading.examples)
    finder.task.fit(examples)  # a relation that the model does not know is an error
    gold = gold_of(finder.task, examples)
    return {"sentences": len(gold), **scores(finder, gold), "notes": reading.notes}


def gold_of(task: Relation, examples: Iterable[Example]) -> dict[str, Gold]:
    """Mentions and triples of each sentence, by the sentence."""
    found = dict[str, Gold]()
    for example in examples:
        of = found.setdefault(example.text, Gold(example=replace(example, target=None, given={})))
        head, tail = map(_of_argument, arguments(example))
        of.mentions |= {head, tail}
        if example.target != task.none:
            relation, turned = relation_of(str(example.target))
            of.triples.add((tail, relation, head) if turned else (head, relation, tail))
    return found


def scores(finder: TripleFinder, gold: dict[str, Gold]) -> dict[str, dict[str, float]]:
    """`metrics`, the F1 of triples first, and `counts`."""
    typed = all(place[2] is not None for of in gold.values() for place in of.mentions)
    counts = Counter[str]()
    for found in finder.find((of.example for of in gold.values()), split=False):
        of, (mentions, triples) = gold[found.example.text], _said(found, typed)
        counts.update(
            gold_triples=len(of.triples), predicted_triples=len(triples), right_triples=len(of.triples & triples),
            gold_mentions=len(of.mentions), predicted_mentions=len(mentions), right_mentions=len(of.mentions & mentions),
            pairs=found.pairs, truncated_tokens=found.truncated,
        )  # fmt: skip
    metrics = {
        f"{what}_{name}": value
        for what in ("triple", "mention")
        for name, value in zip(("precision", "recall", "f1"), _of_counts(counts, f"{what}s"), strict=True)
    }
    return {"metrics": {"triple_f1": metrics.pop("triple_f1"), **metrics}, "counts": {**counts}}


def _of_counts(counts: Counter[str], what: str) -> tuple[float, float, float]:
    return precision_recall_f1(counts[f"right_{what}"], counts[f"predicted_{what}"], counts[f"gold_{what}"])


def _said(found: Found, typed: bool) -> tuple[set[Place], set[tuple[Place, str, Place]]]:
    def place(mention: Mention) -> Place:
        return mention.start, mention.end, mention.label if typed else None

    triples = {(place(one.subject), one.relation, place(one.object)) for one in found.triples}
    return {place(mention) for mention in found.mentions}, triples


def _of_argument(argument: Argument) -> Place:
    return argument.start, argument.end, argument.type
