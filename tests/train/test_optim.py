"""Updates against the formulas they stand for, in numpy or by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from electra.errors import ElectraError
from electra.train.optim import AdamWConfig, MuonConfig, Optimizers, learning_rate_factor, owned_parameters


class Net(nn.Module):
    """A table, a matrix, a norm and a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.dense = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(3)


def give_gradients(module: nn.Module, seed: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


def copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("corrected", [False, True])
def test_updates_are_adamw_with_and_without_bias_correction(corrected: bool) -> None:
    torch.manual_seed(0)
    net = Net()
    config = AdamWConfig(lr=0.01, weight_decay=0.1, clip=1e9, bias_correction=corrected, warmup_steps=2)
    optimizers = Optimizers({"net": net}, config, steps=10)
    expected = {name: value.double() for name, value in copies(net).items()}
    first = {name: torch.zeros_like(value) for name, value in expected.items()}
    second = {name: torch.zeros_like(value) for name, value in expected.items()}
    for step in range(8):
        give_gradients(net, step)
        lr = 0.01 * (1 - step / 10) * min(1.0, step / 2)
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None
            grad = parameter.grad.double()
            first[name] = 0.9 * first[name] + 0.1 * grad
            second[name] = 0.999 * second[name] + 0.001 * grad.square()
            m, v = first[name], second[name]
            if corrected:
                m, v = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
            decay = 0.1 if parameter.ndim >= 2 else 0.0
            expected[name] = expected[name] - lr * (m / (v.sqrt() + 1e-6) + decay * expected[name])
        optimizers.clip(["net"])
        optimizers.step(["net"], step)
    for name, value in copies(net).items():
        torch.testing.assert_close(value.double(), expected[name], rtol=2e-5, atol=1e-7, msg=name)


def test_the_first_update_has_rate_0_and_moves_nothing() -> None:
    net = Net()
    optimizers = Optimizers({"net": net}, AdamWConfig(lr=1.0, warmup_steps=3), steps=10)
    before = copies(net)
    give_gradients(net, 0)
    optimizers.step(["net"], 0)
    assert all(torch.equal(value, before[name]) for name, value in copies(net).items())
    give_gradients(net, 0)
    optimizers.step(["net"], 1)
    assert not any(torch.equal(value, before[name]) for name, value in copies(net).items())


@pytest.mark.parametrize(("step", "factor"), [(0, 0.0), (1, 0.25 * 0.95), (4, 0.8), (5, 0.75), (19, 0.05), (20, 0.0)])
def test_the_schedule_multiplies_warmup_and_decay(step: int, factor: float) -> None:
    assert learning_rate_factor(step, 20, 4) == pytest.approx(factor)


def test_no_warmup_begins_at_the_peak() -> None:
    assert learning_rate_factor(0, 20, 0) == 1.0


def test_warmup_by_ratio_and_by_steps() -> None:
    assert AdamWConfig(lr=1.0, warmup_ratio=0.05).warmup(41) == math.ceil(0.05 * 41) == 3
    assert AdamWConfig(lr=1.0, warmup_ratio=0.05, warmup_steps=7).warmup(41) == 7


def test_decay_acts_on_matrices_and_tables_only() -> None:
    net = Net()
    optimizers = Optimizers({"net": net}, AdamWConfig(lr=0.1, weight_decay=0.5, warmup_ratio=0.0), steps=10)
    before = copies(net)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers.step(["net"], 0)
    for name, value in copies(net).items():
        factor = 0.95 if name in ("table.weight", "dense.weight") else 1.0
        torch.testing.assert_close(value, factor * before[name], msg=name)


def test_a_shared_parameter_belongs_to_the_first_network() -> None:
    first, second = Net(), Net()
    second.table = first.table
    networks = {"first": first, "second": second}
    owned = owned_parameters(networks)
    assert "table.weight" in owned["first"]
    assert "table.weight" not in owned["second"]
    optimizers = Optimizers(networks, AdamWConfig(lr=0.1, weight_decay=0.0, warmup_ratio=0.0), steps=10)
    before = first.table.weight.detach().clone()
    give_gradients(first, 0)
    give_gradients(second, 1)
    optimizers.step(["second"], 0)
    assert torch.equal(first.table.weight, before)
    give_gradients(first, 0)
    optimizers.step(["first"], 0)
    # one Adam step at rate .1 from empty moments moves every entry by .1: it is not taken twice
    torch.testing.assert_close((first.table.weight - before).abs(), torch.full_like(before, 0.1), rtol=1e-4, atol=1e-4)


def test_frozen_parameters_are_left_out() -> None:
    net = Net()
    net.table.weight.requires_grad_(False)
    assert "table.weight" not in owned_parameters({"net": net})["net"]
    assert not any("table" in name for name in Optimizers({"net": net}, AdamWConfig(lr=1.0), steps=1).state_tensors())


def clipped(per_network: bool) -> tuple[dict[str, Tensor], dict[str, float], dict[str, Tensor]]:
    """Gradients clipped at 1 as the first moment sees them, norms, and gradients before; network `small` has a norm below 1,
    `large` above."""
    small, large = Net(), Net()
    optimizers = Optimizers({"small": small, "large": large}, AdamWConfig(lr=1.0, clip_per_network=per_network), steps=1)
    give_gradients(small, 0, 0.01)
    give_gradients(large, 1, 10.0)
    nets = {"small": small, "large": large}
    before = {name: torch.cat([p.grad.flatten().clone() for p in net.parameters()]) for name, net in nets.items()}  # type: ignore[union-attr]
    norms = {name: float(norm) for name, norm in optimizers.clip(["small", "large"]).items()}
    optimizers.step(["small", "large"], 0)
    state = optimizers.state_tensors()
    after = {
        name: torch.cat([state[f"{name}.{parameter}.exp_avg"].flatten() / 0.1 for parameter, _ in net.named_parameters()])
        for name, net in nets.items()
    }
    return after, norms, before


def test_clip_by_the_common_norm() -> None:
    after, norms, before = clipped(per_network=False)
    common = math.hypot(norms["small"], norms["large"])
    assert norms == pytest.approx({name: float(grad.norm()) for name, grad in before.items()})
    for name, grad in after.items():
        torch.testing.assert_close(grad, before[name] / common, rtol=1e-5, atol=1e-8)
    assert float(torch.cat(list(after.values())).norm()) == pytest.approx(1.0, rel=1e-4)


def test_clip_per_network() -> None:
    after, norms, before = clipped(per_network=True)
    assert norms["small"] < 1 < norms["large"]
    torch.testing.assert_close(after["small"], before["small"])
    assert float(after["large"].norm()) == pytest.approx(1.0, rel=1e-4)


def test_layer_decay_is_a_power_of_the_depth() -> None:
    net = Net()
    exponents = {"net.table.weight": 3, "net.dense.weight": 1, "net.dense.bias": 1}
    config = AdamWConfig(lr=0.1, layer_decay=0.8, weight_decay=0.0, warmup_ratio=0.0, bias_correction=True)
    optimizers = Optimizers({"net": net}, config, steps=10, depths=exponents)
    before = copies(net)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizers.step(["net"], 0)
    for name, value in copies(net).items():
        # the first corrected Adam step is the rate itself
        moved = float((before[name] - value).mean())
        assert moved == pytest.approx(0.1 * 0.8 ** exponents.get(f"net.{name}", 0), rel=1e-4), name


def test_a_sum_instead_of_a_mean_is_a_smaller_clip_and_eps() -> None:
    """The published fine-tuning clips the gradient of a loss that is summed over the batch; recipe finetune-small-reference."""
    batch = 32
    config = AdamWConfig(lr=0.01, clip=1.0, eps=1e-6, warmup_ratio=0.0)
    summed, mean = Net(), Net()
    mean.load_state_dict(summed.state_dict())
    ours = Optimizers({"net": mean}, dataclasses.replace(config, clip=1.0 / batch, eps=1e-6 / batch), steps=10)
    theirs = Optimizers({"net": summed}, config, steps=10)
    for step, scale in enumerate((0.001, 3.0, 0.01, 10.0)):  # below and above the clip
        give_gradients(mean, step, scale)
        give_gradients(summed, step, scale * batch)
        for optimizers in (ours, theirs):
            optimizers.clip(["net"])
            optimizers.step(["net"], step)
        for name, value in copies(mean).items():
            torch.testing.assert_close(value, copies(summed)[name], rtol=1e-5, atol=1e-6, msg=name)


def test_rates_of_single_networks() -> None:
    networks = {"generator": Net(), "discriminator": Net()}
    optimizers = Optimizers(networks, AdamWConfig(lr=0.1, lr_scale={"generator": 0.5}, warmup_ratio=0.0), steps=4)
    assert optimizers.learning_rates(1) == pytest.approx({"generator": 0.0375, "discriminator": 0.075})
    with pytest.raises(ElectraError, match=r"E-C401.*generater.*generator, discriminator"):
        Optimizers(networks, AdamWConfig(lr=0.1, lr_scale={"generater": 0.5}), steps=4)


@pytest.mark.parametrize(
    "wrong", [{"lr": 0.0}, {"lr": 1.0, "clip": 0.0}, {"lr": 1.0, "warmup_ratio": 2.0}, {"lr": 1.0, "layer_decay": 0.0}]
)
def test_settings_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ElectraError, match="E-C400"):
        AdamWConfig(**wrong)  # type: ignore[arg-type]


