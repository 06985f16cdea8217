"""Electric: what the towers see, the loss by hand, both layouts, logits in parts, tying, model directories."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from electra.build.networks import PretrainInitConfig, build_objective
from electra.contracts import Batch, Losses, Noise
from electra.data.masking import MaskingConfig
from electra.errors import ElectraError
from electra.models.encoder import GeneratorConfig
from electra.models.model_dir import ModelDir, load_model_dir
from electra.models.vocabulary import guess_in_parts
from electra.objectives.electric import Electric, ElectricConfig, replace_drawn
from electra.objectives.fixed_generator import FixedGeneratorConfig
from electra.objectives.networks import Networks
from electra.tasks.score import METHODS, ScoreNetwork
from electra.train.checkpoint import Checkpoints, State
from electra.train.loop import Training, sum_of_terms, train
from electra.train.machine import StopFlag

ELECTRIC = (
    "phases.rtd.objective.type=electric",
    "encoder.hidden_dropout_prob=0.0",
    "encoder.attention_probs_dropout_prob=0.0",
)
SETTINGS = {"test-classic": ELECTRIC, "test-modern": ("phases.rtd.objective.type=electric",)}

Build = Callable[..., Training]


@pytest.fixture(params=SETTINGS)
def training(request: pytest.FixtureRequest, training_of: Build) -> Training:
    return training_of(request.param, *SETTINGS[request.param])


def energies(model: ModelDir) -> ScoreNetwork:
    """What scores with the energies of a saved model."""
    network = METHODS["electric"].network(model)
    assert network is not None
    return network


def parts(training: Training, packed: bool = False) -> tuple[Electric, Batch, Noise]:
    """The networks shaken, so that no row of a table equals another and every term is alive."""
    loader: Any = training.loader
    [(batch, noise)] = dataclasses.replace(loader, packed=packed).micro_batches(0, 0, 1)
    assert isinstance(training.objective, Electric)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in training.objective.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return training.objective, batch, noise


def run(objective: Electric, batch: Batch, noise: Noise) -> Losses:
    losses: Losses = objective(batch, noise, objective.phases(0, 1)[0])
    return losses


def logits_of(objective: Electric, batch: Batch) -> Tensor:
    """[T, V], log q at every position."""
    noise = objective.generator
    return torch.log_softmax(F.linear(noise(batch), noise.table, noise.head.bias), dim=-1)


# -- the noise model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_a_tower_sees_all_of_its_document_but_the_token_that_is_asked_for(training: Training, packed: bool) -> None:
    objective, batch, _ = parts(training, packed)
    before = logits_of(objective, batch)
    document = (batch.positions.view(-1) == 0).cumsum(0)
    real = batch.layout.real.view(-1)
    asked = real.nonzero()[:, 0].tolist()
    for place in (3, *asked[len(asked) // 2 :: 40]):
        tokens = batch.tokens.view(-1).clone()
        tokens[place] = 8 if tokens[place] == 7 else 7
        changed = dataclasses.replace(batch, tokens=tokens.view_as(batch.tokens))
        moved = (logits_of(objective, changed) - before).abs().amax(1) > 1e-6
        expected = (document == document[place]) & real
        expected[place] = False
        assert torch.equal(moved & real, expected)


def test_both_layouts_say_the_same(training: Training) -> None:
    objective, batch, noise = parts(training)
    _, flat, _ = parts(training, packed=True)
    padded, packed = run(objective, batch, noise), run(objective, flat, noise)
    for name, term in padded.terms.items():
        torch.testing.assert_close(packed.terms[name].total, term.total, rtol=1e-4, atol=1e-3)


def test_logits_in_parts_are_logits_at_once() -> None:
    torch.manual_seed(0)
    given = [torch.randn(50, 8), torch.randn(30, 8), torch.randn(30)]
    target, uniform = torch.randint(30, (50,)), torch.rand(50)
    results = []
    for size in (50, 7):
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        guessed = guess_in_parts(leaves[0], leaves[1], leaves[2], target, uniform, size)
        (guessed.nll_N * torch.arange(50)).sum().backward()  # type: ignore[no-untyped-call]
        results.append((guessed, [leaf.grad for leaf in leaves]))
    (whole, gradients), (cut, again) = results
    for name in ("nll_N", "correct_N", "sampled_N", "sampled_nll_N"):
        torch.testing.assert_close(getattr(cut, name), getattr(whole, name))
    for one, other in zip(gradients, again, strict=True):
        torch.testing.assert_close(other, one)


# -- the loss -----------------------------------------------------------------------------------------------------------


def test_both_terms_by_hand(training: Training) -> None:
    objective, batch, noise = parts(training)
    losses = run(objective, batch, noise)
    log_q = logits_of(objective, batch)
    tokens, rows = batch.tokens, len(batch.tokens)
    candidates = batch.targets["candidates"]
    drawn = torch.zeros(tokens.numel(), dtype=torch.bool)
    drawn[batch.targets["drawn"][batch.targets["drawn_weight"] > 0]] = True
    drawn = drawn.view_as(tokens)
    replaced, told = replace_drawn(batch, objective._cloze(batch, noise), drawn)
    assert torch.equal(replaced[~drawn], tokens[~drawn])
    assert not torch.equal(replaced, tokens)
    hidden = objective.discriminator.encoder(replaced, batch.positions, batch.types, batch.layout)
    energy, log_q = objective.discriminator.head(hidden).detach(), log_q.detach()
    own = log_q.gather(1, replaced.view(-1, 1)).view_as(tokens)
    torch.testing.assert_close(told[candidates], own[candidates], rtol=1e-4, atol=1e-4)
    nce, cloze = 0.0, 0.0
    for row in range(rows):
        count, chosen = int(candidates[row].sum()), int(drawn[row].sum())
        for place in candidates[row].nonzero()[:, 0].tolist():
            p_hat, q = math.exp(-float(energy[row, place])), math.exp(float(own[row, place]))
            noisy = chosen * q / (chosen * q + (count - chosen) * p_hat)
            nce -= math.log(noisy if drawn[row, place] else 1 - noisy)
            cloze -= float(log_q.view(*tokens.shape, -1)[row, place, tokens[row, place]])
    assert float(losses.terms["nce"].total.detach()) == pytest.approx(nce, rel=1e-3)
    assert float(losses.terms["cloze"].total.detach()) == pytest.approx(cloze, rel=1e-3)
    assert {name: (term.unit, term.weight) for name, term in losses.terms.items()} == {
        "cloze": ("candidates", 1.0), "nce": ("candidates", 50.0),
    }  # fmt: skip
    assert batch.counts["candidates"] == int(candidates.sum())
    figures = objective.summarise(losses.totals)
    assert figures["loss"] == pytest.approx(float(sum_of_terms(losses, batch.counts).detach()), rel=1e-4)


def test_drawn_is_noise_even_where_the_sample_is_the_original(training: Training) -> None:
    objective, batch, noise = parts(training)
    losses = run(objective, batch, noise)
    assert float(losses.totals["rtd_histogram"][1].sum()) == batch.counts["drawn"]
    assert float(losses.totals["rtd_histogram"].sum()) == batch.counts["candidates"], "special tokens have no say"


def test_the_noise_model_learns_nothing_from_the_energies(training_of: Build) -> None:
    """Towers with a table of their own get no gradient from the second term; a shared table gets the main encoder's."""
    objective, batch, noise = parts(training_of("test-modern", *SETTINGS["test-modern"], "generator.width=0.5"))
    run(objective, batch, noise).terms["nce"].total.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in objective.generator.parameters())
    assert any(parameter.grad is not None for parameter in objective.discriminator.parameters())


