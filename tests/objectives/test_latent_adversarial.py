"""GAN-BERT's objective: its losses by hand, whom they train, what is exported."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from electra.build.finetune_settings import FinetuneOptimizerConfig
from electra.contracts import Batch, Example, Noise
from electra.data.grid import collate
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.encoder import build_encoder
from electra.models.model_dir import Provenance
from electra.models.modern import ModernConfig
from electra.objectives.latent_adversarial import LatentAdversarial, LatentAdversarialConfig, one_label
from electra.objectives.supervised import Freeze, Supervised
from electra.predict.predictor import Predictor, load
from electra.tasks.classify import Classify, ClassifyConfig
from electra.tasks.regression import Regression, RegressionConfig
from electra.text.train_tokenizer import train as train_tokenizer
from electra.train.loop import sum_of_terms
from electra.train.optim import Optimizers
from electra.train.verdicts import State, judge

TEXTS = ["the good film", "a bad film", "it was good", "it was so bad, so bad", "good"]
TOKENIZER = train_tokenizer(TEXTS * 3, vocab_size=80)
PROVENANCE = Provenance(tokenizer=TOKENIZER, card=lambda: "# A classifier\n")
LABELS = ("bad", "good", "none")
CLASSIC = ClassicConfig(
    vocab_size=TOKENIZER.vocab_size, embedding_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
MODERN = ModernConfig(
    vocab_size=TOKENIZER.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
    max_position_embeddings=32,
)  # fmt: skip
HEADS = {
    "classic": (CLASSIC, ClassifyConfig(labels=LABELS, max_length=16)),
    "two-layer": (CLASSIC, ClassifyConfig(labels=LABELS, max_length=16, head="two-layer")),
    "modern": (MODERN, ClassifyConfig(labels=LABELS, max_length=16)),
}
heads = pytest.mark.parametrize("head", HEADS)
conditions = pytest.mark.parametrize("conditional", [False, True])


def objective(head: str, conditional: bool = False, freeze: Freeze = "nothing") -> LatentAdversarial:
    """Weights so large that texts and fakes differ."""
    torch.manual_seed(0)
    encoder, task = HEADS[head]
    config = LatentAdversarialConfig(latent_size=6, conditional=conditional)
    made = LatentAdversarial(build_encoder(encoder), Classify(task, TOKENIZER), PROVENANCE, config, freeze)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(5 if parameter.ndim > 1 else 1)
    return made


def batch(packed: bool = False) -> tuple[Batch, Noise]:
    """Two labelled texts and three without."""
    task = Classify(HEADS["classic"][1], TOKENIZER)
    targets = ["good", "bad", None, None, None]
    rows = [row for text, target in zip(TEXTS, targets, strict=True) for row in task.encode(Example(text=text, target=target))]
    return collate(rows, 16, TOKENIZER.pad_id, packed), Noise(np.arange(5, dtype=np.uint64))


def phase_of(made: LatentAdversarial) -> object:
    [phase] = made.phases(0, 10)
    assert phase.networks == ("model", "generator")
    return phase


# -- losses -------------------------------------------------------------------------------------------------------------


@heads
@conditions
@pytest.mark.parametrize("packed", [False, True])
def test_the_losses_by_hand(head: str, conditional: bool, packed: bool) -> None:
    made = objective(head, conditional).eval()
    given, noise = batch(packed)
    found = made(given, noise, phase_of(made))
    model = made.model
    with torch.no_grad():
        states = model.head.pooled(model.encoder(given.tokens, given.positions, given.types, given.layout), given.layout)
        uniform = torch.tensor(noise.uniform("latent", 6), dtype=torch.float64) + 2.0**-25
        latent = (math.sqrt(2) * torch.erfinv(2 * uniform - 1)).float()
        classes = [int(3 * value) for value in noise.uniform("class", 1)[:, 0].tolist()]
        if conditional:
            assert made.generator.classes is not None
            latent = torch.cat([latent, made.generator.classes.weight[classes]], dim=1)
        fakes = made.generator.state(torch.tanh(made.generator.dense(latent)))
        odds = []
        for vectors in (states, fakes):
            features = model.head.features(vectors)
            odds.append(torch.cat([model.head.classifier(features), model.fake(features)], dim=1).softmax(dim=1))
        of_texts, of_fakes = odds
        known = torch.stack([of_texts[0, 1], of_texts[1, 0]]) / (1 - of_texts[:2, 3])
        distance = (model.head.features(states).mean(0) - model.head.features(fakes).mean(0)).square().sum()
        passed = of_fakes[range(5), classes] if conditional else 1 - of_fakes[:, 3]
    expected = {
        "classify": (-known.log().sum(), "label"),
        "real": (-(1 - of_texts[:, 3]).log().sum(), "examples"),
        "fake": (-of_fakes[:, 3].log().sum(), "examples"),
        "generator": (-passed.log().sum(), "examples"),
        "features": (5 * distance, "examples"),
    }
    assert {name: term.unit for name, term in found.terms.items()} == {name: unit for name, (_, unit) in expected.items()}
    for name, (value, _) in expected.items():
        torch.testing.assert_close(found.terms[name].total.detach(), value, rtol=1e-4, atol=1e-5)
    total = expected["classify"][0] / 2 + sum(value for name, (value, _) in expected.items() if name != "classify") / 5
    torch.testing.assert_close(sum_of_terms(found, given.counts).detach(), total, rtol=1e-4, atol=1e-5)
    right = (of_texts[:2, :3].argmax(1) == torch.tensor([1, 0])).sum()
    assert made.summarise(found.totals) == pytest.approx({
        "loss": float(expected["classify"][0]) / 2, "accuracy": float(right) / 2,
        "fake_loss": float(expected["real"][0] + expected["fake"][0]) / 5,
        "generator_loss": float(expected["generator"][0] + expected["features"][0]) / 5, "feature_distance": float(distance),
        "fakes_found": float((of_fakes[:, 3] > 0.5).sum()) / 5, "texts_kept": float((of_texts[:, 3] <= 0.5).sum()) / 5,
    }, rel=1e-4)  # fmt: skip


def test_the_latent_is_gaussian_and_belongs_to_rows() -> None:
    made = objective("classic", conditional=True)
    made.latent_size = 200
    keys = np.arange(500, dtype=np.uint64)
    latent, classes = made._drawn(Noise(keys), torch.device("cpu"))
    assert classes is not None
    assert (float(latent.mean()), float(latent.var())) == pytest.approx((0, 1), abs=0.02)
    assert float((latent.abs() < 1).float().mean()) == pytest.approx(0.6827, abs=0.005)
    assert torch.bincount(classes).tolist() == pytest.approx([500 / 3] * 3, rel=0.2)
    some, other = made._drawn(Noise(keys[7:9]), torch.device("cpu"))
    assert other is not None
    assert torch.equal(some, latent[7:9])
    assert torch.equal(other, classes[7:9])


# -- gradients ----------------------------------------------------------------------------------------------------------


@heads
@conditions
def test_each_loss_trains_its_own_network_only(head: str, conditional: bool) -> None:
    made = objective(head, conditional).train()
    given, noise = batch()
    terms = made(given, noise, phase_of(made)).terms
    for names, own in ((("classify", "real", "fake"), "model."), (("generator", "features"), "generator.")):
        for name in names:
            made.zero_grad()
            terms[name].total.backward(retain_graph=True)
            trained = {n.partition(".")[0] + "." for n, p in made.named_parameters() if p.grad is not None and p.grad.any()}
            assert trained == {own}, name
    assert all(parameter.requires_grad for parameter in made.parameters()), "constants only for a moment"
    made.zero_grad()
    terms["real"].total.backward()
    assert any(p.grad is not None and p.grad.any() for p in made.model.encoder.parameters()), (
        "unlabelled texts reach the encoder"
    )


@pytest.mark.parametrize("freeze", ["embeddings", 1, "encoder"])
def test_freezing_and_layer_wise_decay_go_on_working(freeze: Freeze) -> None:
    made, plain = objective("classic", freeze=freeze), Supervised(build_encoder(CLASSIC), objective("classic").task, PROVENANCE)
    exponents = made.decay_exponents("fixed")
    assert {name: exponents[name] for name in plain.decay_exponents("fixed")} == plain.decay_exponents("fixed")
    added = set(exponents) - set(plain.decay_exponents("fixed"))
    assert {name.rpartition(".")[0] for name in added} == {"model.fake", "generator.dense", "generator.state"}
    assert {exponents[name] for name in added} == {0}
    before = {name: parameter.detach().clone() for name, parameter in made.named_parameters()}
    optimizers = Optimizers(made.networks, FinetuneOptimizerConfig(lr=0.1, warmup_ratio=0.0), 9, exponents)
    given, noise = batch()
    for step in range(2):
        sum_of_terms(made.train()(given, noise, phase_of(made)), given.counts).backward()
        optimizers.clip(tuple(made.networks))
        optimizers.step(tuple(made.networks), step)
    moved = {name for name, parameter in made.named_parameters() if not torch.equal(parameter, before[name])}
    deepest = {"embeddings": 0, 1: 1, "encoder": 2}[freeze]
    assert moved == {name for name, depth in made.layer_depths().items() if depth > deepest}
    assert made.train().model.encoder.embeddings.training is False


def test_one_network_is_not_clipped_by_the_others_norm() -> None:
    made = objective("classic")
    optimizers = Optimizers(made.networks, FinetuneOptimizerConfig(), 9)
    for name, parameter in made.named_parameters():
        parameter.grad = torch.full_like(parameter, 100.0 if name.startswith("generator") else 1e-4)
    optimizers.clip(("model", "generator"))
    scales = {name: float(adam.grad_scale) for name, [adam] in optimizers.of_network.items()}  # type: ignore[attr-defined]
    assert scales["model"] == 1
    assert scales["generator"] > 100


# -- what is left -------------------------------------------------------------------------------------------------------


@heads
def test_the_exported_model_is_the_classifier_here_and_in_transformers(head: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    made = objective(head, conditional=True).eval()
    made.export(tmp_path / "model")
    for saved, before in zip(
        load(tmp_path / "model").predict(TEXTS), Predictor(made.model, made.task).predict(TEXTS), strict=True
    ):
        assert saved.output == {"label": before.output["label"], "score": pytest.approx(before.output["score"], abs=1e-5)}
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    assert theirs.config.id2label == dict(enumerate(LABELS))
    encoded = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(theirs(**encoded).logits, made.model(batch()[0]), atol=1e-4, rtol=1e-4)


def test_other_tasks_and_sizes_are_refused() -> None:
    with pytest.raises(ElectraError, match=r"E-C531 objective\.type: .* the task is regression"):
        one_label(Regression(RegressionConfig(), TOKENIZER))
    for settings in ({"latent_size": 0}, {"unlabelled_examples": 0}):
        with pytest.raises(ElectraError, match="E-C530"):
            LatentAdversarialConfig(**settings)


def test_verdicts_on_the_generator() -> None:
    def course(found: float, losses: list[float]) -> list[dict[str, object]]:
        return [
            {"phase": "supervised", "grad_norm": {}, "figures": {"loss": 1 / (n + 1), "fakes_found": found, "texts_kept": 0.9,
                                                                  "generator_loss": loss}}
            for n, loss in enumerate(losses)
        ]  # fmt: skip

    rising = [0.5 + number for number in range(20)]
    for found, losses, expected in (
        (0.7, rising, State.HEALTHY), (1.0, rising, State.LEARNING), (0.0, rising, State.LEARNING),
        (0.7, [*rising, math.nan], State.DIVERGED),
    ):  # fmt: skip
        model, generator = judge(course(found, losses), ["model", "generator"], warmup_done=True)
        assert (model.state, generator.state) == (State.HEALTHY, expected)
    assert judge(course(0.7, rising), ["generator"], warmup_done=False)[0].state == State.WARMING_UP
