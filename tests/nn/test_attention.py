"""Every path against one plain reference; documents do not see each other."""

import pytest
import torch
from torch import Tensor

from electra.contracts import Order, Packed, Padded
from electra.nn import attention
from electra.nn.attention import Reach
from electra.nn.layers import Rotary

HEADS, SIZE = 3, 8


def _inputs(*shape: int) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(*shape, HEADS, SIZE, requires_grad=True) for _ in range(3)]


def attend(q: Tensor, k: Tensor, v: Tensor, reach: Reach, *, dropout: float = 0.0) -> Tensor:
    return attention.attend(torch.stack((q, k, v), dim=-3), reach, dropout=dropout)


def _reference(q: Tensor, k: Tensor, v: Tensor, segments: Tensor, window: int | None, order: Order = "both") -> Tensor:
    """Token by token, in fp64."""
    q, k, v = (x.double() for x in (q, k, v))
    mixed = torch.zeros_like(q)
    rows, length = segments.shape
    for row in range(rows):
        for i in range(length):
            seen = [
                j
                for j in range(length)
                if segments[row, i] == segments[row, j]
                and (window is None or abs(i - j) <= window // 2)
                and {"both": True, "forward": j <= i, "backward": j >= i}[order]
            ]
            for head in range(HEADS):
                weights = torch.softmax(k[row, seen, head] @ q[row, i, head] * SIZE**-0.5, dim=0)
                mixed[row, i, head] = weights @ v[row, seen, head]
    return mixed.float()


SEGMENTS = {
    "one document": torch.zeros(2, 13, dtype=torch.long),
    "two documents": torch.tensor([[0] * 5 + [1] * 8, [0] * 12 + [1]]),
    "padding": torch.tensor([[0] * 4 + [1] * 3 + [-1] * 6, [0] * 13]),
}


@pytest.mark.parametrize("window", [None, 0, 1, 4, 30])
@pytest.mark.parametrize("segments", SEGMENTS.values(), ids=SEGMENTS.keys())
@pytest.mark.parametrize("short", [256, 0], ids=["products", "sdpa"])
def test_padded_is_the_reference(segments: Tensor, window: int | None, short: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_SHORT", short)
    q, k, v = _inputs(2, 13)
    mixed = attend(q, k, v, Reach(Padded(segments=segments), window))
    torch.testing.assert_close(mixed, _reference(q, k, v, segments, window))


@pytest.mark.parametrize("order", ["forward", "backward"])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("short", [256, 0], ids=["products", "sdpa"])
def test_one_direction_is_the_reference(order: Order, window: int | None, short: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_SHORT", short)
    q, k, v = _inputs(2, 13)
    for name, segments in SEGMENTS.items():
        reach = Reach(Padded(segments=segments, whole=name == "one document", order=order), window)
        torch.testing.assert_close(attend(q, k, v, reach), _reference(q, k, v, segments, window, order))
    lengths = torch.tensor([0, 5, 6, 13], dtype=torch.int32)
    packed = Packed(cu_seqlens=lengths, max_seqlen=7, order=order)
    row = torch.tensor([[0] * 5 + [1] + [2] * 7])
    expected = _reference(q[:1], k[:1], v[:1], row, window, order)
    torch.testing.assert_close(attend(q[0], k[0], v[0], Reach(packed, window)), expected[0])


@pytest.mark.parametrize("window", [None, 4])
def test_a_whole_layout_needs_no_mask(window: int | None) -> None:
    segments = SEGMENTS["one document"]
    q, k, v = _inputs(2, 13)
    reach = Reach(Padded(segments=segments, whole=True), window)
    assert (reach.mask is None) == (window is None)
    torch.testing.assert_close(attend(q, k, v, reach), _reference(q, k, v, segments, window))


@pytest.mark.parametrize("window", [None, 2, 5])
def test_packed_is_padded(window: int | None) -> None:
    lengths = [3, 7, 1, 5]
    q, k, v = _inputs(sum(lengths))
    cu = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)
    mixed = attend(q, k, v, Reach(Packed(cu_seqlens=cu, max_seqlen=max(lengths)), window))
    row = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    padded = attend(q[None], k[None], v[None], Reach(Padded(segments=row), window))[0]
    torch.testing.assert_close(mixed, padded)
    gradient = torch.autograd.grad(mixed.square().sum(), (q, k, v))
    torch.testing.assert_close(gradient, torch.autograd.grad(padded.square().sum(), (q, k, v)))


def test_a_document_does_not_see_its_neighbours() -> None:
    reach = Reach(Padded(segments=SEGMENTS["two documents"]))
    q, k, v = _inputs(2, 13)
    before = attend(q, k, v, reach)
    with torch.no_grad():
        k[:, :5] += 100.0
        v[:, :5] += 100.0
    after = attend(q, k, v, reach)
    assert torch.equal(before[0, 5:], after[0, 5:])
    assert not torch.allclose(before[0, :5], after[0, :5])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_padding_stay_finite_with_their_gradients(dtype: torch.dtype) -> None:
    q, k, v = (x.detach().to(dtype).requires_grad_() for x in _inputs(2, 13))
    mixed = attend(q, k, v, Reach(Padded(segments=torch.full((2, 13), -1)), 4))
    mixed.sum().backward()
    assert mixed.dtype == dtype
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (q, k, v))


@pytest.mark.parametrize("packed", [False, True])
def test_dropout_acts_on_the_weights_on_long_rows_too(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_SHORT", 0)
    layout = Packed(cu_seqlens=torch.tensor([0, 13]), max_seqlen=13) if packed else Padded(segments=torch.zeros(1, 13))
    q, k, v = _inputs(13) if packed else _inputs(1, 13)
    torch.manual_seed(1)
    once = attend(q, k, v, Reach(layout), dropout=0.5)
    torch.manual_seed(1)
    assert torch.equal(once, attend(q, k, v, Reach(layout), dropout=0.5))
    assert not torch.allclose(once, attend(q, k, v, Reach(layout)))
    many = torch.stack([attend(q, k, v, Reach(layout), dropout=0.5) for _ in range(2000)]).mean(0)
    torch.testing.assert_close(many, attend(q, k, v, Reach(layout)), atol=0.1, rtol=0)


@pytest.mark.parametrize("short", [256, 0], ids=["products", "sdpa"])
def test_turned_queries_and_keys_on_every_path(short: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turning inside `attend` is turning before it, with its gradient; packed as padded."""
    monkeypatch.setattr(attention, "_SHORT", short)
    positions = torch.tensor([0, 1, 2, 0, 1, 2, 3, 4, 5, 6, 0, 1, 2])
    row = torch.tensor([0] * 3 + [1] * 7 + [2] * 3)
    q, k, v = _inputs(13)
    rotary = Rotary.of(positions, SIZE, 100.0)
    expected = attend(rotary.turn(q)[None], rotary.turn(k)[None], v[None], Reach(Padded(segments=row[None])))[0]
    padded = Reach(Padded(segments=row[None]), None, Rotary.of(positions[None], SIZE, 100.0))
    cu = torch.tensor([0, 3, 10, 13], dtype=torch.int32)
    packed = Reach(Packed(cu_seqlens=cu, max_seqlen=7), None, rotary)
    gradient = torch.autograd.grad(expected.square().sum(), (q, k, v), retain_graph=True)
    for mixed in (attend(q[None], k[None], v[None], padded)[0], attend(q, k, v, packed)):
        torch.testing.assert_close(mixed, expected)
        torch.testing.assert_close(torch.autograd.grad(mixed.square().sum(), (q, k, v)), gradient)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="varlen attention runs on GPUs only; this machine has none")
@pytest.mark.parametrize("window", [None, 4])
def test_the_varlen_kernel_is_the_reference(window: int | None) -> None:
    lengths = torch.tensor([5, 1, 9])
    layout = Packed(cu_seqlens=torch.tensor([0, *lengths.cumsum(0)], dtype=torch.int32).cuda(), max_seqlen=9)
    qkv = torch.randn(15, 3, 2, 32, device="cuda", dtype=torch.bfloat16)
    whole = attention.attend(qkv.float(), Reach(layout, window))  # fp32 takes the padded path
    torch.testing.assert_close(attention.attend(qkv, Reach(layout, window)).float(), whole, rtol=2e-2, atol=2e-2)
