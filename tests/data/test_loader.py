from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from electra.contracts import Encoded, Packed
from electra.data.grid import collate
from electra.data.loader import ExampleLoader, PretrainLoader, in_order
from electra.data.masking import MaskingConfig, SpanUnit, TokenUnit, WordUnit
from electra.data.mixture import Mixture, Source
from electra.data.pairs import PairRows, PairRowsConfig
from electra.data.rows import PackedRows
from electra.errors import ElectraError
from electra.train.health import mlm_figures, mlm_totals

PAD, CLS, SEP, MASK = 0, 1, 2, 3
FIRST = 10


def alone(rows, seed=0):
    return Mixture([Source(name="corpus", rows=rows, seed=seed)])


@pytest.fixture(scope="module", params=["packed", "pairs", "packed, spans", "pairs, words"])
def loader(request, prose):
    form, _, unit = request.param.partition(", ")
    rows = (
        PackedRows(prose, 32, words=bool(unit))
        if form == "packed"
        else PairRows(prose, PairRowsConfig(length=32), 5, cls_id=CLS, sep_id=SEP, words=bool(unit))
    )
    masking = MaskingConfig(unit={"": TokenUnit(), "spans": SpanUnit(), "words": WordUnit()}[unit])
    return PretrainLoader(
        mixture=alone(rows, 3),
        masking=masking,
        cls_id=CLS,
        sep_id=SEP,
        mask_id=MASK,
        pad_id=PAD,
        batch_rows=12,
        micro_rows=4,
        steps=9,
    )


def rows_of(loader):
    return loader.mixture.sources[0].rows


def digest(micro_batches):
    """What rows see, one entry a row: tokens, positions, segments, drawn positions within the row, masks, some noise."""
    rows = []
    for batch, noise in micro_batches:
        uniform = noise.uniform("sample", 3)
        for row in range(len(batch.tokens)):
            drawn = (batch.targets["drawn"][row] - row * batch.tokens.shape[1]) * (batch.targets["drawn_weight"][row] > 0)
            parts = (batch.tokens, batch.positions, batch.types, batch.layout.segments, batch.targets["is_mask"])
            rows.append([*(part[row].tolist() for part in parts), drawn.tolist(), uniform[row].tolist()])
    return rows


def test_a_batch_is_a_pure_function_of_the_step(loader):
    later = digest(loader.micro_batches(7, 0, 1))
    assert digest(loader.micro_batches(0, 0, 1)) != later
    assert digest(replace(loader).micro_batches(7, 0, 1)) == later
    assert digest(replace(loader, mixture=alone(rows_of(loader), 4)).micro_batches(7, 0, 1)) != later


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("micro_rows", [1, 5, 12])
def test_any_process_count_and_micro_batch_sees_the_same_rows_and_masks(loader, world_size, micro_rows):
    other = replace(loader, micro_rows=micro_rows)
    whole = digest(loader.micro_batches(2, 0, 1))
    assert [row for rank in range(world_size) for row in digest(other.micro_batches(2, rank, world_size))] == whole
    assert len(whole) == 12


def test_every_row_once_per_epoch_with_new_masks_in_the_next(loader):
    count = len(rows_of(loader))
    one_row = replace(loader, batch_rows=1, micro_rows=1)
    epochs = [[digest(one_row.micro_batches(epoch * count + row, 0, 1))[0] for row in range(count)] for epoch in (0, 1)]
    tokens = [sorted(row[0] for row in epoch) for epoch in epochs]
    expected = sorted(
        [*item.tokens.tolist(), *[PAD] * (32 - len(item.tokens))] for item in map(rows_of(loader).__getitem__, range(count))
    )
    assert tokens == [expected, expected]
    assert [row[0] for row in epochs[0]] != [row[0] for row in epochs[1]]
    drawn = [{tuple(row[0]): row[-2] for row in epoch} for epoch in epochs]
    assert np.mean([drawn[0][row] == drawn[1][row] for row in drawn[0]]) < 0.1


def test_a_step_across_the_end_of_an_epoch_takes_rows_of_both(loader):
    count = len(rows_of(loader))
    across = replace(loader, first_row=count - 5)
    one_row = replace(loader, batch_rows=1, micro_rows=1)
    single = [digest(one_row.micro_batches(step, 0, 1))[0] for step in range(count - 5, count + 7)]
    assert digest(across.micro_batches(0, 0, 1)) == single
    assert across.epochs(0) == {"corpus": (count - 5) / count}


