"""Scored texts as a page: each with its score, its odd tokens coloured. Texts are escaped here.

In: texts and what task `score` says of them. Out: HTML that needs nothing from anywhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from electra.evaluate.page import page
from electra.text.highlight import oddity, pieces

_LEGEND = " ".join(
    f'<mark class="odd-{degree}">{told}</mark>' for degree, told in ((1, "a little odd"), (2, "odd"), (3, "very odd"))
)


def scores_page(title: str, rows: Iterable[str]) -> str:
    """The whole page.

    Args:
        title: of the page.
        rows: from `scored_row`.
    """
    header = f'<header><h1>{escape(title)}</h1><p class="lead">{_LEGEND}</p></header>'
    head = "<thead><tr><th>score</th><th>text</th></tr></thead>"
    return page(title, f'{header}<section class="texts"><table>{head}<tbody>{"".join(rows)}</tbody></table></section>')


def scored_row(text: str, output: Mapping[str, Any]) -> str:
    """A row of the table: one text."""
    places = [(token["start"], token["end"], token["doubt"]) for token in output["tokens"]]
    shown = "".join(_piece(piece, doubt) for piece, doubt in pieces(text, places))
    return f"<tr><th>{output['score']:.3f}</th><td>{shown}</td></tr>\n"


def _piece(piece: str, doubt: float | None) -> str:
    degree = 0 if doubt is None else oddity(doubt)
    inside = escape(piece)
    return inside if not degree else f'<mark class="odd-{degree}" title="{doubt:.2f}">{inside}</mark>'
