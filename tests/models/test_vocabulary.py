"""Samples follow the distribution, and loss and gradients are those of torch's cross entropy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from electra.contracts import Noise
from electra.models.vocabulary import Guess, guess

#: the largest uniform number that `Noise` gives
ALMOST_ONE = 1 - 2.0**-24


def chi_square(counts: Tensor, probability: Tensor) -> float:
    expected = probability.double() / probability.double().sum() * counts.sum()
    return float(((counts - expected).square() / expected).sum())


def guess_from(logits_NV: Tensor, uniform_N: Tensor, temperature: float = 1.0) -> Tensor:
    """Samples of given logits: the table is the identity, so that hidden states are logits (0 times inf would be nan)."""
    size = logits_NV.shape[1]
    target = torch.zeros(len(logits_NV), dtype=torch.long)
    sampled = guess(logits_NV.clamp(-1e4, 1e4), torch.eye(size), torch.zeros(size), target, uniform_N, temperature).sampled_N
    assert sampled is not None
    return sampled


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
@pytest.mark.parametrize("size", [30, 600])
def test_samples_follow_the_distribution(temperature: float, size: int) -> None:
    """Over 30 tokens, and over 600 in 30 groups, which lie in three blocks; 58.3 is exceeded once in a thousand times by chance
    (29 degrees of freedom), and the noise is fixed."""
    logits = torch.randn(size, generator=torch.Generator().manual_seed(0))
    uniform = torch.from_numpy(Noise(np.arange(40_000, dtype=np.uint64)).uniform("sample", 1)[:, 0])
    counts = torch.bincount(guess_from(logits.expand(len(uniform), -1), uniform, temperature), minlength=size)
    grouped = counts.view(30, -1).sum(1)
    assert chi_square(grouped, torch.softmax(logits / temperature, 0).view(30, -1).sum(1)) < 58.3
    if size == 30:
        wrong = torch.softmax(logits / (temperature * 1.2), 0)
        assert chi_square(counts, wrong) > 58.3, "the test would see another temperature"


def test_each_row_has_its_own_distribution_and_number() -> None:
    probability = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25], [0.0, 0.0, 1.0]]).repeat_interleave(3, 0)
    uniform = torch.tensor([0.05, 0.25, 0.35, 0.45, 0.55, 0.8, 0.0, 0.5, ALMOST_ONE])
    assert guess_from(probability.log(), uniform).tolist() == [0, 1, 2, 0, 1, 2, 2, 2, 2]


def test_rows_do_not_depend_on_those_that_are_read_beside_them() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, uniform = torch.randn(75, 700, generator=generator), torch.rand(75, generator=generator)
    one_by_one = [int(guess_from(logits[row : row + 1], uniform[row : row + 1])) for row in range(75)]
    assert guess_from(logits, uniform).tolist() == one_by_one


@pytest.mark.parametrize("first", [3, 250, 256, 700])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 30.0])
def test_what_has_no_probability_is_never_sampled(first: int, spread: float) -> None:
    """At both ends of the interval, inside a block and at its borders."""
    inner = torch.randn(100, 9, generator=torch.Generator().manual_seed(2)) * spread
    logits = F.pad(inner, (first, 1000 - first - 9), value=float("-inf"))
    for u in (0.0, 2.0**-24, 0.5, ALMOST_ONE):
        found = guess_from(logits, torch.full((100,), u))
        assert int(found.min()) >= first
        assert int(found.max()) < first + 9


def test_the_index_stays_inside_the_vocabulary() -> None:
    """Rows that are not numbers still give a token."""
    logits = torch.stack([torch.full((4,), torch.nan), torch.full((4,), torch.inf), torch.full((4,), -torch.inf)])
    found = guess_from(logits, torch.tensor([0.5, 0.5, ALMOST_ONE]))
    assert found.dtype == torch.int64
    assert bool(((found >= 0) & (found < 4)).all())


def test_a_large_vocabulary_in_fp32() -> None:
    """The last tokens of 100,000 get their share: no probability is lost in the running sum."""
    table = torch.zeros(100_000, 1)
    table[-1000:] = 2.0
    uniform = torch.from_numpy(Noise(np.arange(4000, dtype=np.uint64)).uniform("sample", 1)[:, 0])
    hidden = torch.full((4000, 1), float(np.log(2.0)) / 2)
    sampled = guess(hidden, table, torch.zeros(100_000), torch.zeros(4000, dtype=torch.long), uniform).sampled_N
    assert sampled is not None
    assert float((sampled >= 99_000).float().mean()) == pytest.approx(2000 / 101_000, abs=0.008)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradients_are_those_of_torch(dtype: torch.dtype) -> None:
    """Of hidden states, table and bias, against autograd through the softmax; a target that two positions share adds up."""
    generator = torch.Generator().manual_seed(3)
    hidden, table, bias = (torch.randn(*shape, generator=generator) for shape in ((40, 16), (300, 16), (300,)))
    target, weight = torch.randint(0, 300, (40,), generator=generator), torch.rand(40, generator=generator)
    target[7] = target[8]
    found, same = ([x.clone().requires_grad_() for x in (hidden, table, bias)] for _ in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        ours: Guess = guess(*found, target)
    logits = F.linear(same[0], same[1], same[2])
    expected = F.cross_entropy(logits, target, reduction="none")
    assert ours.nll_N.dtype == torch.float32
    assert ours.sampled_N is None
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 5e-2, "atol": 5e-2}
    torch.testing.assert_close(ours.nll_N, expected, **tolerance)
    (ours.nll_N * weight).sum().backward()
    (expected * weight).sum().backward()
    for mine, theirs in zip(found, same, strict=True):
        assert mine.grad is not None
        assert mine.grad.dtype == torch.float32
        torch.testing.assert_close(mine.grad, theirs.grad, **tolerance)
    if dtype == torch.float32:
        assert torch.equal(ours.correct_N, logits.argmax(-1) == target)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
def test_the_sampled_token_has_its_log_probability_and_its_gradient(temperature: float) -> None:
    """Alone, and in one sum with the loss; without temperature, whatever it was sampled with."""
    generator = torch.Generator().manual_seed(4)
    values = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((40, 16), (300, 16), (300,))]
    target, uniform = torch.randint(0, 300, (40,), generator=generator), torch.rand(40, generator=generator)
    reward = torch.randn(40, generator=generator, dtype=torch.float64)
    for share in (0.0, 1.0):
        found, same = ([x.clone().requires_grad_() for x in values] for _ in range(2))
        ours = guess(*found, target, uniform, temperature)
        assert ours.sampled_N is not None
        assert ours.sampled_nll_N is not None
        both = F.linear(same[0], same[1], same[2]).log_softmax(-1)
        expected, loss = -both.gather(1, ours.sampled_N[:, None])[:, 0], -both.gather(1, target[:, None])[:, 0]
        torch.testing.assert_close(ours.sampled_nll_N, expected)
        ((ours.sampled_nll_N * reward).sum() + (share * ours.nll_N.sum() if share else 0)).backward()  # type: ignore[no-untyped-call]
        ((expected * reward).sum() + share * loss.sum()).backward()
        for mine, theirs in zip(found, same, strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad)


def test_a_hopeless_position_has_its_loss_and_the_right_gradient() -> None:
    logits = torch.tensor([[0.0, 500.0]], requires_grad=True)
    found = guess(logits, torch.eye(2), torch.zeros(2), torch.tensor([0]))
    found.nll_N.sum().backward()
    assert float(found.nll_N.detach()) == 500.0
    assert not bool(found.correct_N)
    torch.testing.assert_close(logits.grad, torch.tensor([[-1.0, 1.0]]))