def test_targets_and_counts_are_what_the_contract_says(loader):
    for step in range(8):
        for batch, noise in loader.micro_batches(step, 0, 1):
            real = batch.layout.real
            drawn, weight, is_mask = (batch.targets[name] for name in ("drawn", "drawn_weight", "is_mask"))
            assert drawn.shape == weight.shape == is_mask.shape == (4, round(0.15 * 32))
            assert (drawn.dtype, weight.dtype, is_mask.dtype) == (torch.int64, torch.float32, torch.bool)
            candidates, rate = batch.targets["candidates"], batch.targets["draw_rate"]
            follows = batch.layout.segments[:, 1:] == batch.layout.segments[:, :-1]
            assert torch.equal(batch.layout.continued[:, 1:], follows & real[:, 1:])
            own = {"candidates": candidates.sum().item(), "drawn": weight.sum().item()}
            own["continued"] = batch.layout.continued.sum().item()
            own["drawn_continued"] = (batch.layout.continued.view(-1)[drawn] * weight).sum().item()
            assert batch.counts == {"rows": 4, "tokens": real.sum().item(), **own}
            assert torch.equal(rate > 0, candidates)
            assert torch.allclose(rate.sum(1), weight.sum(1))
            assert not torch.isin(batch.tokens.view(-1)[drawn[weight > 0]], torch.tensor([PAD, CLS, SEP, MASK])).any()
            assert not drawn[weight == 0].any()
            assert (batch.tokens[~real] == PAD).all()
            assert len(noise.row_keys) == 4


def test_positions_restart_at_each_segment(loader):
    for batch, _ in loader.micro_batches(0, 0, 1):
        for row in range(len(batch.tokens)):
            segments = batch.layout.segments[row].tolist()
            expected = [place - segments.index(segment) if segment >= 0 else 0 for place, segment in enumerate(segments)]
            assert batch.positions[row].tolist() == expected


def test_packed_holds_what_padded_holds(loader):
    for step in range(8):
        padded, packed = (list(replace(loader, packed=flag).micro_batches(step, 0, 1)) for flag in (False, True))
        for (rows, row_noise), (flat, flat_noise) in zip(padded, packed, strict=True):
            real = rows.layout.real
            assert isinstance(flat.layout, Packed)
            for name in ("tokens", "positions", "types"):
                assert torch.equal(getattr(flat, name), getattr(rows, name)[real])
            assert torch.equal(flat.layout.continued, rows.layout.continued[real])
            for name in ("candidates", "draw_rate"):
                assert torch.equal(flat.targets[name], rows.targets[name][real])
            used = rows.targets["drawn_weight"] > 0
            assert torch.equal(flat.targets["drawn_weight"] > 0, used)
            assert torch.equal(
                flat.tokens[flat.targets["drawn"][used]], rows.tokens.view(-1)[rows.targets["drawn"][used]]
            )  # the text tokens of the corpus are all different
            assert flat.counts == rows.counts
            assert np.array_equal(row_noise.row_keys, flat_noise.row_keys)
            bounds = flat.layout.cu_seqlens
            assert (bounds.dtype, bounds[0].item(), bounds[-1].item()) == (torch.int32, 0, len(flat.tokens))
            assert torch.equal(torch.diff(bounds).max(), torch.tensor(flat.layout.max_seqlen, dtype=torch.int32))
            assert torch.equal(torch.nonzero(flat.positions == 0)[:, 0].to(torch.int32), bounds[:-1])


def test_drawn_positions_are_uniform_over_a_row_of_text(corpus_of):
    """The tail of a row is drawn as often as its head."""
    rows = PackedRows(corpus_of([[[40_000]]]), 32)
    loader = PretrainLoader(
        mixture=alone(rows), cls_id=CLS, sep_id=SEP, mask_id=MASK, pad_id=PAD, batch_rows=1200, micro_rows=1200, steps=1
    )
    (batch, _), = loader.micro_batches(0, 0, 1)  # fmt: skip
    counts = np.bincount((batch.targets["drawn"][batch.targets["drawn_weight"] > 0] % 32).numpy(), minlength=32)
    expected = counts.sum() / 32
    assert ((counts - expected) ** 2 / expected).sum() < 61.1  # 31 degrees of freedom, p = .001


