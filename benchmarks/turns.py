"""Several variants of a step, each in a process of its own, in turn: so that all meet the same noise of the machine.

A worker calls `serve` with what takes steps; the script that compares calls `take_turns` with the workers' commands.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

#: so many steps are taken; their seconds
Take = Callable[[int], list[float]]


@dataclass
class Taken:
    """What one variant took: the seconds of its steps by round, the first of each round left out; its peak memory in MB.

    The first step of a turn finds the data of another process in the caches, as no step of a training run does.
    """

    rounds: list[list[float]] = field(default_factory=list)
    peak_mb: int = 0


def serve(take: Take) -> None:
    """A worker: for every number on standard input, take so many steps and answer with their seconds and the peak memory."""
    for line in sys.stdin:
        seconds = take(int(line))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "peak_mb": round(peak)}), flush=True)


def take_turns(script: str, workers: Sequence[Sequence[object]], rounds: int, steps: int) -> list[Taken]:
    """`rounds` of `steps` steps of each worker, in turn, after one round that is not counted.

    Args:
        script: the file that serves.
        workers: the arguments with which it does, for each variant.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, script, *map(str, arguments)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for arguments in workers
    ]
    taken = [Taken() for _ in workers]
    for number in range(rounds + 1):
        for process, found in zip(processes, taken, strict=True):
            assert process.stdin is not None
            assert process.stdout is not None
            print(steps, file=process.stdin, flush=True)
            answer = json.loads(process.stdout.readline())
            found.peak_mb = answer["peak_mb"]
            if number:  # the first round warms up
                found.rounds.append(answer["seconds"][1:])
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
    return taken
