"""Extractive summaries against the first sentences: what they share with the titles of Chinese abstracts.

    DATA=dir python benchmarks/summary.py MODEL_DIR [--limit N] [--out results.json]

DATA is a directory with `csl/test.tsv`: a prompt, an abstract, its title. For one and three sentences: ROUGE-1, -2 and -L of
central and of first sentences with the title, F1 in per cent. Units are characters: the rouge-score package keeps letters and
digits of ASCII only, so that nothing would be left of these texts.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from electra.predict.search import load_embedder
from electra.predict.summary import summarise
from electra.text.sentences import sentences


def f1(shared: int, left: int, right: int) -> float:
    return 200 * shared / (left + right) if shared else 0.0


def rouge_n(said: str, wanted: str, n: int) -> float:
    """F1 of the n-grams of characters, each counted as often as it occurs in both."""
    left, right = (Counter(text[i : i + n] for i in range(len(text) - n + 1)) for text in (said, wanted))
    return f1((left & right).total(), left.total(), right.total())


def rouge_l(said: str, wanted: str) -> float:
    """F1 of the longest common subsequence of characters."""
    lengths = [0] * (len(wanted) + 1)
    for one in said:
        before = 0
        for place, other in enumerate(wanted, start=1):
            before, lengths[place] = lengths[place], before + 1 if one == other else max(lengths[place], lengths[place - 1])
    return f1(lengths[-1], len(said), len(wanted))


def scores(said: str, wanted: str) -> dict[str, float]:
    said, wanted = ("".join(text.casefold().split()) for text in (said, wanted))
    return {"rouge1": rouge_n(said, wanted, 1), "rouge2": rouge_n(said, wanted, 2), "rougeL": rouge_l(said, wanted)}


def abstracts(path: Path, limit: int | None) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8") as lines:
        for line in itertools.islice(lines, limit):
            _, text, title = line.rstrip("\n").split("\t")
            yield text, title


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    predictor = load_embedder(given.model)
    found: dict[str, list[dict[str, float]]] = {}
    lengths = []
    for text, title in abstracts(Path(os.environ["DATA"]) / "csl" / "test.tsv", given.limit):
        spans = sentences(text)
        lengths.append(len(spans))
        for count in (1, 3):
            first = "".join(text[start:end] for start, end in spans[:count])
            central = "".join(one.text for one in summarise(predictor, text, count).sentences)
            found.setdefault(f"first {count}", []).append(scores(first, title))
            found.setdefault(f"central {count}", []).append(scores(central, title))
    means = {
        name: {key: round(statistics.fmean(row[key] for row in rows), 2) for key in rows[0]} for name, rows in found.items()
    }
    for name, row in means.items():
        print(f"{name:10} " + "  ".join(f"{key} {value:5.1f}" for key, value in row.items()))
    print(f"{len(lengths)} abstracts of {statistics.fmean(lengths):.1f} sentences")
    if given.out:
        date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        result = {"date": date, "model": given.model.name, "abstracts": len(lengths), "rouge of characters": means}
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
