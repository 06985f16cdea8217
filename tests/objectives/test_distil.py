"""Teacher and student: the divergence and its gradient, who learns from what, both teachers, and what a resume needs."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from electra.build import pretrain
from electra.config import load
from electra.contracts import Batch, Noise, Phase
from electra.errors import ElectraError, Preempted
from electra.events import Event, EventLog
from electra.models.model_dir import Provenance, load_model_dir, save_model_dir
from electra.objectives.distil import Distil
from electra.objectives.soft_targets import divergence
from electra.train.checkpoint import Checkpoints, own_tensors
from electra.train.loop import Training, train
from electra.train.machine import StopFlag

Build = Callable[..., Training]
DISTIL = ("phases.rtd.objective.type=distil",)
AVERAGE = (*DISTIL, "phases.rtd.objective.teacher=average", "phases.rtd.objective.teacher.decay=0.6")
AT_ONCE = ("phases.rtd.optimizer={lr=1e-3, warmup_ratio=0.0}", "loop.log_steps=1")
NO_DROPOUT = ("encoder.hidden_dropout_prob=0.0", "encoder.attention_probs_dropout_prob=0.0")


@pytest.fixture(scope="module")
def teacher(training_of: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model of another width, with weights that are not small."""
    objective = training_of("test-modern", "phases.rtd.objective.type=mlm", "encoder.hidden_size=48").objective
    assert isinstance(objective, torch.nn.Module)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    path = tmp_path_factory.mktemp("teacher") / "model"
    objective.export(path)
    return path


def first(training: Training) -> tuple[Distil, Batch, Noise]:
    [(batch, noise)] = training.loader.micro_batches(0, 0, 1)
    assert isinstance(training.objective, Distil)
    return training.objective, batch, noise


# -- the divergence -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 300])
def test_divergence_and_gradient_are_those_of_plain_torch(count: int) -> None:
    """300 positions are more than one part of the teacher's logits."""
    torch.manual_seed(0)
    own = [torch.randn(shape, dtype=torch.float32, requires_grad=True) for shape in ((count, 6), (37, 6), (37,))]
    theirs = [torch.randn(shape) for shape in ((count, 4), (37, 4), (37,))]
    weight_N = torch.rand(count)
    kl_N = divergence(*own, *theirs, 2.5)
    ours = torch.autograd.grad((kl_N * weight_N).sum(), own)
    logits = [(hidden @ table.t() + bias) / 2.5 for hidden, table, bias in (own, theirs)]
    expected_N = F.kl_div(logits[0].log_softmax(-1), logits[1].softmax(-1), reduction="none").sum(-1)
    torch.testing.assert_close(kl_N, expected_N, rtol=1e-5, atol=1e-5)
    for mine, plain in zip(ours, torch.autograd.grad((expected_N * weight_N).sum(), own), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-5)


def test_under_autocast_the_softmax_is_fp32() -> None:
    """Equal bf16 logits have no divergence, where a bf16 softmax over 500 entries would be off in the third digit."""
    torch.manual_seed(0)
    hidden, table, bias = torch.randn(9, 8, requires_grad=True), torch.randn(500, 8), torch.zeros(500)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same = divergence(hidden, table, bias, hidden.detach(), table, bias, 1.0)
        other = divergence(hidden, table, bias, torch.zeros(9, 8), table, bias, 1.0)
    assert same.dtype == torch.float32
    assert float(same.detach().abs().max()) < 1e-6
    exact = math.log(500) - (hidden.detach().bfloat16() @ table.bfloat16().t()).float().log_softmax(-1).mean(-1).neg()
    torch.testing.assert_close(other.detach(), -exact, rtol=1e-4, atol=1e-4)


# -- the terms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["test-classic", "test-modern"])
def test_the_terms_by_hand(training_of: Build, teacher: Path, recipe: str) -> None:
    """A modern teacher of another width for students of both families."""
    dropout = NO_DROPOUT if recipe == "test-classic" else ()
    objective, batch, noise = first(training_of(recipe, *DISTIL, f"phases.rtd.objective.teacher.path={teacher}", *dropout))
    losses = objective(batch, noise, objective.phases(0, 1)[0])
    masked = batch.tokens.clone()
    masked.view(-1)[batch.targets["drawn"][batch.targets["is_mask"]]] = objective.mask_id
    weight = batch.targets["drawn_weight"].view(-1) > 0
    drawn = batch.targets["drawn"].view(-1)[weight]
    source, student = load_model_dir(teacher), objective.student.model
    assert source.mlm_head is not None
    read = [encoder(masked, batch.positions, batch.types, batch.layout) for encoder in (student.encoder, source.encoder)]
    logits = [
        head(hidden.flatten(0, 1)[drawn], encoder.embeddings.table)
        for head, hidden, encoder in zip((student.head, source.mlm_head), read, (student.encoder, source.encoder), strict=True)
    ]
    text = F.cross_entropy(logits[0], batch.tokens.view(-1)[drawn], reduction="sum")
    soft = 4 * F.kl_div((logits[0] / 2).log_softmax(-1), (logits[1] / 2).softmax(-1), reduction="sum")
    own, theirs = (hidden[batch.layout.real] for hidden in (objective.student.projection(read[0]), read[1]))
    hidden = (1 - F.cosine_similarity(own, theirs, dim=-1)).sum()
    for name, expected, unit, factor in (
        ("mlm", text, "drawn", 1.0), ("soft", soft, "drawn", 2.5), ("hidden", hidden, "tokens", 0.5),
    ):  # fmt: skip
        term = losses.terms[name]
        torch.testing.assert_close(term.total, expected, rtol=1e-4, atol=1e-3, msg=name)
        assert (term.unit, term.weight) == (unit, factor)
    figures = objective.summarise(losses.totals)
    means = [
        float(total.detach()) / batch.counts[unit] for total, unit in ((text, "drawn"), (soft, "drawn"), (hidden, "tokens"))
    ]
    assert figures["loss"] == pytest.approx(means[0] + 2.5 * means[1] + 0.5 * means[2], rel=1e-4)


