"""Several blanks filled, or a draft rewritten, by the two networks of pre-training in turn.

In: texts, and a model directory with generator and discriminator. Out: texts.

Mask-predict (Ghazvininejad et al., 2019) fills all blanks at once and then, in each of k rounds, masks those again that it is
least sure of, fewer each time, so that they are filled anew with the rest in view. Here the generator fills and the
discriminator, which was trained to find what a generator put in, says which positions are the most doubtful:

    text = generator(text)                                         all blanks at once
    for round i = 1 .. k - 1: mask the round(n (k - i) / k) most doubtful of the n filled positions; text = generator(text)

With one round this is filling in one shot. *Rewriting* begins with a text without blanks, all of whose tokens may be doubted:
round i = 1 .. k masks the round(.15 n (k - i + 1) / k) most doubtful, at least one, but none that is more likely original than
replaced; so a text that the discriminator believes stays as it is.

Fills are the most likely tokens, never special ones. Texts of any length are read in windows; blanks of different windows do
not see each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import decoders
from torch import Tensor

from electra.contracts import Encoded
from electra.errors import ElectraError
from electra.predict.inference import Precision
from electra.predict.predictor import Predictor, load
from electra.tasks.common import cut_windows, joined, whole_text
from electra.tasks.fill_mask import FillMask, FillMaskConfig
from electra.tasks.replaced import Replaced
from electra.text.tokenizer import SPECIAL_TOKENS, Tokenizer

#: share of a text's tokens that the first round of rewriting masks at most: as many as the generator is used to
_SHARE = 0.15


@dataclass(frozen=True, kw_only=True)
class Refined:
    """A text with other tokens.

    Args:
        text: as given.
        sequence: with the new tokens in place.
        changed: positions with another token than the text had; every blank is one.
        rounds: how often the generator read the text.
    """

    text: str
    sequence: str
    changed: int
    rounds: int


@dataclass(kw_only=True)
class Page:
    """A text in work.

    Args:
        text: as given.
        encoded: the same in numbers, in one piece.
        tokens: int64 [n], as they are now.
        open: the positions that may be changed.
        masked: those that are to be filled next.
        rounds: how often it was filled.
    """

    text: str
    encoded: Encoded
    tokens: npt.NDArray[np.int64]
    open: npt.NDArray[np.int64]
    masked: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    rounds: int = 0


class Refiner:
    """Generator and discriminator.

    Args:
        generator: a predictor of `fill-mask` with more candidates than there are special tokens.
        discriminator: a predictor of `replaced`, with the same tokenizer.
    """

    def __init__(self, generator: Predictor, discriminator: Predictor) -> None:
        assert isinstance(generator.task, FillMask)
        assert isinstance(discriminator.task, Replaced)
        self.generator, self.discriminator = generator, discriminator
        self.tokenizer = generator.task.tokenizer

    def fill(self, texts: Sequence[str], rounds: int) -> list[Refined]:
        """Every [MASK] filled, in `rounds` rounds; a text without one comes back as it is."""
        encoded = [whole_text(self.tokenizer.encode(text)) for text in texts]
        return [self._result(page) for page in self._filled(texts, encoded, rounds)]

    def fill_tokens(self, rows: Sequence[Encoded], rounds: int) -> list[npt.NDArray[np.int64]]:
        """The same for texts that are numbers already, with specials, uncut: their tokens, int64 [n]."""
        return [page.tokens for page in self._filled([""] * len(rows), rows, rounds)]

    def _filled(self, texts: Sequence[str], rows: Sequence[Encoded], rounds: int) -> list[Page]:
        pages = []
        for text, encoded in zip(texts, rows, strict=True):
            masked = np.flatnonzero(encoded.tokens == self.tokenizer.mask_id)
            pages.append(Page(text=text, encoded=encoded, tokens=encoded.tokens.copy(), open=masked, masked=masked))
        self._fill(pages)
        for number in range(1, rounds):
            for page, doubt in zip(pages, self.doubts(pages), strict=True):
                count = round(len(page.open) * (rounds - number) / rounds)
                page.masked = page.open[np.argsort(-doubt[page.open], kind="stable")[:count]]
            self._fill(pages)
        return pages

    def rewrite(self, texts: Sequence[str], rounds: int) -> list[Refined]:
        """Texts whose doubtful tokens have been filled anew, in `rounds` rounds; `[MASK]` written in a text is text."""
        pages = []
        for text in texts:
            encoded = whole_text(self.tokenizer.encode_literally(text))
            inner = np.arange(1, len(encoded.tokens) - 1)
            pages.append(Page(text=text, encoded=encoded, tokens=encoded.tokens.copy(), open=inner))
        for number in range(rounds):
            for page, doubt in zip(pages, self.doubts(pages), strict=True):
                count = max(1, round(_SHARE * len(page.open) * (rounds - number) / rounds))
                doubtful = page.open[doubt[page.open] > 0]
                page.masked = doubtful[np.argsort(-doubt[doubtful], kind="stable")[:count]]
            self._fill(pages)
        return [self._result(page) for page in pages]

    def doubts(self, pages: Sequence[Page]) -> list[npt.NDArray[np.float32]]:
        """The discriminator's logits of "replaced", [n] of each text."""
        return _read(self.discriminator, pages)

    def _fill(self, pages: Sequence[Page]) -> None:
        """Put the generator's best token at every masked position."""
        busy = [page for page in pages if len(page.masked)]
        for page in busy:
            page.tokens[page.masked] = self.tokenizer.mask_id
            page.rounds += 1
        for page, candidates in zip(busy, _read(self.generator, busy), strict=True):
            token_MK = candidates[page.masked, :, 1].astype(np.int64)
            plain_MK = ~np.isin(token_MK, self.tokenizer.special_ids)
            page.tokens[page.masked] = token_MK[np.arange(len(token_MK)), plain_MK.argmax(axis=1)]

    def _result(self, page: Page) -> Refined:
        changed = page.tokens != page.encoded.tokens
        return Refined(
            text=page.text, sequence=_spliced(self.tokenizer, page, changed), changed=int(changed.sum()), rounds=page.rounds
        )


