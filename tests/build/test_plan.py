"""A plan is what the run does: the same checks, the same steps, the same places; and it leaves nothing behind."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import electra
from electra.build import finetune, needs, pretrain
from electra.build.finetune import FinetuneRecipe
from electra.build.finetune import Setting as FinetuneSetting
from electra.build.needs import Room, examine
from electra.build.plan import Plan, plan, to_json, to_lines
from electra.config import load
from electra.errors import ElectraError, ExitCode
from electra.train import machine
from electra.train.loop import Training

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def given(corpus_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Settings of a run that does not exist yet, and no time for probes."""
    monkeypatch.setattr("electra.build.plan._PROBE_SECONDS", 0.0)
    monkeypatch.setattr(pretrain, "_PROBE_SECONDS", 0.0)
    for room in (pretrain, finetune):
        monkeypatch.setattr(room, "write_report", lambda directory: directory)  # pictures take longer than the run
    return [f"corpus.path={corpus_dir}", f"run.dir={tmp_path / 'run'}", "stop.steps=6", "precision=fp32"]


@pytest.fixture(scope="module")
def model(corpus_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("first") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "write_report", lambda directory: directory)
        settings = [f"corpus.path={corpus_dir}", f"run.dir={run}", "stop.steps=2", "precision=fp32"]
        return electra.pretrain(["test-modern"], settings)


@pytest.fixture
def tuning(model: Path, tmp_path: Path, given: list[str]) -> list[str]:
    """Settings of a fine-tuning run."""
    rows = "".join(f"{word} {number}\t{word}\n" for number in range(20) for word in ("老师", "reader"))
    (tmp_path / "train.tsv").write_text(f"text\tlabel\n{rows}", encoding="utf-8")
    return ["task=classify", f"init.from={model}", f"data.train={tmp_path / 'train.tsv'}", *given[1:2], "precision=fp32"]


def refusal(call: Callable[..., Any], *arguments: Any) -> ElectraError:
    with pytest.raises(ElectraError) as caught:
        call(*arguments)
    return caught.value


# -- what it says -------------------------------------------------------------------------------------------------------


