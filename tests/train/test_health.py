"""Totals of real tensors against direct computation, and each verdict on a course of figures that has the fault."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from electra.contracts import Noise, Packed, Padded
from electra.train.health import POSITION_BINS, mlm_figures, mlm_totals, rtd_figures, rtd_totals
from electra.train.verdicts import State, judge

B, L, D = 8, 64, 16


def padded() -> Padded:
    """Rows of two documents and some padding."""
    lengths = torch.tensor([64, 64, 50, 7, 64, 33, 1, 64])
    columns = torch.arange(L)[None]
    segments = (columns >= 20).long().expand(B, L)
    return Padded(segments=torch.where(columns < lengths[:, None], segments, -1))


def rtd_inputs(separation: float = 1.0, share: float = 0.1, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    replaced = torch.rand(B, L, generator=generator) < share
    logits = torch.randn(B, L, generator=generator) + separation * replaced - 2
    return logits, replaced, torch.randn(B, L, D, generator=generator) + 3


def added(*parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}


# -- totals and figures -------------------------------------------------------------------------------------------------


def test_rtd_figures_are_those_of_the_raw_tensors() -> None:
    logits, replaced, hidden = rtd_inputs(separation=2.0)
    layout = padded()
    found = rtd_figures(rtd_totals(logits, replaced, hidden, layout))
    scores, labels = logits[layout.real], replaced[layout.real].float()
    loss = F.binary_cross_entropy_with_logits(scores, labels).item()
    share = labels.mean().item()
    rows = [hidden[row, layout.real[row]] for row in range(B)]
    deviation = torch.cat([row - row.mean(0) for row in rows]).square().mean().sqrt().item()
    assert found["rtd_loss"] == pytest.approx(loss, rel=1e-5)
    assert found["replaced_share"] == pytest.approx(share)
    assert found["prior_gain"] == pytest.approx(-share * math.log(share) - (1 - share) * math.log(1 - share) - loss, abs=1e-6)
    assert found["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=2e-3)
    assert found["average_precision"] == pytest.approx(average_precision_score(labels, scores), abs=1e-2)
    assert found["precision"] == pytest.approx(precision_score(labels, scores > 0))
    assert found["recall"] == pytest.approx(recall_score(labels, scores > 0))
    assert found["token_rms"] == pytest.approx(deviation, rel=1e-5)


def test_padding_does_not_count() -> None:
    logits, replaced, hidden = rtd_inputs()
    layout = padded()
    spoilt = torch.where(layout.real, 0.0, 1e4)
    clean = rtd_totals(logits, replaced, hidden, layout)
    dirty = rtd_totals(logits + spoilt, replaced | ~layout.real, hidden + spoilt[..., None], layout)
    assert all(torch.equal(clean[name], dirty[name]) for name in clean)


def test_a_packed_batch_gives_the_same_figures() -> None:
    logits, replaced, hidden = rtd_inputs()
    lengths = torch.tensor([64, 64, 50, 7, 64, 33, 1, 64])
    one_document = Padded(segments=torch.where(torch.arange(L)[None] < lengths[:, None], 0, -1))
    real = one_document.real
    packed = Packed(cu_seqlens=F.pad(lengths.cumsum(0), (1, 0)).int(), max_seqlen=64)
    expected = rtd_figures(rtd_totals(logits, replaced, hidden, one_document))
    found = rtd_figures(rtd_totals(logits[real], replaced[real], hidden[real], packed))
    assert found == pytest.approx(expected, rel=1e-5)


def test_totals_of_micro_batches_add_up() -> None:
    logits, replaced, hidden = rtd_inputs()
    layout = padded()
    halves = [
        rtd_totals(logits[half], replaced[half], hidden[half], Padded(segments=layout.segments[half]))
        for half in (slice(0, 3), slice(3, 8))
    ]
    assert rtd_figures(added(*halves)) == pytest.approx(rtd_figures(rtd_totals(logits, replaced, hidden, layout)), rel=1e-5)


def test_logits_beyond_the_range_stay_in_order() -> None:
    layout = Padded(segments=torch.zeros(1, 4, dtype=torch.long), whole=True)
    logits = torch.tensor([[-1e30, 1e30, 1e30, -50.0]])
    found = rtd_figures(rtd_totals(logits, torch.tensor([[False, True, True, False]]), torch.randn(1, 4, D), layout))
    assert (found["auc"], found["recall"], found["precision"]) == (1.0, 1.0, 1.0)


def test_half_precision_and_gradients_do_no_harm() -> None:
    logits, replaced, hidden = rtd_inputs()
    layout = padded()
    exact = rtd_figures(rtd_totals(logits, replaced, hidden, layout))
    totals = rtd_totals(logits.bfloat16().requires_grad_(), replaced, hidden.bfloat16().requires_grad_(), layout)
    assert not any(total.requires_grad for total in totals.values())
    assert rtd_figures(totals) == pytest.approx(exact, abs=2e-2)


def test_nothing_replaced_and_nothing_at_all() -> None:
    logits, replaced, hidden = rtd_inputs()
    found = rtd_figures(rtd_totals(logits, torch.zeros_like(replaced), hidden, padded()))
    assert found["replaced_share"] == 0.0
    assert found["prior_gain"] < 0
    assert math.isnan(found["auc"])
    nothing = Padded(segments=torch.full((B, L), -1))
    assert rtd_figures(rtd_totals(logits, replaced, hidden, nothing)) == {}


def draw(seed: int, reach: int = L) -> tuple[Tensor, Tensor]:
    """9 of the first `reach` columns of every row, [CLS] and [SEP] spared, and two places that do not count."""
    columns = torch.from_numpy(Noise(np.arange(seed * B, seed * B + B, dtype=np.uint64)).uniform("positions", L))
    columns[:, 0] = columns[:, L - 1] = 2.0
    columns[:, reach:] = 2.0
    drawn = columns.argsort(1)[:, :9] + torch.arange(B)[:, None] * L
    return F.pad(drawn, (0, 2)), F.pad(torch.ones(B, 9), (0, 2))


def mlm_event_totals(seed: int, loss: float = 5.0, reach: int = L) -> dict[str, Tensor]:
    drawn, weight = draw(seed, reach)
    candidates = torch.ones(B, L, dtype=torch.bool)
    candidates[:, 0] = candidates[:, -1] = False
    losses = torch.full(drawn.shape, loss)
    return mlm_totals(losses, torch.arange(drawn.shape[1]).expand(drawn.shape) < 3, drawn, weight, candidates)


def test_mlm_figures() -> None:
    drawn, weight = draw(0)
    losses = torch.where(weight > 0, torch.rand(drawn.shape), math.nan)  # what does not count may be anything
    found = mlm_figures(mlm_totals(losses, losses < 0.5, drawn, weight, torch.ones(B, L, dtype=torch.bool)))
    assert found["mlm_loss"] == pytest.approx(losses[:, :9].mean().item())
    assert found["mlm_accuracy"] == pytest.approx((losses[:, :9] < 0.5).float().mean().item())


def test_too_few_draws_give_no_histogram() -> None:
    few = mlm_figures(mlm_event_totals(0))
    assert "position_uniformity" not in few
    assert not any(name.startswith("drawn_at") for name in few)


def test_uniform_draws_give_a_flat_histogram_and_blind_ones_do_not() -> None:
    fair = mlm_figures(added(*(mlm_event_totals(seed) for seed in range(100))))
    bars = [fair[f"drawn_at_{index:02}"] for index in range(POSITION_BINS)]
    assert bars == pytest.approx([1.0] * POSITION_BINS, abs=0.2)  # the bins of [CLS] and [SEP] too
    assert fair["position_uniformity"] == min(bars)
    blind = mlm_figures(added(*(mlm_event_totals(seed, reach=48) for seed in range(100))))
    assert [blind[f"drawn_at_{index:02}"] for index in range(12, 16)] == [0.0] * 4
    assert blind["position_uniformity"] == 0.0


def test_the_histogram_of_a_packed_batch_is_by_column_of_the_row() -> None:
    drawn, weight = draw(0, reach=32)
    candidates = torch.ones(B, L, dtype=torch.bool)
    rows = mlm_totals(torch.ones(drawn.shape), weight > 0, drawn, weight, candidates)
    flat = mlm_totals(torch.ones(drawn.shape), weight > 0, drawn, weight, candidates.view(-1))
    assert torch.equal(rows["drawn_positions"], flat["drawn_positions"])
    assert rows["drawn_positions"][0].sum() == B * 9
    assert rows["drawn_positions"][0, 8:].sum() == 0


def test_nothing_drawn_gives_no_figures() -> None:
    drawn, weight = draw(0)
    totals = mlm_totals(torch.ones(drawn.shape), weight > 0, drawn, weight * 0, torch.ones(B, L, dtype=torch.bool))
    assert mlm_figures(totals) == {}


# -- verdicts -----------------------------------------------------------------------------------------------------------


def event(figures: Mapping[str, float], network: str, norm: float = 1.0, phase: str = "rtd") -> dict[str, Any]:
    return {"figures": dict(figures), "grad_norm": {network: norm}, "phase": phase}


def rtd_course(
    count: int = 12, *, separation: float = 2.5, share: float = 0.1, scale: float = 1.0, fit: bool = True
) -> list[dict[str, Any]]:
    """Step events of a discriminator whose logits are separated by so much; `fit`: they are calibrated, as trained ones are."""
    events = []
    for seed in range(count):
        logits, replaced, hidden = rtd_inputs(separation, share, seed)
        if fit:  # the best logit for two normal classes one standard deviation wide
            prior = math.log(max(share, 1e-6) / (1 - share))
            logits = separation * (logits + 2 - separation / 2) + prior
        layout = Padded(segments=torch.zeros(B, L, dtype=torch.long), whole=True)
        events.append(event(rtd_figures(rtd_totals(logits, replaced, hidden * scale, layout)), "discriminator"))
    return events


def mlm_course(losses: list[float], network: str = "generator", reach: int = L) -> list[dict[str, Any]]:
    return [
        event(mlm_figures(added(*(mlm_event_totals(seed * 40 + part, loss, reach) for part in range(40)))), network)
        for seed, loss in enumerate(losses)
    ]


def state(history: list[dict[str, Any]], network: str, warmup_done: bool = True, unigram_entropy: float | None = 7.0) -> State:
    (verdict,) = judge(history, [network], warmup_done=warmup_done, unigram_entropy=unigram_entropy)
    assert verdict.network == network
    assert verdict.reason
    return verdict.state


@pytest.mark.parametrize(
    ("course", "expected"),
    [
        ({}, State.HEALTHY),
        ({"separation": 0.5}, State.LEARNING),
        ({"separation": 0.0}, State.COLLAPSED),
        ({"separation": 0.3, "fit": False}, State.COLLAPSED),  # ranks a little, but loses more than the prior
        ({"scale": 1e-4}, State.COLLAPSED),
        ({"share": 0.001}, State.GENERATOR_TOO_STRONG),
        ({"share": 0.0}, State.GENERATOR_TOO_STRONG),
    ],
)
def test_discriminators(course: dict[str, Any], expected: State) -> None:
    assert state(rtd_course(**course), "discriminator") == expected


def test_no_verdict_on_learning_before_the_end_of_warm_up() -> None:
    assert state(rtd_course(separation=0.0), "discriminator", warmup_done=False) == State.WARMING_UP
    assert state(mlm_course([9.0] * 8), "generator", warmup_done=False) == State.WARMING_UP
    assert state([], "discriminator") == State.WARMING_UP
    assert state([], "encoder") == State.WARMING_UP


@pytest.mark.parametrize("network", ["generator", "encoder"])
def test_masked_language_models(network: str) -> None:
    assert state(mlm_course([9.0, 8.0, 7.5, *[7.0] * 6], network), network) == State.NOT_LEARNING
    assert state(mlm_course([9.0, 8.0, 7.5, *[6.7] * 6], network), network) == State.LEARNING
    assert state(mlm_course([9.0, 8.0, 7.5, *[6.0] * 6], network), network) == State.HEALTHY
    assert state(mlm_course([9.0, 8.0, 7.5, *[6.0] * 6], network), network, unigram_entropy=None) == State.LEARNING


def test_uneven_masks_are_told_at_once_and_once() -> None:
    history = mlm_course([9.0] * 3, reach=48)
    assert state(history, "generator", warmup_done=False) == State.MASKS_UNEVEN
    assert state(history[:2], "generator", warmup_done=False) == State.WARMING_UP  # not enough evidence
    for known, more in zip(history, rtd_course(3), strict=True):
        known["figures"].update(more["figures"])
    first, second = judge(history, ["generator", "discriminator"], warmup_done=True)
    assert "4 of 16" in first.reason
    assert (first.state, second.state) == (State.MASKS_UNEVEN, State.HEALTHY)


def test_a_risen_loss_has_diverged() -> None:
    falling = [9.0, 8.0, 7.0, 6.5, 6.0, 5.8, 5.7, 5.6]
    assert state(mlm_course([*falling, *[7.5] * 5]), "generator") == State.DIVERGED
    assert state(mlm_course([*falling, 9.0, 9.0]), "generator") == State.HEALTHY  # two bad batches are none
    healthy, wild = rtd_course(10), rtd_course(6, separation=-2.0, fit=False)
    for bad in wild:
        bad["figures"]["rtd_loss"] += 1
    assert state([*healthy, *wild], "discriminator") == State.DIVERGED


def test_numbers_that_are_no_numbers_have_diverged_as_emitted_and_as_read() -> None:
    for broken in (math.nan, math.inf, "NaN", "Infinity"):
        history = mlm_course([9.0, 8.0])
        history[-1]["figures"]["mlm_loss"] = broken
        assert state(history, "generator", warmup_done=False) == State.DIVERGED
        history = rtd_course(4)
        history[-1]["grad_norm"]["discriminator"] = broken
        assert state(history, "discriminator", warmup_done=False) == State.DIVERGED


def test_an_exploding_gradient_has_diverged() -> None:
    history = rtd_course(20)
    for late in history[-5:]:
        late["grad_norm"]["discriminator"] = 80.0
    assert state(history, "discriminator") == State.DIVERGED
    history[-1]["grad_norm"] = history[-2]["grad_norm"] = history[-3]["grad_norm"] = {"discriminator": 3.0}
    assert state(history, "discriminator") == State.HEALTHY  # a spike that has passed


def entropies(losses: list[float], entropy: float, share: float = 0.3) -> list[dict[str, Any]]:
    """A generator's course; `entropy` = of what it samples."""
    course = mlm_course(losses)
    for each in course:
        each["figures"] |= {"generator_entropy": entropy, "mlm_accuracy": share}
    return course


