"""Every shipped recipe loads and resolves; those of the paper have the paper's numbers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch

from electra import config
from electra.build.finetune import FinetuneRecipe
from electra.build.networks import PretrainInitConfig, build_objective, resolve_encoder
from electra.build.pretrain import PretrainRecipe
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.encoder import generator_config
from electra.objectives.rtd import Rtd, RtdConfig
from electra.text.tokenizer import load as load_tokenizer

NAMES = list(config.shipped())
#: laid over a size
RUNGS = [name for name in NAMES if name.startswith("ladder-")]
PRETRAINING = [name for name in NAMES if not name.startswith(("finetune-", "ladder-"))]
FINETUNING = [name for name in NAMES if name.startswith("finetune-")]
PLACES = ["corpus.path=corpus", "run.dir=run"]


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A column of table 6 of the paper, with what the authors' code has where the paper is silent."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    embedding: int
    generator: tuple[int, int, int]  # hidden, feed-forward, heads
    mask_rate: float
    lr: float
    steps: int
    rows: int
    length: int
    warmup: int = 10_000


PAPER = {
    "electra-small": Paper(
        layers=12, hidden=256, feed_forward=1024, heads=4, embedding=128, generator=(64, 256, 1), mask_rate=0.15, lr=5e-4,
        steps=1_000_000, rows=128, length=128,
    ),
    "electra-base": Paper(
        layers=12, hidden=768, feed_forward=3072, heads=12, embedding=768, generator=(256, 1024, 4), mask_rate=0.15, lr=2e-4,
        steps=766_000, rows=256, length=512,
    ),
    "electra-large": Paper(
        layers=24, hidden=1024, feed_forward=4096, heads=16, embedding=1024, generator=(256, 1024, 4), mask_rate=0.25, lr=2e-4,
        steps=400_000, rows=2048, length=512,
    ),
}  # fmt: skip


def pretraining(name: str) -> PretrainRecipe:
    return config.load(PretrainRecipe, [name], PLACES)


def test_there_is_a_recipe_of_every_kind() -> None:
    expected = {
        "electra-small", "electra-base", "electra-large", "electra-small-reference", "modern-tiny", "modern-small",
        "modern-base", "test-classic", "test-modern",
    }  # fmt: skip
    assert expected <= set(PRETRAINING)
    assert {"finetune-small", "finetune-base", "finetune-large"} <= set(FINETUNING)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_of_a_recipe_says_what_it_is(name: str) -> None:
    assert config.shipped()[name].read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("name", PRETRAINING)
def test_a_pretraining_recipe_loads_and_its_networks_can_be_derived(name: str, tokenizer_dir: Path) -> None:
    recipe = pretraining(name)
    tokenizer = load_tokenizer(tokenizer_dir)
    encoder = resolve_encoder(recipe.encoder, tokenizer, recipe.rows.length)
    assert encoder.vocab_size == tokenizer.vocab_size
    generator = generator_config(encoder, recipe.generator)
    assert generator.hidden_size / generator.num_attention_heads == encoder.hidden_size / encoder.num_attention_heads
    assert generator.num_hidden_layers <= encoder.num_hidden_layers
    assert config.build(PretrainRecipe, config.to_tree(recipe)) == recipe


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("size", [name for name in PRETRAINING if name.partition("-")[0] in ("electra", "modern")])
def test_a_rung_changes_the_objective_of_a_size_alone(size: str, rung: str) -> None:
    if "rtd" not in pretraining(size).phases:
        pytest.skip("it has no joint phase")
    below = config.to_tree(pretraining(size))
    above = config.to_tree(config.load(PretrainRecipe, [size, rung], PLACES))
    objective = above["phases"]["rtd"].pop("objective")
    assert objective != below["phases"]["rtd"].pop("objective")
    assert objective["type"] == {"bert": "mlm", "electra-15": "rtd"}.get(
        rung.removeprefix("ladder-"), rung.removeprefix("ladder-")
    )
    assert above == below


def test_the_paper_trains_two_stages_of_equal_networks() -> None:
    recipe = pretraining("electra-small-two-stage")
    running = {name: phase for name, phase in recipe.phases.items() if phase.share}
    assert [phase.objective.type for phase in running.values()] == ["mlm", "frozen-generator"]
    joint = pretraining("electra-small").phases["rtd"].optimizer
    for phase in running.values():
        assert phase.optimizer.warmup(500_000) == 10_000
        assert dataclasses.replace(phase.optimizer, warmup_ratio=joint.warmup_ratio) == joint


@pytest.mark.parametrize("name", FINETUNING)
def test_a_finetuning_recipe_loads(name: str) -> None:
    given = ["task=classify", "init.from=model", "data.train=train.tsv", "run.dir=run"]
    recipe = config.load(FinetuneRecipe, [name], given)
    assert recipe.optimizer.weight_decay == (0.01 if name.endswith("reference") else 0.0)
    assert recipe.optimizer.warmup_ratio == 0.1
    assert config.build(FinetuneRecipe, config.to_tree(recipe)) == recipe


@pytest.mark.parametrize(("name", "lr", "decay"), [("small", 3e-4, 0.8), ("base", 1e-4, 0.8), ("large", 5e-5, 0.9)])
def test_finetuning_has_the_values_of_the_paper(name: str, lr: float, decay: float) -> None:
    given = ["task=classify", "init.from=model", "data.train=train.tsv", "run.dir=run"]
    recipe = config.load(FinetuneRecipe, [f"finetune-{name}"], given)
    assert (recipe.optimizer.lr, recipe.optimizer.layer_decay, recipe.epochs, recipe.batch.examples) == (lr, decay, 3, 32)


def test_the_published_codes_finetuning_has_its_values() -> None:
    """A summed loss is written as a clip and an eps that are smaller by the batch."""
    recipe = config.load(
        FinetuneRecipe, ["finetune-small-reference"], ["task=classify", "init.from=m", "data.train=t", "run.dir=r"]
    )
    optimizer = recipe.optimizer
    assert (optimizer.lr, optimizer.weight_decay, optimizer.bias_correction) == (1e-4, 0.01, False)
    assert (optimizer.layer_decay, optimizer.layer_decay_rule) == (0.8, "reference")
    assert (optimizer.clip * recipe.batch.examples, optimizer.eps * recipe.batch.examples) == (1.0, 1e-6)


@pytest.mark.parametrize("name", PAPER)
def test_the_networks_have_the_sizes_of_the_paper(name: str) -> None:
    recipe, paper = pretraining(name), PAPER[name]
    encoder = recipe.encoder
    assert isinstance(encoder, ClassicConfig)
    sizes = encoder.num_hidden_layers, encoder.hidden_size, encoder.intermediate_size, encoder.num_attention_heads
    assert sizes == (paper.layers, paper.hidden, paper.feed_forward, paper.heads)
    assert encoder.embedding_size == paper.embedding
    assert (encoder.max_position_embeddings, encoder.type_vocab_size, encoder.layer_norm_eps) == (512, 2, 1e-12)
    assert (encoder.hidden_dropout_prob, encoder.attention_probs_dropout_prob) == (0.1, 0.1)
    generator = generator_config(encoder, recipe.generator)
    assert isinstance(generator, ClassicConfig)
    assert (generator.hidden_size, generator.intermediate_size, generator.num_attention_heads) == paper.generator
    assert (generator.num_hidden_layers, generator.embedding_size) == (paper.layers, paper.embedding)


@pytest.mark.parametrize("name", PAPER)
def test_training_has_the_values_of_the_paper(name: str) -> None:
    recipe, paper = pretraining(name), PAPER[name]
    (phase,) = recipe.phases.values()
    objective, optimizer = phase.objective, phase.optimizer
    assert isinstance(objective, RtdConfig)
    assert (objective.weight, objective.tying, objective.temperature) == (50.0, "embeddings", 1.0)
    assert (objective.masking.rate, objective.masking.mask_token_rate) == (paper.mask_rate, 0.85)
    assert not objective.masking.with_replacement
    assert (optimizer.lr, optimizer.betas, optimizer.eps) == (paper.lr, (0.9, 0.999), 1e-6)
    assert (optimizer.weight_decay, optimizer.clip, optimizer.bias_correction) == (0.01, 1.0, False)
    assert not optimizer.clip_per_network
    assert (recipe.stop.steps, recipe.batch.rows, recipe.rows.length) == (paper.steps, paper.rows, paper.length)
    assert optimizer.warmup(paper.steps) == paper.warmup
    assert recipe.rows.type == "pairs"
    assert (recipe.rows.single_segment, recipe.rows.short, recipe.rows.builder) == (0.1, 0.05, "paper")


def test_the_reference_differs_in_its_quirks_only() -> None:
    paper, reference = (config.to_tree(pretraining(name)) for name in ("electra-small", "electra-small-reference"))
    assert reference["rows"].pop("builder") == "reference"
    assert reference["phases"]["rtd"]["objective"]["masking"].pop("with_replacement") is True
    paper["rows"].pop("builder")
    paper["phases"]["rtd"]["objective"]["masking"].pop("with_replacement")
    assert reference == paper


def test_small_budgets_begin_with_masked_language_modelling() -> None:
    recipe = pretraining("modern-tiny")
    assert [phase.objective.type for phase in recipe.phases.values()] == ["mlm", "rtd"]


def test_electra_small_has_14_million_parameters(tokenizer_dir: Path) -> None:
    recipe = pretraining("electra-small")
    tokenizer = load_tokenizer(tokenizer_dir)
    assert isinstance(recipe.encoder, ClassicConfig)
    encoder = config.build(ClassicConfig, config.to_tree(recipe.encoder) | {"vocab_size": 30522})
    with torch.device("meta"):
        objective = build_objective(
            recipe.phases["rtd"].objective, encoder, recipe.generator, PretrainInitConfig(), None, tokenizer, 0, card=str
        )
    assert isinstance(objective, Rtd)
    discriminator = sum(parameter.numel() for parameter in objective.discriminator.parameters())
    assert 13_400_000 < discriminator < 14_000_000
    # the generator brings layers of a quarter of the width, and no table of its own
    whole = sum(parameter.numel() for parameter in objective.parameters())
    assert whole - discriminator < 1_000_000


@pytest.mark.parametrize(
    ("assignment", "code"),
    [
        ("stop.steps=0", "E-C441"),
        ("batch.rows=0", "E-C440"),
        ("rows.length=3", "E-C240"),
        ("rows.short=1.5", "E-C243"),
        ("phases.rtd.share=-1", "E-C442"),
        ("phases.rtd.share=0", "E-C442"),
        ("phases.rtd.optimizer.lr=0", "E-C400"),
        ("phases.rtd.average=1", "E-C552"),
        ("batch.first_rows=5", "E-C553"),
        ("phases.rtd.objective.tying=bottom-layers", "E-C430"),
        ("phases.rtd.objective.temperature=0", "E-C431"),
        ("phases.rtd.objective.masking.rate=0", "E-C241"),
        ("encoder.num_attention_heads=3", "E-C200"),
        ("loop.log_steps=0", "E-C410"),
        ("encoder.rope_theta=1", "E-C004"),
    ],
)
def test_values_that_make_no_sense_are_refused(assignment: str, code: str) -> None:
    with pytest.raises(ElectraError) as caught:
        config.load(PretrainRecipe, ["electra-small"], [*PLACES, assignment])
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("assignment", "where"),
    [
        ("phases.mlm.objective.masking.rate=0", "phases.mlm.objective.masking.rate"),
        ("phases.rtd.objective.temperature=0", "phases.rtd.objective.temperature"),
        ("phases.rtd.objective={type='adversarial', mle_weight=-1}", "phases.rtd.objective.mle_weight"),
        ("phases.rtd.objective={type='adversarial', estimator={type='gumbel-softmax', temperature=0}}",
         "phases.rtd.objective.estimator.temperature"),
        ("phases.rtd.share=-1", "phases.rtd"),
        ("phases.rtd.optimizer.lr=0", "phases.rtd.optimizer"),
        ("phases.mlm.objective=frozen-generator", "phases.mlm.objective.generator"),
    ],
)  # fmt: skip
def test_errors_name_the_phase(assignment: str, where: str) -> None:
    with pytest.raises(ElectraError) as caught:
        config.load(PretrainRecipe, ["modern-tiny"], [*PLACES, assignment])
    assert caught.value.where == where


@pytest.mark.parametrize("kind", ["pairs", "packed"])
def test_rows_longer_than_the_position_table_are_refused(kind: Literal["pairs", "packed"], tokenizer_dir: Path) -> None:
    recipe = config.load(PretrainRecipe, ["electra-small"], [*PLACES, f"rows={{type='{kind}', length=513}}"])
    with pytest.raises(ElectraError) as caught:
        resolve_encoder(recipe.encoder, load_tokenizer(tokenizer_dir), recipe.rows.length)
    assert caught.value.code == "E-C451"
