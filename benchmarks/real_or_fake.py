"""How well whole-text detectors know fakes of generators that they were not trained against, and TF-IDF beside them.

    python benchmarks/real_or_fake.py TEXT WORK_DIR [--arms NAME ...] [--minutes 8 | --steps 200] [--list]

TEXT is a file of documents divided by blank lines; every tenth one is kept for the test. Three masked language models are
trained: `seen`, `other-seed` (as the first, another seed) and `larger`. Detectors (`classic`, `modern`, `recurrent`) learn by
the recipe `real-or-fake-tiny` against the frozen `seen`; `tfidf` is logistic regression on words and pairs of words, learnt
from texts of the same kind. All are asked about held-out texts, real and tampered with by `seen`, by the other generators, and
by `seen` at other temperatures. One JSON per finished arm in benchmarks/results/real_or_fake/BUDGET; an arm that has one is
skipped, so the script can be stopped and run again. Every generator and every detector takes `--minutes` on one core. `--limit`
is for trying the script: it works in WORK_DIR/trial, and nothing is recorded.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "real_or_fake"
SEEDS = (0, 1, 2)
GENERATORS: dict[str, list[str]] = {
    "seen": ["run.seed=100"],
    "other-seed": ["run.seed=101"],
    "larger": ["run.seed=102", "encoder.hidden_size=192", "encoder.num_attention_heads=6", "encoder.intermediate_size=512"],
}
ENCODERS: dict[str, list[str]] = {
    "classic": ["encoder={type='classic', embedding_size=128, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, "
                "intermediate_size=512}"],
    "modern": [],
    "recurrent": ["encoder={type='recurrent', embedding_size=128, hidden_size=256, num_hidden_layers=1}", "generator.layers=1"],
}  # fmt: skip
#: generator and temperature of each test
TESTS = {
    "seen": ("seen", 1.0), "other seed": ("other-seed", 1.0), "larger": ("larger", 1.0),
    "seen, T=.7": ("seen", 0.7), "seen, T=1.3": ("seen", 1.3),
}  # fmt: skip
#: texts of each test, and of each of them so many that TF-IDF learns from
TEST_TEXTS, BASELINE_SHARE = 2000, 20
#: of the text, where `--limit` makes it a trial
_TRIAL_CHARACTERS = 2_000_000


def arms() -> list[str]:
    return ["tfidf", *(f"{encoder}-{seed}" for seed in SEEDS for encoder in ENCODERS)]


def electra(*words: object) -> None:
    """One verb of the command line."""
    subprocess.run([sys.executable, "-m", "electra", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def prepare(text: Path, work: Path, limit: int | None) -> None:
    """Texts, tokenizer, corpora; what is there is used."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "held.txt").is_file():
        whole = text.read_text(encoding="utf-8")[: None if limit is None else _TRIAL_CHARACTERS]
        documents = [part for part in whole.split("\n\n") if part.strip()]
        (work / "train.txt").write_text("\n\n".join(d for n, d in enumerate(documents) if n % 10), encoding="utf-8")
        (work / "held.txt").write_text("\n\n".join(documents[::10]), encoding="utf-8")
    if not (work / "tokenizer").is_dir():
        electra("tokenizer", "train", work / "train.txt", "--vocab-size", 8000, "--out", work / "tokenizer")
    for name in ("train", "held"):
        if not (work / name / "manifest.json").is_file():
            electra("corpus", "build", work / f"{name}.txt", "--tokenizer", work / "tokenizer", "--out", work / name)


def generator(name: str, work: Path, stop: list[str]) -> Path:
    """A masked language model by its name in `GENERATORS`."""
    run = work / f"generator-{name}"
    if not (run / "model").is_dir():
        electra("pretrain", "modern-demo", f"corpus.path={work / 'train'}", f"run.dir={run}", "phases.rtd.share=0", *stop,
                *GENERATORS[name])  # fmt: skip
    return run / "model"


