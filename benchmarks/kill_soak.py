"""Kill a pre-training run again and again, resume it in a loop, and compare it with one that nothing happened to.

    python benchmarks/kill_soak.py [--minutes 20] [--out FILE]

Two runs of one recipe (dropout, accumulation, two threads) on a corpus that is made on the spot, each the command line in a
process of its own. The second is killed at random moments, a fifth of the times asked to stop instead, and started again until
it is done. Weights, optimiser, model and every figure of the log must then be those of the first, bit for bit; each kill must
leave a whole checkpoint that is not older than the one before. Writes benchmarks/results/kill_soak-DATE.json, and ends
with 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from electra.events import read_events
from electra.storage import file_hash
from electra.text import build
from electra.text.train_tokenizer import train
from electra.train import machine
from electra.train.checkpoint import Checkpoints

ROOT = Path(__file__).parent
#: of the minutes, those of the run that nothing happens to; starting again takes time, too
UNDISTURBED = 0.35
#: starts of the disturbed run for which the minutes are divided; nearly as many are killed
STARTS = 60
#: share of the deaths by SIGTERM, which saves
STOPS = 0.2
# what the clock says
CLOCK = {"time", "seconds", "tokens_per_second"}


def make_corpus(place: Path) -> Path:
    """2,000 documents of sentences in which the words depend on each other."""
    chance, words = random.Random(0), [f"{a}{b}{c}" for a in "bdfgkl" for b in "aeiou" for c in "mnrst"]
    documents = []
    for _ in range(2000):
        at, document = chance.randrange(len(words)), []
        for _ in range(chance.randint(20, 200)):
            at = (at * 7 + chance.choice((1, 2, 5))) % len(words)
            document.append(words[at])
        documents.append(" ".join(document))
    (place / "text.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    build.build([place / "text.txt"], train(documents, 400), place / "corpus")
    return place / "corpus"


@dataclass
class Command:
    """A run as a command; its last words go to a file beside it."""

    directory: Path
    corpus: Path
    steps: int

    def start(self) -> subprocess.Popen[bytes]:
        settings = [f"corpus.path={self.corpus}", f"run.dir={self.directory}", f"stop.steps={self.steps}", "batch.micro_rows=4",
                    "precision=fp32", "loop.save_minutes=0.03", "loop.log_steps=20"]  # fmt: skip
        with self.directory.with_suffix(".log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "electra", "pretrain", "test-classic", *settings], stdout=log, stderr=log,
                # passive: on a busy machine threads would else wait for each other in loops
                env={**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},
            )  # fmt: skip

    def finish(self) -> float:
        """Run it to its end; seconds."""
        began = time.perf_counter()
        if self.start().wait():
            sys.exit(self.directory.with_suffix(".log").read_text(encoding="utf-8"))
        return time.perf_counter() - began

    def events(self) -> list[dict[str, Any]]:
        return read_events(self.directory / "events.jsonl")[0]

    def last_step(self) -> int:
        return max((int(event["step"]) for event in self.events() if event["event"] == "step"), default=0)

    def saved_step(self) -> int:
        """Of the newest whole checkpoint."""
        found = Checkpoints(self.directory / "checkpoints", keep=2).newest_state(print)
        return 0 if found is None else found[1].step

    def left(self) -> dict[str, object]:
        """What the run leaves, but for the clock."""
        newest = Checkpoints(self.directory / "checkpoints", keep=2).paths()[-1]
        told = [event for event in self.events() if event["event"] in ("step", "verdict")]
        return {
            "weights": file_hash(newest / "model.safetensors"),
            "optimizer": file_hash(newest / "optimizer.safetensors"),
            "model": [file_hash(path) for path in sorted((self.directory / "model").rglob("*.safetensors"))],
            "log": [{key: value for key, value in event.items() if key not in CLOCK} for event in told],
        }


@dataclass
class Tally:
    """What has happened to the disturbed run."""

    kills: int = 0
    stops: int = 0
    starts: int = 0
    during_a_save: int = 0
    steps_made_again: int = 0
    lost: list[str] = field(default_factory=list)

    def disturb(self, command: Command, waits: Iterator[float], chance: random.Random) -> None:
        """Start `command` until it ends by itself."""
        saved = 0
        while True:
            self.starts += 1
            process = command.start()
            try:
                code = process.wait(next(waits))
            except subprocess.TimeoutExpired:
                asked = chance.random() < STOPS
                process.send_signal(signal.SIGTERM if asked else signal.SIGKILL)
                code = process.wait()
            if code == 0:
                return
            if code == -signal.SIGKILL:
                self.kills += 1
            elif code in (75, 128 + signal.SIGTERM, -signal.SIGTERM):  # the latter two: before the first step
                self.stops += 1
            else:
                self.lost.append(f"start {self.starts} ended with {code}")
                return
            self.during_a_save += any((command.directory / "checkpoints").glob(".*"))
            now = command.saved_step()
            if now < saved:
                self.lost.append(f"start {self.starts}: the checkpoint of step {saved} is gone, {now} is the newest")
            self.steps_made_again += max(0, command.last_step() - now)
            saved = now


def soak(place: Path, minutes: float) -> dict[str, Any]:
    corpus = make_corpus(place)
    probe = Command(place / "probe", corpus, 300)
    launched = time.time()
    probe.finish()
    first, last = (probe.events()[place]["time"] for place in (0, -1))
    starting, budget = first - launched, 60 * minutes * UNDISTURBED
    steps = max(100, int(probe.steps * budget / (last - first)))
    undisturbed, disturbed = (Command(place / name, corpus, steps) for name in ("undisturbed", "disturbed"))
    alone = undisturbed.finish()
    chance, tally, began = random.Random(0), Tally(), time.perf_counter()
    most = 2 * (starting + budget / STARTS)
    tally.disturb(disturbed, iter(lambda: chance.uniform(0, most), None), chance)
    expected, found = undisturbed.left(), disturbed.left() if not tally.lost else {}
    equal = {name: found.get(name) == value for name, value in expected.items()}
    return {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": machine.describe() | {"cores": os.cpu_count(), "threads": "2"},
        "minutes": minutes, "steps": steps, "kills": tally.kills, "stops": tally.stops, "resumes": tally.starts - 1,
        "during_a_save": tally.during_a_save, "steps_made_again": tally.steps_made_again,
        "seconds": {"undisturbed": round(alone, 1), "disturbed": round(time.perf_counter() - began, 1)},
        "losses": len(tally.lost) + sum(not same for same in equal.values()), "lost": tally.lost, "equal": equal,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        result = soak(Path(place), given.minutes)
    path = given.out or ROOT / "results" / f"kill_soak-{result['date']}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    sys.exit(1 if result["losses"] else 0)


if __name__ == "__main__":
    main()
