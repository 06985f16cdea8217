"""The tasks by name: a setting comes in; its `build(tokenizer)` makes the task. Fine-tuning takes `TrainableTaskConfig`.

Tasks of the user's own come from installed packages, by name (`own.py`).
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import Field

from electra.config import build
from electra.errors import ElectraError
from electra.tasks.choice import ChoiceConfig
from electra.tasks.classify import ClassifyConfig
from electra.tasks.correct import CorrectConfig
from electra.tasks.embed import EmbedConfig
from electra.tasks.fill_mask import FillMaskConfig
from electra.tasks.generate import GenerateConfig
from electra.tasks.multilabel import MultilabelConfig
from electra.tasks.own import TaskSettings, own_task
from electra.tasks.regression import RegressionConfig
from electra.tasks.relation import RelationConfig
from electra.tasks.replaced import ReplacedConfig
from electra.tasks.score import ScoreConfig
from electra.tasks.span import SpanConfig
from electra.tasks.tag import TagConfig

_Trainable = (
    ClassifyConfig
    | MultilabelConfig
    | RegressionConfig
    | TagConfig
    | SpanConfig
    | RelationConfig
    | EmbedConfig
    | ChoiceConfig
    | GenerateConfig
)
TrainableTaskConfig = Annotated[_Trainable, Field(discriminator="type")]
UntrainedTaskConfig = ReplacedConfig | FillMaskConfig | ScoreConfig | CorrectConfig
TaskConfig = Annotated[_Trainable | UntrainedTaskConfig, Field(discriminator="type")]
AnyTaskConfig = TaskConfig | TaskSettings
#: the names of the tasks that come with the package
BUILT_IN: tuple[str, ...] = tuple(config.type for config in typing.get_args(typing.get_args(TaskConfig)[0]))


def task_config(tree: Mapping[str, Any] | str, own: str | None = None) -> AnyTaskConfig:
    """The setting that a task.json or a task's name describes.

    Args:
        tree: task.json, or a name.
        own: the task of an installed package that the caller has named, and so allowed.

    Raises:
        ElectraError: E-C004 unknown task, unknown key or invalid value, E-M335 no package has the task that was named; and
            those of `own_task`.
    """
    tree = {"type": tree} if isinstance(tree, str) else tree
    name = str(tree.get("type"))
    if own == name and name not in BUILT_IN:
        settings = own_task(name, BUILT_IN)
        if settings is None:
            raise ElectraError("E-M335", f"task {name!r}", "no installed package has a task of this name",
                               "install the one that the model was fine-tuned with")  # fmt: skip
        return build(settings, tree)
    return cast(TaskConfig, build(cast(Any, TaskConfig), tree))
