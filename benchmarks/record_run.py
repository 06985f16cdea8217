"""Keep what a finished run says about itself: one JSON of figures along the way, and a picture of its curves.

    python benchmarks/record_run.py RUN NAME

Writes benchmarks/results/runs/NAME-DATE.json and docs/pictures/NAME.svg; `python benchmarks/tables.py` shows both.
"""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from electra.evaluate.history import Run, read

ROOT = Path(__file__).parent
#: figures of the picture, a panel each
PANELS = {"mlm_loss": "MLM loss, nats", "prior_gain": "Prior gain, nats", "auc": "AUC"}
#: rows of the table
ROWS = 12


def figures(run: Run) -> list[dict[str, Any]]:
    """The step events at ROWS points of the run, evenly apart, without histograms."""
    steps = run.named("step")
    chosen = [steps[round(place * (len(steps) - 1) / (ROWS - 1))] for place in range(ROWS)]
    return [
        {"step": event["step"], "phase": event["phase"],
         **{name: value for name, value in event["figures"].items() if not name.startswith("drawn_at")}}
        for event in chosen
    ]  # fmt: skip


def picture(run: Run, path: Path) -> None:
    """The curves below each other; a line where a phase begins."""
    figure, panels = plt.subplots(len(PANELS), 1, figsize=(7, 6), sharex=True, layout="constrained")
    for axes, (name, title) in zip(panels, PANELS.items(), strict=True):
        events = [event for event in run.named("step") if name in event["figures"]]
        axes.plot([event["step"] for event in events], [event["figures"][name] for event in events], linewidth=0.9)
        axes.set_ylabel(title)
        axes.grid(axis="y", color="#dddddd")
        for step, phase in run.phases:
            axes.axvline(step, color="#888888", linewidth=0.7, linestyle="dashed")
            axes.annotate(phase, (step, 1), xycoords=("data", "axes fraction"), fontsize=8, va="bottom")
    panels[-1].set_xlabel("step")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    given = parser.parse_args()
    run = read(given.run)
    date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    steps = run.named("step")
    result = {
        "date": date, "machine": run.recipe["resolved"]["machine"], "spans": run.recipe["resolved"]["spans"],
        "tokens": sum(event["tokens"] for event in steps), "seconds": round(sum(event["seconds"] for event in steps)),
        "unigram_entropy": run.recipe["resolved"]["unigram_entropy"],
        "verdicts": {event["network"]: f"{event['verdict']} ({event['reason']})" for part in run.verdicts for event in part},
        "final": run.final_figures, "course": figures(run),
    }  # fmt: skip
    path = ROOT / "results" / "runs" / f"{given.name}-{date}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    picture(run, ROOT.parent / "docs" / "pictures" / f"{given.name}.svg")
    print(path)


if __name__ == "__main__":
    main()
