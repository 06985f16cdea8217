"""The verbs of text: tokenizers and corpora. Parse, call, print; everything heavy is imported inside the verb that needs it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from electra.errors import ElectraError, Preempted

if TYPE_CHECKING:
    from electra.text.build import Progress
    from electra.text.corpus import Summary
    from electra.text.readers import ReadOptions
    from electra.text.sample import Sample
    from electra.text.tokenizer import Tokenizer

tokenizer_app = typer.Typer(no_args_is_help=True, help="Train, extend and inspect tokenizers.")
corpus_app = typer.Typer(no_args_is_help=True, help="Build and inspect corpora.")

SampleBytes = Annotated[int, typer.Option(help="At most so many bytes of text are used, evenly from all files.")]
Overwrite = Annotated[bool, typer.Option(help="Replace what is in the directory.")]

#: bytes of text that make a tokenizer; more hardly change it, and training takes up to 100 bytes of memory for each
SAMPLE_BYTES = 1 << 24
#: files whose share of a sample is shown one by one
SHOWN_SOURCES = 20


# -- how files are read --------------------------------------------------------------------------------------------------

Unit = Annotated[
    Literal["file", "block", "line"],
    typer.Option(help="What one document is in .txt files: a file, a blank-line block, a line."),
]
TextField = Annotated[
    list[str], typer.Option(help="A field or column that holds text, `body.text` say; again for more, which are joined.")
]
Encoding = Annotated[
    str | None, typer.Option(help="Of files without byte order mark: gb18030, latin-1 ...; none = UTF-8.", show_default=False)
]
Kind = Annotated[
    Literal["txt", "jsonl", "csv", "tsv", "parquet"] | None,
    typer.Option("--format", help="The kind of all files; none = by their names.", show_default=False),
]
Errors = Annotated[
    Literal["strict", "replace", "skip"],
    typer.Option(help="At something bad: stop and say where; put U+FFFD for bad bytes; or leave it out. All is counted."),
]


def _read_options(
    document: Unit = "block",
    text_field: TextField = ["text"],  # noqa: B006 (typer copies it)
    encoding: Encoding = None,
    format: Kind = None,
    errors: Errors = "strict",
) -> ReadOptions:
    from electra.text.readers import ReadOptions

    return ReadOptions(document=document, text_field=tuple(text_field), encoding=encoding, format=format, errors=errors)


def _reading_files(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb with the options of `_read_options` in place of its parameter `options`, which is what they make."""
    own, reading = _parameters(verb), _parameters(_read_options)

    @wraps(verb)
    def command(**given: Any) -> None:
        verb(options=_read_options(**{name: given.pop(name) for name in reading}), **given)

    order = [part for name, parameter in own.items() for part in (reading.values() if name == "options" else [parameter])]
    order = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in order]
    command.__signature__ = Signature(order)  # type: ignore[attr-defined]  # where typer looks
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in order}
    return command


def _parameters(function: Callable[..., Any]) -> dict[str, Parameter]:
    """A function's parameters with their types, but for those that only type checkers import."""
    function.__annotations__ = {name: hint for name, hint in function.__annotations__.items() if hint != "ReadOptions"}
    return dict(signature(function, eval_str=True).parameters)


# -- the verbs -----------------------------------------------------------------------------------------------------------


@tokenizer_app.command("train")
@_reading_files
def tokenizer_train(
    *,
    paths: Annotated[list[str], typer.Argument(help="Files, folders, globs: .txt .jsonl .csv .tsv (.gz .zst) .parquet")],
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    kind: Annotated[
        Literal["wordpiece", "bpe", "unigram"], typer.Option(help="wordpiece as BERT's, byte-level bpe, or unigram.")
    ] = "wordpiece",
    vocab_size: Annotated[int, typer.Option(help="Entries, special tokens included.")] = 16_000,
    lowercase: Annotated[bool, typer.Option(help="Lower-case everything.")] = False,
    strip_accents: Annotated[bool, typer.Option(help="Remove accents.")] = False,
    sample_bytes: SampleBytes = SAMPLE_BYTES,
    options: ReadOptions,
    overwrite: Overwrite = False,
) -> None:
    """Train a tokenizer on your text."""
    from electra.text.sample import take_sample
    from electra.text.train_tokenizer import train

    _require_empty(out, overwrite)
    sample = take_sample(paths, sample_bytes, options)
    trained = train(sample.texts, vocab_size, kind=kind, lowercase=lowercase, strip_accents=strip_accents)
    _save_tokenizer(trained, out)
    size = trained.vocab_size
    fewer = f" (the text has no more; {vocab_size:,} were asked for)" if size < vocab_size else ""
    typer.echo(f"{out}: {size:,} entries{fewer}, {kind}")
    _print_sample(sample)


