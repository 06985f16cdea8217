"""Does a critic help a writer? And does a model of poems keep the form? One JSON per arm.

    python benchmarks/writing.py DATA WORK_DIR [--arms NAME ...] [--list] [--tiny]

DATA has text/en_wiki.txt and text/zh_poetry.txt. Every twentieth document is kept: none of the models has seen it. In WORK_DIR
are trained, one after the other, what is there is used: `writer`, a causal model; `judge`, a larger causal model from another
seed, whose perplexity is the measure; `critic`, generator and discriminator; `real-fake`, the discriminator fine-tuned to
tell drafts of the writer from the text; `poet`, a causal model of poems.

English: the writer continues the first words of held-out articles with several samples; the arms choose one of them:

    en-reference   what the article says: no draft           en-first        the first draft, so one at random
    en-likelihood  the likeliest per token                   en-rtd          with the discriminator (`--rerank critic`)
    en-real-fake   with the classifier (`--rerank real-fake`)

The weight of a critic is tuned on other articles, by chrF against what the article says. Figures: perplexity of the
continuation under the judge; distinct-1 and distinct-2 (different words and pairs in all words); self-BLEU of each draft
against 50 others; chrF against the article; the share of drafts that repeat themselves.

    verse          the poet continues the first couplet of a held-out poem whose lines are equally long: the share of second
                   couplets of two lines of that length, and of those whose rhyme the poem's couplets would take

Two characters rhyme if they end couplets of the same poem of the training data three times or more, which needs no dictionary
and finds a part of the rhymes; so the same is counted in the real poems, and by chance: of couplets of different poems.

An arm that has a result in benchmarks/results/writing is skipped, so the script can be stopped and run again. --tiny runs
everything in minutes on little text, with results in WORK_DIR: does it work?
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import math
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from electra.models.decoding_config import DecodingConfig
from electra.predict.critic import Critic, load_critic, tune_weight
from electra.predict.predictor import load
from electra.predict.writer import Draft, Writer, load_writer
from electra.tasks.generate import loops

RESULTS = Path(__file__).parent / "results" / "writing"
ARMS = ("en-reference", "en-first", "en-likelihood", "en-rtd", "en-real-fake", "verse")
#: words of a prompt, and of what the article says behind it
PROMPT, REFERENCE = 24, 40
SAMPLING = {"do_sample": True, "temperature": 0.9, "top_p": 0.95}
_COUPLET = re.compile(r"([^，。？！；]+)[，？！；]([^，。？！；]+)[。？！]")
#: how often two characters end couplets of one poem before they count as a rhyme
_RHYMES = 3


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is done.

    Args:
        characters: of each text at most.
        vocabulary: of both tokenizers.
        hours: of training, by model.
        prompts: of test and of development, and those whose drafts the classifier learns from.
        samples: drafts of a prompt.
        judge: the judge's encoder.
        settings: of every pre-training.
    """

    characters: int = 60_000_000
    vocabulary: int = 8_000
    hours: tuple[tuple[str, float], ...] = (("writer", 0.3), ("judge", 0.6), ("critic", 0.4), ("poet", 0.3))
    prompts: tuple[int, int, int] = (300, 100, 2000)
    samples: int = 8
    judge: Sequence[str] = ("encoder.hidden_size=256", "encoder.num_attention_heads=8", "encoder.intermediate_size=704",
                            "encoder.num_hidden_layers=10")  # fmt: skip
    settings: Sequence[str] = ()


TINY = Sizes(
    characters=1_200_000, vocabulary=3000, hours=tuple((name, 0.004) for name in ("writer", "judge", "critic", "poet")),
    prompts=(6, 4, 12), samples=3, judge=("encoder.hidden_size=48",),
    settings=("encoder.hidden_size=36", "encoder.num_hidden_layers=2", "encoder.num_attention_heads=6",
              "encoder.intermediate_size=64", "generator.layers=1"),
)  # fmt: skip


