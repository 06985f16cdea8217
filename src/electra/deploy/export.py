"""A model directory for others to run: `electra export MODEL OUT --to onnx|huggingface|sentence-transformers`.

    onnx                    a graph for onnxruntime and the servers that read it, as `predict.session` says; of `embed` also
                            the pooling, as sentence-transformers and servers of embeddings read it
    huggingface             the directory without what only electra reads; generator and discriminator are directories with a
                            tokenizer of their own, so that each of them loads by itself
    sentence-transformers   the encoder of an `embed` model, or of one that was not fine-tuned, with a pooling

A model directory has transformers' files already: the last two copy them. Every target is one sealed directory, whole or not
there. `electra import` is the way back from those with weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from electra import storage
from electra.config import to_tree
from electra.contracts import Example, Task, TrainableTask
from electra.deploy.graph import Difference, Graph, Portable, compare, write_graph
from electra.deploy.quantize import Gate, measured, quantize
from electra.errors import ElectraError
from electra.models import sentence_transformers
from electra.models.interchange import MODERN_CAUSAL
from electra.models.model_dir import FORMAT as MODEL_FORMAT
from electra.models.model_dir import FORMAT_VERSION as MODEL_FORMAT_VERSION
from electra.models.model_dir import ModelDir, load_model_dir, manifest_of
from electra.models.network_files import OWN_HEAD, read_json
from electra.predict.predictor import Predictor, plain_predictor, task_of
from electra.predict.session import FORMAT, FORMAT_VERSION, GRAPH, SessionNetwork, open_session, reading, signature
from electra.tasks.embed import Embed
from electra.tasks.replaced import ReplacedNetwork
from electra.tasks.score import ScoreNetwork
from electra.tasks.whole_texts import WholeTexts

Target = Literal["onnx", "huggingface", "sentence-transformers"]
#: what a network is, in transformers' files
_NETWORK = ("config.json", "model.safetensors", "generation_config.json")
#: what sentence-transformers has beside it
_POOLING = ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json", "2_Normalize/config.json")


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What an int8 graph is measured on.

    Args:
        data: a labelled file of the task.
        max_drop: how far the task's main metric may fall.
        columns: of the file, in the place of the task's own settings.
    """

    data: Path
    max_drop: float = 0.01
    columns: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop < float("inf"):
            raise ElectraError(
                "E-C712", "--max-drop", f"is {self.max_drop:g}", "give 0 or more; 0.01 is one point of a hundred"
            )


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Args:
        task: what it does; "" = nothing in particular.
        inputs, outputs: of a graph.
        differences: between the graph and the torch network, for each shape that was tried.
        gate: of an int8 graph.
        left_out: parts of the model directory that have no place in it.
    """

    task: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    gate: Gate | None = None
    left_out: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        """Of a graph."""
        return "fp32" if self.gate is None else "int8"


def export_model(
    source: Path,
    out: Path,
    target: Target,
    *,
    task: str | None = None,
    settings: Mapping[str, Any] | None = None,
    int8: Quality | None = None,
) -> Exported:
    """Write `out`, which must not exist.

    Args:
        source: a model directory.
        target: what for.
        task, settings: as of `predict.predictor.load`; huggingface takes none, sentence-transformers settings of `embed`.
        int8: quantise the graph of target onnx, if it stays as good as this says.

    Raises:
        ElectraError: E-C211 `out` exists, E-C712 what the target has no use for, E-C713 a task or network that it has no form
            for, E-M712 the graph differs from the network, E-M713 int8 is too much worse, E-R710, E-R711 missing packages; and
            those of `load`.
    """
    if out.exists():
        raise ElectraError("E-C211", str(out), "it exists already", "give another directory, or remove this one")
    if int8 is not None and target != "onnx":
        raise ElectraError("E-C712", "--quantize", f"{target} has weights in fp32 alone", "leave it out, or take --to onnx")
    model = load_model_dir(source)
    if target == "onnx":
        return _onnx(model, out, task, settings or {}, int8)
    if target == "huggingface":
        if task or settings:
            raise ElectraError("E-C712", "--task", "huggingface copies the model as it is", "leave task and settings out")
        return _huggingface(model, out)
    if task not in (None, "embed"):
        raise ElectraError("E-C712", "--task", "sentence-transformers embeds texts", "leave it out")
    return _sentence_transformers(model, out, settings or {})


# -- onnx ---------------------------------------------------------------------------------------------------------------


def _onnx(model: ModelDir, out: Path, name: str | None, settings: Mapping[str, Any], int8: Quality | None) -> Exported:
    config = task_of(model, name, settings=settings)
    expected, torch_predictor = signature(config), plain_predictor(model, config)
    network, task = torch_predictor.network, torch_predictor.task
    if expected is None or not isinstance(network, Portable):
        raise ElectraError("E-C713", str(model.path), f"task {config.type} is more than a pass of one network over whole texts",
                           "use the model directory itself")  # fmt: skip
    tokenizer = model.tokenizer()
    examples = [] if int8 is None else _labelled(task_of(model, name, int8.columns, settings).build(tokenizer), int8)
    graph = Graph(network, expected).eval()
    with storage.sealed_directory(out, manifest := _manifest(model, FORMAT, FORMAT_VERSION)) as temporary:
        file = temporary / GRAPH
        file.parent.mkdir()
        write_graph(graph, file)
        read = reading(config, tokenizer.mask_id)
        session = SessionNetwork(open_session(file), expected, read)
        differences, gate = compare(graph, session), None
        if int8 is not None:
            small = file.with_name("int8.onnx")
            quantize(file, small)
            quantised = SessionNetwork(open_session(small), expected, read)
            predictors = Predictor(session, task), Predictor(quantised, task)
            gate = measured(*predictors, examples, int8.data.name, int8.max_drop)
            small.replace(file)
        found = Exported(
            task=config.type, inputs=graph.inputs, outputs=graph.outputs, differences=differences, gate=gate
        )  # fmt: skip
        manifest |= {"precision": found.precision, "differences": [asdict(one) for one in differences]}
        manifest |= {} if gate is None else {"gate": asdict(gate)}
        _write_beside(temporary, model, graph, task)
        card = model.path / "README.md"
        before = card.read_text(encoding="utf-8") if card.is_file() else f"# {out.name}\n"
        (temporary / "README.md").write_text(before + _card_of(found), encoding="utf-8")
    return found


def _labelled(task: Task, int8: Quality) -> list[Example]:
    """The examples that int8 is measured on."""
    if not isinstance(task, TrainableTask):
        raise ElectraError("E-C713", "--quantize", "the task has no gold answers that int8 could be measured on",
                           "export it without --quantize")  # fmt: skip
    return list(task.read(int8.data).examples)


def _write_beside(directory: Path, model: ModelDir, graph: Graph, task: Task) -> None:
    """What goes with the graph: sizes, tokenizer, task."""
    place, network = model.path, graph.network
    if model.generator is not None and network.encoder is model.generator.encoder:
        place = place / "generator"
    elif isinstance(network, ReplacedNetwork | ScoreNetwork) and (place / "discriminator").is_dir():
        place = place / "discriminator"
    shutil.copyfile(place / "config.json", directory / "config.json")
    model.tokenizer().save(directory)
    tree = task.to_json() if isinstance(task, TrainableTask) else to_tree(cast(WholeTexts[Any], task).config)
    storage.write_json(directory / "task.json", tree)
    if graph.sizes.type != "recurrent":
        sentence_transformers.write(directory, tree, graph.sizes.hidden_size)


def _card_of(found: Exported) -> str:
    largest = max(one.largest for one in found.differences)
    gate = "" if found.gate is None else f"\n\nDynamic quantisation, measured before it was written: {found.gate}."
    return f"""