def test_every_value_stands_there_as_the_run_will_have_it_with_its_origin(given: list[str], tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("extends = 'test-classic'\n[batch]\nrows = 4\n", encoding="utf-8")
    found = {each.path: (each.value, each.origin) for each in plan([mine], given).settings}
    assert found["stop.steps"] == (6, "command line")
    assert found["batch.rows"] == (4, str(mine))
    assert found["encoder.hidden_size"] == (32, "test-classic")
    assert found["phases.rtd.objective.masking.rate"] == (0.15, "electra-small")
    assert found["loop.keep"] == (2, "default")
    assert found["encoder.vocab_size"][1] == "tokenizer"
    assert found["encoder.vocab_size"][0] > 100
    assert found["batch.micro_rows"] == (4, "probe")


def test_the_run_does_what_was_planned_and_writes_where_it_was_said(given: list[str], tmp_path: Path) -> None:
    settings = [*given, "loop.tensorboard=true"]
    planned = plan(["test-modern"], settings)
    assert (planned.verb, planned.step, planned.steps) == ("pretrain", 0, 6)
    assert not (tmp_path / "run").exists()
    electra.pretrain(["test-modern"], settings)
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert written | {"report.html"} == {path.split("/")[0] for path in planned.writes}
    resolved = json.loads((tmp_path / "run" / "recipe.json").read_text(encoding="utf-8"))["resolved"]
    assert resolved["spans"] == [{"name": p.name, "first": p.first, "steps": p.steps} for p in planned.phases]
    # a checkpoint is what was said, but for names and shapes in its files; one more than are kept has to find room
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    weight = sum(path.stat().st_size for path in newest.iterdir())
    assert planned.writes["checkpoints/"] / 3 == pytest.approx(weight, rel=0.25)


def test_counts_of_the_data_and_passes_over_it(given: list[str]) -> None:
    found = plan(["test-modern"], [*given, "stop.steps=500"])
    assert found.data["documents"] == 500
    rows = 500 * 8
    assert sum(phase.epochs["corpus"] for phase in found.phases) == pytest.approx(rows / found.data["rows"])
    assert found.data["rows"] * found.data["tokens of a row"] == pytest.approx(found.data["tokens"])


def test_lines_and_json_say_the_same(given: list[str]) -> None:
    found = plan(["test-modern"], given)
    text, tree = "\n".join(to_lines(found)), json.loads(to_json(found))
    for told in (
        "electra pretrain starts",
        "phase mlm: steps 0 to 4",
        "command line",
        "report.html",
        "measured",
        "time: about",
    ):
        assert told in text
    assert tree["steps"] == 6
    assert {each["path"] for each in tree["settings"]} >= {"encoder.hidden_size", "init.from"}
    assert tree["phases"][0]["need"]["parameters"] == {"encoder": found.phases[0].need.parameters["encoder"]}


def test_hours_become_steps(given: list[str]) -> None:
    found = plan(["modern-demo"], [*given[:2], "precision=fp32", "stop.hours=0.01", "rows.length=32"])
    assert found.seconds == pytest.approx(36, rel=0.2)


# -- runs that are there already ----------------------------------------------------------------------------------------


def test_a_run_that_is_there_is_resumed_with_what_it_resolved(given: list[str], tmp_path: Path) -> None:
    electra.pretrain(["test-modern"], given)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    shutil.rmtree(max((tmp_path / "run" / "checkpoints").iterdir()))
    found = plan(["test-modern"], given)
    assert (found.step, found.steps, found.phases[1].steps) == (4, 6, 2)
    assert found.seconds == pytest.approx(2 * found.phases[1].need.seconds / 0.95)
    assert "resumes at step 4" in next(to_lines(found))
    assert all(path.read_bytes() == content for path, content in before.items() if path.is_file())


def test_another_recipe_in_the_same_place_is_refused_as_the_run_refuses_it(given: list[str]) -> None:
    electra.pretrain(["test-modern"], given)
    other = [*given, "run.seed=1"]
    assert refusal(plan, ["test-modern"], other).code == refusal(electra.pretrain, ["test-modern"], other).code == "E-C420"


def test_a_corpus_that_was_changed_is_refused(given: list[str], corpus_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus_dir, tmp_path / "copy")
    settings = [f"corpus.path={tmp_path / 'copy'}", *given[1:]]
    electra.pretrain(["test-modern"], settings)
    shard = tmp_path / "copy" / "shard-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    refused = refusal(plan, ["test-modern"], settings)
    assert (refused.code, refused.exit_code) == ("E-D123", ExitCode.DATA)


# -- what cannot work ---------------------------------------------------------------------------------------------------


def both_refuse(settings: list[str], code: str, tmp_path: Path) -> ElectraError:
    """The plan and the run end with one error, before there is a directory."""
    refused = [refusal(call, ["test-modern"], settings) for call in (plan, electra.pretrain)]
    assert [each.code for each in refused] == [code, code]
    assert not (tmp_path / "run").exists()
    return refused[0]


def test_too_little_disk(given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs.shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 10**6, 10**6))
    refused = both_refuse(given, "E-R403", tmp_path)
    assert refused.exit_code == ExitCode.RESOURCES
    assert "1.00 MB are free" in refused.cause


def test_what_a_run_has_written_counts_as_room_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "weights").write_bytes(bytes(1000))
    monkeypatch.setattr(needs.shutil, "disk_usage", lambda path: Usage(100, 0, 100))
    needs.require_disk(tmp_path, 1100)
    assert refusal(needs.require_disk, tmp_path, 1101).code == "E-R403"


def test_a_place_that_may_not_be_written(given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs.os, "access", lambda path, mode: Path(path) != tmp_path and os.path.exists(path))  # noqa: PTH110
    assert str(tmp_path) in both_refuse(given, "E-R405", tmp_path).cause


def test_too_little_memory_for_the_networks(given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 100_000)
    both_refuse(given, "E-R404", tmp_path)


