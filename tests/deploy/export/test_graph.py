"""Graphs: what is traced, and what onnxruntime runs, give what the network gives, for batches of any layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from electra.contracts import Example, Prediction
from electra.data.loader import in_order
from electra.deploy.graph import Graph, compare, write_graph
from electra.errors import ElectraError
from electra.models.model_dir import load_model_dir
from electra.predict.predictor import Predictor, plain_predictor, task_of
from electra.predict.session import SessionNetwork, Signature, open_session, reading, signature
from electra.tasks import task_config
from electra.tasks.common import EncodedExamples, rows_of
from electra.text.tokenizer import Tokenizer

Model = Callable[[str, str], Path]
Asked = Callable[[str], tuple[dict[str, Any], Sequence[Example]]]
Same = Callable[[Sequence[Prediction], Sequence[Prediction]], None]
#: the tasks of conftest.py
NAMES = ["classify", "tag", "span", "joint span", "relation", "embed", "embed by cls", "choice", "replaced", "score",
         "fill-mask"]  # fmt: skip
FAMILIES = ["classic", "modern", "recurrent"]


def plain(path: Path, task: str | None = None, settings: dict[str, Any] | None = None) -> Predictor:
    """As exports take it."""
    model = load_model_dir(path)
    return plain_predictor(model, task_of(model, task, settings=settings))


class Eager:
    """In the place of an onnxruntime session: runs in torch what would be traced."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name, shape=[None] * (3 if self.graph.choices else 2)) for name in self.graph.inputs]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in self.graph.outputs]

    def run(self, _: None, values: dict[str, Any]) -> list[Any]:
        found = self.graph(*(torch.from_numpy(np.ascontiguousarray(values[name])) for name in self.graph.inputs))
        return [tensor.detach().numpy() for tensor in (found if isinstance(found, tuple) else (found,))]


@pytest.fixture
def check(model: Model, asked: Asked, same: Same, tokenizer: Tokenizer) -> Callable[[str, str, Callable[[Graph], Any]], None]:
    """A session of the graph, called with batches of both layouts and under the predictor, gives what the network gives."""

    def run(family: str, name: str, session_of: Callable[[Graph], Any]) -> None:
        tree, examples = asked(name)
        untrained = tree["type"] in ("replaced", "score", "fill-mask")
        settings = {key: value for key, value in tree.items() if key != "type"}
        ours = plain(model(family, name), tree["type"] if untrained else None, settings if untrained else None)
        config = task_config(tree)
        expected = signature(config)
        assert expected is not None
        graph = Graph(ours.network, expected).eval()  # type: ignore[arg-type]
        network = SessionNetwork(session_of(graph), expected, reading(config, tokenizer.mask_id))
        rows = [row for example in examples for row in ours.task.encode(example)]
        for packed in (False, True):
            for _, batch in in_order(EncodedExamples(rows), 64, ours.task.pad_id, packed):
                with torch.inference_mode():
                    right, other = ours.network.eval()(batch), network(batch)
                assert right.shape == other.shape
                if ours.task.per_token:
                    right, other = (torch.cat(rows_of(values, batch.layout)) for values in (right, other))
                torch.testing.assert_close(other, right, atol=1e-4, rtol=1e-4)
        same(ours.predict(examples), Predictor(network, ours.task).predict(examples))

    return run


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_traced_takes_batches_of_any_layout(
    name: str, family: str, check: Callable[[str, str, Callable[[Graph], Any]], None]
) -> None:
    check(family, name, Eager)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        pytest.param(name, family, marks=() if (name, family) == ("relation", "recurrent") else pytest.mark.soak)
        for name in NAMES
        for family in FAMILIES
    ],
)
def test_onnxruntime_gives_what_torch_gives(
    name: str, family: str, check: Callable[[str, str, Callable[[Graph], Any]], None], tmp_path: Path
) -> None:
    def written(graph: Graph) -> Any:
        write_graph(graph, tmp_path / "model.onnx")
        session = open_session(tmp_path / "model.onnx")
        outputs = Signature(targets=tuple(set(graph.inputs) & {"head", "tail", "context"}), outputs=graph.outputs)
        assert len(compare(graph, SessionNetwork(session, outputs))) > 5
        return session

    check(family, name, written)


def test_a_graph_that_differs_is_named_with_its_worst_shape(model: Model) -> None:
    ours, others = (plain(model("classic", "classify")).network for _ in range(2))
    graph, other = (Graph(network, Signature()).eval() for network in (ours, others))  # type: ignore[arg-type]
    assert max(one.largest for one in compare(graph, SessionNetwork(Eager(graph), Signature()))) < 1e-6
    with torch.no_grad():
        others.get_parameter("head.classifier.bias")[0] += 0.01
    with pytest.raises(ElectraError, match=r"E-M712 onnx/model\.onnx: for inputs of \d+ x \d+ it differs by 0\.0"):
        compare(graph, SessionNetwork(Eager(other), Signature()))


def test_a_graph_of_another_task_is_refused(model: Model) -> None:
    graph = Graph(plain(model("classic", "classify")).network, Signature())  # type: ignore[arg-type]
    with pytest.raises(ElectraError, match=r"E-M711 .*makes logits .* needs last_hidden_state"):
        SessionNetwork(Eager(graph), Signature(outputs=("last_hidden_state",)))
