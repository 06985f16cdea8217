"""Alignments as a page: a picture of each text, source tokens across, target tokens down, the more attention the more colour.

In: texts and what `predict.alignment` says of them. Out: HTML that needs nothing from anywhere else, light or dark as the
reader's system is. Texts are escaped here. A picture is drawn in its own size and scrolls where it is wider than the page.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from electra.evaluate.page import page

#: texts of a page that have a picture
MOST_PICTURES = 50
#: sides of a field, and the room of a character of half width, in pixels; characters of a label at most
_SIDE, _CHARACTER, _LONGEST = 26, 7.6, 18
#: a weight that is not drawn
_NOTHING = 0.005
_STYLE = """
:root { color-scheme: light dark; --field: #0b5fa5; --paper: #fff; }
figure { margin: 0 0 2.6rem; }
figcaption { font-weight: 400; margin-bottom: .5rem; overflow-wrap: anywhere; }
figcaption b { display: block; }
figcaption span { color: var(--soft); }
.wide { overflow-x: auto; }
.wide svg { width: auto; max-width: none; }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink); }
svg .special { fill: var(--soft); }
svg .grid { fill: none; stroke: var(--rule); }
svg .field { fill: var(--field); }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --soft: #a0a0a0; --rule: #3a3a3a; --field: #6db8ff; --paper: #161616; }
  body { background: var(--paper); }
}
@media print { svg .field { print-color-adjust: exact; } .wide { overflow: visible; } .wide svg { max-width: 100%; } }
"""


def alignment_page(title: str, pictures: Iterable[str], left_out: int = 0) -> str:
    """The whole page.

    Args:
        title: of the page.
        pictures: from `alignment_picture`.
        left_out: texts that have no picture here, which the page says.
    """
    lead = ("Source tokens across, written tokens down. The stronger the colour of a field, the more of the attention with "
            "which the token of its row was chosen went to that of its column; the strongest of a picture is its greatest "
            "weight.")  # fmt: skip
    more = f"<p>{left_out:,} more texts have no picture here.</p>" if left_out else ""
    header = f'<header><h1>{escape(title)}</h1><p class="lead">{lead}</p></header>'
    return page(title, f"{header}{''.join(pictures)}{more}", _STYLE)


def alignment_picture(text: str, output: Mapping[str, Any]) -> str:
    """One text and what was written from it, as a figure.

    Args:
        text: the source.
        output: of a prediction, with `generated_text` and `attention`.
    """
    attention = output["attention"]
    source, target = (list(map(_label, attention[side])) for side in ("source", "target"))
    caption = f"<figcaption><b>{escape(_shown(output['generated_text']))}</b><span>{escape(_shown(text))}</span></figcaption>"
    if not target:
        return f"<figure>{caption}<p>Nothing was written.</p></figure>\n"
    return f'<figure>{caption}<div class="wide">{_svg(source, target, attention["weights"])}</div></figure>\n'


def _svg(source: Sequence[str], target: Sequence[str], weights: Sequence[Sequence[float]]) -> str:
    across, down = _SIDE * len(source), _SIDE * len(target)
    left, top = 10 + max(map(_width, target)), 14 + 0.87 * max(map(_width, source))
    width, height = left + across + 12 + 0.5 * _width(source[-1]), top + down + 2
    most = max(map(max, weights)) or 1.0
    lines = "".join(f"M{left:.0f} {top + _SIDE * row:.0f}h{across}" for row in range(len(target) + 1))
    lines += "".join(f"M{left + _SIDE * column:.0f} {top:.0f}v{down}" for column in range(len(source) + 1))
    parts = [f'<path class="grid" d="{lines}"/>']
    for column, token in enumerate(source):
        x, y = left + _SIDE * (column + 0.5), top - 6
        upright = _width(token) < 18  # a single character need not lie on its side
        how = 'text-anchor="middle"' if upright else f'transform="translate(4) rotate(-60 {x:.0f} {y:.0f})"'
        parts.append(f'<text x="{x:.0f}" y="{y:.0f}" {how}{_special(token)}>{escape(token)}</text>')
    for row, (token, shares) in enumerate(zip(target, weights, strict=True)):
        y = top + _SIDE * row
        parts.append(f'<text x="{left - 6:.0f}" y="{y + 17:.0f}" text-anchor="end"{_special(token)}>{escape(token)}</text>')
        parts += [
            f'<rect class="field" x="{left + _SIDE * column:.0f}" y="{y:.0f}" width="{_SIDE}" height="{_SIDE}" '
            f'fill-opacity="{share / most:.2f}"><title>{escape(token)} / {escape(source[column])} {share:.2f}</title></rect>'
            for column, share in enumerate(shares) if share >= _NOTHING
        ]  # fmt: skip
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg {size} role="img" aria-label="Alignment of {len(target)} with {len(source)} tokens">{"".join(parts)}</svg>'


def _label(token: str) -> str:
    """A token in a line of `_LONGEST` characters at most, one of spaces alone as a sign for it."""
    told = _shown(token).strip() or "\u2423"
    return told if len(told) <= _LONGEST else f"{told[: _LONGEST - 1]}\u2026"


def _shown(text: str) -> str:
    """A text without what no font has, and no file can hold."""
    return "".join(sign if sign.isprintable() else " " if sign.isspace() else "\ufffd" for sign in text)


def _width(label: str) -> float:
    """About how many pixels a label takes."""
    return sum(_CHARACTER * (1.75 if unicodedata.east_asian_width(sign) in "WF" else 1) for sign in label)


def _special(token: str) -> str:
    return ' class="special"' if token in ("[CLS]", "[SEP]") else ""
