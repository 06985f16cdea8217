"""A generator that is trained already: what it samples, what is kept on disk, and what a damaged cache does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from electra.build.pretrain import PretrainRecipe, Setting, pretrain
from electra.config import load
from electra.errors import ElectraError
from electra.events import EventLog
from electra.models.model_dir import load_model_dir
from electra.objectives.frozen_generator import FrozenGenerator
from electra.objectives.masked import fill, sampling_noise
from electra.objectives.sample_cache import SampleCache
from electra.storage import file_hash
from electra.train.checkpoint import own_tensors
from electra.train.loop import Span, Training, train
from electra.train.machine import StopFlag

STEPS = 4
FROZEN = ("phases.rtd.objective.type=frozen-generator", "loop.log_steps=1", "phases.rtd.optimizer.warmup_ratio=0.0")
CONTEXT = bytes(range(16))


@pytest.fixture(scope="session")
def generator(training_of: Callable[..., Training], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with a masked language model, as a run writes it."""
    path = tmp_path_factory.mktemp("generator") / "model"
    t = training_of("test-classic", "phases.rtd.objective.type=mlm")
    with torch.no_grad():
        for parameter in t.module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    t.objective.export(path)
    return path


@pytest.fixture
def build(corpus_dir: Path, generator: Path) -> Callable[..., Training]:
    """A training with this generator, as a run has it."""

    def built(*settings: str, recipe: str = "test-classic", micro: int = 8, lasting: bool = True) -> Training:
        given = [f"corpus.path={corpus_dir}", "run.dir=nowhere", *FROZEN, f"phases.rtd.objective.generator={generator}"]
        setting = Setting(load(PretrainRecipe, [recipe], [*given, *settings]))
        return setting.training(Span(name="rtd", first=0, steps=STEPS), None, micro, False, card=str, lasting=lasting)

    return built