def test_micro_batches_change_nothing(training_of: Build, teacher: Path) -> None:
    settings = ("test-classic", *AT_ONCE, *NO_DROPOUT, *DISTIL, f"phases.rtd.objective.teacher.path={teacher}")
    ended = []
    for micro_rows in (8, 3):
        training = training_of(*settings, steps=2, micro_rows=micro_rows)
        train(training, None, StopFlag())
        ended.append(own_tensors(training.module))
    for name, tensor in ended[0].items():
        torch.testing.assert_close(ended[1][name], tensor, rtol=0, atol=2e-6, msg=name)


# -- teachers -----------------------------------------------------------------------------------------------------------


def test_a_teacher_from_a_directory_is_frozen_and_stays_out_of_the_checkpoint(training_of: Build, teacher: Path) -> None:
    training = training_of("test-classic", *AT_ONCE, *DISTIL, f"phases.rtd.objective.teacher.path={teacher}", steps=2)
    objective, _, _ = first(training)
    before = {name: tensor.clone() for name, tensor in objective.teacher.named_buffers()}
    train(training, None, StopFlag())
    assert not objective.teacher.training
    assert objective.student.training
    assert before
    assert all(torch.equal(tensor, before[name]) for name, tensor in objective.teacher.named_buffers())
    assert not list(objective.teacher.parameters())
    assert all(name.startswith("student.") for name in own_tensors(objective))


def test_the_projection_is_learnt_and_not_exported(training_of: Build, teacher: Path, tmp_path: Path) -> None:
    training = training_of("test-classic", *AT_ONCE, *DISTIL, f"phases.rtd.objective.teacher.path={teacher}", steps=2)
    objective, _, _ = first(training)
    assert isinstance(objective.student.projection, torch.nn.Linear)
    before = objective.student.projection.weight.detach().clone()
    train(training, None, StopFlag())
    assert not torch.equal(objective.student.projection.weight, before)
    objective.export(tmp_path / "model")
    loaded = load_model_dir(tmp_path / "model")
    assert loaded.mlm_head is not None
    assert loaded.encoder.state_dict().keys() == objective.student.model.encoder.state_dict().keys()


def averaged(training: Training, tmp_path: Path) -> tuple[list[Event], dict[str, Tensor]]:
    events: list[Event] = []
    training.log, training.checkpoints = EventLog(None, [events.append]), Checkpoints(tmp_path, keep=2)
    train(training, None, StopFlag())
    return events, own_tensors(training.module)


