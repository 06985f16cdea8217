"""The verbs that take a model to production: `serve`, `export`, `bench`. Everything heavy is imported inside the verb."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from electra.cli_predict import Setting
from electra.errors import ElectraError


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
