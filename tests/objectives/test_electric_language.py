"""The energies of Electric against the probabilities of a language that is known exactly.

A document has three words of four, drawn by a Markov chain with random probabilities. The corpus has each of the 64 documents
as often as its probability says, so that there is no sampling error between corpus and language.

Shapes: S documents, N words of each.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from electra.contracts import Batch, Padded
from electra.objectives.electric import Electric
from electra.tasks.score import EnergyNetwork
from electra.train.loop import Training

WORDS, LENGTH, DOCUMENTS, ROWS, DOCUMENTS_OF_A_ROW = 4, 3, 4000, 64, 8
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """Every document, with its probability and, for each of its words, log p(word | the others) and the probability of the
    others."""

    corpus: Path
    documents_SN: npt.NDArray[np.int64]
    probability_S: Floats
    log_p_SN: Floats
    context_SN: Floats


@pytest.fixture(scope="module")
def known(language: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Known:
    chance = np.random.default_rng(0)
    first = np.exp(chance.normal(size=WORDS))
    move = np.exp(1.5 * chance.normal(size=(WORDS, WORDS)))
    move /= move.sum(1, keepdims=True)
    documents_SN = np.array(list(itertools.product(range(WORDS), repeat=LENGTH)))
    weight_S = first[documents_SN[:, 0]] * move[documents_SN[:, :-1], documents_SN[:, 1:]].prod(1)
    joint = (weight_S / weight_S.sum()).reshape((WORDS,) * LENGTH)
    context_SN = np.stack([np.broadcast_to(joint.sum(n, keepdims=True), joint.shape).reshape(-1) for n in range(LENGTH)], 1)
    probability_S = joint.reshape(-1)
    counts_S = np.diff(np.floor(np.append(0, probability_S.cumsum()) * DOCUMENTS + 0.5).astype(int))
    repeated = np.repeat(documents_SN, counts_S, axis=0)
    place = tmp_path_factory.mktemp("language")
    texts = [" ".join(f"w{word}" for word in document) for document in chance.permutation(repeated).tolist()]
    language(place, [f"w{word}" for word in range(WORDS)], texts)
    return Known(
        corpus=place / "corpus", documents_SN=documents_SN, probability_S=probability_S,
        log_p_SN=np.log(probability_S[:, None] / context_SN), context_SN=context_SN,
    )  # fmt: skip


@dataclass(frozen=True)
class Score:
    """Of log p^ against log p, for every word of every context that was seen at least 100 times.

    Args:
        rank: Spearman's correlation.
        error: mean absolute error, in nats.
        usual: the same, each word as often as the language has it.
    """

    rank: float
    error: float
    usual: float


def learnt(known: Known, train_on: Callable[..., tuple[Training, dict[str, float]]], family: str, lr: str, steps: int) -> Score:
    settings = ("objective.type=electric", f"optimizer.lr={lr}", "optimizer.weight_decay=0.0")
    sizes = (f"/rows.length={DOCUMENTS_OF_A_ROW * (LENGTH + 2)}", f"/batch.rows={ROWS}", "/generator.layers=1")
    training, _ = train_on(known.corpus, family, *settings, *sizes, steps=steps)
    objective = training.objective
    assert isinstance(objective, Electric)
    network = EnergyNetwork(objective.discriminator.encoder, objective.discriminator.head).eval()  # type: ignore[arg-type]
    got_SN = network(known_batch(known)).detach().double().numpy()[:, 1:-1]
    seen_SN = known.context_SN * steps * ROWS * DOCUMENTS_OF_A_ROW >= 100
    assert seen_SN.mean() > 0.9
    got, true = got_SN[seen_SN], known.log_p_SN[seen_SN]
    weights = np.broadcast_to(known.probability_S[:, None], seen_SN.shape)[seen_SN]
    ranks = [np.argsort(np.argsort(values)) for values in (got, true)]
    error = np.abs(got - true)
    return Score(
        rank=float(np.corrcoef(*ranks)[0, 1]), error=float(error.mean()), usual=float(np.average(error, weights=weights))
    )


def known_batch(known: Known) -> Batch:
    """All documents, a row each; the special tokens are 0 to 4."""
    words = torch.from_numpy(known.documents_SN) + 5
    edges = torch.ones(len(words), 1, dtype=torch.int64)
    tokens = torch.cat([2 * edges, words, 3 * edges], dim=1)
    nothing = torch.zeros_like(tokens)
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    return Batch(tokens=tokens, positions=positions, types=nothing, layout=Padded(segments=nothing, whole=True))


Trained = Callable[..., tuple[Training, dict[str, float]]]


@pytest.mark.soak
def test_energies_are_the_probabilities_of_the_language(known: Known, train_on: Trained) -> None:
    """72 seconds of processor time beside other work; measured: rank .98, errors of .19 and .08 nats."""
    score = learnt(known, train_on, "modern", "1e-2", 800)
    assert score.rank >= 0.95
    assert score.error <= 0.2


def test_energies_approach_the_probabilities_of_the_language(known: Known, train_on: Trained) -> None:
    """An eighth of the steps; measured: rank .84, errors of .51 and .27 nats."""
    score = learnt(known, train_on, "modern", "1e-2", 100)
    assert score.rank >= 0.75
    assert score.error <= 0.65
    assert score.usual <= 0.35
