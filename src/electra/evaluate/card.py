"""The card of a model directory (README.md): what it is, what it was trained on, how it fared.

In: a run directory while or after it runs. Out: Markdown with the front matter that model hubs read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from electra.events import in_order, number, read_events


def write_card(run_dir: Path) -> str:
    """The card for the model that the run in `run_dir` exports now."""
    recipe = json.loads((run_dir / "recipe.json").read_text(encoding="utf-8"))
    events, _ = read_events(run_dir / "events.jsonl")
    last = {event["event"]: event for event in events}
    verdicts = {event["network"]: event for event in events if event["event"] == "verdict"}
    resolved, step = recipe["resolved"], last.get("step", {})
    figures = {**step.get("figures", {}), **last.get("evaluate", {}).get("figures", {})}
    settings = json.dumps(recipe["recipe"], indent=1, ensure_ascii=False)
    health = (f"- {name}: **{event['verdict']}**: {event['reason']}" for name, event in verdicts.items())
    parts = [
        "---\nlibrary_name: transformers\ntags:\n- electra\n---",
        f"# {run_dir.name}",
        f"Step {step.get('step', 0):,} of {step.get('steps', 0):,}, phase `{step.get('phase', '')}`.",
        "## Data\n\n" + _data(resolved, step.get("epochs", {})),
        "## Health\n\n" + "\n".join(health),
        "## Figures\n\n" + _table({name: number(value) for name, value in in_order(figures).items()}),
        f"## Recipe\n\nFingerprint `{recipe['fingerprint']}`.\n\n```json\n{settings}\n```",
        "## Machine\n\n" + _table(resolved.get("machine", {})),
    ]
    return "\n\n".join(parts) + "\n"


def _data(resolved: Mapping[str, Any], epochs: Mapping[str, float]) -> str:
    """The corpora of a pre-training run, or the number of examples of a fine-tuning run, and how often they were seen."""
    if "corpus" not in resolved:
        seen = {name: number(value) for name, value in epochs.items()}
        return _table({"examples": number(resolved["examples"]), "epochs": seen.get("examples", "")})
    head = ("source", "documents", "tokens", "share of rows", "epochs", "fingerprint")
    lines = [head, ("---",) * len(head)] + [
        (
            source["name"], number(source["documents"]), number(source["tokens"]), f"{source['share']:.2%}",
            number(epochs.get(source["name"], 0.0)), source["fingerprint"],
        )
        for source in resolved["corpus"]
    ]  # fmt: skip
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{rows}\n\nTokenizer `{resolved['tokenizer']}`."


def _table(values: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name.replace('_', ' ')} | {value} |" for name, value in values.items())])
