"""The tables of translate.py, generation.py, refine.py and writing.py, for tables.py; nothing where nothing is recorded."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
Result = dict[str, Any]
Table = Callable[..., list[str]]
_TRANSLATE = """`python benchmarks/translate.py DATA WORK_DIR`: Tatoeba zh-en and en-zh, titles of CSL. Start: `warm`, all
pre-trained; `encoder`, the decoder fresh; `cold`, all fresh; `trainer`, the weights of `warm` under transformers'
Trainer; `lead`, the first words."""
_SPEED = """`python benchmarks/generation.py`: greedy, with cache, on the model that we export, interleaved, medians. All in
fp32 but `auto`, which is `--precision auto`: bf16 where the machine has instructions for it."""
_REFINE = """`python benchmarks/refine.py MODEL_DIR TEXT_FILE`: masked tokens that are filled with what stood there, %."""
_WRITING = """`python benchmarks/writing.py DATA WORK_DIR`: continuations of held-out English Wikipedia; perplexity under
a larger causal model of ours; self-BLEU against other drafts; chrF against the article; the weight is tuned on other
articles."""
_VERSE = """`python benchmarks/writing.py DATA WORK_DIR --arms verse`: the second couplet behind the first of a held-out
poem; a rhyme is two characters that end couplets of three poems of the training data."""


def load(pattern: str) -> list[tuple[str, Result]]:
    """The results whose name fits, oldest first."""
    return [(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(RESULTS.glob(pattern))]


def generation_tables(table: Table) -> list[str]:
    """All of them."""
    return [*translate(table), *speed(table), *refine(table), *writing(table), *verse(table)]


def translate(table: Table) -> list[str]:
    """A row for each task and start, over its seeds."""
    cells: dict[tuple[str, str], list[Result]] = {}
    for name, result in load("translate/*.json"):
        task, start, _ = name.rsplit("-", 2)
        cells.setdefault((task, start), []).append(result)
    rows = []
    for (task, start), found in sorted(cells.items()):
        metric = next(iter(found[0]["metrics"]))
        values = [result["metrics"][metric] for result in found]
        middle = sorted(found, key=lambda result, metric=metric: result["metrics"][metric])[len(found) // 2]  # type: ignore[misc]
        names = [name for name in ("bleu", "chrf", "rougeL", "exact_match") if name in middle["metrics"] and name != metric]
        others = ", ".join(f"{name} {middle['metrics'][name]:.3g}" for name in names)
        step = [1000 * result["seconds_per_step"] for result in found if "seconds_per_step" in result]
        seeds = ", ".join(f"{value:.3g}" for value in values)
        rows.append([task, start, metric, f"{statistics.median(values):.3g}", seeds, others,
                     f"{statistics.median(step):.0f}" if step else "", middle.get("steps", "")])  # fmt: skip
    head = ["task", "start", "metric", "median", "seeds", "other figures", "ms a step", "steps"]
    return ["## Texts from texts", "", _TRANSLATE, "", *table(head, rows), ""] if rows else []


def speed(table: Table) -> list[str]:
    """Tokens per second, and the cost of a token as the text grows."""
    lines = ["## Generation against transformers' generate", "", _SPEED, ""]
    rows, eighths = [], list[str]()
    for name, result in load("generation-*.json"):
        for batch, rates in result["tokens per second"].items():
            if isinstance(rates, dict):
                auto = [f"{rates['ours-auto']:,.0f}", f"{rates['ratio-auto']}x"] if "ours-auto" in rates else ["", ""]
                rows.append([name, batch, f"{rates['ours']:,.0f}", f"{rates['transformers']:,.0f}", f"{rates['ratio']}x", *auto,
                             "yes" if rates["same output"] else "no"])  # fmt: skip
        parts = result["tokens per second"]["ms per token in each eighth"]
        eighths.append(f"- `{name}`: ms per token in each eighth of a text: {', '.join(map(str, parts))}")
    head = ["result", "batch", "ours, tokens/s", "transformers", "our speed", "auto, tokens/s", "speed of auto", "same output"]
    return [*lines, *table(head, rows), "", *eighths, ""] if rows else []


def refine(table: Table) -> list[str]:
    """Accuracy of the fills, a row for each share of masked tokens."""
    found = load("refine-*.json")
    if not found:
        return []
    lines = ["## Blanks filled in rounds", "", _REFINE, ""]
    columns = list(next(iter(found[0][1]["accuracy"].values())))
    rows = [[name, result["texts"], share, *(f"{100 * row[column]:.1f}" for column in columns)]
            for name, result in found for share, row in result["accuracy"].items()]  # fmt: skip
    return [*lines, *table(["result", "texts", "masked", *columns], rows), ""]


def writing(table: Table) -> list[str]:
    """A row for each way to choose a draft."""
    order = ("en-reference", "en-first", "en-likelihood", "en-rtd", "en-real-fake")
    found = sorted(
        (result for name, result in load("writing/en-*.json") if name in order), key=lambda one: order.index(one["arm"])
    )
    lines = ["## A critic chooses among drafts", "", _WRITING, ""]
    columns = {"perplexity": ".1f", "distinct_1": ".3f", "distinct_2": ".3f", "self_bleu": ".2f", "chrf": ".1f",
               "repeated": ".3f", "words": ".1f"}  # fmt: skip
    rows = [[result["arm"].removeprefix("en-"), result["texts"], result.get("weight", ""),
             *(format(result["figures"][name], how) for name, how in columns.items())] for result in found]  # fmt: skip
    head = ["chosen by", "texts", "weight", *(name.replace("_", "-") for name in columns)]
    return [*lines, *table(head, rows), ""] if rows else []


def verse(table: Table) -> list[str]:
    """Whether second couplets keep the length of the lines, and rhyme."""
    lines = ["## Verse", "", _VERSE, ""]
    rows = [[way, result["texts"], *(f"{100 * shares[name]:.1f}" if name in shares else "" for name in ("length", "rhyme"))]
            for _, result in load("writing/verse.json") for way, shares in result["shares"].items()]  # fmt: skip
    return [*lines, *table(["couplets", "poems", "length kept, %", "rhyme, %"], rows), ""] if rows else []
