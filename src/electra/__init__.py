"""electra: pre-train, fine-tune and run ELECTRA text encoders.

The public names are resolved when they are first used: importing the package loads no torch.

    electra.pretrain(["modern-tiny"], ["corpus.path=corpus", "run.dir=runs/first"])
    electra.finetune([], ["task=classify", "init.from=runs/first/model", "data.train=train.tsv", "run.dir=runs/sentiment"])
    electra.load("runs/sentiment/model").predict(["a text"])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from electra.errors import ElectraError

if TYPE_CHECKING:
    from electra.predict.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["ElectraError", "finetune", "load", "pretrain"]


def pretrain(sources: Sequence[str | Path], assignments: Sequence[str] = ()) -> Path:
    """Pre-train, or resume; see `electra pretrain --help`.

    Args:
        sources: shipped recipe names or TOML files, later ones over earlier ones.
        assignments: `key=value` settings, applied last.

    Returns:
        The model directory.

    Raises:
        ElectraError: something the user can mend.
        electra.errors.Preempted: a signal came, and the state is saved.
    """
    from electra.build.pretrain import PretrainRecipe
    from electra.build.pretrain import pretrain as run
    from electra.config import load as load_recipe

    return run(load_recipe(PretrainRecipe, sources, assignments))


def finetune(sources: Sequence[str | Path] = (), assignments: Sequence[str] = ()) -> Path:
    """Fine-tune, or resume; see `pretrain` for arguments and errors."""
    from electra.build.finetune import load_recipe
    from electra.build.sweep import finetune as run

    return run(load_recipe(sources, assignments))


def load(model: str | Path, task: str | None = None, precision: Literal["fp32", "bf16", "auto"] = "fp32") -> Predictor:
    """A predictor for a model directory.

    Args:
        model: what a run left in `run.dir/model`, or any model directory in transformers' format.
        task: one that needs no training (`replaced`, `fill-mask`, `score`, `correct`, `embed`), or the task of an installed
            package that the model was fine-tuned for; None = the task the model was fine-tuned for.
        precision: see `electra.predict.predictor.load`.
    """
    from electra.predict.predictor import load as load_predictor

    return load_predictor(Path(model), task, precision=precision)
