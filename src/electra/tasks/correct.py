"""Task `correct`: words that do not fit are found by the discriminator and replaced by the generator's; needs no training.

In: one text. Out: the corrected text, and its edits with their places and probabilities. In rounds, each of three questions:

    1. The discriminator says of each token how probable it is that it was replaced; a word is as suspicious as its most
       suspicious token. Words from `suspicion` on are looked at: of letters only, known to the vocabulary, not edited before.
    2. Each of them becomes one [MASK], and the generator proposes its `top_k` best tokens: of letters, continuing a word only
       where the old one did, and more probable to the generator than the old word.
    3. The discriminator reads the text with each proposal. The best one has the highest product of its probability by the
       generator and that of "original" by the discriminator, since the latter never saw what the former would not put there,
       and takes it for right. It is taken if the word is then less suspicious by `fall` or more.

The most suspicious word that has such a proposal is edited; of a long text also others, whose judgement did not see that edit:
at least `max_length` tokens away from it. Then the next round reads the new text, up to `rounds` of them. So a text of one
window gets as many edits as there are rounds at most.

Because the most suspicious words come first, the edits at a higher `suspicion` are, in a text of one window, the first ones
of those at a lower one: `tuned_suspicion` finds the lowest that leaves clean text alone from a single pass over it.

Words are those of `word_grid`; a special token that is written out in a text is text. In steps 2 and 3 the window has the word
in its middle, as far as the text goes.

Shapes: n tokens of a row, K proposals.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from electra.config import STRICT
from electra.contracts import Encoded, Example, Prediction
from electra.errors import ElectraError
from electra.tasks.common import check_window, cut_windows, joined, whole_text
from electra.tasks.rounds import Ask, Rounds
from electra.tasks.whole_texts import WholeTexts
from electra.tasks.word_grid import word_grid
from electra.text.tokenizer import Tokenizer
from electra.text.words import continues_word


@dataclass(frozen=True, kw_only=True)
class CorrectConfig:
    """Settings of `correct`.

    Args:
        suspicion: probability of "replaced" from which a word is looked at.
        fall: by how much the edit has to lower it.
        top_k: tokens that the generator proposes for a word.
        rounds: how often the text is read.
        max_length: tokens of a window, with specials.
        text: column of a file that holds the text; see `readers.Columns`.
    """

    __pydantic_config__ = STRICT
    type: Literal["correct"] = "correct"
    suspicion: float = 0.5
    fall: float = 0.3
    top_k: int = 10
    rounds: int = 4
    max_length: int = 128
    text: str | int = "text"

    def __post_init__(self) -> None:
        check_window(self.max_length)
        for name in ("suspicion", "fall"):
            if not getattr(self, name) > 0:
                raise ElectraError("E-C571", f"task.{name}", f"is {getattr(self, name)}", "give a number above 0")
        for name in ("top_k", "rounds"):
            if getattr(self, name) < 1:
                raise ElectraError("E-C571", f"task.{name}", f"is {getattr(self, name)}", "give 1 or more")

    def build(self, tokenizer: Tokenizer) -> Correct:
        return Correct(self, tokenizer)


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One word replaced.

    Args:
        start, end: its characters in the text as it was given.
        old, new: what stood there, and what stands there now.
        before, after: how probable it was, and is, that it was replaced.
        round: when it was made, from 1.
    """

    start: int
    end: int
    old: str
    new: str
    before: float
    after: float
    round: int


@dataclass(frozen=True, kw_only=True)
class _Suspect:
    """A word: characters `start` to `end` of the current text, its tokens `first` to `behind` there, and its suspicion."""

    start: int
    end: int
    first: int
    behind: int
    before: float


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """A proposal for a word, its probability by the generator, the row that reads it, and where the word stands in that row."""

    suspect: _Suspect
    new: str
    probability: float
    row: Encoded
    place: slice


