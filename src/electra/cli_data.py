"""The verb of labelled files. Parse, call, print; everything heavy is imported inside the verb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from electra.errors import ElectraError

data_app = typer.Typer(no_args_is_help=True, help="Look at labelled files.")


@data_app.callback()
def _root() -> None:
    """`inspect` is a word of its own, though it is the only one."""


@data_app.command("inspect")
def data_inspect(
    files: Annotated[list[Path], typer.Argument(help="Files of one task, the splits of a data set say.")],
    task: Annotated[
        Literal["classify", "tag", "span", "relation", "embed", "choice", "generate"],
        typer.Option(help="The task they are for; classify for multilabel and regression, too."),
    ],
    model: Annotated[
        Path | None, typer.Option(help="A model's or tokenizer's directory: lengths in tokens, spans that cut tokens.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens of a row; none = the task's default.")] = None,
    target_tokenizer: Annotated[
        Path | None, typer.Option(help="With --model: the tokenizer of targets, of generate; none = the model's.")
    ] = None,
    target_length: Annotated[
        int | None, typer.Option(help="Tokens of a target that are learnt, of generate; none = its default.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="A setting of task.columns, `text=2` say; again for more.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what labelled files hold and what is odd in them: `electra data inspect train.tsv dev.tsv --task classify`."""
    from dataclasses import replace

    from electra.config import tables
    from electra.evaluate.labelled import inspect, to_lines
    from electra.text.tokenizer import load

    tokenizer = None if model is None else load(model)
    if target_tokenizer is not None:
        if tokenizer is None or task != "generate":
            raise ElectraError("E-C882", "--target-tokenizer", "counts tokens of generate, beside --model",
                               "give --task generate and --model, or leave it out")  # fmt: skip
        tokenizer = replace(tokenizer, target=load(target_tokenizer))
    found = inspect(files, task, tokenizer, max_length, tables((), column or ()), target_length)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return
    for line in to_lines(found):
        typer.echo(line)