def test_fresh_energies_start_at_the_vocabulary_and_the_loss_at_the_prior(training: Training) -> None:
    [(batch, noise)] = training.loader.micro_batches(0, 0, 1)
    objective = training.objective
    assert isinstance(objective, Electric)
    torch.nn.init.zeros_(objective.discriminator.head.output.weight)  # the bias is what is asked for
    figures = objective.summarise(run(objective, batch, noise).totals)
    vocabulary = objective.generator.table.shape[0]
    assert figures["mlm_loss"] == pytest.approx(math.log(vocabulary), rel=0.03)
    assert figures["prior_gain"] == pytest.approx(0.0, abs=0.02)


def test_micro_batches_change_nothing(training_of: Build) -> None:
    sums, gradients = [], []
    for rows in (8, 3):
        training = training_of("test-classic", *ELECTRIC, micro_rows=rows)
        objective = training.objective
        assert isinstance(objective, Electric)
        batches = list(training.loader.micro_batches(0, 0, 1))
        counts = {name: sum(batch.counts[name] for batch, _ in batches) for name in batches[0][0].counts}
        total = torch.stack([sum_of_terms(run(objective, *given), counts) for given in batches]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        sums.append(total.detach())
        gradients.append([parameter.grad for parameter in objective.parameters()])
    torch.testing.assert_close(sums[1], sums[0], rtol=1e-5, atol=1e-5)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-5)


def test_a_resumed_run_is_the_uninterrupted_one(training_of: Build, tmp_path: Path) -> None:
    whole, resumed = (
        training_of("test-classic", *ELECTRIC[:1], "loop.save_minutes=0.0", "loop.keep=3", steps=3, micro_rows=4)
        for _ in range(2)
    )
    whole.checkpoints = Checkpoints(tmp_path, keep=3)
    train(whole, None, StopFlag())
    before = whole.module.state_dict()
    whole.checkpoints.load(whole.checkpoints.path(1), resumed.module, resumed.optimizers)
    window = {"totals": {}, "tokens": 0.0}
    train(resumed, State(step=1, phase="rtd", fingerprints={}, window=window, skipped=0), StopFlag())
    for name, tensor in resumed.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("config", [ElectricConfig, FixedGeneratorConfig])
