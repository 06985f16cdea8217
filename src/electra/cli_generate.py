"""The verb that lets a model write: generate. Parse, call, print; heavy imports inside."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from electra.cli_lines import Format, PrecisionOption, lines_into, lines_of_stdin, note
from electra.errors import ElectraError

if TYPE_CHECKING:
    from electra.models.decoding import Ended
    from electra.models.decoding_config import DecodingConfig
    from electra.predict.inference import Precision
    from electra.predict.writer import Draft, Writer

_WHAT_IT_IS = (
    "A small language model continues what you write, by what it has seen in its corpus. It does not answer, knows no facts, "
    "and may write what is wrong or rude. An empty line lets it go on; Ctrl-D or Ctrl-C ends."
)


def generate(
    model: Annotated[Path, typer.Argument(help="A model directory.")],
    file: Annotated[
        Path | None, typer.Argument(help=".txt (a text a line), or a table with a column `text`; none = standard input.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="In the place of FILE; again for more; may be empty.", show_default=False)
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Outputs of a text, drawn at random.", show_default=False)] = None,
    beams: Annotated[int, typer.Option(help="Hypotheses of beam search; 1 = the most likely token each time.")] = 1,
    temperature: Annotated[float | None, typer.Option(help="Of sampling: divides the logits; 1.", show_default=False)] = None,
    top_k: Annotated[int | None, typer.Option(help="Of sampling: from so many tokens; 0 = all.", show_default=False)] = None,
    top_p: Annotated[float | None, typer.Option(help="Of sampling: from tokens of this share; 1.", show_default=False)] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens of an output at most, its end included.")] = 64,
    min_new_tokens: Annotated[int, typer.Option(help="Tokens before an output may end.")] = 0,
    length_penalty: Annotated[float, typer.Option(help="Of beams: above 0 favours long outputs.")] = 1.0,
    no_repeat_ngram: Annotated[int, typer.Option(help="n-grams of this size occur once; 0 = any may repeat.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="Ends an output; again for more.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Of sampling; 0.", show_default=False)] = None,
    rerank: Annotated[Path | None, typer.Option(help="A discriminator that ranks the drafts.", show_default=False)] = None,
    weight: Annotated[float | None, typer.Option(help="Of the critic against the likelihood; 1.", show_default=False)] = None,
    interactive: Annotated[bool, typer.Option("--interactive", help="Continue what is typed, with a memory.")] = False,
    refine: Annotated[
        int | None, typer.Option(help="Rounds in which generator and discriminator fill [MASK]s.", show_default=False)
    ] = None,
    rewrite: Annotated[bool, typer.Option("--rewrite", help="With --refine: doubt every token of the text.")] = False,
    precision: PrecisionOption = "fp32",
    format: Format = "auto",
    output: Annotated[Path | None, typer.Option(help="A file for the JSON lines; none = standard output.")] = None,
) -> None:
    """Let a model write: continue texts, fill their blanks, or rewrite them.

    A causal model continues each prompt: by the most likely tokens, by beams, or, with --samples, --temperature, --top-k,
    --top-p or --seed, at random. A model with generator and discriminator fills blanks with --refine.
    """
    from electra.models.decoding_config import DecodingConfig
    from electra.train.machine import prepare_to_predict

    prepare_to_predict()
    config = DecodingConfig(
        max_new_tokens=max_new_tokens, min_new_tokens=min_new_tokens, num_beams=beams, length_penalty=length_penalty,
        no_repeat_ngram_size=no_repeat_ngram,
        do_sample=any(value is not None for value in (samples, temperature, top_k, top_p, seed)),
        num_return_sequences=1 if samples is None else samples, temperature=1.0 if temperature is None else temperature,
        top_k=top_k or 0, top_p=1.0 if top_p is None else top_p, seed=seed or 0,
    )  # fmt: skip
    wanted = _Wanted(model=model, precision=precision, config=config, stop=tuple(stop or ()), rerank=rerank, weight=weight,
                     output=output,
                     as_text=output is None and (format == "text" or (format == "auto" and sys.stdout.isatty())))  # fmt: skip
    wanted.check(file=file, prompt=prompt, interactive=interactive, refine=refine, rewrite=rewrite, text=format == "text")
    if interactive:
        _talk(wanted)
    elif refine is not None:
        _refine(wanted, _texts(file, prompt), refine, rewrite)
    else:
        _write(wanted, _texts(file, prompt))


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What all ways to write have in common; the names are those of the options."""

    model: Path
    precision: Precision
    config: DecodingConfig
    stop: tuple[str, ...]
    rerank: Path | None
    weight: float | None
    output: Path | None
    as_text: bool

    @property
    def drafts(self) -> int:
        """Of one text, that there are to choose from."""
        return max(self.config.num_beams, self.config.num_return_sequences)

    def check(
        self, *, file: Path | None, prompt: list[str] | None, interactive: bool, refine: int | None, rewrite: bool, text: bool
    ) -> None:
        """Options that have no meaning together."""
        from electra.models.decoding_config import DecodingConfig

        given = {"FILE": file, "--prompt": prompt, "--interactive": interactive, "--refine": refine, "--rewrite": rewrite,
                 "--rerank": self.rerank, "--weight": self.weight, "--output": self.output, "--format text": text,
                 "several outputs": self.drafts > 1,
                 "decoding options": self.config != DecodingConfig() or self.stop}  # fmt: skip
        there = [name for name, value in given.items() if value is not None and value is not False and value != ()]
        for one, others in _NOT_TOGETHER.items():
            for other in others:
                if one in there and other in there:
                    raise ElectraError(
                        "E-C628", "generate", f"{one} and {other} have no meaning together", "leave one of them out"
                    )
        for one, needed in _NEEDS.items():
            if one in there and needed not in there:
                raise ElectraError("E-C628", "generate", f"{one} without {needed}", f"give {needed} too, or leave it out")
        if self.rerank is not None and self.drafts == 1:
            raise ElectraError("E-C629", "--rerank", "there is one draft to choose from", "give --samples or --beams above 1")