def test_every_part_of_a_row_is_drawn_alike_by_the_figure_of_the_log(loader):
    many = replace(loader, batch_rows=250, micro_rows=250)
    summed = {}
    for step in range(12):
        for batch, _ in many.micro_batches(step, 0, 1):
            targets = [batch.targets[name] for name in ("drawn", "drawn_weight", "candidates")]
            nothing = torch.zeros(targets[0].shape)
            for name, total in mlm_totals(nothing, nothing, *targets).items():
                summed[name] = summed.get(name, 0) + total
    figures = mlm_figures(summed)
    bars = [value for name, value in figures.items() if name.startswith("drawn_at_")]
    assert len(bars) == 16
    assert max(bars) < 1.15  # short rows draw one position more often than their share, at their beginning
    assert figures["position_uniformity"] == min(bars) > 0.9


@pytest.mark.parametrize("packed", [False, True])
def test_the_words_of_a_row_are_drawn_together(prose, packed):
    """Numbers that three divides go on with the one before them; a row's edge may lie between the two."""
    loader = PretrainLoader(
        mixture=alone(PackedRows(prose, 32, words=True)), masking=MaskingConfig(unit=WordUnit()), cls_id=CLS, sep_id=SEP,
        mask_id=MASK, pad_id=PAD, batch_rows=100, micro_rows=100, steps=1, packed=packed,
    )  # fmt: skip
    (batch, _), = loader.micro_batches(0, 0, 1)  # fmt: skip
    flat = batch.tokens.view(-1)
    drawn = set(batch.targets["drawn"][batch.targets["drawn_weight"] > 0].tolist())
    going_on = [place for place in range(1, len(flat)) if flat[place] % 3 == 0 and flat[place - 1] + 1 == flat[place] > FIRST]
    in_part = [place for place in going_on if (place in drawn) != (place - 1 in drawn)]
    assert len(going_on) > 800
    assert len(drawn & set(going_on)) > 100
    assert 0 < len(in_part) <= 100 + 15  # one of a row, and those that a row's edge divides


def test_the_mask_rate_follows_the_run(loader):
    moving = replace(loader, masking=replace(loader.masking, rate=0.1, final_rate=0.5), steps=4)
    shares, shapes = [], set()
    for step in range(4):
        batches = [batch for batch, _ in moving.micro_batches(step, 0, 1)]
        shares.append(sum(batch.counts["drawn"] for batch in batches) / sum(batch.counts["tokens"] for batch in batches))
        shapes |= {batch.targets["drawn"].shape for batch in batches}
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.03)
    assert shapes == {(4, 16)}


def test_tokens_per_step_is_what_the_steps_hold(loader):
    steps = len(rows_of(loader)) // 12
    tokens = sum(batch.counts["tokens"] for step in range(steps) for batch, _ in loader.micro_batches(step, 0, 1))
    assert loader.tokens_per_step * steps == pytest.approx(tokens, rel=0.04)


def test_an_epoch_of_a_corpus_on_disk_holds_its_tokens(stored):
    manifest = stored.manifest
    ids = {"cls_id": manifest.cls_id, "sep_id": manifest.sep_id, "mask_id": manifest.mask_id, "pad_id": manifest.pad_id}
    rows = PackedRows(stored, 32)
    loader = PretrainLoader(mixture=alone(rows), **ids, batch_rows=1, micro_rows=1, steps=len(rows))
    seen = torch.cat(
        [batch.tokens[batch.layout.real] for step in range(len(rows)) for batch, _ in loader.micro_batches(step, 0, 1)]
    )
    written = np.concatenate([stored.tokens(shard, 0, about.tokens) for shard, about in enumerate(stored.shards)])
    assert np.array_equal(np.bincount(seen.numpy()), np.bincount(written))
    assert len(seen) == manifest.tokens


def test_a_corpus_smaller_than_a_batch_is_named(corpus_of):
    rows = PackedRows(corpus_of([[[10]]]), 5)
    with pytest.raises(ElectraError, match=r"E-D240 corpus: 3 rows of 5 tokens are fewer than one batch of 4 rows"):
        PretrainLoader(
            mixture=alone(rows), cls_id=CLS, sep_id=SEP, mask_id=MASK, pad_id=PAD, batch_rows=4, micro_rows=4, steps=1
        )


