"""Minimal pairs: does a model find the good sentence better than the bad one? (BLiMP, Warstadt et al., TACL 2020.)

In: a folder of JSON lines files, each a set of pairs (`sentence_good`, `sentence_bad`, `linguistics_term`, `UID`), and what
scores a sentence: a model, or the frequencies of a text (ngram.py). Out: accuracies by set, by phenomenon and over all, with
intervals.

A pair counts only if the good sentence is strictly better. A tie is wrong, and counted: two scores that agree to a millionth
are equal, since fp32 cannot tell them apart. In some sets both sentences of a pair consist of the same words in another order;
word frequency ties on all of these, and the sum over a bidirectional model's tokens says less there than elsewhere, so
figures are given with and without them. Such sets are found in the data. Intervals are the 2.5th and 97.5th percentile over
resampled pairs, resampled within each set, since the sets are what BLiMP is made of.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from electra.config import STRICT
from electra.errors import ElectraError
from electra.evaluate.ngram import log_probabilities
from electra.models.model_dir import ModelDir, load_model_dir
from electra.predict.predictor import predictor_of
from electra.tasks.score import METHODS, MethodName, Reduction, ScoreConfig

#: scores that differ by less than this share of their size are equal
TOLERANCE = 1e-6
#: share of a set's pairs that are permutations, from which on the set is one of permutations
_NEARLY_ALL = 0.95
_WORD = re.compile(r"\w+|[^\w\s]")
Outcome = npt.NDArray[np.int8]


@dataclass(frozen=True, kw_only=True)
class BlimpConfig:
    """Settings of `suite=blimp`.

    Args:
        data: a folder of .jsonl files, a set each.
        scorer: what scores a sentence: a method of the task `score`; None = `rtd` of a model with a discriminator, `electric`
            of one with energies, else `pll`; without a model, `unigram` or `ngram` of `text`.
        reduce: what makes a score of a sentence from those of its tokens, where a model scores them.
        text: what `unigram` and `ngram` are counted in.
        order: n of `ngram`, 2 to 5.
        limit: pairs of a set that are looked at, the first ones; None = all.
        resamples: sets of pairs behind an interval; 0 = no intervals.
    """

    __pydantic_config__ = STRICT
    data: Path
    scorer: MethodName | Literal["unigram", "ngram"] | None = None
    reduce: Reduction = "sum"
    text: Path | None = None
    order: int = 3
    limit: int | None = None
    resamples: int = 200

    def __post_init__(self) -> None:
        if (self.text is not None) != self.counts_words:
            if self.counts_words:
                raise ElectraError(
                    "E-C581", "text", f"scorer={self.scorer} counts in a text, and none was given", "add text=FILE"
                )
            raise ElectraError("E-C581", "text", "only scorer=unigram and scorer=ngram count in a text",
                               "leave it out, or give one of these scorers")  # fmt: skip
        if self.counts_words and self.reduce != "sum":
            raise ElectraError("E-C581", "reduce", f"scorer={self.scorer} adds up words", "leave it out")
        if not 2 <= self.order <= 5 or (self.limit is not None and self.limit < 1) or self.resamples < 0:
            raise ElectraError("E-C581", "suite=blimp", f"order {self.order}, limit {self.limit}, resamples {self.resamples}",
                               "order is 2 to 5, limit at least 1, resamples at least 0")  # fmt: skip

    @property
    def counts_words(self) -> bool:
        """No model is asked."""
        return self.scorer in ("unigram", "ngram")


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """One file.

    Args:
        pairs: those that are looked at, (good, bad).
        is_permutation: nearly all pairs of the file are one sentence and its words in another order.
    """

    name: str
    phenomenon: str
    pairs: tuple[tuple[str, str], ...]
    is_permutation: bool


def evaluate_blimp(model: Path | None, config: BlimpConfig) -> dict[str, Any]:
    """JSON-ready: `scorer`, `pairs`, `ties`; under `all` and `without_permutations` the sets' mean `accuracy`, its `interval`,
    `pairs` and `ties`; `phenomena` and `sets` by name, with the same and, of sets, `phenomenon` and `permutation`.

    Args:
        model: None for a scorer that counts words.

    Raises:
        ElectraError: E-C581 a model and a scorer that do not go together; as `read_pairs`, `load_model_dir`, `predictor_of`
            and `log_probabilities`.
    """
    if (model is None) != config.counts_words:
        if config.counts_words:
            raise ElectraError("E-C581", str(model), f"scorer={config.scorer} counts words and asks no model", "leave it out")
        raise ElectraError("E-C581", "suite=blimp", f"scorer={config.scorer or 'rtd'} needs a model",
                           "give a model, or scorer=ngram text=FILE")  # fmt: skip
    sets = read_pairs(config.data, config.limit)
    texts = [text for each in sets for pair in each.pairs for text in pair]
    name, scores = _scores(model, texts, config)
    pairs = np.array(scores).reshape(-1, 2)
    ends = np.cumsum([len(each.pairs) for each in sets])[:-1]
    outcomes = {each.name: compared(part) for each, part in zip(sets, np.split(pairs, ends), strict=True)}
    return {"suite": "blimp", "scorer": name, **summary(sets, outcomes, config.resamples)}


def read_pairs(folder: Path, limit: int | None = None) -> list[PairSet]:
    """The sets in `folder`, by name; `limit` pairs of each at most.

    Raises:
        ElectraError: E-D583 no .jsonl file there, or a line that is no pair.
    """
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise ElectraError("E-D583", str(folder), "no .jsonl file there", "give the folder that holds BLiMP's sets")
    found = []
    for file in files:
        rows = list[dict[str, Any]]()
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                row = json.loads(line)
                rows.append({key: str(row[key]) for key in ("sentence_good", "sentence_bad", "linguistics_term", "UID")})
            except (ValueError, KeyError, TypeError) as error:
                raise ElectraError("E-D583", f"{file}:{number}", f"no pair of sentences: {type(error).__name__} {error}",
                                   "give sentence_good, sentence_bad, linguistics_term and UID") from None  # fmt: skip
        if not rows:
            raise ElectraError("E-D583", f"{file}:1", "an empty file", "remove it, or bring its pairs")
        pairs = [(row["sentence_good"], row["sentence_bad"]) for row in rows]
        same = [sorted(_WORD.findall(good.lower())) == sorted(_WORD.findall(bad.lower())) for good, bad in pairs]
        found.append(PairSet(name=file.stem, phenomenon=rows[0]["linguistics_term"], pairs=tuple(pairs[:limit]),
                             is_permutation=sum(same) >= _NEARLY_ALL * len(same)))  # fmt: skip
    return found


def compared(scores: npt.NDArray[np.float64]) -> Outcome:
    """int8 [pairs]: 1 good is strictly better, 0 a tie, -1 bad is better.

    Args:
        scores: float [pairs, 2], of the good and of the bad sentence.
    """
    difference = scores[:, 0] - scores[:, 1]
    tie = ~(np.abs(difference) > TOLERANCE * np.abs(scores).max(1))  # not a number is no better than anything
    found: Outcome = np.where(tie, 0, np.sign(np.nan_to_num(difference))).astype(np.int8)
    return found


def summary(sets: Sequence[PairSet], outcomes: dict[str, Outcome], resamples: int) -> dict[str, Any]:
    """What `evaluate_blimp` says of the outcomes of each set by name."""
    permutations = {each.name for each in sets if each.is_permutation}

    def told(names: Sequence[str]) -> dict[str, Any]:
        parts = [outcomes[name] for name in names]
        if not parts:
            return {}
        found = {"accuracy": _mean([part == 1 for part in parts]), "sets": len(parts), "pairs": sum(map(len, parts)),
                 "ties": int(sum((part == 0).sum() for part in parts))}  # fmt: skip
        return found | ({"interval": _interval(parts, resamples)} if resamples else {})

    names = [each.name for each in sets]
    phenomena = sorted({each.phenomenon for each in sets})
    return {
        "all": told(names),
        "without_permutations": told([name for name in names if name not in permutations]),
        "phenomena": {phenomenon: told([each.name for each in sets if each.phenomenon == phenomenon])
                      for phenomenon in phenomena},
        "sets": {each.name: {"phenomenon": each.phenomenon, "permutation": each.name in permutations, **told([each.name])}
                 for each in sets},
    }  # fmt: skip


def _scores(model: Path | None, texts: Sequence[str], config: BlimpConfig) -> tuple[str, list[float]]:
    """The scorer's name and the score of each text."""
    if model is None:
        assert config.text is not None
        order = 1 if config.scorer == "unigram" else config.order
        return f"{order}-gram of {config.text.name}", log_probabilities(config.text, texts, order)
    loaded, scorer = load_model_dir(model), config.scorer
    if scorer is None:
        scorer = _own_scorer(loaded)
    assert scorer != "unigram", "it needs no model"
    assert scorer != "ngram", "it needs no model"
    name = scorer if config.reduce == "sum" else f"{scorer}-{config.reduce}"
    return name, text_scores(loaded, texts, scorer, config.reduce)


