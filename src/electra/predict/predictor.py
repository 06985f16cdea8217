"""Texts in, predictions out, in the order of the inputs.

`load(path)` reads a model directory and pairs its network with a task: the one it was fine-tuned for (task.json; of a foreign
classifier, what its config.json says of the labels), or a scoring task by name. A task of an installed package has to be named
even if task.json names it, for no directory may decide which code is imported. Training evaluates through the same
`Predictor`, built from the network in training.

A task makes one row or several of each example. The rows of a few thousand examples, or of fewer long ones, are sorted by
length and batched by a token budget, so that little padding is computed; then every example is decoded from the outputs of its
rows. Any string is valid input: empty, with NUL, with lone surrogates.

Rows are handed over one behind the other, without padding, and networks are made ready for inference (`predict.inference`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from electra.config import build
from electra.contracts import Encoded, Example, Prediction, Task
from electra.data.loader import in_order
from electra.errors import ElectraError
from electra.models.encoder import Encoder
from electra.models.heads import ChoiceHead, ClassificationHead, TwoLayerHead
from electra.models.model_dir import ModelDir, load_model_dir
from electra.predict.inference import Precision, ready
from electra.predict.session import Export, open_export
from electra.tasks import BUILT_IN, AnyTaskConfig, task_config
from electra.tasks.classify import ClassifyConfig
from electra.tasks.common import EncodedExamples, check_length, rows_of, saved_network
from electra.tasks.correct import CorrectConfig
from electra.tasks.embed import EmbedConfig
from electra.tasks.fill_mask import FillMaskConfig, FillMaskNetwork
from electra.tasks.multilabel import MultilabelConfig
from electra.tasks.own import checked
from electra.tasks.regression import RegressionConfig
from electra.tasks.replaced import ReplacedConfig, ReplacedNetwork
from electra.tasks.rounds import Ask, RoundsTask
from electra.tasks.score import METHODS, ScoreConfig
from electra.text.tokenizer import Tokenizer

UntrainedConfig = TypeVar("UntrainedConfig", ReplacedConfig, FillMaskConfig, ScoreConfig, CorrectConfig, EmbedConfig)

#: tokens of a batch, padding included: enough to fill two cores, small enough for caches
BATCH_TOKENS = 4096
#: examples whose rows are sorted together, and tokens of these rows after which there are enough: what is held grows with them
CHUNK, CHUNK_TOKENS = 2048, 1 << 18
#: logits over the vocabulary that are held at once
_LOGITS = 1 << 24
#: tokens of a row of foreign classifiers, which do not say what they were trained on
_FOREIGN_LENGTH = 512


class Predictor:
    """A network and the task that reads it.

    Args:
        network: called with a `Batch`, returns what `task.decode` takes; put into evaluation mode only while predicting.
        task: encodes and decodes.
        batch_tokens: budget of a batch.
        packed: hand rows over without padding, in the `Packed` layout; networks that we do not know take rows of equal length.
        precision: what the network computes in, `fp32`, `bf16` or `int8`; said, not set.
    """

    def __init__(
        self, network: nn.Module, task: Task, batch_tokens: int = BATCH_TOKENS, *, packed: bool = False, precision: str = "fp32"
    ) -> None:
        self.network = network
        self.task = task
        self.batch_tokens = batch_tokens
        self.packed = packed
        self.precision = precision

    def predict(self, inputs: Iterable[str] | Iterable[Example]) -> list[Prediction]:
        """One prediction for each input, in order; gold answers, if any, are not looked at."""
        return list(self.stream(Example(text=i) if isinstance(i, str) else replace(i, target=None) for i in inputs))

    def stream(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        """Predictions in the order of the examples, a few thousand at a time: memory does not grow with their number.

        A gold answer that the task does not know is an error.
        """
        some, tokens = list[tuple[Example, list[Encoded]]](), 0
        for example in examples:
            rows = self.task.encode(example)
            some.append((example, rows))
            tokens += sum(len(row.tokens) for row in rows)
            if len(some) == CHUNK or tokens >= CHUNK_TOKENS:
                yield from self.answer(some)
                some, tokens = [], 0
        if some:
            yield from self.answer(some)

    def answer(self, examples: Sequence[tuple[Example, list[Encoded]]]) -> Iterator[Prediction]:
        """The prediction for each example with the rows that `task.encode` made of it, in order."""
        outputs = iter(self.outputs([row for _, rows in examples for row in rows]))
        for example, rows in examples:
            prediction = self.task.decode(example, rows, [next(outputs) for _ in rows])
            yield replace(prediction, truncated=sum(row.truncated for row in rows))

    def outputs(self, rows: Sequence[Encoded], network: nn.Module | None = None) -> list[Tensor]:
        """What the network, its own or another, gives for each row, in order, on the CPU."""
        network = self.network if network is None else network
        parameter = next(network.parameters(), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        was_training = network.training
        if was_training:
            network.eval()
        try:
            for numbers, batch in in_order(EncodedExamples(rows), self.batch_tokens, self.task.pad_id, self.packed):
                with torch.inference_mode():
                    outputs = network(batch.to(device)).cpu()
                parts = rows_of(outputs, batch.layout) if self.task.per_token else outputs.unbind()
                for number, part in zip(numbers.tolist(), parts, strict=True):
                    found[number] = part
        finally:
            if was_training:
                network.train()
        return found


class RoundsPredictor(Predictor):
    """Networks and a task that asks them in rounds; the questions of many texts go through a network together.

    Args:
        networks: by the names that the task has for them.
        task: asks, see `tasks.rounds`.
        batch_tokens, packed, precision: as of `Predictor`.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        task: RoundsTask,
        batch_tokens: int = BATCH_TOKENS,
        *,
        packed: bool = False,
        precision: str = "fp32",
    ) -> None:
        super().__init__(nn.ModuleDict(networks), task, batch_tokens, packed=packed, precision=precision)
        self.networks = networks

    def answer(self, examples: Sequence[tuple[Example, list[Encoded]]]) -> Iterator[Prediction]:
        task = cast(RoundsTask, self.task)
        talks = [task.rounds(example, rows) for example, rows in examples]
        asked, said = dict[int, Ask](), dict[int, Prediction]()

        def go_on(number: int, outputs: Sequence[Tensor] | None) -> None:
            try:
                asked[number] = next(talks[number]) if outputs is None else talks[number].send(outputs)
            except StopIteration as end:
                said[number] = end.value

        for number in range(len(talks)):
            go_on(number, None)
        while asked:
            questions, asked = asked, {}
            for name, network in self.networks.items():
                chosen = {number: ask.rows for number, ask in questions.items() if ask.network == name}
                outputs = iter(self.outputs([row for rows in chosen.values() for row in rows], network) if chosen else ())
                for number, rows in chosen.items():
                    go_on(number, [next(outputs) for _ in rows])
        for number, (_, rows) in enumerate(examples):
            yield replace(said[number], truncated=sum(row.truncated for row in rows))