def test_a_batch_that_does_not_divide_is_named(loader):
    with pytest.raises(ElectraError, match=r"E-C242 batch: 12 rows do not divide among 5 processes; give a multiple of 5"):
        next(loader.micro_batches(0, 0, 5))


# -- examples -----------------------------------------------------------------------------------------------------------


class Labelled:
    """Examples [CLS] i i i ... [SEP] of given lengths with a label, a weight and a tag for each token."""

    def __init__(self, lengths):
        self.lengths = np.array(lengths, dtype=np.int64)

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        size = int(self.lengths[index])
        tokens = np.array([CLS, *[index + 10] * (size - 2), SEP])
        targets = {
            "label": np.array(index % 3),
            "score": np.array(index / 2),
            "tags": np.arange(size),
            "weights": np.ones(size) / 2,
        }
        return Encoded(tokens=tokens, types=np.zeros_like(tokens), targets=targets)


def numbers(batch):
    return (batch.tokens[:, 1] - 10).tolist()


def test_collate_stacks_and_pads_targets():
    examples = Labelled([3, 5])
    batch = collate([examples[0], examples[1]], 6, PAD)
    assert batch.tokens.tolist() == [[CLS, 10, SEP, PAD, PAD, PAD], [CLS, 11, 11, 11, SEP, PAD]]
    assert batch.targets["label"].tolist() == [0, 1]
    assert batch.targets["score"].tolist() == [0.0, 0.5]
    assert batch.targets["score"].dtype == batch.targets["weights"].dtype == torch.float32
    assert batch.targets["tags"].tolist() == [[0, 1, 2, -100, -100, -100], [0, 1, 2, 3, 4, -100]]
    assert batch.targets["weights"].sum(dim=1).tolist() == [1.5, 2.5]
    assert batch.counts == {"rows": 2, "examples": 2, "tokens": 8, "label": 2, "tags": 8}
    assert not batch.layout.whole
    assert batch.layout.segments[0].tolist() == [0, 0, 0, -1, -1, -1]


def test_collate_packed_drops_the_padding_of_tokens_and_their_targets():
    examples = Labelled([3, 5])
    batch = collate([examples[0], examples[1]], 6, PAD, packed=True)
    assert batch.tokens.tolist() == [CLS, 10, SEP, CLS, 11, 11, 11, SEP]
    assert batch.positions.tolist() == [0, 1, 2, 0, 1, 2, 3, 4]
    assert batch.targets["tags"].tolist() == [0, 1, 2, 0, 1, 2, 3, 4]
    assert batch.targets["label"].tolist() == [0, 1]
    assert batch.layout.cu_seqlens.tolist() == [0, 3, 8]
    assert batch.layout.max_seqlen == 5


def test_rows_without_padding_need_no_mask():
    examples = Labelled([5, 5])
    items = [examples[0], examples[1]]
    assert collate(items, 5, PAD).layout.whole
    two_documents = replace(items[0], segments=np.array([0, 0, 0, 1, 1]))
    assert not collate([two_documents, items[1]], 5, PAD).layout.whole


LENGTHS = st.lists(st.integers(3, 40), min_size=1, max_size=120)


@settings(deadline=None, max_examples=40)
@given(lengths=LENGTHS, batch=st.integers(1, 7), world_size=st.integers(1, 3), packed=st.booleans())
def test_every_example_once_per_epoch(lengths, batch, world_size, packed):
    loader = ExampleLoader(examples=Labelled(lengths), pad_id=PAD, batch_examples=batch, micro_tokens=64, seed=1, packed=packed)
    for epoch in (0, 1):
        seen = []
        for step in range(epoch * loader.steps_per_epoch, (epoch + 1) * loader.steps_per_epoch):
            batches = [one for rank in range(world_size) for one, _ in loader.micro_batches(step, rank, world_size)]
            found = [t - 10 for one in batches for t in dict.fromkeys(one.tokens.view(-1).tolist()) if t >= 10]
            assert 1 <= len(found) <= batch
            assert sum(one.counts["examples"] for one in batches) == len(found)
            seen += found
        assert sorted(seen) == list(range(len(lengths)))


