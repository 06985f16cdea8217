"""Replaced token detection against masked language modelling at minutes of one CPU core: recorded arms on one text.

    python benchmarks/ladder.py DATA WORK_DIR [--list] [--workers 2] [--groups sweep claim ...] [--arms NAME ...]

The claim: 30 minutes, three seeds, of `mlm` (masked language modelling), `rtd` (replaced token detection from scratch) and
`mlm-rtd` (60 % of the time the one, then the other), each at the best of three rates, found by 5-minute runs of the group
`sweep` on rows of SST-2's training file that nothing else looks at. All start from recipe modern-tiny, one tokenizer of 8,000
entries, DATA/text/en_wiki.txt without its last hundredth, which is held out, and one thread; `--workers` arms run at once,
each on a core. The sweep's runs say how long a step takes, and the claim's steps follow from it, so all seeds of an arm take
the same steps. `tokens` is `mlm` once more, stopped after as many tokens as `rtd` saw. Rates decay to 0 in every run. The
arms of `exploratory` have one seed and support no claim: ten minutes of RTD each, all from one model of ten minutes of MLM,
or, where the encoder differs, from scratch.

Probes: BLiMP (DATA/blimp), and fine-tuning on SST-2's first 10,000 rows, CoLA and TREC, with one seed and the same settings for
all. Along the claim's way eight checkpoints are scored on BLiMP and on held-out text. One JSON per finished arm in
benchmarks/results/ladder; an arm that has one is skipped, an interrupted one resumes. `--minutes` and `--limit` are for trying
the script: nothing is recorded then.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ladder_probes as probes
from electra.demo import outcome
from small_budgets import electra

RESULTS = Path(__file__).parent / "results" / "ladder"
SEEDS = (0, 1, 2)
#: what each arm of the claim changes of the recipe modern-tiny
KINDS: dict[str, list[str]] = {"mlm": ["phases.rtd.share=0"], "rtd": ["phases.mlm.share=0"], "mlm-rtd": []}
#: factors on the recipe's rates
FACTORS = (0.5, 1.0, 2.0)
RATES = {"mlm": 2e-3, "rtd": 1e-3}
CLAIM_MINUTES, SWEEP_MINUTES, EXPLORATORY_MINUTES = 30.0, 5.0, 10.0

#: of the text, where `--limit` makes it a trial
_TRIAL_BYTES = 4_000_000
_RTD = "phases.rtd.objective."
_TWO = ["phases.rtd.optimizer.clip_per_network=true", f"{_RTD}weight=1"]
_CLASSIC = ["encoder.type=classic", "encoder.embedding_size=192", "encoder.hidden_size=192", "encoder.num_hidden_layers=8",
            "encoder.num_attention_heads=6", "encoder.intermediate_size=768", "encoder.hidden_dropout_prob=0.0",
            "encoder.attention_probs_dropout_prob=0.0"]  # fmt: skip
#: exploratory arms whose RTD goes on from the model of `exploratory-start`
FROM_START: dict[str, list[str]] = {
    "gdes-one": [f"{_RTD}tying=gdes"],
    "gdes-two": [f"{_RTD}tying=gdes", *_TWO],
    "embeddings-one": [f"{_RTD}tying=embeddings"],
    "embeddings-two": [f"{_RTD}tying=embeddings", *_TWO],
    "none-one": [f"{_RTD}tying=none"],
    "none-two": [f"{_RTD}tying=none", *_TWO],
    "bottom-layers-2": [f"{_RTD}tying=bottom-layers", f"{_RTD}shared_layers=2"],
}
#: exploratory arms that are whole runs of both phases
WHOLE: dict[str, list[str]] = {"modern": [], "classic": _CLASSIC}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One run with its probes.

    Args:
        group: `floors`, `sweep`, `claim`, `tokens` or `exploratory`.
        kind: what it is called beside its group; of the claim a key of KINDS, `none` = a fresh network.
        settings: of `electra pretrain modern-tiny`.
        minutes: of pre-training; 0 = none.
        factor: on the rates; None = the best of the sweep.
        start: the arm whose model it goes on from.
    """

    group: str
    kind: str
    settings: tuple[str, ...] = ()
    minutes: float = 0.0
    seed: int = 0
    factor: float | None = 1.0
    start: str | None = None

    @property
    def name(self) -> str:
        tail = f"-{self.factor:g}" if self.group == "sweep" else f"-s{self.seed}" if self.group in ("claim", "tokens") else ""
        return f"{self.group}-{self.kind}{tail}"

    @property
    def estimate(self) -> float:
        """Minutes of one core, probes included, on a Xeon with AMX; `tokens` ends earlier than its minutes."""
        probing = {"floors": 5, "sweep": 5, "claim": 12 if self.minutes else 4, "tokens": -4, "exploratory": 6}
        return self.minutes + probing[self.group]