def load_refiner(path: str | Path, precision: Precision = "fp32") -> Refiner:
    """The two networks of a model directory; `precision` as of `predictor.load`.

    Raises:
        ElectraError: E-M310 one of them is missing; and those of `predictor.load`.
    """
    fills = load(path, FillMaskConfig(top_k=len(SPECIAL_TOKENS) + 1), precision=precision)
    return Refiner(fills, load(path, "replaced", precision=precision))


def check_rounds(rounds: int) -> None:
    """Raises E-C627 for less than one."""
    if rounds < 1:
        raise ElectraError("E-C627", "--refine", f"{rounds} rounds", "give 1 or more")


def _read(predictor: Predictor, pages: Sequence[Page]) -> list[npt.NDArray[np.float32]]:
    """What a network says of each token, [n, ...] of each text."""
    rows = [cut_windows(replace(page.encoded, tokens=page.tokens), predictor.task.max_length) for page in pages]
    outputs = iter(predictor.outputs([row for some in rows for row in some]))
    found: list[Tensor] = [joined(some, [next(outputs) for _ in some]) for some in rows]
    return [values.float().numpy() for values in found]


def _spliced(tokenizer: Tokenizer, page: Page, changed: npt.NDArray[np.bool_]) -> str:
    """The text as it was written, but for the tokens that changed."""
    characters = list(zip(page.encoded.targets["start"].tolist(), page.encoded.targets["end"].tolist(), strict=True))
    tokens, out, end, place = page.tokens.tolist(), "", 0, 0
    while place < len(tokens):
        if not changed[place]:
            place += 1
            continue
        last = place
        while last + 1 < len(tokens) and changed[last + 1]:
            last += 1
        out += page.text[end : characters[place][0]]
        out = _joined(out, tokenizer, tokens[place - 1], tokens[place : last + 1])
        end, place = characters[last][1], last + 1
    return out + page.text[end:]


def _joined(out: str, tokenizer: Tokenizer, before: int, new: Sequence[int]) -> str:
    """`out` and behind it `new`, as they stand behind the token `before`."""
    continues = isinstance(tokenizer.backend.decoder, decoders.WordPiece) and tokenizer.token_text(new[0]).startswith("##")
    first = tokenizer.decode([before])
    piece = tokenizer.decode([before, *new])[len(first) :]
    if continues:
        return out.rstrip() + piece.removeprefix("##")  # which stays where no word stands before
    return out + (piece.lstrip(" ") if not out or out[-1].isspace() else piece)
