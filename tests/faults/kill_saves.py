"""Kills a loop of saves at random moments; what is left must be whole, and not older than what was told last.

Run by test_kills.py in a process of its own: `kill_saves.py DIRECTORY MODEL KILLS`. Each turn of the loop saves a checkpoint;
every other turn then puts a model directory in the place of the one before, and writes a report. Forks children from this one
warm process, prints how many were killed with a checkpoint in flight, with a model or a report in flight, and how many turns
there were; ends with 0 if every time a good checkpoint, a whole model and a whole report were found.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

from electra.evaluate.page import write_page
from electra.models.model_dir import Provenance, load_model_dir, save_model_dir
from electra.storage import clear_leftovers, problem
from electra.train.checkpoint import Checkpoints, State
from electra.train.optim import AdamWConfig, Optimizers


class Saver:
    """Weights, moments, a model and a report that say which step they belong to."""

    def __init__(self, directory: Path, model: Path) -> None:
        self.directory, self.checkpoints = directory, Checkpoints(directory / "checkpoints", keep=2)
        self.module = nn.Linear(40, 40)
        self.optimizers = Optimizers({"net": self.module}, AdamWConfig(lr=1.0), steps=10)
        loaded = load_model_dir(model)
        self.encoder = loaded.encoder
        self.provenance = Provenance(tokenizer=loaded.tokenizer(), card=lambda: "# A model\n")

    def tensors(self) -> list[torch.Tensor]:
        return [*self.module.parameters(), *self.optimizers.state_tensors().values()]

    @torch.no_grad()
    def save(self, step: int) -> None:
        for tensor in (*self.tensors(), *self.encoder.parameters()):
            tensor.fill_(step)
        state = State(step=step, phase="only", fingerprints={}, window={"totals": {}, "tokens": float(step)})
        self.checkpoints.save(self.module, self.optimizers, state)
        if step % 2 == 0:
            save_model_dir(self.directory / "model", encoder=self.encoder, provenance=self.provenance)
            write_page(f"{step:08d}\n" * 5000, self.directory / "report.html")

    def in_flight(self) -> tuple[bool, bool]:
        """Whether a checkpoint, and whether a model or a report, was being written."""
        hidden = [path.name for path in (*self.directory.glob(".*"), *self.checkpoints.directory.glob(".*"))]
        return any("step-" in name for name in hidden), any("step-" not in name for name in hidden)

    def newest(self) -> int:
        """The step of the newest checkpoint, all of whose parts are of that step."""
        broken: list[str] = []
        found = self.checkpoints.newest_state(broken.append)
        assert found is not None, "no checkpoint is left"
        assert not broken, broken
        path, state = found
        self.checkpoints.load(path, self.module, self.optimizers)
        assert all(bool((tensor == state.step).all()) for tensor in self.tensors()), "parts of different steps"
        assert state.window["tokens"] == state.step
        return state.step

    def model_and_report(self) -> tuple[int, int]:
        """The steps of the model, after what the next start does first, and of the report."""
        clear_leftovers(self.directory)
        place = self.directory / "model"
        assert problem(place) is None, problem(place)
        steps = {float(value) for tensor in load_model_dir(place).encoder.state_dict().values() for value in tensor.unique()}
        assert len(steps) == 1, "a model of different steps"
        lines = set((self.directory / "report.html").read_text(encoding="utf-8").split())
        assert len(lines) == 1, "a report of different steps"
        return int(steps.pop()), int(lines.pop())


def save_until_killed(saver: Saver, first: int, told: int) -> None:
    for step in range(first, first + 100_000):
        saver.save(step)
        os.write(told, step.to_bytes(8, "little"))


def main(directory: Path, model: Path, kills: int) -> None:
    chance, saver = random.Random(0), Saver(directory, model)
    checkpoints_in_flight = others_in_flight = 0
    began = time.perf_counter()
    for step in range(3):
        saver.save(step)
    longest = time.perf_counter() - began  # a child gets as far as some saves, on a slow disk, too
    step = 2
    for _ in range(kills):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            save_until_killed(saver, step + 1, write)
        os.close(write)
        time.sleep(chance.uniform(0.0, longest))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(read, "rb") as pipe:
            told = [int.from_bytes(word, "little") for word in iter(lambda: pipe.read(8), b"")]
        checkpoint, other = saver.in_flight()
        checkpoints_in_flight, others_in_flight = checkpoints_in_flight + checkpoint, others_in_flight + other
        found = saver.newest()
        assert found >= max(told, default=step), f"told {told[-1:]}, found {found}"
        others = saver.model_and_report()
        assert min(others) >= max((t for t in told if t % 2 == 0), default=0), f"told {told}, found {others}"
        step = found
    for last in (step + 1, step + 2):  # one of them writes a report, too, over what is left of another
        saver.save(last)
    assert saver.in_flight() == (False, False), "something half-written stayed"
    print(checkpoints_in_flight, others_in_flight, step)


main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
