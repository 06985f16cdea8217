"""Real texts and fakes of them, in twos that differ in what they say and in nothing else.

In: a batch of rows, the same rows with other tokens at their drawn positions, and noise. Out: texts to show to a detector,
each with the label real or fake.

The unit is the *piece*: what a row holds of one document. A document that goes on in the next row is two pieces. Every piece
has two versions, the real one and a fake one of the same row: the tampered tokens, or a text of the same length from a corpus
of fakes. Both go the same way before anybody sees them: ids -> text -> ids, so that no tokens stand side by side that a
tokenizer would have joined, and no piece begins within a word; both are cut to the length of the shorter one, by one token more
where their lengths differ, so that either both end where their document ends or neither does; both get [CLS] and [SEP], as a
text that is predicted has them. A piece counts if its two versions differ, and only then a coin says which one is shown. So
whatever can be said of a text but its words (length, place in its document, tokenisation) is as frequent among real ones as
among fakes, exactly.

The coin, like every number here, is that of the first drawn position of the piece: it belongs to the row, and is the same in
any layout and micro-batch. Pieces without a drawn position are left out, and counted.

This happens in numpy and in the tokenizer, so a device is waited for, once a micro-batch
(docs/decisions/0044-fakes-go-through-text.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from electra.contracts import Batch, Encoded, Noise
from electra.errors import ElectraError
from electra.text.corpus import Corpus
from electra.text.tokenizer import Tokenizer
from electra.text.words import continues_word

Ids = npt.NDArray[np.int64]
#: labels by number
LABELS = ("real", "fake")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What a row holds of one document: the flat tokens `begin` to `end`, end exclusive.

    Args:
        place: flat index, in [B * K], of the first drawn position that lies in it; -1 = none does.
        opens, closes: its document begins, or ends, here.
    """

    begin: int
    end: int
    place: int
    opens: bool
    closes: bool

    @property
    def inner(self) -> slice:
        """All but the first and the last token, which are, or make room for, [CLS] and [SEP]."""
        return slice(self.begin + 1, self.end - 1)


def pieces_of(batch: Batch, tokens: Ids, cls_id: int, sep_id: int) -> list[Piece]:
    """The pieces of a batch, of at least two tokens, in order; `tokens` are those of the batch, flattened."""
    starts = np.flatnonzero(batch.positions.reshape(-1).cpu().numpy() == 0)  # and every position of padding
    begins = starts[batch.layout.real.reshape(-1).cpu().numpy()[starts]]
    ends = np.append(starts, len(tokens))[np.searchsorted(starts, begins, side="right")]
    drawn, weight = (batch.targets[name].reshape(-1).cpu().numpy() for name in ("drawn", "drawn_weight"))
    places = np.flatnonzero(weight > 0)[::-1]
    first = np.full(len(begins), -1, dtype=np.int64)
    first[np.searchsorted(begins, drawn[places], side="right") - 1] = places  # the last one written is the lowest
    return [
        Piece(begin=begin, end=end, place=place, opens=tokens[begin] == cls_id, closes=tokens[end - 1] == sep_id)
        for begin, end, place in zip(begins.tolist(), ends.tolist(), first.tolist(), strict=True)
        if end - begin > 1
    ]