@tokenizer_app.command("extend")
@_reading_files
def tokenizer_extend(
    *,
    tokenizer: Annotated[Path, typer.Argument(help="Directory, tokenizer.json or vocab.txt; a model's directory, too.")],
    paths: Annotated[list[str], typer.Argument(help="Files, folders, globs of the domain's text: .txt .jsonl .csv ...")],
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    words: Annotated[int, typer.Option(help="How many words to add.")] = 500,
    sample_bytes: SampleBytes = SAMPLE_BYTES,
    options: ReadOptions,
    overwrite: Overwrite = False,
) -> None:
    """Add the frequent words of a domain that a tokenizer cuts into many pieces."""
    from electra.text.extend_tokenizer import extend
    from electra.text.sample import take_sample
    from electra.text.tokenizer import load

    _require_empty(out, overwrite)
    sample = take_sample(paths, sample_bytes, options)
    extended = extend(load(tokenizer), sample.texts, words)
    _save_tokenizer(extended.tokenizer, out)
    added = len(extended.words)
    fewer = f" (the text has no more; {words:,} were asked for)" if added < words else ""
    typer.echo(f"{out}: {extended.tokenizer.vocab_size:,} entries, {added:,} of them new{fewer}; tokens of the text: "
               f"{extended.tokens_before:,} before, {extended.tokens_after:,} now")  # fmt: skip
    first = extended.tokenizer.vocab_size - added
    for number, word in enumerate(extended.words[:10], start=first):
        text = extended.tokenizer.surface(number).strip()
        typer.echo(f"  {text}: {word.count:,} times, was {' '.join(word.pieces)}")
    _print_sample(sample)


@tokenizer_app.command("inspect")
@_reading_files
def tokenizer_inspect(
    *,
    tokenizer: Annotated[Path, typer.Argument(help="Directory, tokenizer.json or vocab.txt.")],
    paths: Annotated[
        list[str] | None, typer.Argument(help="Text to judge it by: files, folders, globs: .txt .jsonl .csv ...")
    ] = None,
    text: Annotated[str | None, typer.Option(help="A text to cut into tokens.")] = None,
    sample_bytes: SampleBytes = SAMPLE_BYTES,
    options: ReadOptions,
) -> None:
    """Show a tokenizer, how it cuts a text, and how well it suits the text of files."""
    from electra.text.inspect_tokenizer import inspect, table
    from electra.text.sample import take_sample
    from electra.text.tokenizer import load

    loaded = load(tokenizer)
    typer.echo(f"{loaded.model}, {loaded.vocab_size:,} entries, fingerprint {loaded.fingerprint}")
    if text is not None:
        typer.echo(" ".join(loaded.encode(text).tokens))
    if paths:
        sample = take_sample(paths, sample_bytes, options)
        for line in table(inspect(loaded, sample.texts)):
            typer.echo(line)
        _print_sample(sample)


@corpus_app.command("build")
@_reading_files
def corpus_build(
    *,
    paths: Annotated[list[str], typer.Argument(help="Files, folders, globs: .txt .jsonl .csv .tsv (.gz .zst) .parquet")],
    tokenizer: Annotated[Path, typer.Option(help="Directory, tokenizer.json or vocab.txt.")],
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    options: ReadOptions,
    segmenter: Annotated[
        Literal["jieba"] | None, typer.Option(help="Store where Chinese words begin, for masking by words.")
    ] = None,
    min_characters: Annotated[int | None, typer.Option(help="Drop shorter documents.", show_default=False)] = None,
    max_characters: Annotated[int | None, typer.Option(help="Drop longer documents.", show_default=False)] = None,
    min_letters: Annotated[
        float | None, typer.Option(help="Drop documents with a lower share of letters, 0.5 say.", show_default=False)
    ] = None,
    max_repeated: Annotated[
        float | None, typer.Option(help="Drop documents with more in repeated lines, 0.3 say.", show_default=False)
    ] = None,
    max_line_documents: Annotated[
        int | None, typer.Option(help="Remove lines that stand in more documents than this.", show_default=False)
    ] = None,
    against: Annotated[
        list[str] | None, typer.Option(help="Evaluation text: drop documents that share 13 words with it.", show_default=False)
    ] = None,
    duplicates: Annotated[
        Literal["none", "exact", "near"], typer.Option(help="Which duplicates of earlier documents to drop.")
    ] = "none",
    similarity: Annotated[
        float | None, typer.Option(help="From which on documents are near duplicates; 0.8.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Key of the order of documents.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes that encode; none = one for each core.")] = None,
    overwrite: Annotated[
        bool, typer.Option(help="Replace a corpus in the directory, or an unfinished one of another command.")
    ] = False,
) -> None:
    """Turn text into a corpus of token shards. The same command goes on where it was stopped."""
    from electra.text.build import build
    from electra.text.corpus import inspect
    from electra.text.filters import FilterOptions
    from electra.text.tokenizer import load

    filters = FilterOptions(
        min_characters=min_characters, max_characters=max_characters, min_letters=min_letters, max_repeated=max_repeated,
        max_line_documents=max_line_documents, against=tuple(against or ()), duplicates=duplicates, similarity=similarity,
    )  # fmt: skip
    if filters.bytes_per_document:
        typer.echo(f"looking for duplicates takes {filters.bytes_per_document} bytes of disk a document, up to twice as much "
                   "while they are sorted")  # fmt: skip
    with _stopped_by_signals():
        build(
            paths, load(tokenizer), out, options=options, filters=filters, segmenter=segmenter, seed=seed,
            workers=workers, overwrite=overwrite, progress=_BuildProgress(),
        )  # fmt: skip
    _print_manifest(out, inspect(out, samples=0))


