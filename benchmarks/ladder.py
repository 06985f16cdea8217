"""Replaced token detection against masked language modelling at minutes of one CPU core: recorded arms on one text.

    python benchmarks/ladder.py DATA WORK_DIR [--minutes 30] [--list] [--workers 2] [--groups sweep claim ...] [--arms NAME ...]

The claim: 30 minutes, three seeds, of `mlm` (masked language modelling), `rtd` (replaced token detection from scratch) and
`mlm-rtd` (60 % of the time the one, then the other), each at the best of three rates, found by 5-minute runs of the group
`sweep` on rows of SST-2's training file that nothing else looks at. All start from recipe modern-tiny, one tokenizer of 8,000
entries, DATA/text/en_wiki.txt without its last hundredth, which is held out, and one thread; `--workers` arms run at once,
each on a core. The sweep's runs say how long a step takes, and the claim's steps follow from it, so all seeds of an arm take
the same steps. `tokens` is `mlm` once more, stopped after as many tokens as `rtd` saw. Rates decay to 0 in every run. The
arms of `exploratory` have one seed and support no claim: ten minutes each, all from one model of ten minutes of MLM, or, where
the whole run differs, both phases from scratch. `--minutes` are those of an arm of the claim; a sweep's run always has a sixth
of them and an exploratory arm a third, and every budget has results of its own.

Probes: BLiMP (DATA/blimp), and fine-tuning on SST-2's first 10,000 rows, CoLA and TREC, with one seed and the same settings for
all. Along the claim's way six checkpoints are scored on BLiMP and on held-out text. One JSON per finished arm in
benchmarks/results/ladder/MINUTESmin; an arm that has one is skipped, an interrupted one resumes. `--limit` is for trying the
script: it works in WORK_DIR/trial, and nothing is recorded.
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
MINUTES = 30.0
#: of the minutes of a claim's arm
SWEEP_SHARE, EXPLORATORY_SHARE = 1 / 6, 1 / 3

#: along the way of a run
CHECKPOINTS = 6
#: minutes of the probes of an arm, on a core of a Xeon with AMX
PROBING = {"floors": 2, "sweep": 2.5, "claim": 5, "tokens": 4, "exploratory": 3}
#: of the text, where `--limit` makes it a trial
_TRIAL_BYTES = 4_000_000
_RTD = "phases.rtd.objective."
_TWO = ["phases.rtd.optimizer.clip_per_network=true", f"{_RTD}weight=1"]
_DRAWN = "masking={rate=0.15, mask_token_rate=1.0}"
_CLASSIC = ["encoder.type=classic", "encoder.embedding_size=192", "encoder.hidden_size=192", "encoder.num_hidden_layers=8",
            "encoder.num_attention_heads=6", "encoder.intermediate_size=768", "encoder.hidden_dropout_prob=0.0",
            "encoder.attention_probs_dropout_prob=0.0"]  # fmt: skip
#: exploratory arms that go on from the model of `exploratory-start`; the adversarial ones and `frozen` (Fast-ELECTRA, whose
#: generator is that model) stand beside `gdes-two`, which trains its generator by maximum likelihood
FROM_START: dict[str, list[str]] = {
    "gdes-one": [f"{_RTD}tying=gdes"],
    "gdes-two": [f"{_RTD}tying=gdes", *_TWO],
    "embeddings-one": [f"{_RTD}tying=embeddings"],
    "embeddings-two": [f"{_RTD}tying=embeddings", *_TWO],
    "none-one": [f"{_RTD}tying=none"],
    "none-two": [f"{_RTD}tying=none", *_TWO],
    "bottom-layers-2": [f"{_RTD}tying=bottom-layers", f"{_RTD}shared_layers=2"],
    "frozen": [f"phases.rtd.objective={{type='frozen-generator', {_DRAWN}}}"],
    "adversarial": [f"phases.rtd.objective={{type='adversarial', weight=1, {_DRAWN}}}", _TWO[0]],
    "adversarial-mle": [f"phases.rtd.objective={{type='adversarial', mle_weight=1, weight=1, {_DRAWN}}}", _TWO[0]],
    "electric": ["phases.rtd.objective={type='electric', masking={rate=0.15}}"],
}
#: exploratory arms that are whole runs of both phases
WHOLE: dict[str, list[str]] = {
    "modern": [],
    "classic": _CLASSIC,
    "muon": [f"phases.{phase}.optimizer={{type='muon', betas=[0.9, 0.98], weight_decay=0.01}}" for phase in RATES],
}


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
        probing = PROBING[self.group] if self.group != "claim" or self.minutes else PROBING["exploratory"]
        return (0.7 if self.group == "tokens" else 1.0) * self.minutes + probing


def arms(minutes: float = MINUTES) -> Iterator[Arm]:
    """Every arm, where one of the claim has so many minutes."""
    sweep, exploratory = SWEEP_SHARE * minutes, EXPLORATORY_SHARE * minutes
    yield Arm(group="floors", kind="words")
    for kind, settings in KINDS.items():
        for factor in FACTORS:
            yield Arm(group="sweep", kind=kind, settings=tuple(settings), minutes=sweep, factor=factor)
    for seed in SEEDS:
        for kind, settings in KINDS.items():
            yield Arm(group="claim", kind=kind, settings=tuple(settings), minutes=minutes, seed=seed, factor=None)
        yield Arm(group="claim", kind="none", seed=seed)
    for seed in SEEDS:
        yield Arm(group="tokens", kind="mlm", settings=tuple(KINDS["mlm"]), minutes=minutes, seed=seed, factor=None)
    yield Arm(group="exploratory", kind="start", settings=tuple(KINDS["mlm"]), minutes=exploratory)
    for kind, settings in FROM_START.items():
        own = ("phases.mlm.share=0", *settings)
        yield Arm(group="exploratory", kind=kind, settings=own, minutes=exploratory, start="exploratory-start")
    for kind, settings in WHOLE.items():
        yield Arm(group="exploratory", kind=kind, settings=tuple(settings), minutes=exploratory)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where things are, and how much of them is used.

    Args:
        work: of this budget's runs; what all budgets share lies beside it.
        minutes: of an arm of the claim.
        limit: rows of a file and pairs of a set, for a trial; None = all.
    """

    data: Path
    work: Path
    minutes: float = MINUTES
    limit: int | None = None

    @classmethod
    def of(cls, given: argparse.Namespace) -> Place:
        work = given.work.resolve() / ("trial" if given.limit is not None else "")
        return cls(data=given.data.resolve(), work=work, minutes=given.minutes, limit=given.limit)

    @property
    def runs(self) -> Path:
        return self.work / f"{self.minutes:g}min"

    @property
    def results(self) -> Path:
        return (RESULTS if self.limit is None else self.work / "results") / f"{self.minutes:g}min"

    def result(self, name: str) -> dict[str, Any] | None:
        path = self.results / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def parted(text: bytes) -> tuple[bytes, bytes]:
    """The documents of a text, divided by blank lines, and those of its last hundredth."""
    cut = text.index(b"\n\n", len(text) * 99 // 100) + 2
    return text[:cut], text[cut:]


def prepare(place: Place) -> None:
    """The text in two parts, tokenizer, both corpora, and the files of the fine-tuning probes; what is there is used."""
    train, held = place.work / "train.txt", place.work / "held-out.txt"
    if not held.is_file():
        text = (place.data / "text" / "en_wiki.txt").read_bytes()
        before, after = parted(text if place.limit is None else text[:_TRIAL_BYTES])
        train.write_bytes(before)
        held.write_bytes(after)
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
    if arm.group == "tokens":
        peers = [place.result(f"claim-rtd-s{seed}") for seed in SEEDS]
        if None in peers:
            sys.exit("run claim-rtd first: `tokens` takes as many steps as it did")
        return ["stop.hours=1000", f"stop.steps={peers[0]['steps']}"]  # type: ignore[index]
    if arm.group == "claim":
        steps = steps_for(place, arm.kind, arm.minutes)
        shares = [f"phases.{name}.share={count}" for name, count in steps.items()]
        return ["stop.hours=1000", f"stop.steps={sum(steps.values())}", *shares]
    return [f"stop.hours={arm.minutes / 60}"]


def pretrain(arm: Arm, place: Place, run: Path) -> list[str]:
    """Run or resume the pre-training; its settings."""
    factor = chosen_factor(place, arm.kind) if arm.factor is None else arm.factor
    rates = [f"phases.{name}.optimizer.lr={rate * factor:g}" for name, rate in RATES.items()]
    settings = [*arm.settings, *rates, *length(arm, place), f"run.seed={arm.seed}"]
    start = [f"init.from={place.runs / arm.start / 'run' / 'model'}"] if arm.start else []
    saving = [f"loop.save_minutes={arm.minutes / CHECKPOINTS}", "loop.keep=16"]
    electra("pretrain", "modern-tiny", f"corpus.path={place.work / 'corpus'}", f"run.dir={run}", *settings, *start, *saving)
    return settings


def measure(arm: Arm, place: Place) -> dict[str, Any]:
    """One arm from its pre-training to its last probe."""
    work = place.runs / arm.name
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
    if arm.group == "sweep":
        result["blimp"] = probes.blimp(run / "model", place.data, place.limit, probes.PAIRS_COURSE)
        return result | {"sst2_held_out": probes.held_out_rows(run / "model", place.work, work)}
    twice = arm.group == "claim" or arm.kind == "start"
    result["blimp"] = probes.blimp(run / "model", place.data, place.limit, twice=twice)
    result |= probes.tuned(run / "model", place.work, work, arm.seed)
    if arm.group != "claim":
        return result
    return result | {"course": probes.course(run, place.work / "held-out", place.data, place.limit)}


def record(arm: Arm, place: Place) -> None:
    """Measure one arm and write its JSON, in this process."""
    began = time.perf_counter()
    result = measure(arm, place)
    date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    whole = {"arm": arm.name, "group": arm.group, "kind": arm.kind, "seed": arm.seed, "minutes": arm.minutes,
             "date": date, "threads": int(os.environ["OMP_NUM_THREADS"]), "cores": os.cpu_count(),
             "seconds_in_all": round(time.perf_counter() - began), **result}  # fmt: skip
    place.results.mkdir(parents=True, exist_ok=True)
    path = place.results / f"{arm.name}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
    shutil.rmtree(place.runs / arm.name / "run" / "checkpoints", ignore_errors=True)  # a gigabyte, and no longer needed


def run_group(chosen: Sequence[Arm], place: Place, workers: int, given: Sequence[str]) -> bool:
    """Each arm in a process of one thread, `workers` at once; whether all were finished."""

    def run(arm: Arm) -> bool:
        if place.result(arm.name) is not None:
            return True
        command = [sys.executable, __file__, *given, "--one", arm.name]
        place.runs.mkdir(parents=True, exist_ok=True)
        with (place.runs / f"{arm.name}.log").open("a", encoding="utf-8") as log:
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
    groups = list(dict.fromkeys(arm.group for arm in arms()))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--list", action="store_true", help="say what is missing and how long it takes, and do nothing")
    parser.add_argument("--workers", type=int, default=2, help="arms at once, each with one thread")
    parser.add_argument("--groups", nargs="*", default=groups, choices=groups)
    parser.add_argument("--arms", nargs="*", help="beginnings of names, such as claim-mlm; all if none are given")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of an arm of the claim")
    parser.add_argument("--limit", type=int, help="rows and pairs, for a trial; nothing is recorded")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the process of a single arm
    given = parser.parse_args()
    place, every = Place.of(given), list(arms(given.minutes))
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
    trial = [f"--limit={place.limit}"] if place.limit is not None else []
    words = [str(given.data.resolve()), str(given.work.resolve()), f"--minutes={place.minutes}", *trial]
    stages = [[arm for arm in chosen if (arm.group, arm.start is not None) == stage]
              for stage in dict.fromkeys((arm.group, arm.start is not None) for arm in every)]  # fmt: skip
    finished = [run_group(stage, place, given.workers, words) for stage in stages]
    sys.exit(0 if all(finished) else 1)


if __name__ == "__main__":
    main()
