"""What all routes share: a request's way through admission, reading, the queue and back, or out of it.

Texts become rows in threads of their own, so that the event loop stays free and the worker computes meanwhile. While a request
waits, its connection and its time are watched: where the caller has gone, or its time is over, it leaves the queue.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request

from electra.contracts import Example
from electra.deploy.batcher import Batcher, Questions, Work, Writing
from electra.deploy.counters import Counters
from electra.deploy.refusal import Refusal
from electra.deploy.served import Answer, ServedModel, Skill
from electra.deploy.settings import ServeSettings

#: seconds that a caller gives a request at most
TIMEOUT_HEADER = "X-Request-Timeout"
_READERS = 2
_SECONDS = re.compile(r"\d{1,4}(\.\d{1,6})?")


class Gone(Exception):
    """Nobody waits for the answer."""


class Service:
    """The models and their queue.

    Args:
        models: in the order of the command line.
        settings: of the server.

    Attributes:
        draining: the server ends: it still answers, but wants no more.
    """

    def __init__(self, models: Sequence[ServedModel], settings: ServeSettings) -> None:
        self.models = {model.name: model for model in models}
        self.settings, self.counters, self.draining = settings, Counters(), False
        self.batcher = Batcher(list(self.models), settings.queue, self.counters)
        self._readers = ThreadPoolExecutor(_READERS, "electra-reader")

    def start(self) -> None:
        self.batcher.start()

    def close(self) -> None:
        self.batcher.close()
        self._readers.shutdown(cancel_futures=True)

    def model(self, name: str) -> ServedModel:
        """A model by name. Raises Refusal 404 E-S736."""
        if name not in self.models:
            raise Refusal(404, "E-S736", f"no model is called {name!r:.80}", f"ask for one of: {', '.join(self.models)}")
        return self.models[name]

    def first(self, what: str, skill_of: Callable[[ServedModel], Skill | None]) -> tuple[ServedModel, Skill]:
        """The first model that can do something. Raises Refusal 422 E-S743: none can."""
        for model in self.models.values():
            if (skill := skill_of(model)) is not None:
                return model, skill
        raise Refusal(422, "E-S743", f"no model of this server can {what}", "see GET /v1/models for what they can")

    def seconds(self, request: Request) -> float:
        """How long a request may take. Raises Refusal 400 E-S731: the header is no number within the server's bound."""
        given = request.headers.get(TIMEOUT_HEADER)
        if given is None:
            return self.settings.timeout
        if not _SECONDS.fullmatch(given) or not 0 < float(given) <= self.settings.timeout:
            raise Refusal(400, "E-S731", f"{TIMEOUT_HEADER} is no number of seconds up to {self.settings.timeout:g}",
                          "mend it or leave it out")  # fmt: skip
        return float(given)

    async def ask(self, request: Request, model: ServedModel, skill: Skill, examples: Sequence[Example]) -> list[Answer]:
        """The answers to some inputs, in order.

        Raises:
            Refusal: 408, 422, 429 or 503.
            Gone: the caller has.
        """
        ends = time.monotonic() + (seconds := self.seconds(request))
        characters = sum(len(example.text) + len(example.pair or "") for example in examples)
        with self.batcher.admit(model.name, skill.estimate(characters), seconds) as ticket:
            loop = asyncio.get_running_loop()
            encoded = await loop.run_in_executor(self._readers, skill.encode, examples)
            work = Questions(lane=model.name, result=loop.create_future(), skill=skill, inputs=encoded)
            ticket.correct(work.tokens)
            answers: list[Answer] = await self._wait(request, work, ends)
        self.counters.add("electra_inputs_total", len(answers), model=model.name, task=skill.name)
        self.counters.add("electra_truncated_tokens_total", sum(answer.truncated for answer in answers), model=model.name)
        return answers

    async def write(self, request: Request, model: ServedModel, steps: Any, tokens: int) -> list[Any]:
        """All pieces that some writing gives."""
        ends = time.monotonic() + (seconds := self.seconds(request))
        pieces: list[Any] = []
        with self.batcher.admit(model.name, tokens, seconds):
            result = asyncio.get_running_loop().create_future()
            work = Writing(lane=model.name, result=result, steps=steps, tell=pieces.append, tokens=tokens)
            await self._wait(request, work, ends)
        self.counters.add("electra_inputs_total", model=model.name, task="generate")
        return pieces

    @asynccontextmanager
    async def writing(self, model: ServedModel, steps: Any, tokens: int, seconds: float) -> AsyncIterator[AsyncIterator[Any]]:
        """The pieces of some writing as they come; the last one is its result.

        Raises:
            Refusal: 429 at once; 408, 422 or 503 while it is read.
        """
        with self.batcher.admit(model.name, tokens, seconds):
            came: asyncio.Queue[Any] = asyncio.Queue()
            work = Writing(lane=model.name, result=asyncio.get_running_loop().create_future(), steps=steps,
                           tell=came.put_nowait, tokens=tokens)  # fmt: skip
            try:
                yield self._pieces(work, came, time.monotonic() + seconds)
            finally:
                self.batcher.drop(work)

    async def _pieces(self, work: Writing, came: asyncio.Queue[Any], ends: float) -> AsyncIterator[Any]:
        self.batcher.put(work)
        work.result.add_done_callback(lambda _: came.put_nowait(None))
        while True:
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + ends - time.monotonic()):
                    piece = await came.get()
            except TimeoutError:
                raise self._late(work) from None
            if piece is None:
                break
            yield piece
        yield await work.result

    async def _wait(self, request: Request, work: Work, ends: float) -> Any:
        """The result of a work, for as long as its caller is there and has time."""
        self.batcher.put(work)
        gone = asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait((work.result, gone), timeout=ends - time.monotonic(), return_when=asyncio.FIRST_COMPLETED)
            if work.result.done():
                return work.result.result()
            if gone.done():
                self.counters.add("electra_disconnected_total")
                raise Gone
            raise self._late(work)
        finally:
            gone.cancel()
            self.batcher.drop(work)

    def _late(self, work: Work) -> Refusal:
        self.counters.add("electra_expired_total")
        if work.started:
            return Refusal(408, "E-S739", "its time was over while it was computed", "give it more time, or send less text")
        return Refusal(429, "E-S747", "its time was over before its turn", "ask again later, or give it more time",
                       headers={"Retry-After": "1"})  # fmt: skip
