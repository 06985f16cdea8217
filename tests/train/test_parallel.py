"""What is refused before a run begins, and what a second signal does under torchrun; runs are in tests/processes."""

from __future__ import annotations

import os
import signal

import pytest

from electra import config
from electra.build.finetune import load_recipe
from electra.build.pretrain import PretrainRecipe
from electra.errors import ElectraError
from electra.train.machine import StopFlag
from electra.train.parallel import ParallelConfig, Shards, placement

PLACES = ["corpus.path=corpus", "run.dir=run"]


@pytest.mark.parametrize(
    ("recipe", "assignment", "cause"),
    [
        ("electra-small-two-stage", "", "frozen-generator"),
        ("real-or-fake-tiny", "", "real-or-fake"),
        ("test-modern", "phases.rtd.optimizer={type='muon', lr=1e-3}", "Muon"),
    ],
)
def test_what_needs_whole_weights_is_not_sharded(recipe: str, assignment: str, cause: str) -> None:
    given = [*PLACES, "parallel.strategy=fsdp2", *([assignment] if assignment else [])]
    with pytest.raises(ElectraError, match=cause) as caught:
        config.load(PretrainRecipe, [recipe], given)
    assert caught.value.code == "E-C803"


def test_a_process_that_is_alone_has_all_weights() -> None:
    assert not isinstance(placement(ParallelConfig(strategy="fsdp2")), Shards)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ElectraError, match="E-C802"):
        config.load(PretrainRecipe, ["test-modern"], [*PLACES, "parallel.timeout_minutes=0"])
    given = ["task=classify", "init.from=m", "data.train=t", "run.dir=r", "parallel.strategy=fsdp2"]
    with pytest.raises(ElectraError, match="strategy"):  # fine-tuning does not shard, so it has no such setting
        load_recipe([], given)


def test_under_torchrun_a_second_signal_is_the_launchers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a run")
    with StopFlag() as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
