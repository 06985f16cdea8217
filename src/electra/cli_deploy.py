"""The verbs that take a model to production: `serve`, `export`, `bench`. Everything heavy is imported inside the verb."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

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

    run(lambda: open_models(models), settings, typer.echo)
