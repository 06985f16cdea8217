"""A network of ours as an ONNX graph, and how far the graph is from the network.

In: a network and its task. Out: a file that takes and gives what `predict.session` says, for batches of any size and rows of
any length. torch.onnx's exporter writes it over torch.export: the network is traced once, its shapes staying symbols. `Graph`
is what is traced: it makes a `Batch` of the graph's inputs (positions count the tokens of the mask, padding is behind them) and
gives the head's outputs under transformers' names.

`compare` runs file and network on random inputs over a grid of shapes, padding included. Values may differ by 1e-4, of numbers
above 1 by that share.

Shapes: N texts, M longest text, B rows of K texts to choose from.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from electra.contracts import Batch, Padded
from electra.errors import ElectraError
from electra.models.classic import ClassicEncoder
from electra.models.encoder import EncoderConfig
from electra.models.heads import ChoiceHead, EmbedHead
from electra.models.joint_span import JointSpanHead
from electra.predict.session import GRAPH, MASK, TOKENS, TYPES, SessionNetwork, Signature
from electra.tasks.common import TaskNetwork
from electra.tasks.fill_mask import FillMaskNetwork
from electra.tasks.replaced import ReplacedNetwork
from electra.tasks.score import ScoreNetwork

#: what a value may differ by; of numbers above 1, the share
TOLERANCE = 1e-4
#: opset of the graphs: what onnxruntime 1.14 and later runs
OPSET = 18
#: texts and tokens of the shapes that are compared, those that fit the network's positions
SHAPES = ((1, 1), (1, 2), (2, 1), (3, 5), (1, 17), (4, 32), (2, 128), (1, 300), (1, 512))
#: a protobuf file holds 2 GB; larger weights lie beside it
_LARGEST_FILE = (1 << 31) - (1 << 24)

Portable = TaskNetwork | ReplacedNetwork | ScoreNetwork | FillMaskNetwork


class Graph(nn.Module):
    """What is traced: `graph(*inputs)` -> its outputs, both in the order of their names.

    Args:
        network: encoder and head.
        expected: what a graph of its task takes and gives.
    """

    def __init__(self, network: Portable, expected: Signature) -> None:
        super().__init__()
        self.network = network
        types = (TYPES,) if isinstance(network.encoder, ClassicEncoder) else ()
        self.inputs = (TOKENS, MASK, *types, *expected.targets)
        self.outputs = expected.outputs
        self.choices = isinstance(network.head, ChoiceHead)

    @property
    def sizes(self) -> EncoderConfig:
        """Of the encoder."""
        return self.network.encoder.config

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        given = dict(zip(self.inputs, inputs, strict=True))
        shape = given[TOKENS].shape
        if self.choices:
            given = {name: tensor.flatten(0, 1) for name, tensor in given.items()}
        batch = _batch(given)
        hidden_NMD = self.network.encoder(batch.tokens, batch.positions, batch.types, batch.layout)
        outputs = self._head(hidden_NMD, batch)
        if self.choices:
            return outputs.view(shape[0], shape[1])
        return outputs.unbind(dim=-1) if len(self.outputs) > 1 else outputs

    def _head(self, hidden_NMD: Tensor, batch: Batch) -> Tensor:
        network, outputs = self.network, hidden_NMD
        if isinstance(network, FillMaskNetwork):
            outputs = network.head(hidden_NMD, network.encoder.embeddings.table)
        elif not isinstance(network, TaskNetwork):
            outputs = network.head(hidden_NMD)
        elif isinstance(network.head, ChoiceHead):
            outputs = network.head.scores(network.head.pooled(hidden_NMD, batch.layout))
        elif not isinstance(network.head, EmbedHead):  # who embeds pools outside, as 1_Pooling/config.json says
            outputs = network.head(hidden_NMD, batch)
        return outputs

    def sample(self, texts: int, tokens: int, seed: int, choices: int = 2) -> dict[str, Tensor]:
        """Random inputs by name, the first text as long as the row, the others as chance has it."""
        random = torch.Generator().manual_seed(seed)
        shape = (texts, choices, tokens) if self.choices else (texts, tokens)
        lengths = torch.randint(1, tokens + 1, shape[:-1], generator=random)
        lengths.view(-1)[0] = tokens
        real = torch.arange(tokens) < lengths[..., None]
        types = getattr(self.sizes, "type_vocab_size", 1)
        found = {
            TOKENS: torch.randint(0, self.sizes.vocab_size, shape, generator=random),
            MASK: real.long(),
            TYPES: torch.randint(0, types, shape, generator=random),
            "context": (torch.rand(shape, generator=random) < 0.7) & real,
            **{name: (torch.rand(shape[0], generator=random) * lengths.view(shape[0], -1)[:, 0]).long()
               for name in ("head", "tail")},
        }  # fmt: skip
        return {name: found[name] for name in self.inputs}


def _batch(given: Mapping[str, Tensor]) -> Batch:
    mask, tokens = given[MASK], given[TOKENS]
    return Batch(
        tokens=tokens,
        positions=(mask.cumsum(dim=1) - 1).clamp(min=0),
        types=given.get(TYPES, torch.zeros_like(tokens)),
        layout=Padded(segments=mask - 1),
        targets={name: tensor for name, tensor in given.items() if name not in (TOKENS, MASK, TYPES)},
    )


def write_graph(graph: Graph, file: Path) -> None:
    """The graph as a file; weights of 2 GB or more lie beside it.

    Raises:
        ElectraError: E-R711 the exporter's packages are not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise ElectraError("E-R711", "export", "onnx and onnxscript are not installed",
                           "pip install 'electra-toolkit[onnx]'") from None  # fmt: skip
    example = graph.sample(2, 3, seed=0, choices=4)
    axes = ("batch_size", "num_choices", "sequence_length") if graph.choices else ("batch_size", "sequence_length")
    dims = [torch.export.Dim(name) for name in axes]
    shapes = tuple({place: dims[place] for place in range(tensor.ndim)} for tensor in example.values())
    with warnings.catch_warnings(), errors_alone("torch.onnx"), torch.no_grad():  # it tells what it does without: torchvision
        warnings.simplefilter("ignore")  # of the exporter, about its own future
        program = torch.onnx.export(
            graph, tuple(example.values()), input_names=graph.inputs, output_names=graph.outputs, dynamic_shapes=(shapes,),
            opset_version=OPSET, dynamo=True, verbose=False, external_data=False,
        )  # fmt: skip
        assert program is not None
        weights = sum(tensor.nbytes for tensor in graph.state_dict().values())
        program.save(file, external_data=weights > _LARGEST_FILE)


