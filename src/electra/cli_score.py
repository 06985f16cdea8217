"""The verb that scores texts: score. Parse, call, print.

Everything heavy is imported inside the verb.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from electra.cli_lines import Format, Output, PrecisionOption, Setting, examples_of, for_people, json_line, lines_into, note
from electra.errors import ElectraError
from electra.storage import require_folder

if TYPE_CHECKING:
    from electra.contracts import Prediction


#: of the methods that give probabilities of a language model, what exp(-mean) over the tokens of all texts is called
_PERPLEXITY = {"causal": "perplexity", "pll": "pseudo-perplexity", "pll-word-l2r": "pseudo-perplexity"}


def score(
    model: Annotated[Path, typer.Argument(help="A model directory.")],
    file: Annotated[
        Path | None, typer.Argument(help=".txt (a text a line), or a table with a column `text`; none = standard input.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="rtd, electric, causal: a pass of the discriminator, energy or causal model; pll, pll-word-l2r: n of the "
            "generator."
        ),
    ] = "rtd",
    reduce: Annotated[str, typer.Option(help="Of the tokens' scores, for the text: sum, mean or min.")] = "sum",
    setting: Setting = None,
    precision: PrecisionOption = "fp32",
    rerank: Annotated[
        Path | None,
        typer.Option(help="In the place of FILE: JSON lines with `candidates`, which are put in order.", show_default=False),
    ] = None,
    weight: Annotated[
        float | None,
        typer.Option(help="With --rerank: of the candidates' own `score`; none = it is not looked at.", show_default=False),
    ] = None,
    highlight: Annotated[bool, typer.Option("--highlight", help="Print the texts with their odd tokens in colour.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a page with the odd tokens in colour.")] = None,
    format: Format = "auto",
    output: Output = None,
) -> None:
    """Score texts by a pre-trained model, token by token; one line each, in order. Higher is likelier."""
    from electra.config import tables
    from electra.predict.predictor import load
    from electra.train.machine import prepare_to_predict

    _check(file, rerank, weight, highlight, html, output)
    prepare_to_predict()
    settings = {**tables((), setting or ()), "method": method, "reduce": reduce}
    predictor = load(model, "score", settings=settings, precision=precision)
    as_text = for_people(format, output)
    if rerank is not None:
        from electra.predict.rerank import read_nbest
        from electra.predict.rerank import rerank as put_in_order

        with lines_into(output) as say:
            for line in put_in_order(predictor, read_nbest(rerank, weight is not None), weight):
                if as_text:
                    _say_ranked(line)
                else:
                    say(json.dumps(line, ensure_ascii=False))
        return
    printed = _printed(predictor.stream(examples_of(predictor, file)), as_text, highlight, output, method)
    if html is not None:
        _write_page(html, f"{(file or Path('texts')).name} by {method}", printed)
    else:
        for _ in printed:
            pass


def _check(
    file: Path | None, rerank: Path | None, weight: float | None, highlight: bool, html: Path | None, output: Path | None
) -> None:
    if rerank is None and weight is not None:
        raise ElectraError("E-C573", "--weight", "is of candidates' own scores", "give --rerank FILE too")
    if rerank is not None and (file is not None or highlight or html is not None):
        raise ElectraError("E-C573", "--rerank", "reads its own file, and shows no tokens",
                           "leave FILE, --highlight and --html out")  # fmt: skip
    for file in (html, output):
        if file is not None:
            require_folder(file)
    if highlight and output is not None:
        raise ElectraError("E-C318", "--output", "--highlight is for people, a file gets JSON lines", "leave one of them out")


def _printed(
    predictions: Iterator[Prediction], as_text: bool, highlight: bool, output: Path | None, method: str
) -> Iterator[Prediction]:
    """The predictions, each when it has been printed; then, of a language model, its perplexity on standard error."""
    from electra.show import print_prediction

    tokens, nats = 0, 0.0
    with lines_into(output) as say:
        for prediction in predictions:
            if highlight:
                print_prediction(prediction.text, prediction.output, colour=True)
            elif as_text:
                say(f"{prediction.output['score']:.3f}  {prediction.text}")
            else:
                say(json_line(prediction))
            scored: Any = prediction.output["tokens"]
            tokens, nats = tokens + len(scored), nats - math.fsum(token["score"] for token in scored)
            yield prediction
    if (name := _PERPLEXITY.get(method)) is not None and tokens:
        note(f"{name} {math.exp(min(700.0, nats / tokens)):,.2f} of {tokens:,} tokens")


def _write_page(path: Path, title: str, predictions: Iterator[Prediction]) -> None:
    from electra.evaluate.page import write_page
    from electra.evaluate.scores_page import scored_row, scores_page

    write_page(scores_page(title, [scored_row(one.text, one.output) for one in predictions]), path)
    typer.echo(f"page: {path}", err=True)


def _say_ranked(line: dict[str, Any]) -> None:
    """A list of candidates for a person, best first."""
    for candidate in line["candidates"]:
        typer.echo(f"{candidate['total']:.3f}  {candidate['text']}")
    typer.echo("")