def test_masks_and_repetitions_are_refused(config: type[ElectricConfig | FixedGeneratorConfig]) -> None:
    for wrong in (MaskingConfig(mask_token_rate=1.0), MaskingConfig(with_replacement=True)):
        with pytest.raises(ElectraError, match="E-C560"):
            config(masking=wrong)


# -- tables, model directories ------------------------------------------------------------------------------------------


def test_the_towers_share_their_table_and_the_main_one_where_it_fits(training_of: Build) -> None:
    wide, narrow = ("generator.width=1.0",), ("generator.width=0.5",)
    for recipe, sizes, shared in (("test-classic", narrow, True), ("test-modern", wide, True), ("test-modern", narrow, False)):
        objective = training_of(recipe, *SETTINGS[recipe], *sizes).objective
        assert isinstance(objective, Electric)
        assert objective.generator.ltr.embeddings is objective.generator.rtl.embeddings
        assert (objective.generator.ltr.embeddings is objective.discriminator.encoder.embeddings) is shared


def test_a_model_says_that_it_has_energies_and_goes_on(training: Training, tmp_path: Path) -> None:
    first, batch, noise = parts(training)
    first.eval()
    first.export(tmp_path / "model")
    source = load_model_dir(tmp_path / "model")
    assert source.rtd_head is None
    assert source.noise is not None
    modern = source.encoder.config.type == "modern"
    config = json.loads((tmp_path / "model" / ("discriminator" if modern else "") / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "text", "1": "noise"}
    energy, _ = first.discriminator(batch, batch.tokens)
    torch.testing.assert_close(energies(source)(batch), -energy, rtol=1e-4, atol=1e-4)
    width = source.noise.ltr.hidden_size / source.encoder.hidden_size
    layers = source.noise.ltr.config.num_hidden_layers
    second = build_objective(
        ElectricConfig(), source.encoder.config, GeneratorConfig(width=width, layers=layers), PretrainInitConfig(), source,
        source.tokenizer(), seed=1, card=str,
    ).eval()  # fmt: skip
    assert isinstance(second, Electric)
    before, after = run(first, batch, noise), run(second, batch, noise)
    for name, term in before.terms.items():
        torch.testing.assert_close(after.terms[name].total, term.total, rtol=1e-4, atol=1e-3)


def test_a_model_without_energies_is_none(training_of: Build, tmp_path: Path) -> None:
    rtd = training_of("test-classic").objective
    rtd.export(tmp_path / "rtd")
    source = load_model_dir(tmp_path / "rtd")
    assert METHODS["electric"].network(source) is None
    told: list[str] = []
    networks = Networks(
        encoder=source.encoder.config, generator=GeneratorConfig(width=0.5), source=source, init_generator="fresh",
        provenance=rtd.provenance, warn=lambda code, message: told.append(code),
    )  # fmt: skip
    ElectricConfig().build(networks)
    assert told == ["E-M454", "E-M455"]


def test_transformers_reads_the_energies(training: Training, tmp_path: Path) -> None:
    """ElectraForPreTraining's logit is E; of the modern family's two labels, the odds of `noise` are."""
    transformers = pytest.importorskip("transformers")
    objective, batch, _ = parts(training)
    objective.eval().export(tmp_path / "model")
    tokens = batch.tokens[:1, batch.layout.segments[0] == 0]  # type: ignore[union-attr]
    one = Batch(
        tokens=tokens, positions=torch.arange(tokens.shape[1])[None], types=torch.zeros_like(tokens),
        layout=dataclasses.replace(batch.layout, segments=torch.zeros_like(tokens), whole=True),  # type: ignore[call-arg]
    )  # fmt: skip
    with torch.inference_mode():
        ours = energies(load_model_dir(tmp_path / "model"))(one)
        if (tmp_path / "model" / "discriminator").is_dir():
            theirs = transformers.ModernBertForTokenClassification.from_pretrained(tmp_path / "model" / "discriminator")
            logits = theirs(input_ids=tokens).logits
            energy = logits[..., 1] - logits[..., 0]
        else:
            energy = transformers.ElectraForPreTraining.from_pretrained(tmp_path / "model")(input_ids=tokens).logits
    torch.testing.assert_close(ours, -energy, rtol=1e-4, atol=1e-4)
    for name in ("ltr", "rtl"):
        transformers.AutoModel.from_pretrained(tmp_path / "model" / "noise" / name)