@contextmanager
def errors_alone(name: str | None = None) -> Iterator[None]:
    """Within, the logger of that name (None = the root) passes on errors alone."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


# -- comparing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Between a graph and its network.

    Args:
        shape: of the inputs.
        largest: of all values, as `TOLERANCE` measures them.
    """

    shape: tuple[int, ...]
    largest: float


def compare(graph: Graph, session: SessionNetwork) -> tuple[Difference, ...]:
    """Of a file, as onnxruntime runs it, and the torch network, for every shape of the grid that the network has positions for.

    Raises:
        ElectraError: E-M712 they differ by more than `TOLERANCE`.
    """
    found = []
    positions = graph.sizes.max_position_embeddings
    for number, (texts, tokens) in enumerate(SHAPES):
        if tokens > positions:
            continue
        given = graph.sample(texts, tokens, seed=number, choices=1 + number % 3)
        with torch.inference_mode():
            outputs = graph(*given.values())
        right = torch.stack(outputs, dim=-1) if isinstance(outputs, tuple) else outputs
        largest = _difference(right, session.run(given), isinstance(graph.network.head, JointSpanHead))
        found.append(Difference(shape=tuple(given[TOKENS].shape), largest=largest))
    worst = max(found, key=lambda difference: difference.largest)
    if not worst.largest <= TOLERANCE:
        shape = " x ".join(map(str, worst.shape))
        raise ElectraError("E-M712", GRAPH, f"for inputs of {shape} it differs by {worst.largest:.2g} from the torch network, "
                           f"{TOLERANCE:g} are allowed", "report it with the versions of torch and onnxruntime")  # fmt: skip
    return tuple(found)


def _difference(right: Tensor, other: Tensor, joint: bool) -> float:
    """The largest one of two outputs; nan and infinities must be the same.

    Args:
        joint: outputs of `JointSpanHead`: starts that are equally good may have another rank, so ends are compared where the
            ranks are equal.
    """
    if right.shape != other.shape:
        return float("inf")
    if joint:
        same_N = (right[..., 2] == other[..., 2]).all(dim=1)
        starts = _difference(right[..., :2], other[..., :2], False)
        return max(starts, _difference(right[same_N], other[same_N], False)) if same_N.any() else float("inf")
    finite = right.isfinite()
    if not bool((right[~finite] == other[~finite]).all()):
        return float("inf")
    distances = (right[finite] - other[finite]).abs() / right[finite].abs().clamp(min=1)
    return float(distances.max()) if len(distances) else 0.0