class Correct(WholeTexts[CorrectConfig]):
    """`tasks.rounds.RoundsTask`, see the module; its networks are a `ReplacedNetwork` and a `FillMaskNetwork`.

    Output: `corrected`, the text; `edits`, in its order, the fields of `Edit`; `token_count`, tokens of the text as it was
    given.
    """

    def __init__(self, config: CorrectConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self._continues = continues_word(tokenizer)

    def encode(self, example: Example) -> list[Encoded]:
        """The whole text, in windows, with the character offsets `start` and `end`, int64 [n]."""
        return cut_windows(self._whole(example.text), self.max_length)

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        """The text without any edit: what is said where no round changes it."""
        return self._said(example, rows, ())

    def rounds(self, example: Example, rows: Sequence[Encoded]) -> Rounds:
        """The rounds of the module."""
        edits: list[Edit] = []
        asked = rows
        for number in range(1, self.config.rounds + 1):
            text = corrected(example.text, edits)
            asked = asked if number == 1 else self.encode(Example(text=text))
            outputs = yield Ask(network="discriminator", rows=asked)
            whole = self._whole(text)
            suspects = list(self._suspects(text, whole, torch.sigmoid(joined(asked, outputs).float()), edits))
            if not suspects:
                break
            masked = [self._masked(whole, suspect) for suspect in suspects]
            proposed = yield Ask(network="generator", rows=[row for row, _ in masked])
            drafts = [
                draft
                for suspect, (_, place), output_nK2 in zip(suspects, masked, proposed, strict=True)
                for draft in self._drafts(text, whole, suspect, output_nK2[place])
            ]
            if not drafts:
                break
            judged = yield Ask(network="discriminator", rows=[draft.row for draft in drafts])
            found = list(self._accepted(text, drafts, judged, edits, number))
            if not found:
                break
            edits += found
        return self._said(example, rows, edits)

    def suspecting(self, suspicion: float) -> Correct:
        """This task with another suspicion."""
        return Correct(replace(self.config, suspicion=suspicion), self.tokenizer)

    def boldest(self) -> Correct:
        """This task as suspicious as it can be: what is below `fall` cannot fall by it. Its predictions are to be tuned on."""
        return self.suspecting(self.config.fall)

    def tuned(self, predictions: Sequence[Prediction], per_thousand: float = 1.0) -> Correct:
        """This task with the suspicion that `tuned_suspicion` finds.

        Args:
            predictions: what `boldest()` says of texts that are known to be right.
        """
        return self.suspecting(max(self.config.fall, tuned_suspicion(predictions, per_thousand)))

    def _whole(self, text: str) -> Encoded:
        return whole_text(self.tokenizer.encode_literally(text))

    def _suspects(self, text: str, whole: Encoded, probability_n: Tensor, edits: Sequence[Edit]) -> Iterator[_Suspect]:
        """The words to be looked at, the most suspicious first."""
        starts, ends = (whole.targets[name].astype(np.int64) for name in ("start", "end"))
        grid = word_grid(text, np.stack([starts, ends], axis=1)[1:-1].tolist())
        taken = list(_places_now(edits))
        found = []
        for start, end, token in zip(grid.starts.tolist(), grid.ends.tolist(), grid.tokens.tolist(), strict=True):
            first = token + 1  # [CLS]
            behind = max(first + 1, int(np.searchsorted(starts[:-1], end)))
            before = float(probability_n[first:behind].max())
            if before < self.config.suspicion or not text[start:end].isalpha() or behind - first > self.max_length // 2:
                continue
            known = self.tokenizer.unk_id not in whole.tokens[first:behind]
            if known and not any(start < right and left < end for left, right in taken):
                found.append(_Suspect(start=start, end=end, first=first, behind=behind, before=before))
        yield from sorted(found, key=lambda suspect: -suspect.before)

    def _masked(self, whole: Encoded, suspect: _Suspect) -> tuple[Encoded, int]:
        """The row in which the word is one [MASK], and where that stands."""
        mask = np.array([self.tokenizer.mask_id], dtype=np.int64)
        tokens = np.concatenate([whole.tokens[: suspect.first], mask, whole.tokens[suspect.behind :]])
        row, place = _around(tokens, suspect.first, suspect.first + 1, self.max_length)
        return row, place.start

    def _drafts(self, text: str, whole: Encoded, suspect: _Suspect, proposed_K2: Tensor) -> Iterator[_Draft]:
        """The proposals for a word, the generator's best first."""
        old, first = text[suspect.start : suspect.end], int(whole.tokens[suspect.first])
        for probability, number in proposed_K2.tolist():
            token = int(number)
            new = self._spelled(token, old, first)
            if new == old:  # what follows is less probable than what stands there
                return
            if token in self.tokenizer.special_ids or self._continues[token] != self._continues[first] or not new.isalpha():
                continue
            edited = self._whole(text[: suspect.start] + new + text[suspect.end :])
            end = suspect.start + len(new)
            starts, ends = (edited.targets[name].astype(np.int64) for name in ("start", "end"))
            at = np.flatnonzero((starts < end) & (ends > suspect.start))
            if len(at):
                row, place = _around(edited.tokens, int(at[0]), int(at[-1]) + 1, self.max_length)
                yield _Draft(suspect=suspect, new=new, probability=probability, row=row, place=place)

    def _spelled(self, token: int, old: str, first: int) -> str:
        """A token as it is written in the place of `old`, capital where only the text has the capital."""
        new = self.tokenizer.surface(token).strip()
        if old[:1].isupper() and not self.tokenizer.surface(first).strip()[:1].isupper():
            return new[:1].upper() + new[1:]
        return new

    def _accepted(
        self, text: str, drafts: Sequence[_Draft], judged: Sequence[Tensor], edits: Sequence[Edit], number: int
    ) -> Iterator[Edit]:
        """The edits of a round: for each word its best draft, if that convinces, no two words in one window."""
        afters = [
            float(torch.sigmoid(logits_n[draft.place].float()).max()) for draft, logits_n in zip(drafts, judged, strict=True)
        ]
        done: list[_Suspect] = []
        for suspect, of_word in itertools.groupby(zip(drafts, afters, strict=True), key=lambda judged: judged[0].suspect):
            draft, after = max(of_word, key=lambda judged: judged[0].probability * (1 - judged[1]))
            near = any(abs(suspect.first - other.first) < self.max_length for other in done)
            if near or after > suspect.before - self.config.fall:
                continue
            done.append(suspect)
            shift = sum(
                len(edit.old) - len(edit.new)
                for edit, (left, _) in zip(_in_order(edits), _places_now(edits), strict=True)
                if left < suspect.start
            )
            old = text[suspect.start : suspect.end]
            yield Edit(
                start=suspect.start + shift, end=suspect.end + shift, old=old, new=draft.new, before=suspect.before,
                after=after, round=number,
            )  # fmt: skip

    def _said(self, example: Example, rows: Sequence[Encoded], edits: Sequence[Edit]) -> Prediction:
        output = {
            "corrected": corrected(example.text, edits), "edits": [dict(vars(edit)) for edit in _in_order(edits)],
            "token_count": sum(int(row.targets["keep"].sum()) for row in rows) - 2,
        }  # fmt: skip
        return Prediction(text=example.text, output=output)


def corrected(text: str, edits: Sequence[Edit]) -> str:
    """`text` with its edits made; no two of them overlap."""
    for edit in reversed(_in_order(edits)):
        text = text[: edit.start] + edit.new + text[edit.end :]
    return text


def tuned_suspicion(predictions: Sequence[Prediction], per_thousand: float = 1.0) -> float:
    """The lowest suspicion at which the texts of `predictions`, which are known to be right, get at most so many edits.

    0 where even all of their edits are few enough. Exact for texts of one window; of longer ones, some edits may be counted
    that would not be made.

    Args:
        predictions: of `Correct`, by a suspicion that was low enough.
        per_thousand: edits on 1,000 tokens.
    """
    reached: list[float] = []
    tokens = 0
    for prediction in predictions:
        output: Any = prediction.output
        tokens += output["token_count"]
        lowest = math.inf
        for edit in sorted(output["edits"], key=lambda edit: (edit["round"], -edit["before"])):
            lowest = min(lowest, edit["before"])  # an edit is made only if those before it are
            reached.append(lowest)
    allowed = int(per_thousand * tokens / 1000)
    reached.sort(reverse=True)
    return 0.0 if len(reached) <= allowed else math.nextafter(reached[allowed], math.inf)


def _in_order(edits: Sequence[Edit]) -> list[Edit]:
    return sorted(edits, key=lambda edit: edit.start)


def _places_now(edits: Sequence[Edit]) -> Iterator[tuple[int, int]]:
    """The characters of the edited words in the text with the edits, in order."""
    shift = 0
    for edit in _in_order(edits):
        yield edit.start + shift, edit.start + shift + len(edit.new)
        shift += len(edit.new) - len(edit.old)


def _around(tokens: npt.NDArray[np.int64], first: int, behind: int, max_length: int) -> tuple[Encoded, slice]:
    """A row of a text with specials that has tokens `first` to `behind` in its middle, and where they stand in it."""
    content, room = len(tokens) - 2, max_length - 2
    begin = max(0, min(content - room, (first + behind - 1 - room) // 2))  # in content positions
    row = np.concatenate([tokens[:1], tokens[1:-1][begin : begin + room], tokens[-1:]])
    return Encoded(tokens=row, types=np.zeros_like(row)), slice(first - begin, behind - begin)
