"""Real runs in miniature, each with a fault or none, through the real loop: the verdicts that a user would see.

Every run takes one to three seconds. `test_health.py` has the same verdicts on courses of figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from electra.build import pretrain
from electra.config import load
from electra.data import loader
from electra.data.masking import Drawn, draw
from electra.events import Event, EventLog
from electra.text import build
from electra.text import tokenizer as tokenizers
from electra.train.loop import Span, train
from electra.train.machine import StopFlag
from electra.train.verdicts import State


@dataclass(frozen=True)
class Course:
    """The verdicts of a run, by network in order."""

    verdicts: dict[str, list[str]]
    reasons: dict[str, str]
    steps: list[Event]


Run = Callable[..., Course]


@pytest.fixture
def run(corpus_dir: Path) -> Run:
    """Trains one phase of a recipe and collects what is said about it."""

    def trained(recipe: str, phase: str, *settings: str, steps: int, text: Path = corpus_dir) -> Course:
        places = [f"corpus.path={text}", "run.dir=nowhere", "run.seed=3"]
        value = load(pretrain.PretrainRecipe, [recipe], [*places, "loop.log_steps=5", *settings])
        setting = pretrain.Setting(value)
        t = setting.training(Span(name=phase, first=0, steps=steps), None, micro=8, bf16=False, card=str)
        t.unigram_entropy = setting.corpora.unigram_entropy()
        events: list[Event] = []
        t.log = EventLog(None, [events.append])
        train(t, None, StopFlag())
        course = Course(verdicts={}, reasons={}, steps=[event for event in events if event["event"] == "step"])
        for event in events:
            if event["event"] == "verdict":
                course.verdicts.setdefault(event["network"], []).append(event["verdict"])
                course.reasons[event["network"]] = event["reason"]
        return course

    return trained


def test_masked_language_modelling_gets_healthy(run: Run) -> None:
    course = run("test-modern", "mlm", "phases.mlm.optimizer.lr=1e-2", steps=150)
    said = course.verdicts["encoder"]
    assert said[0] == State.WARMING_UP
    assert said[-1] == State.HEALTHY
    # on the way: first no better than token frequencies, then a little, then well; never a step back
    order = [State.WARMING_UP, State.NOT_LEARNING, State.LEARNING, State.HEALTHY]
    assert sorted(said, key=lambda state: order.index(State(state))) == said


def test_a_discriminator_learns(run: Run) -> None:
    course = run("test-classic", "rtd", "phases.rtd.optimizer.lr=2e-3", "phases.rtd.optimizer.warmup_ratio=0.2", steps=120)
    assert course.verdicts["discriminator"][-1] in (State.LEARNING, State.HEALTHY)
    assert State.WARMING_UP in course.verdicts["discriminator"]
    figures = course.steps[-1]["figures"]
    assert figures["prior_gain"] > 0
    assert figures["auc"] > 0.54


def test_twenty_times_the_rate_collapses_the_discriminator(run: Run) -> None:
    course = run("test-classic", "rtd", "phases.rtd.optimizer.lr=4e-2", steps=100)
    assert course.verdicts["discriminator"][-1] in (State.COLLAPSED, State.DIVERGED)
    assert course.verdicts["generator"][-1] in (State.NOT_LEARNING, State.DIVERGED)
    assert not any(verdict == State.HEALTHY for verdict in course.verdicts["discriminator"][5:])


def test_two_hundred_times_the_rate_learns_nothing(run: Run) -> None:
    course = run("test-modern", "mlm", "phases.mlm.optimizer.lr=0.4", steps=80)
    assert course.verdicts["encoder"][-1] in (State.NOT_LEARNING, State.DIVERGED)


def test_a_rate_that_rises_without_end_diverges(run: Run) -> None:
    course = run("test-modern", "mlm", "phases.mlm.optimizer.lr=20.0", "phases.mlm.optimizer.warmup_ratio=0.9", steps=80)
    assert course.verdicts["encoder"][-1] == State.DIVERGED
    assert "has risen from its best" in course.reasons["encoder"]


def test_a_generator_that_knows_the_text_by_heart_is_too_strong(run: Run, tokenizer_dir: Path, tmp_path: Path) -> None:
    """One word, over and over: soon nothing is replaced any more."""
    (tmp_path / "text.txt").write_text("\n\n".join([" ".join(["wooden"] * 60)] * 200), encoding="utf-8")
    build.build([tmp_path / "text.txt"], tokenizers.load(tokenizer_dir), tmp_path / "corpus")
    course = run("test-modern", "rtd", "phases.rtd.optimizer.lr=5e-3", steps=70, text=tmp_path / "corpus")
    assert course.verdicts["discriminator"][-1] == State.GENERATOR_TOO_STRONG
    assert course.verdicts["generator"][-1] in (State.LEARNING, State.HEALTHY)
    assert course.steps[-1]["figures"]["replaced_share"] < 0.01


@pytest.mark.parametrize(("likelihood", "collapses"), [(0.0, True), (1.0, False)])
def test_a_generator_that_only_fools_collapses(run: Run, likelihood: float, collapses: bool) -> None:
    """At the same rate likelihood beside the reward keeps it from that."""
    rate = (
        "phases.rtd.optimizer.lr=1e-2",
        "phases.rtd.optimizer.warmup_ratio=0.2",
        "phases.rtd.optimizer.clip_per_network=true",
    )
    objective = f'phases.rtd.objective={{type="adversarial", tying="none", mle_weight={likelihood}}}'
    course = run("test-classic", "rtd", objective, *rate, steps=60)
    said, figures = course.verdicts["generator"], course.steps[-1]["figures"]
    assert (State.GENERATOR_COLLAPSED in said) == (said[-1] == State.GENERATOR_COLLAPSED) == collapses
    if collapses:
        assert figures["generator_entropy"] < 0.5
        assert figures["mlm_accuracy"] < 0.1
        assert "its entropy is" in course.reasons["generator"]
    else:
        assert figures["generator_entropy"] > 0.8 * figures["mlm_loss"]


def test_masks_that_are_blind_to_the_ends_of_rows(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(candidates_BL: npt.NDArray[np.bool_], *rest: object) -> Drawn:
        length = candidates_BL.shape[1]
        return draw(candidates_BL & (np.arange(length) < 0.75 * length), *rest)  # type: ignore[arg-type]

    # log lines of enough draws to expect some in every part of the row
    steps = {"steps": 60}
    honest = run("test-modern", "mlm", "loop.log_steps=15", **steps)
    assert State.MASKS_UNEVEN not in honest.verdicts["encoder"]
    monkeypatch.setattr(loader, "draw", blind)
    course = run("test-modern", "mlm", "loop.log_steps=15", **steps)
    assert course.verdicts["encoder"][-1] == State.MASKS_UNEVEN
    assert "least at 75%" in course.reasons["encoder"]
