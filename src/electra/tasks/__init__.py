"""The tasks by name: a setting comes in, a task goes out. `TrainableTaskConfig` are those that fine-tuning takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, cast, overload

from pydantic import Field

from electra.config import build
from electra.contracts import Task
from electra.tasks.classify import Classify, ClassifyConfig
from electra.tasks.score import FillMask, FillMaskConfig, Replaced, ReplacedConfig
from electra.text.tokenizer import Tokenizer

TrainableTaskConfig = ClassifyConfig
TaskConfig = Annotated[ClassifyConfig | ReplacedConfig | FillMaskConfig, Field(discriminator="type")]


def task_config(tree: Mapping[str, Any] | str) -> TaskConfig:
    """The setting that a task.json or a task's name describes.

    Raises:
        ElectraError: E-C004 unknown task, unknown key or invalid value.
    """
    config = build(cast(Any, TaskConfig), {"type": tree} if isinstance(tree, str) else tree)
    return cast(TaskConfig, config)


@overload
def build_task(config: ClassifyConfig, tokenizer: Tokenizer) -> Classify: ...
@overload
def build_task(config: TaskConfig, tokenizer: Tokenizer) -> Task: ...
def build_task(config: TaskConfig, tokenizer: Tokenizer) -> Task:
    """The task that `config` describes, holding `tokenizer`."""
    match config:
        case ClassifyConfig():
            return Classify(config, tokenizer)
        case ReplacedConfig():
            return Replaced(config, tokenizer)
        case FillMaskConfig():
            return FillMask(config, tokenizer)