def electra(*words: object) -> None:
    """One verb of the command line."""
    subprocess.run([sys.executable, "-m", "electra", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


# -- texts and models ---------------------------------------------------------------------------------------------------


def prepare(data: Path, work: Path, sizes: Sizes) -> None:
    """Texts, tokenizers, corpora: `en` and `zh`."""
    for name, source, document, kind in (("en", "en_wiki.txt", "block", "bpe"), ("zh", "zh_poetry.txt", "line", "wordpiece")):
        place = work / name
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "held.json").is_file():
            with (data / "text" / source).open(encoding="utf-8", errors="replace") as file:
                text = file.read(sizes.characters)
            between = "\n\n" if document == "block" else "\n"
            documents = [part for part in text.split(between) if part.strip()][:-1]  # the last may be cut
            (place / "train.txt").write_text(between.join(d for n, d in enumerate(documents) if n % 20), encoding="utf-8")
            (place / "held.json").write_text(json.dumps(documents[::20], ensure_ascii=False), encoding="utf-8")
        if not (place / "tokenizer").is_dir():
            electra("tokenizer", "train", place / "train.txt", "--kind", kind, "--vocab-size", sizes.vocabulary, "--document",
                    document, "--out", place / "tokenizer")  # fmt: skip
        if not (place / "corpus" / "manifest.json").is_file():
            electra("corpus", "build", place / "train.txt", "--document", document, "--tokenizer", place / "tokenizer", "--out",
                    place / "corpus")  # fmt: skip


def model(name: str, work: Path, sizes: Sizes) -> Path:
    """A model directory by its name in the module's docstring."""
    run = work / name
    if (run / "model").is_dir():
        return run / "model"
    if name == "real-fake":
        lines = [f"{label}\t{prompt} {' '.join(text.split())}\n" for prompt, reference, drafts in drafted("learn", work, sizes)
                 for label, text in (("real", reference), ("fake", drafts[0].text)) if text.strip()]  # fmt: skip
        random.Random(0).shuffle(lines)
        (work / "real-fake.tsv").write_text("label\ttext\n" + "".join(lines), encoding="utf-8")
        electra("finetune", "task=classify", f"init.from={model('critic', work, sizes)}", "epochs=3", f"run.dir={run}",
                f"data.train={work / 'real-fake.tsv'}")  # fmt: skip
        return run / "model"
    recipe = "modern-tiny" if name == "critic" else "causal-tiny"
    own = {"judge": ["run.seed=1", *sizes.judge]}.get(name, [])
    language = "zh" if name == "poet" else "en"
    electra("pretrain", recipe, f"corpus.path={work / language / 'corpus'}", f"run.dir={run}",
            f"stop.hours={dict(sizes.hours)[name]}", *sizes.settings, *own)  # fmt: skip
    return run / "model"


# -- English ------------------------------------------------------------------------------------------------------------


def drafted(part: str, work: Path, sizes: Sizes) -> list[tuple[str, str, list[Draft]]]:
    """(prompt, what the article says, drafts) of `test`, `dev` or `learn`; written once."""
    path = work / f"drafts-{part}.json"
    if not path.is_file():
        held = part != "learn"
        text = work / "en" / ("held.json" if held else "train.txt")
        whole = text.read_text(encoding="utf-8")
        articles = [article.split() for article in (json.loads(whole) if held else whole.split("\n\n"))]
        articles = [words for words in articles if len(words) >= PROMPT + REFERENCE]
        test, dev, learn = sizes.prompts
        others = [words for number, words in enumerate(articles) if number % 4]
        some = {"test": others[:test], "dev": articles[::4][:dev], "learn": articles[:learn]}[part]
        prompts = [" ".join(words[:PROMPT]) for words in some]
        references = [" ".join(words[PROMPT : PROMPT + REFERENCE]) for words in some]
        config = DecodingConfig(max_new_tokens=64, num_return_sequences=sizes.samples if held else 1, seed=1, **SAMPLING)  # type: ignore[arg-type]
        drafts = load_writer(model("writer", work, sizes)).write(prompts, config)
        rows = [[p, r, [asdict(one) for one in several]] for p, r, several in zip(prompts, references, drafts, strict=True)]
        path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return [(p, r, [Draft(**one) for one in several]) for p, r, several in json.loads(path.read_text(encoding="utf-8"))]


def chrf(text: str, reference: str) -> float:
    from sacrebleu import sentence_chrf

    return float(sentence_chrf(text, [reference]).score)


def perplexity(judge: Path, pairs: Sequence[tuple[str, str]]) -> float:
    """Of the continuations under the judge, each behind its prompt."""
    predictor, nats, tokens = load(judge, "score", settings={"method": "causal", "max_length": 256}), 0.0, 0
    for (prompt, _), found in zip(pairs, predictor.predict([prompt + text for prompt, text in pairs]), strict=True):
        said: Any = found.output["tokens"]
        scores = [one["score"] for one in said if one["end"] > len(prompt)]
        nats, tokens = nats - math.fsum(scores), tokens + len(scores)
    return math.exp(nats / max(1, tokens))


def figures(pairs: Sequence[tuple[str, str]], references: Sequence[str], writer: Writer, judge: Path) -> dict[str, float]:
    """What a set of (prompt, continuation) is like."""
    from sacrebleu import sentence_bleu

    texts = [text.strip() for _, text in pairs]
    words = [text.split() for text in texts]
    pieces = [list(itertools.pairwise(some)) for some in words]
    distinct = [len({one for some in kind for one in some}) / max(1, sum(map(len, kind))) for kind in (words, pieces)]
    others = [[texts[(n + k) % len(texts)] for k in range(1, min(51, len(texts)))] for n in range(len(texts))]
    bleu = [float(sentence_bleu(text, several).score) for text, several in zip(texts, others, strict=True)]
    agreement = [chrf(text, reference) for text, reference in zip(texts, references, strict=True)]
    repeated = [loops(writer.tokenizer.encode_literally(text).ids[1:-1]) for text in texts]
    return {
        "perplexity": perplexity(judge, pairs), "distinct_1": distinct[0], "distinct_2": distinct[1],
        "self_bleu": sum(bleu) / len(bleu), "chrf": sum(agreement) / len(agreement), "repeated": sum(repeated) / len(repeated),
        "words": sum(map(len, words)) / len(words),
    }  # fmt: skip


def english(arm: str, work: Path, sizes: Sizes) -> dict[str, Any]:
    """One arm: a draft of each prompt is chosen, and what was chosen is measured."""
    found = drafted("test", work, sizes)
    references, extra = [reference for _, reference, _ in found], dict[str, Any]()
    if arm == "en-reference":
        pairs = [(prompt, f" {reference}") for prompt, reference, _ in found]
    elif arm == "en-first":
        pairs = [(prompt, drafts[0].text) for prompt, _, drafts in found]
    elif arm == "en-likelihood":
        pairs = [(p, max(drafts, key=lambda one: one.log_probability / max(1, one.tokens)).text) for p, _, drafts in found]
    else:
        critic = load_critic(model({"en-rtd": "critic", "en-real-fake": "real-fake"}[arm], work, sizes))
        weight = tuned(critic, drafted("dev", work, sizes))
        pairs = [(prompt, critic.rerank(drafts, weight)[0].text) for prompt, _, drafts in found]
        extra = {"weight": weight}
    told = figures(pairs, references, load_writer(model("writer", work, sizes)), model("judge", work, sizes))
    return {**extra, "texts": len(pairs), "figures": told, "samples": [list(pair) for pair in pairs[:3]]}


def tuned(critic: Critic, dev: Sequence[tuple[str, str, list[Draft]]]) -> float:
    judged = [critic.rerank(drafts) for _, _, drafts in dev]
    return tune_weight(judged, [reference for _, reference, _ in dev], chrf)


# -- verse --------------------------------------------------------------------------------------------------------------


def couplets(poem: str) -> list[tuple[str, str]]:
    """The couplets of a poem whose lines are equally long, 5 or 7 characters; none of another."""
    found = [(first, second) for first, second in _COUPLET.findall(poem)]
    lengths = {len(line) for couplet in found for line in couplet}
    return found if len(found) > 1 and lengths in ({5}, {7}) else []


def rhymes(poems: Sequence[str]) -> Callable[[str, str], bool]:
    """Whether two characters end couplets of one poem often enough."""
    together = Counter(
        frozenset(pair)
        for poem in poems
        for pair in itertools.combinations({second[-1] for _, second in couplets(poem)}, 2)
    )  # fmt: skip
    return lambda one, other: together[frozenset((one, other))] >= _RHYMES


def verse(work: Path, sizes: Sizes) -> dict[str, Any]:
    """Second couplets by the poet, by the poems themselves, and by chance."""
    place = work / "zh"
    rhyme = rhymes((place / "train.txt").read_text(encoding="utf-8").splitlines())
    held = [found for poem in json.loads((place / "held.json").read_text(encoding="utf-8")) if (found := couplets(poem))]
    held = held[: sizes.prompts[0]]
    prompts = [f"{first}，{second}。" for (first, second), *_ in held]
    writer = load_writer(model("poet", work, sizes))
    shares = dict[str, dict[str, float]]()
    samples = list[str]()
    for way, settings in (("greedy", {}), ("sampled", SAMPLING)):
        config = DecodingConfig(max_new_tokens=20, **settings)  # type: ignore[arg-type]
        drafts = [one.text for [one] in writer.write(prompts, config)]
        kept = right = 0
        for (first, second), draft in zip([couplet for couplet, *_ in held], drafts, strict=True):
            next_one = _COUPLET.match(draft.strip())
            kept += next_one is not None and {len(line) for line in next_one.groups()} == {len(first)}
            right += next_one is not None and next_one[2][-1] != second[-1] and rhyme(next_one[2][-1], second[-1])
        shares[way] = {"length": kept / len(held), "rhyme": right / len(held)}
        samples += [prompt + draft for prompt, draft in zip(prompts[:3], drafts, strict=False)]
    ends = [(poem[0][1][-1], poem[1][1][-1]) for poem in held]
    shares["the poems"] = {"length": 1.0, "rhyme": sum(a != b and rhyme(a, b) for a, b in ends) / len(ends)}
    moved = [(a, ends[(n + 1) % len(ends)][1]) for n, (a, _) in enumerate(ends)]
    shares["chance"] = {"rhyme": sum(a != b and rhyme(a, b) for a, b in moved) / len(moved)}
    return {"texts": len(held), "shares": shares, "samples": samples}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--arms", nargs="*", help="beginnings of names; all if none are given")
    parser.add_argument("--list", action="store_true", help="say what is missing, and do nothing")
    parser.add_argument("--tiny", action="store_true", help="little text, results in WORK_DIR")
    given = parser.parse_args()
    data, work = given.data.resolve(), given.work.resolve()
    results, sizes = (work / "results", TINY) if given.tiny else (RESULTS, Sizes())
    chosen = [arm for arm in ARMS if not given.arms or arm.startswith(tuple(given.arms))]
    missing = [arm for arm in chosen if not (results / f"{arm}.json").is_file()]
    if given.list:
        print("\n".join(missing))
        return
    results.mkdir(parents=True, exist_ok=True)
    prepare(data, work, sizes)
    for arm in missing:
        began = time.perf_counter()
        result = verse(work, sizes) if arm == "verse" else english(arm, work, sizes)
        date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        whole = {"arm": arm, "date": date, "cores": os.cpu_count(), "hours": dict(sizes.hours),
                 "seconds": round(time.perf_counter() - began), **result}  # fmt: skip
        (results / f"{arm}.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{arm}: {json.dumps(result.get('figures') or result['shares'])}", flush=True)


if __name__ == "__main__":
    main()