def test_micro_batches_keep_to_their_budget_and_to_few_shapes():
    examples = Labelled(np.random.default_rng(0).integers(3, 100, 2000))
    loader = ExampleLoader(examples=examples, pad_id=PAD, batch_examples=32, micro_tokens=1024, seed=0)
    padded = real = 0
    widths = set()
    for step in range(loader.steps_per_epoch):
        for batch, _ in loader.micro_batches(step, 0, 1):
            assert batch.tokens.numel() <= 1024
            padded, real = padded + batch.tokens.numel(), real + batch.counts["tokens"]
            widths.add(batch.tokens.shape[1])
    assert all(width % 8 == 0 or width == 99 for width in widths)
    assert real / padded > 0.9  # batches of like length


def test_a_longer_example_than_the_budget_goes_alone():
    loader = ExampleLoader(examples=Labelled([50, 4, 4]), pad_id=PAD, batch_examples=3, micro_tokens=16, seed=0)
    assert sorted(tuple(batch.tokens.shape) for batch, _ in loader.micro_batches(0, 0, 1)) == [(1, 50), (2, 8)]


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_whole_batch_is_never_cut(world_size):
    loader = ExampleLoader(
        examples=Labelled([50, 4, 4, 20, 6]), pad_id=PAD, batch_examples=4, micro_tokens=16, seed=0, whole=True
    )
    shapes = [[batch.tokens.shape[0] for batch, _ in loader.micro_batches(0, rank, world_size)] for rank in range(world_size)]
    assert (
        shapes in ([[4]], [[1]]) if world_size == 1 else shapes in ([[2], [2]], [[1], []])
    )  # one step of an epoch is the rest
    assert loader.positions == 200
    with pytest.raises(ElectraError, match=r"E-R240 .*lower batch\.examples"):
        loader.halved()


def test_batches_come_in_another_order_each_epoch_and_not_by_length():
    loader = ExampleLoader(
        examples=Labelled([3 + n % 60 for n in range(600)]), pad_id=PAD, batch_examples=10, micro_tokens=9999, seed=0
    )
    widths = [next(loader.micro_batches(step, 0, 1))[0].tokens.shape[1] for step in range(120)]
    assert widths[:60] != widths[60:]
    assert widths[:60] != sorted(widths[:60])
    assert sorted(widths[:50]) != widths[:50]


def test_noise_belongs_to_the_example_and_the_epoch():
    examples = Labelled([6] * 9)
    keys = []
    for micro_tokens in (999, 8):
        loader = ExampleLoader(examples=examples, pad_id=PAD, batch_examples=3, micro_tokens=micro_tokens, seed=0)
        keys.append({(step // 3, number): key for step in range(6) for batch, noise in loader.micro_batches(step, 0, 1)
                     for number, key in zip(numbers(batch), noise.row_keys.tolist(), strict=True)})  # fmt: skip
    assert keys[0] == keys[1]
    assert len(set(keys[0].values())) == 18


def test_no_examples_are_named():
    with pytest.raises(ElectraError, match="E-D241"):
        ExampleLoader(examples=Labelled([]), pad_id=PAD, batch_examples=3, micro_tokens=64, seed=0)


@settings(deadline=None, max_examples=40)
@given(lengths=st.lists(st.integers(3, 40), max_size=60), budget=st.integers(1, 200))
def test_in_order_gives_every_example_once_the_longest_first(lengths, budget):
    examples = Labelled(lengths)
    seen, widths = [], []
    for indices, batch in in_order(examples, budget, PAD):
        assert numbers(batch) == indices.tolist()
        assert batch.tokens.numel() <= budget or len(indices) == 1
        seen += indices.tolist()
        widths.append(batch.tokens.shape[1])
    assert sorted(seen) == list(range(len(lengths)))
    assert widths == sorted(widths, reverse=True)


def test_lists_of_several_lengths_are_filled_up_to_the_longest() -> None:
    items = [
        Encoded(tokens=np.arange(4), types=np.zeros(4, np.int64), targets={"target": np.array([[5, 6, 7]])}),
        Encoded(tokens=np.arange(3), types=np.zeros(3, np.int64), targets={"target": np.array([[8]])}),
    ]
    batch = collate(items, 4, pad_id=0)
    assert batch.targets["target"].tolist() == [[5, 6, 7], [8, -100, -100]]
    assert batch.counts["target"] == 4