def arms() -> Iterator[Arm]:
    yield Arm(group="floors", kind="words")
    for kind, settings in KINDS.items():
        for factor in FACTORS:
            yield Arm(group="sweep", kind=kind, settings=tuple(settings), minutes=SWEEP_MINUTES, factor=factor)
    for seed in SEEDS:
        for kind, settings in KINDS.items():
            yield Arm(group="claim", kind=kind, settings=tuple(settings), minutes=CLAIM_MINUTES, seed=seed, factor=None)
        yield Arm(group="claim", kind="none", seed=seed)
    for seed in SEEDS:
        yield Arm(group="tokens", kind="mlm", settings=tuple(KINDS["mlm"]), minutes=CLAIM_MINUTES, seed=seed, factor=None)
    yield Arm(group="exploratory", kind="start", settings=tuple(KINDS["mlm"]), minutes=EXPLORATORY_MINUTES)
    for kind, settings in FROM_START.items():
        own = ("phases.mlm.share=0", *settings)
        yield Arm(group="exploratory", kind=kind, settings=own, minutes=EXPLORATORY_MINUTES, start="exploratory-start")
    for kind, settings in WHOLE.items():
        yield Arm(group="exploratory", kind=kind, settings=tuple(settings), minutes=EXPLORATORY_MINUTES)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where things are, and how much of them is used.

    Args:
        minutes: in the place of an arm's own, for a trial.
        limit: rows of a file and pairs of a set, for a trial; None = all.
    """

    data: Path
    work: Path
    minutes: float | None = None
    limit: int | None = None

    @property
    def results(self) -> Path:
        return RESULTS if self.minutes is None and self.limit is None else self.work / "results"

    def result(self, name: str) -> dict[str, Any] | None:
        path = self.results / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def prepare(place: Place) -> None:
    """The text in two parts, tokenizer, both corpora, and the files of the fine-tuning probes; what is there is used."""
    train, held = place.work / "train.txt", place.work / "held-out.txt"
    if not held.is_file():
        text = (place.data / "text" / "en_wiki.txt").read_bytes()
        text = text if place.limit is None else text[:_TRIAL_BYTES]
        cut = text.index(b"\n\n", len(text) * 99 // 100) + 2
        train.write_bytes(text[:cut])
        held.write_bytes(text[cut:])
    if not (place.work / "tokenizer").is_dir():
        electra("tokenizer", "train", train, "--vocab-size", 8000, "--sample-bytes", 100_000_000,
                "--out", place.work / "tokenizer")  # fmt: skip
    for name, text in (("corpus", train), ("held-out", held)):
        if not (place.work / name / "manifest.json").is_file():
            electra("corpus", "build", text, "--tokenizer", place.work / "tokenizer", "--out", place.work / name)
    probes.write_files(place.data, place.work, place.limit)


def chosen_factor(place: Place, kind: str) -> float:
    """The factor whose sweep run did best on held-out rows; the smaller one of two that did equally well."""
    found = {factor: place.result(f"sweep-{kind}-{factor:g}") for factor in FACTORS}
    missing = [factor for factor, result in found.items() if result is None]
    if missing:
        sys.exit(f"run the sweep of {kind} first: factors {missing} are missing")
    return max(found, key=lambda factor: (found[factor]["sst2_held_out"], -factor))  # type: ignore[index]


def steps_for(place: Place, kind: str, minutes: float) -> dict[str, int]:
    """Steps of each phase, from the seconds a step took in the sweep; 5 % are kept for logs and checkpoints."""
    result = place.result(f"sweep-{kind}-{chosen_factor(place, kind):g}")
    assert result is not None
    shares = {name: {"mlm": 0.6, "rtd": 0.4}[name] for name in result["seconds_per_step"]}
    return {name: max(1, round(minutes * 60 * 0.95 * share / sum(shares.values()) / result["seconds_per_step"][name]))
            for name, share in shares.items()}  # fmt: skip


def length(arm: Arm, place: Place) -> list[str]:
    """The settings that say how long the run is."""
    minutes = place.minutes or arm.minutes
    if arm.group == "tokens":
        peers = [place.result(f"claim-rtd-s{seed}") for seed in SEEDS]
        if None in peers:
            sys.exit("run claim-rtd first: `tokens` takes as many steps as it did")
        return ["stop.hours=1000", f"stop.steps={peers[0]['steps']}"]  # type: ignore[index]
    if arm.group == "claim":
        steps = steps_for(place, arm.kind, minutes)
        shares = [f"phases.{name}.share={count}" for name, count in steps.items()]
        return ["stop.hours=1000", f"stop.steps={sum(steps.values())}", *shares]
    return [f"stop.hours={minutes / 60}"]


def pretrain(arm: Arm, place: Place, run: Path) -> list[str]:
    """Run or resume the pre-training; its settings."""
    factor = chosen_factor(place, arm.kind) if arm.factor is None else arm.factor
    rates = [f"phases.{name}.optimizer.lr={rate * factor:g}" for name, rate in RATES.items()]
    settings = [*arm.settings, *rates, *length(arm, place), f"run.seed={arm.seed}"]
    start = [f"init.from={place.work / arm.start / 'run' / 'model'}"] if arm.start else []
    saving = [f"loop.save_minutes={(place.minutes or arm.minutes) / 8}", "loop.keep=16"]
    electra("pretrain", "modern-tiny", f"corpus.path={place.work / 'corpus'}", f"run.dir={run}", *settings, *start, *saving)
    return settings


def measure(arm: Arm, place: Place) -> dict[str, Any]:
    """One arm from its pre-training to its last probe."""
    work = place.work / arm.name
    if arm.group == "floors":
        return probes.floors(place.data, place.work / "train.txt", place.limit)
    run = work / "run"
    if arm.kind == "none":  # a run of one step, for its shape
        electra(
            "pretrain", "modern-tiny", f"corpus.path={place.work / 'corpus'}", f"run.dir={run}", *KINDS["mlm"], "stop.steps=1"
        )
        return {"settings": [], **probes.tuned(run / "model", place.work, work, arm.seed, fresh=True)}
    settings = pretrain(arm, place, run)
    recipe = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    result = {"settings": settings, "factor": arm.factor, "start": arm.start, **outcome(run), **probes.pace(run),
              "spans": recipe["resolved"]["spans"], "machine": recipe["resolved"]["machine"],
              "bf16": recipe["resolved"]["bf16"]}  # fmt: skip
    if arm.factor is None:
        result["factor"] = chosen_factor(place, arm.kind)
    result["blimp"] = probes.blimp(run / "model", place.data, place.limit)
    if arm.group == "sweep":
        return result | {"sst2_held_out": probes.held_out_rows(run / "model", place.work, work)}
    result |= probes.tuned(run / "model", place.work, work, arm.seed)
    if arm.group != "claim":
        return result
    return result | {"course": probes.course(run, place.work / "held-out", place.data, place.limit)}


def record(arm: Arm, place: Place) -> None:
    """Measure one arm and write its JSON, in this process."""
    began = time.perf_counter()
    result = measure(arm, place)
    date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    whole = {"arm": arm.name, "group": arm.group, "kind": arm.kind, "seed": arm.seed, "minutes": place.minutes or arm.minutes,
             "date": date, "threads": int(os.environ["OMP_NUM_THREADS"]), "cores": os.cpu_count(),
             "seconds_in_all": round(time.perf_counter() - began), **result}  # fmt: skip
    place.results.mkdir(parents=True, exist_ok=True)
    path = place.results / f"{arm.name}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
    shutil.rmtree(place.work / arm.name / "run" / "checkpoints", ignore_errors=True)  # a gigabyte, and no longer needed


def run_group(chosen: Sequence[Arm], place: Place, workers: int, given: Sequence[str]) -> bool:
    """Each arm in a process of one thread, `workers` at once; whether all were finished."""

    def run(arm: Arm) -> bool:
        if place.result(arm.name) is not None:
            return True
        command = [sys.executable, __file__, *given, "--one", arm.name]
        place.work.mkdir(parents=True, exist_ok=True)
        with (place.work / f"{arm.name}.log").open("a", encoding="utf-8") as log:
            code = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=log, check=False)
        print(f"{arm.name}: {'done' if code.returncode == 0 else f'failed, see {log.name}'}", flush=True)
        return code.returncode == 0

    with ThreadPoolExecutor(workers) as pool:
        return all(list(pool.map(run, chosen)))


def show(chosen: Sequence[Arm], place: Place, workers: int) -> None:
    """What is missing, and how long it would take."""
    missing = [arm for arm in chosen if place.result(arm.name) is None]
    for arm in missing:
        print(f"{arm.name:32} {arm.estimate:4.0f} min")
    total = sum(arm.estimate for arm in missing)
    print(f"{len(missing)} of {len(chosen)} arms are missing: about {total:.0f} minutes of one core")
    print(f"{total / workers:.0f} minutes with {workers} workers")


def main() -> None:
    every = list(arms())
    groups = list(dict.fromkeys(arm.group for arm in every))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--list", action="store_true", help="say what is missing and how long it takes, and do nothing")
    parser.add_argument("--workers", type=int, default=2, help="arms at once, each with one thread")
    parser.add_argument("--groups", nargs="*", default=groups, choices=groups)
    parser.add_argument("--arms", nargs="*", help="beginnings of names, such as claim-mlm; all if none are given")
    parser.add_argument("--minutes", type=float, help="of every run, for a trial; nothing is recorded")
    parser.add_argument("--limit", type=int, help="rows and pairs, for a trial; nothing is recorded")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the process of a single arm
    given = parser.parse_args()
    place = Place(data=given.data.resolve(), work=given.work.resolve(), minutes=given.minutes, limit=given.limit)
    if given.one:
        record(next(arm for arm in every if arm.name == given.one), place)
        return
    chosen = [arm for arm in every
              if arm.group in given.groups and (not given.arms or arm.name.startswith(tuple(given.arms)))]  # fmt: skip
    if given.list:
        show(chosen, place, given.workers)
        return
    place.work.mkdir(parents=True, exist_ok=True)
    prepare(place)
    trial = [f"--{name}={value}" for name in ("minutes", "limit") if (value := getattr(given, name)) is not None]
    words = [str(place.data), str(place.work), *trial]
    stages = [[arm for arm in chosen if (arm.group, arm.start is not None) == stage]
              for stage in dict.fromkeys((arm.group, arm.start is not None) for arm in every)]  # fmt: skip
    finished = [run_group(stage, place, given.workers, words) for stage in stages]
    sys.exit(0 if all(finished) else 1)


if __name__ == "__main__":
    main()
