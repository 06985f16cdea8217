"""Planted errors in held-out text, found and mended by task `correct`: precision and recall by kind of error.

    python benchmarks/correct.py NAME MODEL_DIR FILE LANGUAGE [--sentences 2000] [--seed 0] [--per-thousand 1]

FILE is text that the model was not trained on, LANGUAGE en or zh. Sentences are drawn from it by the seed and cut into two
halves. On the first one, as it is, the lowest suspicion is found at which it gets at most so many edits on 1,000 tokens
(`tasks.correct.tuned_suspicion`); everything that is reported comes from the second one: the edits of the text as it is, and, a
run for each kind of error, what becomes of one error a sentence. One JSON in benchmarks/results/correct/NAME.json.

Errors, each of them made of words that exist:

    word         one word becomes another one of the file, drawn by frequency; in Chinese a character
    inflection   a word becomes another form of it that the file has (`walk`, `walked`); in Chinese, which has none, a character
                 becomes one that it is confused with (的 地 得, 在 再 ...)
    order        two words side by side change places; in Chinese two characters

An error is found if an edit lies on it, and mended if its characters are what they were. Precision is the share of the edits
that lie on errors, or belong to mended ones; recall the share of the errors. A random word may fit as well as the old one, so
no recall of 1 is to be had.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from electra.contracts import Prediction
from electra.predict.predictor import load
from electra.tasks.correct import Correct
from electra.text.sentences import sentences
from electra.train import machine

RESULTS = Path(__file__).parent / "results" / "correct"
#: where a word of the language is looked for: of small letters, so that no name is planted; a Chinese character
WORD = {"en": re.compile(r"(?<![\w'-])[a-z]{2,}(?![\w'-])"), "zh": re.compile("[\u4e00-\u9fff]")}
#: characters of a sentence
LENGTH = {"en": (40, 250), "zh": (12, 100)}
IRREGULAR = ("is are", "was were", "has have", "does do", "this these", "that those")
CONFUSED = (
    "的 地 得",
    "在 再",
    "做 作",
    "他 她 它",
    "那 哪",
    "象 像",
    "己 已",
    "坐 座",
    "带 戴",
    "以 已",
    "记 纪",
    "代 带",
    "分 份",
    "到 道",
)


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A sentence with one error: characters `start` to `end` hold it, and held `old` before."""

    text: str
    start: int
    end: int
    old: str


@dataclass(frozen=True, kw_only=True)
class Language:
    """What errors are made of.

    Args:
        word: finds words.
        counts: of the words of the file.
        forms: other forms of each word that the file has.
    """

    word: re.Pattern[str]
    counts: Mapping[str, int]
    forms: Mapping[str, Sequence[str]]


def language_of(text: str, name: str) -> Language:
    """The words of `text` and their forms; what occurs once is left out, since it may be a slip of the text itself."""
    counts = {word: count for word, count in Counter(WORD[name].findall(text)).items() if count > 1}
    groups = [group.split() for group in (IRREGULAR if name == "en" else CONFUSED)]
    forms: dict[str, set[str]] = {}
    for word in counts:
        others = {other for group in groups if word in group for other in group}
        others |= _regular(word) if name == "en" else set()
        for other in others - {word}:
            if other in counts:  # both ways: of `try` the rules do not make `tries`
                forms.setdefault(word, set()).add(other)
                forms.setdefault(other, set()).add(word)
    return Language(word=WORD[name], counts=counts, forms={word: sorted(others) for word, others in forms.items()})


def _regular(word: str) -> set[str]:
    """What may be forms of an English word, whether they exist or not."""
    endings = ("", "s", "es", "d", "ed", "ing")
    stems = {word.removesuffix(ending) for ending in endings} | {f"{word.removesuffix('ing')}e", f"{word.removesuffix('ies')}y"}
    return {stem + ending for stem in stems if len(stem) > 2 for ending in endings}


def plant_word(text: str, language: Language, chance: random.Random) -> Planted | None:
    """One word becomes another one."""
    found = list(language.word.finditer(text))
    if not found:
        return None
    match = chance.choice(found)
    others = [word for word in language.counts if word != match[0]]
    (new,) = chance.choices(others, [language.counts[word] for word in others])
    return _with(text, match.start(), match.end(), new)


def plant_inflection(text: str, language: Language, chance: random.Random) -> Planted | None:
    """One word becomes another form of it; None if no word of the sentence has one."""
    found = [match for match in language.word.finditer(text) if match[0] in language.forms]
    if not found:
        return None
    match = chance.choice(found)
    return _with(text, match.start(), match.end(), chance.choice(language.forms[match[0]]))


