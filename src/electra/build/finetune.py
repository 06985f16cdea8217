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
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from electra.build.finetune_settings import FinetuneRecipe as FinetuneRecipe
from electra.build.finetune_settings import load_recipe as load_recipe
from electra.build.labelled import read_labelled, read_unlabelled
from electra.build.needs import Need, PhasePlan, Room, Survey, examine, files_of_run, require_disk, require_memory
from electra.build.networks import initial_weights
from electra.build.parts import evaluations, logging_to, recent_steps, restore_point, uses_bf16
from electra.config import fingerprint, to_tree
from electra.console import ConsoleSink
from electra.contracts import Encoded, TrainableTask
from electra.data.loader import ExampleLoader
from electra.data.mixed import MixedLoader
from electra.dist import first, fold_seed, led, on_first, world_size
from electra.errors import Preempted
from electra.evaluate.card import write_card
from electra.evaluate.examine import figures
from electra.evaluate.report import EVALUATION, write_report
from electra.evaluate.run import examination, judged
from electra.events import EventLog
from electra.models.classic import ClassicEncoder
from electra.models.generation import GenerationHead
from electra.models.model_dir import Generator, ModelDir, Provenance, load_model_dir
from electra.models.modern import ModernEncoder
from electra.models.warm_start import warm_start, writing_network
from electra.nn.layers import shapes_alone
from electra.objectives.latent_adversarial import LatentAdversarialConfig
from electra.objectives.supervised import Supervised
from electra.predict.predictor import Predictor
from electra.predict.predictor import load as load_predictor
from electra.storage import json_text, write_whole
from electra.tasks import task_config
from electra.tasks.common import EncodedExamples
from electra.tasks.generate import Generate, GenerateConfig
from electra.tasks.own import checked
from electra.tensorboard import require_tensorboard
from electra.text.tokenizer import TARGET
from electra.train import machine
from electra.train.checkpoint import Checkpoints, State
from electra.train.loop import Span, Training, train
from electra.train.machine import StopFlag
from electra.train.optim import Optimizers
from electra.train.parallel import Replicas
from electra.train.run import Opened, open_run
from electra.train.selection import Evaluation, best


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
                on_first(lambda: setting.export(t, opened))
            raise
        led(lambda asked: setting.finish(t, opened, asked), lambda: stop.requested)
        last, kept = recent_steps(opened)[-1], best(t.evaluations)
        told = {} if kept is None else {"best": {"step": kept.step, "figures": kept.figures}}
        log.emit("done", step=last["step"], figures=last["figures"], **told, model=opened.model)
        on_first(lambda: write_report(opened.directory))
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
        self.tokenizer = task.tokenizer if isinstance(task, Generate) else replace(self.tokenizer, target=None)
        labelled = read_labelled(task, recipe.data)
        self.task, self.dev, self.notes, self.overlap = labelled.task, labelled.dev, labelled.notes, labelled.overlap
        self.examples = len(labelled.train)
        self.train = [row for example in labelled.train for row in self.task.encode(example)]
        self.fingerprints = {
            "training data": labelled.train_hash,
            "tokenizer": self.tokenizer.fingerprint,
            **({} if (target := self.tokenizer.target) is None else {"target tokenizer": target.fingerprint}),
            "labels": fingerprint(self.task.to_json()),
        }
        self.unlabelled: list[Encoded] = []
        if recipe.data.unlabelled:
            texts, self.fingerprints["unlabelled data"], notes = read_unlabelled(self.task, recipe.data, self.dev)
            self.unlabelled = [row for example in texts for row in self.task.encode(example)]
            self.notes = [*self.notes, *notes]
        self.truncated = sum(row.truncated for row in (*self.train, *self.unlabelled))
        self.words: Generator | None = None
        if isinstance(self.task, Generate):
            self.words, notes = _words(recipe, self.task, self.source)
            self.notes = [*self.notes, *notes, *_in_windows(self.task, self.train)]

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
        bf16 = known["bf16"] if known else first(lambda: uses_bf16(recipe.precision))
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
            shared = self.tokenizer.target is None
            warm_start(head.decoder, self.task.config.decoder, self.source, self.words, shared=shared)
        return objective

    def training(self, bf16: bool, micro_tokens: int, card: Callable[[], str]) -> Training:
        """Objective, loader and optimiser at the first step, with a log that goes nowhere."""
        recipe, objective, loader = self.recipe, self._objective(card), self._loader(micro_tokens)
        Replicas().place(objective, machine.device())
        steps = math.ceil(recipe.epochs * loader.steps_per_epoch)
        exponents = objective.decay_exponents(recipe.optimizer.layer_decay_rule)
        return Training(
            objective=objective,
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

    @property
    def _windowed(self) -> bool:
        """Sources have several windows: in a padded row each would be compared with all others, to be masked."""
        return isinstance(self.task, Generate) and any(int(row.targets["texts"]) > 1 for row in self.train)

    def _loader(self, micro_tokens: int) -> ExampleLoader | MixedLoader:
        """The labelled examples, and the unlabelled beside them where there are some."""
        recipe = self.recipe
        labelled = ExampleLoader(
            examples=EncodedExamples(self.train),
            pad_id=self.tokenizer.pad_id,
            batch_examples=recipe.batch.examples,
            micro_tokens=micro_tokens,
            seed=recipe.run.seed,
            packed=machine.device().type == "cuda" or self._windowed,
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
        """Figures on the development set, with what the task chooses there; a stop ends it before the next batch.

        Of several processes the first one evaluates; before each batch it hears whether the others are to stop.
        """

        def found(asked: Callable[[], bool]) -> dict[str, Any]:
            with machine.stopping(objective.model, asked):
                judgements = [judgement for _, _, judgement in judged(Predictor(objective.model, self.task), self.dev)]
            tuned = self.task.tune(judgements)
            chosen = {} if tuned is self.task else tuned.to_json()
            return {"figures": figures(tuned, judgements), "chosen": chosen}

        def evaluate(step: int, stop: StopFlag) -> Evaluation:
            return Evaluation(step=step, **led(found, lambda: stop.requested))

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

    def finish(self, t: Training, opened: Opened, asked: Callable[[], bool]) -> None:
        """The model, and how it does on the development set. Raises `Preempted` where `asked()` says so."""
        self.export(t, opened)
        if self.dev:
            saved = load_predictor(opened.model, self.task_name)
            with machine.stopping(saved.network, asked):
                examined = examination(saved, self.dev)
            write_whole(opened.directory / EVALUATION, json_text(examined.to_json()))

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
            **({"processes": world_size()} if world_size() > 1 else {}),
        )
        whole = self.task.whole_batch or bool(self.unlabelled)
        if whole and world_size() > 1:
            log.emit("warning", code="E-T801", message=f"the loss compares the texts of a step with each other; each of "
                     f"{world_size()} processes compares those of its share, so this is not the run of one")  # fmt: skip
        for note in self.notes:
            log.emit("note", message=note)
        if self.overlap is not None:
            log.emit("warning", code="E-D361", message=str(self.overlap))
        if self.truncated:
            room = f"task.max_length = {self.task.max_length}"
            room += f", task.max_windows = {self.task.config.max_windows}" if isinstance(self.task, Generate) else ""
            log.emit("warning", code="E-D401", message=f"{self.truncated} tokens of "
                     f"{sum(i.truncated > 0 for i in (*self.train, *self.unlabelled))} "
                     f"training rows did not fit and were cut ({room})")  # fmt: skip


def _words(recipe: FinetuneRecipe, task: Generate, source: ModelDir) -> tuple[Generator | None, list[str]]:
    """The network whose token table a decoder takes, and, of outputs with a tokenizer of their own, a note that says so."""
    if not isinstance(source.encoder, ClassicEncoder | ModernEncoder):
        return None, []  # it has no decoder, which its head will say
    sizes = task.config.decoder.of(source.encoder.config, task.tokenizer.target)
    if task.tokenizer.target is None:
        return writing_network(source, sizes), []
    named = recipe.task.target_tokenizer if isinstance(recipe.task, GenerateConfig) else None
    warm = recipe.init.weights == "loaded" and task.config.decoder.init != "fresh"
    has_words = warm and named is not None and (named / "config.json").is_file()
    words = writing_network(load_model_dir(named), sizes) if has_words and named is not None else None
    table = "fresh" if words is None else "as that of the network which writes there"
    return words, [f"outputs have the tokenizer of {named or source.path / TARGET}; the decoder's token table starts {table}"]


def _in_windows(task: Generate, rows: Sequence[Encoded]) -> list[str]:
    """How many sources are longer than a window, as a note; none for nothing."""
    long = sum(int(row.targets["texts"]) > 1 for row in rows)
    length = f"task.max_length = {task.max_length} tokens"
    return [f"{long:,} of {len(rows):,} sources are longer than {length} and are read in windows"] if long else []