def test_a_generator_of_low_entropy_has_collapsed() -> None:
    assert state(entropies([6.0] * 5, 0.2), "generator") == State.GENERATOR_COLLAPSED
    assert state(entropies([6.0] * 5, 0.2), "generator", warmup_done=False) == State.GENERATOR_COLLAPSED
    rising = [5.0] * 6 + [9.0] * 6
    assert state(mlm_course(rising), "generator") == State.DIVERGED
    assert state(entropies(rising, 0.2), "generator") == State.GENERATOR_COLLAPSED, "the cause, not what it does to the loss"
    assert state(entropies([6.0] * 2, 0.2), "generator") == State.WARMING_UP, "too few figures"
    broken = entropies([6.0] * 5, 0.2)
    broken[-1]["figures"]["mlm_loss"] = math.nan
    assert state(broken, "generator") == State.DIVERGED


def test_a_generator_that_is_as_unsure_as_it_is_wrong_has_not() -> None:
    assert state(entropies([6.0] * 5, 5.5), "generator") == State.HEALTHY
    assert state(entropies([6.0] * 5, 3.6), "generator") == State.HEALTHY, "somewhat too sure"
    assert state(entropies([0.3] * 5, 0.05), "generator") == State.HEALTHY, "it knows the text"


def test_the_entropy_is_the_mean_over_what_was_sampled() -> None:
    totals = mlm_event_totals(0) | {"sampled_nll": torch.tensor(144.0)}
    assert mlm_figures(totals)["generator_entropy"] == 144.0 / (9 * B)


