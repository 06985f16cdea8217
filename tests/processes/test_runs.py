"""Runs of several processes end where the run of one does, and go on in any number of them.

All runs are without dropout and in fp32, so that they differ by the order of sums alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

NO_DROPOUT = ["encoder.hidden_dropout_prob=0", "encoder.attention_probs_dropout_prob=0"]
COMMON = ["precision=fp32", "stop.steps=8", "loop.log_steps=1", "batch.micro_rows=2"]
SETTINGS = {
    # two phases, the second of which has GDES; packed rows
    "gdes": ["test-modern", *COMMON],
    # tied embeddings; pairs of unequal length, so that shares have unequal numbers of tokens
    "tied": ["test-classic", *NO_DROPOUT, *COMMON],
    # the generator is updated in every step, the discriminator in every second; averages
    "adversarial": [
        "test-modern", *COMMON, "phases.mlm.share=0", "phases.rtd.average=0.9",
        "phases.rtd.objective={type='adversarial', discriminator_every=2, mle_weight=1.0}",
    ],
    "other objectives": [
        "test-modern", *COMMON,
        "phases.mlm.objective={type='replace-mlm'}", "phases.rtd.objective={type='all-tokens-mlm'}",
    ],
    "electric": [
        "test-modern", *COMMON,
        "phases.mlm.objective={type='electric'}", "phases.rtd.objective={type='causal'}",
    ],
}  # fmt: skip

Events = Callable[[Path, str], list[dict[str, Any]]]


def command(name: str, corpus: Path, run: Path, *more: str) -> list[str]:
    return ["pretrain", *SETTINGS[name], f"corpus.path={corpus}", f"run.dir={run}", *more]


@pytest.fixture
def alone(group: Any, corpus_dir: Path, tmp_path: Path) -> Callable[[str], Path]:
    """The run of one process."""

    def run(name: str) -> Path:
        assert group.electra(command(name, corpus_dir, tmp_path / "alone"), 1) == [0], group.said()
        return tmp_path / "alone"

    return run


def require_equal(run: Path, alone: Path, events: Events) -> None:
    """Every logged loss, and the weights at the end."""
    ours, theirs = (events(each, "step") for each in (run, alone))
    assert [event["step"] for event in ours] == [event["step"] for event in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one["tokens"] == other["tokens"]
        assert one["figures"]["loss"] == pytest.approx(other["figures"]["loss"], rel=2e-5), one["step"]
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
    files = [path.relative_to(alone) for path in alone.glob("model/**/*.safetensors")]
    assert files
    for file in files:
        found, expected = load_file(run / file), load_file(alone / file)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert (found[name] - tensor).abs().max() < 2e-4, (file, name)


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("gdes", [(2, "ddp"), (4, "ddp"), (2, "fsdp2")]),
        ("tied", [(2, "ddp"), (4, "fsdp2")]),
        ("adversarial", [(2, "ddp"), (2, "fsdp2")]),
        ("other objectives", [(2, "fsdp2")]),
        ("electric", [(2, "fsdp2")]),
    ],
)
def test_any_number_of_processes_ends_in_the_same_place(
    name: str, groups: list[tuple[int, str]], group: Any, alone: Callable[[str], Path], corpus_dir: Path, tmp_path: Path,
    events: Events,
) -> None:  # fmt: skip
    expected = alone(name)
    for size, strategy in groups:
        run = tmp_path / f"{strategy}-{size}"
        assert group.electra(command(name, corpus_dir, run, f"parallel.strategy={strategy}"), size) == [0] * size, group.said()
        [start] = events(run, "start")
        assert (start["processes"], start["strategy"]) == (size, strategy)
        require_equal(run, expected, events)
    assert json.loads((run / "recipe.json").read_text())["resolved"]["micro_rows"] == 2
