"""Texts in, predictions out, in the order of the inputs.

`load(path)` reads a model directory and pairs its network with a task: the one it was fine-tuned for (task.json), or a scoring
task by name. Training evaluates through the same `Predictor`, built from the network in training.

Examples are sorted by length and batched by a token budget, so that little padding is computed; outputs are decoded batch by
batch and dropped. A text that its task leaves longer than a row is run as overlapping windows whose outputs are joined before
decoding. Any string is valid input: empty, with NUL, with lone surrogates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from electra.contracts import Batch, Encoded, Example, Prediction, Task
from electra.data.loader import collate, in_order
from electra.errors import ElectraError
from electra.models.encoder import Encoder
from electra.models.model_dir import ModelDir, load_model_dir
from electra.tasks import TaskConfig, task_config
from electra.tasks.classify import Classify, ClassifyConfig
from electra.tasks.common import EncodedExamples, TaskNetwork, check_length, cut_windows, rows_of
from electra.tasks.score import FillMask, FillMaskConfig, FillMaskNetwork, Replaced, ReplacedConfig, ReplacedNetwork
from electra.text.tokenizer import Tokenizer

WindowedConfig = TypeVar("WindowedConfig", ReplacedConfig, FillMaskConfig)

#: tokens of a batch, padding included: enough to fill two cores, small enough for caches
BATCH_TOKENS = 4096


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

    def predict(self, inputs: Sequence[str] | Sequence[Example]) -> list[Prediction]:
        """One prediction for each input, in order; gold answers, if any, are not looked at."""
        return self.answer([Example(text=i) if isinstance(i, str) else replace(i, target=None) for i in inputs])

    def answer(self, examples: Sequence[Example]) -> list[Prediction]:
        """As `predict`, but an example whose gold answer the task does not know is an error before anything is computed."""
        encoded = [self.task.encode(example) for example in examples]
        long = {i for i, item in enumerate(encoded) if len(item.tokens) > self.task.max_length}
        short = [i for i in range(len(encoded)) if i not in long]
        found: dict[int, Prediction] = {}
        was_training = self.network.training
        self.network.eval()
        try:
            for indices, batch in self._batches([encoded[i] for i in short]):
                chosen = [short[i] for i in indices]
                found |= zip(chosen, self.task.decode(self._run(batch), batch, [examples[i] for i in chosen]), strict=True)
            for i in sorted(long):
                batch = collate([encoded[i]], len(encoded[i].tokens), self.task.pad_id)
                found |= {i: self.task.decode(self._run_windows(encoded[i]), batch, [examples[i]])[0]}
        finally:
            self.network.train(was_training)
        return [replace(found[i], truncated=encoded[i].truncated) for i in range(len(encoded))]

    def _batches(self, encoded: Sequence[Encoded]) -> Iterator[tuple[list[int], Batch]]:
        for numbers, batch in in_order(EncodedExamples(encoded), self.batch_tokens, self.task.pad_id):
            yield numbers.tolist(), batch

    def _run(self, batch: Batch) -> Tensor:
        device = next(self.network.parameters()).device
        with torch.inference_mode():
            outputs: Tensor = self.network(batch.to(device))
        return outputs.cpu()

    def _run_windows(self, encoded: Encoded) -> Tensor:
        """Outputs [1, n, ...] of a text of n tokens, each token's from the window that shows the most around it."""
        windows = cut_windows(encoded, self.task.max_length)
        kept: dict[int, Tensor] = {}
        for indices, batch in self._batches([window.encoded for window in windows]):
            rows = rows_of(self._run(batch), batch.layout)
            kept |= {i: row[windows[i].keep] for i, row in zip(indices, rows, strict=True)}
        return torch.cat([kept[i] for i in range(len(windows))])[None]


def load(path: str | Path, task: TaskConfig | str | None = None) -> Predictor:
    """The predictor of a model directory.

    Args:
        path: a model directory.
        task: a scoring task, as a setting or by name (`replaced`, `fill-mask`), whose windows are never longer than the
            network's positions; None = the task the model was fine-tuned for.

    Raises:
        ElectraError: E-C004 unknown task, E-C306 no task, E-C313 rows longer than the network's positions, E-M310 the model
            lacks what the task needs, E-M311 tokenizer or labels do not fit the weights; and those of `load_model_dir`.
    """
    model = load_model_dir(Path(path))
    if task is None and model.task is None:
        raise ElectraError("E-C306", str(path), "the model was not fine-tuned for a task",
                           "name a scoring task: replaced (with a discriminator), fill-mask (with a generator)")  # fmt: skip
    config = (
        task if isinstance(task, ReplacedConfig | FillMaskConfig | ClassifyConfig) else task_config(task or model.task or {})
    )
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
        case ClassifyConfig():
            return _classify(model, config, tokenizer)
        case ReplacedConfig():
            if model.rtd_head is None:
                raise _lacks(model, config, "discriminator (RTD) head")
            config = _fitted(config, model.encoder)
            return Replaced(config, tokenizer), model.encoder, ReplacedNetwork(model.encoder, model.rtd_head)
        case FillMaskConfig():
            if model.generator is not None:
                encoder, head = model.generator.encoder, model.generator.mlm_head
            elif model.mlm_head is not None:
                encoder, head = model.encoder, model.mlm_head
            else:
                raise _lacks(model, config, "generator or masked language model")
            config = _fitted(config, encoder)
            return FillMask(config, tokenizer), encoder, FillMaskNetwork(encoder, head, tokenizer.mask_id, config.top_k)


def _classify(model: ModelDir, config: ClassifyConfig, tokenizer: Tokenizer) -> tuple[Task, Encoder, nn.Module]:
    task, head = Classify(config, tokenizer), model.classification_head
    if head is None:
        raise _lacks(model, config, "classification head")
    if len(task.labels) != head.classifier.out_features:
        raise ElectraError("E-M311", str(model.path / "task.json"), f"{len(task.labels)} labels for "
                           f"{head.classifier.out_features} outputs", "restore the file of these weights")  # fmt: skip
    return task, model.encoder, TaskNetwork(model.encoder, head)


def _fitted(config: WindowedConfig, encoder: Encoder) -> WindowedConfig:
    """Windows no longer than the positions of the network: they lose nothing, so this need not be an error."""
    return replace(config, max_length=min(config.max_length, encoder.config.max_position_embeddings))


def _lacks(model: ModelDir, config: TaskConfig, part: str) -> ElectraError:
    return ElectraError("E-M310", str(model.path), f"has no {part}, which {config.type} needs", "give a model that has one")
