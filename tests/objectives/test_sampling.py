"""Samples follow the distribution, and the fused cross entropy is torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from electra.contracts import Noise
from electra.objectives.sampling import cross_entropy, sample, warm

#: the largest uniform number that `Noise` gives
ALMOST_ONE = 1 - 2.0**-24


def chi_square(counts: torch.Tensor, probability: torch.Tensor) -> float:
    expected = probability.double() / probability.double().sum() * counts.sum()
    return float(((counts - expected).square() / expected).sum())


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
def test_samples_follow_the_distribution(temperature: float) -> None:
    """40,000 samples over 30 tokens; 58.3 is exceeded once in a thousand times by chance (29 degrees of freedom), and the
    noise is fixed."""
    logits = torch.randn(30, generator=torch.Generator().manual_seed(0))
    uniform = torch.from_numpy(Noise(np.arange(40_000, dtype=np.uint64)).uniform("sample", 1)[:, 0])
    probability = torch.softmax(logits, 0).expand(len(uniform), -1)
    counts = torch.bincount(sample(warm(probability, temperature), uniform), minlength=30)
    assert chi_square(counts, torch.softmax(logits / temperature, 0)) < 58.3
    assert chi_square(counts, torch.softmax(logits / (temperature * 1.2), 0)) > 58.3, "the test would see another temperature"


def test_each_row_has_its_own_distribution_and_number() -> None:
    probability = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25], [0.0, 0.0, 1.0]]).repeat_interleave(3, 0)
    uniform = torch.tensor([0.05, 0.25, 0.35, 0.45, 0.55, 0.8, 0.0, 0.5, ALMOST_ONE])
    assert sample(probability, uniform).tolist() == [0, 1, 2, 0, 1, 2, 2, 2, 2]


def test_more_rows_than_are_summed_at_once() -> None:
    generator = torch.Generator().manual_seed(1)
    probability, uniform = torch.rand(75, 9, generator=generator), torch.rand(75, generator=generator)
    one_by_one = [int(sample(probability[row : row + 1], uniform[row : row + 1])) for row in range(75)]
    assert sample(probability, uniform).tolist() == one_by_one


@pytest.mark.parametrize("scale", [1e-30, 0.3, 1.0, 7.77, 1e30])
def test_what_has_no_probability_is_never_sampled(scale: float) -> None:
    """At both ends of the interval, whatever the sum of the row."""
    inner = torch.rand(200, 5, generator=torch.Generator().manual_seed(2)) * scale
    probability = F.pad(inner, (3, 4))
    for u in (0.0, 2.0**-24, ALMOST_ONE):
        found = sample(probability, torch.full((200,), u))
        assert int(found.min()) >= 3
        assert int(found.max()) <= 7


def test_the_index_stays_inside_the_vocabulary() -> None:
    """Rows that no token has a probability in, or that are not numbers, still give a token."""
    probability = torch.stack([torch.zeros(4), torch.full((4,), torch.nan), torch.full((4,), torch.inf)])
    found = sample(probability, torch.tensor([0.5, 0.5, ALMOST_ONE]))
    assert found.dtype == torch.int64
    assert bool(((found >= 0) & (found < 4)).all())


def test_a_large_vocabulary_in_fp32() -> None:
    """The last tokens of 100,000 get their share: no probability is lost in the running sum."""
    probability = torch.full((4000, 100_000), 1e-5)
    probability[:, -1000:] = 2e-5
    uniform = torch.from_numpy(Noise(np.arange(4000, dtype=np.uint64)).uniform("sample", 1)[:, 0])
    share = float((sample(probability[:1].expand(4000, -1), uniform) >= 99_000).float().mean())
    assert share == pytest.approx(2000 / 101_000, abs=0.008)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cross_entropy_and_its_gradient_are_those_of_torch(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = (3 * torch.randn(11, 40, generator=generator)).to(dtype).requires_grad_()
    same = logits.detach().clone().requires_grad_()
    target, weight = torch.randint(0, 40, (11,), generator=generator), torch.rand(11, generator=generator)
    nll, probability = cross_entropy(logits, target)
    expected = F.cross_entropy(same.float(), target, reduction="none")
    assert nll.dtype == probability.dtype == torch.float32
    torch.testing.assert_close(nll, expected)
    torch.testing.assert_close(probability, torch.softmax(same.detach().float(), -1))
    (nll * weight).sum().backward()
    (expected * weight).sum().backward()
    assert logits.grad is not None
    assert logits.grad.dtype == dtype
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 4e-3}
    torch.testing.assert_close(logits.grad, same.grad, **tolerance)


def test_a_hopeless_position_has_a_finite_loss_and_the_right_gradient() -> None:
    logits = torch.tensor([[0.0, 500.0]], requires_grad=True)
    nll, probability = cross_entropy(logits, torch.tensor([0]))
    nll.sum().backward()
    assert 80 < float(nll.detach()) < 100
    assert not probability.requires_grad
    torch.testing.assert_close(logits.grad, torch.tensor([[-1.0, 1.0]]))


def test_warm_at_one_is_the_distribution_itself() -> None:
    probability = torch.rand(3, 4)
    assert warm(probability, 1.0) is probability
