"""What a pre-training run reads: one corpus, or several with weights, as a recipe names them and as the run uses them.

In: `corpus.path`, or `[[corpus.sources]]` with names, paths and either weights or a temperature. Out: the corpora, opened and
checked to fit together, their `Mixture`, and what is told of them in fingerprints, recipe.json, report and card.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from electra.config import STRICT
from electra.data.mixture import Mixture, Source
from electra.data.pairs import PairRows, PairRowsConfig
from electra.data.rows import PackedRows, PackedRowsConfig, Rows
from electra.dist import fold_seed, rank, world_size
from electra.errors import ElectraError
from electra.text.corpus import Corpus
from electra.text.tokenizer import Tokenizer
from electra.text.words import unspaced

#: tokens whose frequencies give the unigram entropy
_UNIGRAM_TOKENS = 4_000_000
#: tokens of each corpus that are looked at for text without spaces
_UNSPACED_TOKENS = 1 << 16
_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One of several corpora.

    Args:
        name: for the log, the report and errors: letters, digits, `_`, `-` and `.`.
        path: a directory that `electra corpus build` wrote.
        weight: its part of all rows, relative to the other sources' weights; all have one, or none.
    """

    __pydantic_config__ = STRICT
    name: str
    path: Path
    weight: float | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            cause = f"{self.name!r} is not a name of letters, digits, `_`, `-` and `.`"
            raise ElectraError("E-C471", "corpus.sources", cause, "give such a name")
        if self.weight is not None and not 0 < self.weight < math.inf:
            cause = f"{self.name} has the weight {self.weight}"
            raise ElectraError("E-C472", "corpus.sources", cause, "give a number above 0, or leave the source out")


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """The text of a run: `path`, or `sources`.

    Args:
        path: a directory that `electra corpus build` wrote.
        sources: several of them, built with the same tokenizer.
        temperature: T, where the sources have no weights: a source of n tokens has the weight n ** (1 / T). 1, the default,
            takes each as often as it is large; more takes more of the small ones, towards equal parts (Arivazhagan et al.,
            "Massively multilingual neural machine translation in the wild", 2019; the exponent alpha of XLM-R is 1 / T).
    """

    __pydantic_config__ = STRICT
    path: Path | None = None
    sources: tuple[SourceConfig, ...] = ()
    temperature: float | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (not self.sources):
            given = "neither path nor sources is given" if self.path is None else "path and sources are both given"
            raise ElectraError("E-C470", "corpus", given, "give one of the two")
        twice = [name for name, count in Counter(source.name for source in self.sources).items() if count > 1]
        if twice:
            raise ElectraError("E-C471", "corpus.sources", f"two sources have the name {twice[0]}", "rename one of them")
        weighted = [source.name for source in self.sources if source.weight is not None]
        if weighted and len(weighted) < len(self.sources):
            other = next(source.name for source in self.sources if source.weight is None)
            cause = f"{weighted[0]} has a weight, {other} has none"
            raise ElectraError("E-C472", "corpus.sources", cause, "give a weight to all of them, or to none")
        if self.temperature is not None:
            self._check_temperature(self.temperature, bool(weighted))

    def _check_temperature(self, temperature: float, weighted: bool) -> None:
        where = "corpus.temperature"
        if not self.sources:
            raise ElectraError(
                "E-C473", where, "without sources there is nothing to mix", "leave it out, or give corpus.sources"
            )
        if weighted:
            raise ElectraError("E-C473", where, "the sources have weights already", "leave out the temperature, or the weights")
        if not 1 <= temperature < math.inf:
            hint = f"; for the exponent {temperature:g} give {1 / temperature:.4g}" if 0 < temperature < 1 else ""
            raise ElectraError("E-C473", where, f"{temperature:g} is not a number from 1 up", f"1 = as often as large{hint}")


