"""How a process that predicts is set up."""

from __future__ import annotations

import pytest
import torch

from electra.train import machine


def test_threads_are_the_available_cores_unless_the_user_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(machine, "available_cores", lambda: before + 2)
    try:
        machine.prepare_to_predict()  # the tests run with OMP_NUM_THREADS
        assert torch.get_num_threads() == before
        monkeypatch.delenv("OMP_NUM_THREADS")
        machine.prepare_to_predict()
        assert torch.get_num_threads() == before + 2
    finally:
        torch.set_num_threads(before)
