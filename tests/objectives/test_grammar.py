"""Every objective, trained for seconds on a language of known rules, knows more than it would without learning.

Objectives do not know which family they train, so most are tried with one, in turn; `make soak` tries them with the other too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest


class Grammar(Protocol):
    floor: float


Learn = Callable[..., dict[str, float]]


def mostly(family: str) -> pytest.MarkDecorator:
    """Both families, the other one only in `make soak`."""
    other = {"classic": "modern", "modern": "classic"}[family]
    return pytest.mark.parametrize("family", [family, pytest.param(other, marks=pytest.mark.soak)])


@pytest.mark.parametrize("family", ["classic", "modern"])
def test_masked_language_modelling(learn: Learn, grammar: Grammar, family: str) -> None:
    figures = learn(family, "objective.type=mlm")
    assert figures["mlm_loss"] < 0.9 * grammar.floor


@pytest.mark.parametrize("family", ["classic", "modern"])
def test_replaced_token_detection(learn: Learn, family: str) -> None:
    figures = learn(family, "objective.type=rtd", steps=140)
    assert figures["prior_gain"] > 0.04


@pytest.mark.parametrize(("family", "estimator"), [("classic", "reinforce"), ("modern", "gumbel-softmax")])
def test_an_adversarial_generator_beside_likelihood(learn: Learn, family: str, estimator: str) -> None:
    settings = ("objective.type=adversarial", "objective.mle_weight=1", f"objective.estimator={estimator}")
    figures = learn(family, *settings, steps=120)
    assert figures["prior_gain"] > 0.04


@pytest.mark.parametrize("family", ["classic", "modern"])
def test_causal_language_modelling_mixed_with_masked(learn: Learn, grammar: Grammar, family: str) -> None:
    figures = learn(family, "objective.type=causal", "objective.masked_share=0.25", steps=120)
    # of six words the first of the three that belong together cannot be known
    assert figures["lm_loss"] < 1.1 * grammar.floor * 2 / 3
    assert figures["masked_loss"] < grammar.floor


@mostly("classic")
def test_teacher_and_student(learn: Learn, grammar: Grammar, family: str) -> None:
    figures = learn(family, "objective.type=distil", "objective.teacher=average", "objective.teacher.decay=0.9", steps=150)
    assert figures["mlm_loss"] < 0.9 * grammar.floor


def test_muon_averages_a_late_decay_and_a_growing_batch(learn: Learn, grammar: Grammar) -> None:
    settings = ("optimizer.decay_ratio=0.3", "average=0.9", "/batch.first_rows=4")
    muon = "optimizer={type='muon', lr=2e-2, betas=[0.9,0.98], warmup_ratio=0.1}"
    figures = learn("modern", "objective.type=mlm", muon, *settings, steps=150)
    assert figures["mlm_loss"] < 0.9 * grammar.floor


@mostly("modern")
def test_electric(learn: Learn, grammar: Grammar, family: str) -> None:
    """The towers know what follows from the text on both sides; energies that had stayed as they were would then be far off,
    with a gain below -.5."""
    figures = learn(family, "objective.type=electric", steps=70)
    assert figures["mlm_loss"] < 0.9 * grammar.floor
    assert figures["prior_gain"] > -0.2


def test_replaced_token_detection_with_a_recurrent_encoder(learn: Learn) -> None:
    assert learn("recurrent", "objective.type=rtd", steps=70)["prior_gain"] > 0.02


@pytest.mark.parametrize("family", ["classic", pytest.param("modern", marks=pytest.mark.soak), "recurrent"])
def test_real_or_fake(learn: Learn, babbling: Path, family: str) -> None:
    """A text is fake where its words do not belong together; the generator, which has learnt nothing, puts in any."""
    settings = ["type=real-or-fake", f"frozen={babbling}", "masking.rate=0.5", "masking.mask_token_rate=1.0"]
    figures = learn(family, *(f"objective.{setting}" for setting in settings), "optimizer.lr=1e-2", steps=50)
    assert figures["auc"] > 0.75


@mostly("modern")
def test_detection_learnt_from_the_drawn_positions(learn: Learn, family: str) -> None:
    figures = learn(family, "objective.type=rtd", "objective.loss_on=drawn", steps=100)
    assert figures["prior_gain"] > 0.2, "of the drawn positions, whose labels are harder to guess by their share"


@mostly("classic")
def test_replace_mlm(learn: Learn, grammar: Grammar, family: str) -> None:
    figures = learn(family, "objective.type=replace-mlm", "optimizer.lr=1e-2", steps=220)
    assert figures["encoder_loss"] < grammar.floor


@mostly("classic")
def test_all_tokens_mlm(learn: Learn, family: str) -> None:
    figures = learn(family, "objective.type=all-tokens-mlm", "optimizer.lr=1e-2", steps=150)
    assert figures["token_loss"] < 0.37, "one that copies, and guesses by the kind of word, loses .4"


@mostly("modern")
def test_detection_of_what_a_fixed_generator_puts_in(learn: Learn, family: str) -> None:
    figures = learn(family, "objective.type=fixed-generator", steps=100)
    assert figures["prior_gain"] > 0.1


@pytest.fixture(scope="module")
def language_model(learn: Learn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory that knows some of the language."""
    path = tmp_path_factory.mktemp("generator") / "model"
    learn("modern", "objective.type=mlm", steps=100, export=path)
    return path


@pytest.mark.parametrize(("family", "steps"), [pytest.param("classic", 250, marks=pytest.mark.soak), ("modern", 150)])
def test_detection_of_what_a_frozen_generator_puts_in(learn: Learn, language_model: Path, family: str, steps: int) -> None:
    """Of the modern family, against discriminators of both."""
    figures = learn(
        family, "objective.type=frozen-generator", f"objective.generator={language_model}", "optimizer.lr=1e-2", steps=steps
    )
    assert figures["prior_gain"] > 0.05
