"""From a decoder to texts: greedy search, beam search, sampling.

In: a decoder, the sources (or none) and for each the tokens that its output begins with. Out: for each source one hypothesis or
several, the best first. Settings and results are those of transformers' `generate`, under its names.

*Greedy and sampling* take one token a step for each hypothesis. Sampling divides the logits by the temperature, keeps the
`top_k` largest, of these the fewest that have `top_p` of the probability, and draws by inverse CDF in fp32. The random numbers
of a hypothesis are a function of (seed, number of the source, number of the sample, step).

*Beam search* keeps `num_beams` hypotheses of each source. A step looks at the 2 * `num_beams` best continuations by summed log
probability. Of the first `num_beams`, those that end are finished, with the sum divided by length ** `length_penalty`; the best
that do not end go on. A source is done when no running hypothesis can beat the worst of `num_beams` finished ones (as
`early_stopping` says) or the length is used up. Length counts generated tokens, the end included.

Sources that are done leave the batch, so that the others run faster.

Shapes: B sources, N hypotheses (B * beams or samples), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from electra.contracts import Noise
from electra.dist import fold_seed
from electra.errors import ElectraError
from electra.models.decoder import Decoder, Memory, State
from electra.models.decoding_config import DecodingConfig

#: why an output goes no further
Ended = Literal["end", "stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Signs:
    """What of a vocabulary has a meaning in generation.

    Args:
        start: the token before the first; a language model has none, and its prompts begin with what its texts begin with.
        end: the token behind the last.
        never: tokens that are not generated.
    """

    start: int
    end: int
    never: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """An output.

    Args:
        tokens: with the prefix that was given, without start and end.
        log_probability: sum over the generated tokens, the end included.
        score: what it is ranked by: of beams, the sum over length ** length_penalty.
        ended: `end` by itself, `stop` by a stop string, `length` cut at `max_new_tokens`.
    """

    tokens: tuple[int, ...]
    log_probability: float
    score: float
    ended: Ended


#: of a hypothesis that is there only to keep the place
_HOPELESS = -1e9
#: whether an output is complete, from its tokens without start
Stop = Callable[[Sequence[int]], bool]


def _unending(tokens: Sequence[int]) -> bool:
    return False


@torch.inference_mode()
def generate(
    decoder: Decoder,
    memory: Memory | None,
    prefixes: Sequence[Sequence[int]],
    config: DecodingConfig,
    signs: Signs,
    stop: Stop = _unending,
) -> list[list[Hypothesis]]:
    """Outputs of each source, the best first: `num_return_sequences` of them.

    Args:
        memory: the sources; None for a language model.
        prefixes: what each output begins with, without start; a source each.
        stop: says of the tokens so far whether they end in a stop string.
    """
    search = _BeamSearch if config.num_beams > 1 else _Steps
    return search(decoder, memory, prefixes, config, signs, stop).run()


@torch.inference_mode()
def stream(
    decoder: Decoder, memory: Memory | None, prefix: Sequence[int], config: DecodingConfig, signs: Signs, stop: Stop = _unending
) -> Iterator[int]:
    """The tokens of one output as they are decided, without the prefix and the end.

    Raises:
        ElectraError: E-C603 beams, or several outputs: the first token is known when all are.
    """
    if config.num_beams > 1 or config.num_return_sequences > 1:
        raise ElectraError("E-C603", "stream", "beam search and several outputs have no first token before the last",
                           "take one greedy or sampled output")  # fmt: skip
    steps = _Steps(decoder, memory, [prefix], config, signs, stop)
    told = len(prefix)
    for _ in steps.steps():
        [row] = steps.rows
        known = row.tokens[:-1] if row.ended == "end" else row.tokens
        yield from known[told:]
        told = max(told, len(known))


@dataclass(kw_only=True)
class _Row:
    """A hypothesis.

    Args:
        source, sample: whose it is.
        tokens: without start.
        total: summed log probability of what was generated.
        ended: None while it runs.
    """

    source: int
    sample: int
    tokens: list[int]
    total: float = 0.0
    ended: Ended | None = None


class _Search:
    """What both ways have in common: the prefixes, which tokens may come next, and when an output is complete."""

    def __init__(
        self, decoder: Decoder, memory: Memory | None, prefixes: Sequence[Sequence[int]], config: DecodingConfig, signs: Signs,
        stop: Stop,
    ) -> None:  # fmt: skip
        self.decoder, self.config, self.signs, self.stop = decoder, config, signs, stop
        self.prefixes = [list(prefix) for prefix in prefixes]
        longest = max(map(len, self.prefixes))
        room = 1 + longest + config.max_new_tokens
        #: from so many tokens on, neither a prefix nor the least length forbids any
        self.unbound_from = longest + config.min_new_tokens
        self.state: State = decoder.start(memory, len(prefixes), room)
        self.device = self.state.own.device
        self.never = torch.tensor(signs.never, dtype=torch.int64, device=self.device)

    def begin(self, each: int) -> tuple[list[_Row], Tensor]:
        """`each` hypotheses of every source behind start and as many tokens as all prefixes have, and the next logits."""
        common = min(map(len, self.prefixes))
        tokens = torch.tensor([[self.signs.start, *prefix[:common]] for prefix in self.prefixes], device=self.device)
        logits_BV = self.decoder.prefill(tokens, self.state)
        self.state.repeat(each)
        rows = [
            _Row(source=source, sample=sample, tokens=prefix[:common])
            for source, prefix in enumerate(self.prefixes)
            for sample in range(each)
        ]
        return rows, logits_BV.repeat_interleave(each, 0)

    def given(self, row: _Row) -> bool:
        """Whether the next token is one of the prefix."""
        return len(row.tokens) < len(self.prefixes[row.source])

    def allow(self, scores_NV: Tensor, rows: Sequence[_Row]) -> Tensor:
        """-inf for what may not come next; what a prefix says comes with certainty."""
        scores_NV.index_fill_(1, self.never, -torch.inf)
        size = self.config.no_repeat_ngram_size
        if not size and self.state.length > self.unbound_from:  # the state has the start, too
            return scores_NV
        for number, row in enumerate(rows):
            if self.given(row):
                scores_NV[number] = -torch.inf
                scores_NV[number, self.prefixes[row.source][len(row.tokens)]] = 0.0
                continue
            if self._generated(row.source, row.tokens) < self.config.min_new_tokens:
                scores_NV[number, self.signs.end] = -torch.inf
            if size:
                scores_NV[number, _repeating([self.signs.start, *row.tokens], size)] = -torch.inf
        return scores_NV

    def ended(self, source: int, tokens: Sequence[int]) -> Ended | None:
        """Why an output that has these tokens goes no further; None where it does."""
        generated = self._generated(source, tokens)
        if generated <= 0:
            return None
        if tokens[-1] == self.signs.end:
            return "end"
        if self.stop(tokens):
            return "stop"
        return "length" if generated == self.config.max_new_tokens else None

    def _generated(self, source: int, tokens: Sequence[int]) -> int:
        return len(tokens) - len(self.prefixes[source])

    def length_of(self, row: _Row) -> int:
        """Generated tokens, the end included."""
        return self._generated(row.source, row.tokens)

    def hypothesis(self, row: _Row, score: float) -> Hypothesis:
        assert row.ended is not None
        tokens = row.tokens[:-1] if row.ended == "end" else row.tokens
        return Hypothesis(tokens=tuple(tokens), log_probability=row.total, score=score, ended=row.ended)


def _repeating(tokens: Sequence[int], size: int) -> list[int]:
    """The tokens that would complete an n-gram that `tokens` has already."""
    last = tuple(tokens[len(tokens) - size + 1 :])
    return [tokens[at + size - 1] for at in range(len(tokens) - size + 1) if tuple(tokens[at : at + size - 1]) == last]


class _Steps(_Search):
    """Greedy search, or sampling: every hypothesis goes its way."""

    def run(self) -> list[list[Hypothesis]]:
        for _ in self.steps():
            pass
        samples = self.config.num_return_sequences
        whole = [self.hypothesis(row, row.total) for row in self.rows]
        return [whole[begin : begin + samples] for begin in range(0, len(whole), samples)]

    def steps(self) -> Iterator[None]:
        """Takes a step at a time; `rows` are all hypotheses."""
        live, logits_NV = self.begin(self.config.num_return_sequences)
        self.rows = live
        while True:
            chosen_N = self._choose(logits_NV, live)
            yield
            sources = list(dict.fromkeys(row.source for row in live))
            open_sources = {row.source for row in live if row.ended is None}
            if not open_sources:
                return
            if len(open_sources) < len(sources):
                self.state.keep([number for number, source in enumerate(sources) if source in open_sources])
                chosen_N = chosen_N[[number for number, row in enumerate(live) if row.source in open_sources]]
                live = [row for row in live if row.source in open_sources]
            logits_NV = self.decoder.next_logits(chosen_N, self.state)

    def _choose(self, logits_NV: Tensor, live: Sequence[_Row]) -> Tensor:
        """The next token of each row, int64 [N], appended to it unless it has ended: then it only keeps its place."""
        log_NV = torch.log_softmax(logits_NV, dim=-1)
        allowed_NV = self.allow(logits_NV, live)
        chosen_N = _drawn(allowed_NV, self.config, self._uniform(live)) if self.config.do_sample else _likeliest(allowed_NV)
        logs = log_NV.gather(1, chosen_N[:, None])[:, 0].tolist()
        for row, token, log in zip(live, chosen_N.tolist(), logs, strict=True):
            if row.ended is None:
                row.total += 0.0 if self.given(row) else log
                row.tokens.append(token)
                row.ended = self.ended(row.source, row.tokens)
        return chosen_N

    def _uniform(self, live: Sequence[_Row]) -> Tensor:
        """A number in [0, 1) for each row, fp32 [N]."""
        keys = [fold_seed(self.config.seed, "sample", row.source, row.sample, len(row.tokens)) for row in live]
        return torch.from_numpy(Noise(np.array(keys, dtype=np.uint64)).uniform("token", 1)[:, 0]).to(self.device)


class _BeamSearch(_Search):
    """See the module's docstring."""

    def run(self) -> list[list[Hypothesis]]:
        beams = self.config.num_beams
        live, logits_NV = self.begin(beams)
        for row in live:
            row.total = _HOPELESS if row.sample else 0.0  # the hypotheses of a source begin alike: one of them counts
        finished: list[list[Hypothesis]] = [[] for _ in self.prefixes]
        while True:
            totals_N = torch.tensor([row.total for row in live], device=self.device)
            scores_NV = self.allow(torch.log_softmax(logits_NV, dim=-1), live) + totals_N[:, None]
            best = scores_NV.view(len(live) // beams, -1).topk(2 * beams)
            size = scores_NV.shape[1]
            kept, order, following = list[int](), list[int](), list[_Row]()
            for number, (scores, places) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
                candidates = [
                    (number * beams + place // size, self._continued(live[number * beams + place // size], place % size, score))
                    for score, place in zip(scores, places, strict=True)
                ]
                going = self._finish(candidates, finished)
                if going:
                    kept.append(number)
                    order += [parent for parent, _ in going]
                    following += [row for _, row in going]
            if not following:
                return [found[: self.config.num_return_sequences] for found in finished]
            self.state.reorder(self._within(order, kept, len(live)))
            if len(kept) < len(live) // beams:
                self.state.keep(kept)
            live = following
            last_N = torch.tensor([row.tokens[-1] for row in live], device=self.device)
            logits_NV = self.decoder.next_logits(last_N, self.state)

    def _within(self, order: Sequence[int], kept: Sequence[int], count: int) -> Tensor:
        """int64 [N]: `order` for the sources that go on, the others where they are."""
        index = torch.arange(count, device=self.device)
        places = [number * self.config.num_beams + beam for number in kept for beam in range(self.config.num_beams)]
        index[places] = torch.tensor(order, device=self.device)
        return index

    def _continued(self, row: _Row, token: int, total: float) -> _Row:
        tokens = [*row.tokens, token]
        return _Row(source=row.source, sample=row.sample, tokens=tokens, total=total, ended=self.ended(row.source, tokens))

    def _finish(self, candidates: list[tuple[int, _Row]], finished: list[list[Hypothesis]]) -> list[tuple[int, _Row]]:
        """Put what has ended among the finished of its source; those that go on, none where the source is done."""
        config, beams = self.config, self.config.num_beams
        source = candidates[0][1].source
        found = finished[source]
        for _, row in candidates[:beams]:
            if row.ended is not None and not (config.early_stopping is True and len(found) == beams):
                found.append(self.hypothesis(row, row.total / self.length_of(row) ** config.length_penalty))
        found.sort(key=lambda one: -one.score)
        del found[beams:]
        going = [(parent, row) for parent, row in candidates if row.ended is None][:beams]
        if not going or (len(found) == beams and not self._can_improve(going[0][1], found[-1].score)):
            return []
        spare = [(parent, replace(row, total=_HOPELESS, ended=None)) for parent, row in candidates if row.ended is not None]
        return (going + spare)[:beams]

    def _can_improve(self, row: _Row, worst: float) -> bool:
        """Whether the best running hypothesis may still beat the worst finished one, by transformers' rules."""
        config = self.config
        if config.early_stopping is True:
            return False
        hopeful = config.early_stopping == "never" and config.length_penalty > 0
        length = config.max_new_tokens if hopeful else self.length_of(row)
        return row.total / float(max(length, 1) ** config.length_penalty) > worst


def _likeliest(logits_NV: Tensor) -> Tensor:
    """The first of the greatest of each row, int64 [N]; numpy finds it in a twentieth of torch's time on a CPU."""
    return torch.from_numpy(logits_NV.numpy().argmax(axis=-1)) if logits_NV.device.type == "cpu" else logits_NV.argmax(dim=-1)


def _drawn(logits_NV: Tensor, config: DecodingConfig, uniform_N: Tensor) -> Tensor:
    """A token for each row, int64 [N], by inverse CDF over what temperature, top_k and top_p leave."""
    scores_NV, order_NV = (logits_NV / config.temperature).sort(dim=-1, descending=True)
    if config.top_k:
        scores_NV[:, config.top_k :] = -torch.inf
    probability_NV = torch.softmax(scores_NV, dim=-1)
    before_NV = probability_NV.cumsum(-1) - probability_NV
    probability_NV = probability_NV.masked_fill(before_NV >= config.top_p, 0.0) if config.top_p < 1 else probability_NV
    cumulated_NV = probability_NV.cumsum(-1)
    threshold_N1 = uniform_N[:, None] * cumulated_NV[:, -1:]
    place_N1 = torch.searchsorted(cumulated_NV, threshold_N1, right=True).clamp_(max=scores_NV.shape[1] - 1)
    return order_NV.gather(1, place_N1)[:, 0]
