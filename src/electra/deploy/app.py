"""The routes: JSON in, JSON out; what stands behind each is `Service`.

A body is parsed strictly: UTF-8, one value, no NaN or Infinity, no name twice in an object, nesting that a parser can follow;
then by the models of `schemas`. An error names its place in the JSON.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from electra.deploy.batcher import failure
from electra.deploy.inputs import examples_of
from electra.deploy.page import add_page
from electra.deploy.refusal import Json, Refusal
from electra.deploy.schemas import PredictBody, ScoreBody
from electra.deploy.served import Answer, ServedModel, Skill
from electra.deploy.service import Service

_NO_ROUTE = {404: ("E-S735", "there is nothing at this path", "see /openapi.json"),
             405: ("E-S737", "this path does not take this method", "see /openapi.json")}  # fmt: skip


class StrictRequest(Request):
    """A request whose JSON is parsed strictly; `parsed` is what it was."""

    parsed: Any = None

    async def json(self) -> Any:
        try:
            text = (await self.body()).decode("utf-8")
            self.parsed = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once)
            return self.parsed
        except UnicodeDecodeError:
            raise _bad_json("is not UTF-8") from None
        except RecursionError:
            raise _bad_json("is nested too deep") from None
        except json.JSONDecodeError as error:
            raise _bad_json(f"is not JSON: {error.msg} at character {error.pos}") from None
        except ValueError as error:
            raise _bad_json(str(error) if isinstance(error, _Unfit) else "has a number that is too long") from None


class _Unfit(ValueError):
    """JSON that a parser would let pass."""


def _no_constant(name: str) -> None:
    raise _Unfit(f"has {name}, which is no number of JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Unfit("has an object with a name twice")
    return found


def _bad_json(cause: str) -> Refusal:
    return Refusal(400, "E-S730", f"the body {cause}", "send one JSON object in UTF-8")


class StrictRoute(APIRoute):
    """A route that reads `StrictRequest`s."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strict


def build_app(service: Service) -> FastAPI:
    """The application without its gate."""
    app = FastAPI(title="electra", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.router.route_class = StrictRoute
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _fault)
    app.add_exception_handler(RequestValidationError, _field_error)
    _add_state(app, service)
    _add_models(app, service)
    add_page(app)
    return app


async def _http_error(_: Request, error: Exception) -> Response:
    if isinstance(error, Refusal):
        return error.response()
    assert isinstance(error, HTTPException)
    code, message, mend = _NO_ROUTE.get(error.status_code, ("E-S730", "the request cannot be read", "send one JSON object"))
    return Refusal(error.status_code, code, message, mend, headers=error.headers).response()


async def _fault(_: Request, error: Exception) -> Response:
    """Our own fault: the gate says where."""
    return Refusal(500, "E-S750", "this is a bug of the server", "report what it wrote on standard error").response()


async def _field_error(_: Request, error: Exception) -> Response:
    """The first field that does not fit, by its path in the JSON."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    path = path_of(first["loc"][1:], error.body)
    return Refusal(422, "E-S742", first["msg"], "see /openapi.json for what this takes", path).response()


def path_of(places: Sequence[str | int], body: object) -> str:
    """`inputs[3].text`; names of alternatives of the schema, which are no places, are left out."""
    path, value = "", body
    for place in places:
        if isinstance(value, list) and isinstance(place, int) and place < len(value):
            path, value = f"{path}[{place}]", value[place]
        elif isinstance(value, dict) and isinstance(place, str):
            path, value = f"{path}.{place}", value.get(place)
    return path.lstrip(".")


# -- the server itself --------------------------------------------------------------------------------------------------


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/livez", summary="Whether the process lives")
    async def livez() -> Response:
        return Json({"live": True})

    @app.get("/readyz", summary="Whether requests should be sent here")
    async def readyz() -> Response:
        failing = service.batcher.failing
        ready = not service.draining and not any(failing.values())
        models = {name: "ready" if cause is None else f"failing: {cause}" for name, cause in failing.items()}
        return Json({"ready": ready, "ending": service.draining, "models": models}, 200 if ready else 503)

    @app.get("/metrics", summary="Figures, in Prometheus' text format")
    async def metrics() -> Response:
        requests, queued, tokens = service.batcher.waiting
        failing = service.batcher.failing
        page = service.counters.render({
            "electra_waiting_requests": ("Requests that are waited for.", {"": requests}),
            "electra_queued_requests": ("Those of them that have been read, and wait for their turn.", {"": queued}),
            "electra_waiting_tokens": ("Tokens of these, estimated until they are read.", {"": tokens}),
            "electra_model_ready": ("1, or 0 since the model failed.", {name: float(not failing[name]) for name in failing}),
        })  # fmt: skip
        return PlainTextResponse(page, media_type="text/plain; version=0.0.4")


# -- models -------------------------------------------------------------------------------------------------------------


def _add_models(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", summary="The models and what they can do")
    async def models() -> Response:
        failing = service.batcher.failing
        told = [{**model.describe(), "ready": failing[name] is None} for name, model in service.models.items()]
        return Json({"models": told})

    @app.post("/v1/{model}/predict", summary="What a model says about texts")
    async def predict(model: str, body: PredictBody, request: StrictRequest) -> Response:
        began, served = time.perf_counter(), service.model(model)
        skill = served.skill(body.task, {} if body.settings is None else body.settings.model_dump(exclude_none=True))
        return await _predictions(service, request, served, skill, body, began)

    @app.post("/v1/{model}/score", summary="How likely texts are, token by token")
    async def score(model: str, body: ScoreBody, request: StrictRequest) -> Response:
        began, served = time.perf_counter(), service.model(model)
        if "score" not in served.abilities:
            raise Refusal(422, "E-S743", f"model {model!r} has no network of pre-training, and cannot score",
                          "ask a pre-trained model")  # fmt: skip
        skill = served.skill("score", body.model_dump(include={"method", "reduce"}, exclude_none=True))
        return await _predictions(service, request, served, skill, body, began)


async def _predictions(
    service: Service, request: StrictRequest, model: ServedModel, skill: Skill, body: PredictBody | ScoreBody, began: float
) -> Response:
    many = isinstance(request.parsed["inputs"], list)
    answers = await service.ask(request, model, skill, examples_of(skill.task, body.inputs, "inputs", many))
    predictions = [{**answer.output, "truncated": answer.truncated} for answer in answers]
    return answered(service, model, {"model": model.name, "task": skill.name, "predictions": predictions,
                                     "milliseconds": round(1000 * (time.perf_counter() - began), 2)})  # fmt: skip


def answered(service: Service, model: ServedModel, content: object, truncated: Sequence[Answer] = ()) -> Response:
    """An answer; a model whose numbers are not finite has failed."""
    lost = sum(answer.truncated for answer in truncated)
    try:
        return Json(content, headers={"X-Truncated-Tokens": str(lost)} if lost else None)
    except ValueError as error:
        service.batcher.mark(model.name, error)
        raise failure(model.name, error) from None
