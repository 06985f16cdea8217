"""Pieces of columns, against what Arrow reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra.text.columns import columns_of


def write(path: Path, batch: pa.RecordBatch, options: pa.ipc.IpcWriteOptions | None = None) -> Path:
    with pa.ipc.new_file(str(path), batch.schema, options=options) as file:
        file.write_batch(batch)
    return path


@given(
    lists=st.lists(st.lists(st.integers(0, 2**16 - 1), max_size=20), min_size=1, max_size=30),
    wide=st.booleans(),
    places=st.tuples(st.integers(0, 700), st.integers(0, 700)),
)
def test_pieces_are_those_of_arrow(
    tmp_path_factory: pytest.TempPathFactory, lists: list[list[int]], wide: bool, places: tuple[int, int]
) -> None:
    numbers = pa.array(lists, pa.list_(pa.uint32() if wide else pa.uint16()))
    bools = pa.array([[number % 3 == 0 for number in own] for own in lists], pa.list_(pa.bool_()))
    path = write(tmp_path_factory.mktemp("columns") / "a.arrow", pa.record_batch({"numbers": numbers, "bools": bools}))
    columns, piece = columns_of(path), slice(*places)
    found, bits = columns["numbers"], columns["bools"].values
    flat, offsets = numbers.flatten().to_numpy(), numbers.offsets.to_numpy()
    assert found.values[piece].dtype == flat.dtype
    assert found.values[piece].tolist() == flat[piece].tolist()
    assert found.offsets[piece].tolist() == offsets[piece].tolist()
    assert len(found.values) == len(flat)
    assert np.unpackbits(bits[:], bitorder="little")[: len(flat)].tolist() == [number % 3 == 0 for number in flat.tolist()]
    for value in places:
        assert found.offsets.first_above(value) == np.searchsorted(offsets, value, side="right")


def test_compressed_columns_are_refused(tmp_path: Path) -> None:
    batch = pa.record_batch({"numbers": pa.array([[1] * 1000], pa.list_(pa.uint16()))})
    path = write(tmp_path / "a.arrow", batch, pa.ipc.IpcWriteOptions(compression="zstd"))
    with pytest.raises(ValueError, match="compressed"):
        columns_of(path)
