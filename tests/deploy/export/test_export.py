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
def labelled(model: Model, texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels as the classifier gives them: its accuracy is 1."""
    longer = [f"{a} {b}" for a in texts for b in ("a car", "rain", "the dog of the cat", "floods and a mat")]
    said = electra.load(model("classic", "classify")).predict(longer)
    assert len({one.output["label"] for one in said}) > 1
    path = tmp_path_factory.mktemp("labelled") / "dev.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{one.text}\t{one.output['label']}\n" for one in said), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def small(model: Model, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A classifier as an int8 graph, and what the verb printed."""
    source, out = model("classic", "classify"), tmp_path_factory.mktemp("graph") / "g"
    options = ["--to", "onnx", "--quantize", "int8", "--data", str(labelled), "--max-drop", "1"]
    return out, CliRunner().invoke(app, ["export", str(source), str(out), *options], catch_exceptions=False).stdout


# -- what runs it -------------------------------------------------------------------------------------------------------


def test_vectors_by_our_predictor_by_onnxruntime_alone_and_by_transformers(
    model: Model, asked: Asked, same: Same, texts: list[str], tmp_path: Path
) -> None:
    import onnxruntime
    from transformers import AutoModel, AutoTokenizer

    source, out = model("modern", "embed"), tmp_path / "out"
    found = export_model(source, out, "onnx")
    assert len(found.differences) > 5
    assert [path.name for path in (out / "onnx").iterdir()] == ["model.onnx"]
    ours, theirs = load(source), load(out)
    assert isinstance(theirs.network, SessionNetwork)
    _, examples = asked("embed")
    same(ours.predict(examples), theirs.predict(examples))
    same(ours.predict(texts[:1]), theirs.predict(texts[:1]))

    session = onnxruntime.InferenceSession(out / GRAPH, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["input_ids", "attention_mask"]
    tokens = AutoTokenizer.from_pretrained(out)(texts, padding=True, return_tensors="np")
    given = {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
    [hidden] = session.run(["last_hidden_state"], given)
    with torch.no_grad():
        right = AutoModel.from_pretrained(source)(**{name: torch.from_numpy(array) for name, array in given.items()})
    real = given["attention_mask"].astype(bool)
    np.testing.assert_allclose(hidden[real], right.last_hidden_state.numpy()[real], atol=1e-4)
    assert json.loads((out / "1_Pooling" / "config.json").read_text(encoding="utf-8"))["pooling_mode_mean_tokens"] is True
    mean = (hidden * real[..., None]).sum(axis=1) / real.sum(axis=1, keepdims=True)
    expected = np.array(ours.predict(texts[:1])[0].output["embedding"])
    np.testing.assert_allclose(mean[0] / np.linalg.norm(mean[0]), expected, atol=1e-4)
    with pytest.raises(ElectraError, match=r"E-M203 .*there is only onnx/model\.onnx"):
        import_model(out, tmp_path / "back")


# -- int8 ---------------------------------------------------------------------------------------------------------------


def test_int8_is_measured_before_it_is_written(small: tuple[Path, str], labelled: Path) -> None:
    out, printed = small
    assert "graph: int8, input_ids, attention_mask, token_type_ids -> logits" in printed
    assert "int8: accuracy 1.0000 in fp32" in printed
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["precision"] == load(out).precision == "int8"
    assert [1, 1] in [one["shape"] for one in manifest["differences"]]
    gate = manifest["gate"]
    assert (gate["metric"], gate["fp32"], gate["examples"], gate["data"]) == ("accuracy", 1.0, 20, "dev.tsv")
    assert "Dynamic quantisation" in (out / "README.md").read_text(encoding="utf-8")
    assert b"DynamicQuantizeLinear" in (out / GRAPH).read_bytes()
    assert [path.name for path in (out / "onnx").iterdir()] == ["model.onnx"]
    assert evaluate_file(out, labelled, resamples=0)["metrics"]["accuracy"] == pytest.approx(gate["int8"])
    assert len(CliRunner().invoke(app, ["predict", str(out), str(labelled)]).stdout.splitlines()) == 20


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
def test_a_damaged_or_foreign_export_is_one_clear_error(expected: str, small: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(small[0], tmp_path / "g")
    DAMAGE[expected](tmp_path / "g")
    with pytest.raises(ElectraError, match=expected):
        electra.load(tmp_path / "g")


def test_an_export_does_its_own_task_alone(small: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ElectraError, match=r"E-C714 .*exported for classify, not for embed"):
        electra.load(small[0], "embed")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ElectraError, match=r"E-R710 .*electra-toolkit\[onnx\]"):
        electra.load(small[0])


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
    with pytest.raises(ElectraError, match=r"E-C713 .*no gold answers"):
        export_model(source, out, "onnx", task="replaced", int8=Quality(data=labelled))
    with pytest.raises(ElectraError, match=r"E-C712 --max-drop: is nan"):
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
