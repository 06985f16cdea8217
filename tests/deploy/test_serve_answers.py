"""What a server answers: as the predictor does, for every task, in our own shapes and in those of others."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.deploy.conftest import TASKS, Server

from electra.contracts import Example
from electra.predict.predictor import load

TEXT = "the good film was bad"
#: for each model, inputs as a caller writes them and as examples
INPUTS: dict[str, list[tuple[Any, Example]]] = {
    "sentiment": [(TEXT, Example(text=TEXT)), ("", Example(text="")), ({"text": "bad " * 50}, Example(text="bad " * 50))],
    "topics": [(TEXT, Example(text=TEXT)), ({"text": TEXT, "pair": "Bill"}, Example(text=TEXT, pair="Bill"))],
    "similar": [({"text": TEXT, "pair": "bad"}, Example(text=TEXT, pair="bad"))],
    "names": [("Bill was born in Seattle " * 12, Example(text="Bill was born in Seattle " * 12))],
    "answers": [({"question": "who was born", "context": "Bill was born. " * 9},
                 Example(text="who was born", pair="Bill was born. " * 9))],
    "relations": [({"text": SENTENCE, "head": [0, 4], "tail": [17, 24]},
                   Example(text=SENTENCE, given={"head": (0, 4, None), "tail": (17, 24, None)}))
                  for SENTENCE in ["Bill was born in Seattle"]],
    "endings": [({"text": "the film was", "choices": ["good", "in Seattle"]},
                 Example(text="the film was", given={"choices": ["good", "in Seattle"]}))],
    "vectors": [(TEXT, Example(text=TEXT)), ({"text": TEXT, "pair": "Bill"}, Example(text=TEXT, pair="Bill"))],
}  # fmt: skip


def flat(tree: Any) -> Any:
    """Numbers to be compared up to rounding."""
    if isinstance(tree, dict):
        return {key: flat(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [flat(value) for value in tree]
    return pytest.approx(tree, abs=1e-5) if isinstance(tree, float) else tree


@pytest.mark.parametrize("name", TASKS)
def test_every_task_answers_as_its_predictor(server: Server, model_dirs: dict[str, Path], name: str) -> None:
    asked = [given for given, _ in INPUTS[name]]
    expected = list(load(model_dirs[name]).stream(example for _, example in INPUTS[name]))
    reply = server.predict(name, *asked)
    assert reply.status == 200, reply.body
    assert reply.json["model"] == name
    assert reply.json["task"] == TASKS[name]["type"]
    for said, prediction in zip(reply.json["predictions"], expected, strict=True):
        assert said.pop("truncated") == prediction.truncated
        if name == "sentiment":
            scores = said.pop("scores")
            assert sum(scores.values()) == pytest.approx(1)
            assert next(iter(scores)) == said["label"]
        assert said == flat(dict(prediction.output))
    alone = server.post(f"/v1/{name}/predict", {"inputs": asked[0]})
    assert len(alone.json["predictions"]) == 1


@pytest.mark.parametrize("task", ["replaced", "fill-mask", "score", "correct"])
def test_a_pre_trained_pair_answers_every_task_of_its_networks(server: Server, model_dirs: dict[str, Path], task: str) -> None:
    text = "the good [MASK] was bad"
    [expected] = load(model_dirs["pair"], task).predict([text])
    [said] = server.predict("pair", text, task=task).json["predictions"]
    assert {name: value for name, value in said.items() if name != "truncated"} == flat(dict(expected.output))


def test_settings_of_a_task(server: Server, model_dirs: dict[str, Path]) -> None:
    reply = server.predict("pair", "a [MASK] film", task="fill-mask", settings={"top_k": 2, "joint": True})
    assert len(reply.json["predictions"][0]["masks"][0]) == 2
    assert "sequence" in reply.json["predictions"][0]["joint"]
    [expected] = load(model_dirs["pair"], "score", settings={"method": "pll", "reduce": "mean"}).predict([TEXT])
    [said] = server.post("/v1/pair/score", {"inputs": [TEXT], "method": "pll", "reduce": "mean"}).json["predictions"]
    assert said["score"] == pytest.approx(expected.output["score"], abs=1e-5)
    assert server.predict("pair", TEXT, settings={"top_k": 2}).json["error"]["path"] == "settings.top_k"
    assert server.predict("pair", TEXT, task="score", settings={"method": "electric"}).status == 422


def test_the_models_are_listed_with_what_they_can_do(server: Server) -> None:
    models = {model["name"]: model for model in server.ask("GET", "/v1/models").json["models"]}
    assert list(models) == [*TASKS, "pair", "writer"]
    assert models["sentiment"]["labels"] == ["bad", "good"]
    assert models["similar"]["pair"] is True
    assert models["similar"]["abilities"] == ["predict", "rerank"]
    assert models["vectors"]["abilities"] == ["predict", "embed", "rerank"]
    assert models["pair"]["tasks"] == ["replaced", "fill-mask", "score", "correct"]
    assert models["pair"]["abilities"] == ["predict", "score"]
    assert models["writer"]["abilities"] == ["generate"]
    assert all(model["ready"] for model in models.values())
    assert all(model["task"] == TASKS[name]["type"] for name, model in models.items() if name in TASKS)


def test_a_model_writes_at_once_and_in_pieces(server: Server) -> None:
    asked = {"prompt": "the good", "max_new_tokens": 12, "do_sample": True, "seed": 3}
    [whole] = server.post("/v1/writer/generate", asked).json["predictions"]
    assert whole["tokens"] == 12 or whole["ended"] == "end"
    reply = server.post("/v1/writer/generate", {**asked, "stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in reply.body.decode().split("\n\n") if line]
    assert "".join(event["text"] for event in events[:-1]) == whole["generated_text"]
    assert events[-1] == {"done": True, "ended": whole["ended"], "truncated": 0}
    several = server.post("/v1/writer/generate", {"inputs": ["the", "a"], "num_beams": 2, "num_return_sequences": 2,
                                                  "max_new_tokens": 3}).json["predictions"]  # fmt: skip
    assert [len(one["sequences"]) for one in several] == [2, 2]


def test_vectors_as_others_give_them(server: Server, model_dirs: dict[str, Path]) -> None:
    texts = [TEXT, "Bill was born in Seattle"]
    expected = [prediction.output["embedding"] for prediction in load(model_dirs["vectors"]).predict(texts)]
    found = server.post("/v1/embeddings", {"model": "vectors", "input": texts}).json
    assert [one["embedding"] for one in found["data"]] == flat(expected)
    assert found["usage"]["total_tokens"] > 0
    coded = server.post("/v1/embeddings", {"model": "vectors", "input": texts[0], "encoding_format": "base64"}).json
    assert np.frombuffer(base64.b64decode(coded["data"][0]["embedding"]), "<f4") == pytest.approx(expected[0], abs=1e-5)
    assert server.post("/embed", {"inputs": texts}).json == flat(expected)
    long = server.post("/embed", {"inputs": ["bad", "bad " * 40]})
    assert (long.status, long.code, long.json["error"]["path"]) == (422, "E-S744", "inputs[1]")
    cut = server.post("/embed", {"inputs": "bad " * 40, "truncate": True})
    assert int(cut.headers["x-truncated-tokens"]) > 0


def test_labels_and_ranks_as_text_embeddings_inference_gives_them(server: Server) -> None:
    [said] = server.predict("sentiment", TEXT).json["predictions"]
    alone = server.post("/predict", {"inputs": TEXT}).json
    assert alone == [{"label": label, "score": pytest.approx(score)} for label, score in said["scores"].items()]
    assert server.post("/predict", {"inputs": [[TEXT], ["bad"]]}).json[0] == alone
    texts = ["bad", "Bill was born", TEXT]
    ranks = server.post("/rerank", {"query": TEXT, "texts": texts, "return_text": True}).json
    by_pairs = [
        one["score"] for one in server.predict("similar", *({"text": TEXT, "pair": text} for text in texts)).json["predictions"]
    ]
    assert [one["score"] for one in ranks] == pytest.approx(sorted(by_pairs, reverse=True))
    assert all(texts[one["index"]] == one["text"] for one in ranks)


def test_every_example_of_the_schema_is_answered(server: Server) -> None:
    schema, sent = server.ask("GET", "/openapi.json").json, 0
    for path, operations in schema["paths"].items():
        if "post" not in operations:
            continue
        [content] = operations["post"]["requestBody"]["content"].values()
        for name, example in content["examples"].items():
            reply = server.post(path.replace("{model}", name.split(",")[0]), example["value"])
            assert reply.status == 200, (path, name, reply.body)
            sent += 1
    assert sent >= len(TASKS) + 4 + 5
    names = {parameter["name"] for parameter in schema["paths"]["/v1/{model}/predict"]["post"]["parameters"]}
    assert names == {"model", "X-Request-Timeout"}


def test_figures_are_those_of_prometheus(server: Server) -> None:
    before, inputs = server.figure("electra_requests_total"), server.figure("electra_inputs_total")
    assert server.predict("sentiment", TEXT, "bad").status == 200
    assert server.figure("electra_inputs_total") == inputs + 2
    assert server.figure("electra_requests_total") >= before + 3
    page = server.ask("GET", "/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = page.body.decode().splitlines()
    assert 'electra_requests_total{route="/v1/{model}/predict",status="200"}' in {line.rpartition(" ")[0] for line in lines}
    kinds = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    for line in lines:
        if not line.startswith("#"):
            name = line.split("{")[0].split(" ")[0]
            assert {name, name.rsplit("_", 1)[0]} & kinds
            float(line.split()[-1])
    assert 'electra_model_ready{model="pair"} 1' in lines
