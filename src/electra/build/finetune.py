"""Fine-tuning: a model directory and a labelled file in, a run directory with a model for the task out.

The same loop as in pre-training; the objective is `Supervised`, the loader keeps examples whole, and the development set is
scored after every epoch through the same `Predictor` that serves the model later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from electra.build.needs import PhasePlan, Room, Survey, examine, files_of_run, require_disk, require_memory
from electra.build.networks import initial_weights
from electra.build.parts import InitConfig, Precision, logging_to, recent_steps, restore_point, uses_bf16
from electra.config import STRICT, fingerprint, load, tables, to_tree
from electra.console import ConsoleSink
from electra.contracts import Example, TrainableTask
from electra.data.loader import ExampleLoader
from electra.dist import fold_seed
from electra.errors import ElectraError
from electra.evaluate.card import write_card
from electra.evaluate.report import write_report
from electra.evaluate.run import figures, judged
from electra.events import EventLog
from electra.models.model_dir import Provenance, load_model_dir
from electra.objectives.supervised import Supervised
from electra.predict.predictor import Predictor
from electra.storage import file_hash
from electra.tasks import BUILT_IN, TrainableTaskConfig
from electra.tasks.common import EncodedExamples, learnt
from electra.tasks.own import checked, name_of, own_task
from electra.tensorboard import require_tensorboard
from electra.train import machine
from electra.train.checkpoint import Checkpoints, State
from electra.train.loop import LoopConfig, Span, Training, train
from electra.train.machine import StopFlag
from electra.train.optim import AdamWConfig, Optimizers
from electra.train.run import Opened, RunConfig, open_run


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Labelled files.

    Args:
        train: examples to learn from.
        dev: examples to score after every epoch; None = no evaluation.
        swap_pairs: learn from each pair of texts in the other order, too: for relations that are the same in both.
    """

    __pydantic_config__ = STRICT
    train: Path
    dev: Path | None = None
    swap_pairs: bool = False


@dataclass(frozen=True, kw_only=True)
class ExampleBatchConfig:
    """The global batch of a step.

    Args:
        examples: examples over all processes.
        micro_tokens: tokens, padding included, that go through the network at once.
    """

    __pydantic_config__ = STRICT
    examples: int = 32
    micro_tokens: int = 8192

    def __post_init__(self) -> None:
        if self.examples < 1 or self.micro_tokens < 1:
            raise ElectraError("E-C440", "batch", "examples and micro_tokens are at least 1", "give a positive number")


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """A fine-tuning run as a value.

    Args:
        task: what is learnt.
        data: labelled files.
        run: where the run lives, and its seed.
        init: the pre-trained model; `init.weights = "fresh"` trains the same network from scratch.
        epochs: passes over the training examples.
        batch: examples of a step.
        optimizer: the paper's values of the small size by default.
        precision: `auto`, `fp32` or `bf16`.
        loop: logging and saving.
    """

    __pydantic_config__ = STRICT
    task: TrainableTaskConfig
    data: DataConfig
    run: RunConfig
    init: InitConfig = field(default_factory=InitConfig)
    epochs: float = 3
    batch: ExampleBatchConfig = field(default_factory=ExampleBatchConfig)
    optimizer: AdamWConfig = field(
        default_factory=lambda: AdamWConfig(lr=3e-4, weight_decay=0.0, warmup_ratio=0.1, layer_decay=0.8)
    )
    precision: Precision = "auto"
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if self.epochs <= 0:
            raise ElectraError("E-C443", "epochs", f"is {self.epochs}", "give a positive number")
        if self.init.from_ is None:
            raise ElectraError("E-C444", "init.from", "is required and was not given", "name a model directory")


def load_recipe(sources: Sequence[str | Path] = (), assignments: Sequence[str] = ()) -> FinetuneRecipe:
    """The recipe that `sources` and `assignments` describe; its task may be that of an installed package.

    Raises:
        ElectraError: as `config.load` and `tasks.own.own_task`.
    """
    name = name_of(tables(sources, assignments).get("task"))
    own = None if name is None else own_task(name, BUILT_IN)
    if own is None:
        return load(FinetuneRecipe, sources, assignments)
    recipe = make_dataclass("FinetuneRecipe", [("task", own)], bases=(FinetuneRecipe,), frozen=True, kw_only=True)
    return load(cast(type[FinetuneRecipe], recipe), sources, assignments)