def test_only_the_current_phase_counts() -> None:
    before = [{**old, "phase": "mlm"} for old in mlm_course([5.0] * 10, "encoder")]
    assert state([*before, *mlm_course([6.4] * 8)], "generator") == State.HEALTHY
    assert state([*before, *mlm_course([6.4] * 2)], "generator") == State.WARMING_UP


def test_a_supervised_network_has_to_lower_its_loss() -> None:
    def course(*losses: float) -> list[dict[str, Any]]:
        return [event({"loss": loss}, "model", phase="train") for loss in losses]

    assert state(course(0.7, 0.6, 0.4, 0.3), "model") == State.HEALTHY
    assert state(course(0.7, 0.7, 0.71, 0.7), "model") == State.NOT_LEARNING
    assert state(course(0.7, *[0.01] * 6, *[0.05] * 6), "model") == State.HEALTHY  # noise near zero
    assert state(course(0.7, *[0.3] * 6, *[2.0] * 6), "model") == State.DIVERGED


@pytest.mark.parametrize(
    ("gain", "auc", "loss", "expected"),
    [
        (-0.01, 0.5, 0.70, State.NOT_LEARNING),
        (0.01, 0.6, 0.68, State.LEARNING),
        (0.2, 0.8, 0.49, State.HEALTHY),
        (-9.0, 0.5, math.nan, State.DIVERGED),
    ],
)
def test_detectors_of_texts_are_judged_by_their_own_figures(gain: float, auc: float, loss: float, expected: State) -> None:
    """The loss of the generator beside it, which learns nothing, says nothing of the detector."""
    figures = {"prior_gain": gain, "auc": auc, "detector_loss": loss, "mlm_loss": 9.0}
    assert state([event(figures, "detector")] * 6, "detector") == expected
    assert state([event(figures, "detector")] * 6, "detector", warmup_done=False) in (State.WARMING_UP, State.DIVERGED)


