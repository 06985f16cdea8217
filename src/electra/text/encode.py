"""Clean texts -> rows of a shard: the tokens of each document, and where its sentences end.

In: texts. Out: an Arrow record batch with the columns of a shard (`build.py` lists them), a row a text, in the same order.

A sentence ends at a line break, and behind sentence punctuation. It is found in the text. How it gets to tokens depends on the
tokenizer:

By words, if the tokenizer cuts at spaces, punctuation and Chinese characters before anything else, as BERT's do. Then a text's
tokens are those of its words, one after the other, and a word's tokens are looked up: nearly every word of a text was met
before. This takes a quarter of the time. A sentence ends where a word does.

As a whole, with any other tokenizer: sentences are carried over to tokens by the offsets of the tokens. So are the words that a
segmenter sees (`words.py`), whatever the tokenizer.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from electra.text.tokenizer import SPECIAL_TOKENS, Tokenizer
from electra.text.words import SegmentedWords, SegmenterName

Token: TypeAlias = np.uint16 | np.uint32
#: of a text: [CLS] ... [SEP], where its sentences end and, if segmented, which tokens begin a word
Row: TypeAlias = tuple[npt.NDArray[Token], Sequence[int]] | tuple[npt.NDArray[Token], Sequence[int], npt.NDArray[np.bool_]]
#: texts -> the row of each
Documents: TypeAlias = Callable[[Sequence[str]], Iterable[Row]]

_SENTENCE_END = re.compile(r"""[\n.!?…。！？]+["'”’)\]」』）】》]*(?:(?=\s)|(?<=[\n…。！？”’」』）】》]))""")

# what clean text consists of for BERT's pre-tokenizer: it cuts around ASCII punctuation, this punctuation and these characters
# (around others, too, but to leave more together is never wrong)
_APART = "!-/:-@\\[-`{-~" + "\u2018-\u201d…\u3001\u3002\u3008-\u3011！（），：；？" + "\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(f"[^ \n{_APART}]+|[{_APART}]")
#: words of a table, some 6 MB; few enough that 5 MB of English fill both tables, and then memory grows no more
_REMEMBERED = 1 << 15
#: characters of a longest word that is remembered
_REMEMBERED_LENGTH = 40


class Encoder:
    """Texts -> rows; see the module.

    Args:
        tokenizer: decides the way, and the width of a token in bytes.
        segmenter: adds the column `word_starts`.

    Raises:
        ElectraError: E-R110 the segmenter is not installed.
    """

    def __init__(self, tokenizer: Tokenizer, segmenter: SegmenterName | None = None) -> None:
        self._dtype: np.dtype[Token] = np.dtype(np.uint16) if tokenizer.vocab_size <= 1 << 16 else np.dtype(np.uint32)
        columns: dict[str, np.dtype[Any]] = {"tokens": self._dtype, "sentence_ends": np.dtype(np.uint32)}
        if segmenter is not None:
            columns["word_starts"] = np.dtype(np.bool_)
            self._documents = as_wholes(tokenizer, self._dtype, SegmentedWords(tokenizer, segmenter))
        else:
            self._documents = (by_words if cuts_at_words(tokenizer) else as_wholes)(tokenizer, self._dtype)
        self._dtypes = tuple(columns.values())
        self.schema = pa.schema([(name, pa.list_(pa.from_numpy_dtype(dtype))) for name, dtype in columns.items()])

    def __call__(self, texts: Sequence[str]) -> pa.RecordBatch:
        """The rows of at least one text."""
        columns = [_lists(*column) for column in zip(zip(*self._documents(texts), strict=True), self._dtypes, strict=True)]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def cuts_at_words(tokenizer: Tokenizer) -> bool:
    """Whether a text's tokens are those of its words, for words as they are understood here."""
    tree = json.loads(tokenizer.backend.to_str())
    normalizer, pre_tokenizer = tree["normalizer"] or {}, tree["pre_tokenizer"] or {}
    return (
        pre_tokenizer.get("type") == "BertPreTokenizer"
        and normalizer.get("type") == "BertNormalizer"
        and normalizer["handle_chinese_chars"]
        and tree["model"]["type"] == "WordPiece"
        and {token["content"] for token in tree["added_tokens"]} <= set(SPECIAL_TOKENS)  # others may hold spaces
    )