#: options that have no meaning together, and those that have none without another
_NOT_TOGETHER = {
    "FILE": ("--prompt",),
    "--interactive": ("FILE", "--prompt", "--refine", "--rerank", "--output", "several outputs"),
    "--refine": ("--rerank", "decoding options"),
    "--output": ("--format text",),
}
_NEEDS = {"--weight": "--rerank", "--rewrite": "--refine"}


def _texts(file: Path | None, prompts: Sequence[str] | None) -> list[str]:
    """What the model is given."""
    from electra.tasks.readers import Columns, read_texts

    if prompts:
        return list(prompts)
    if file is None:
        return lines_of_stdin()
    return [example.text for example in read_texts(file, Columns(text="text")).examples]


def _write(wanted: _Wanted, texts: Sequence[str]) -> None:
    """Drafts of every text: streamed, in lines for a person, or as JSON lines."""
    from electra.predict.critic import load_critic
    from electra.predict.writer import load_writer

    writer, config = load_writer(wanted.model, wanted.precision), wanted.config
    critic = None if wanted.rerank is None else load_critic(wanted.rerank)
    if wanted.as_text and wanted.drafts == 1:
        for text in texts:
            if lost := writer.excess(text, config):
                what = "first {} tokens of this prompt do not fit" if writer.reader is None else "last {} tokens are not read"
                note(f"(the {what.format(lost)})")
            typer.echo(text, nl=False)
            _stream(writer, text, wanted)
        return
    if critic is not None and config.num_beams > 1:
        config = replace(config, num_return_sequences=config.num_beams)  # all finished hypotheses are drafts
    cut = too_long = 0
    with lines_into(wanted.output) as say:
        for drafts in writer.drafts(texts, config, wanted.stop):
            if critic is not None:
                drafts = critic.rerank(drafts, 1.0 if wanted.weight is None else wanted.weight)
            cut += sum(draft.ended == "length" for draft in drafts)
            too_long += drafts[0].truncated > 0
            for rank, draft in enumerate(drafts, start=1):
                _say(draft, rank, say, wanted.as_text)
    if cut:
        note(f"{cut:,} outputs were cut at {config.max_new_tokens} tokens")
    if too_long:
        note(f"{too_long:,} prompts do not fit beside {config.max_new_tokens} new tokens and lost their beginning"
             if writer.reader is None else f"{too_long:,} sources are too long for the model and lost their end")  # fmt: skip


def _say(draft: Draft, rank: int, say: Callable[[str], None], as_text: bool) -> None:
    if as_text:
        say(f"{rank:3}  {draft.score:8.3f}  {draft.prompt}{draft.text}{' [cut]' if draft.ended == 'length' else ''}")
        return
    tree = asdict(draft)
    if draft.critic is None:
        del tree["critic"]
    say(json.dumps({"prompt": tree.pop("prompt"), "rank": rank, **tree}, ensure_ascii=False))


def _stream(writer: Writer, text: str, wanted: _Wanted) -> str:
    """Print a draft as it is written, and its end; returns it."""
    pieces, whole = writer.stream(text, wanted.config, wanted.stop), ""
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            ended: Ended = end.value
            typer.echo(f" [cut at {wanted.config.max_new_tokens} tokens]" if ended == "length" else "")
            return whole
        typer.echo(piece, nl=False)
        sys.stdout.flush()
        whole += piece


def _talk(wanted: _Wanted) -> None:
    """Continue what a person writes, line after line."""
    from electra.predict.turns import Turns
    from electra.predict.writer import load_writer

    writer = load_writer(wanted.model, wanted.precision)
    if writer.reader is not None:
        raise ElectraError("E-C628", "--interactive", "continues a text, and this model reads one and writes another",
                           "give texts in a file or on standard input")  # fmt: skip
    turns = Turns(writer=writer, config=wanted.config)
    note(_WHAT_IT_IS)
    with contextlib.suppress(KeyboardInterrupt):
        for line in _typed():
            before = turns.forgotten
            text = turns.prompt(line)
            if turns.forgotten > before:
                note(f"(the oldest {turns.forgotten} turns no longer fit into the {writer.positions} tokens that are read)")
            if lost := writer.excess(text, wanted.config):
                note(f"(the first {lost} tokens of this turn do not fit)")
            turns.answered(_stream(writer, text, wanted))
    typer.echo()


def _typed() -> Iterator[str]:
    """What is typed, a line at a time, until the end of standard input."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return


def _refine(wanted: _Wanted, texts: Sequence[str], rounds: int, rewrite: bool) -> None:
    """Texts with their blanks filled, or rewritten."""
    from electra.predict.refine import check_rounds, load_refiner

    check_rounds(rounds)
    refiner = load_refiner(wanted.model, wanted.precision)
    found = refiner.rewrite(texts, rounds) if rewrite else refiner.fill(texts, rounds)
    with lines_into(wanted.output) as say:
        for one in found:
            say(one.sequence if wanted.as_text else json.dumps(asdict(one), ensure_ascii=False))
    if same := sum(not one.changed for one in found):
        note(f"{same:,} texts stayed as they were: {'none of their tokens was doubted' if rewrite else 'they have no [MASK]'}")
