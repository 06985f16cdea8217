"""Requests of all models in, the work of one thread out: admission, queue, batches, fairness.

A request is let in or refused before its texts are read, by the number of requests and of tokens that wait, and by how long
these will take at the speed that was measured. What was let in is cut into pieces: rows, or whole inputs where a task asks its
network in rounds. When the worker is free it takes the pieces of the model that has had the least time, up to a budget of
tokens and of as many requests as fit: nothing waits for company, no timer runs. What is left of a long request goes to the end
of its model's queue, so that short ones pass. A model that has nothing to do saves up no time.

A batch that fails is computed again, each request by itself: only those that fail alone are told so, and their model is marked
until it has answered another. A request that is dropped (its caller has gone, its time is over) leaves the queue at once.

Whoever asks lives in an event loop, the worker in its own thread; torch does without Python's lock while it computes.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from electra.contracts import Encoded, Example
from electra.deploy.counters import Counters
from electra.deploy.refusal import Refusal
from electra.deploy.served import Skill
from electra.deploy.settings import QUEUED_TOKENS, TURN_SECONDS, TURN_TOKENS
from electra.errors import ElectraError

#: weight of the last turn in the measured speed
_NEWEST = 0.2
#: tokens of a turn whose speed says what the model can do: small ones pay for what all turns cost
_TELLING = 1024


@dataclass(eq=False, kw_only=True)
class Work:
    """What one request wants of one model.

    Args:
        lane: the model's name.
        result: is told, in its event loop, the answer or a `Refusal`.
        started: some of it has been computed.
        over: it has its answer, or nobody waits for one.
    """

    lane: str
    result: asyncio.Future[Any]
    started: bool = False
    over: bool = False


class _Part(NamedTuple):
    """What is computed of a work in one turn."""

    work: Work
    pieces: Sequence[Any]
    tokens: int


@dataclass(eq=False, kw_only=True)
class Questions(Work):
    """Inputs for a task.

    Args:
        skill: the task and its network; works of the same one share batches.
        inputs: examples with their rows.
    """

    skill: Skill
    inputs: Sequence[tuple[Example, list[Encoded]]]
    pieces: Sequence[Any] = field(init=False)
    found: list[Any] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.pieces = self.skill.pieces(self.inputs)

    @property
    def tokens(self) -> int:
        """Tokens that are to be computed."""
        return sum(map(self.skill.weight, self.pieces))

    def part(self, room: int) -> _Part:
        """The next pieces, one at least: as many as are begun before there are `room` tokens."""
        first = end = len(self.found)
        tokens = 0
        while end < len(self.pieces) and tokens < room:
            tokens += self.skill.weight(self.pieces[end])
            end += 1
        return _Part(self, self.pieces[first:end], tokens)


@dataclass(eq=False, kw_only=True)
class Writing(Work):
    """A text that is written piece by piece.

    Args:
        steps: gives the pieces; its value as a generator is the result.
        tell: is told each piece, in the event loop.
        tokens: that it may become.
        seconds: for which it has been written.
    """

    steps: Iterator[Any]
    tell: Callable[[Any], object]
    tokens: int
    seconds: float = 0.0


@dataclass(eq=False)
class _Lane:
    """A model's queue."""

    works: deque[Work] = field(default_factory=deque)
    seconds: float = 0.0
    tokens: int = 0
    speed: float | None = None
    failing: str | None = None


class Ticket:
    """A request's place among those that are waited for; a context manager, which gives it back."""

    def __init__(self, batcher: Batcher, lane: str, tokens: int) -> None:
        self._batcher, self._lane, self._tokens = batcher, lane, 0
        self.correct(tokens)

    def correct(self, tokens: int) -> None:
        """Say how many tokens it is, now that they have been counted."""
        self._batcher.counted(self._lane, tokens - self._tokens)
        self._tokens = tokens

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, *_: object) -> None:
        self.correct(0)
        self._batcher.left()


