"""The route of models that write: whole outputs as JSON, or one output as server-sent events while it is written.

    data: {"text": " and so"}
    data: {"done": true, "ended": "length", "truncated": 0}

A request that is refused before anything was written has a status of its own; later the last event says what was wrong:
`data: {"error": {...}}`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response, StreamingResponse

from electra.deploy.app import StrictRequest, answered
from electra.deploy.refusal import Refusal, to_json
from electra.deploy.schemas import GenerateBody
from electra.deploy.served import ServedModel
from electra.deploy.service import Service
from electra.deploy.settings import CHARACTERS
from electra.errors import ElectraError
from electra.models.decoding_config import DecodingConfig
from electra.predict.writer import Draft, Writer

#: tokens that may be written for one request, of all texts and hypotheses together
WRITTEN_TOKENS = 8192


def add_writing(app: FastAPI, service: Service) -> None:
    """Add the route."""

    @app.post("/v1/{model}/generate", summary="What a model writes: behind a prompt, or of a source text")
    async def generate(model: str, body: GenerateBody, request: StrictRequest) -> Response:
        began, served = time.perf_counter(), service.model(model)
        if served.writer is None:
            raise Refusal(422, "E-S743", f"model {model!r} does not write", "ask a causal model, or one of task generate")
        texts, config = _texts(body), _config(body, served.writer)
        tokens = sum(map(len, texts)) + config.max_new_tokens * len(texts)
        if body.stream:
            return await _streamed(service, request, served, _steps(served.writer, texts[0], config, body.stop), tokens)
        drafts = served.writer.drafts(texts, config, body.stop)
        found: list[list[Draft]] = await service.write(request, served, drafts, tokens)
        predictions = [{**_told(some[0]), **({"sequences": [_told(one) for one in some]} if len(some) > 1 else {})}
                       for some in found]  # fmt: skip
        return answered(service, served, {"model": model, "task": "generate", "predictions": predictions,
                                          "milliseconds": round(1000 * (time.perf_counter() - began), 2)})  # fmt: skip


def _told(draft: Draft) -> dict[str, Any]:
    """A draft in the key of transformers' pipeline."""
    told = {name: value for name, value in asdict(draft).items() if name not in ("prompt", "text", "critic")}
    return {"generated_text": draft.text, **told}


def _texts(body: GenerateBody) -> list[str]:
    """The texts, and that what is asked of them may be.

    Raises:
        Refusal: 422 E-S742 neither or both of `prompt` and `inputs`, or several streams; 413 E-S740; 422 E-S745.
    """
    if (body.prompt is None) == (body.inputs is None):
        raise Refusal(422, "E-S742", "either prompt or inputs has the texts", "give one of them", "prompt")
    name, texts = ("prompt", body.prompt) if body.prompt is not None else ("inputs", body.inputs or [])
    if sum(map(len, texts)) > CHARACTERS:
        raise Refusal(413, "E-S740", f"the texts have more than {CHARACTERS:,} characters", "send less text at once", name)
    width = max(body.num_beams, body.num_return_sequences)
    if body.stream and (len(texts) > 1 or width > 1):
        raise Refusal(422, "E-S742", "one output of one text is streamed", "send one text, without beams", "stream")
    if body.max_new_tokens * width * len(texts) > WRITTEN_TOKENS:
        raise Refusal(422, "E-S745", f"more than {WRITTEN_TOKENS:,} tokens would be written for this request",
                      "ask for fewer texts, outputs or tokens", "max_new_tokens")  # fmt: skip
    return list(texts)


def _config(body: GenerateBody, writer: Writer) -> DecodingConfig:
    """How it is written. Raises Refusal 422 where the values do not go together, or leave no room for a prompt."""
    names = ("max_new_tokens", "num_beams", "num_return_sequences", "do_sample", "temperature", "top_k", "top_p", "seed")
    try:
        config = DecodingConfig(**{name: getattr(body, name) for name in names})
        if writer.reader is None and config.max_new_tokens > writer.positions - 2:
            raise ElectraError("E-C626", "max_new_tokens", f"the model reads {writer.positions} tokens, which leaves no room "
                               "for a prompt", f"give at most {writer.positions - 2}")  # fmt: skip
    except ElectraError as error:
        raise Refusal(422, error.code, error.cause, error.fix, error.where) from None
    return config


def _steps(writer: Writer, text: str, config: DecodingConfig, stop: list[str]) -> Generator[bytes, None, bytes]:
    """The events of one output, its pieces; the last one, why it ended, as the generator's value."""
    truncated = writer.excess(text, config)
    written = writer.stream(text, config, stop)
    while True:
        try:
            yield _event({"text": next(written)})
        except StopIteration as end:
            return _event({"done": True, "ended": end.value, "truncated": truncated})


def _event(content: object) -> bytes:
    return b"data: " + to_json(content) + b"\n\n"


async def _streamed(
    service: Service, request: StrictRequest, model: ServedModel, steps: Iterator[bytes], tokens: int
) -> Response:
    """The reply once there is a first event: so what is refused until then has its own status."""
    writing = service.writing(model, steps, tokens, service.seconds(request))
    pieces = await writing.__aenter__()
    try:
        first = await anext(pieces)
    except BaseException as error:
        await writing.__aexit__(type(error), error, None)
        raise

    async def events() -> AsyncIterator[bytes]:
        try:
            yield first
            async for piece in pieces:
                yield piece
        except Refusal as refusal:
            yield _event({"error": refusal.error()})
        finally:
            await writing.__aexit__(None, None, None)

    return StreamingResponse(events(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
