"""ONNX exports: under our predictor and in onnxruntime alone, quantised behind a gate, damaged, or of what has no graph."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import electra
from electra import storage
from electra.cli import app
from electra.contracts import Example, Prediction
from electra.deploy.export import Quality, export_model
from electra.errors import ElectraError
from electra.evaluate.run import evaluate_file
from electra.models.importing import import_model
from electra.models.model_dir import Provenance, load_model_dir, save_model_dir
from electra.predict.predictor import load
from electra.predict.session import GRAPH, SessionNetwork
from electra.text.tokenizer import Tokenizer

Model = Callable[[str, str], Path]
Asked = Callable[[str], tuple[dict[str, Any], Sequence[Example]]]
Same = Callable[[Sequence[Prediction], Sequence[Prediction]], None]


@pytest.fixture(scope="module")
def graph(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier as ONNX."""
    out = tmp_path_factory.mktemp("graph") / "g"
    export_model(model("classic", "classify"), out, "onnx")
    return out


@pytest.fixture(scope="module")
def labelled(model: Model, texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels as the classifier gives them: its accuracy is 1."""
    longer = [f"{a} {b}" for a in texts for b in ("a car", "rain", "the dog of the cat", "floods and a mat")]
    said = electra.load(model("classic", "classify")).predict(longer)
    path = tmp_path_factory.mktemp("labelled") / "dev.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{one.text}\t{one.output['label']}\n" for one in said), encoding="utf-8")
    return path


def test_a_classifier_is_predicted_with_and_evaluated(
    graph: Path, model: Model, labelled: Path, texts: list[str], same: Same, tmp_path: Path
) -> None:
    ours, theirs = electra.load(model("classic", "classify")), electra.load(graph)
    assert isinstance(theirs.network, SessionNetwork)
    same(ours.predict(texts), theirs.predict(texts))
    same(ours.predict(texts[:1]), theirs.predict(texts[:1]))
    assert evaluate_file(graph, labelled, resamples=0)["metrics"]["accuracy"] == 1.0
    printed = CliRunner().invoke(app, ["predict", str(graph), str(labelled)])
    assert len(printed.stdout.splitlines()) == 20
    manifest = json.loads((graph / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["precision"] == "fp32"
    assert [1, 1] in [one["shape"] for one in manifest["differences"]]
    assert [path.name for path in (graph / "onnx").iterdir()] == ["model.onnx"]
    with pytest.raises(ElectraError, match=r"E-M203 .*there is only onnx/model\.onnx"):
        import_model(graph, tmp_path / "back")


def test_onnxruntime_alone_gives_what_transformers_gives(graph: Path, model: Model, texts: list[str]) -> None:
    import onnxruntime
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    session = onnxruntime.InferenceSession(graph / GRAPH, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [output.name for output in session.get_outputs()] == ["logits"]
    given = dict(AutoTokenizer.from_pretrained(graph)(texts, padding=True, return_tensors="np"))
    [logits] = session.run(None, {name: array.astype(np.int64) for name, array in given.items()})
    foreign = AutoModelForSequenceClassification.from_pretrained(model("classic", "classify"))
    with torch.no_grad():
        right = foreign(**{name: torch.from_numpy(array) for name, array in given.items()}).logits
    np.testing.assert_allclose(logits, right.numpy(), atol=1e-4)


def test_vectors_of_texts_and_the_files_of_embedding_servers(
    model: Model, asked: Asked, same: Same, texts: list[str], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    import onnxruntime

    source, out = model("modern", "embed"), tmp_path / "out"
    export_model(source, out, "onnx")
    _, examples = asked("embed")
    same(load(source).predict(examples), load(out).predict(examples))
    session = onnxruntime.InferenceSession(out / GRAPH, providers=["CPUExecutionProvider"])
    ids = np.array([tokenizer.encode(texts[0]).ids])
    [hidden] = session.run(["last_hidden_state"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    assert json.loads((out / "1_Pooling" / "config.json").read_text(encoding="utf-8"))["pooling_mode_mean_tokens"] is True
    vector = hidden[0].mean(axis=0)
    ours = load(source).predict(texts[:1])[0].output["embedding"]
    np.testing.assert_allclose(vector / np.linalg.norm(vector), np.array(ours), atol=1e-4)


# -- int8 ---------------------------------------------------------------------------------------------------------------


def test_int8_is_measured_before_it_is_written(model: Model, graph: Path, labelled: Path, tmp_path: Path) -> None:
    source, out = model("classic", "classify"), tmp_path / "out"
    options = ["--to", "onnx", "--quantize", "int8", "--data", str(labelled), "--max-drop", "1"]
    printed = CliRunner().invoke(app, ["export", str(source), str(out), *options], catch_exceptions=False)
    assert "int8: accuracy 1.0000 in fp32" in printed.stdout
    gate = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["gate"]
    assert (gate["metric"], gate["fp32"], gate["examples"], gate["data"]) == ("accuracy", 1.0, 20, "dev.tsv")
    assert "Dynamic quantisation" in (out / "README.md").read_text(encoding="utf-8")
    assert b"DynamicQuantizeLinear" in (out / GRAPH).read_bytes()
    assert b"DynamicQuantizeLinear" not in (graph / GRAPH).read_bytes()
    assert evaluate_file(out, labelled, resamples=0)["metrics"]["accuracy"] == pytest.approx(gate["int8"])


def test_int8_that_is_too_much_worse_is_not_written(model: Model, labelled: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    loaded = load_model_dir(model("classic", "classify"))
    used = {token for line in labelled.read_text(encoding="utf-8").splitlines() for token in tokenizer.encode(line).ids}
    unused = next(token for token in range(tokenizer.vocab_size) if token not in used)
    with torch.no_grad():  # the table has one scale, and beside this row all others become 0
        loaded.encoder.get_parameter("embeddings.word_embeddings.weight")[unused] = 1e4
    save_model_dir(tmp_path / "m", encoder=loaded.encoder, head=loaded.task_head, labels=loaded.labels, task=loaded.task,
                   provenance=Provenance(tokenizer=tokenizer, card=str))  # fmt: skip
    with pytest.raises(ElectraError, match=r"E-M713 .*int8 loses 0\.\d+: accuracy 1\.0000 in fp32, 0\.\d+ in int8 on 20 ex"):
        export_model(tmp_path / "m", tmp_path / "out", "onnx", int8=Quality(data=labelled))
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


# -- what is wrong with an export ---------------------------------------------------------------------------------------


def _edit(path: Path, **changes: object) -> None:
    storage.write_json(path / "manifest.json", {**storage.read_manifest(path), **changes})


def _resealed(path: Path, content: bytes) -> None:
    """Another graph under a manifest that fits."""
    (path / GRAPH).write_bytes(content)
    files = storage.read_manifest(path)["files"]
    _edit(path, files={**files, GRAPH: {"size": len(content), "blake2b": storage.file_hash(path / GRAPH)}})


DAMAGE: dict[str, Callable[[Path], object]] = {
    r"E-M201 .*onnx/model\.onnx has \d": lambda path: (path / GRAPH).write_bytes(b"graph"),
    r"E-M201 .*onnx/model\.onnx is missing": lambda path: (path / GRAPH).unlink(),
    r"E-M201 .*task\.json has": lambda path: (path / "task.json").write_text("{}"),
    r"E-M202 .* 2 is not known": lambda path: _edit(path, format_version=2),
    r"E-M710 .*model\.onnx": lambda path: (path / "manifest.json").unlink(),
    "E-M711 .*cannot load": lambda path: _resealed(path, b"no graph at all"),
}


@pytest.mark.parametrize("expected", DAMAGE)
def test_a_damaged_or_foreign_export_is_one_clear_error(expected: str, graph: Path, tmp_path: Path) -> None:
    shutil.copytree(graph, tmp_path / "g")
    DAMAGE[expected](tmp_path / "g")
    with pytest.raises(ElectraError, match=expected):
        electra.load(tmp_path / "g")


def test_an_export_does_its_own_task_alone(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ElectraError, match=r"E-C714 .*exported for classify, not for embed"):
        electra.load(graph, "embed")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ElectraError, match=r"E-R710 .*electra-toolkit\[onnx\]"):
        electra.load(graph)


# -- what cannot be exported --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "task", "settings", "expected"),
    [
        ("replaced", "correct", {}, "E-C713 .*more than a pass"),
        ("replaced", "fill-mask", {"joint": True}, "E-C713 .*more than a pass"),
        ("replaced", "score", {"method": "pll"}, "E-C713 .*more than a pass"),
        ("replaced", None, {}, "E-C306"),
    ],
)
def test_what_is_more_than_one_pass_has_no_graph(
    name: str, task: str | None, settings: dict[str, Any], expected: str, model: Model, tmp_path: Path
) -> None:
    with pytest.raises(ElectraError, match=expected):
        export_model(model("classic", name), tmp_path / "out", "onnx", task=task, settings=settings)
    assert not list(tmp_path.iterdir())


def test_int8_needs_something_to_be_measured_on(model: Model, labelled: Path, tmp_path: Path) -> None:
    source, out = model("classic", "replaced"), tmp_path / "out"
    with pytest.raises(ElectraError, match="E-C713 .*no gold answers"):
        export_model(source, out, "onnx", task="replaced", int8=Quality(data=labelled))
    with pytest.raises(ElectraError, match="E-C712 --max-drop"):
        Quality(data=labelled, max_drop=float("nan"))
    for options, code in ((["--data", "dev.tsv"], "E-C710"), (["--quantize", "int8"], "E-C711")):
        failed = CliRunner().invoke(app, ["export", str(source), str(out), "--to", "onnx", *options])
        assert isinstance(failed.exception, ElectraError)
        assert failed.exception.code == code


def test_missing_packages_are_named(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ElectraError, match=r"E-R711 .*electra-toolkit\[onnx\]"):
        export_model(model("classic", "classify"), tmp_path / "out", "onnx")
    assert not list(tmp_path.iterdir())
