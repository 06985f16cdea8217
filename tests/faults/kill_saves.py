"""Kills a loop of saves at random moments; what is left must be a whole checkpoint that is not older than the last one told.

Run by test_checkpoint.py in a process of its own: `kill_saves.py DIRECTORY KILLS`. Forks children, prints how many were killed
with a save in flight, and ends with 0 if every time a good checkpoint was found.
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

from electra.train.checkpoint import Checkpoints, State
from electra.train.optim import AdamWConfig, Optimizers


class Saver:
    """Weights and moments that say which step they belong to."""

    def __init__(self, directory: Path) -> None:
        self.checkpoints = Checkpoints(directory, keep=2)
        self.module = nn.Linear(40, 40)
        self.optimizers = Optimizers({"net": self.module}, AdamWConfig(lr=1.0), steps=10)

    def tensors(self) -> list[torch.Tensor]:
        return [*self.module.parameters(), *self.optimizers.state_tensors().values()]

    @torch.no_grad()
    def save(self, step: int) -> None:
        for tensor in self.tensors():
            tensor.fill_(step)
        state = State(step=step, phase="only", fingerprints={}, window={"totals": {}, "tokens": float(step)})
        self.checkpoints.save(self.module, self.optimizers, state)

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


def save_until_killed(saver: Saver, first: int, told: int) -> None:
    for step in range(first, first + 100_000):
        saver.save(step)
        os.write(told, step.to_bytes(8, "little"))


def main(directory: Path, kills: int) -> None:
    chance, saver, in_flight = random.Random(0), Saver(directory), 0
    began = time.perf_counter()
    for step in range(5):
        saver.save(step)
    longest = time.perf_counter() - began  # a child gets as far as some saves, on a slow disk, too
    step = 4
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
        in_flight += any(path.name.startswith(".") for path in directory.iterdir())
        found = saver.newest()
        assert found >= max(told, default=step), f"told {told[-1:]}, found {found}"
        step = found
    saver.save(step + 1)
    assert sorted(path.name for path in directory.iterdir()) == sorted(path.name for path in saver.checkpoints.paths())
    print(in_flight, step)


main(Path(sys.argv[1]), int(sys.argv[2]))
