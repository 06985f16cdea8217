"""Checks that several processes make together; started by test_together.py in each of them.

Given as the global GIVEN: `environment`, `log`, `corpus`.
"""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from electra.build.pretrain import PretrainRecipe, Setting
from electra.config import load
from electra.dist import any_of, digest, first, gather, led, processes, rank, sum_counts, sum_gradients, world_size
from electra.errors import ElectraError, Preempted, RelayedError
from electra.events import EventLog
from electra.train.checkpoint import own_tensors
from electra.train.loop import Span, Training, train
from electra.train.machine import StopFlag

given: dict[str, Any] = globals()["GIVEN"]


def check_what_is_said() -> None:
    assert gather({"rank": rank(), "text": "é"}) == [{"rank": 0, "text": "é"}, {"rank": 1, "text": "é"}]
    long = ["x" * (5000 * rank() + 4000), "y" * 10_000 * rank()]  # one within the slot, one far beyond
    assert [len(first) for first, _ in gather(long)] == [4000, 9000]
    assert any_of(rank() == 1)
    assert not any_of(False)
    assert sum_counts({"all": 1.5} | ({"one": 2.0} if rank() else {})) == {"all": 3.0, "one": 2.0}
    assert first(lambda: [rank(), float("inf")]) == [0, float("inf")]


def check_errors_of_the_first_are_those_of_all() -> None:
    def fail() -> None:
        raise ElectraError("E-R001", "there", "full", "mend it")

    with pytest.raises(ElectraError, match="E-R001 there: full; mend it") as caught:
        first(fail)
    assert isinstance(caught.value, RelayedError) == (rank() > 0)


def check_wishes_reach_the_one_that_works() -> None:
    asked = 0

    def work(ask: Any) -> int:
        nonlocal asked
        while asked < 10:
            asked += 1
            if ask():
                raise Preempted
        return asked

    def wish() -> bool:
        nonlocal asked
        asked += rank()
        return asked > 3 if rank() else False

    with pytest.raises(Preempted):
        led(work, wish)
    assert asked == 4 + rank()  # the last time, the first one tells that it was heard


def check_gradients() -> None:
    everywhere, here, nowhere = (nn.Parameter(torch.zeros(3, 2)) for _ in range(3))
    everywhere.grad = torch.full((3, 2), float(rank() + 1))
    here.grad = torch.arange(6.0).view(3, 2) if rank() else None
    sum_gradients([everywhere, here])
    assert torch.equal(everywhere.grad, torch.full((3, 2), 3.0))
    assert here.grad is not None
    assert torch.equal(here.grad, torch.arange(6.0).view(3, 2))
    assert nowhere.grad is None


def training_of(*assignments: str) -> tuple[Training, list[dict[str, Any]]]:
    places = [f"corpus.path={given['corpus']}", "run.dir=nowhere", "batch.rows=16", "loop.log_steps=1"]
    setting = Setting(load(PretrainRecipe, ["test-modern"], [*places, *assignments]))
    training = setting.training(Span(name="rtd", first=0, steps=3), None, 4, False, card=str)
    events: list[dict[str, Any]] = []
    training.log = EventLog(None, [events.append])
    return training, events


def disturbed(training: Training, call: int, disturb: Any) -> None:
    """Have process 1 do something else in the place of forward pass number `call`, from 1."""
    forward, calls = training.objective.forward, 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return disturb(forward, *arguments) if calls == call and rank() == 1 else forward(*arguments)

    training.objective.forward = counted  # type: ignore[method-assign]


def check_what_one_has_no_memory_for_all_halve() -> None:
    def full(forward: Any, *arguments: Any) -> Any:
        raise torch.OutOfMemoryError("no room")

    training, events = training_of()
    disturbed(training, 4, full)  # in the second micro-batch of the second step
    train(training, None, StopFlag())
    assert training.loader.micro_rows == 2  # type: ignore[attr-defined]
    assert [event["step"] for event in events if event.get("code") == "E-R402"] == [1]
    assert len({*gather(digest(own_tensors(training.module)))}) == 1
    undisturbed, _ = training_of()
    train(undisturbed, None, StopFlag())
    for name, tensor in own_tensors(undisturbed.module).items():
        torch.testing.assert_close(own_tensors(training.module)[name], tensor, rtol=1e-4, atol=1e-6)


def check_what_is_not_finite_in_one_all_skip() -> None:
    def infinite(forward: Any, *arguments: Any) -> Any:
        losses = forward(*arguments)
        poisoned: Tensor = losses.terms["mlm"].total
        poisoned.mul_(float("nan"))
        return losses

    training, events = training_of()
    disturbed(training, 2, infinite)
    train(training, None, StopFlag())
    assert [event["step"] for event in events if event.get("code") == "E-T401"] == [0]
    assert len({*gather(digest(own_tensors(training.module)))}) == 1


def check_other_weights_are_no_checkpoint() -> None:
    training, _ = training_of()
    tensors = own_tensors(training.module)
    training.parallel.require_same(tensors, 0)
    if rank() == 1:
        next(iter(tensors.values())).view(-1)[3].mul_(1 + 1e-6)
    with pytest.raises(ElectraError, match="E-T800 step 0: the weights of process 1 of 2"):
        training.parallel.require_same(tensors, 0)


os.environ |= given["environment"]
torch.set_num_threads(1)
with Path(given["log"]).open("w", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log), processes(1.0):
    assert world_size() == 2
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            print(name, flush=True)
            check()
    sys.exit(0 if gather("well") == ["well", "well"] else 1)