def test_the_state_goes_into_tensors_and_back() -> None:
    net, other = Net(), Net()
    config = AdamWConfig(lr=0.1, warmup_ratio=0.0)
    ours, theirs = (Optimizers({"net": module}, config, steps=10) for module in (net, other))
    give_gradients(net, 0)
    ours.step(["net"], 0)
    other.load_state_dict(net.state_dict())
    theirs.load_state_tensors({name: tensor.clone() for name, tensor in ours.state_tensors().items()})
    for module, optimizers in ((net, ours), (other, theirs)):
        give_gradients(module, 1)
        optimizers.step(["net"], 1)
    assert all(torch.equal(value, copies(net)[name]) for name, value in copies(other).items())


# -- Muon ---------------------------------------------------------------------------------------------------------------


class Deep(nn.Module):
    """A table, two layers, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 6)
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 9)])
        self.head = nn.Linear(9, 2)


def test_muon_orthogonalises_matrices_of_layers_and_leaves_the_rest_to_adamw() -> None:
    """Against the formula, with the Newton-Schulz iteration written out, for a square and a tall matrix."""
    torch.manual_seed(0)
    net, plain = Deep(), Deep()
    plain.load_state_dict(net.state_dict())
    given = {"lr": 0.01, "weight_decay": 0.1, "clip": 0.5, "warmup_ratio": 0.0}
    muon = Optimizers({"net": net}, MuonConfig(**given, momentum=0.9), steps=10)  # type: ignore[arg-type]
    adamw = Optimizers({"net": plain}, AdamWConfig(**given), steps=10)  # type: ignore[arg-type]
    expected = {f"layers.{index}.weight": net.layers[index].weight.detach().clone() for index in range(2)}
    moments = {name: torch.zeros_like(weight) for name, weight in expected.items()}
    for step in range(3):
        for module, optimizers in ((net, muon), (plain, adamw)):
            give_gradients(module, step)
            norm = float(optimizers.clip(["net"])["net"])
            if module is net:
                give_gradients(plain, step)  # for the formula: not yet clipped
                grads = {name: dict(plain.named_parameters())[name].grad / (norm + 1e-6) * 0.5 for name in expected}  # type: ignore[operator]
            optimizers.step(["net"], step)
        lr = 0.01 * (1 - step / 10)
        for name, grad in grads.items():
            moments[name] = 0.9 * moments[name] + 0.1 * grad
            update = (0.1 * grad + 0.9 * moments[name]).bfloat16()
            tall = update.shape[0] > update.shape[1]
            x = update.t() if tall else update
            x = x / x.norm()
            for _ in range(5):
                gram = x @ x.t()
                x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
            update = (x.t() if tall else x).float()
            expected[name] = expected[name] * (1 - lr * 0.1) - lr * 0.2 * math.sqrt(max(update.shape)) * update
    for name, value in copies(net).items():
        wanted = expected.get(name, copies(plain)[name])
        torch.testing.assert_close(value, wanted, rtol=1e-3 if name in expected else 0, atol=6e-4 if name in expected else 0)
    singular = torch.linalg.svdvals(update.double())
    assert 0.5 < float(singular.min()) < float(singular.max()) < 1.5


def test_muons_state_goes_into_tensors_and_back_bitwise() -> None:
    net, other = Deep(), Deep()
    config = MuonConfig(lr=0.1, warmup_ratio=0.0)
    ours, theirs = (Optimizers({"net": module}, config, steps=10, average=0.9) for module in (net, other))
    names = set(ours.state_tensors())
    assert {"net.layers.0.weight.momentum_buffer", "net.layers.0.bias.exp_avg", "net.table.weight.exp_avg"} <= names
    assert not names & {"net.layers.0.weight.exp_avg", "net.head.weight.momentum_buffer", "net.table.weight.momentum_buffer"}
    give_gradients(net, 0)
    ours.step(["net"], 0)
    other.load_state_dict(net.state_dict())
    theirs.load_state_tensors({name: tensor.clone() for name, tensor in ours.state_tensors().items()})
    for module, optimizers in ((net, ours), (other, theirs)):
        give_gradients(module, 1)
        optimizers.clip(["net"])
        optimizers.step(["net"], 1)
    assert all(torch.equal(value, copies(net)[name]) for name, value in copies(other).items())
    assert all(torch.equal(tensor, theirs.state_tensors()[name]) for name, tensor in ours.state_tensors().items())
    weights = sum(parameter.numel() for parameter in net.parameters())
    held = sum(tensor.numel() for name, tensor in ours.state_tensors().items() if not name.endswith(".step"))
    assert ours.state_bytes == 4 * (weights + held)


# -- averages -----------------------------------------------------------------------------------------------------------


def test_averages_of_the_weights_by_hand() -> None:
    net = Net()
    optimizers = Optimizers({"net": net}, AdamWConfig(lr=0.1, warmup_ratio=0.0), steps=30, average=0.5)
    expected = copies(net)
    for step in range(20):
        give_gradients(net, step)
        optimizers.step(["net"], step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = {name: decay * expected[name] + (1 - decay) * value for name, value in copies(net).items()}
    last = copies(net)
    optimizers.use_averages()
    for name, value in copies(net).items():
        torch.testing.assert_close(value, expected[name], msg=name)
        assert not torch.equal(value, last[name])


def test_without_averages_the_weights_stay() -> None:
    net = Net()
    optimizers = Optimizers({"net": net}, AdamWConfig(lr=0.1), steps=3)
    before = copies(net)
    optimizers.use_averages()
    assert all(torch.equal(value, before[name]) for name, value in copies(net).items())
    assert not any(name.endswith("average") for name in optimizers.state_tensors())


# -- the decay at the end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 0.0), (2, 0.5), (4, 1.0), (15, 1.0), (16, 0.8), (18, 0.4), (19, 0.2), (20, 0.0)]
)
def test_warm_up_plateau_decay(step: int, factor: float) -> None:
    """The last quarter of 20 steps."""
    assert learning_rate_factor(step, 20, 4, 0.25) == pytest.approx(factor)


@pytest.mark.parametrize("ratio", [0.0, 1.5])
def test_a_decay_over_no_share_of_the_steps(ratio: float) -> None:
    with pytest.raises(ElectraError, match="E-C550"):
        AdamWConfig(lr=1.0, decay_ratio=ratio)


def test_a_momentum_of_one() -> None:
    with pytest.raises(ElectraError, match="E-C551"):
        MuonConfig(lr=1.0, momentum=1.0)