def load(
    path: str | Path,
    task: AnyTaskConfig | str | None = None,
    columns: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    precision: Precision = "fp32",
) -> Predictor:
    """The predictor of a model directory.

    Args:
        path: a model directory, or what `electra export --to onnx` made of one, which has one task.
        task: a task that needs no training, as a setting or by name (`replaced`, `fill-mask`, `score`, `correct`, `embed`),
            whose rows are never longer than the network's positions; or the name of the task of an installed package that the
            model was fine-tuned for; None = the task the model was fine-tuned for.
        columns: of the files to be read, in the place of the task's own settings; None or none = those.
        settings: of a task that is named, in the place of its defaults; None or none = those.
        precision: `fp32`: an input has the same outputs, within 1e-4, in whatever company; `bf16`: about two digits, several
            times as fast on CPUs with instructions for it, half the memory; `auto`: whichever is faster by a probe of 50 ms.
            `Predictor.precision` says what was chosen.

    Raises:
        ElectraError: E-C004 unknown task or setting, E-C306 no task, E-C313 rows longer than the network's positions, E-C317
            columns for a task whose files have none, E-C570 settings without the name of a task, E-M310 the model lacks what
            the task needs, E-M311 tokenizer or labels do not fit the weights, E-M335 a task that is not built in and was not
            named, or another than the one that was; and those of `inference.ready`, `load_model_dir`, `open_export`,
            `Export.network` and `tasks.task_config`.
    """
    model = open_model(Path(path))
    if task is None or isinstance(task, str):
        return predictor_of(model, task_of(model, task, columns, settings), precision)
    return predictor_of(model, _with_columns(task, columns) if columns else task, precision)