@corpus_app.command("inspect")
def corpus_inspect(path: Annotated[Path, typer.Argument(help="A corpus directory.")]) -> None:
    """Show what a corpus holds, what was dropped and why, and a few documents."""
    from electra.text import corpus

    summary = corpus.inspect(path)
    _print_manifest(path, summary)
    for number, sample in enumerate(summary.samples, start=1):
        typer.echo(f"sample {number}: {sample}")


# -- what the verbs share -----------------------------------------------------------------------------------------------


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """For work that can be killed at any moment and goes on later: SIGTERM and SIGINT end it at once, with exit code 75."""

    def stop(number: int, frame: object) -> NoReturn:
        raise Preempted

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _BuildProgress:
    """A changing line, and one that stays if a build goes on."""

    _begun = False

    def __call__(self, progress: Progress) -> None:
        if progress.resumed and not self._begun:
            print(f"going on behind {progress.resumed:,} documents that are done", file=sys.stderr)
        self._begun = True
        _show_progress(f"{progress.documents:,} documents, {progress.tokens:,} tokens")


def _show_progress(line: str) -> None:
    """One changing line on a terminal, nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r{line}", end="", file=sys.stderr, flush=True)


def _require_empty(out: Path, overwrite: bool) -> None:
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise ElectraError("E-C460", str(out), "the directory is not empty", "choose another --out, or add --overwrite")


def _save_tokenizer(tokenizer: Tokenizer, out: Path) -> None:
    from electra.storage import published

    with published(out) as directory:
        tokenizer.save(directory)


def _print_sample(sample: Sample) -> None:
    """How much of the text was used, of each file where it is not all; of many files, the largest."""
    typer.echo(f"used: {sample.used:,} of {sample.bytes:,} bytes of {sample.documents:,} documents in "
               f"{len(sample.sources):,} files")  # fmt: skip
    largest = sorted(sample.sources, key=lambda source: -source.bytes)
    for source in largest[:SHOWN_SOURCES]:
        typer.echo(f"  {source.file}: {source.used:,} of {source.bytes:,} bytes ({source.used / source.bytes:.1%})")
    if rest := largest[SHOWN_SOURCES:]:
        used, whole = sum(source.used for source in rest), sum(source.bytes for source in rest)
        typer.echo(f"  {len(rest):,} smaller files: {used:,} of {whole:,} bytes ({used / whole:.1%})")
    _print_counts(sample.losses.counts, sample.losses.samples)


def _print_counts(counts: Mapping[str, int], samples: Mapping[str, Sequence[str]]) -> None:
    for cause, count in counts.items():
        typer.echo(f"  {cause}: {count:,}")
        for place in samples.get(cause, ()):
            typer.echo(f"    {place}")


def _print_manifest(path: Path, summary: Summary) -> None:
    manifest = summary.manifest
    shards = "1 shard" if len(manifest.shards) == 1 else f"{len(manifest.shards):,} shards"
    typer.echo(f"{path}: {manifest.documents:,} documents, {manifest.tokens:,} tokens in {shards}; "
               f"{manifest.unknown_tokens:,} unknown; fingerprint {manifest.fingerprint}")  # fmt: skip
    if manifest.segmenter:
        typer.echo(f"  words begin where {manifest.segmenter} says")
    for length, count in sorted(manifest.lengths.items()):
        typer.echo(f"  up to {length:>7,} tokens: {count:,} documents")
    if described := str(manifest.filters):
        typer.echo(f"  filters: {described}")
    _print_counts(manifest.counts, manifest.samples)
    for warning in manifest.warnings:
        typer.echo(f"warning: {warning}")