def as_wholes(tokenizer: Tokenizer, dtype: np.dtype[Token], words: SegmentedWords | None = None) -> Documents:
    """The way of any tokenizer."""
    cls, sep = tokenizer.cls_id, tokenizer.sep_id

    def documents(texts: Sequence[str]) -> Iterator[Row]:
        for text, encoding in zip(texts, tokenizer.encode_documents(texts), strict=True):
            starts = [start for start, _ in encoding.offsets]
            tokens, ends = np.array([cls, *encoding.ids, sep], dtype=dtype), sentence_ends(text, starts)
            yield (tokens, ends) if words is None else (tokens, ends, words.starts(text, tokens, encoding.offsets))

    return documents


def by_words(tokenizer: Tokenizer, dtype: np.dtype[Token]) -> Documents:
    """The way of tokenizers of which `cuts_at_words` is true."""
    cls, sep = (np.array([token], dtype).tobytes() for token in (tokenizer.cls_id, tokenizer.sep_id))
    look_up, words, width = _Words(tokenizer, dtype).__getitem__, _WORD.findall, dtype.itemsize

    def documents(texts: Sequence[str]) -> Iterator[Row]:
        for text in texts:
            pieces, ends, end = [cls], list[int](), width
            for start, stop in sentences_of(text):
                if tokens := b"".join(map(look_up, words(text, start, stop))):
                    pieces.append(tokens)
                    end += len(tokens)
                    ends.append(end // width)
            yield np.frombuffer(b"".join([*pieces, sep]), dtype=dtype), ends

    return documents


class _Words(dict[str, bytes]):
    """Word -> the bytes of its tokens, found when it is first asked for.

    Text of any size meets new words without end. So when the table is full it becomes the older one, from which words that are
    met again come back, and a new one is begun: what is frequent stays.
    """

    def __init__(self, tokenizer: Tokenizer, dtype: np.dtype[Token]) -> None:
        super().__init__()
        self._tokenizer, self._dtype = tokenizer, dtype
        self._older = dict[str, bytes]()

    def __missing__(self, word: str) -> bytes:
        tokens = self._older.get(word)
        if tokens is None:
            tokens = np.array(self._tokenizer.encode_documents([word])[0].ids, dtype=self._dtype).tobytes()
        if len(word) <= _REMEMBERED_LENGTH:
            if len(self) >= _REMEMBERED:
                self._older = dict(self)
                self.clear()
            self[word] = tokens
        return tokens


def sentences_of(text: str) -> Iterator[tuple[int, int]]:
    """Characters (start, end) of each sentence, with the space before it; together they are the text."""
    return pairwise([0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)])


def sentence_ends(text: str, starts: Sequence[int]) -> list[int]:
    """Where sentences end in [CLS] ... [SEP], exclusive and increasing; sentence i begins where i - 1 ends, the first at 1.

    Args:
        text: a clean document.
        starts: n, for each of its tokens the character where it starts.

    Returns:
        The last one is n + 1, the place of [SEP]; empty without tokens.
    """
    ends, token = list[int](), 0
    for match in _SENTENCE_END.finditer(text):
        after = bisect_left(starts, match.end(), lo=token)
        if after > token:
            ends.append(after + 1)
            token = after
    if token < len(starts):
        ends.append(len(starts) + 1)
    return ends


def _lists(arrays: Sequence[npt.NDArray[Any] | Sequence[int]], dtype: np.dtype[Any]) -> pa.ListArray:
    offsets = np.zeros(len(arrays) + 1, dtype=np.int32)
    np.cumsum([len(array) for array in arrays], out=offsets[1:])
    values = np.concatenate(arrays).astype(dtype, copy=False) if offsets[-1] else np.zeros(0, dtype)
    return pa.ListArray.from_arrays(offsets, values)