class ThroughText:
    """ids -> text -> ids, for any number of texts at once; tokens at the beginning that go on with a word are left out."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._continues = tokenizer, continues_word(tokenizer)

    def __call__(self, texts: Sequence[Ids]) -> list[Ids]:
        """The tokens of each text as its tokenizer would have written them, without specials."""
        written = [self._tokenizer.decode(ids[self._first_word(ids) :].tolist()) for ids in texts]
        return [np.array(encoding.ids, dtype=np.int64) for encoding in self._tokenizer.encode_documents(written)]

    def _first_word(self, ids: Ids) -> int:
        begins = ~self._continues[ids]
        return int(begins.argmax()) if begins.any() else len(ids)


class FakeCorpus:
    """A corpus of fake texts, to be shown in the place of pieces of the same length and kind.

    Args:
        path: a directory that `electra corpus build` wrote.
        tokenizer: of the real texts.

    Raises:
        ElectraError: E-D540 it was built with another tokenizer.
    """

    def __init__(self, path: Path, tokenizer: Tokenizer) -> None:
        self._corpus = Corpus(path)
        if self._corpus.manifest.tokenizer != tokenizer.fingerprint:
            raise ElectraError("E-D540", str(path), "the fakes were built with another tokenizer than the real texts",
                               "build both corpora with one tokenizer: --tokenizer CORPUS/tokenizer")  # fmt: skip
        offsets = [self._corpus.offsets(shard) for shard in range(len(self._corpus.shards))]
        lengths = np.concatenate([np.diff(each) for each in offsets]).astype(np.int64) - 2  # without [CLS] and [SEP]
        order = np.argsort(lengths, kind="stable")
        self._lengths = lengths[order]
        self._starts = np.concatenate([each[:-1] for each in offsets]).astype(np.int64)[order] + 1
        self._shards = np.repeat(np.arange(len(offsets)), [len(each) - 1 for each in offsets])[order]

    def matching(self, piece: Piece, which: float, where: float) -> Ids | None:
        """As many tokens of a fake text as the piece has, from a like place in it; None where no fake fits.

        A whole document is matched by a whole fake of its length, the beginning of one by the beginning of a longer fake,
        the end by an end, and what is neither by a window inside.

        Args:
            which, where: two random numbers in [0, 1).
        """
        size, whole = piece.end - piece.begin - 2, piece.opens and piece.closes
        first = int(np.searchsorted(self._lengths, size, side="left" if whole else "right"))
        behind = int(np.searchsorted(self._lengths, size, side="right")) if whole else len(self._lengths)
        if behind <= first:
            return None
        number = first + int(which * (behind - first))
        spare = int(self._lengths[number]) - size
        skipped = 0 if piece.opens else spare if piece.closes else int(where * (spare + 1))
        start = int(self._starts[number]) + skipped
        return self._corpus.tokens(int(self._shards[number]), start, start + size).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One text for the detector.

    Args:
        text: with specials.
        row: of the batch.
        label: index in `LABELS`.
        from_corpus: its fake version, whether shown or not, came from the corpus of fakes.
    """

    text: Encoded
    row: int
    label: int
    from_corpus: bool


class Exhibition:
    """Makes of each piece of a batch a text, real or fake; see the module.

    Args:
        tokenizer: of the corpus.
        corpus: fakes beside the tampered ones.
        share: part of the fakes that is to come from there; a piece that none fits takes the tampered version.
    """

    def __init__(self, tokenizer: Tokenizer, corpus: FakeCorpus | None, share: float) -> None:
        self._through_text = ThroughText(tokenizer)
        self._cls, self._sep = tokenizer.cls_id, tokenizer.sep_id
        self._corpus, self._share = corpus, share

    def __call__(self, batch: Batch, tampered: Tensor, noise: Noise) -> tuple[list[Shown], int]:
        """The texts to show, in the order of their rows, and the number of pieces of which they are those that count.

        Args:
            tampered: shaped as `batch.tokens`.
        """
        real, fake = (tokens.reshape(-1).cpu().numpy() for tokens in (batch.tokens, tampered))
        pieces = pieces_of(batch, real, self._cls, self._sep)
        width = batch.targets["drawn"].shape[1]
        coin, source, which, where = (
            noise.uniform(name, width).reshape(-1) for name in ("fake", "fake source", "fake text", "fake place")
        )
        drawn, fakes, found = list[Piece](), list[Ids](), list[bool]()
        for piece in (piece for piece in pieces if piece.place >= 0):
            other = None
            if self._corpus is not None and source[piece.place] < self._share:
                other = self._corpus.matching(piece, which[piece.place], where[piece.place])
            drawn.append(piece)
            fakes.append(fake[piece.inner] if other is None else other)
            found.append(other is not None)
        texts = self._through_text([real[piece.inner] for piece in drawn] + fakes)
        shown = []
        for piece, own, other, from_corpus in zip(drawn, texts, texts[len(drawn) :], found, strict=False):
            size = common_length(own, other, piece.end - piece.begin - 2)
            if np.array_equal(own[:size], other[:size]):
                continue
            label = int(coin[piece.place] < 0.5)
            tokens = np.concatenate([[self._cls], (other if label else own)[:size], [self._sep]])
            text = Encoded(tokens=tokens, types=np.zeros_like(tokens))
            shown.append(Shown(text=text, row=piece.place // width, label=label, from_corpus=from_corpus))
        return shown, len(pieces)


def common_length(one: Ids, other: Ids, room: int) -> int:
    """Tokens of either version that are shown: where their lengths differ, neither keeps its end."""
    return min(len(one), room) if len(one) == len(other) else max(0, min(len(one), len(other), room) - 1)