class Corpora:
    """The corpora that a recipe names.

    Args:
        config: where they are.
        rows: how their documents become rows.
        seed: of the run.
        words: give each row the target `word_starts`.

    Raises:
        ElectraError: E-D470, they were not built with the same tokenizer; and what opening one raises.
    """

    def __init__(
        self, config: CorpusConfig, rows: PackedRowsConfig | PairRowsConfig, seed: int, *, words: bool = False
    ) -> None:
        self._words = words
        paths = [config.path] if config.path else [source.path for source in config.sources]
        self.corpora = [Corpus(path) for path in paths]
        self.names = [source.name for source in config.sources] or ["corpus"]
        self._require_one_tokenizer()
        self.tokenizer: Tokenizer = self.corpora[0].tokenizer()
        exponent = 1 / (config.temperature or 1.0)
        weights = [source.weight for source in config.sources] or [None]
        self.mixture = Mixture(
            [
                self._source(name, corpus, weight or corpus.manifest.tokens**exponent, rows, seed)
                for name, corpus, weight in zip(self.names, self.corpora, weights, strict=True)
            ]
        )
        self.fingerprints = {
            f"source {name}" if config.sources else name: corpus.fingerprint
            for name, corpus in zip(self.names, self.corpora, strict=True)
        } | {"tokenizer": self.tokenizer.fingerprint}

    def _require_one_tokenizer(self) -> None:
        first = self.corpora[0]
        for name, corpus in zip(self.names, self.corpora, strict=True):
            if corpus.manifest.tokenizer != first.manifest.tokenizer:
                cause = f"source {name} was built with another tokenizer than source {self.names[0]}"
                fix = f"build it again with --tokenizer {first.path / 'tokenizer'}"
                raise ElectraError("E-D470", str(corpus.path), cause, fix)

    def _source(self, name: str, corpus: Corpus, weight: float, config: PackedRowsConfig | PairRowsConfig, seed: int) -> Source:
        """A corpus as rows; one that is alone is keyed by the seed alone."""
        key = seed if len(self.corpora) == 1 else fold_seed(seed, "source", name)
        match config:
            case PackedRowsConfig(length=length):
                rows: Rows = PackedRows(corpus, length, words=self._words)
            case PairRowsConfig():
                ids = {"cls_id": self.tokenizer.cls_id, "sep_id": self.tokenizer.sep_id}
                rows = PairRows(corpus, config, key, **ids, words=self._words)
        return Source(name=name, rows=rows, weight=weight, seed=key)

    def verify(self) -> None:
        """Read every shard of every corpus, each process its part. Raises ElectraError E-D123 that names a damaged one."""
        for corpus in self.corpora:
            corpus.verify(rank(), world_size())

    def counts(self) -> dict[str, int | float]:
        """Documents, tokens and rows of all sources together, as stored, and the mean length of the rows that are drawn."""
        manifests = [corpus.manifest for corpus in self.corpora]
        return {
            "documents": sum(manifest.documents for manifest in manifests),
            "tokens": sum(manifest.tokens for manifest in manifests),
            "rows": sum(len(source.rows) for source in self.mixture.sources),
            "tokens of a row": self.mixture.tokens_per_row,
        }

    def describe(self) -> list[dict[str, Any]]:
        """Each source for recipe.json, the report and the card; `share` is its part of all rows."""
        return [
            {
                "name": name,
                "documents": corpus.manifest.documents,
                "tokens": corpus.manifest.tokens,
                "share": share,
                "fingerprint": corpus.fingerprint,
            }
            for name, corpus, share in zip(self.names, self.corpora, self.mixture.shares, strict=True)
        ]

    def unsegmented(self) -> float:
        """Share of the rows' tokens that are of a script without spaces, in corpora that no segmenter has seen."""
        table, found = unspaced(self.tokenizer), 0.0
        for corpus, share in zip(self.corpora, self.mixture.shares, strict=True):
            if corpus.manifest.segmenter is None:
                tokens = corpus.tokens(0, 0, min(corpus.shards[0].tokens, _UNSPACED_TOKENS))
                found += share * float(table[tokens].mean())
        return found

    def frequencies(self) -> npt.NDArray[np.float64]:
        """The share of each token in the mixture, float64 [vocabulary]."""
        mixed = np.zeros(self.tokenizer.vocab_size)
        for corpus, share in zip(self.corpora, self.mixture.shares, strict=True):
            mixed += share * _frequencies(corpus, math.ceil(share * _UNIGRAM_TOKENS))
        return mixed

    def unigram_entropy(self) -> float:
        """Entropy in nats of single tokens of the mixture: what a model loses that knows no more than frequencies."""
        mixed = self.frequencies()
        frequencies = mixed[mixed > 0]
        return float(-(frequencies * np.log(frequencies)).sum())


def _frequencies(corpus: Corpus, most: int) -> npt.NDArray[np.float64]:
    """float64 [vocabulary], of the first `most` tokens; sums to 1."""
    counts, seen = np.zeros(corpus.manifest.vocab_size), 0
    for number, shard in enumerate(corpus.shards):
        tokens = corpus.tokens(number, 0, min(shard.tokens, most - seen))
        counts += np.bincount(tokens, minlength=len(counts))
        seen += len(tokens)
        if seen >= most:
            break
    return counts / float(counts.sum())
