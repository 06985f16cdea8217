"""One prediction for a person: what a task says, in lines for a terminal."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from electra.text.highlight import oddity, pieces


def print_prediction(text: str, output: Mapping[str, Any], colour: bool | None = None) -> None:
    """One prediction for a person: labels with their score, spans in a colour of their label, tokens coloured by how odd they
    are, filled gaps, answers with their place, edits, a text that was written above its source.

    Args:
        text: the input.
        output: of the prediction.
        colour: whether to colour; None = where standard output is a terminal.
    """
    console = Console(highlight=False, soft_wrap=True, force_terminal=colour)
    if "tokens" in output:
        _print_tokens(console, text, output)
    elif "entities" in output:
        console.print(_with_entities(text, output["entities"]))
    elif "masks" in output:
        console.print(Text(text))
        for candidates in output["masks"]:
            console.print("   " + "  ".join(f"{item['token_str']} {item['score']:.2f}" for item in candidates), markup=False)
        if "joint" in output:
            console.print(Text(f"   together {output['joint']['score']:.3f}  {output['joint']['sequence']}"))
    elif "edits" in output:
        console.print(_with_edits(text, output["edits"]))
    elif "answer" in output:
        console.print(Text(f"{output['answer'] or '(no answer)'} {float(output['score']):.3f}  {text}"))
        if output.get("file"):
            console.print(Text(f"   {output['file']}, characters {output['start']} to {output['end']}", style="dim"))
        if output.get("note"):
            console.print(Text(f"   {output['note']}", style="dim"))
    elif "generated_text" in output:
        console.print(Text(f"{output['generated_text']}  {float(output['score']):.3f}"))
        cut = "  (cut at the longest length)" if output["ended"] == "length" else ""
        console.print(Text(f"   {text}{cut}", style="dim"))
        if "attention" in output:
            console.print(Text(f"   {_aligned(output['attention'])}", style="dim"))
    elif "head" in output:
        relation = f"{output['head']['word']} | {output['label']} | {output['tail']['word']}"
        console.print(Text(f"{relation}  {output['score']:.3f}  {text}"))
    elif "embedding" in output:
        begin = " ".join(f"{number:.3f}" for number in output["embedding"][:4])
        cosine = f"{output['score']:.3f}  " if "score" in output else ""
        console.print(Text(f"{cosine}[{begin} ...] of {len(output['embedding'])}  {text}"))
    else:
        given = output.get("labels", [output])  # several labels, one, or a number alone
        shown = "  ".join(f"{one.get('label', '')} {float(one.get('score', 0.0)):.3f}".strip() for one in given)
        console.print(Text(f"{shown or '-'}  {text}"))


def _aligned(attention: Mapping[str, Any]) -> str:
    """Of each written token the source token that it looked at most: `gate < puerta .83`."""
    told = []
    for token, weights in zip(attention["target"], attention["weights"], strict=True):
        most = max(weights)
        told.append(f"{token} < {attention['source'][weights.index(most)]} {most:.2f}")
    return "  ".join(told)


def _print_tokens(console: Console, text: str, output: Mapping[str, Any]) -> None:
    """The text with its odd tokens in colour, and the oddest of them; what was scored begins with the score."""
    scored = "method" in output  # of task score; else probabilities of "replaced"
    doubt = "doubt" if scored else "score"
    line = Text(f"{output['score']:.3f}  " if scored else "")
    for piece, odd in pieces(text, [(token["start"], token["end"], token[doubt]) for token in output["tokens"]]):
        line.append(piece, style="" if odd is None else _DOUBT_STYLES[oddity(odd)])
    console.print(line)
    if not output["tokens"]:
        return
    doubts = sorted(output["tokens"], key=lambda token: -float(token[doubt]))[:3]
    console.print(Text("   " + "  ".join(f"{token['token']} {token['score']:.2f}" for token in doubts), style="dim"))


def _with_edits(text: str, edits: Sequence[Mapping[str, Any]]) -> Text:
    """The corrected text, what was taken out struck through: `the [cta](cat .97 to .02) sat`."""
    line, end = Text(), 0
    for edit in edits:
        line.append(text[end : edit["start"]])
        line.append(f"[{edit['old']}]", style="red strike")
        line.append(f"({edit['new']}", style="bold green")
        line.append(f" {edit['before']:.2f} to {edit['after']:.2f})", style="dim")
        end = edit["end"]
    return line.append(text[end:])


def _with_entities(text: str, entities: Sequence[Mapping[str, Any]]) -> Text:
    """The text with each span in a colour, its label and score behind it: `[Ada Lovelace](PER 0.98) wrote`."""
    line, end = Text(), 0
    for entity in entities:
        colour = _ENTITY_COLOURS[zlib.crc32(entity["entity_group"].encode()) % len(_ENTITY_COLOURS)]
        line.append(text[end : entity["start"]])
        line.append(f"[{text[entity['start'] : entity['end']]}]", style=f"bold {colour}")
        line.append(f"({entity['entity_group']} {entity['score']:.2f})", style=f"dim {colour}")
        end = entity["end"]
    return line.append(text[end:])


_ENTITY_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")


#: from plain over yellow to red as a token looks odder
_DOUBT_STYLES = ("", "yellow", "black on yellow", "bold white on red")
