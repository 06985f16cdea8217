from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra.text.disksort import DiskSort, is_among, text_keys

KEYS = st.one_of(
    st.integers(0, 3), st.integers(2**64 - 3, 2**64 - 1), st.integers(0, 2**64 - 1), st.sampled_from([2**40, 2**58])
)


@settings(deadline=None)
@given(batches=st.lists(st.lists(KEYS, max_size=9), max_size=9), in_memory=st.integers(1, 12))
def test_all_records_come_by_key_and_then_by_document(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], in_memory: int
) -> None:
    directory = tmp_path_factory.mktemp("sort")
    sort, expected = DiskSort(directory / "records", in_memory), list[tuple[int, int]]()
    for batch in batches:
        numbers = np.arange(len(expected), len(expected) + len(batch), dtype=np.uint64)
        sort.add(np.array(batch, dtype=np.uint64), numbers)
        expected += zip(batch, numbers.tolist(), strict=True)
    blocks = list(sort.blocks())
    assert [record for block in blocks for record in block.tolist()] == sorted(expected)
    assert all(0 < len(block) <= in_memory for block in blocks)
    assert list(directory.iterdir()) == []


def test_only_a_key_that_is_too_frequent_reaches_over_blocks(tmp_path: Path) -> None:
    sort = DiskSort(tmp_path / "records", 10)
    keys = np.repeat(np.arange(40, dtype=np.uint64) << np.uint64(57), 3)
    sort.add(np.append(keys, [np.uint64(7)] * 25), np.arange(145, dtype=np.uint64))
    blocks = [set(block["key"].tolist()) for block in sort.blocks()]
    shared = [one & other for one, other in itertools.pairwise(blocks) if one & other]
    assert shared == [{7}, {7}]


@settings(deadline=None)
@given(st.sets(st.integers(0, 20)), st.lists(st.integers(0, 20)))
def test_membership(among: set[int], keys: list[int]) -> None:
    found = is_among(np.array(keys, dtype=np.uint64), np.array(sorted(among), dtype=np.uint64))
    assert found.tolist() == [key in among for key in keys]


def test_equal_texts_have_equal_keys() -> None:
    one, other, again = text_keys(["我们", "us", "我们"]).tolist()
    assert one == again != other
