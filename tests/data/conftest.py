"""Corpora in memory with what rows read of a corpus, made from sentence lengths; every text token is a number of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from electra.text import build, corpus
from electra.text.train_tokenizer import train

PAD, CLS, SEP, MASK = 0, 1, 2, 3
FIRST_TEXT_TOKEN = 10

Lengths = Sequence[Sequence[Sequence[int]]]  # shards of documents of sentences


@dataclass(frozen=True)
class Shard:
    documents: int
    tokens: int


class MemoryCorpus:
    """Documents as [CLS] 10 11 12 ... [SEP]; text tokens count up through the whole corpus."""

    def __init__(self, lengths: Lengths) -> None:
        next_token = FIRST_TEXT_TOKEN
        self.shards, self._flat, self._offsets, self._ends = [], [], [], []
        for documents in lengths:
            stored = []
            for sentences in documents:
                stored.append([CLS, *range(next_token, next_token + sum(sentences)), SEP])
                next_token += sum(sentences)
            self._flat.append(np.array([token for document in stored for token in document], dtype=np.uint32))
            self._offsets.append(np.cumsum([0, *map(len, stored)], dtype=np.int32))
            self._ends.append([np.cumsum([1, *sentences], dtype=np.uint32)[1:] for sentences in documents])
            self.shards.append(Shard(documents=len(documents), tokens=len(self._flat[-1])))
        self.text = np.arange(FIRST_TEXT_TOKEN, next_token)

    def tokens(self, shard: int, start: int, stop: int) -> np.ndarray:
        return self._flat[shard][start:stop]

    def word_starts(self, shard: int, start: int, stop: int) -> np.ndarray:
        """Numbers that three divides go on with the word before them."""
        return self.tokens(shard, start, stop) % 3 != 0

    def offsets(self, shard: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self._offsets[shard][start:stop]

    def document_starts(self, shard: int, start: int, stop: int) -> np.ndarray:
        return np.array([place for place in self._offsets[shard] if start < place < stop], dtype=np.int32)

    def sentence_ends(self, shard: int, document: int) -> np.ndarray:
        return self._ends[shard][document]


@pytest.fixture(scope="session")
def corpus_of() -> Callable[[Lengths], MemoryCorpus]:
    return MemoryCorpus


@pytest.fixture(scope="session")
def prose() -> MemoryCorpus:
    """Three shards of 40 documents each, 1 to 20 sentences of 1 to 30 tokens."""
    random = np.random.default_rng(0)
    return MemoryCorpus([[random.integers(1, 31, random.integers(1, 21)).tolist() for _ in range(40)] for _ in range(3)])


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> corpus.Corpus:
    """A corpus on disk: 60 documents of 1 to 12 sentences in several shards."""
    random = np.random.default_rng(1)
    words = ["river", "bridge", "morning", "reader", "window", "letter", "garden", "answers", "walks", "slowly"]
    sentences = [
        [" ".join(random.choice(words, random.integers(2, 12))) + "." for _ in range(random.integers(1, 13))] for _ in range(60)
    ]
    texts = [" ".join(document) for document in sentences]
    folder = tmp_path_factory.mktemp("stored")
    (folder / "text.txt").write_text("\n\n".join(texts), encoding="utf-8")
    build.build([folder / "text.txt"], train(texts, 80, min_frequency=1), folder / "corpus", shard_tokens=1500)
    return corpus.Corpus(folder / "corpus")