def open_model(path: Path) -> ModelDir | Export:
    """A model directory, or what `electra export --to onnx` made of one.

    Raises:
        ElectraError: those of `open_export` and `load_model_dir`.
    """
    return open_export(path) or load_model_dir(path)


def task_of(
    model: ModelDir | Export,
    name: str | None,
    columns: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> AnyTaskConfig:
    """The setting of the task that is named, or else of the model's own; arguments and errors as of `load`."""
    config = _config(model, name, settings or {})
    return _with_columns(config, columns) if columns else config


def predictor_of(model: ModelDir | Export, config: AnyTaskConfig, precision: Precision = "fp32") -> Predictor:
    """The predictor of a loaded model directory, whose networks it takes over, or of an export.

    Raises:
        ElectraError: of those of `load` all that have to do with the network.
    """
    predictor = plain_predictor(model, config)
    computes = ready(predictor.network.eval(), precision)
    predictor.precision = model.precision if isinstance(model, Export) else computes
    predictor.packed = not isinstance(model, Export)
    return predictor


def plain_predictor(model: ModelDir | Export, config: AnyTaskConfig) -> Predictor:
    """As `predictor_of`, with the networks as they were loaded: slower, and what can be exported.

    Raises:
        ElectraError: as `predictor_of`.
    """
    tokenizer = model.tokenizer()
    if isinstance(model, Export):
        predictor, sizes = _of_export(model, config, tokenizer), [model.encoder]
    else:
        predictor, encoders = _pair(model, config, tokenizer)
        sizes = [encoder.config for encoder in encoders]
    for encoder in sizes:
        check_length(predictor.task, encoder)
        if tokenizer.vocab_size > encoder.vocab_size:
            raise ElectraError("E-M311", str(model.path), f"the tokenizer has {tokenizer.vocab_size} tokens, the network "
                               f"{encoder.vocab_size}", "bring the tokenizer that belongs to the weights")  # fmt: skip
    return predictor


def _of_export(model: Export, config: AnyTaskConfig, tokenizer: Tokenizer) -> Predictor:
    """The predictor of a graph that onnxruntime runs."""
    network = model.network(config, tokenizer.mask_id)
    if isinstance(config, FillMaskConfig):  # its graph gives the logits of every token
        some = max(config.max_length, _LOGITS // model.encoder.vocab_size)
        kind = partial(RoundsPredictor, {"generator": network}) if config.joint else partial(Predictor, network)
        return kind(config.build(tokenizer), min(BATCH_TOKENS, some))
    return Predictor(network, config.build(tokenizer))


def _config(model: ModelDir | Export, name: str | None, settings: Mapping[str, Any]) -> AnyTaskConfig:
    """The setting of the task that the caller names, or, without a name, of the model's own."""
    trained = None if model.task is None else model.task.get("type")
    if settings and name is None:
        raise ElectraError("E-C570", "--setting", "settings are those of a task that is named", "give --task too")
    if name is None and isinstance(trained, str) and trained not in BUILT_IN:
        raise ElectraError("E-M335", str(model.path), f"its task {trained!r} is not built in, and no model imports a package",
                           f"name it to allow the package that has it: --task {trained}")  # fmt: skip
    if model.task is not None and name in (None, trained):
        return task_config({**model.task, **settings}, own=name)
    if name is None and isinstance(model, ModelDir):
        return _from_labels(model)
    return task_config({"type": name, **settings})


def _with_columns(config: AnyTaskConfig, columns: Mapping[str, Any]) -> AnyTaskConfig:
    """The settings for files whose columns the caller names."""
    before = getattr(config, "columns", None)
    if before is None:
        raise ElectraError("E-C317", "--column", f"files of {config.type!r} have no columns to name", "leave it out")
    return cast(AnyTaskConfig, replace(cast(Any, config), columns=build(type(before), columns)))


def _from_labels(model: ModelDir) -> AnyTaskConfig:
    """The task of a classifier that transformers wrote."""
    head = model.task_head
    if not isinstance(head, ClassificationHead | TwoLayerHead) or isinstance(head, ChoiceHead):
        raise ElectraError("E-C306", str(model.path), "the model was not fine-tuned for a task",
                           "name a task: embed, replaced, score (with a discriminator), fill-mask (with a generator), "
                           "correct (with both); a causal model writes: electra generate")  # fmt: skip
    length = min(_FOREIGN_LENGTH, model.encoder.config.max_position_embeddings)
    pooling = head.pooling if isinstance(head, ClassificationHead) else None
    shape: Literal["two-layer"] | None = "two-layer" if isinstance(head, TwoLayerHead) else None
    if model.problem == "regression" or (model.problem is None and len(model.labels) == 1):
        return RegressionConfig(range=(0.0, 1.0), max_length=length, pooling=pooling, head=shape)
    if model.problem == "multi_label_classification":
        return MultilabelConfig(labels=model.labels, max_length=length, pooling=pooling, head=shape)
    return ClassifyConfig(labels=model.labels, max_length=length, pooling=pooling, head=shape)


def _pair(model: ModelDir, config: AnyTaskConfig, tokenizer: Tokenizer) -> tuple[Predictor, list[Encoder]]:
    """The predictor of a task, and the encoders that it runs."""
    match config:
        case ReplacedConfig():
            discriminator = _discriminator(model, config)
            fitted = _fitted(config, discriminator.encoder)
            return Predictor(discriminator, fitted.build(tokenizer)), [discriminator.encoder]
        case FillMaskConfig():
            generator = _generator(model, config, tokenizer)
            fill = _fitted(config, generator.encoder).build(tokenizer)
            if config.joint:
                return RoundsPredictor({"generator": generator}, fill), [generator.encoder]
            return Predictor(generator, fill), [generator.encoder]
        case ScoreConfig():
            method = METHODS[config.method]
            network = method.network(model)
            if network is None:
                raise _lacks(model, f"{config.type} by {config.method}", method.needs, ", or another method")
            return Predictor(network, _fitted(config, network.encoder).build(tokenizer)), [network.encoder]
        case CorrectConfig():
            discriminator, generator = _discriminator(model, config), _generator(model, config, tokenizer)
            encoders = [discriminator.encoder, generator.encoder]
            correct = _fitted(_fitted(config, encoders[0]), encoders[1]).build(tokenizer)
            return RoundsPredictor({"discriminator": discriminator, "generator": generator}, correct), encoders
        case EmbedConfig():
            embed = _fitted(config, model.encoder).build(tokenizer)
            return Predictor(saved_network(embed, model), embed), [model.encoder]
        case _:
            task = checked(config.build(tokenizer))
            return Predictor(saved_network(task, model), task), [model.encoder]


def _discriminator(model: ModelDir, config: ReplacedConfig | CorrectConfig) -> ReplacedNetwork:
    if model.rtd_head is None:
        raise _lacks(model, config.type, "discriminator (RTD) head")
    return ReplacedNetwork(model.encoder, model.rtd_head)


def _generator(model: ModelDir, config: FillMaskConfig | CorrectConfig, tokenizer: Tokenizer) -> FillMaskNetwork:
    masked = model.masked_model
    if masked is None:
        raise _lacks(model, config.type, "generator or masked language model")
    return FillMaskNetwork(masked.encoder, masked.mlm_head, tokenizer.mask_id, config.top_k)


def _fitted(config: UntrainedConfig, encoder: Encoder) -> UntrainedConfig:
    """Rows no longer than the positions of the network: windows lose nothing by it, and what `embed` cuts is counted."""
    return replace(config, max_length=min(config.max_length, encoder.config.max_position_embeddings))


def _lacks(model: ModelDir, what: str, part: str, otherwise: str = "") -> ElectraError:
    return ElectraError(
        "E-M310", str(model.path), f"has no {part}, which {what} needs", f"give a model that has one{otherwise}"
    )
