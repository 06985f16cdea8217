"""The verbs that take a model to production: `serve`, `export`, `bench`. Everything heavy is imported inside the verb."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from electra.cli_predict import PrecisionOption


def bench(
    model: Annotated[Path, typer.Argument(help="A model directory.")],
    file: Annotated[
        Path | None, typer.Option(help="Texts, of any file that the task reads; none = made of the vocabulary's words.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="One that needs no training, `score` say; none = the one it was tuned for.")
    ] = None,
    precision: PrecisionOption = "fp32",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how fast a model answers on this machine: many texts together, one by one, memory, time to load."""
    from electra.deploy.bench import bench as measure
    from electra.deploy.bench import lines
    from electra.train.machine import prepare_to_predict

    prepare_to_predict()
    found = measure(model, file, task, precision)
    typer.echo(json.dumps(asdict(found), indent=1) if as_json else "\n".join(lines(found)))
