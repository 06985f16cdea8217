"""The verbs that take a model to production: `serve`, `export`, `bench`. Everything heavy is imported inside the verb."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from electra.cli_lines import PrecisionOption, Setting
from electra.errors import ElectraError


def serve(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Model directories; NAME=DIR to say what callers call it.")
    ],
    host: Annotated[str, typer.Option(help="Address; any but this machine's own needs a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 = any that is free.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="Keys, one a line; the variable ELECTRA_API_KEY holds another.", show_default=False),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A name under which callers reach this server; again for more.", show_default=False),
    ] = None,
    precision: PrecisionOption = "fp32",
    timeout: Annotated[float, typer.Option(help="Seconds that a request may take.")] = 30.0,
    queue: Annotated[int, typer.Option(help="Requests that may wait; more are told to come again.")] = 256,
    log: Annotated[bool, typer.Option("--log", help="A line on standard error for each request, without its texts.")] = False,
) -> None:
    """Serve models over HTTP, with a page to try them on: `electra serve runs/sst2/model runs/ner/model`.

    Several models at once, by name; /v1/models lists them, /openapi.json says what each takes. SIGTERM ends it without losing a
    request.
    """
    from electra.deploy.settings import ServeSettings, keys_of

    settings = ServeSettings(
        host=host, port=port, keys=keys_of(api_key_file, os.environ.get("ELECTRA_API_KEY")), hosts=tuple(allow_host or ()),
        timeout=timeout, queue=queue, log=log,
    )  # fmt: skip
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise ElectraError("E-R731", "serve", f"the package {error.name} is not installed",
                           "pip install 'electra-toolkit[serve]'") from None  # fmt: skip
    from electra.deploy.served import open_models
    from electra.deploy.server import serve as run
    from electra.train.machine import prepare_to_predict

    prepare_to_predict()
    run(lambda: open_models(models, precision), settings, typer.echo)


def export(
    model: Annotated[Path, typer.Argument(help="A model directory.")],
    out: Annotated[Path, typer.Argument(help="The directory to write; must not exist.")],
    to: Annotated[
        Literal["onnx", "huggingface", "sentence-transformers"],
        typer.Option(help="onnx: for onnxruntime and servers; the others: for the packages of that name."),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            help="replaced, fill-mask, score, embed; none = the one it was tuned for, or its only use.", show_default=False
        ),
    ] = None,
    setting: Setting = None,
    quantize: Annotated[Literal["int8"] | None, typer.Option(help="With --to onnx; needs --data.", show_default=False)] = None,
    data: Annotated[
        Path | None, typer.Option(help="A labelled file of the task, on which int8 must be as good.", show_default=False)
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="A setting of task.columns for that file; again for more.", show_default=False)
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="What int8 may lose of the task's main metric; 0.01.", show_default=False)
    ] = None,
) -> None:
    """Write a model for others to run; `electra predict`, `electra evaluate` and `electra serve` run an ONNX export, too."""
    from electra.config import tables
    from electra.deploy.export import Quality, export_model

    if quantize is None and (data or column or max_drop is not None):
        raise ElectraError("E-C710", "export", "--data, --column and --max-drop are for --quantize", "give --quantize int8 too")
    if quantize is not None and data is None:
        raise ElectraError("E-C711", "--quantize", "nobody would see what int8 loses without labelled data",
                           "give --data FILE, such as the development file of its training")  # fmt: skip
    int8 = None
    if data is not None:
        int8 = Quality(data=data, columns=tables((), column or ()), **({} if max_drop is None else {"max_drop": max_drop}))
    found = export_model(model, out, to, task=task, settings=tables((), setting or ()), int8=int8)
    typer.echo(f"{out}: {to}{f', task {found.task}' if found.task else ''}")
    if found.differences:
        worst = max(found.differences, key=lambda one: one.largest)
        typer.echo(f"graph: {found.precision}, {', '.join(found.inputs)} -> {', '.join(found.outputs)}")
        typer.echo(f"largest difference to torch in fp32: {worst.largest:.1g}, at {' x '.join(map(str, worst.shape))}, of "
                   f"{len(found.differences)} shapes")  # fmt: skip
    if found.gate is not None:
        typer.echo(f"int8: {found.gate}")
    if found.left_out:
        typer.echo(f"left out, having no place there: {', '.join(found.left_out)}")


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
