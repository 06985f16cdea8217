"""What the verbs that ask a model have in common: their options, texts that come in, lines that go out."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from electra.errors import ElectraError

if TYPE_CHECKING:
    from electra.contracts import Example, Prediction
    from electra.predict.predictor import Predictor

Format = Annotated[Literal["auto", "text", "jsonl"], typer.Option(help="auto: text on a terminal, JSON lines elsewhere.")]
Setting = Annotated[
    list[str] | None,
    typer.Option(help="A setting of the task that is named, `joint=true` say; again for more.", show_default=False),
]
PrecisionOption = Annotated[
    Literal["fp32", "bf16", "auto"],
    typer.Option(help="bf16: rounded, faster where the CPU has instructions for it; auto: whichever is faster here."),
]
Output = Annotated[Path | None, typer.Option(help="A file for the JSON lines; none = standard output.")]


def json_line(prediction: Prediction) -> str:
    """A prediction as a line of JSON."""
    tree = {"text": prediction.text, **prediction.output, "truncated": prediction.truncated}
    return json.dumps(tree, ensure_ascii=False)


def for_people(format: str, output: Path | None) -> bool:
    """Whether lines are for people. Raises ElectraError E-C318 where they are to be, and go into a file."""
    if output is not None and format == "text":
        raise ElectraError("E-C318", "--output", "--format text is for people, a file gets JSON lines", "leave one of them out")
    return output is None and (format == "text" or (format == "auto" and sys.stdout.isatty()))


def examples_of(predictor: Predictor, file: Path | None) -> Iterator[Example]:
    """What is to be predicted: the examples of a file without their gold answers, or the lines of standard input.

    What was inferred about a file is told on standard error when it has been read.
    """
    from dataclasses import replace

    from electra.contracts import Example

    if file is not None:
        reading = predictor.task.read(file)
        yield from (replace(example, target=None) for example in reading.examples)
        for remark in reading.notes:
            note(f"{file}: {remark}")
        return
    for number, line in enumerate(lines_of_stdin(), start=1):
        yield Example(text=line, where=f"standard input:{number}")


@contextlib.contextmanager
def lines_into(output: Path | None) -> Iterator[Callable[[str], None]]:
    """What takes a line: standard output, or a file that is put into place when it is whole."""
    if output is None:
        yield typer.echo
        return
    partial, count = output.with_name(f".{output.name}.partial"), itertools.count()
    try:
        with partial.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:

            def say(line: str) -> None:
                file.write(f"{line}\n")
                next(count)

            yield say
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    note(f"{output}: {next(count):,} lines")


def lines_of_stdin() -> list[str]:
    """The texts on standard input, a text a line."""
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n").split("\n") if data else []
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ElectraError("E-D460", f"standard input:{line}", f"byte {error.start} is not UTF-8",
                           "convert the text to UTF-8") from None  # fmt: skip


def note(line: str) -> None:
    print(line, file=sys.stderr)
