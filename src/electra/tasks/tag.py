"""Task `tag`: labels for parts of a text: named entities, chunks, parts of speech, errors.

In: texts with labelled spans of characters (`Mention`). Out: `entities`, in the order of the text, each with `entity_group`,
`score`, `word`, `start`, `end`, as transformers' token-classification pipeline aggregates them; `word` is `text[start:end]`.

What has a label is either a span of words, which most texts have few of, or every single word (`tagged`). A network reads
words at their first token (`word_grid`); it learns BIO classes of the spans' labels (`bio`), or the tags themselves. Where a
file gives words, only their beginnings are learnt: what else begins in them are parts of addresses, numbers and user names, and
to learn that these are nothing costs names elsewhere (docs/experiments.md). A span that is not made of whole words
cannot be learnt or found: it is counted and shown with the span that would do, its words are left out of the loss, and
evaluation counts it as missed. The same goes for a span that overlaps a longer one.

A text of any length is read whole, in windows. Each token is learnt in one of them, the one that shows the most around it, and
a text is decoded as a whole, so a span across the border of two windows is found like any other. Spans are the most probable
legal sequence of classes; the score of a span is the probability that exactly it stands there.

Shapes: B rows, L positions of a row or T tokens of a packed batch, C classes, n tokens or words of a text.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor, nn

from electra import metrics
from electra.config import STRICT, to_tree
from electra.contracts import Batch, Encoded, Example, Judgement, Losses, Mention, Prediction, Reading, Term, Unit
from electra.errors import ElectraError
from electra.models.encoder import Encoder
from electra.models.heads import TokenHead
from electra.tasks import bio, schemes
from electra.tasks.common import characters_of, cut_windows, joined, whole_text
from electra.tasks.labels import NO_LABEL, file_of, label_id
from electra.tasks.readers import TagColumns, read_tags
from electra.tasks.readers.reading import Mended, reading
from electra.tasks.word_grid import WordGrid, word_grid
from electra.text.tokenizer import Tokenizer, well_formed


@dataclass(frozen=True, kw_only=True)
class TagConfig:
    """Settings of `tag`.

    Args:
        labels: the labels of spans, or the tags of words; None = those of the training file, sorted.
        tagged: what has a label: `spans` of words, or all `words`, each its own (part of speech, right or wrong); None =
            `words` if the training file has columns with plain tags, else `spans`.
        max_length: tokens of a window, with specials; longer texts have several.
        columns: how a file holds tagged text.
    """

    __pydantic_config__ = STRICT
    type: Literal["tag"] = "tag"
    labels: tuple[str, ...] | None = None
    tagged: Literal["spans", "words"] | None = None
    max_length: int = 128
    columns: TagColumns = field(default_factory=TagColumns)

    def __post_init__(self) -> None:
        if self.labels is not None and (not all(self.labels) or not 0 < len(set(self.labels)) == len(self.labels)):
            raise ElectraError("E-C320", "task.labels", f"{list(self.labels)} are not one or more different labels",
                               "mend the list; give labels (PER), not tags of a scheme (B-PER)")  # fmt: skip
        if self.max_length < 8:
            raise ElectraError(
                "E-C301", "task.max_length", f"{self.max_length} tokens leave no room for a text", "give 8 or more"
            )

    def build(self, tokenizer: Tokenizer) -> Tag:
        return Tag(self, tokenizer)


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """A span that cannot be learnt or found.

    Args:
        mention: the span.
        cause: why not.
        mend: the nearest span that could be; None where there is none.
    """

    mention: Mention
    cause: Literal["not made of whole words", "overlaps a longer span"]
    mend: Mention | None = None


class Tag:
    """`contracts.TrainableTask` for labelled parts of texts; see the module.

    Args:
        config: the settings.
        tokenizer: the encoder's.
    """

    def __init__(self, config: TagConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.max_length, self.pad_id = config.max_length, tokenizer.pad_id
        self.per_token = True
        self.whole_batch = False
        labels = config.labels or ()
        self._known = {label: index for index, label in enumerate(labels)}
        self._classes = labels if config.tagged == "words" else bio.classes(labels)
        self._ids = {name: index for index, name in enumerate(self._classes)}

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes in the order of the outputs: O, B-X, I-X ... of spans, the tags of words."""
        if self.config.labels is None or self.config.tagged is None:
            raise ElectraError("E-C302", "task.labels", "not known yet", "name them, or take them from the training file first")
        return self._classes

    # -- learning ---------------------------------------------------------------------------------------------------

    def fit(self, examples: Sequence[Example]) -> Tag:
        """This task with the labels of `examples` and what has them, or of its settings; every example is checked.

        Raises:
            ElectraError: E-D310 fewer than two tags of words, E-D312 a label that is not in the settings, E-D370 an example
                that says nothing of spans, E-D371 no spans at all, E-D372 a span outside of its text, E-D373 tags of words
                where spans are learnt, or words without tag where tags are.
        """
        found = sorted({mention.label for example in examples for mention in _gold(example)})
        of_words = bool(examples) and all(example.given.get("tagged") == "words" for example in examples)
        tagged = self.config.tagged or ("words" if of_words else "spans")
        if self.config.labels is None and len(found) < (2 if tagged == "words" else 1):
            where = file_of(examples)
            if tagged == "words":
                raise ElectraError("E-D310", where, f"every word has the tag {found}",
                                   "give training data with at least two tags")  # fmt: skip
            raise ElectraError("E-D371", where, "not one span in it", "give texts with labelled spans")
        task = Tag(replace(self.config, labels=self.config.labels or tuple(found), tagged=tagged), self.tokenizer)
        for example in examples:
            task._check(example)
        return task

    def _check(self, example: Example) -> None:
        """Refuse what is not of this task's labels, text or kind.

        Raises:
            ElectraError: E-D312, E-D370, E-D372, E-D373.
        """
        where = example.where or "example"
        for mention in _gold(example):
            label_id(mention.label, self._known, example)
            if not 0 <= mention.start < mention.end <= len(example.text):
                raise ElectraError("E-D372", where, f"span {mention.start}:{mention.end} of {len(example.text)} characters",
                                   "count characters from 0, the end exclusive")  # fmt: skip
        if self.config.tagged != "words" and example.given.get("tagged") == "words":
            raise ElectraError("E-D373", where, "has a tag for every word, but spans are learnt",
                               "give files of one kind, or set task.tagged")  # fmt: skip
        if self.config.tagged == "words":
            self._check_all_tagged(example)

    def _check_all_tagged(self, example: Example) -> None:
        grid = self._grid(example)
        bare = np.ones(len(grid), dtype=np.bool_)
        first, behind, _ = grid.touched(_gold(example))
        for place in zip(first, behind, strict=True):
            bare[slice(*place)] = False
        if bare.any():
            word = int(bare.argmax())
            text = example.text[grid.starts[word] : grid.ends[word]]
            raise ElectraError("E-D373", example.where or "example", f"word {text!r} has no tag, but every word must have one",
                               "tag it, or set task.tagged=spans")  # fmt: skip

    def read(self, path: Path) -> Reading:
        """The texts of a file with their spans; what cannot be learnt or found of them is counted in the notes."""
        found = read_tags(path, self.config.columns)
        counts = {cause: Mended(what=f"spans {text}, neither learnt nor found") for cause, text in _MISFITS.items()}

        def examples() -> Iterator[Example]:
            for example in found.examples:
                for misfit in self.misfits(example):
                    counts[misfit.cause].add(_told(example, misfit))
                yield example

        return reading(str(path), examples(), found.notes, *counts.values())

    def misfits(self, example: Example) -> list[Misfit]:
        """The spans of an example that cannot be learnt or found, in the order of the text."""
        if not example.target:
            return []
        return _placed(_gold(example), self._grid(example)).misfits

    def encode(self, example: Example) -> list[Encoded]:
        """The windows of the text with `label`, int64 [n], the class of each word at its first token, -100 at all others, at
        words within a given word, and in all windows but the one that keeps the token; `start` and `end`, the characters of
        the tokens."""
        encoding = self.tokenizer.encode_literally(example.text)
        label = np.full(len(encoding.ids), NO_LABEL, dtype=np.int64)
        if example.target is not None:
            self._check(example)
            grid = _grid_of(example, encoding.offsets)
            learnt = grid.begins(example.given.get("words", ()))
            label[1 + grid.tokens[learnt]] = self._classes_of(example, grid)[learnt]
        whole = whole_text(encoding)
        windows = cut_windows(replace(whole, targets={**whole.targets, "label": label}), self.max_length)
        return [
            replace(row, targets={**row.targets, "label": np.where(row.targets["keep"], row.targets["label"], NO_LABEL)})
            for row in windows
        ]

    def _grid(self, example: Example) -> WordGrid:
        return _grid_of(example, self.tokenizer.encode_literally(example.text).offsets)

    def _classes_of(self, example: Example, grid: WordGrid) -> npt.NDArray[np.int64]:
        """The class of each word; -100 where a span that is not made of whole words leaves it open."""
        placed = _placed(_gold(example), grid)
        names = self._names_of(placed.spans, len(grid))
        found = np.array([self._ids.get(name, NO_LABEL) for name in names], dtype=np.int64)
        found[placed.doubtful] = NO_LABEL
        return found

    def _names_of(self, spans: Sequence[schemes.WordSpan], words: int) -> list[str]:
        if self.config.tagged != "words":
            return schemes.encode(spans, words, "BIO")
        names = [""] * words  # no tag
        for first, behind, label in spans:
            names[first:behind] = [label] * (behind - first)
        return names

    def head(self, encoder: nn.Module) -> TokenHead:
        """A fresh head: (hidden, batch) -> logits [B, L, C] or [T, C]."""
        assert isinstance(encoder, Encoder), "the head follows the family of the encoder"
        return TokenHead(encoder.config, len(self.labels))

    def loss(self, outputs: Tensor, batch: Batch) -> Losses:
        """Cross entropy summed over the labelled tokens, in fp32; what figures count as an example is a labelled token.

        Args:
            outputs: float [B, L, C] or [T, C], logits.
            batch: with target `label` int64 [B, L] or [T] and its count.
        """
        label = batch.targets["label"]
        total = F.cross_entropy(outputs.float().flatten(0, -2), label.flatten(), reduction="sum", ignore_index=NO_LABEL)
        correct = (outputs.detach().argmax(dim=-1) == label).sum()
        totals = {"examples": (label != NO_LABEL).sum(), "loss": total.detach(), "accuracy": correct}
        return Losses(terms={"tag": Term(total=total, unit="label")}, totals=totals)

    # -- saying -----------------------------------------------------------------------------------------------------

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        """The spans of the text, or the tag of each word; words are the given ones, if there are any."""
        grid = _grid_of(example, characters_of(rows))
        if "words" in example.given:
            grid = grid.of(example.given["words"])
        logits = joined(rows, outputs)[1:-1].double().numpy()[grid.tokens]
        log_probabilities = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)  # torch would wake its threads
        entities = []
        for (first, behind, label), score in self._spans(log_probabilities):
            start, end = int(grid.starts[first]), int(grid.ends[behind - 1])
            word = example.text[start:end]
            entities.append({"entity_group": label, "score": score, "word": word, "start": start, "end": end})
        return Prediction(text=example.text, output={"entities": entities})

    def _spans(self, log_probabilities: npt.NDArray[np.float64]) -> Iterator[tuple[schemes.WordSpan, float]]:
        """Spans of words and their scores, from [n, C]."""
        if self.config.tagged == "words":
            for word, best in enumerate(log_probabilities.argmax(axis=1)):
                yield (word, word + 1, self.labels[best]), float(np.exp(log_probabilities[word, best]))
            return
        path = bio.best_path(log_probabilities)
        for first, behind, label in schemes.decode([self.labels[place] for place in path], "BIO"):
            yield (first, behind, label), bio.span_probability(log_probabilities, first, behind, int(path[first]) // 2)

    # -- judging ----------------------------------------------------------------------------------------------------

    def judge(self, example: Example, prediction: Prediction) -> Judgement:
        """One unit for each span that is gold or was found, matched by its characters: a missed one was predicted as None, with
        score 0; of one that should not be there, gold is None."""
        found = {(one["start"], one["end"]): one for one in cast(list[dict[str, Any]], prediction.output["entities"])}
        units = []
        for mention in _gold(example):
            one = found.pop((mention.start, mention.end), None)
            said, score = (None, 0.0) if one is None else (one["entity_group"], one["score"])
            units.append(Unit(gold=mention.label, predicted=said, score=score))
        units += [Unit(gold=None, predicted=one["entity_group"], score=one["score"]) for one in found.values()]
        return Judgement(units=tuple(units))

    def score(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """Of spans f1 (main), precision, recall over all of them, macro_f1 (mean of the labels' F1); of words accuracy (main),
        macro_f1."""
        units = [unit for judgement in judgements for unit in judgement.units]
        gold, predicted = [unit.gold for unit in units], [unit.predicted for unit in units]
        spans = metrics.span_scores(gold, predicted)
        if self.config.tagged == "words":
            return {"accuracy": metrics.accuracy(gold, predicted), "macro_f1": spans["macro_f1"]}
        return spans

    def tune(self, judgements: Sequence[Judgement]) -> Tag:
        """Nothing to choose: the most probable legal sequence wins."""
        return self

    def to_json(self) -> dict[str, object]:
        return to_tree(self.config)


_MISFITS = {
    "not made of whole words": "that are not made of whole words",
    "overlaps a longer span": "that overlap a longer one",
}


def _told(example: Example, misfit: Misfit) -> str:
    def shown(mention: Mention) -> str:
        return f"{example.text[mention.start : mention.end]!r:.60} at {mention.start}:{mention.end}"

    mend = "" if misfit.mend is None else f" (mend: {shown(misfit.mend)})"
    return f"{example.where}: {shown(misfit.mention)}{mend}"


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """The mentions of a text on its words.

    Args:
        spans: those that can be learnt, in order, none overlapping.
        misfits: the others, in order.
        doubtful: bool [words], touched by a misfit that is not made of whole words, and by no span.
    """

    spans: list[schemes.WordSpan]
    misfits: list[Misfit]
    doubtful: npt.NDArray[np.bool_]


def _grid_of(example: Example, characters: Sequence[tuple[int, int]]) -> WordGrid:
    """The words of the text.

    Args:
        characters: (start, end) of each token, specials included.
    """
    return word_grid(well_formed(example.text), characters[1:-1], example.given.get("words", ()))


def _placed(mentions: Sequence[Mention], grid: WordGrid) -> _Placed:
    first, behind, whole = (array.tolist() for array in grid.touched(mentions))
    places = [(start, end, mention.label) for mention, start, end in zip(mentions, first, behind, strict=True)]
    spans = _apart([place for place, fits in zip(places, whole, strict=True) if fits])
    kept, misfits, doubtful = set(spans), list[Misfit](), np.zeros(len(grid), dtype=np.bool_)
    for mention, place, fits in zip(mentions, places, whole, strict=True):
        start, end, _ = place
        if not fits:
            doubtful[start:end] = True
            mend = replace(mention, start=int(grid.starts[start]), end=int(grid.ends[end - 1])) if start < end else None
            misfits.append(Misfit(mention=mention, cause="not made of whole words", mend=mend))
        elif place not in kept:
            misfits.append(Misfit(mention=mention, cause="overlaps a longer span"))
    for start, end, _ in spans:
        doubtful[start:end] = False
    return _Placed(spans=spans, misfits=misfits, doubtful=doubtful)


def _apart(spans: Sequence[schemes.WordSpan]) -> list[schemes.WordSpan]:
    """Spans that do not overlap, in the order of the text: the longest first, of equal ones the first in the text."""
    ordered = sorted(spans)
    if all(one[1] <= other[0] for one, other in itertools.pairwise(ordered)):
        return ordered
    kept: list[schemes.WordSpan] = []
    for span in sorted(ordered, key=lambda one: one[0] - one[1]):
        if all(span[1] <= other[0] or other[1] <= span[0] for other in kept):
            kept.append(span)
    return sorted(kept)


def _gold(example: Example) -> tuple[Mention, ...]:
    """The spans of an example; one without spans has an empty tuple, not None."""
    if not isinstance(example.target, tuple) or not all(isinstance(one, Mention) for one in example.target):
        raise ElectraError("E-D370", example.where or "example", "does not say which spans it has",
                           "give a file with tags, or [] for a text without spans")  # fmt: skip
    return example.target