def finetune(recipe: FinetuneRecipe, console: ConsoleSink | None = None) -> Path:
    """Run `recipe`, or resume it where it was stopped.

    Returns:
        The model directory, `run.dir/model`.

    Raises:
        ElectraError: anything the user can mend; all files are read and checked before step 0.
        Preempted: a signal came and the state is saved.
    """
    machine.keep_large_buffers()
    setting = Setting(recipe)
    opened = open_run(recipe.run, to_tree(recipe), setting.resolve)
    # a run that was started before micro-batches were probed has none in its file
    micro = opened.resolved.get("micro_tokens", recipe.batch.micro_tokens)
    t = setting.training(opened.resolved["bf16"], micro, lambda: write_card(opened.directory))
    with logging_to(opened, console, recipe.loop) as log, StopFlag() as stop:
        t.log, t.checkpoints = log, Checkpoints(opened.checkpoints, recipe.loop.keep)
        found = restore_point(opened, t.checkpoints, log, dict(t.fingerprints))
        setting.announce(log, opened, t, found)
        if found is not None:
            t.checkpoints.load(found[0], t.module, t.optimizers)
            t.history = recent_steps(opened)
        train(t, found[1] if found else None, stop)
        t.objective.export(opened.model)
        last = recent_steps(opened)[-1]
        log.emit("done", step=last["step"], figures=last["figures"], model=opened.model)
    write_report(opened.directory)
    return opened.model