@pytest.mark.parametrize("updates", ["joint", "alternating"])
def test_the_average_is_that_of_the_steps_and_resumes(training_of: Build, tmp_path: Path, updates: str) -> None:
    """4 steps by hand: the decay is .1, 2/11, 3/12, 4/13, all below .6. Stopped after 2 and resumed = not stopped."""
    settings = (*AT_ONCE, *AVERAGE, f"phases.rtd.objective.updates={updates}")

    def fresh() -> Training:
        return training_of("test-classic", *settings, steps=4)

    training = fresh()
    objective, _, _ = first(training)
    name, own = next((name, own) for name, own in objective.student.model.named_parameters() if own.ndim == 2)
    expected, seen, plain = own.detach().clone(), [own.detach().clone()], objective.updated

    def noted() -> None:
        seen.append(own.detach().clone())
        plain()

    objective.updated = noted  # type: ignore[method-assign]
    events, whole = averaged(training, tmp_path / "whole")
    for update, weight in enumerate(seen[1:]):
        decay = min(0.6, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(whole[f"teacher.{name}"], expected)
    assert float(whole["updates"]) == 4
    assert not torch.equal(seen[1], seen[2])

    stop, begun = StopFlag(), fresh()
    begun.checkpoints = Checkpoints(tmp_path / "run", keep=2)
    calls = iter(range(100))
    half = 2 * len(objective.phases(0, 4)) - 1
    begun.module.register_forward_hook(lambda *given: setattr(stop, "requested", next(calls) >= half) or None)
    with pytest.raises(Preempted):
        train(begun, None, stop)
    resumed = fresh()
    resumed.checkpoints = begun.checkpoints
    found = resumed.checkpoints.newest_state(pytest.fail)
    assert found is not None
    assert found[1].step == 2
    resumed.checkpoints.load(found[0], resumed.module, resumed.optimizers)
    told: list[Event] = []
    resumed.log = EventLog(None, [told.append])
    train(resumed, found[1], StopFlag())
    assert all(torch.equal(tensor, whole[key]) for key, tensor in own_tensors(resumed.module).items())
    figures = [[event["figures"] for event in log if event["event"] == "step"][-2:] for log in (told, events)]
    assert figures[0] == figures[1]


# -- alternating updates ------------------------------------------------------------------------------------------------


def test_alternating_updates_learn_from_the_text_and_then_from_the_teacher(training_of: Build, teacher: Path) -> None:
    path = f"phases.rtd.objective.teacher.path={teacher}"
    settings = (*AT_ONCE, *DISTIL, *NO_DROPOUT, path, "phases.rtd.objective.updates=alternating")
    training = training_of("test-classic", *settings, steps=1)
    objective, batch, noise = first(training)
    text, soft = objective.phases(0, 1)
    assert [set(objective(batch, noise, phase).terms) for phase in (text, soft)] == [{"mlm"}, {"soft", "hidden"}]
    joint = objective(batch, noise, Phase(name="joint", networks=("encoder",)))
    for phase in (text, soft):
        for name, term in objective(batch, noise, phase).terms.items():
            torch.testing.assert_close(term.total, joint.terms[name].total, rtol=1e-5, atol=1e-4)
    events: list[Event] = []
    training.log = EventLog(None, [events.append])
    train(training, None, StopFlag())
    figures = next(event["figures"] for event in events if event["event"] == "step")
    assert {"loss", "mlm_loss", "soft_loss", "hidden_loss"} <= figures.keys()
    counter = training.optimizers.state_tensors()["encoder.model.head.bias.step"]
    assert float(counter) == 1e7 + 2, "two updates a step, without bias correction"


# -- what is refused ----------------------------------------------------------------------------------------------------


def test_a_teacher_without_the_head_is_refused(training_of: Build, tmp_path: Path) -> None:
    objective = training_of("test-modern", "phases.rtd.objective.type=fixed-generator").objective
    objective.export(tmp_path / "model")
    with pytest.raises(ElectraError, match="E-M510"):
        training_of("test-classic", *DISTIL, f"phases.rtd.objective.teacher.path={tmp_path / 'model'}")


def test_a_classic_teacher_with_fewer_positions_is_refused(training_of: Build, tmp_path: Path) -> None:
    mlm = "phases.rtd.objective.type=mlm"
    training_of("test-classic", mlm, "encoder.max_position_embeddings=40").objective.export(tmp_path / "model")
    given = (*DISTIL, f"phases.rtd.objective.teacher.path={tmp_path / 'model'}")
    with pytest.raises(ElectraError, match=r"E-M511.*encoder.max_position_embeddings=40"):
        training_of("test-modern", *given)
    training_of("test-modern", *given, "encoder.max_position_embeddings=40")


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (("phases.rtd.objective.soft_weight=-1",), "E-C555"),
        (("phases.rtd.objective.soft_weight=0", "phases.rtd.objective.hidden_weight=0"), "E-C555"),
        (("phases.rtd.objective.temperature=0",), "E-C555"),
        (("phases.rtd.objective.teacher.decay=1",), "E-C554"),
    ],
)
def test_settings_that_teach_nothing(training_of: Build, wrong: tuple[str, ...], code: str) -> None:
    with pytest.raises(ElectraError, match=code):
        training_of("test-classic", *AVERAGE, *wrong)


def test_a_run_whose_teacher_has_changed_is_not_resumed(
    teacher: Path, corpus_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain, "write_report", lambda directory: directory)
    copied = tmp_path / "model"
    shutil.copytree(teacher, copied)
    places = [f"corpus.path={corpus_dir}", f"run.dir={tmp_path / 'run'}", f"phases.rtd.objective.teacher.path={copied}"]
    recipe = load(pretrain.PretrainRecipe, ["test-classic"], [*DISTIL, *places, "stop.steps=2", "precision=fp32"])
    model = load_model_dir(pretrain.pretrain(recipe))
    assert model.mlm_head is not None
    assert pretrain.pretrain(recipe) == model.path
    network = load_model_dir(copied)
    with torch.no_grad():
        network.encoder.embeddings.table.add_(1.0)
    save_model_dir(
        copied, encoder=network.encoder, head=network.mlm_head, provenance=Provenance(tokenizer=network.tokenizer(), card=str)
    )
    with pytest.raises(ElectraError, match=r"E-D400.*the teacher of rtd has changed"):
        pretrain.pretrain(recipe)
