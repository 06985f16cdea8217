"""int8 graphs, and the gate that they have to pass.

Dynamic quantisation by onnxruntime: weights of matrix products in 8 bits with a scale for each output channel, tables of
embeddings with one scale, what comes in between scaled as it comes. Weights use 7 of the 8 bits: on CPUs without VNNI, two
products of full range do not fit the 16 bits that they are added in, and a file that was measured on one machine would give
other numbers on the next.

The gate: the task's main metric on a labelled file, of the fp32 graph and of the int8 one, both as onnxruntime runs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from electra.contracts import Example
from electra.deploy.graph import errors_alone
from electra.errors import ElectraError
from electra.evaluate.examine import figures
from electra.evaluate.run import judged, trainable
from electra.predict.predictor import Predictor


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a quantised graph has to hold, and what it did.

    Args:
        data: the labelled file.
        examples: in it.
        metric: the task's main one.
        fp32, int8: its value before and after.
        max_drop: how far it may fall.
    """

    data: str
    examples: int
    metric: str
    fp32: float
    int8: float
    max_drop: float

    @property
    def drop(self) -> float:
        """How far it fell."""
        return self.fp32 - self.int8

    def __str__(self) -> str:
        return (f"{self.metric} {self.fp32:.4f} in fp32, {self.int8:.4f} in int8 on {self.examples:,} examples of {self.data}; "
                f"it may fall by {self.max_drop:g}")  # fmt: skip


def quantize(file: Path, out: Path) -> None:
    """The int8 graph of an fp32 one."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory(dir=out.parent) as folder, errors_alone():  # the quantiser gives advice by the root logger
        folded = Path(folder) / file.name  # weights that are turned first, so that products see them as constants
        quant_pre_process(file, folded, skip_symbolic_shape=True, skip_onnx_shape=True)
        quantize_dynamic(folded, out, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)


def measured(fp32: Predictor, int8: Predictor, examples: Sequence[Example], name: str, max_drop: float) -> Gate:
    """Both on labelled examples.

    Args:
        name: of the file that they are from.

    Raises:
        ElectraError: E-M713 the metric of int8 falls by more than `max_drop`; E-D320, E-D321 as of `electra evaluate`.
    """
    scores = []
    for predictor in (fp32, int8):
        judgements = [judgement for _, _, judgement in judged(predictor, examples)]
        scores.append(figures(trainable(predictor), judgements))
    metric = next(iter(scores[0]))
    before, after = (found[metric] for found in scores)
    gate = Gate(data=name, examples=len(examples), metric=metric, fp32=before, int8=after, max_drop=max_drop)
    if not gate.drop <= max_drop:
        raise ElectraError("E-M713", "--quantize", f"int8 loses {gate.drop:.4f}: {gate}; nothing was written",
                           "allow more with --max-drop, or export without --quantize")  # fmt: skip
    return gate
