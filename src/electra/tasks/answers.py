"""How alike a given answer and the right ones are: SQuAD's exact match and F1, by words or by characters.

By words: as the official script of SQuAD 2.0 (evaluate-v2.0.py) defines it. Small letters, without ASCII punctuation, articles
and superfluous white space; F1 of the bags of words. The script of SQuAD 1.1 differs only where both answers are made of
articles and punctuation alone.

By characters, for texts written without spaces: as the official script of CMRC 2018, which DRCD's users take too. Small
letters, without the punctuation it lists; the pieces are single characters of such scripts and words of others (mixed
segmentation), and F1 counts the longest common run of pieces. Words are divided by a pattern here, where that script calls
NLTK, and white space between pieces does not count.

The best threshold of "no answer" is found as in SQuAD's script; equal scores stay together.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Literal

import numpy as np
import numpy.typing as npt

from electra.text.scripts import SCRIPTS, WITHOUT_SPACES, code_points, script_table

Pieces = Literal["words", "characters"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
#: what the script of CMRC 2018 calls punctuation
_CHINESE_PUNCTUATION = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"
_WITHOUT_CHINESE_PUNCTUATION = str.maketrans("", "", _CHINESE_PUNCTUATION)
_WORD = re.compile(r"\w+(?:[.,'’]\w+)*|[^\w\s]")

_UNSPACED = np.array([name in WITHOUT_SPACES for name in SCRIPTS])


def written_in(text: str) -> Pieces:
    """`characters` where most letters of `text` are of a script without spaces, else `words`."""
    script = _scripts(text)
    return "characters" if 2 * int(_UNSPACED[script].sum()) > int((script > 0).sum()) else "words"


def unspaced(text: str) -> npt.NDArray[np.bool_]:
    """bool [characters of `text`]: of a script that is written without spaces."""
    return _UNSPACED[_scripts(text)]


def _scripts(text: str) -> npt.NDArray[np.uint8]:
    points = code_points(text)
    table = script_table()
    return table[np.where(points < len(table), points, 0)]


def alike(right: Sequence[str], given: str, unit: Pieces) -> tuple[float, float]:
    """Exact match (0 or 1) and F1 of the answer `given`, each the best over the right answers.

    Args:
        right: the right answers; none = the question cannot be answered, and "" is right.
        given: an answer, "" for none.
        unit: what is compared.
    """
    pieces = _words if unit == "words" else characters
    split = [pieces(answer) for answer in right]
    split = [answer for answer in split if answer] or [[]]
    ours = pieces(given)
    return float(max(answer == ours for answer in split)), max(_f1(answer, ours, unit) for answer in split)


def _words(answer: str) -> list[str]:
    return _ARTICLES.sub(" ", answer.lower().translate(_ASCII_PUNCTUATION)).split()


def characters(answer: str) -> list[str]:
    """Characters of scripts without spaces, words of others."""
    pieces: list[str] = []
    plain = answer.lower().strip().translate(_WITHOUT_CHINESE_PUNCTUATION)
    begin = 0
    for place in np.flatnonzero(unspaced(plain)).tolist():
        pieces += [*_WORD.findall(plain[begin:place]), plain[place]]
        begin = place + 1
    return pieces + _WORD.findall(plain[begin:])


def _f1(right: list[str], given: list[str], unit: Pieces) -> float:
    if not right or not given:
        return float(right == given)
    if unit == "words":
        common = sum((Counter(right) & Counter(given)).values())
    else:
        common = SequenceMatcher(None, right, given, autojunk=False).find_longest_match().size
    precision, recall = common / len(given), common / len(right)
    return 2 * precision * recall / (precision + recall) if common else 0.0


def best_threshold(
    answered: npt.NDArray[np.float64], answerable: npt.NDArray[np.bool_], null: npt.NDArray[np.float64]
) -> tuple[float, float]:
    """The threshold of `null` above which "no answer" is said, so that the mean score is highest, and that mean.

    Args:
        answered: [N], score of each question if the best answer is given (0 where it should not be).
        answerable: [N], whether there is an answer.
        null: [N], how much speaks for "no answer".

    Returns:
        threshold, half-way between two values of `null` (or the largest one), and the mean score.
    """
    order = np.argsort(null, kind="stable")
    gains = np.where(answerable, answered, answered - 1.0)[order]
    totals = np.concatenate([[0.0], np.cumsum(gains)]) + float((~answerable).sum())  # [i] = i questions are answered
    values = null[order]
    cuts = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1, [len(values)]])  # equal values stay together
    best = int(cuts[np.argmax(totals[cuts])])
    if best == 0:
        threshold = float(values[0]) - 1.0
    elif best == len(values):
        threshold = float(values[-1])
    else:
        threshold = float(values[best - 1] + values[best]) / 2
    return threshold, float(totals[best]) / len(values)
