"""How much faster a second process makes a run: tokens a second of 1 and 2 processes, equal global batch.

    python benchmarks/scaling.py [--recipe electra-small] [--rows 32] [--steps 12] [--rounds 5] [--no-save]

The corpus is synthetic. Every process has one thread, so that 1 and 2 processes use 1 and 2 cores; beside them one process with
two threads, which is what the same two cores do without a group. The sides are interleaved, as whole runs of the command line
under torchrun; of each run the median of its steps counts, without the first three, and of the rounds the median. Dropout is
off and the precision is the same for all.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

#: (processes, threads of each, strategy)
SIDES = ((1, 1, "ddp"), (1, 2, "ddp"), (2, 1, "ddp"), (2, 1, "fsdp2"))
NO_DROPOUT = ["encoder.hidden_dropout_prob=0", "encoder.attention_probs_dropout_prob=0"]


def make_corpus(place: Path) -> Path:
    """Documents of words at random."""
    from electra.text.build import build
    from electra.text.train_tokenizer import train

    random = np.random.default_rng(0)
    words = [f"{a}{b}{c}{d}" for a in "bdfgklmnprst" for b in "aeiou" for c in "lmnrst" for d in "aeiou"]
    documents = [" ".join(random.choice(words, 200)) + "." for _ in range(2000)]
    (place / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")
    build([place / "text.txt"], train(documents, 8000), place / "corpus")
    return place / "corpus"


def tokens_per_second(side: tuple[int, int, str], command: list[str], place: Path) -> float:
    processes, threads, strategy = side
    launcher = [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    settings = [f"run.dir={place}", "run.fresh=true", f"parallel.strategy={strategy}"]
    variables = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    argv = [sys.executable, *launcher, "-m", "electra", "pretrain", *command, *settings]
    subprocess.run(argv, check=True, env=variables, stdout=subprocess.DEVNULL)
    events = [json.loads(line) for line in (place / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    return statistics.median([event["tokens_per_second"] for event in events if event["event"] == "step"][3:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="electra-small")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-save", action="store_true")
    given = parser.parse_args()
    from electra.train.machine import describe, faster_precision

    precision = faster_precision()
    found: dict[tuple[int, int, str], list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        dropout = NO_DROPOUT if "modern" not in given.recipe else []
        command = [given.recipe, f"corpus.path={make_corpus(place)}", f"batch.rows={given.rows}", f"stop.steps={given.steps}",
                   "loop.log_steps=1", f"precision={precision}", *dropout]  # fmt: skip
        for _ in range(given.rounds):
            for side, speeds in found.items():
                speeds.append(tokens_per_second(side, command, place / "run"))
    alone = statistics.median(found[SIDES[0]])
    sides: list[dict[str, Any]] = [
        {"processes": processes, "threads": threads, "strategy": strategy if processes > 1 else "none",
         "tokens_per_second": round(statistics.median(speeds)), "speed": round(statistics.median(speeds) / alone, 2),
         "all": [round(speed) for speed in speeds]}
        for (processes, threads, strategy), speeds in found.items()
    ]  # fmt: skip
    date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    result = {"date": date, "machine": describe() | {"cores": os.cpu_count()}, "load_average": os.getloadavg(),
              "recipe": given.recipe, "rows": given.rows, "precision": precision, "sides": sides}  # fmt: skip
    print(json.dumps(result, indent=1))
    if not given.no_save:
        path = Path(__file__).parent / "results" / f"scaling-{date}.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"written: {path}")


if __name__ == "__main__":
    main()
