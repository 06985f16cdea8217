"""The tasks by name: a setting comes in; its `build(tokenizer)` makes the task. Fine-tuning takes `TrainableTaskConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import Field

from electra.config import build
from electra.tasks.choice import ChoiceConfig
from electra.tasks.classify import ClassifyConfig
from electra.tasks.embed import EmbedConfig
from electra.tasks.relation import RelationConfig
from electra.tasks.score import FillMaskConfig, ReplacedConfig
from electra.tasks.span import SpanConfig
from electra.tasks.tag import TagConfig

TrainableTaskConfig = Annotated[
    ClassifyConfig | TagConfig | SpanConfig | RelationConfig | EmbedConfig | ChoiceConfig, Field(discriminator="type")
]
TaskConfig = Annotated[
    ClassifyConfig | TagConfig | SpanConfig | RelationConfig | EmbedConfig | ChoiceConfig | ReplacedConfig | FillMaskConfig,
    Field(discriminator="type"),
]


def task_config(tree: Mapping[str, Any] | str) -> TaskConfig:
    """The setting that a task.json or a task's name describes.

    Raises:
        ElectraError: E-C004 unknown task, unknown key or invalid value.
    """
    config = build(cast(Any, TaskConfig), {"type": tree} if isinstance(tree, str) else tree)
    return cast(TaskConfig, config)
