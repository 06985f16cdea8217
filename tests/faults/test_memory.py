"""Memory that runs out, in the dry batch or in a step: micro-batches are halved, and the run is that of smaller ones."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable
from functools import reduce
from typing import Any

import pytest
import torch

from electra.train.machine import is_out_of_memory

HALF = {"pretrain": "batch.micro_rows=2", "finetune": "batch.micro_tokens=64"}
FORWARD = {
    "pretrain": ("electra.objectives.rtd", "Rtd.forward"),
    "finetune": ("electra.objectives.supervised", "Supervised.forward"),
}


@pytest.fixture(scope="module")
def halved(whole: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of each kind a run whose micro-batches have had half the size from the first on."""
    place = tmp_path_factory.mktemp("halved")
    runs = {kind: dataclasses.replace(trial, directory=place / kind) for kind, trial in whole.items()}
    for kind, run in runs.items():
        run.run(HALF[kind])
    return runs


def refuse(patch: pytest.MonkeyPatch, kind: str, positions: int, when: Callable[[], bool], fail: Callable[[], object]) -> None:
    """Call `fail` after the forward pass of a micro-batch of more than so many positions, while `when` is true."""
    module, name = FORWARD[kind]
    owner = reduce(getattr, name.split(".")[:-1], importlib.import_module(module))
    original = owner.forward

    def forward(self: Any, batch: Any, *others: Any) -> Any:
        losses = original(self, batch, *others)
        if batch.tokens.numel() > positions and when() and torch.is_grad_enabled():
            fail()
        return losses

    patch.setattr(owner, "forward", forward)


def all_memory() -> None:
    torch.empty(1 << 50, dtype=torch.uint8)  # the allocator's own words


def injected() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("fail", [all_memory, injected])
def test_a_dry_batch_that_does_not_fit_is_halved_before_step_0(
    trial: Any, halved: dict[str, Any], monkeypatch: pytest.MonkeyPatch, fail: Callable[[], object]
) -> None:
    refuse(monkeypatch, trial.kind, 64, lambda: True, fail)
    trial.run()
    resolved = json.loads((trial.directory / "recipe.json").read_text(encoding="utf-8"))["resolved"]
    assert resolved.get("micro_rows", resolved.get("micro_tokens")) in (2, 64)
    assert [event for event in trial.events("warning") if event["code"] == "E-R402"] == []
    assert trial.left() == halved[trial.kind].left()


@pytest.mark.parametrize("fail", [all_memory, injected])
def test_a_step_that_does_not_fit_is_halved_and_told(
    trial: Any, halved: dict[str, Any], monkeypatch: pytest.MonkeyPatch, fail: Callable[[], object]
) -> None:
    refuse(monkeypatch, trial.kind, 64, lambda: (trial.directory / "recipe.json").exists(), fail)
    trial.run()
    assert {event["code"] for event in trial.events("warning")} == {"E-R402"}
    assert trial.left() == halved[trial.kind].left()


def test_memory_that_runs_out_in_a_backward_pass(trial: Any, halved: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the gradients are there already; they must not stay."""
    module, name = FORWARD[trial.kind]
    owner = reduce(getattr, name.split(".")[:-1], importlib.import_module(module))
    original, failures = owner.forward, list[int]()

    def forward(self: Any, batch: Any, *others: Any) -> Any:
        losses = original(self, batch, *others)
        if (trial.directory / "recipe.json").exists() and not failures and torch.is_grad_enabled():
            parameter = next(parameter for parameter in self.parameters() if parameter.requires_grad)

            def fail(gradient: torch.Tensor) -> None:
                handle.remove()
                failures.append(1)
                injected()

            handle = parameter.register_hook(fail)
        return losses

    monkeypatch.setattr(owner, "forward", forward)
    trial.run()
    assert failures == [1]
    assert [event["code"] for event in trial.events("warning")] == ["E-R402"]
    assert trial.left() == halved[trial.kind].left()


def test_the_words_of_the_allocator_are_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        all_memory()
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
