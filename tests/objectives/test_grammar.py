"""Every objective, trained for seconds on a language of known rules, knows more than it would without learning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest


class Grammar(Protocol):
    floor: float


Learn = Callable[..., dict[str, float]]


@pytest.mark.parametrize("family", ["classic", "modern"])
def test_masked_language_modelling(learn: Learn, grammar: Grammar, family: str) -> None:
    figures = learn(family, "objective.type=mlm")
    assert figures["mlm_loss"] < 0.9 * grammar.floor


@pytest.mark.parametrize("family", ["classic", "modern"])
def test_replaced_token_detection(learn: Learn, family: str) -> None:
    figures = learn(family, "objective.type=rtd")
    assert figures["prior_gain"] > 0.05


def test_replaced_token_detection_with_a_recurrent_encoder(learn: Learn) -> None:
    assert learn("recurrent", "objective.type=rtd", steps=100)["prior_gain"] > 0.02


@pytest.mark.parametrize("family", ["classic", "modern", "recurrent"])
def test_real_or_fake(learn: Learn, babbling: Path, family: str) -> None:
    """A text is fake where its words do not belong together; the generator, which has learnt nothing, puts in any."""
    settings = ["type=real-or-fake", f"frozen={babbling}", "masking.rate=0.5", "masking.mask_token_rate=1.0"]
    figures = learn(family, *(f"objective.{setting}" for setting in settings), "optimizer.lr=1e-2", steps=75)
    assert figures["auc"] > 0.75