def run(t: Training) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The figures of each step, and the weights at the end."""
    figures: list[dict[str, float]] = []
    t.log = EventLog(None, [lambda event: figures.append(event["figures"]) if event["event"] == "step" else None])
    train(t, None, StopFlag())
    return figures, own_tensors(t.module)


def without_cache(figures: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in each.items() if not name.startswith("cache")} for each in figures]


def forbid(t: Training) -> None:
    """From now on the generator must not run."""
    assert isinstance(t.objective, FrozenGenerator)
    t.objective.generator.register_forward_pre_hook(lambda module, given: pytest.fail("the generator ran"))


def files(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.samples"))


# -- the generator ------------------------------------------------------------------------------------------------------


def test_it_is_never_trained_and_has_no_dropout(build: Callable[..., Training], generator: Path) -> None:
    t = build()
    objective = t.objective
    assert isinstance(objective, FrozenGenerator)
    run(t)
    assert t.module.training
    assert not any(module.training for module in objective.generator.modules())
    source = load_model_dir(generator)
    assert set(t.optimizers.parameters) == {"discriminator"}
    for name, tensor in source.encoder.state_dict().items():
        assert torch.equal(objective.generator.model.encoder.state_dict()[name], tensor), name
    [(batch, noise)] = t.loader.micro_batches(0, 0, 1)
    uniform = sampling_noise(noise, batch)
    twice = [objective.generator(batch, objective.mask_id, uniform, 1.0) for _ in range(2)]
    assert torch.equal(*twice)
    assert source.mlm_head is not None
    assert torch.equal(twice[0], fill(objective.generator.model, batch, objective.mask_id, uniform).guess.sampled_N)  # type: ignore[arg-type]
    t.objective.export(generator.with_name("result"))
    saved = load_model_dir(generator.with_name("result"))
    assert saved.generator is not None
    assert saved.rtd_head is not None


def test_the_temperature_falls_to_one(build: Callable[..., Training]) -> None:
    t = build("phases.rtd.objective.temperature=3.0")
    seen: list[float] = []
    assert isinstance(t.objective, FrozenGenerator)
    t.objective.generator.register_forward_pre_hook(lambda module, given: seen.append(given[3]))
    run(t)
    assert seen == pytest.approx([1 + 2 * np.exp(-step / STEPS / 0.1) for step in range(STEPS)])


def test_the_term_is_that_of_the_discriminator(build: Callable[..., Training]) -> None:
    t = build("phases.rtd.objective.masking.final_rate=0.3")
    figures, _ = run(t)
    assert all(each["loss"] == each["rtd_loss"] for each in figures)
    assert "mlm_loss" not in figures[0]


def test_what_does_not_fit_is_refused(
    build: Callable[..., Training], training_of: Callable[..., Training], tmp_path: Path
) -> None:
    refused = [
        (f"phases.rtd.objective.generator={tmp_path / 'none'}", "E-M200"),
        ("phases.rtd.objective.temperature=0.0", "E-C431"),
        ("encoder.max_position_embeddings=1024", "E-M511"),
    ]
    bare = tmp_path / "bare"  # has a discriminator alone
    training_of("test-classic", "phases.rtd.objective.type=fixed-generator").objective.export(bare)
    for setting, code in [*refused, (f"phases.rtd.objective.generator={bare}", "E-M510")]:
        with pytest.raises(ElectraError) as caught:
            build(setting)
        assert caught.value.code == code


def test_of_two_masked_language_models_the_one_that_reads_masks_fills(
    training_of: Callable[..., Training], tmp_path: Path
) -> None:
    """The encoder that Replace MLM trains has never seen [MASK]."""
    source = training_of("test-modern", "phases.rtd.objective.type=replace-mlm")
    source.objective.export(tmp_path / "model")
    frozen = ("phases.rtd.objective=frozen-generator", f"phases.rtd.objective.generator={tmp_path / 'model'}")
    t = training_of("test-modern", *frozen)
    expected = source.objective.networks["generator"].state_dict()["head.dense.weight"]
    assert torch.equal(t.module.state_dict()["generator.model.head.dense.weight"], expected)


def test_a_first_phase_needs_a_model() -> None:
    with pytest.raises(ElectraError, match="E-C510"):
        load(PretrainRecipe, ["test-classic"], ["corpus.path=c", "run.dir=r", *FROZEN])
    load(PretrainRecipe, ["test-classic"], ["corpus.path=c", "run.dir=r", *FROZEN, "init.from=model"])
    load(PretrainRecipe, ["electra-small-two-stage"], ["corpus.path=c", "run.dir=r"])


# -- the cache ----------------------------------------------------------------------------------------------------------


def test_a_cache_that_is_a_file_is_told_before_the_first_step(build: Callable[..., Training], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("mine", encoding="utf-8")
    with pytest.raises(ElectraError, match=r"E-R002 .*cache: cannot be written: it is no directory"):
        build(f"phases.rtd.objective.cache={tmp_path / 'cache'}")


@pytest.mark.parametrize("recipe", ["test-classic", "test-modern"])
def test_a_second_run_takes_its_samples_from_the_first(build: Callable[..., Training], tmp_path: Path, recipe: str) -> None:
    """Exactly those, without running the generator; and both are what a run without cache computes."""
    cache = f"phases.rtd.objective.cache={tmp_path / 'cache'}"
    plain, weights = run(build(recipe=recipe, micro=3))
    first, stored = run(build(cache, recipe=recipe, micro=3))
    again = build(cache, recipe=recipe, micro=3)
    forbid(again)
    second, found = run(again)
    assert plain == without_cache(first) == without_cache(second)
    for name, tensor in weights.items():
        assert torch.equal(stored[name], tensor), name
        assert torch.equal(found[name], tensor), name
    assert [each["cached_share"] for each in first] == [0.0] * STEPS
    assert [each["cached_share"] for each in second] == [1.0] * STEPS
    [file] = files(tmp_path / "cache")
    assert second[-1]["cache_mb"] == pytest.approx(file.stat().st_size / 1e6)


@pytest.mark.parametrize(
    "other",
    ["run.seed=1", "rows.length=30", "batch.rows=6", "phases.rtd.objective.masking.rate=0.2",
     "phases.rtd.objective.masking.mask_token_rate=1.0", "phases.rtd.objective.temperature=2.5"],
)  # fmt: skip
def test_what_samples_depend_on_finds_others(build: Callable[..., Training], tmp_path: Path, other: str) -> None:
    cache = f"phases.rtd.objective.cache={tmp_path / 'cache'}"
    run(build(cache))
    figures, _ = run(build(cache, other))
    assert figures[0]["cached_share"] == 0.0
    assert without_cache(figures) == run(build(other))[0]


def test_another_generator_finds_nothing(build: Callable[..., Training], tmp_path: Path) -> None:
    cache = f"phases.rtd.objective.cache={tmp_path / 'cache'}"
    run(build(cache))
    t = build(cache)
    assert isinstance(t.objective, FrozenGenerator)
    with torch.no_grad():
        t.objective.generator.model.head.bias[7] += 1e-6
    assert run(t)[0][0]["cached_share"] == 0.0


def test_without_temperature_the_length_of_the_run_does_not_matter(build: Callable[..., Training], tmp_path: Path) -> None:
    settings = (f"phases.rtd.objective.cache={tmp_path / 'cache'}", "phases.rtd.objective.temperature=1.0")
    run(build(*settings))
    longer = build(*settings)
    longer.span = Span(name="rtd", first=0, steps=STEPS + 2)
    figures, _ = run(longer)
    assert [each["cached_share"] for each in figures] == [1.0] * STEPS + [0.0] * 2


def test_a_probe_writes_nothing(build: Callable[..., Training], tmp_path: Path) -> None:
    run(build(f"phases.rtd.objective.cache={tmp_path / 'cache'}", lasting=False))
    assert not (tmp_path / "cache").exists()


def test_a_damaged_sample_is_never_used(build: Callable[..., Training], tmp_path: Path) -> None:
    cache = f"phases.rtd.objective.cache={tmp_path / 'cache'}"
    run(build(cache))
    [file] = files(tmp_path / "cache")
    data = bytearray(file.read_bytes())
    data[32 + 20 + 3] ^= 1  # of the tokens of the first record
    file.write_bytes(data)
    with pytest.raises(ElectraError, match="E-D510") as caught:
        run(build(cache))
    assert str(file) in str(caught.value)
    file.unlink()
    assert run(build(cache))[0][0]["cached_share"] == 0.0


def tokens(number: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.arange(number, number + 5, dtype=np.int64)


def test_a_torn_record_is_computed_again(tmp_path: Path) -> None:
    """At whichever byte the writing process was killed."""
    whole = SampleCache(tmp_path, CONTEXT, 1000)
    for number in range(2):
        whole.keep(bytes([number]) * 16, tokens(number))
    [file] = files(tmp_path)
    data = file.read_bytes()
    middle = 32 + (len(data) - 32) // 2
    for length in range(len(data)):
        file.write_bytes(data[:length])
        found = SampleCache(tmp_path, CONTEXT, 1000)
        assert len(found) == (1 if length >= middle else 0), length
        assert found.find(bytes([1]) * 16, 5) is None


def test_runs_that_write_at_once_do_not_meet(tmp_path: Path) -> None:
    caches = [SampleCache(tmp_path, CONTEXT, 70_000) for _ in range(2)]
    for number in range(6):
        caches[number % 2].keep(bytes([number]) * 16, tokens(69_000 + number))
        caches[1 - number % 2].keep(bytes([number]) * 16, tokens(69_000 + number))
    later = SampleCache(tmp_path, CONTEXT, 70_000)
    assert len(files(tmp_path)) == 2
    assert len(later) == 6
    assert later.size == sum(file.stat().st_size for file in files(tmp_path)) == caches[0].size + caches[1].size
    for number in range(6):
        found = later.find(bytes([number]) * 16, 5)
        assert found is not None
        assert found.tolist() == tokens(69_000 + number).tolist()


def test_a_file_of_another_context_is_refused(tmp_path: Path) -> None:
    SampleCache(tmp_path, CONTEXT, 1000).keep(CONTEXT, tokens(0))
    [file] = files(tmp_path)
    other = tmp_path / bytes(16).hex()
    other.mkdir()
    shutil.copy(file, other)
    with pytest.raises(ElectraError, match="E-D510"):
        SampleCache(tmp_path, bytes(16), 1000)
    found = SampleCache(tmp_path, CONTEXT, 1000)
    with pytest.raises(ElectraError, match="E-D510"):
        found.find(CONTEXT, 6)  # another number of positions than was stored
    assert found.find(bytes(16), 5) is None


# -- two stages ---------------------------------------------------------------------------------------------------------


def test_two_stages(corpus_dir: Path, tmp_path: Path) -> None:
    """The second starts from the first one's weights, in both networks; from its middle on it ends alike again."""
    settings = [f"corpus.path={corpus_dir}", "stop.steps=8", "phases.rtd.objective=frozen-generator", "precision=fp32",
                "phases.rtd.objective.temperature=1.0", f"phases.rtd.objective.cache={tmp_path / 'cache'}",
                f"run.dir={tmp_path / 'run'}", "loop.save_minutes=0.0", "loop.keep=9"]  # fmt: skip
    recipe = load(PretrainRecipe, ["test-modern"], settings)

    def hashes() -> dict[str, str]:
        model = pretrain(recipe)
        return {str(path.relative_to(model)): file_hash(path) for path in model.rglob("*.safetensors")}

    whole = hashes()
    first, model = (load_model_dir(tmp_path / "run" / name) for name in ("phases/mlm", "model"))
    assert model.generator is not None
    for name, tensor in first.encoder.state_dict().items():
        assert torch.equal(model.generator.encoder.state_dict()[name], tensor), name
    assert len(files(tmp_path / "cache")) == 1, "what is tried before step 0 is not kept"
    # as a kill in the middle of the second phase leaves it
    for checkpoint in sorted((tmp_path / "run" / "checkpoints").iterdir())[-2:]:
        shutil.rmtree(checkpoint)
    shutil.rmtree(tmp_path / "run" / "model")
    assert hashes() == whole
    assert len(files(tmp_path / "cache")) == 1, "the resumed steps found their samples, by the generator of the checkpoint"
