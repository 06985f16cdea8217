"""Where words begin: as a vocabulary spells it, or as a segmenter sees it in text that is written without spaces.

A token's spelling says whether it goes on with the word before it: WordPiece marks what goes on (`##`), byte-level BPE (`Ġ`)
and unigram models (`▁`) mark what begins. With these two, a letter, digit or accent without the mark goes on, other characters
are words of their own. So one bool for each entry of a vocabulary says it, and nothing has to be stored. A tokenizer with
none of these marks has a word for each token.

Chinese, Japanese, Thai and their neighbours do not write spaces: there every token is a word of its own, a Chinese character
mostly. A segmenter joins them: a token goes on where it lies within one of the segmenter's words. It never cuts what the
vocabulary holds together, since segmenters cut foreign words into letters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Literal

import numpy as np
import numpy.typing as npt
from tokenizers import models

from electra.errors import ElectraError
from electra.text.tokenizer import Tokenizer

Bools = npt.NDArray[np.bool_]
SegmenterName = Literal["jieba"]

# Thai and Lao, Myanmar, Khmer, Kana, Chinese characters; then bytes that begin such a character, in tokens that have no more
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\udce3-\udce9\udcf0]"
)
_GOES_ON = ("L", "N", "M", "Cs")  # letters, digits, accents, and bytes within a character


def continues_word(tokenizer: Tokenizer) -> Bools:
    """bool [V], True for tokens that go on with the word before them."""
    prefix = _wordpiece_prefix(tokenizer)
    if prefix is not None:
        return np.array([text.startswith(prefix) for text in _vocabulary(tokenizer)])
    return np.array([bool(text) and _goes_on(text[0]) for text in _spelled_out(_vocabulary(tokenizer))])


def unspaced(tokenizer: Tokenizer) -> Bools:
    """bool [V], True for tokens of scripts that are written without spaces."""
    texts, prefix = _vocabulary(tokenizer), _wordpiece_prefix(tokenizer)
    plain = _spelled_out(texts) if prefix is None else [text.removeprefix(prefix) for text in texts]
    return np.array([_UNSPACED.match(text.strip()) is not None for text in plain])


def _goes_on(character: str) -> bool:
    return unicodedata.category(character).startswith(_GOES_ON) and not _UNSPACED.match(character)


def _vocabulary(tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.token_text(token) for token in range(tokenizer.vocab_size)]


def _wordpiece_prefix(tokenizer: Tokenizer) -> str | None:
    model = tokenizer.backend.model
    return model.continuing_subword_prefix if isinstance(model, models.WordPiece) else None


def _spelled_out(texts: Sequence[str]) -> list[str]:
    """Entries of a vocabulary as the text they stand for, words with the space in front of them.

    Bytes that are no whole character become lone surrogates. Without any mark of spaces, every entry gets one.
    """
    if any(text.startswith("▁") for text in texts):
        return [text.replace("▁", " ") for text in texts]
    if not any(text.startswith("Ġ") for text in texts):
        return [f" {text}" for text in texts]
    # the characters by which byte-level tokenizers write bytes: the printable ones themselves, others from 256 upwards
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(0x100 + rank): byte for rank, byte in enumerate(others)}
    bytewise = [byte_of.keys() >= set(text) for text in texts]  # an added token is written as it is
    return [
        bytes(map(byte_of.__getitem__, text)).decode(errors="surrogateescape") if encoded else text
        for text, encoded in zip(texts, bytewise, strict=True)
    ]


# -- segmenters ----------------------------------------------------------------------------------------------------------


def segmenter_package(segmenter: SegmenterName) -> str:
    """The package that a segmenter comes from. Raises ElectraError E-R110 if it is not installed."""
    package = {"jieba": "rjieba"}[segmenter]
    if find_spec(package) is None:
        raise ElectraError(
            "E-R110", f"segmenter {segmenter}", f"the package {package} is not installed", "pip install 'electra-toolkit[zh]'"
        )
    return package


class SegmentedWords:
    """Which tokens begin a word, as a segmenter sees it.

    Args:
        tokenizer: makes the tokens.
        segmenter: its name.

    Raises:
        ElectraError: E-R110 the segmenter's package is not installed.
    """

    def __init__(self, tokenizer: Tokenizer, segmenter: SegmenterName) -> None:
        segmenter_package(segmenter)
        import rjieba

        self._cut: Callable[[str], list[str]] = rjieba.cut
        self._continues_word = continues_word(tokenizer)

    def starts(self, text: str, tokens: npt.NDArray[np.uint16 | np.uint32], offsets: Sequence[tuple[int, int]]) -> Bools:
        """bool [n + 2], True for tokens that begin a word.

        Args:
            text: a clean document.
            tokens: [CLS] and [SEP] around its n tokens.
            offsets: for each of the n, where it starts and ends in the text; it belongs to the word of its last character.
        """
        ends = np.cumsum([len(word) for word in self._cut(text)])
        word = np.searchsorted(ends, [max(start, end - 1) for start, end in offsets], side="right")
        starts: Bools = ~self._continues_word[tokens]
        starts[1:-1] &= np.diff(word, prepend=-1) != 0
        return starts
