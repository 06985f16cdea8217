"""The verbs that compare texts by their vectors: parse, call, print.

Everything heavy is imported inside the verb that needs it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from electra.errors import ElectraError

Model = Annotated[Path, typer.Argument(help="A model directory, best of one trained with task=embed.")]


def search(
    model: Model,
    path: Annotated[Path, typer.Argument(help="A file or folder; a line, or a row of .jsonl, .csv ..., is a passage.")],
    query: Annotated[
        list[str] | None,
        typer.Option(help="A question; again for more; none = standard input, one a line.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option(help="Passages for each question.")] = 5,
    index: Annotated[
        Path | None, typer.Option(help="Where the vectors are kept; none = beside the file.", show_default=False)
    ] = None,
) -> None:
    """Find the passages of a file or folder that are closest in meaning to a question; JSON lines."""
    from electra.predict.search import closest, embed, load_embedder, open_index

    if top < 1:
        raise ElectraError("E-C339", "--top", f"{top} passages", "give 1 or more")
    predictor = load_embedder(model)
    found = open_index(predictor, model, path, index)
    _note(f"{len(found.passages):,} passages, vectors {'computed' if found.rebuilt else 'as they were'}")
    for cause, count in found.drops.items():
        if not cause.startswith("read"):
            _note(f"{cause}: {count:,}")
    if found.truncated:
        _note(f"{found.truncated:,} of them are longer than the {predictor.task.max_length} tokens that were read")
    questions = query or lines_of_stdin()
    vectors, cut = embed(predictor, questions)
    if any(cut):
        _note(f"{sum(map(bool, cut))} questions are longer than {predictor.task.max_length} tokens and were cut")
    for question, hits in zip(questions, closest(found.vectors, vectors, top), strict=True):
        for place, hit in enumerate(hits, start=1):
            passage = found.passages[hit.number]
            line = {"query": question, "rank": place, "score": hit.score, **asdict(passage)}
            typer.echo(json.dumps(line, ensure_ascii=False))


def summarize(
    model: Model,
    file: Annotated[Path, typer.Argument(help=".txt: a text; .tsv, .csv, .jsonl, .parquet: a text a row.")],
    sentences: Annotated[int, typer.Option(help="Sentences of a summary.")] = 3,
    document: Annotated[Literal["file", "line"], typer.Option(help="What a text of a .txt file is.")] = "file",
) -> None:
    """Print the sentences that say most of what a text says, in their order; a JSON line for each text."""
    from electra.predict.search import load_embedder
    from electra.predict.summary import summarise, texts_of

    if sentences < 1:
        raise ElectraError("E-C340", "--sentences", f"{sentences} sentences", "give 1 or more")
    predictor = load_embedder(model)
    for text in texts_of(file, document):
        typer.echo(json.dumps(asdict(summarise(predictor, text, sentences)), ensure_ascii=False))


def lines_of_stdin() -> list[str]:
    """The texts on standard input, a text a line."""
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n").split("\n") if data else []
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ElectraError("E-D460", f"standard input:{line}", f"byte {error.start} is not UTF-8",
                           "convert the text to UTF-8") from None  # fmt: skip


def _note(line: str) -> None:
    print(line, file=sys.stderr)