@pytest.mark.parametrize(("reward", "expected"), [(0.7, State.HEALTHY), (0.001, State.LEARNING)])
def test_a_generator_without_likelihood_is_judged_by_its_reward(reward: float, expected: State) -> None:
    """Its likelihood may be lost; that it says few tokens is a collapse all the same."""
    course = entropies([5.0] * 6 + [9.0] * 6, 8.5)
    for each in course:
        each["figures"] |= {"reward": reward, "generator_loss": -reward}
    assert state(course, "generator") == expected
    assert state(course, "generator", warmup_done=False) == State.WARMING_UP
    for each in course:
        each["figures"]["generator_entropy"] = 0.2
    assert state(course, "generator") == State.GENERATOR_COLLAPSED


@pytest.mark.parametrize(
    ("gain", "auc", "rms", "expected"),
    [
        (-0.08, 0.54, 1.0, State.LEARNING),
        (0.0, 0.5, 1.0, State.LEARNING),  # no better than the noise model, which may know the text
        (0.1, 0.8, 1.0, State.HEALTHY),
        (0.1, 0.8, 1e-4, State.COLLAPSED),
    ],
)
def test_energies_that_know_no_more_than_the_noise_model_have_not_collapsed(
    gain: float, auc: float, rms: float, expected: State
) -> None:
    figures = {"nce_loss": 0.4, "prior_gain": gain, "auc": auc, "token_rms": rms, "replaced_share": 0.15}
    assert state([event(figures, "discriminator")] * 6, "discriminator") == expected
