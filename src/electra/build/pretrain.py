"""Pre-training: a recipe and a corpus in, a run directory with a trained model out.

A run is a sequence of phases (mostly one). Each has an objective, an optimiser and its share of the steps; between two phases
the weights go through a model directory, as they go between any two stages: the second phase starts from what the first one
exported, by the rules of `init.from`. So a run that begins with masked language modelling and goes on with replaced token
detection is resumable like any other, and its first part is a model of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from electra.build.corpora import Corpora
from electra.build.needs import Need, PhasePlan, Room, Survey, examine, files_of_run, require_disk, require_memory
from electra.build.networks import (
    PretrainObjective,
    build_objective,
    initial_source,
    kept_samples,
    read_fingerprints,
    resolve_encoder,
)
from electra.build.parts import is_done, logging_to, recent_steps, restore_point, uses_bf16
from electra.build.pretrain_settings import PhaseConfig
from electra.build.pretrain_settings import PretrainRecipe as PretrainRecipe
from electra.config import fingerprint, to_tree
from electra.console import ConsoleSink
from electra.contracts import Objective
from electra.data.loader import PretrainLoader
from electra.dist import first, on_first, processes, whole, world_size
from electra.errors import ElectraError
from electra.evaluate.card import write_card
from electra.evaluate.report import write_report
from electra.events import EventLog
from electra.models.model_dir import ModelDir, load_model_dir
from electra.nn.layers import shapes_alone
from electra.objectives.networks import Warn, unheard
from electra.tensorboard import require_tensorboard
from electra.train import machine
from electra.train.checkpoint import Checkpoints, State, own_tensors, put
from electra.train.loop import Span, Training, train
from electra.train.machine import StopFlag
from electra.train.optim import Optimizers
from electra.train.parallel import placement
from electra.train.run import Opened, open_run

#: tokens that go through the networks at once, unless `batch.micro_rows` says otherwise
MICRO_TOKENS = 8192
#: seconds of timed steps for each phase of a run with a time budget
_PROBE_SECONDS = 6.0
#: share of tokens without spaces from which on a segmenter is worth a word
_MUCH_UNSPACED = 0.1


def pretrain(recipe: PretrainRecipe, console: ConsoleSink | None = None) -> Path:
    """Run `recipe`, or resume it where it was stopped.

    Returns:
        The model directory, `run.dir/model`.

    Raises:
        ElectraError: anything the user can mend, before step 0 where it can be known.
        Preempted: a signal came and the state is saved.
    """
    with processes(recipe.parallel.timeout_minutes):
        return _pretrain(recipe, console)


def _pretrain(recipe: PretrainRecipe, console: ConsoleSink | None) -> Path:
    machine.keep_large_buffers()
    setting = Setting(recipe)
    opened = open_run(recipe.run, to_tree(recipe), setting.resolve)
    if opened.resuming:
        setting.verify()
    run = _Run(setting, opened)
    with logging_to(opened, console, recipe.loop) as log, StopFlag() as stop:
        checkpoints = Checkpoints(opened.checkpoints, recipe.loop.keep)
        found = restore_point(opened, checkpoints, log, setting.fingerprints)
        run.announce(log, found)
        for index, span in enumerate(run.spans):
            if not is_done(span.end, run.exported(index), found):
                run.run_phase(index, checkpoints, log, stop, found)
        last = recent_steps(opened)[-1]
        log.emit("done", step=last["step"], figures=last["figures"], model=opened.model)
        on_first(lambda: write_report(opened.directory))
    return opened.model


class Setting:
    """A recipe with its corpora and tokenizer: what a run needs before it has a directory."""

    def __init__(self, recipe: PretrainRecipe) -> None:
        self.recipe = recipe
        self.parallel = placement(recipe.parallel)
        self.phases = {name: phase for name, phase in recipe.phases.items() if phase.share > 0}
        #: whether a phase draws words
        self.needs_words = any(phase.objective.masking.needs_words for phase in self.phases.values())
        self.corpora = Corpora(recipe.corpus, recipe.rows, recipe.run.seed, words=self.needs_words)
        self.tokenizer = self.corpora.tokenizer
        self.encoder = resolve_encoder(recipe.encoder, self.tokenizer, recipe.rows.length)
        self.fingerprints = self.corpora.fingerprints | read_fingerprints({n: p.objective for n, p in self.phases.items()})

    def verify(self) -> None:
        """Read all shards and compare their hashes, for a run that is resumed: a corpus's fingerprint is its manifest's.

        Raises:
            ElectraError: E-D123 a shard is not as it was written.
        """
        self.corpora.verify()

    def resolve(self) -> dict[str, Any]:
        """What the recipe leaves to the machine and the corpus; runs once, and is written to recipe.json."""
        return self.survey(_PROBE_SECONDS if self.recipe.stop.hours else 0.0).resolved

    def survey(self, budget: float, known: Mapping[str, Any] | None = None) -> Survey:
        """What the run needs, found with networks that are thrown away; every check that can be made before step 0.

        Args:
            budget: seconds of timed steps for each phase; 0 = one step.
            known: what the first start resolved, for a run that is resumed.
        """
        recipe, room = self.recipe, Room.now()
        if recipe.loop.tensorboard:
            require_tensorboard()
        bf16 = known["bf16"] if known else first(lambda: uses_bf16(recipe.precision))
        recipe.batch.require_shares(world_size())
        micro = min(recipe.batch.rows // world_size(), recipe.batch.micro_rows or max(1, MICRO_TOKENS // recipe.rows.length))
        source = initial_source(recipe.init, self.encoder, self.tokenizer)
        whole = sum(phase.share for phase in self.phases.values())
        phases, begin, row = list[PhasePlan](), 0, 0
        for number, (name, phase) in enumerate(self.phases.items()):
            need = self._need(name, source, known["micro_rows"] if known else micro, bf16, budget, room)
            micro = need.positions // recipe.rows.length
            steps = known["spans"][number]["steps"] if known else recipe.stop.steps_of(phase.share / whole, need.seconds)
            end = row + recipe.batch.of_phase(steps).before(steps)
            before, after = (self.corpora.mixture.epochs(count) for count in (row, end))
            epochs = {source: after[source] - before[source] for source in after}
            phases.append(PhasePlan(name=name, first=begin, steps=steps, epochs=epochs, need=need))
            begin, row = begin + steps, end
        writes = files_of_run([phase.need for phase in phases], list(self.phases)[:-1], begin, recipe.loop)
        for plan in phases:
            rows = recipe.batch.of_phase(plan.steps).before(plan.steps)
            writes |= kept_samples(self.phases[plan.name].objective, rows, recipe.rows.length, self.tokenizer.vocab_size)
        require_disk(recipe.run.dir, sum(writes.values()))
        resolved = dict(known) if known else {
            "bf16": bf16,
            "micro_rows": micro,
            "spans": [{"name": phase.name, "first": phase.first, "steps": phase.steps} for phase in phases],
            "encoder": to_tree(self.encoder),
            "corpus": self.corpora.describe(),
            "tokenizer": self.tokenizer.fingerprint,
            "unigram_entropy": self.corpora.unigram_entropy(),
            "machine": machine.describe(),
            "fingerprints": self.fingerprints,
        }  # fmt: skip
        return Survey(
            data=self.corpora.counts(),
            phases=phases, room=room, writes=writes, derived=self._derived(resolved), resolved=resolved,
        )  # fmt: skip

    def _need(self, name: str, source: ModelDir | None, micro: int, bf16: bool, budget: float, room: Room) -> Need:
        with shapes_alone():  # sizes alone: what is too large must not be built
            phase = self.phases[name]
            parts = world_size() if self.parallel.sharded else 1
            require_memory(self.objective(phase, None, card=str), phase.optimizer, phase.average, room, parts)
        t = self.training(Span(name=name, first=0, steps=100), source, micro, bf16, card=str)
        mean = self.recipe.batch.of_phase(100).before(100) / (100 * self.recipe.batch.rows)
        assert isinstance(t.loader, PretrainLoader)
        t.loader = dataclasses.replace(t.loader, first_rows=None)  # what the largest batch needs
        need = examine(t, budget, room)
        return dataclasses.replace(need, seconds=need.seconds * mean)

    def _derived(self, resolved: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
        """The settings that the recipe leaves open."""
        given = to_tree(self.recipe.encoder)
        derived = {
            f"encoder.{name}": (value, "tokenizer") for name, value in resolved["encoder"].items() if given[name] != value
        }
        if self.recipe.batch.micro_rows != resolved["micro_rows"]:
            derived["batch.micro_rows"] = (resolved["micro_rows"], "probe")
        if self.recipe.precision == "auto":
            derived["precision"] = ("bf16" if resolved["bf16"] else "fp32", "probe")
        return derived

    def objective(
        self, phase: PhaseConfig, source: ModelDir | None, card: Callable[[], str], warn: Warn = unheard, lasting: bool = False
    ) -> PretrainObjective:
        recipe, seed = self.recipe, self.recipe.run.seed
        text = fingerprint({"corpora": self.corpora.fingerprints, "rows": to_tree(recipe.rows)})
        return build_objective(
            phase.objective, self.encoder, recipe.generator, recipe.init, source, self.tokenizer, seed, card, warn,
            text=text, frequencies=self.corpora.frequencies, lasting=lasting,
        )  # fmt: skip

    def training(
        self,
        span: Span,
        source: ModelDir | None,
        micro: int,
        bf16: bool,
        card: Callable[[], str],
        warn: Warn = unheard,
        first_row: int = 0,
        lasting: bool = False,
    ) -> Training:
        """Objective, loader and optimisers of a phase, at its first step, with a log that goes nowhere.

        Args:
            warn: told what `source` does not bring.
            first_row: rows that earlier phases have taken.
            lasting: the networks are those of the run; else they are thrown away.
        """
        recipe, phase = self.recipe, self.phases[span.name]
        with _named(span.name):
            objective = self.objective(phase, source, card, warn, lasting)
        self.parallel.place(objective, machine.device())
        loader = PretrainLoader(
            mixture=self.corpora.mixture,
            masking=phase.objective.masking,
            cls_id=self.tokenizer.cls_id,
            sep_id=self.tokenizer.sep_id,
            mask_id=self.tokenizer.mask_id,
            pad_id=self.tokenizer.pad_id,
            batch_rows=recipe.batch.rows,
            first_rows=recipe.batch.first_rows,
            micro_rows=micro,
            steps=span.steps,
            first_row=first_row,
            packed=machine.device().type == "cuda",
        )
        with _named(span.name):
            optimizers = Optimizers(objective.networks, phase.optimizer, span.steps, average=phase.average)
        return Training(
            objective=objective, loader=loader, optimizers=optimizers, span=span, total_steps=span.end,
            seed=recipe.run.seed, device=machine.device(), bf16=bf16, settings=recipe.loop, parallel=self.parallel,
        )  # fmt: skip


@contextmanager
def _named(phase: str) -> Iterator[None]:
    """An error about a setting of a phase says which phase."""
    try:
        yield
    except ElectraError as error:
        if error.where.split(".")[0] not in ("objective", "optimizer"):
            raise
        raise ElectraError(error.code, f"phases.{phase}.{error.where}", error.cause, error.fix) from None


class _Run:
    """A setting in its directory."""

    def __init__(self, setting: Setting, opened: Opened) -> None:
        self.setting, self.opened = setting, opened
        self.spans = [Span(**span) for span in opened.resolved["spans"]]

    def exported(self, index: int) -> Path:
        """Where phase `index` leaves its model: the last one where everybody looks for it."""
        last = index == len(self.spans) - 1
        return self.opened.model if last else self.opened.phase_model(self.spans[index].name)

    def announce(self, log: EventLog, found: tuple[Path, State] | None) -> None:
        """The first event of every start."""
        recipe, resolved = self.setting.recipe, self.opened.resolved
        log.emit(
            "start",
            recipe=self.opened.directory.resolve().name,
            step=found[1].step if found else 0,
            steps=self.spans[-1].end,
            resumed=found is not None,
            phases=resolved["spans"],
            corpus=resolved["corpus"],
            precision="bf16" if resolved["bf16"] else "fp32",
            tokens_per_step=recipe.batch.rows * recipe.rows.length,
            **({"processes": world_size(), "strategy": recipe.parallel.strategy} if world_size() > 1 else {}),
        )
        if found is None and self.setting.needs_words:
            _say_what_a_word_is(self.setting.corpora, log)

    def _say_what_is_new(self, source: ModelDir | None, log: EventLog) -> None:
        """Tokens that `init.from` has not seen."""
        if source is None:
            return
        old, new = source.tokenizer().vocab_size, self.setting.tokenizer.vocab_size
        if new > old:
            log.emit("warning", code="E-M456", message=f"the corpus's tokenizer extends that of {source.path}: {new - old:,} "
                     f"new embedding rows, each the mean of its pieces' rows, behind {old:,} old ones")  # fmt: skip

    def run_phase(
        self, index: int, checkpoints: Checkpoints, log: EventLog, stop: StopFlag, found: tuple[Path, State] | None
    ) -> None:
        """Train phase `index` to its end and export its model; `found` is the checkpoint to go on from, if it lies in it."""
        setting, span, resolved = self.setting, self.spans[index], self.opened.resolved
        inside = found is not None and span.first < found[1].step <= span.end
        if inside:
            source = None  # every weight comes from the checkpoint
        elif index:
            source = load_model_dir(self.exported(index - 1))
        else:
            source = initial_source(setting.recipe.init, setting.encoder, setting.tokenizer)
            self._say_what_is_new(source, log)
        first = not inside and not index  # between phases, that networks start anew is the recipe's meaning
        warn = (lambda code, message: log.emit("warning", code=code, message=message)) if first else unheard
        row = sum(setting.recipe.batch.of_phase(each.steps).before(each.steps) for each in self.spans[:index])
        t = setting.training(
            span, source, resolved["micro_rows"], resolved["bf16"], lambda: write_card(self.opened.directory), warn, row,
            lasting=True,
        )  # fmt: skip
        t.log, t.checkpoints, t.fingerprints = log, checkpoints, setting.fingerprints
        t.unigram_entropy, t.total_steps = resolved["unigram_entropy"], self.spans[-1].end
        state = None
        if found is not None and inside:
            checkpoints.load(found[0], t.module, t.optimizers)
            state, t.history = found[1], recent_steps(self.opened)
        networks = {name: sum(p.numel() for p in own.values()) for name, own in t.optimizers.parameters.items()}
        log.emit("phase", name=span.name, step=state.step if state else span.first, steps=span.steps, parameters=networks)
        train(t, state, stop)
        t.optimizers.use_averages()
        self._export(index, t)

    def _export(self, index: int, t: Training) -> None:
        """The model of phase `index`, where everybody looks for it; sharded networks are written by such as are not."""
        weights = whole(own_tensors(t.module))

        def write() -> None:
            objective: Objective = t.objective
            if t.parallel.sharded:
                phase = self.setting.phases[t.span.name]
                plain = self.setting.objective(phase, None, card=lambda: write_card(self.opened.directory))
                put(weights, plain, str(self.opened.directory))
                objective = plain
            objective.export(self.exported(index))

        on_first(write)


def _say_what_a_word_is(corpora: Corpora, log: EventLog) -> None:
    """Warns where much of the text has no spaces, and no segmenter has said where its words begin."""
    share = corpora.unsegmented()
    if share > _MUCH_UNSPACED:
        log.emit("warning", code="E-D242", message=f"{share:.0%} of the tokens are of a script without spaces, in a corpus "
                 "that was built without --segmenter: masking takes each of them for a word")  # fmt: skip
