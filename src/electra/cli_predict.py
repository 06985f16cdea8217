"""The verbs that ask a model: predict, evaluate, search, summarize. Parse, call, print.

Everything heavy is imported inside the verb that needs it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from electra.cli_lines import (
    Format,
    Output,
    PrecisionOption,
    Setting,
    examples_of,
    for_people,
    json_line,
    lines_into,
    lines_of_stdin,
    note,
)
from electra.errors import ElectraError
from electra.storage import require_folder

if TYPE_CHECKING:
    from electra.contracts import Example, Prediction
    from electra.predict.predictor import Predictor

#: a setting, which no path begins like
_ASSIGNMENT = re.compile(r"[a-z_]+(\.[a-z_0-9]+)*=")
#: a list of numbers in indented JSON, which is written on one line: a confusion matrix has thousands
_FIGURES = re.compile(r"\[\n[-+\d\s.,eE]*\]")
Column = Annotated[
    list[str] | None,
    typer.Option(
        help="A setting of task.columns for this file, `text=2` say; again for more; none = those of the model.",
        show_default=False,
    ),
]
Model = Annotated[Path, typer.Argument(help="A model directory, best of one trained with task=embed.")]


def predict(
    model: Annotated[Path, typer.Argument(help="A model directory.")],
    file: Annotated[
        Path | None,
        typer.Argument(help=".txt (a text a line), or any file that the task reads, labelled or not; none = standard input."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="replaced, fill-mask, score, correct, embed, or that of an installed package; none = the one it was tuned for."
        ),
    ] = None,
    setting: Setting = None,
    documents: Annotated[
        Path | None, typer.Option(help="A folder of .txt and .md files in which the questions of FILE are answered.")
    ] = None,
    top: Annotated[int | None, typer.Option(help="With --documents: passages that are read for a question; 5.")] = None,
    column: Column = None,
    clean: Annotated[
        Path | None,
        typer.Option(help="With --task correct: texts that are right; at most 1 edit in 1,000 of their tokens is let through."),
    ] = None,
    format: Format = "auto",
    output: Output = None,
    precision: PrecisionOption = "fp32",
    tagger: Annotated[Path | None, typer.Option(help="With a relation model: finds the mentions; prints triples.")] = None,
    graph: Annotated[Path | None, typer.Option(help="With --tagger: the GraphML file to write as well.")] = None,
    attention: Annotated[
        bool, typer.Option("--attention", help="Of a model that writes: also where in the source each token was looked for.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="With --attention: also write a page with a picture of each text.")] = None,
) -> None:
    """Say what a model says about every text of a file; one line each, in order.

    With --documents, a model of task `span` answers each question from a folder of texts. With --tagger: who stands to whom in
    which relation, each triple once with the places that say so.
    """
    from electra.config import tables
    from electra.predict.alignment import AligningPredictor
    from electra.predict.predictor import load
    from electra.show import print_prediction
    from electra.train.machine import prepare_to_predict

    prepare_to_predict()
    as_text = for_people(format, output)
    if tagger is not None or graph is not None:
        others = any((task, column, setting, clean, attention, html, precision != "fp32"))
        _find_triples(model, tagger, file, graph, output, as_text, others)
        return
    if html is not None and not attention:
        raise ElectraError("E-C890", "--html", "is a page of alignments", "give --attention too, or leave it out")
    settings = tables((), setting or ())
    predictor = load(model, task, tables((), column or ()), settings, precision)
    if attention:
        predictor = AligningPredictor(predictor)
    if clean is not None:
        _tune(predictor, clean, "suspicion" in settings)
    if documents is None and top is not None:
        raise ElectraError("E-C329", "--top", "says how many passages of --documents are read", "give --documents DIR too")
    examples = examples_of(predictor, file)
    if documents is None:
        predictions = predictor.stream(examples)
    else:
        predictions = _answers(predictor, documents, examples, 5 if top is None else top)
    if html is not None:
        predictions = _drawn(predictions, html, f"{(file or Path('texts')).name}: alignment")
    with lines_into(output) as say:
        for prediction in predictions:
            if as_text:
                print_prediction(prediction.text, prediction.output)
            else:
                say(json_line(prediction))


def evaluate(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL DATA | [MODEL] suite=NAME [KEY=VALUE...]",
            help="A fine-tuned model directory and a labelled file of its task (docs/data.md has the kinds); or a model "
            "directory and a suite (docs/evaluation.md).",
            show_default=False,
        ),
    ],
    task: Annotated[str | None, typer.Option(help="That of an installed package which the model was fine-tuned for.")] = None,
    column: Column = None,
    report: Annotated[Path | None, typer.Option(help="Also write a page: figures, pictures, the worst errors.")] = None,
    resamples: Annotated[
        int | None, typer.Option(min=0, help="Resampled sets behind the 95 % intervals; 0 = none.", show_default="200")
    ] = None,
    precision: PrecisionOption = "fp32",
    tagger: Annotated[Path | None, typer.Option(help="With a relation model: finds the mentions; scores triples.")] = None,
) -> None:
    """Score a fine-tuned model on labelled data, or any model on a suite: `electra evaluate MODEL suite=blimp data=blimp/`.

    Prints JSON; of a suite that fine-tunes, a table.
    """
    from electra.train.machine import prepare_to_predict

    prepare_to_predict()
    assignments = [word for word in words if _ASSIGNMENT.match(word)]
    paths = [Path(word) for word in words if word not in assignments]
    if any(word.startswith("suite=") for word in assignments):
        if any(option is not None for option in (task, column or None, report, resamples, tagger)) or precision != "fp32":
            raise ElectraError("E-C580", "evaluate", "a suite takes no options", "give settings as key=value")
        _evaluate_suite(paths, assignments)
        return
    if len(words) != 2:
        raise ElectraError("E-C580", "evaluate", f"{' '.join(words)} is neither a model and a file nor a model and a suite",
                           "write MODEL DATA, or MODEL suite=blimp data=DIR")  # fmt: skip
    model, data = map(Path, words)
    _evaluate_labelled(model, data, task, column, precision, report, 200 if resamples is None else resamples, tagger)


def _evaluate_suite(models: Sequence[Path], assignments: Sequence[str]) -> None:
    """Minimal pairs as JSON, the table of a suite that fine-tunes as text."""
    if len(models) > 1:
        raise ElectraError("E-C580", "evaluate", f"{len(models)} models", "a suite takes one")
    [suite] = [word.removeprefix("suite=") for word in assignments if word.startswith("suite=")][-1:]
    others = [word for word in assignments if not word.startswith("suite=")]
    if suite == "blimp":
        from electra.config import load as load_config
        from electra.evaluate.blimp import BlimpConfig, evaluate_blimp

        found = evaluate_blimp(models[0] if models else None, load_config(BlimpConfig, [], others))
        typer.echo(_FIGURES.sub(lambda figures: " ".join(figures[0].split()), json.dumps(found, ensure_ascii=False, indent=1)))
        return
    from electra.build.suites import run_suite, to_lines
    from electra.console import choose_console

    if not models:
        raise ElectraError("E-C580", "evaluate", f"suite={suite} has no model", "give a model directory first")
    typer.echo("\n".join(to_lines(run_suite(models[0], suite, others, choose_console()))))


def _evaluate_labelled(
    model: Path,
    data: Path,
    task: str | None,
    column: list[str] | None,
    precision: Literal["fp32", "bf16", "auto"],
    report: Path | None,
    resamples: int,
    tagger: Path | None,
) -> None:
    """A labelled file, or with `tagger` triples, as JSON."""
    from electra.config import tables
    from electra.evaluate.examination_page import examination_page
    from electra.evaluate.page import write_page
    from electra.evaluate.run import evaluate_file
    from electra.evaluate.triples import evaluate_triples

    if tagger is not None:
        if task is not None or report is not None or column or precision != "fp32":
            raise ElectraError("E-C334", "evaluate", "--tagger scores triples, without --task, --column, --precision and "
                               "--report", "leave them out")  # fmt: skip
        typer.echo(json.dumps(evaluate_triples(model, tagger, data), ensure_ascii=False, indent=1))
        return
    if report is not None:
        require_folder(report)
    found = evaluate_file(model, data, task, resamples, tables((), column or ()), precision)
    if report is not None:
        write_page(examination_page(f"{model.resolve().parent.name} on {data.name}", found), report)
    typer.echo(_FIGURES.sub(lambda figures: " ".join(figures[0].split()), json.dumps(found, ensure_ascii=False, indent=1)))


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
    note(f"{len(found.passages):,} passages, vectors {'computed' if found.rebuilt else 'as they were'}")
    for cause, count in found.drops.items():
        if not cause.startswith("read"):
            note(f"{cause}: {count:,}")
    if found.truncated:
        note(f"{found.truncated:,} of them are longer than the {predictor.task.max_length} tokens that were read")
    questions = query or lines_of_stdin()
    vectors, cut = embed(predictor, questions)
    if any(cut):
        note(f"{sum(map(bool, cut))} questions are longer than {predictor.task.max_length} tokens and were cut")
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


def _answers(predictor: Predictor, folder: Path, questions: Iterable[Example], top: int) -> Iterator[Prediction]:
    """Answers to `questions` from the texts in `folder`, of which standard error says how many there are."""
    from electra.predict.documents import answer, bm25, read_documents

    documents = read_documents(folder)
    typer.echo(f"{folder}: {documents.files:,} files in {len(documents.passages):,} passages; {documents.others:,} files of "
               "other kinds left out", err=True)  # fmt: skip
    asked = (question.text for question in questions)
    return answer(predictor, documents.passages, bm25(documents.passages), asked, top)


def _drawn(predictions: Iterable[Prediction], path: Path, title: str) -> Iterator[Prediction]:
    """The predictions; behind the last, a page with pictures of the first of them."""
    from electra.evaluate.alignment_page import MOST_PICTURES, alignment_page, alignment_picture
    from electra.evaluate.page import write_page

    pictures, left_out = list[str](), 0
    for prediction in predictions:
        if len(pictures) < MOST_PICTURES:
            pictures.append(alignment_picture(prediction.text, prediction.output))
        else:
            left_out += 1
        yield prediction
    write_page(alignment_page(title, pictures, left_out), path)
    note(f"page: {path}" + (f", without the last {left_out:,} texts" if left_out else ""))


def _tune(predictor: Predictor, clean: Path, given: bool) -> None:
    """Choose the suspicion of task `correct` by `clean`, which is to be left alone, and say on standard error what it is."""
    from electra.tasks.correct import Correct

    task = predictor.task
    if not isinstance(task, Correct):
        raise ElectraError("E-C572", "--clean", "is for --task correct", "leave it out")
    if given:
        raise ElectraError("E-C572", "--clean", "chooses the suspicion that --setting gives", "leave one of them out")
    predictor.task = task.boldest()
    said = list(predictor.stream(examples_of(predictor, clean)))
    predictor.task = tuned = task.tuned(said)
    note(f"{clean}: suspicion = {tuned.config.suspicion:.6g} makes at most 1 edit in 1,000 tokens")


def _find_triples(
    model: Path, tagger: Path | None, file: Path | None, graph: Path | None, output: Path | None, as_text: bool, others: bool
) -> None:
    """Print the triples of a file, write the graph, and say on standard error what was read and merged.

    Raises ElectraError E-C334 without a tagger, or where options of tasks (`others`) stand beside it.
    """
    if tagger is None or others:
        trouble = "--graph without --tagger" if tagger is None else "options of tasks beside --tagger"
        raise ElectraError("E-C334", "predict", trouble, "give a relation model and --tagger; --graph if you want the file")
    from electra.predict.graph import KnowledgeGraph
    from electra.predict.triples import load_finder

    finder, found = load_finder(model, tagger), KnowledgeGraph()
    for text in finder.find(examples_of(finder.tagger, file)):
        found.add(text)
    with lines_into(output) as say:
        for triple in found.triples():
            subject, object_, where = triple["subject"]["label"], triple["object"]["label"], triple["evidence"][0]
            line = f"{subject} | {triple['relation']} | {object_}  {triple['score']:.3f}  {where['file']}:{where['line']}"
            say(line if as_text else json.dumps(triple, ensure_ascii=False))
    if graph is not None:
        found.write_graphml(graph)
    typer.echo(", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in found.summary().items()), err=True)
