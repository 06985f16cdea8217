"""Texts in, predictions out, in the order of the inputs.

`load(path)` reads a model directory and pairs its network with a task: the one it was fine-tuned for (task.json), or a scoring
task by name. Training evaluates through the same `Predictor`, built from the network in training.

A task makes one row or several of each example. The rows of a few thousand examples are sorted by length and batched by a
token budget, so that little padding is computed; then every example is decoded from the outputs of its rows. Any string is
valid input: empty, with NUL, with lone surrogates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from electra.contracts import Encoded, Example, Prediction, Task
from electra.data.loader import in_order
from electra.errors import ElectraError
from electra.models.encoder import Encoder
from electra.models.model_dir import ModelDir, load_model_dir
from electra.tasks import TaskConfig, task_config
from electra.tasks.common import EncodedExamples, check_length, rows_of, saved_network
from electra.tasks.embed import EmbedConfig
from electra.tasks.score import FillMaskConfig, FillMaskNetwork, ReplacedConfig, ReplacedNetwork
from electra.text.tokenizer import Tokenizer

UntrainedConfig = TypeVar("UntrainedConfig", ReplacedConfig, FillMaskConfig, EmbedConfig)

#: tokens of a batch, padding included: enough to fill two cores, small enough for caches
BATCH_TOKENS = 4096
#: examples whose rows are sorted together
CHUNK = 2048


class Predictor:
    """A network and the task that reads it.

    Args:
        network: called with a `Batch`, returns what `task.decode` takes; put into evaluation mode only while predicting.
        task: encodes and decodes.
        batch_tokens: budget of a batch.
    """

    def __init__(self, network: nn.Module, task: Task, batch_tokens: int = BATCH_TOKENS) -> None:
        self.network = network
        self.task = task
        self.batch_tokens = batch_tokens

    def predict(self, inputs: Iterable[str] | Iterable[Example]) -> list[Prediction]:
        """One prediction for each input, in order; gold answers, if any, are not looked at."""
        return list(self.stream(Example(text=i) if isinstance(i, str) else replace(i, target=None) for i in inputs))

    def stream(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        """Predictions in the order of the examples, a few thousand at a time: memory does not grow with their number.

        A gold answer that the task does not know is an error.
        """
        remaining = iter(examples)
        while some := list(islice(remaining, CHUNK)):
            yield from self._answer(some)

    def _answer(self, examples: Sequence[Example]) -> list[Prediction]:
        rows = [self.task.encode(example) for example in examples]
        outputs = iter(self._run([row for own in rows for row in own]))
        return [
            replace(self.task.decode(example, own, [next(outputs) for _ in own]), truncated=sum(row.truncated for row in own))
            for example, own in zip(examples, rows, strict=True)
        ]

    def _run(self, rows: Sequence[Encoded]) -> list[Tensor]:
        """The network's output for each row, in order, on the CPU."""
        device = next(self.network.parameters()).device
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        was_training = self.network.training
        self.network.eval()
        try:
            for numbers, batch in in_order(EncodedExamples(rows), self.batch_tokens, self.task.pad_id):
                with torch.inference_mode():
                    outputs = self.network(batch.to(device)).cpu()
                parts = rows_of(outputs, batch.layout) if self.task.per_token else outputs.unbind()
                for number, part in zip(numbers.tolist(), parts, strict=True):
                    found[number] = part
        finally:
            self.network.train(was_training)
        return found


def load(path: str | Path, task: TaskConfig | str | None = None) -> Predictor:
    """The predictor of a model directory.

    Args:
        path: a model directory.
        task: a task that needs no training, as a setting or by name (`replaced`, `fill-mask`, `embed`), whose rows are never
            longer than the network's positions; None = the task the model was fine-tuned for, and so is its name.

    Raises:
        ElectraError: E-C004 unknown task, E-C306 no task, E-C313 rows longer than the network's positions, E-M310 the model
            lacks what the task needs, E-M311 tokenizer or labels do not fit the weights; and those of `load_model_dir`.
    """
    model = load_model_dir(Path(path))
    own = model.task is not None and task in (None, model.task.get("type"))
    if task is None and not own:
        raise ElectraError("E-C306", str(path), "the model was not fine-tuned for a task",
                           "name a task: embed, replaced (with a discriminator), fill-mask (with a generator)")  # fmt: skip
    tree = model.task if own else task
    config = task_config(tree) if isinstance(tree, str | Mapping) else tree
    assert config is not None
    tokenizer = model.tokenizer()
    built, encoder, network = _pair(model, config, tokenizer)
    check_length(built, encoder)
    if tokenizer.vocab_size > encoder.config.vocab_size:
        raise ElectraError("E-M311", str(path), f"the tokenizer has {tokenizer.vocab_size} tokens, the network "
                           f"{encoder.config.vocab_size}", "bring the tokenizer that belongs to the weights")  # fmt: skip
    return Predictor(network, built)


def _pair(model: ModelDir, config: TaskConfig, tokenizer: Tokenizer) -> tuple[Task, Encoder, nn.Module]:
    """The task, the encoder it stands on, and both as one network."""
    match config:
        case ReplacedConfig():
            if model.rtd_head is None:
                raise _lacks(model, config, "discriminator (RTD) head")
            config = _fitted(config, model.encoder)
            return config.build(tokenizer), model.encoder, ReplacedNetwork(model.encoder, model.rtd_head)
        case FillMaskConfig():
            if model.generator is not None:
                encoder, head = model.generator.encoder, model.generator.mlm_head
            elif model.mlm_head is not None:
                encoder, head = model.encoder, model.mlm_head
            else:
                raise _lacks(model, config, "generator or masked language model")
            config = _fitted(config, encoder)
            return config.build(tokenizer), encoder, FillMaskNetwork(encoder, head, tokenizer.mask_id, config.top_k)
        case EmbedConfig():
            embed = _fitted(config, model.encoder).build(tokenizer)
            return embed, model.encoder, saved_network(embed, model)
        case _:
            task = config.build(tokenizer)
            return task, model.encoder, saved_network(task, model)


def _fitted(config: UntrainedConfig, encoder: Encoder) -> UntrainedConfig:
    """Rows no longer than the positions of the network: windows lose nothing by it, and what `embed` cuts is counted."""
    return replace(config, max_length=min(config.max_length, encoder.config.max_position_embeddings))


def _lacks(model: ModelDir, config: TaskConfig, part: str) -> ElectraError:
    return ElectraError("E-M310", str(model.path), f"has no {part}, which {config.type} needs", "give a model that has one")
