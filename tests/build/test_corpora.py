"""Several corpora in a recipe: what is refused, what weights and temperature mean, what is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from electra.build.corpora import Corpora, CorpusConfig
from electra.config import build, to_tree
from electra.data.pairs import PairRowsConfig
from electra.data.rows import PackedRowsConfig
from electra.errors import ElectraError
from electra.text import build as builds
from electra.text.tokenizer import Tokenizer, load
from electra.text.train_tokenizer import train

Make = Callable[..., Path]
SEED = 7


@pytest.fixture(scope="module")
def tokenizer(tokenizer_dir: Path) -> Tokenizer:
    return load(tokenizer_dir)


@pytest.fixture(scope="module")
def make(documents: list[str], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Builds a corpus of some of the documents."""

    def made(start: int, stop: int, by: Tokenizer = tokenizer) -> Path:
        folder = tmp_path_factory.mktemp("source")
        (folder / "text.txt").write_text("\n\n".join(documents[start:stop]) + "\n", encoding="utf-8")
        builds.build([folder / "text.txt"], by, folder / "corpus")
        return folder / "corpus"

    return made


@pytest.fixture(scope="module")
def large(make: Make) -> Path:
    return make(0, 200)


@pytest.fixture(scope="module")
def small(make: Make) -> Path:
    return make(200, 240)


def opened(config: dict[str, object], rows: PackedRowsConfig | PairRowsConfig | None = None) -> Corpora:
    return Corpora(build(CorpusConfig, config), rows or PackedRowsConfig(length=16), SEED)


def two(large: Path, small: Path, *weights: float, **more: object) -> dict[str, object]:
    sources = [{"name": "large", "path": str(large)}, {"name": "small", "path": str(small)}]
    return {
        "sources": [source | {"weight": w} for source, w in zip(sources, weights, strict=True)] if weights else sources
    } | more


# -- what is refused -----------------------------------------------------------------------------------------------------

A, B = {"name": "a", "path": "x"}, {"name": "b", "path": "y"}


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, r"E-C470 corpus: neither path nor sources is given"),
        ({"sources": []}, r"E-C470 corpus: neither"),
        ({"path": "x", "sources": [A]}, r"E-C470 corpus: path and sources are both given"),
        ({"sources": [A, B, A]}, r"E-C471 corpus.sources: two sources have the name a"),
        ({"sources": [A | {"name": "a|b"}]}, r"E-C471 corpus.sources: 'a\|b' is not a name of letters"),
        ({"sources": [A | {"name": ""}]}, r"E-C471 corpus.sources: '' is not a name"),
        ({"sources": [A | {"weight": 0}, B | {"weight": 1}]}, r"E-C472 corpus.sources: a has the weight 0"),
        ({"sources": [A | {"weight": -1.5}]}, r"E-C472 corpus.sources: a has the weight -1.5"),
        ({"sources": [A | {"weight": math.inf}]}, r"E-C472 corpus.sources: a has the weight inf"),
        ({"sources": [A, B | {"weight": 1}]}, r"E-C472 corpus.sources: b has a weight, a has none"),
        ({"sources": [A | {"weight": 1}], "temperature": 2}, r"E-C473 corpus.temperature: the sources have weights already"),
        ({"path": "x", "temperature": 2}, r"E-C473 corpus.temperature: without sources"),
        ({"sources": [A, B], "temperature": 0.3}, r"E-C473 corpus.temperature: 0.3 .*for the exponent 0.3 give 3.333"),
        ({"sources": [A, B], "temperature": -1}, r"E-C473 corpus.temperature: -1 is not a number from 1 up"),
        ({"sources": [A, B | {"wieght": 1}]}, r"E-C004 sources.1.wieght: no such setting; did you mean weight\?"),
        ({"sources": [{"path": "x"}]}, r"E-C004 sources.0.name: is required and was not given; add name = ... to that entry"),
        ({"sources": [A | {"weight": "much"}]}, r"E-C004 sources.0.weight: .* got 'much'"),
    ],
)  # fmt: skip
def test_what_a_recipe_cannot_mean_is_named(config: dict[str, object], told: str) -> None:
    with pytest.raises(ElectraError, match=told):
        build(CorpusConfig, config)


