"""How much a text has in common with a reference: BLEU and chrF as sacrebleu counts them, ROUGE as rouge-score does.

A score of a set of texts is not the mean of their scores: BLEU and chrF divide sums. So what is kept of a text are the counts
(`counts`), and a score is made of their sums (`scores`). ROUGE-1, -2 and -L are means of F1, as is usual.

`words` are those of sacrebleu's tokenizer `13a` and of rouge-score. `characters`, for languages without spaces: its `zh`,
which divides Chinese into characters; and for ROUGE characters of such scripts and words of others (`answers.characters`).

Post, 2018 (sacrebleu); Popovic, 2015 (chrF); Lin, 2004 (ROUGE). Both packages are the extra `text`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from operator import itemgetter
from typing import Any

import numpy as np

from electra.errors import ElectraError
from electra.tasks.answers import Pieces, characters

_PACKAGES = {"sacrebleu": "sacrebleu", "rouge_score": "rouge-score"}
#: what is kept of a text; names with a slash are counts, of which only sums mean something
_BLEU = tuple(f"bleu/{name}" for name in ("length", "reference", *(f"right{n}" for n in range(1, 5)),
                                          *(f"ngrams{n}" for n in range(1, 5))))  # fmt: skip
_CHRF = tuple(f"chrf/{name}{n}" for n in range(1, 7) for name in ("ngrams", "reference", "right"))
_ROUGE = ("rouge1", "rouge2", "rougeL")


def require_packages() -> None:
    """Raises ElectraError E-R610 where the extra `text` is not installed."""
    missing = [package for module, package in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ElectraError("E-R610", "task=generate", f"BLEU, chrF and ROUGE need {' and '.join(missing)}",
                           "pip install 'electra-toolkit[text]'")  # fmt: skip


class Overlap:
    """Counts and scores; the packages are imported when it is first asked.

    Args:
        unit: what is compared.
        lowercase: capital letters are small ones.
    """

    def __init__(self, unit: Pieces, lowercase: bool) -> None:
        self.unit, self.lowercase = unit, lowercase

    def counts(self, output: str, reference: str) -> dict[str, float]:
        """Of one text: counts of BLEU and chrF (`bleu/...`, `chrf/...`), and `rouge1`, `rouge2`, `rougeL`."""
        if self.lowercase:
            output, reference = output.lower(), reference.lower()
        found = self._rouge.score(reference, output)
        return {
            **dict(zip(_BLEU, _of(self._bleu, output, reference), strict=True)),
            **dict(zip(_CHRF, _of(self._chrf, output, reference), strict=True)),
            **{name: float(found[name].fmeasure) for name in _ROUGE},
        }

    def scores(self, counts: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Of all texts: `bleu` and `chrf` in [0, 100], `rouge1`, `rouge2`, `rougeL` in [0, 1]; and `length_ratio`, tokens of
        outputs to those of the references, as BLEU counts them."""
        bleu = self._summed(counts, _BLEU)
        rouge = np.array([itemgetter(*_ROUGE)(one) for one in counts]).mean(axis=0).tolist()
        return {
            "bleu": _score(self._bleu, bleu),
            "chrf": _score(self._chrf, self._summed(counts, _CHRF)),
            **dict(zip(_ROUGE, rouge, strict=True)),
            "length_ratio": bleu[0] / max(1, bleu[1]),
        }

    def of_one(self, counts: Mapping[str, float], metric: str) -> float:
        """A score of a single text in [0, 1]; BLEU then counts the n-grams that it is long enough for."""
        if metric in _ROUGE:
            return counts[metric]
        kind, names = (self._sentence_bleu, _BLEU) if metric == "bleu" else (self._chrf, _CHRF)
        return _score(kind, [int(counts[name]) for name in names]) / 100

    @staticmethod
    def _summed(counts: Sequence[Mapping[str, float]], names: Sequence[str]) -> list[int]:
        take = itemgetter(*names)
        sums: list[int] = np.array([take(one) for one in counts]).sum(axis=0).astype(int).tolist()
        return sums

    @property
    def _tokenize(self) -> str:
        return "zh" if self.unit == "characters" else "13a"

    @cached_property
    def _bleu(self) -> Any:
        from sacrebleu.metrics.bleu import BLEU

        return BLEU(tokenize=self._tokenize, force=True)

    @cached_property
    def _sentence_bleu(self) -> Any:
        from sacrebleu.metrics.bleu import BLEU

        return BLEU(tokenize=self._tokenize, force=True, effective_order=True)

    @cached_property
    def _chrf(self) -> Any:
        from sacrebleu.metrics.chrf import CHRF

        return CHRF()

    @cached_property
    def _rouge(self) -> Any:
        from rouge_score.rouge_scorer import RougeScorer

        tokenizer = None if self.unit == "words" else _Pieces(characters)
        return RougeScorer(list(_ROUGE), tokenizer=tokenizer)


class _Pieces:
    """A tokenizer for rouge-score."""

    def __init__(self, tokenize: Callable[[str], list[str]]) -> None:
        self.tokenize = tokenize


# sacrebleu's own tests of significance take a set apart and put it together again by these two
def _of(metric: Any, output: str, reference: str) -> list[int]:
    [counts] = metric._extract_corpus_statistics([output], [[reference]])
    return [int(count) for count in counts]


def _score(metric: Any, counts: Sequence[int]) -> float:
    return float(metric._aggregate_and_compute([list(counts)]).score)


def loops(tokens: Sequence[int]) -> bool:
    """Whether a text repeats itself: a piece of it stands there three times in a row, or a single token five times."""
    for period in range(1, len(tokens) // 3 + 1):
        wanted, run = (4 if period == 1 else 2 * period), 0
        for before, token in zip(tokens, tokens[period:], strict=False):
            run = run + 1 if token == before else 0
            if run == wanted:
                return True
    return False
