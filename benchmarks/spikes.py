"""How far loss and gradient norms of finished runs rise above the largest of the 100 figures before, as `train/guard.py` asks.

    python benchmarks/spikes.py RUN...

Of each run the log alone is read, so with `loop.log_steps=1` every update counts, else every so many. Writes
benchmarks/results/spikes-DATE.json: by run and kind of figure how many there were, and the largest ratio. Other runs that the
day's file has stay in it.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections import deque
from pathlib import Path
from typing import Any

from electra.events import read_events
from electra.train.guard import WINDOW

ROOT = Path(__file__).parent


def ratios(run: Path) -> dict[str, Any]:
    """Figures of a run that were judged, and the largest ratio of each."""
    steps = [event for event in read_events(run / "events.jsonl")[0] if event["event"] == "step"]
    recent: dict[str, deque[float]] = {}
    largest: dict[str, float] = {}
    judged = 0
    for event in steps:
        figures = {f"gradient norm ({name})": norm for name, norm in event["grad_norm"].items()}
        if "loss" in event["figures"]:
            figures["loss"] = event["figures"]["loss"]
        for name, value in figures.items():
            known = recent.setdefault(f"{event['phase']} {name}", deque(maxlen=WINDOW))
            if len(known) == WINDOW:
                judged += 1
                largest[name] = max(largest.get(name, 0.0), abs(float(value)) / max(map(abs, known)))
            known.append(float(value))
    every = steps[1]["step"] - steps[0]["step"] if len(steps) > 1 else 0
    return {"run": run.name, "steps": steps[-1]["step"], "every": every, "judged": judged,
            "largest": {name: round(ratio, 2) for name, ratio in sorted(largest.items())}}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args()
    date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    path = ROOT / "results" / f"spikes-{date}.json"
    known = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.is_file() else []
    found = {run["run"]: run for run in (*known, *map(ratios, given.runs))}
    path.write_text(json.dumps({"date": date, "runs": list(found.values())}, indent=1) + "\n", encoding="utf-8")
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
