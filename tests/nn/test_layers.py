import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from electra.nn.layers import Rotary, dropout, geglu, initialise


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_dropout_drops_p_and_keeps_the_mean(p: float, dtype: torch.dtype) -> None:
    """In every call a multiple of 1/256 next to p, over many calls p; what is kept has the factor of the call's own share."""
    torch.manual_seed(0)
    x = torch.ones(1000, 499, dtype=dtype)
    shares, calls = [], 40
    for _ in range(calls):
        dropped = dropout(x, p)
        share = (dropped == 0).double().mean().item()
        exact = min((int(256 * p), int(256 * p) + 1), key=lambda below: abs(below / 256 - share))
        assert share == pytest.approx(exact / 256, abs=5 * (p * (1 - p) / x.numel()) ** 0.5)
        kept = dropped[dropped != 0]
        assert torch.equal(kept, torch.ones_like(kept).mul_(256 / (256 - exact)))
        shares.append(exact / 256)
    assert sum(shares) / len(shares) == pytest.approx(p, abs=4 / 256 / calls**0.5)
    assert len(set(shares)) == (1 if (256 * p).is_integer() else 2)


def test_dropout_is_independent_from_element_to_element_and_from_call_to_call() -> None:
    torch.manual_seed(0)
    first, second = ((dropout(torch.ones(1 << 20), 0.5) == 0).float() for _ in range(2))
    for lag in (1, 2, 3, 4, 8):
        assert abs(torch.corrcoef(torch.stack([first[:-lag], first[lag:]]))[0, 1].item()) < 0.005
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1].item()) < 0.005


def test_dropout_repeats_under_a_seed_and_its_gradient_has_its_mask() -> None:
    x = torch.randn(33, 7, requires_grad=True)
    outputs = []
    for _ in range(2):
        torch.manual_seed(3)
        outputs.append(dropout(x, 0.4))
    assert torch.equal(outputs[0], outputs[1])
    outputs[0].sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad * x.detach(), outputs[0].detach())


def test_dropout_of_nothing_is_free() -> None:
    x = torch.randn(3)
    assert dropout(x, 0.0) is x
    assert dropout(torch.empty(0, 4), 0.5).shape == (0, 4)


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(500, 64)
        self.inner = nn.Linear(64, 256)
        self.Wo = nn.Linear(256, 64)
        self.norm = nn.LayerNorm(64)
        self.classifier = nn.Linear(64, 3)


def test_initialise_cuts_at_two_deviations_and_draws_outputs_glorot_uniform() -> None:
    torch.manual_seed(0)
    network = _Network()
    for parameter in network.parameters():
        nn.init.constant_(parameter, 7.0)
    initialise(network, std=0.02, residual_std=0.001)
    for weight, std in ((network.table.weight, 0.02), (network.inner.weight, 0.02), (network.Wo.weight, 0.001)):
        assert weight.abs().max() <= 2 * std
        assert weight.abs().max() > 1.9 * std
        assert weight.std().item() == pytest.approx(0.88 * std, rel=0.03)  # a normal cut at two deviations
    bound = (6 / (64 + 3)) ** 0.5
    assert 0.9 * bound < network.classifier.weight.abs().max() <= bound
    assert all((module.bias == 0).all() for module in (network.inner, network.Wo, network.classifier, network.norm))
    assert (network.norm.weight == 1).all()


def test_rotary_scores_depend_on_distance_only() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(1, 2, 8), torch.randn(1, 2, 8)

    def score(at: int, other: int) -> torch.Tensor:
        turned = [Rotary.of(torch.tensor([position]), 8, 100.0).turn(x) for x, position in ((q, at), (k, other))]
        return (turned[0] * turned[1]).sum(-1)

    torch.testing.assert_close(score(3, 7), score(53, 57))
    assert not torch.allclose(score(3, 7), score(3, 8), atol=1e-3)
    torch.testing.assert_close(score(5, 5), (q * k).sum(-1))


def test_rotary_turns_pairs_and_turns_them_back_in_the_type_it_was_given() -> None:
    x, positions = torch.randn(2, 5, 3, 4), torch.tensor([[0, 1, 2], [0, 7, 8]])
    rotary = Rotary.of(positions, 4, 10_000.0)
    turned = rotary.turn(x)
    pair, angle = x[1, 2, 1, [0, 2]], torch.tensor(7.0)
    expected = torch.stack((pair[0] * angle.cos() - pair[1] * angle.sin(), pair[1] * angle.cos() + pair[0] * angle.sin()))
    torch.testing.assert_close(turned[1, 2, 1, [0, 2]], expected)
    torch.testing.assert_close(turned[:, :, 0], x[:, :, 0])
    torch.testing.assert_close(rotary.turn(turned, back=True), x)
    assert rotary.cos.dtype == torch.float32
    assert rotary.turn(x.bfloat16()).dtype == torch.bfloat16


def test_geglu_and_its_gradient_are_those_of_its_definition() -> None:
    both = torch.randn(3, 5, 14, dtype=torch.float64, requires_grad=True)
    inner, gate = both.chunk(2, -1)
    torch.testing.assert_close(geglu(both), F.gelu(inner) * gate)
    assert torch.autograd.gradcheck(geglu, both)


def test_networks_without_values_cost_no_memory_and_leave_the_compiler_of_torch_alone() -> None:
    """In a process of its own, where nothing else has imported it."""
    program = """
import sys
from torch import nn
from electra.nn.layers import shapes_alone
with shapes_alone():
    network = nn.Sequential(nn.Embedding(10**9, 512), nn.Linear(512, 10**9), nn.LSTM(512, 512))
assert network[0].weight.shape == (10**9, 512)
assert all(parameter.is_meta for parameter in network.parameters())
assert "torch._dynamo" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