class Batcher:
    """The queue and its worker; see the module.

    Args:
        lanes: the models' names.
        most: requests that may be waited for.
        counters: are told what happens.
    """

    def __init__(self, lanes: Sequence[str], most: int, counters: Counters) -> None:
        self._lanes = {name: _Lane() for name in lanes}
        self._most, self._counters = most, counters
        self._requests, self._closed = 0, False
        self._now = 0.0  # what the model had had that was served last
        self._changed = threading.Condition()
        self._worker = threading.Thread(target=self._run, name="electra-worker", daemon=True)

    def start(self) -> None:
        self._worker.start()

    def close(self) -> None:
        """End the worker when what it is at is done."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._worker.join()

    @property
    def failing(self) -> Mapping[str, str | None]:
        """Of each model, the kind of error with which it last failed, or None since it answered."""
        return {name: lane.failing for name, lane in self._lanes.items()}

    @property
    def waiting(self) -> tuple[int, int, int]:
        """Requests that are waited for, those of them that are in the queue, and the tokens of all."""
        lanes = self._lanes.values()
        return self._requests, sum(len(lane.works) for lane in lanes), sum(lane.tokens for lane in lanes)

    # -- in the event loop ----------------------------------------------------------------------------------------------

    def check_room(self, seconds: float) -> None:
        """Refuse a request that has `seconds` where too much waits.

        Raises:
            Refusal: 429 with `Retry-After`: too many requests or tokens wait, or for longer than it has.
        """
        requests, _, waiting = self.waiting
        wait = sum(one.tokens / one.speed for one in self._lanes.values() if one.speed)
        if requests >= self._most or waiting >= QUEUED_TOKENS or wait > seconds:
            self._counters.add("electra_refused_total")
            raise Refusal(429, "E-S746", f"{requests} requests with about {waiting} tokens wait", "ask again later",
                          headers={"Retry-After": str(min(60, max(1, math.ceil(wait))))})  # fmt: skip

    def admit(self, lane: str, tokens: int, seconds: float) -> Ticket:
        """Let a request in, whose tokens are estimated. Raises Refusal 429, see `check_room`."""
        with self._changed:
            self.check_room(seconds)
            self._requests += 1
        return Ticket(self, lane, tokens)

    def counted(self, lane: str, tokens: int) -> None:
        with self._changed:
            self._lanes[lane].tokens += tokens

    def left(self) -> None:
        with self._changed:
            self._requests -= 1

    def put(self, work: Work) -> None:
        """Queue a work that has a ticket."""
        with self._changed:
            lane = self._lanes[work.lane]
            if not lane.works:  # it may not claim the time in which it had nothing to do
                lane.seconds = max(lane.seconds, self._now)
            lane.works.append(work)
            self._changed.notify()

    def drop(self, work: Work) -> None:
        """Forget a work; it leaves the queue now."""
        with self._changed:
            work.over = True
            with contextlib.suppress(ValueError):
                self._lanes[work.lane].works.remove(work)

    def mark(self, lane: str, error: Exception) -> None:
        """Say that a model failed."""
        self._lanes[lane].failing = type(error).__name__
        self._counters.add("electra_failures_total", model=lane)

    # -- in the worker --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (due := [lane for lane in self._lanes.values() if lane.works]):
                    if self._closed:
                        return
                    self._changed.wait()
                lane = min(due, key=lambda lane: lane.seconds)
                self._now = lane.seconds
                works = self._take(lane)
            began = time.perf_counter()
            if isinstance(works[0].work, Writing):
                self._write(works[0].work)
            else:
                self._compute(works)
            self._account(lane, works, time.perf_counter() - began)

    def _take(self, lane: _Lane) -> list[_Part]:
        """Works of one kind, out of the queue, with the pieces that are computed now."""
        first = lane.works.popleft()
        first.started = True
        if not isinstance(first, Questions):
            return [_Part(first, (), 0)]
        parts, left = [first.part(TURN_TOKENS)], deque[Work]()
        room = TURN_TOKENS - parts[0].tokens
        for work in lane.works:
            if room > 0 and isinstance(work, Questions) and work.skill is first.skill:
                parts.append(work.part(room))
                work.started = True
                room -= parts[-1].tokens
            else:
                left.append(work)
        lane.works = left
        return parts

    def _account(self, lane: _Lane, parts: Sequence[_Part], seconds: float) -> None:
        """Charge the model for its turn, measure its speed, and queue again what is not done."""
        first, tokens = parts[0].work, sum(part.tokens for part in parts)
        self._counters.add("electra_compute_seconds_total", seconds, model=first.lane)
        if isinstance(first, Writing):  # its tokens are known as a whole
            first.seconds += seconds
            measured = (first.tokens, first.seconds) if first.over else (0, 0.0)
        else:
            measured = tokens, seconds
            self._counters.add("electra_tokens_total", tokens, model=first.lane)
            self._counters.observe("electra_batch_tokens", tokens)
        with self._changed:
            lane.seconds += seconds
            if measured[0] >= _TELLING or (measured[0] and isinstance(first, Writing)):
                speed = measured[0] / max(measured[1], 1e-6)
                lane.speed = speed if lane.speed is None else (1 - _NEWEST) * lane.speed + _NEWEST * speed
            lane.works.extend(part.work for part in parts if not part.work.over)

    def _compute(self, parts: Sequence[_Part]) -> None:
        """One batch."""
        lane, [skill] = parts[0].work.lane, {part.work.skill for part in parts if isinstance(part.work, Questions)}
        try:
            found = skill.compute([piece for part in parts for piece in part.pieces])
        except Exception as error:
            if len(parts) == 1:
                self._failed(parts[0].work, error)
            else:  # whose fault was it?
                for part in parts:
                    self._compute([part])
            return
        self._lanes[lane].failing = None
        place = 0
        for work, pieces, _ in parts:
            assert isinstance(work, Questions)
            work.found += found[place : place + len(pieces)]
            place += len(pieces)
            if len(work.found) == len(work.pieces) and not work.over:
                self._finish(work)

    def _finish(self, work: Questions) -> None:
        try:
            self._settle(work, work.skill.finish(work.inputs, work.found))
        except Exception as error:
            self._failed(work, error)

    def _write(self, work: Writing) -> None:
        """Some pieces of a text."""
        ends = time.perf_counter() + TURN_SECONDS
        try:
            while not work.over and time.perf_counter() < ends:
                self._tell(work, partial(work.tell, next(work.steps)))
        except StopIteration as end:
            self._lanes[work.lane].failing = None
            self._settle(work, end.value)
        except ElectraError as error:
            self._settle(work, Refusal(422, error.code, f"{error.where}: {error.cause}", error.fix))
        except Exception as error:
            self._failed(work, error)

    def _failed(self, work: Work, error: Exception) -> None:
        if isinstance(error, Refusal):  # it is the request
            self._settle(work, error)
            return
        self.mark(work.lane, error)
        self._settle(work, failure(work.lane, error))

    def _settle(self, work: Work, result: object) -> None:
        work.over = True

        def tell() -> None:
            if work.result.done():
                return
            if isinstance(result, Refusal):
                work.result.set_exception(result)
            else:
                work.result.set_result(result)

        self._tell(work, tell)

    def _tell(self, work: Work, say: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody listens
            work.result.get_loop().call_soon_threadsafe(say)


def failure(model: str, error: Exception) -> Refusal:
    """What a caller is told whose model failed: the kind of the error, none of its words, which may hold text."""
    return Refusal(503, "E-S748", f"model {model!r} failed: {type(error).__name__}",
                   "ask again; if it fails again, the server has to be started anew: see its /readyz")  # fmt: skip
