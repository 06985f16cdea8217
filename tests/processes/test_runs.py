"""Runs of several processes end where the run of one does, and go on in any number of them.

All runs are without dropout and in fp32, so that they differ by the order of sums alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL, SIGTERM
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
        ("tied", [(2, "ddp"), (2, "fsdp2")]),
        ("adversarial", [(2, "ddp")]),
        pytest.param("adversarial", [(2, "fsdp2")], marks=pytest.mark.soak),
        pytest.param("other objectives", [(2, "fsdp2"), (4, "ddp")], marks=pytest.mark.soak),
        pytest.param("electric", [(4, "fsdp2"), (2, "ddp")], marks=pytest.mark.soak),
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


def test_what_n_processes_have_saved_m_go_on_from(
    group: Any, alone: Callable[[str], Path], corpus_dir: Path, tmp_path: Path, events: Events
) -> None:
    """Sharded in two, stopped by a signal to one of them; whole in four; then in one."""
    expected, run = alone("gdes"), tmp_path / "run"
    argv = command("gdes", corpus_dir, run)
    stop = ("electra.objectives.mlm", "Mlm.forward", 2 + 1, [SIGTERM])  # behind the dry batch, in the first step
    assert group.electra([*argv, "parallel.strategy=fsdp2"], 2, {1: [stop]}) == [75, 75], group.said()
    assert "the state is saved" in group.log(0).read_text()
    assert group.log(1).read_text() == ""
    assert events(run, "stop")[-1]["step"] == 1
    later = ("electra.objectives.rtd", "Rtd.forward", 1, [SIGTERM])
    assert group.electra(argv, 4, {3: [later]}) == [75] * 4, group.said()
    assert events(run, "stop")[-1]["step"] == 6  # the first step of the second phase was finished
    assert group.electra(argv, 1) == [0], group.said()
    require_equal(run, expected, events)


def test_a_batch_that_cannot_be_shared_is_refused_before_anything_is_written(
    group: Any, corpus_dir: Path, tmp_path: Path
) -> None:
    assert group.electra(command("gdes", corpus_dir, tmp_path / "run"), 3) == [2, 2, 2], group.said()
    assert "E-C242 batch.rows: 8 rows do not divide among 3 processes" in group.log(0).read_text()
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def labelled(documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two languages to tell apart; the last batch of an epoch has two examples, so that the third process has none."""
    place = tmp_path_factory.mktemp("labels")
    rows = [f"{'en' if document.isascii() else 'zh'}\t{document}" for document in documents[:60]]
    (place / "train.tsv").write_text("label\ttext\n" + "\n".join(rows[:34]) + "\n", encoding="utf-8")
    (place / "dev.tsv").write_text("label\ttext\n" + "\n".join(rows[40:]) + "\n", encoding="utf-8")
    return [f"data.train={place / 'train.tsv'}", f"data.dev={place / 'dev.tsv'}"]


def test_fine_tuning(group: Any, alone: Callable[[str], Path], labelled: list[str], tmp_path: Path, events: Events) -> None:
    model = alone("gdes") / "model"
    argv = ["finetune", "task=classify", f"init.from={model}", *labelled, "epochs=2", "batch.examples=8", "precision=fp32",
            "batch.micro_tokens=128", "loop.log_steps=1"]  # fmt: skip
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert group.electra([*argv, f"run.dir={whole}"], 1) == [0], group.said()
    # a process that waits for the evaluation of the first one hears a signal, and all stop
    stop = {2: [("electra.build.finetune", "led", 1, [SIGTERM])]}
    assert group.electra([*argv, f"run.dir={run}"], 3, stop) == [75] * 3, group.said()
    assert events(run, "evaluate") == []
    assert group.electra([*argv, f"run.dir={run}"], 3) == [0] * 3, group.said()
    require_equal(run, whole, events)
    ours, theirs = ([event["figures"] for event in events(each, "evaluate")] for each in (run, whole))
    assert len(ours) == 2
    assert [one["accuracy"] for one in ours] == [one["accuracy"] for one in theirs]
    assert (run / "evaluation.json").is_file()


def test_a_process_that_is_killed_ends_all_and_the_same_command_goes_on(
    group: Any, corpus_dir: Path, tmp_path: Path, events: Events
) -> None:
    """Under torch's elastic agent, which starts all of them again; to the same bits as without it."""
    often = ["loop.save_minutes=0", "stop.steps=6"]
    whole, run = (command("gdes", corpus_dir, tmp_path / name, *often) for name in ("whole", "run"))
    assert group.electra(whole, 2) == [0, 0], group.said()
    kill = ("electra.train.loop", "_evaluate", 2 * 2 + 1 + 3, [SIGKILL])  # two dry batches, a first look, then behind step 3
    given = {"argv": run, "moments": {"1": [kill]}, "directory": str(tmp_path), "size": 2}
    assert group.start(Path(__file__).with_name("elastic.py"), given, 1) == [0], group.said()
    assert "E-R800 process 0 of 2" in (tmp_path / "attempt-0-0.log").read_text()
    assert [start["step"] for start in events(tmp_path / "run", "start")] == [0, 2]
    for file in (tmp_path / "whole").glob("model/**/*.safetensors"):
        assert (tmp_path / "run" / file.relative_to(tmp_path / "whole")).read_bytes() == file.read_bytes()
    steps = [[event["figures"] for event in events(tmp_path / name, "step")] for name in ("whole", "run")]
    assert steps[0] == steps[1]
