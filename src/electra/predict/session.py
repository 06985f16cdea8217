"""Networks that onnxruntime runs: the directories that `electra export --to onnx` writes, and a `Batch` through their graph.

    onnx/model.onnx         the graph
    config.json             of its network, as servers expect it
    task.json               what it does
    tokenizer.json ...      the tokenizer
    README.md               the card
    manifest.json           precision, how far the graph is from the torch network; size and hash of every file

A graph takes one text a row, int64 [N, M]: `input_ids`, `attention_mask` (1 = token, 0 = padding behind it) and, if its network
has types, `token_type_ids`; of choices [B, K, M]. What else it takes are targets of the batch by their own names. What it gives
is called as in transformers (`signature`). A batch of any layout is laid out so first, and what comes back is put in its place.

Shapes: B rows of a batch, L their positions, T all positions, N texts, M longest text, K texts of a row at most, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from electra.contracts import Batch, Padded
from electra.errors import ElectraError
from electra.models import hf_config
from electra.models.documents import Documents
from electra.models.encoder import EncoderConfig
from electra.models.heads import EmbedHead
from electra.models.model_dir import manifest_of, verify
from electra.models.network_files import read_json
from electra.tasks import AnyTaskConfig
from electra.tasks.choice import ChoiceConfig
from electra.tasks.classify import ClassifyConfig
from electra.tasks.embed import EmbedConfig
from electra.tasks.fill_mask import FillMaskConfig, best_tokens
from electra.tasks.multilabel import MultilabelConfig
from electra.tasks.regression import RegressionConfig
from electra.tasks.relation import RelationConfig
from electra.tasks.replaced import ReplacedConfig
from electra.tasks.score import EnergyNetwork, OriginalNetwork, ScoreConfig
from electra.tasks.span import SpanConfig
from electra.tasks.tag import TagConfig
from electra.text.tokenizer import Tokenizer
from electra.text.tokenizer import load as load_tokenizer

FORMAT, FORMAT_VERSION = "electra onnx export", 1
#: where servers of embeddings, transformers.js and others look for it
GRAPH = "onnx/model.onnx"
TOKENS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a graph takes beside tokens, mask and types, and what it gives.

    Args:
        targets: of the batch, by name.
        outputs: in transformers' names; several are scores of the same tokens.
        per_token: the outputs have an entry for every token.
    """

    targets: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ("logits",)
    per_token: bool = False


def signature(config: AnyTaskConfig) -> Signature | None:
    """That of a task's graph; None for tasks that are no single pass of one network over whole texts."""
    match config:
        case ClassifyConfig() | MultilabelConfig() | RegressionConfig() | ChoiceConfig():
            return Signature()
        case RelationConfig():
            return Signature(targets=("head", "tail") if config.head == "mentions" else ())
        case TagConfig() | ReplacedConfig() | FillMaskConfig():
            return Signature(per_token=True)
        case ScoreConfig() if config.method in _SCORES:
            return Signature(per_token=True)
        case SpanConfig() if config.head == "plain":
            return Signature(outputs=("start_logits", "end_logits"), per_token=True)
        case SpanConfig():
            return Signature(targets=("context",), per_token=True)
        case EmbedConfig():
            return Signature(outputs=("last_hidden_state",), per_token=True)
        case _:
            return None


_SCORES: Mapping[str, Callable[[Tensor], Tensor]] = {"rtd": OriginalNetwork.scores, "electric": EnergyNetwork.scores}


# -- directories --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Export:
    """A directory that `electra export --to onnx` wrote.

    Args:
        path: where it is.
        task: task.json.
        encoder: the sizes of the network.
        precision: what the graph computes in, `fp32` or `int8`.
    """

    path: Path
    task: Mapping[str, Any]
    encoder: EncoderConfig
    precision: str

    def tokenizer(self) -> Tokenizer:
        """Of the directory."""
        return load_tokenizer(self.path)

    def network(self, config: AnyTaskConfig, mask_id: int) -> SessionNetwork:
        """The graph, called with a `Batch`; returns what the task's `decode` takes.

        Args:
            config: the task; that of task.json, perhaps with other settings.
            mask_id: id of [MASK].

        Raises:
            ElectraError: E-C714 another task than the graph's, E-M711 a graph that is not the task's; and as `open_session`.
        """
        expected = signature(config)
        if config.type != self.task.get("type") or expected is None:
            raise ElectraError("E-C714", str(self.path), f"was exported for {self.task.get('type')}, not for {config.type}",
                               f"export the model again: --task {config.type}")  # fmt: skip
        return SessionNetwork(open_session(self.path / GRAPH), expected, reading(config, mask_id))


def open_export(path: Path) -> Export | None:
    """The directory, if it is an export; None for a directory with weights, or anything else.

    Raises:
        ElectraError: E-M201 a file is not as it was written, E-M202 a newer format, E-M710 a graph that electra did not export;
            E-M204, E-M220 - E-M222 of its config.json.
    """
    manifest = manifest_of(path)
    ours = manifest.get("format") == FORMAT
    if not ours and ((path / "model.safetensors").is_file() or not (path / GRAPH).is_file()):
        return None
    if not ours:
        raise ElectraError("E-M710", str(path / GRAPH), "electra did not export it, or its manifest is gone",
                           "export the model with electra: electra export MODEL OUT --to onnx")  # fmt: skip
    verify(path, FORMAT_VERSION)
    encoder, _ = hf_config.from_json(read_json(path / "config.json"), str(path / "config.json"))
    precision = str(manifest.get("precision", "fp32"))
    return Export(path=path, task=read_json(path / "task.json"), encoder=encoder, precision=precision)