def test_sources_of_two_tokenizers_are_named(make: Make, large: Path, documents: list[str]) -> None:
    other = make(0, 20, train(documents, 100))
    with pytest.raises(ElectraError, match=r"E-D470 .*: source small was built with another tokenizer than source large; .*"):
        opened(two(large, other))


def test_a_source_that_is_no_corpus_is_named(large: Path, tmp_path: Path) -> None:
    with pytest.raises(ElectraError, match=rf"E-D121 {tmp_path}: no corpus"):
        opened(two(large, tmp_path))


# -- what weights and temperature mean -----------------------------------------------------------------------------------


def tokens(corpora: Corpora) -> np.ndarray:
    return np.array([source["tokens"] for source in corpora.describe()])


@pytest.mark.parametrize("temperature", [None, 1.0, 2.0, 5.0])
def test_a_temperature_flattens_the_shares(large: Path, small: Path, temperature: float | None) -> None:
    corpora = opened(two(large, small, **({} if temperature is None else {"temperature": temperature})))
    expected = tokens(corpora) ** (1 / (temperature or 1))
    assert corpora.mixture.shares == pytest.approx(expected / expected.sum(), abs=4e-6)
    assert sum(source["share"] for source in corpora.describe()) == pytest.approx(1)


def test_without_weights_all_sources_are_seen_equally_often(large: Path, small: Path) -> None:
    epochs = opened(two(large, small)).mixture.epochs(100_000)
    assert epochs["large"] == pytest.approx(epochs["small"], rel=0.01)


def test_weights_are_relative(large: Path, small: Path) -> None:
    assert opened(two(large, small, 2, 6)).mixture.shares == opened(two(large, small, 0.1, 0.3)).mixture.shares == (0.25, 0.75)


# -- what is the same and what is not ------------------------------------------------------------------------------------


def standing(corpora: Corpora, count: int = 300) -> list[list[int]]:
    picks = corpora.mixture.at(np.arange(count))
    return [picks.sources.tolist(), picks.rows.tolist(), picks.noise_keys.tolist()]


@pytest.mark.parametrize("rows", [PackedRowsConfig(length=16), PairRowsConfig(length=16)])
def test_one_source_is_the_same_by_path_and_by_name(large: Path, rows: PackedRowsConfig | PairRowsConfig) -> None:
    by_path = opened({"path": str(large)}, rows)
    by_name = opened({"sources": [{"name": "any", "path": str(large), "weight": 3}]}, rows)
    assert standing(by_path) == standing(by_name)
    assert by_path.mixture.sources[0].seed == SEED
    assert by_path.fingerprints.keys() == {"corpus", "tokenizer"}
    assert by_name.fingerprints.keys() == {"source any", "tokenizer"}


def test_the_rows_of_a_source_depend_on_its_name_and_not_on_its_place_or_path(large: Path, small: Path) -> None:
    config = two(large, small, 1, 1)
    turned = {"sources": list(reversed(config["sources"]))}  # type: ignore[call-overload]
    one, other = opened(config).mixture.at(np.arange(200)), opened(turned).mixture.at(np.arange(200))
    for number in (0, 1):
        assert one.rows[one.sources == number].tolist() == other.rows[other.sources == 1 - number].tolist()
    twice = opened(two(large, large, 1, 1)).mixture.at(np.arange(200))
    assert twice.rows[twice.sources == 0].tolist() != twice.rows[twice.sources == 1].tolist()


def test_pair_rows_of_two_sources_are_drawn_apart(large: Path) -> None:
    corpora = opened(two(large, large, 1, 1), PairRowsConfig(length=32, short=0.5))
    one, other = (source.rows for source in corpora.mixture.sources)
    assert [len(one[row].tokens) for row in range(50)] != [len(other[row].tokens) for row in range(50)]


def test_the_frequencies_are_those_of_the_mixture(large: Path, small: Path) -> None:
    alone = [opened({"path": str(path)}).unigram_entropy() for path in (large, small)]
    mixed = opened(two(large, small, 1, 1)).unigram_entropy()
    assert np.mean(alone) < mixed < np.mean(alone) + math.log(2)
    assert opened(two(large, large, 1, 3)).unigram_entropy() == pytest.approx(alone[0])


def test_a_recipe_with_sources_survives_the_way_through_json() -> None:
    config = build(CorpusConfig, {"sources": [A, B], "temperature": 2})
    assert build(CorpusConfig, to_tree(config)) == config