def plant_order(text: str, language: Language, chance: random.Random) -> Planted | None:
    """Two words side by side change places; None if there are no such."""
    found = [
        (left, right)
        for left, right in pairwise(language.word.finditer(text))
        if not text[left.end() : right.start()].strip() and left[0] != right[0]
    ]
    if not found:
        return None
    left, right = chance.choice(found)
    return _with(text, left.start(), right.end(), right[0] + text[left.end() : right.start()] + left[0])


def _with(text: str, start: int, end: int, new: str) -> Planted:
    return Planted(text=text[:start] + new + text[end:], start=start, end=start + len(new), old=text[start:end])


KINDS: Mapping[str, Callable[[str, Language, random.Random], Planted | None]] = {
    "word": plant_word, "inflection": plant_inflection, "order": plant_order,
}  # fmt: skip


def drawn(text: str, name: str, count: int, chance: random.Random) -> list[str]:
    """Different sentences of `text`, in random order."""
    low, high = LENGTH[name]
    found = sorted({text[a:b] for a, b in sentences(text) if low <= b - a <= high and WORD[name].search(text[a:b])})
    return chance.sample(found, min(count, len(found)))


def counted(planted: Sequence[Planted], predictions: Sequence[Prediction]) -> dict[str, float]:
    """What became of the errors, as counts and shares; see the module."""
    edits = on_errors = found = of_mended = mended = 0
    for error, prediction in zip(planted, predictions, strict=True):
        output: Any = prediction.output
        on = [edit for edit in output["edits"] if edit["start"] < error.end and error.start < edit["end"]]
        now = error.text[error.start : error.end]
        for edit in reversed(on):
            now = now[: edit["start"] - error.start] + edit["new"] + now[edit["end"] - error.start :]
        edits, on_errors, found = edits + len(output["edits"]), on_errors + len(on), found + bool(on)
        if on and now == error.old:
            mended, of_mended = mended + 1, of_mended + len(on)
    return {
        "planted": len(planted), "edits": edits, "found": found, "mended": mended,
        "found_precision": on_errors / max(1, edits), "found_recall": found / max(1, len(planted)),
        "mended_precision": of_mended / max(1, edits), "mended_recall": mended / max(1, len(planted)),
    }  # fmt: skip


def per_thousand(predictions: Sequence[Prediction]) -> float:
    """Edits on 1,000 tokens."""
    outputs: list[Any] = [prediction.output for prediction in predictions]
    return 1000 * sum(len(one["edits"]) for one in outputs) / max(1, sum(one["token_count"] for one in outputs))


def measure(given: argparse.Namespace) -> dict[str, Any]:
    text = given.file.read_text(encoding="utf-8")
    language = language_of(text, given.language)
    chosen = drawn(text, given.language, given.sentences, random.Random(given.seed))
    for_tuning, for_report = chosen[: len(chosen) // 2], chosen[len(chosen) // 2 :]
    predictor = load(given.model, "correct")
    task = predictor.task
    assert isinstance(task, Correct)
    predictor.task = task.boldest()
    predictor.task = tuned = task.tuned(predictor.predict(for_tuning), given.per_thousand)
    clean = predictor.predict(for_report)
    kinds = {}
    for kind, plant in KINDS.items():
        chance = random.Random(f"{given.seed} {kind}")
        errors = [error for sentence in for_report if (error := plant(sentence, language, chance)) is not None]
        kinds[kind] = counted(errors, predictor.predict(error.text for error in errors))
    return {
        "name": given.name, "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(), "file": given.file.name,
        "language": given.language, "seed": given.seed, "sentences": [len(for_tuning), len(for_report)],
        "allowed_per_thousand": given.per_thousand, "suspicion": tuned.config.suspicion, "fall": tuned.config.fall,
        "clean_per_thousand": per_thousand(clean), "clean_tokens": sum(int(str(one.output["token_count"])) for one in clean),
        "kinds": kinds, "machine": machine.describe(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("model", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("language", choices=WORD)
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-thousand", type=float, default=1.0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    result = measure(given)
    given.results.mkdir(parents=True, exist_ok=True)
    path = given.results / f"{given.name}.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path}: suspicion {result['suspicion']:.4f}, {result['clean_per_thousand']:.2f} edits on 1,000 clean tokens")
    for kind, found in result["kinds"].items():
        shares = (
            f"{what} {found[f'{what}_recall']:.1%} (precision {found[f'{what}_precision']:.1%})" for what in ("found", "mended")
        )
        print(f"  {kind:10} {', '.join(shares)} of {found['planted']:,}")


if __name__ == "__main__":
    main()