def texts(model: Path, temperature: float, corpus: Path, count: int, seed: int) -> list[tuple[str, int]]:
    """(text, 1 where it is fake), by the generator in `model`, as the objective shows them."""
    import torch

    from electra.build.pretrain import PretrainRecipe, Setting
    from electra.config import load
    from electra.objectives.real_or_fake import RealOrFake
    from electra.train.loop import Span

    objective = "phases.detect.objective"
    settings = [f"corpus.path={corpus}", "run.dir=nowhere", f"run.seed={seed}", f"{objective}.frozen={model}",
                f"{objective}.temperature={temperature}"]  # fmt: skip
    recipe = load(PretrainRecipe, ["real-or-fake-tiny"], settings)
    training = Setting(recipe).training(Span(name="detect", first=0, steps=10**6), None, recipe.batch.rows, False, card=str)
    made = training.module
    assert isinstance(made, RealOrFake)
    tokenizer, found, step = made.provenance.tokenizer, list[tuple[str, int]](), 0
    with torch.no_grad():
        while len(found) < count:
            for batch, noise in training.loader.micro_batches(step, 0, 1):
                found += [(tokenizer.decode(shown.text.tokens), shown.label) for shown in made.texts(batch, noise)]
            step += 1
    return found[:count]


def tests(work: Path, stop: list[str], count: int) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """The held-out texts of each test, made once."""
    for number, (name, (by, temperature)) in enumerate(TESTS.items()):
        path = work / f"test-{number}.json"
        if not path.is_file():
            path.write_text(json.dumps(texts(generator(by, work, stop), temperature, work / "held", count, 7)))
        yield name, [(text, label) for text, label in json.loads(path.read_text())]


def baseline(work: Path, stop: list[str], count: int) -> dict[str, list[float]]:
    """Probabilities of `fake` by TF-IDF and logistic regression, for each test."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    learnt = texts(generator("seen", work, stop), 1.0, work / "train", BASELINE_SHARE * count, 3)
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True), LogisticRegression(max_iter=1000))
    model.fit([text for text, _ in learnt], [label for _, label in learnt])
    return {name: model.predict_proba([text for text, _ in given])[:, 1].tolist() for name, given in tests(work, stop, count)}


def detector(arm: str, work: Path, stop: list[str], count: int) -> dict[str, list[float]]:
    """Probabilities of `fake` by a detector, for each test."""
    from electra import load

    encoder, seed = arm.rsplit("-", 1)
    run = work / arm
    if not (run / "model").is_dir():
        electra("pretrain", "real-or-fake-tiny", f"corpus.path={work / 'train'}", f"run.dir={run}", f"run.seed={seed}", *stop,
                f"phases.detect.objective.frozen={generator('seen', work, stop)}", *ENCODERS[encoder])  # fmt: skip
    predictor, found = load(run / "model"), dict[str, list[float]]()
    for name, given in tests(work, stop, count):
        outputs = [prediction.output for prediction in predictor.predict([text for text, _ in given])]
        scores = [(float(str(output["score"])), output["label"]) for output in outputs]
        found[name] = [score if label == "fake" else 1 - score for score, label in scores]
    return found


def measure(arm: str, work: Path, stop: list[str], count: int) -> dict[str, Any]:
    """AUC on every test."""
    from sklearn.metrics import roc_auc_score

    from electra.train import machine

    generator("seen", work, stop)  # not in the time
    began = time.perf_counter()
    said = baseline(work, stop, count) if arm == "tfidf" else detector(arm, work, stop, count)
    gold = {name: [label for _, label in given] for name, given in tests(work, stop, count)}
    return {
        "auc": {name: round(float(roc_auc_score(gold[name], scores)), 4) for name, scores in said.items()},
        "seconds": round(time.perf_counter() - began), "stop": stop, "texts": count, "machine": machine.describe(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--arms", nargs="*", default=arms(), choices=arms())
    parser.add_argument("--list", action="store_true", help="say what is missing, and do nothing")
    parser.add_argument("--limit", type=int, help="texts of each test, for a trial; nothing is recorded")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=8.0)
    length.add_argument("--steps", type=int)
    given = parser.parse_args()
    budget = f"{given.minutes:g}min" if given.steps is None else f"{given.steps}steps"
    work = given.work.resolve() / ("trial" if given.limit is not None else "") / budget
    results = (RESULTS if given.limit is None else work / "results") / budget
    missing = [arm for arm in given.arms if not (results / f"{arm}.json").is_file()]
    if given.list:
        print("\n".join(missing))
        return
    stop = [f"stop.hours={given.minutes / 60}"] if given.steps is None else [f"stop.steps={given.steps}", "stop.hours=1000"]
    prepare(given.text, work, given.limit)
    results.mkdir(parents=True, exist_ok=True)
    for arm in missing:
        date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        result = {"arm": arm, "date": date, "cores": os.cpu_count(), **measure(arm, work, stop, given.limit or TEST_TEXTS)}
        (results / f"{arm}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{arm}: {result['auc']} in {result['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
