"""One prediction for a person: what a task says, in lines for a terminal."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text


def print_prediction(text: str, output: Mapping[str, Any]) -> None:
    """One prediction for a person: labels with their score, spans in a colour of their label, tokens coloured by how likely
    they were replaced, filled gaps, answers with their place, a text that
    was written above its source."""
    console = Console(highlight=False, soft_wrap=True)
    if "tokens" in output:
        line, end = Text(), 0
        for token in output["tokens"]:
            line.append(text[end : token["start"]])
            line.append(text[token["start"] : token["end"]], style=_doubt_style(token["score"]))
            end = token["end"]
        console.print(line.append(text[end:]))
        doubts = sorted(output["tokens"], key=lambda token: -float(token["score"]))[:3]
        console.print("   " + "  ".join(f"{token['token']} {token['score']:.2f}" for token in doubts), style="dim")
    elif "entities" in output:
        console.print(_with_entities(text, output["entities"]))
    elif "masks" in output:
        console.print(Text(text))
        for candidates in output["masks"]:
            console.print("   " + "  ".join(f"{item['token_str']} {item['score']:.2f}" for item in candidates), markup=False)
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


def _doubt_style(score: float) -> str:
    """From plain over yellow to red as a token looks more and more replaced."""
    return "bold white on red" if score >= 0.5 else "black on yellow" if score >= 0.2 else "yellow" if score >= 0.1 else "green"
