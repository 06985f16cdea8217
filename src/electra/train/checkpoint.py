"""Checkpoints that a crash cannot spoil.

A checkpoint is a sealed directory `step-00001000` (see `storage`) with `model.safetensors`, `optimizer.safetensors` and
`state.json`; others are removed only when it is in place, but for those that hold the best weights so far. On load every hash
is verified; a broken checkpoint is named aloud and the one before it is taken.
There is no random state in it: order, masks and noise are functions of the seed and the step.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from electra.dist import fill, on_first, whole
from electra.errors import ElectraError
from electra.storage import problem, sealed_directory, write_json
from electra.train.optim import Optimizers

FORMAT_VERSION = 2
#: those that are read: in 1 there is no `guard`
_KNOWN = (1, 2)
_PREFIX = "step-"


@dataclass(frozen=True, kw_only=True)
class State:
    """What `state.json` holds.

    Args:
        step: the next step of the whole run, counted over all phases.
        phase: name of the phase that step belongs to.
        fingerprints: of recipe, corpus and tokenizer; compared at resume.
        window: totals and tokens since the last log line, so that a resumed log equals an uninterrupted one.
        skipped: steps in a row whose updates were not made.
        guard: what further updates are judged by; see `guard.Guard`.
    """

    step: int
    phase: str
    fingerprints: Mapping[str, str]
    window: Mapping[str, Any]
    skipped: int = 0
    guard: Mapping[str, Any] = field(default_factory=dict)


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, each tensor once however often it is shared."""
    kept: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            kept[name] = tensor.detach().contiguous()
    return kept


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: `run/checkpoints`.
        keep: how many to keep.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory, self.keep = directory, keep

    def save(
        self,
        objective: nn.Module,
        optimizers: Optimizers,
        state: State,
        best_step: Callable[[int], int | None] = lambda until: None,
    ) -> Path:
        """Write the state at the start of `state.step`; of several processes, all call this, and the first one writes.

        Args:
            best_step: the step, up to a given one, whose weights are wanted beside the newest ones; its checkpoint stays.

        Raises:
            ElectraError: E-R001 when the disk is full; earlier checkpoints are untouched.
        """
        weights, optimizer = whole(own_tensors(objective)), whole(optimizers.state_tensors())
        on_first(lambda: self._write(weights, optimizer, state, best_step))
        return self.path(state.step)

    def _write(
        self,
        weights: Mapping[str, Tensor],
        optimizer: Mapping[str, Tensor],
        state: State,
        best_step: Callable[[int], int | None],
    ) -> None:
        final = self.path(state.step)
        if final.exists() and problem(final) is None:
            return  # a resumed run that stops where it began
        with sealed_directory(final, {"format_version": FORMAT_VERSION}) as temporary:
            save_file(dict(weights), temporary / "model.safetensors")
            save_file(dict(optimizer), temporary / "optimizer.safetensors")
            write_json(temporary / "state.json", {"format_version": FORMAT_VERSION, **vars(state)})
        self._prune(final, best_step)

    def path(self, step: int) -> Path:
        """Where the checkpoint of `step` is, or would be."""
        return self.directory / f"{_PREFIX}{step:08d}"

    def paths(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        return sorted(path for path in self.directory.glob(f"{_PREFIX}*") if path.is_dir())

    def newest_state(self, report: Callable[[str], None]) -> tuple[Path, State] | None:
        """The newest checkpoint whose files are all as they were written; broken ones are told to `report` and passed over.

        Raises:
            ElectraError: E-M400 it was written in a format that is not known here.
        """
        return next(self.states(report), None)

    def states(self, report: Callable[[str], None] = lambda damage: None) -> Iterator[tuple[Path, State]]:
        """The checkpoints whose files are all as they were written, newest first; as in `newest_state`."""
        for path in reversed(self.paths()):
            damage = problem(path)
            if damage is not None:
                report(f"checkpoint {path.name} is broken and was passed over: {damage}")
                continue
            stored = json.loads((path / "state.json").read_text(encoding="utf-8"))
            version = stored.pop("format_version")
            if version not in _KNOWN:
                known = " and ".join(map(str, _KNOWN))
                raise ElectraError("E-M400", str(path), f"its format_version {version} is not known here, only {known}",
                                   "resume with the version of electra that wrote it")  # fmt: skip
            yield path, State(**stored)

    def load(self, path: Path, objective: nn.Module, optimizers: Optimizers) -> None:
        """Fill `objective` and `optimizers` in place.

        Raises:
            ElectraError: E-M402 when names or shapes differ from what the recipe builds.
        """
        _fill(path, objective)
        optimizers.load_state_tensors(load_file(path / "optimizer.safetensors"))

    def load_weights(self, step: int, objective: nn.Module) -> None:
        """Fill `objective` in place with the weights after `step` steps.

        Raises:
            ElectraError: E-T410 that checkpoint is not as it was written; E-M402 as in `load`.
        """
        path = self.path(step)
        if (damage := problem(path)) is not None:
            raise ElectraError("E-T410", str(path), f"it holds the best weights and is broken: {damage}",
                               "run the same command again: the best of what is left will be taken")  # fmt: skip
        _fill(path, objective)

    def _prune(self, newest: Path, best_step: Callable[[int], int | None]) -> None:
        """Keep the last `keep` up to `newest`, and what was the best at each; later ones are broken, else the run would have
        gone on from them."""
        last = [path for path in self.paths() if path <= newest][-self.keep :]
        best = {self.path(step) for path in last if (step := best_step(int(path.name.removeprefix(_PREFIX)))) is not None}
        for path in set(self.paths()) - {*last, *best}:
            shutil.rmtree(path)
        for leftover in self.directory.glob(f".{_PREFIX}*"):  # of a process that was killed while it wrote
            shutil.rmtree(leftover)


def _fill(path: Path, objective: nn.Module) -> None:
    """The weights of a checkpoint into a module that has the same, or E-M402."""
    put(load_file(path / "model.safetensors"), objective, str(path))


def put(stored: Mapping[str, Tensor], objective: nn.Module, where: str) -> None:
    """Fill `objective` in place with the tensors of a module that has the same (see `own_tensors`).

    Raises:
        ElectraError: E-M402 names or shapes differ from what the recipe builds.
    """
    expected = own_tensors(objective)
    different = set(stored) ^ set(expected) or {n for n in stored if stored[n].shape != expected[n].shape}
    if different:
        raise ElectraError("E-M402", where, f"weights differ from the recipe's: {', '.join(sorted(different)[:5])}",
                           "resume with the recipe that made it")  # fmt: skip
    for name, tensor in expected.items():
        fill(tensor, stored[name])
