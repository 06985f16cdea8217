"""Fine-tuning: a model directory and a labelled file in, a run directory with a model for the task out.

The same loop as in pre-training; the objective is `Supervised` or builds on it, the loader keeps examples whole, and the
development set is scored after every epoch through the same `Predictor` that serves the model later. The model that is left is
the one that scored best; without a development set, the last. One run is made here; several with other seeds or rates, in
sweep.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from electra.build.finetune_settings import ExampleBatchConfig, FinetuneObjective, FinetuneOptimizerConfig, SearchConfig
from electra.build.labelled import DataConfig, read_labelled, read_unlabelled
from electra.build.needs import Need, PhasePlan, Room, Survey, examine, files_of_run, require_disk, require_memory
from electra.build.networks import initial_weights
from electra.build.parts import InitConfig, Precision, evaluations, logging_to, recent_steps, restore_point, uses_bf16
from electra.config import STRICT, fingerprint, load, tables, to_tree
from electra.console import ConsoleSink
from electra.contracts import Encoded, TrainableTask
from electra.data.loader import ExampleLoader
from electra.data.mixed import MixedLoader
from electra.dist import fold_seed
from electra.errors import ElectraError, Preempted
from electra.evaluate.card import write_card
from electra.evaluate.examine import figures
from electra.evaluate.report import EVALUATION, write_report
from electra.evaluate.run import examination, judged
from electra.events import EventLog
from electra.models.generation import GenerationHead
from electra.models.model_dir import Provenance, load_model_dir
from electra.models.warm_start import warm_start
from electra.nn.layers import shapes_alone
from electra.objectives.latent_adversarial import LatentAdversarialConfig
from electra.objectives.supervised import Freeze, Supervised, SupervisedConfig
from electra.predict.predictor import Predictor
from electra.predict.predictor import load as load_predictor
from electra.storage import json_text, write_whole
from electra.tasks import BUILT_IN, TrainableTaskConfig, task_config
from electra.tasks.common import EncodedExamples
from electra.tasks.generate import Generate
from electra.tasks.own import checked, name_of, own_task
from electra.tensorboard import require_tensorboard
from electra.train import machine
from electra.train.checkpoint import Checkpoints, State
from electra.train.loop import LoopConfig, Span, Training, train
from electra.train.machine import StopFlag
from electra.train.optim import Optimizers
from electra.train.run import Opened, RunConfig, open_run
from electra.train.selection import Evaluation, EvaluationConfig, best


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """A fine-tuning run as a value.

    Args:
        task: what is learnt.
        data: labelled files, and texts without labels.
        run: where the run lives, and its seed.
        init: the pre-trained model; `init.weights = "fresh"` trains the same network from scratch.
        objective: the task's loss on labelled examples alone, or with unlabelled texts beside them.
        epochs: passes over the training examples.
        batch: labelled examples of a step.
        optimizer: the paper's values of the small size by default.
        freeze: what is not trained: `nothing`, the `embeddings`, these and a number of the lowest layers, or the `encoder`.
        evaluation: when the development set is scored, and when to end early.
        seeds: how many runs, with seeds from `run.seed` on, or a list of seeds; each run has a directory in run.dir.
        search: settings to try first.
        precision: `auto`, `fp32` or `bf16`.
        loop: logging and saving.
    """

    __pydantic_config__ = STRICT
    task: TrainableTaskConfig
    data: DataConfig
    run: RunConfig
    init: InitConfig = field(default_factory=InitConfig)
    objective: FinetuneObjective = field(default_factory=SupervisedConfig)
    epochs: float = 3
    batch: ExampleBatchConfig = field(default_factory=ExampleBatchConfig)
    optimizer: FinetuneOptimizerConfig = field(default_factory=FinetuneOptimizerConfig)
    freeze: Freeze = "nothing"
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seeds: int | tuple[int, ...] = 1
    search: SearchConfig = field(default_factory=SearchConfig)
    precision: Precision = "auto"
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if self.epochs <= 0:
            raise ElectraError("E-C443", "epochs", f"is {self.epochs}", "give a positive number")
        if self.init.from_ is None:
            raise ElectraError("E-C444", "init.from", "is required and was not given", "name a model directory")
        self._check_seeds()
        self._check_objective()
        by_dev = {"evaluation": EvaluationConfig(), "seeds": 1, "search": SearchConfig()}
        for name, default in by_dev.items():
            if self.data.dev is None and getattr(self, name) != default:
                raise ElectraError("E-C455", name, "needs examples to score, and data.dev was not given",
                                   f"give data.dev, or leave {name} out")  # fmt: skip

    def _check_seeds(self) -> None:
        seeds = self.seeds
        if seeds < 1 if isinstance(seeds, int) else not seeds or len(set(seeds)) < len(seeds):
            raise ElectraError("E-C453", "seeds", f"{seeds} is neither a number of runs nor a list of different seeds",
                               "give for example 3, or [0, 1, 2]")  # fmt: skip

    def _check_objective(self) -> None:
        name, takes = self.objective.type, isinstance(self.objective, LatentAdversarialConfig)
        if takes and not self.data.unlabelled:
            raise ElectraError("E-C532", "data.unlabelled", f"is required by objective.type={name} and was not given",
                               "name a file of texts")  # fmt: skip
        if self.data.unlabelled and not takes:
            raise ElectraError("E-C532", "data.unlabelled", f"objective.type={name} learns nothing of texts without labels",
                               "set objective.type=latent-adversarial, or leave the texts out")  # fmt: skip

    @property
    def is_single(self) -> bool:
        """One run, in run.dir itself."""
        return self.seeds == 1 and not self.search.lr

    @property
    def all_seeds(self) -> list[int]:
        seeds = self.seeds
        return list(range(self.run.seed, self.run.seed + seeds)) if isinstance(seeds, int) else list(seeds)

    @property
    def run_names(self) -> list[str]:
        """The directories of the runs below run.dir; none for a single one. The first seed runs while rates are tried."""
        if self.is_single:
            return []
        rates = [f"lr-{lr!r}" for lr in self.search.lr]
        return rates + [f"seed-{seed}" for seed in (self.all_seeds[1:] if rates else self.all_seeds)]


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


def run(recipe: FinetuneRecipe, console: ConsoleSink | None = None, stop: StopFlag | None = None) -> Opened:
    """Run a single `recipe`, or resume it where it was stopped; its model is `run.dir/model`.

    Args:
        stop: watched by the caller; None = signals count from the first step on.

    Raises:
        ElectraError: anything the user can mend; all files are read and checked before step 0.
        Preempted: a signal came and the state is saved; if there was an evaluation, the best model so far is exported.
    """
    machine.keep_large_buffers()
    setting = Setting(recipe)
    opened = open_run(recipe.run, to_tree(recipe), setting.resolve)
    # a run that was started before micro-batches were probed has none in its file
    micro = opened.resolved.get("micro_tokens", recipe.batch.micro_tokens)
    t = setting.training(opened.resolved["bf16"], micro, lambda: write_card(opened.directory))
    with logging_to(opened, console, recipe.loop) as log, nullcontext(stop) if stop else StopFlag() as stop:
        t.log, t.checkpoints = log, Checkpoints(opened.checkpoints, recipe.loop.keep)
        found = restore_point(opened, t.checkpoints, log, dict(t.fingerprints))
        setting.announce(log, opened, t, found)
        if found is not None:
            t.checkpoints.load(found[0], t.module, t.optimizers)
            t.history, t.evaluations = recent_steps(opened), evaluations(opened, t.checkpoints, log)
        try:
            train(t, found[1] if found else None, stop)
        except Preempted:
            if t.evaluations:
                setting.export(t, opened)
            raise
        setting.export(t, opened)
        if setting.dev:
            saved = load_predictor(opened.model, setting.task_name)
            with stop.between_batches(saved.network):
                examined = examination(saved, setting.dev)
            write_whole(opened.directory / EVALUATION, json_text(examined.to_json()))
        last, kept = recent_steps(opened)[-1], best(t.evaluations)
        told = {} if kept is None else {"best": {"step": kept.step, "figures": kept.figures}}
        log.emit("done", step=last["step"], figures=last["figures"], **told, model=opened.model)
        write_report(opened.directory)
    return opened


class Setting:
    """A recipe with its model and its examples, read and checked."""

    def __init__(self, recipe: FinetuneRecipe) -> None:
        assert recipe.init.from_ is not None
        self.recipe = recipe
        self.source = load_model_dir(recipe.init.from_)
        self.tokenizer = self.source.tokenizer()
        task = checked(recipe.task.build(self.tokenizer))
        if isinstance(task, Generate):
            task = task.sized(self.source)
        labelled = read_labelled(task, recipe.data)
        self.task, self.dev, self.notes, self.overlap = labelled.task, labelled.dev, labelled.notes, labelled.overlap
        self.examples = len(labelled.train)
        self.train = [row for example in labelled.train for row in self.task.encode(example)]
        self.fingerprints = {
            "training data": labelled.train_hash,
            "tokenizer": self.tokenizer.fingerprint,
            "labels": fingerprint(self.task.to_json()),
        }
        self.unlabelled: list[Encoded] = []
        if recipe.data.unlabelled:
            texts, self.fingerprints["unlabelled data"], notes = read_unlabelled(self.task, recipe.data, self.dev)
            self.unlabelled = [row for example in texts for row in self.task.encode(example)]
            self.notes = [*self.notes, *notes]
        self.truncated = sum(row.truncated for row in (*self.train, *self.unlabelled))

    @property
    def task_name(self) -> str:
        """What the examples made of the recipe's task: `multilabel`, say, of `classify`."""
        return str(self.task.to_json()["type"])

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
        with shapes_alone():  # sizes alone: what is fresh need not be built
            require_memory(self._objective(card=str), recipe.optimizer, None, room)
        bf16 = known["bf16"] if known else uses_bf16(recipe.precision)
        before = {name: tensor.clone() for name, tensor in self.source.encoder.state_dict().items()}
        trial = self.training(bf16, (known or {}).get("micro_tokens", recipe.batch.micro_tokens), card=str)
        trial.evaluate = None
        need = examine(trial, budget, room)
        self.source.encoder.load_state_dict(before)
        assert isinstance(trial.loader, ExampleLoader | MixedLoader)
        loader, steps = trial.loader, trial.total_steps
        writes = self._writes(need, steps)
        require_disk(recipe.run.dir, sum(writes.values()))
        derived: dict[str, tuple[Any, str]] = (
            {"precision": ("bf16" if bf16 else "fp32", "probe")} if recipe.precision == "auto" else {}
        )
        if loader.micro_tokens != recipe.batch.micro_tokens:
            derived["batch.micro_tokens"] = (loader.micro_tokens, "probe")
        phases = [
            PhasePlan(name=name, first=number * steps, steps=steps, epochs={"examples": recipe.epochs}, need=need)
            for number, name in enumerate(recipe.run_names or [trial.span.name])
        ]
        end = phases[-1].first + steps
        resolved = {"bf16": bf16, "micro_tokens": loader.micro_tokens, "machine": machine.describe(),
                    "examples": self.examples, "steps": end, "fingerprints": self.fingerprints}  # fmt: skip
        beside = {"unlabelled rows": len(self.unlabelled)} if self.unlabelled else {}
        return Survey(
            data={"examples": self.examples, "rows": len(self.train), **beside, "dev examples": len(self.dev),
                  "dev examples in train": self.overlap.count if self.overlap else 0, "tokens cut": self.truncated,
                  "padding share": round(loader.padding, 4)},
            phases=phases, room=room, writes=writes, derived=derived, resolved=dict(known) if known else resolved,
        )  # fmt: skip

    def _writes(self, need: Need, steps: int) -> dict[str, int]:
        """Bytes by path below run.dir, of all runs there."""
        recipe = self.recipe
        single = files_of_run([need], [], steps, recipe.loop, best=recipe.data.dev is not None)
        if recipe.is_single:
            return single
        each = {f"{name}/": sum(single.values()) for name in recipe.run_names}
        shared = ("recipe.json", "events.jsonl", "model/", "report.html")
        return {**each, **{name: single[name] for name in shared}, "summary.json": single["recipe.json"]}

    def _objective(self, card: Callable[[], str]) -> Supervised:
        """First weights under a fresh head: the one thing that a model directory need not have. A decoder starts from it."""
        torch.manual_seed(fold_seed(self.recipe.run.seed, "weights", "supervised"))
        encoder = initial_weights(self.source, self.recipe.init)
        provenance = Provenance(tokenizer=self.tokenizer, card=card, trained_on=self.fingerprints["training data"])
        objective = self.recipe.objective.build(encoder, self.task, provenance, self.recipe.freeze)
        head = objective.model.head
        if isinstance(head, GenerationHead) and isinstance(self.task, Generate) and self.recipe.init.weights == "loaded":
            warm_start(head.decoder, self.task.config.decoder, self.source)
        return objective

    def training(self, bf16: bool, micro_tokens: int, card: Callable[[], str]) -> Training:
        """Objective, loader and optimiser at the first step, with a log that goes nowhere."""
        recipe, objective, loader = self.recipe, self._objective(card), self._loader(micro_tokens)
        steps = math.ceil(recipe.epochs * loader.steps_per_epoch)
        exponents = objective.decay_exponents(recipe.optimizer.layer_decay_rule)
        return Training(
            objective=objective.to(machine.device()),
            loader=loader,
            optimizers=Optimizers(objective.networks, recipe.optimizer, steps, exponents),
            span=Span(name="supervised", first=0, steps=steps),
            total_steps=steps,
            seed=recipe.run.seed,
            device=machine.device(),
            bf16=bf16,
            settings=recipe.loop,
            fingerprints=self.fingerprints,
            evaluate=self._evaluator(objective),
            evaluate_steps=recipe.evaluation.steps or loader.steps_per_epoch,
            patience=recipe.evaluation.patience,
        )

    def _loader(self, micro_tokens: int) -> ExampleLoader | MixedLoader:
        """The labelled examples, and the unlabelled beside them where there are some."""
        recipe = self.recipe
        labelled = ExampleLoader(
            examples=EncodedExamples(self.train),
            pad_id=self.tokenizer.pad_id,
            batch_examples=recipe.batch.examples,
            micro_tokens=micro_tokens,
            seed=recipe.run.seed,
            packed=machine.device().type == "cuda",
            whole=self.task.whole_batch,
        )
        if not isinstance(recipe.objective, LatentAdversarialConfig):
            return labelled
        beside = replace(
            labelled,
            examples=EncodedExamples(self.unlabelled),
            batch_examples=recipe.objective.unlabelled_examples or recipe.batch.examples,
            seed=fold_seed(recipe.run.seed, "unlabelled"),
        )
        return MixedLoader(labelled=labelled, unlabelled=beside)

    def _evaluator(self, objective: Supervised) -> Callable[[int, StopFlag], Evaluation] | None:
        """Figures on the development set, with what the task chooses there; a stop ends it before the next batch."""

        def evaluate(step: int, stop: StopFlag) -> Evaluation:
            with stop.between_batches(objective.model):
                judgements = [judgement for _, _, judgement in judged(Predictor(objective.model, self.task), self.dev)]
            tuned = self.task.tune(judgements)
            chosen = {} if tuned is self.task else tuned.to_json()
            return Evaluation(step=step, figures=figures(tuned, judgements), chosen=chosen)

        return evaluate if self.dev else None

    def task_of(self, evaluation: Evaluation) -> TrainableTask:
        """The task with what it chose in an evaluation."""
        if not evaluation.chosen:
            return self.task
        task = task_config(evaluation.chosen, own=self.task_name).build(self.tokenizer)
        assert isinstance(task, TrainableTask)
        return task

    def export(self, t: Training, opened: Opened) -> None:
        """The model of the best evaluation, or, if there was none, as it is now."""
        assert isinstance(t.objective, Supervised)
        assert t.checkpoints is not None
        if (kept := best(t.evaluations)) is not None:
            t.checkpoints.load_weights(kept.step, t.module)
            t.objective.task = self.task_of(kept)
        t.objective.export(opened.model)

    def announce(self, log: EventLog, opened: Opened, t: Training, found: tuple[Path, State] | None) -> None:
        """The first events of every start."""
        log.emit(
            "start",
            recipe=opened.directory.resolve().name,
            step=found[1].step if found else 0,
            steps=t.total_steps,
            resumed=found is not None,
            examples=self.examples,
            **({"unlabelled": len(self.unlabelled)} if self.unlabelled else {}),
            dev_examples=len(self.dev),
            padding_share=round(t.loader.padding, 4) if isinstance(t.loader, ExampleLoader | MixedLoader) else 0.0,
            precision="bf16" if t.bf16 else "fp32",
        )
        for note in self.notes:
            log.emit("note", message=note)
        if self.overlap is not None:
            log.emit("warning", code="E-D361", message=str(self.overlap))
        if self.truncated:
            log.emit("warning", code="E-D401", message=f"{self.truncated} tokens of "
                     f"{sum(i.truncated > 0 for i in (*self.train, *self.unlabelled))} "
                     f"training rows did not fit and were cut (task.max_length = {self.task.max_length})")  # fmt: skip
