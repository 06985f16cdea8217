"""The tables and the picture of ladder.py's results, for tables.py. A row without a result is shown empty."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ladder import FACTORS, FROM_START, KINDS, RESULTS, SEEDS, WHOLE

PICTURE = Path(__file__).parent.parent / "docs" / "pictures" / "ladder.svg"
Result = dict[str, Any]
_WORDS = """`python benchmarks/ladder.py DATA WORK_DIR`; `--list` names what is missing and how long it takes. Recipe
modern-tiny, English Wikipedia (59 MB), a vocabulary of 8,000, one thread an arm, rates decayed to 0. Median and range
over the seeds. `BLiMP`: 34 sets, mean of their accuracies, ties wrong; `no permutations`: without the sets whose pairs
consist of the same words; scored by `rtd` where there is a discriminator, else by `pll` (the first 200 pairs of a set).
SST-2 by its first 10,000 rows; CoLA by Matthews' correlation. `rate`: factor on the recipe's rates, chosen by the sweep."""


def found(name: str) -> Result | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def all_of(names: Sequence[str]) -> list[Result]:
    return [result for name in names if (result := found(name)) is not None]


def spread(results: Sequence[Result], read: Callable[[Result], float], scale: float = 100, digits: int = 1) -> str:
    """Median and range; one value alone; empty where there is none."""
    values = [scale * read(result) for result in results]
    if not values:
        return ""
    middle = f"{statistics.median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def minimal_pairs(result: Result) -> Result:
    """Of the scorer that the model is made for."""
    told: Result = result["blimp"]
    return told.get("rtd", told.get("pll", {}))


def cells(results: Sequence[Result]) -> list[str]:
    """The probes of some results: none that a kind has not."""
    pairs = [result for result in results if "blimp" in result]
    tasks = [result for result in results if "tasks" in result]
    return [
        spread(pairs, lambda result: minimal_pairs(result)["all"]["accuracy"]),
        spread(pairs, lambda result: minimal_pairs(result)["without_permutations"]["accuracy"]),
        spread(tasks, lambda result: result["tasks"]["sst2"]["accuracy"]),
        spread(tasks, lambda result: result["tasks"]["cola"]["matthews"]),
        spread(tasks, lambda result: result["tasks"]["trec"]["accuracy"]),
    ]


_PROBES = ["BLiMP", "no permutations", "SST-2 10k", "CoLA", "TREC"]
_RUN = ["million tokens", "steps", "minutes", "rate"]


def run_cells(results: Sequence[Result]) -> list[str]:
    trained = [result for result in results if "tokens" in result]
    return [
        spread(trained, lambda result: result["tokens"], 1e-6),
        spread(trained, lambda result: result["steps"], 1, 0),
        spread(trained, lambda result: result["training_seconds"], 1 / 60),
        ", ".join(sorted({f"{result['factor']:g}" for result in trained})),
    ]


def claim_rows() -> Iterator[list[str]]:
    floors = found("floors-words")
    for name in ("unigram", "ngram-3", "ngram-5"):
        told = floors["blimp"][name] if floors else None
        accuracies = [f"{100 * told[key]['accuracy']:.1f}" for key in ("all", "without_permutations")] if told else ["", ""]
        yield [name, *accuracies, *[""] * 7]
    for kind in ("none", *KINDS):
        results = all_of([f"claim-{kind}-s{seed}" for seed in SEEDS])
        yield [kind, *cells(results), *run_cells(results)]
    results = all_of([f"tokens-mlm-s{seed}" for seed in SEEDS])
    yield ["mlm, as many tokens as rtd", *cells(results), *run_cells(results)]


def sweep_rows() -> Iterator[list[str]]:
    for kind in KINDS:
        for factor in FACTORS:
            results = all_of([f"sweep-{kind}-{factor:g}"])
            held_out = spread(results, lambda result: result["sst2_held_out"])
            yield [kind, f"{factor:g}", held_out, cells(results)[0], *run_cells(results)[:3]]


def exploratory_rows() -> Iterator[list[str]]:
    for kind in ("start", *FROM_START, *WHOLE):
        results = all_of([f"exploratory-{kind}"])
        figures = [f"{results[0]['figures'][name]:.3f}" if results and name in results[0]["figures"] else ""
                   for name in ("auc", "prior_gain")]  # fmt: skip
        yield [kind, *cells(results), *figures, *run_cells(results)[:3]]


def one_pass_rows() -> Iterator[list[str]]:
    """The discriminator's one pass against its generator's passes, on the same pairs."""
    for kind in ("rtd", "mlm-rtd"):
        results = all_of([f"claim-{kind}-s{seed}" for seed in SEEDS])
        yield [kind, spread(results, lambda result: result["blimp"]["rtd_on_pairs_of_pll"]["accuracy"]),
               spread(results, lambda result: result["blimp"]["pll"]["all"]["accuracy"])]  # fmt: skip


def ladder(table: Callable[[Sequence[str], Iterator[list[str]]], list[str]]) -> list[str]:
    """The part of the page; draws the picture where there are curves."""
    lines = ["## Replaced token detection against masked language modelling at 30 minutes of one core", "", _WORDS, ""]
    lines += [*table(["arm", *_PROBES, *_RUN], claim_rows()), ""]
    if draw():
        lines += ["Along the way, rates not yet decayed (50 pairs of a set; a line a seed):", "",
                  "![BLiMP and held-out losses over minutes and tokens](pictures/ladder.svg)", ""]  # fmt: skip
    lines += ["The same model twice, on the same pairs: one pass of the discriminator, a pass a token of its generator.", ""]
    lines += [*table(["arm", "rtd, one pass", "pll of the generator"], one_pass_rows()), ""]
    lines += [
        "### The sweep: five minutes a rate",
        "",
        "`held out`: rows of SST-2's training file that no other probe uses.",
        "",
    ]
    lines += [*table(["arm", "rate", "held out", "BLiMP", *_RUN[:3]], sweep_rows()), ""]
    lines += ["### Exploratory, no claim: ten minutes, one seed", ""]
    lines += ["All but the last two go on with RTD from the model of `start`. `one`, `two`: one clip and RTD x 50, or a clip "
              "for each network and RTD x 1.", ""]  # fmt: skip
    return [*lines, *table(["arm", *_PROBES, "AUC", "prior gain", *_RUN[:3]], exploratory_rows()), ""]


def draw() -> bool:
    """The curves of the claim's arms; whether there are any."""
    results = {kind: all_of([f"claim-{kind}-s{seed}" for seed in SEEDS]) for kind in KINDS}
    if not any(results.values()):
        return False
    import matplotlib.pyplot as plt

    panels: list[tuple[str, str, Callable[[Result], float], Callable[[Result], float | None]]] = [
        ("minutes", "BLiMP, %", lambda point: point["seconds"] / 60, lambda point: 100 * point["blimp"]["accuracy"]),
        ("million tokens", "BLiMP, %", lambda point: point["tokens"] / 1e6, lambda point: 100 * point["blimp"]["accuracy"]),
        ("minutes", "MLM loss on held-out text, nats", lambda point: point["seconds"] / 60,
         lambda point: point["held_out"].get("mlm_loss")),
        ("minutes", "prior gain on held-out text, nats", lambda point: point["seconds"] / 60,
         lambda point: point["held_out"].get("prior_gain")),
    ]  # fmt: skip
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    strokes = {"mlm": ("#1b6ca8", "solid"), "rtd": ("#b5482a", "dashed"), "mlm-rtd": ("#3f7d3a", "dashdot")}
    for place, (across, up, x, y) in zip(axes.flat, panels, strict=True):
        for kind, runs in results.items():
            colour, stroke = strokes[kind]
            for number, run in enumerate(runs):
                points = [(x(point), value) for point in run["course"] if (value := y(point)) is not None]
                place.plot(*zip(*points, strict=True) if points else ([], []), color=colour, linestyle=stroke, marker=".",
                           label=kind if not number else None)  # fmt: skip
        place.set_xlabel(across)
        place.set_ylabel(up)
        place.grid(axis="y", color="#dddddd")
    axes[0, 0].legend()
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, metadata={"Date": None})
    return True
