"""Task `span`: a question and a text in, the part of the text that answers it out, or that nothing does.

In: SQuAD's JSON (1.1, 2.0, DRCD, CMRC), its flat JSON lines, or a table with the columns `question` and `context`. Out:
`answer`, `score`, `start`, `end` in the key names of transformers' question-answering pipeline, and `n_best`.

A row is [CLS] question [SEP] window of the context [SEP]. Windows begin every `stride` tokens; an answer counts only from the
window that shows most around its first token. A window without the answer is learnt as one that has none: its start and end are
[CLS]. A span's score is the probability of its start times that of its end, among the tokens of the window and [CLS]; the
probabilities of different windows, and of different texts, can be compared.

"No answer" is said where what speaks for it, `null_score`, is above a threshold that is chosen on development data.
`null_score` is taken from the window where it is lowest. Plain head: the log-odds of [CLS] against the best span. Joint head:
the head's own logit; the reference code fixes its threshold at -2.75.

Shapes: B rows, L positions, n tokens of a row, S starts, A tokens of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from electra.config import STRICT, to_tree
from electra.contracts import Batch, Encoded, Example, Judgement, Losses, Prediction, Reading, Term
from electra.errors import ElectraError
from electra.models.encoder import Encoder
from electra.models.heads import SpanHead
from electra.models.joint_span import JointSpanHead, by_row, may_hold_answer
from electra.tasks.answers import Pieces, alike, best_threshold, written_in
from electra.tasks.labels import NO_LABEL
from electra.tasks.readers import Columns, read_answers, read_texts
from electra.tasks.readers.source import LabelledFile, kind_of
from electra.tasks.windows import Bools, Floats, Ints, Spans, characters, joint_spans, plain_spans, shown_best, windows_of
from electra.text.tokenizer import Tokenizer

_ROOM = 16  # tokens of context that a row shows at least
_FORM = "give SQuAD's JSON, JSON lines or a table with question and context"


@dataclass(frozen=True, kw_only=True)
class SpanConfig:
    """Settings of `span`.

    Args:
        head: `plain` scores start and end of each token on its own, as transformers' classes; `joint` is the paper's: the end
            given the start, and a score of "no answer" of its own, for which transformers has no class.
        max_length: tokens of a row with specials.
        stride: tokens from one window to the next; of short windows, no more than half of what they show of the context.
        question_tokens: tokens of a question; what is longer is cut and counted.
        answer_tokens: tokens of an answer at most.
        n_best: answers that are shown.
        unanswerable: "no answer" is a possible answer; None = if a question of the training file has none.
        null_threshold: "no answer" is said where `null_score` is above; None = chosen on the development file, 0 without one.
        compare: what exact match and F1 compare; None = characters where most letters of the context belong to a script
            without spaces, else words.
    """

    __pydantic_config__ = STRICT
    type: Literal["span"] = "span"
    head: Literal["plain", "joint"] = "plain"
    max_length: int = 384
    stride: int = 128
    question_tokens: int = 64
    answer_tokens: int = 30
    n_best: int = 5
    unanswerable: bool | None = None
    null_threshold: float | None = None
    compare: Pieces | None = None

    def __post_init__(self) -> None:
        for name in ("stride", "question_tokens", "answer_tokens", "n_best"):
            if getattr(self, name) < 1:
                raise ElectraError("E-C325", f"task.{name}", f"is {getattr(self, name)}", "give 1 or more")
        least = self.question_tokens + 3 + _ROOM
        if self.max_length < least:
            cause = f"{self.max_length} tokens leave no room for a text beside a question of {self.question_tokens}"
            raise ElectraError("E-C326", "task.max_length", cause, f"give {least} or more, or lower task.question_tokens")

    def build(self, tokenizer: Tokenizer) -> Span:
        return Span(self, tokenizer)


class _Context(NamedTuple):
    """A context as tokens, without specials: ids and the characters they stand for."""

    tokens: Ints
    start: Ints
    end: Ints


class Span:
    """`contracts.TrainableTask` for extractive question answering; see the module.

    Args:
        config: the settings.
        tokenizer: the encoder's.
    """

    labels: tuple[str, ...] = ()

    def __init__(self, config: SpanConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.max_length, self.pad_id = config.max_length, tokenizer.pad_id
        self.per_token = True
        self.whole_batch = False
        self._context: Callable[[str], _Context] = lru_cache(maxsize=8)(self._encode_context)  # questions share contexts

    def fit(self, examples: Sequence[Example]) -> Span:
        """This task, knowing whether there are questions without an answer; every example is checked.

        Raises:
            ElectraError: E-D375 - E-D378 as `encode`, E-D378 also an example without answers, E-D379 no question has an answer.
        """
        nothing = [example for example in examples if not _right(example)]
        for example in examples:
            self.encode(example)
        if self.config.unanswerable is not None:
            return self
        if len(nothing) == len(examples):
            raise ElectraError("E-D379", examples[0].where if examples else "training data", "no question has an answer",
                               "give training data with answers")  # fmt: skip
        return Span(replace(self.config, unanswerable=bool(nothing)), self.tokenizer)

    def read(self, path: Path) -> Reading:
        if kind_of(LabelledFile(path)) in ("json", "jsonl"):
            return read_answers(path)
        return read_texts(path, Columns(text="question", pair="context"))

    # -- example -> rows ------------------------------------------------------------------------------------------------

    def encode(self, example: Example) -> list[Encoded]:
        """The windows of the context behind the question.

        Targets: `start`, `end`, int64 [], positions in the row of the first right answer, 0 where this window has none, -100
        without a gold answer; `context`, bool [n], tokens of the context; `keep`, bool [n], those that no other window shows
        better; `char_start`, `char_end`, int64 [n], the characters of the context they stand for.

        Raises:
            ElectraError: E-D375 an answer without a token, E-D376 no question or context, E-D378 answers of another form.
        """
        where = example.where or "example"
        question = self.tokenizer.encode_literally(example.text).ids[1:-1]
        if not question:
            raise ElectraError("E-D376", where, "the question is empty", "mend the row")
        context = self._context(example.pair or "")
        if not len(context.tokens):
            raise ElectraError("E-D376", where, "there is no context to look for the answer in", _FORM)
        cut = max(0, len(question) - self.config.question_tokens)
        answer = self._answer(example, context)
        head = np.array([self.tokenizer.cls_id, *question[: self.config.question_tokens], self.tokenizer.sep_id])
        room = self.max_length - len(head) - 1
        windows = windows_of(len(context.tokens), room, min(self.config.stride, room // 2))
        shown = shown_best(windows)
        return [
            self._row(head, context, window, shown[window] == number, answer, cut if number == 0 else 0)
            for number, window in enumerate(windows)
        ]

    def _encode_context(self, text: str) -> _Context:
        encoding = self.tokenizer.encode_literally(text)
        offsets = np.array(encoding.offsets, dtype=np.int64)[1:-1]
        return _Context(np.array(encoding.ids, dtype=np.int64)[1:-1], offsets[:, 0], offsets[:, 1])

    def _answer(self, example: Example, context: _Context) -> tuple[int, int] | None:
        """First and last token of the first right answer; (-1, -1) where there is none, None where nobody says."""
        if example.target is None:
            return None
        right = _right(example)
        if not right:
            return -1, -1
        begin, text = right[0]
        touched = np.flatnonzero((context.start < begin + len(text)) & (context.end > begin))
        if not len(touched):
            cause = f"no token of the context belongs to the answer {text!r:.60}"
            raise ElectraError("E-D375", example.where or "example", cause, "mend the answer")
        return int(touched[0]), int(touched[-1])

    def _row(
        self, head: Ints, context: _Context, window: slice, keep: Bools, answer: tuple[int, int] | None, cut: int
    ) -> Encoded:
        """One window; `cut` tokens of the question are missing."""
        inside = len(keep)
        around = (len(head), 1)
        start = end = NO_LABEL
        if answer is not None:
            whole = window.start <= answer[0] and answer[1] < window.start + inside
            start, end = (place - window.start + len(head) if whole else 0 for place in answer)
        return Encoded(
            tokens=np.concatenate([head, context.tokens[window], [self.tokenizer.sep_id]]).astype(np.int64),
            types=np.repeat(np.array([0, 1], dtype=np.int64), [len(head), inside + 1]),
            targets={
                "start": np.array(start, dtype=np.int64),
                "end": np.array(end, dtype=np.int64),
                "context": np.pad(np.ones(inside, dtype=np.bool_), around),
                "keep": np.pad(keep, around),
                "char_start": np.pad(context.start[window], around),
                "char_end": np.pad(context.end[window], around),
            },
            truncated=cut,
        )

    # -- head and loss --------------------------------------------------------------------------------------------------

    def head(self, encoder: nn.Module) -> SpanHead | JointSpanHead:
        """A fresh head: (hidden, batch) -> [B, L, 2], scores of start and end; or what `JointSpanHead` says."""
        assert isinstance(encoder, Encoder), "the head follows the family of the encoder"
        return SpanHead(encoder.config) if self.config.head == "plain" else JointSpanHead(encoder.config)

    def loss(self, outputs: Tensor, batch: Batch) -> Losses:
        """Half of the cross entropies of start and end, in fp32, and, for the joint head, half of that of "no answer".

        Args:
            outputs: of the head in training, [B, L, ...] or [T, ...].
            batch: with the targets of `encode`; a window counts as one example.
        """
        allowed_BL = may_hold_answer(batch)
        values = by_row(outputs.float(), batch.layout)
        joint = self.config.head == "joint"
        channels = (0, 3) if joint else (0, 1)
        start_BL, end_BL = (values[..., channel].masked_fill(~allowed_BL, -torch.inf) for channel in channels)
        start_B, end_B = batch.targets["start"], batch.targets["end"]
        total = sum(
            0.5 * F.cross_entropy(logits, right, reduction="sum", ignore_index=NO_LABEL)
            for logits, right in ((start_BL, start_B), (end_BL, end_B))
        )
        assert isinstance(total, Tensor)
        if joint:
            none_B = (start_B == 0).float()
            total = total + 0.5 * F.binary_cross_entropy_with_logits(values[:, 0, 1], none_B, reduction="sum")
        both = (start_BL.detach().argmax(dim=1) == start_B) & (end_BL.detach().argmax(dim=1) == end_B)
        totals = {"examples": (start_B != NO_LABEL).sum(), "loss": total.detach(), "accuracy": both.sum()}
        return Losses(terms={"span": Term(total=total, unit="examples")}, totals=totals)

    # -- outputs -> answers ---------------------------------------------------------------------------------------------

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        """The best answer, or "" with start = end = 0.

        Output: `answer`, `score` (its probability), `start`, `end` (characters of the context, end exclusive), `n_best` (these
        four of each of the best different answers) and, where "no answer" is possible, `null_score`.
        """
        joint, length = self.config.head == "joint", self.config.answer_tokens
        windows = [
            (joint_spans if joint else plain_spans)(row, output.float().double().numpy(), length)
            for row, output in zip(rows, outputs, strict=True)
        ]
        best = self._best(example.pair or "", rows, windows)
        null = min(window.null for window in windows)
        if not self.config.unanswerable:
            chosen = best[0] if best else _NOTHING
            return Prediction(text=example.text, output={**chosen, "n_best": best})
        null_score = null if joint or not best else null - float(np.log(max(best[0]["score"], 1e-300)))
        chosen = best[0] if best else _NOTHING
        if not best or null_score > self._threshold:
            chosen = {**_NOTHING, "score": 1 / (1 + float(np.exp(-null))) if joint else float(np.exp(null))}
        return Prediction(text=example.text, output={**chosen, "null_score": null_score, "n_best": best})

    @property
    def _threshold(self) -> float:
        return self.config.null_threshold or 0.0

    def _best(self, context: str, rows: Sequence[Encoded], windows: Sequence[Spans]) -> list[dict[str, Any]]:
        """The best answers that differ as texts, best first; the first windows win ties."""
        found: list[tuple[float, int, int]] = []
        most = 4 * self.config.n_best  # spans of one window that are looked at: some have the same text
        for row, (starts, log_probability, _) in zip(rows, windows, strict=True):
            flat = log_probability.ravel()
            for place in np.argsort(-flat, kind="stable")[:most].tolist():
                first, more = divmod(place, log_probability.shape[1])
                if np.isfinite(flat[place]):
                    begin = int(starts[first])
                    found.append((float(flat[place]), *characters(context, row, begin, begin + more)))
        different: dict[str, dict[str, Any]] = {}
        for score, start, end in sorted(found, key=lambda span: -span[0]):
            if start < end and context[start:end] not in different:
                answer = context[start:end]
                different[answer] = {"answer": answer, "score": float(np.exp(score)), "start": start, "end": end}
            if len(different) == self.config.n_best:
                break
        return list(different.values())

    # -- answers -> figures ---------------------------------------------------------------------------------------------

    def judge(self, example: Example, prediction: Prediction) -> Judgement:
        """`exact` and `f1` of the best answer, were it given; `answerable`, `null_score`, `by_characters` (0 or 1);
        `error`, what the answer that was given lacks to an F1 of 1, times its probability."""
        right = [text for _, text in _right(example)]
        unit = self.config.compare or written_in(example.pair or "")
        best = cast(Sequence[Mapping[str, Any]], prediction.output["n_best"])
        first, given = str(best[0]["answer"]) if best else "", str(prediction.output["answer"])
        exact, f1 = alike(right, first, unit)
        missed = 1 - (f1 if given == first else alike(right, given, unit)[1])
        null_score = cast(float, prediction.output.get("null_score", 0.0))
        return Judgement(values={"exact": exact, "f1": f1, "answerable": float(bool(right)), "null_score": null_score,
                                 "by_characters": float(unit == "characters"),
                                 "error": missed * max(cast(float, prediction.output["score"]), 1e-6)})  # fmt: skip

    def score(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """f1 (main), exact; where "no answer" is possible, each of both kinds of questions and at its best threshold;
        by_characters, the share of questions that were compared so. All are shares of 1."""
        values = _columns(judgements)
        answerable = values["answerable"] > 0
        shares: dict[str, float] = {}
        for name in ("f1", "exact"):
            score = values[name]
            if self.config.unanswerable:
                score = np.where(values["null_score"] > self._threshold, ~answerable, score)
            shares[name] = float(score.mean())
            if self.config.unanswerable and 0 < answerable.sum() < len(answerable):
                shares[f"has_answer_{name}"] = float(score[answerable].mean())
                shares[f"no_answer_{name}"] = float(score[~answerable].mean())
            if self.config.unanswerable:
                threshold, best = best_threshold(values[name], answerable, values["null_score"])
                shares |= {f"best_{name}": best, f"best_{name}_threshold": threshold}
        return {**shares, "by_characters": float(values["by_characters"].mean())}

    def tune(self, judgements: Sequence[Judgement]) -> Span:
        """This task with the threshold of "no answer" that gives the best F1; itself where the setting names one."""
        if not self.config.unanswerable or self.config.null_threshold is not None:
            return self
        values = _columns(judgements)
        threshold, _ = best_threshold(values["f1"], values["answerable"] > 0, values["null_score"])
        return Span(replace(self.config, null_threshold=threshold), self.tokenizer)

    def to_json(self) -> dict[str, object]:
        return to_tree(self.config)


_NOTHING: Mapping[str, Any] = {"answer": "", "score": 0.0, "start": 0, "end": 0}


def _right(example: Example) -> Sequence[tuple[int, str]]:
    """The right answers; none where the question has none."""
    target = example.target
    if isinstance(target, tuple) and all(isinstance(one, tuple) and len(one) == 2 for one in target):
        return target
    raise ElectraError("E-D378", example.where or "example", "has no answers with their place in the context",
                       "give SQuAD's JSON or its flat JSON lines")  # fmt: skip


def _columns(judgements: Sequence[Judgement]) -> dict[str, Floats]:
    return {name: np.array([judgement.values[name] for judgement in judgements]) for name in judgements[0].values}