## ONNX

`{GRAPH}` runs task `{found.task}` in {found.precision}: {", ".join(found.inputs)} -> {", ".join(found.outputs)}. For
{len(found.differences)} shapes of inputs, the fp32 graph gave what the torch network gives, within {largest:.1g}. `electra
predict DIR` runs it, and so does anything that runs ONNX.{gate}
"""


# -- weights ------------------------------------------------------------------------------------------------------------


def _huggingface(model: ModelDir, out: Path) -> Exported:
    path, tokenizer = model.path, model.tokenizer()
    _check_classes(model)
    with storage.sealed_directory(out, _manifest(model, MODEL_FORMAT, MODEL_FORMAT_VERSION)) as temporary:
        _copy(path, temporary, (*_NETWORK, *_POOLING, "task.json", "README.md"))
        tokenizer.save(temporary)
        for part in ("discriminator", "generator"):
            if (path / part / "config.json").is_file():
                _copy(path / part, temporary / part, _NETWORK)
                tokenizer.save(temporary / part)
    return Exported(task=_task_name(model), left_out=("noise",) if model.noise is not None else ())


def _sentence_transformers(model: ModelDir, out: Path, settings: Mapping[str, Any]) -> Exported:
    trained = _task_name(model)
    if trained not in ("", "embed"):
        raise ElectraError("E-C713", str(model.path), f"its encoder was fine-tuned for {trained}, not to embed texts",
                           "fine-tune with task=embed, or export the model that it was fine-tuned from")  # fmt: skip
    _check_classes(model)
    task = plain_predictor(model, task_of(model, "embed", settings=settings)).task
    assert isinstance(task, Embed)
    with storage.sealed_directory(out, _manifest(model, MODEL_FORMAT, MODEL_FORMAT_VERSION)) as temporary:
        _copy(model.path, temporary, (*_NETWORK, "README.md"))
        model.tokenizer().save(temporary)
        storage.write_json(temporary / "task.json", task.to_json())
        sentence_transformers.write(temporary, task.to_json(), model.encoder.config.hidden_size)
    parts = [name for name in ("discriminator", "generator", "noise") if (model.path / name).is_dir()]
    return Exported(task="embed", left_out=tuple(parts))


def _check_classes(model: ModelDir) -> None:
    """Refuse what no class of transformers computes."""
    architectures = read_json(model.path / "config.json").get("architectures")
    causes = {
        "encoder, a convolution with LSTMs": model.encoder.config.type == "recurrent",
        "causal model of this family": architectures == [MODERN_CAUSAL],
        "head like that of its task": (model.path / OWN_HEAD).is_file(),
    }
    for cause, holds in causes.items():
        if holds:
            raise ElectraError("E-C713", str(model.path), f"transformers has no {cause}",
                               "use --to onnx, or the model directory itself")  # fmt: skip


def _copy(source: Path, out: Path, names: Sequence[str]) -> None:
    """Those of the files that there are."""
    for name in names:
        if (source / name).is_file():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, out / name)


def _task_name(model: ModelDir) -> str:
    return "" if model.task is None else str(model.task.get("type"))


def _manifest(model: ModelDir, form: str, version: int) -> dict[str, Any]:
    """The beginning of a manifest; that it was trained on a file is a fact of the copy, too."""
    trained_on = manifest_of(model.path).get("trained_on")
    return {"format": form, "format_version": version, **({"trained_on": trained_on} if trained_on else {})}