def _own_scorer(model: ModelDir) -> MethodName:
    """The method of the head that a model has."""
    if model.causal_head is not None:
        return "causal"
    return "rtd" if model.rtd_head is not None else "electric" if model.energy_head is not None else "pll"


def text_scores(model: ModelDir, texts: Sequence[str], method: MethodName, reduce: Reduction = "sum") -> list[float]:
    """The score of each text by the task `score`, in order; texts longer than the network's positions are read in windows.

    It depends on the text alone, so that equal texts tie: those of the same tokens are scored once, and rows that go through
    the network together have the same length, so there is no padding.

    Raises:
        ElectraError: as `predictor_of`.
    """
    longest = model.encoder.config.max_position_embeddings
    predictor = predictor_of(model, ScoreConfig(method=method, reduce=reduce, max_length=longest))
    tokenizer = model.tokenizer()
    # what belongs to a word is seen in the text, not in its tokens
    by_words = METHODS[method].masks == "word-l2r"
    keys = [(tuple(tokenizer.encode_literally(text).ids), text if by_words else "") for text in texts]
    different = dict(zip(keys, texts, strict=True))
    found = dict[tuple[tuple[int, ...], str], float]()
    for _, alike in itertools.groupby(sorted(different, key=lambda key: (len(key[0]), key)), key=lambda key: len(key[0])):
        some = list(alike)
        scored = predictor.predict(different[key] for key in some)
        found |= {key: float(str(each.output["score"])) for key, each in zip(some, scored, strict=True)}
    return [found[key] for key in keys]


def _mean(parts: Sequence[npt.NDArray[np.bool_]]) -> float:
    """The mean over sets of the share of right pairs."""
    return float(np.mean([part.mean() for part in parts]))


def _interval(parts: Sequence[Outcome], resamples: int) -> list[float]:
    random = np.random.default_rng(0)
    right = [part == 1 for part in parts]
    means = [_mean([part[random.integers(0, len(part), len(part))] for part in right]) for _ in range(resamples)]
    return [float(bound) for bound in np.percentile(means, (2.5, 97.5))]
