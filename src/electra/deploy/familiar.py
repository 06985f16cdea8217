"""Routes in the shapes of others, so that their clients work: OpenAI's /v1/embeddings, and /embed, /predict and /rerank of
text-embeddings-inference. Each of the latter is answered by the first model that can.

These replies have no place for how many tokens were not seen, so the header `X-Truncated-Tokens` says it where there were any;
text-embeddings-inference's clients are refused where a text does not fit, unless they send `"truncate": true`, as there.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import FastAPI
from starlette.responses import Response

from electra.contracts import Example
from electra.deploy.app import StrictRequest, answered
from electra.deploy.inputs import examples_of
from electra.deploy.refusal import Refusal
from electra.deploy.schemas import EmbedBody, EmbeddingsBody, InputFields, RerankBody, TextPredictBody
from electra.deploy.served import Answer, Skill
from electra.deploy.service import Service
from electra.tasks.embed import Embed


def add_familiar(app: FastAPI, service: Service) -> None:
    """Add the routes."""
    _add_vectors(app, service)
    _add_texts(app, service)


def _add_vectors(app: FastAPI, service: Service) -> None:
    @app.post("/v1/embeddings", summary="Vectors of texts, as OpenAI's")
    async def embeddings(body: EmbeddingsBody, request: StrictRequest) -> Response:
        model = service.model(body.model)
        if model.embedder is None:
            raise Refusal(422, "E-S743", f"model {model.name!r} makes no vectors", "ask one of task embed", "model")
        answers = await service.ask(request, model, model.embedder, _examples(model.embedder, body.input, request, "input"))
        tokens = sum(answer.tokens for answer in answers)
        data = [{"object": "embedding", "index": place, "embedding": _written(answer, body.encoding_format)}
                for place, answer in enumerate(answers)]  # fmt: skip
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return answered(service, model, {"object": "list", "model": model.name, "data": data, "usage": usage}, answers)

    @app.post("/embed", summary="Vectors of texts, as text-embeddings-inference's")
    async def embed(body: EmbedBody, request: StrictRequest) -> Response:
        model, skill = service.first("make vectors", lambda model: model.embedder)
        answers = await service.ask(request, model, skill, _examples(skill, body.inputs, request, "inputs"))
        _check_whole(answers, body.truncate, "inputs")
        return answered(service, model, [answer.output["embedding"] for answer in answers], answers)


def _add_texts(app: FastAPI, service: Service) -> None:
    @app.post("/predict", summary="Labels of texts, as text-embeddings-inference's")
    async def predict(body: TextPredictBody, request: StrictRequest) -> Response:
        model, skill = service.first("classify texts", lambda model: model.classifier)
        given = body.inputs
        many = isinstance(given, list) and isinstance(given[0], list)
        rows: list[list[str]] = [[given]] if isinstance(given, str) else given if many else [given]  # type: ignore[list-item, assignment]
        inputs = [InputFields(text=row[0], pair=row[1] if len(row) > 1 else None) for row in rows]
        answers = await service.ask(request, model, skill, examples_of(skill.task, inputs, "inputs", many))
        _check_whole(answers, body.truncate, "inputs")
        labels = [_labels(answer) for answer in answers]
        return answered(service, model, labels if many else labels[0], answers)

    @app.post("/rerank", summary="Texts by how well they fit a query, as text-embeddings-inference's")
    async def rerank(body: RerankBody, request: StrictRequest) -> Response:
        model, skill = service.first("compare texts", lambda model: model.reranker)
        if isinstance(skill.task, Embed):
            answers = await service.ask(request, model, skill, _examples(skill, [*body.texts, body.query], request, "texts"))
            vectors = np.array([answer.output["embedding"] for answer in answers], dtype=np.float32)
            scores: list[float] = (vectors[:-1] @ vectors[-1]).tolist()
        else:
            inputs = [InputFields(text=body.query, pair=text) for text in body.texts]
            answers = await service.ask(request, model, skill, examples_of(skill.task, inputs, "texts"))
            scores = [answer.output["score"] for answer in answers]
        _check_whole(answers, body.truncate, "texts")
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        ranks = [{"index": place, "score": scores[place], **({"text": body.texts[place]} if body.return_text else {})}
                 for place in order]  # fmt: skip
        return answered(service, model, ranks, answers)


def _examples(skill: Skill, texts: Sequence[str], request: StrictRequest, name: str) -> list[Example]:
    many = isinstance(request.parsed[name], list)
    return examples_of(skill.task, [InputFields(text=text) for text in texts], name, many)


def _check_whole(answers: Sequence[Answer], truncate: bool, path: str) -> None:
    """Raises Refusal 422 E-S744 where a text was cut though its caller did not allow it."""
    for place, answer in enumerate(answers):
        if answer.truncated and not truncate:
            raise Refusal(422, "E-S744", f"{answer.truncated} tokens of this text do not fit",
                          'send less text, or "truncate": true', f"{path}[{place}]")  # fmt: skip


def _written(answer: Answer, form: str) -> Any:
    vector = answer.output["embedding"]
    return vector if form == "float" else base64.b64encode(np.array(vector, dtype="<f4").tobytes()).decode()


def _labels(answer: Answer) -> list[dict[str, Any]]:
    """Every label with its probability, the best first."""
    scores = sorted(answer.output["scores"].items(), key=lambda one: -one[1])
    return [{"label": label, "score": score} for label, score in scores]
