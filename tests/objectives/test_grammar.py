"""Every objective, trained for seconds on a language of known rules, knows more than it would without learning."""

from __future__ import annotations

from collections.abc import Callable
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


@pytest.mark.parametrize("family", ["classic", "modern"])
def test_electric(learn: Learn, grammar: Grammar, family: str) -> None:
    """The towers know what follows from the text on both sides; the energies, then, are not far from telling as little."""
    figures = learn(family, "objective.type=electric", steps=120)
    assert figures["mlm_loss"] < 0.9 * grammar.floor
    assert figures["prior_gain"] > -0.1
