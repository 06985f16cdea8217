"""The OpenAPI schema: what FastAPI makes of the routes, with the server's models, an example for each task, and the errors.

In: an application and its models. Out: a schema whose examples can be sent as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from electra.deploy.served import ServedModel
from electra.deploy.service import TIMEOUT_HEADER, Service

_TEXT, _OTHER = "The captain leaves the old harbour.", "A ship is going out."
#: an input of each task
_INPUTS: dict[str, Any] = {
    "span": {"question": "Who leaves the harbour?", "context": _TEXT},
    "relation": {"text": _TEXT, "head": [4, 11], "tail": [23, 34]},
    "choice": {"text": "The captain leaves the", "choices": ["harbour.", "sandwich."]},
    "fill-mask": {"text": "The captain leaves the old [MASK]."},
}
_BODIES: dict[str, Any] = {
    "/v1/embeddings": {"input": [_TEXT, _OTHER]},
    "/embed": {"inputs": [_TEXT, _OTHER], "truncate": True},
    "/predict": {"inputs": _TEXT},
    "/rerank": {"query": _TEXT, "texts": [_OTHER, "It rains."], "truncate": True},
    "/v1/{model}/score": {"inputs": [_TEXT]},
    "/v1/{model}/generate": {"prompt": "The captain", "max_new_tokens": 8},
}
_ABILITY = {"/v1/embeddings": "embed", "/v1/{model}/score": "score", "/v1/{model}/generate": "generate"}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "mend"],
            "properties": {name: {"type": "string"} for name in ("code", "message", "path", "mend")},
        }
    },
}
_STATUS = {
    "400": "no JSON, or a header that cannot be read", "401": "no key, or a wrong one", "403": "a foreign Host or Origin",
    "404": "no such model", "408": "the body, or the computing, took too long", "413": "too much text",
    "415": "not declared as JSON", "422": "a field, or an input, does not fit", "429": "too much waits; see Retry-After",
    "503": "the model failed",
}  # fmt: skip


def add_schema(app: FastAPI, service: Service) -> None:
    """Let `app` give the schema of its models at /openapi.json."""
    found: dict[str, Any] = {}

    def schema() -> dict[str, Any]:
        if not found:
            found.update(_schema(app, list(service.models.values()), bool(service.settings.keys)))
        return found

    app.openapi = schema  # type: ignore[method-assign]


def _schema(app: FastAPI, models: list[ServedModel], keys: bool) -> dict[str, Any]:
    found = get_openapi(title=app.title, version=app.version, routes=app.routes)
    parts = found.setdefault("components", {})
    parts.setdefault("schemas", {})["Error"] = _ERROR
    for name in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(name, None)
    if keys:
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}]
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            if method == "post":
                _complete(path, operation, models)
    return found


def _complete(path: str, operation: dict[str, Any], models: list[ServedModel]) -> None:
    """The names of the models, examples, and errors of one route."""
    operation.setdefault("parameters", []).append({
        "name": TIMEOUT_HEADER, "in": "header", "required": False, "description": "seconds that the request may take",
        "schema": {"type": "string", "pattern": r"^\d{1,4}(\.\d{1,6})?$"},
    })  # fmt: skip
    for parameter in operation["parameters"]:
        if parameter["name"] == "model":
            parameter["schema"] = {"type": "string", "enum": [model.name for model in models]}
    [content] = operation["requestBody"]["content"].values()
    examples = {name: {"value": value} for name, value in _examples(path, models)}
    if examples:
        content["examples"] = examples
    operation["responses"].update({
        status: {"description": told, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
        for status, told in _STATUS.items()
    })  # fmt: skip


def _examples(path: str, models: Iterable[ServedModel]) -> Iterable[tuple[str, Any]]:
    if path in _BODIES:
        can = [model.name for model in models if path not in _ABILITY or _ABILITY[path] in model.abilities]
        for name in can if path in _ABILITY else ["any"]:
            yield name, {**({"model": name} if path == "/v1/embeddings" else {}), **_BODIES[path]}
    elif path == "/v1/{model}/predict":
        for model in models:
            for task in model.tasks if "predict" in model.abilities else ():
                fields = {"text": _TEXT, "pair": _OTHER} if model.describe()["pair"] else _TEXT
                yield f"{model.name}, {task}", {"inputs": [_INPUTS.get(task, fields)], "task": task}