def test_too_little_memory_for_one_row(given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the networks of the first phase take .6 MB, a row a little more
    monkeypatch.setattr(machine, "free_memory", lambda: 700_000)
    both_refuse(given, "E-R240", tmp_path)


def test_an_extra_that_is_not_installed(given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("electra.tensorboard.find_spec", lambda name: None)
    refused = both_refuse([*given, "loop.tensorboard=true"], "E-R310", tmp_path)
    assert "electra-toolkit[tensorboard]" in refused.fix
    plan(["test-modern"], given)  # nobody asked for it


# -- memory -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["test-classic", "test-modern"])
@pytest.mark.parametrize("bf16", [False, True])
def test_the_estimate_of_activations_is_what_a_full_batch_keeps(
    training_of: Callable[..., Training], recipe: str, bf16: bool
) -> None:
    training = training_of(recipe, "batch.rows=32", micro_rows=32, bf16=bf16)
    batch, noise = next(iter(training.loader.micro_batches(0, 0, 1)))
    need = examine(training_of(recipe, "batch.rows=32", micro_rows=32, bf16=bf16), 0.0, Room(free=None, program=None))
    assert need.activations == pytest.approx(needs._kept_bytes(training, batch, noise), rel=0.15)
    assert need.positions == 32 * 32


def test_weights_gradients_and_optimiser_are_counted_once_however_often_they_are_shared(
    training_of: Callable[..., Training],
) -> None:
    training = training_of("test-classic")
    need = examine(training, 0.0, Room(free=None, program=None))
    parameters = sum(parameter.numel() for parameter in training.module.parameters())
    assert sum(need.parameters.values()) == parameters
    assert (need.gradients, need.optimizer) == (4 * parameters, 8 * parameters)
    assert need.weights >= need.gradients
    assert 3 * need.gradients == training.optimizers.state_bytes


def test_micro_batches_are_halved_until_the_estimate_fits(training_of: Callable[..., Training]) -> None:
    whole = examine(training_of("test-classic"), 0.0, Room(free=None, program=None))
    training = training_of("test-classic")
    room = Room(free=whole.memory - whole.activations // 4, program=None)
    need = examine(training, 0.0, room)
    assert need.positions == whole.positions // 2 == training.loader.positions
    assert need.memory <= room.free


def test_the_micro_batch_that_was_probed_goes_to_the_recipe(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = max(phase.need.memory for phase in plan(["test-modern"], given).phases)
    monkeypatch.setattr(machine, "free_memory", lambda: largest - 100_000)
    found = plan(["test-modern"], given)
    (micro,) = [each for each in found.settings if each.path == "batch.micro_rows"]
    assert (micro.value, micro.origin) == (4, "probe")


def test_free_memory_is_what_the_machine_says_and_a_container_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_LIMITS", ())
    free = machine.free_memory()
    assert free is None or free > 10**7
    if free is not None:
        limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
        monkeypatch.setattr(machine, "_LIMITS", ((limit, used),))
        limit.write_text("max\n", encoding="ascii")
        assert machine.free_memory() == pytest.approx(free, rel=0.5)
        limit.write_text("3000000\n", encoding="ascii")
        used.write_text("2500000\n", encoding="ascii")
        (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 300000\n", encoding="ascii")
        assert machine.free_memory() == 800_000


# -- fine-tuning --------------------------------------------------------------------------------------------------------


def test_fine_tuning_is_planned_by_the_same_verb(tuning: list[str], tmp_path: Path) -> None:
    found: Plan = plan([], tuning)
    assert (found.verb, found.steps, found.data["examples"]) == ("finetune", 6, 40)
    assert [phase.name for phase in found.phases] == ["supervised"]
    assert {each.path: each.origin for each in found.settings}["task.type"] == "command line"
    assert not (tmp_path / "run").exists()
    electra.finetune([], tuning)
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert written | {"report.html"} == {path.split("/")[0] for path in found.writes}


def test_the_dry_step_of_fine_tuning_leaves_the_weights_as_they_were(tuning: list[str]) -> None:
    setting = FinetuneSetting(load(FinetuneRecipe, [], [*tuning, "optimizer.warmup_ratio=0.0", "optimizer.lr=0.1"]))
    before = {name: tensor.clone() for name, tensor in setting.source.encoder.state_dict().items()}
    setting.survey(0.5)
    after = setting.source.encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_fine_tuning_that_does_not_fit_is_refused(tuning: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 100_000)
    assert {refusal(call, [], tuning).code for call in (plan, electra.finetune)} == {"E-R404"}


def test_a_recipe_without_a_task_is_one_of_pre_training(given: list[str]) -> None:
    assert refusal(plan, ["test-modern"], [*given, "batch.examples=3"]).where == "batch.examples"
    assert refusal(plan, ["finetune-small"], given[1:2]).where == "task"


def test_a_plan_is_a_value(given: list[str]) -> None:
    found = plan(["test-modern"], given)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.steps = 7  # type: ignore[misc]
