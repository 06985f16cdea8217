"""The page of scored texts: what a text says stays text, and its oddest tokens are marked where they stand."""

from __future__ import annotations

from html.parser import HTMLParser

from electra.evaluate.scores_page import scored_row, scores_page


class Read(HTMLParser):
    """The texts of the cells and of the marks; every tag that is met."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.cells: list[str] = []
        self.marks: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")
        if tag == "mark":
            self.marks.append((str(dict(attrs)["class"]), ""))

    def handle_endtag(self, tag: str) -> None:
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.cells[-1] += data
        if "mark" in self.open:
            self.marks[-1] = (self.marks[-1][0], self.marks[-1][1] + data)


def token(start: int, end: int, doubt: float) -> dict[str, object]:
    return {"token": "<x>", "start": start, "end": end, "score": -doubt, "doubt": doubt}


def test_texts_are_escaped_and_whole() -> None:
    texts = ["<script>alert(\"1\")</script> &amp; 'x'", "这<b>电影</b>很 e\u0301 \U0001f600", "\x00</td>", ""]
    rows = [
        scored_row(text, {"score": -1.5, "tokens": [token(0, 4, 0.9), token(4, 6, 0.01)] if text else []}) for text in texts
    ]
    page = scores_page("<i>title</i>", rows)
    read = Read("".join(rows))
    assert read.tags <= {"tr", "th", "td", "mark"}
    assert [cell.replace("\ufffd", "\x00") for cell in read.cells[1::2]] == texts
    assert "<script" not in page
    assert "<i>" not in page
    assert "&lt;i&gt;title&lt;/i&gt;" in page
    assert "default-src 'none'" in page


def test_marks_stand_where_the_tokens_do() -> None:
    text = "那部电影 was e\u0301 \U0001f469\U0001f3fd\u200d\U0001f680!"
    places = {"电影": 0.6, "was": 0.3, "e": 0.15, "\U0001f469": 0.9, "!": 0.01}
    tokens = [token(text.index(part), text.index(part) + len(part), doubt) for part, doubt in places.items()]
    tokens[2]["start"], tokens[2]["end"] = text.index("e\u0301"), text.index("e\u0301") + 1
    assert Read(scored_row(text, {"score": 0.0, "tokens": tokens})).marks == [
        ("odd-3", "电影"), ("odd-2", "was"), ("odd-1", "e\u0301"), ("odd-3", "\U0001f469\U0001f3fd\u200d\U0001f680"),
    ]  # fmt: skip
