"""The look of the report: what comes in are texts and SVG, what goes out is HTML that needs nothing from anywhere else.

Texts are escaped here; `svg` and `body` are HTML already.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from electra.storage import write_whole


def page(title: str, body: str, style: str = "") -> str:
    """A whole document with its style, to which `style` is added; its policy forbids the browser to load anything."""
    return _PAGE.format(title=escape(title), style=_CSS + style, body=body)


def write_page(html: str, path: Path) -> Path:
    """Put a page at `path`, as a whole: who looks at it meanwhile sees the old one."""
    return write_whole(path, html)


def picture(title: str, svg: str) -> str:
    """A titled picture."""
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>"


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = (), kind: str = "") -> str:
    """Rows of cells, the first cell of each being its name; of `kind` "side", all columns count alike and wide ones scroll."""
    top = f"<thead><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr></thead>" if head else ""
    body = "".join(
        f"<tr><th>{escape(row[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>" for row in rows
    )
    whole = f"<table>{top}<tbody>{body}</tbody></table>"
    return f'<div class="{escape(kind)}">{whole}</div>' if kind else whole


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""

_CSS = """
:root { color-scheme: light; --ink: #1c1c1c; --soft: #666; --rule: #e3e3e3; }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.2rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; padding-bottom: .25rem; border-bottom: 1px solid var(--rule); }
.lead { color: var(--soft); margin: .3rem 0 1.4rem; }
.verdict { border-left: 5px solid; border-radius: 3px; padding: .7rem 1rem; }
.verdict p { margin: .2rem 0; }
.verdict .reason { color: #444; margin-left: .6rem; }
.dot { display: inline-block; width: .65rem; height: .65rem; margin-right: .5rem; border-radius: 50%;
  background: currentColor; }
.verdict.green { border-color: #1a7f4b; background: #edf7f1; } .dot.green { color: #1a7f4b; }
.verdict.amber { border-color: #b77d00; background: #fdf6e5; } .dot.amber { color: #b77d00; }
.verdict.red { border-color: #b3261e; background: #fcefee; } .dot.red { color: #b3261e; }
.verdict.grey { border-color: #999; background: #f5f5f5; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--rule); }
th { font-weight: 400; color: var(--soft); }
tbody th { min-width: 9rem; }
td:not(:last-child) { white-space: nowrap; }
td:last-child { overflow-wrap: anywhere; width: 99%; padding-right: 0; }
td + td { color: var(--soft); }
.side { overflow-x: auto; }
.side thead th { color: var(--ink); font-weight: 600; }
.side td, .side td:last-child { color: var(--ink); width: auto; padding-right: .9rem; white-space: normal; }
mark { background: none; color: inherit; }
mark.predicted { background: #ffe2b8; }
mark.gold { border-bottom: 2px solid #1a7f4b; }
mark.given { border-bottom: 2px dotted #0072b2; }
mark.odd-1 { background: #fff6d6; }
mark.odd-2 { background: #ffd98a; border-bottom: 2px solid #b77d00; }
mark.odd-3 { background: #f6b1aa; border-bottom: 2px solid #b3261e; font-weight: 600; }
.texts td:last-child, .texts td { color: var(--ink); white-space: pre-wrap; }
.texts tbody th { min-width: 5rem; }
.errors td { color: var(--ink); }
.errors tbody th { font-size: .8rem; overflow-wrap: anywhere; min-width: 5rem; max-width: 9rem; }
table + .grid { margin-top: 1.4rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); gap: 1.4rem 1.8rem; }
figure { margin: 0; break-inside: avoid; }
figcaption { font-weight: 600; font-size: .92rem; margin-bottom: .2rem; }
svg { width: 100%; height: auto; display: block; }
summary { cursor: pointer; margin-top: 2.4rem; }
pre { background: #f7f7f7; padding: 1rem; font-size: .8rem; line-height: 1.45; white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 40rem) { tbody th { min-width: 5rem; } td + td { font-size: .85rem; } }
@page { margin: 15mm; }
@media print {
  main { max-width: none; padding: 0; }
  body { font-size: 10pt; }
  h2 { break-after: avoid; margin-top: 1.4rem; }
  tr, .verdict { break-inside: avoid; }
  .grid { grid-template-columns: 1fr 1fr; gap: 1rem 1.2rem; }
  .side { overflow: visible; }
  .dot, .verdict, mark { print-color-adjust: exact; }
}
"""