def open_session(file: Path) -> Any:
    """An onnxruntime session on the CPU with as many threads as torch has, which wait without spinning.

    Raises:
        ElectraError: E-R710 onnxruntime is not installed, E-M711 it cannot load the file.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ElectraError("E-R710", str(file), "onnxruntime is not installed", "pip install 'electra-toolkit[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises classes of its own that share no other ancestor
        cause = f"onnxruntime cannot load it: {str(error).splitlines()[0]:.200}"
        raise ElectraError("E-M711", str(file), cause, "export the model again") from None


# -- batches ------------------------------------------------------------------------------------------------------------


class SessionNetwork(nn.Module):
    """A graph, called with a `Batch`.

    Args:
        session: of onnxruntime.
        expected: what the task's graph takes and gives.
        read: makes what the task decodes of the graph's output and the batch; None = the output.

    Raises:
        ElectraError: E-M711 the graph takes or gives something else.
    """

    def __init__(self, session: Any, expected: Signature, read: Callable[[Tensor, Batch], Tensor] | None = None) -> None:
        super().__init__()
        self.session, self.expected, self.read = session, expected, read
        inputs = session.get_inputs()
        self.inputs = tuple(given.name for given in inputs)
        outputs = tuple(given.name for given in session.get_outputs())
        allowed = (TOKENS, MASK, TYPES, *expected.targets)
        if set(self.inputs) | {TYPES} != set(allowed) or outputs != expected.outputs:
            cause = f"the graph makes {', '.join(outputs)} of {', '.join(self.inputs)}; the task needs"
            raise ElectraError(
                "E-M711", GRAPH, f"{cause} {', '.join(expected.outputs)} of {', '.join(allowed)}", "export it again"
            )
        self.choices = len(inputs[0].shape) == 3
        #: without elements: it says that batches are to be on the CPU
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, batch: Batch) -> Tensor:
        output = self._of_choices(batch) if self.choices else self._of_texts(batch)
        return output if self.read is None else self.read(output, batch)

    def run(self, given: Mapping[str, Tensor]) -> Tensor:
        """The graph's output for its inputs by name; several outputs on a last axis."""
        values = {name: tensor.numpy() for name, tensor in given.items()}
        outputs = [torch.from_numpy(value) for value in self.session.run(None, values)]
        return outputs[0] if len(outputs) == 1 else torch.stack(outputs, dim=-1)

    def _of_texts(self, batch: Batch) -> Tensor:
        layout = batch.layout
        given = {TOKENS: batch.tokens, TYPES: batch.types} | {name: batch.targets[name] for name in self.expected.targets}
        if isinstance(layout, Padded) and (layout.whole or int(layout.segments.max()) <= 0):
            return self.run(self._named(given | {MASK: layout.real.long()}))
        documents = Documents(layout)
        of_tokens = {name for name, tensor in given.items() if tensor.shape == batch.tokens.shape}
        laid_out = {
            name: tensor.flatten()[documents.token_NM] if name in of_tokens else tensor for name, tensor in given.items()
        }
        output = self.run(self._named(laid_out | {MASK: documents.real_NM.long()}))
        if not self.expected.per_token:
            return output
        return documents.put_back(output).view(*batch.tokens.shape, *output.shape[2:])

    def _of_choices(self, batch: Batch) -> Tensor:
        """[B, K]; -inf where a row has fewer texts. Rows are filled up with its first one."""
        documents, texts_B = Documents(batch.layout), batch.targets["texts"]
        place_K = torch.arange(int(texts_B.max()))
        absent_BK = place_K >= texts_B[:, None]
        index_BK = (texts_B.cumsum(0) - texts_B)[:, None] + torch.where(absent_BK, 0, place_K)
        token_BKM = documents.token_NM[index_BK]
        given = {name: tensor.flatten()[token_BKM] for name, tensor in ((TOKENS, batch.tokens), (TYPES, batch.types))}
        return self.run(self._named(given | {MASK: documents.real_NM[index_BK].long()})).masked_fill(absent_BK, float("-inf"))

    def _named(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those that the graph takes."""
        return {name: given[name] for name in self.inputs}


def reading(config: AnyTaskConfig, mask_id: int) -> Callable[[Tensor, Batch], Tensor] | None:
    """What makes of a graph's output what the task decodes; None = it is that."""
    match config:
        case EmbedConfig():
            return EmbedHead(config.pooling)
        case FillMaskConfig():
            return lambda logits, batch: best_tokens(logits, batch.tokens == mask_id, config.top_k)
        case ScoreConfig():
            scores = _SCORES[config.method]
            return lambda logits, batch: scores(logits)
        case _:
            return None