class Setting:
    """A recipe with its model and its examples, read and checked."""

    def __init__(self, recipe: FinetuneRecipe) -> None:
        assert recipe.init.from_ is not None
        self.recipe = recipe
        self.source = load_model_dir(recipe.init.from_)
        self.tokenizer = self.source.tokenizer()
        self.notes: list[str] = []
        task = checked(recipe.task.build(self.tokenizer))
        train_examples = self._read(task, recipe.data.train)
        self.task = task.fit(train_examples)
        self.notes += learnt(task, self.task)
        if recipe.data.swap_pairs:
            self.notes.append(f"{len(train_examples):,} pairs are learnt from in both orders")
            train_examples += both_orders(train_examples)
        self.train = [row for example in train_examples for row in self.task.encode(example)]
        self.dev = self._read(self.task, recipe.data.dev) if recipe.data.dev else []
        self.truncated = sum(row.truncated for row in self.train)
        if self.dev:
            self.task.fit(self.dev)  # a label that the task does not know is an error now, not after an epoch

        self.fingerprints = {
            "training data": file_hash(recipe.data.train),
            "tokenizer": self.tokenizer.fingerprint,
            "labels": fingerprint(self.task.to_json()),
        }

    def _read(self, task: TrainableTask, path: Path) -> list[Example]:
        reading = task.read(path)
        examples = list(reading.examples)
        self.notes += [f"{path}: {note}" for note in reading.notes]
        return examples

    def verify(self) -> None:
        """Nothing is left to verify: model and examples were read and checked as a whole."""

    def resolve(self) -> dict[str, Any]:
        """What the recipe leaves to the machine; runs once, and is written to recipe.json."""
        return self.survey(0.0).resolved

    def survey(self, budget: float, known: Mapping[str, Any] | None = None) -> Survey:
        """What the run needs, found with weights that are put back; every check that can be made before step 0.

        Args:
            budget: seconds of timed steps; 0 = one step.
            known: what the first start resolved, for a run that is resumed.
        """
        recipe, room = self.recipe, Room.now()
        if recipe.loop.tensorboard:
            require_tensorboard()
        require_memory({"model": self.source.encoder}, room)
        bf16 = known["bf16"] if known else uses_bf16(recipe.precision)
        before = {name: tensor.clone() for name, tensor in self.source.encoder.state_dict().items()}
        trial = self.training(bf16, (known or {}).get("micro_tokens", recipe.batch.micro_tokens), card=str)
        trial.evaluate = None
        need = examine(trial, budget, room)
        self.source.encoder.load_state_dict(before)
        assert isinstance(trial.loader, ExampleLoader)
        micro, steps = trial.loader.micro_tokens, trial.total_steps
        writes = files_of_run([need], [], steps, recipe.loop)
        require_disk(recipe.run.dir, sum(writes.values()))
        derived: dict[str, tuple[Any, str]] = (
            {"precision": ("bf16" if bf16 else "fp32", "probe")} if recipe.precision == "auto" else {}
        )
        if micro != recipe.batch.micro_tokens:
            derived["batch.micro_tokens"] = (micro, "probe")
        resolved = {"bf16": bf16, "micro_tokens": micro, "machine": machine.describe(), "examples": len(self.train)}
        return Survey(
            data={"examples": len(self.train), "dev examples": len(self.dev), "tokens cut": self.truncated},
            phases=[PhasePlan(name=trial.span.name, first=0, steps=steps, epochs={"examples": recipe.epochs}, need=need)],
            room=room, writes=writes, derived=derived, resolved=dict(known) if known else resolved,
        )  # fmt: skip

    def training(self, bf16: bool, micro_tokens: int, card: Callable[[], str]) -> Training:
        """Objective, loader and optimiser at the first step, with a log that goes nowhere."""
        recipe, seed = self.recipe, self.recipe.run.seed
        torch.manual_seed(fold_seed(seed, "weights", "supervised"))
        encoder = initial_weights(self.source, recipe.init)
        objective = Supervised(encoder, self.task, Provenance(tokenizer=self.tokenizer, card=card))
        loader = ExampleLoader(
            examples=EncodedExamples(self.train),
            pad_id=self.tokenizer.pad_id,
            batch_examples=recipe.batch.examples,
            micro_tokens=micro_tokens,
            seed=seed,
            packed=machine.device().type == "cuda",
        )
        steps = math.ceil(recipe.epochs * loader.steps_per_epoch)
        exponents = {name: objective.head_depth - depth for name, depth in objective.layer_depths().items()}
        return Training(
            objective=objective.to(machine.device()),
            loader=loader,
            optimizers=Optimizers(objective.networks, recipe.optimizer, steps, exponents),
            span=Span(name="supervised", first=0, steps=steps),
            total_steps=steps,
            seed=seed,
            device=machine.device(),
            bf16=bf16,
            settings=recipe.loop,
            fingerprints=self.fingerprints,
            evaluate=self._evaluator(objective),
            evaluate_steps=loader.steps_per_epoch,
        )

    def _evaluator(self, objective: Supervised) -> Callable[[], dict[str, float]] | None:
        """Figures on the development set; what the task chooses there goes into the exported model."""

        def evaluate() -> dict[str, float]:
            judgements = [judgement for _, _, judgement in judged(Predictor(objective.model, self.task), self.dev)]
            tuned = objective.task = self.task.tune(judgements)
            return figures(tuned, judgements)

        return evaluate if self.dev else None

    def announce(self, log: EventLog, opened: Opened, t: Training, found: tuple[Path, State] | None) -> None:
        """The first events of every start."""
        log.emit(
            "start",
            recipe=opened.directory.resolve().name,
            step=found[1].step if found else 0,
            steps=t.total_steps,
            resumed=found is not None,
            examples=len(self.train),
            dev_examples=len(self.dev),
            precision="bf16" if t.bf16 else "fp32",
        )
        for note in self.notes:
            log.emit("note", message=note)
        if self.truncated:
            log.emit("warning", code="E-D401", message=f"{self.truncated} tokens of {sum(i.truncated > 0 for i in self.train)} "
                     f"training examples did not fit into task.max_length = {self.task.max_length}")  # fmt: skip


def both_orders(examples: Sequence[Example]) -> list[Example]:
    """Each pair of texts the other way round.

    Raises:
        ElectraError: E-D398 an example without a second text.
    """
    swapped = []
    for example in examples:
        if example.pair is None:
            raise ElectraError("E-D398", example.where or "example", "has no second text to swap with",
                               "name its column with task.columns.pair, or leave data.swap_pairs out")  # fmt: skip
        swapped.append(replace(example, text=example.pair, pair=example.text))
    return swapped
