from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra.errors import ElectraError, ExitCode
from electra.text.sample import Sample, common_level, take_sample


def write(directory: Path, **lines: int) -> None:
    """Files of so many lines of ten bytes."""
    for name, count in lines.items():
        text = "".join(f"{name[0]}{number:09}\n" for number in range(count))
        (directory / f"{name}.txt").write_text(text, encoding="utf-8")


def used(sample: Sample) -> dict[str, int]:
    return {Path(source.file).stem: source.used for source in sample.sources}


def test_everything_is_used_where_it_fits(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the café\nopens\n\nthe\x00 caf\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "the text"}\n{"text": " "}\n', encoding="utf-8")
    sample = take_sample([tmp_path], 100)
    assert sample.texts == ("the café", "opens", "the caf", "the text")
    assert sample.documents == 3
    assert sample.bytes == sample.used == len("the caféopensthe cafthe text".encode())
    assert sample.losses.counts == {"dropped: empty documents": 1, "removed: nul characters": 1, "read: files in utf-8": 2}


def test_small_files_are_whole_and_large_ones_alike(tmp_path: Path) -> None:
    write(tmp_path, big=1000, large=400, small=20, tiny=1)
    sample = take_sample([tmp_path], 2210)
    assert used(sample) == {"big": 1000, "large": 1000, "small": 200, "tiny": 10}
    assert sample.bytes == 14210
    assert take_sample([tmp_path], 14210).used == 14210


def test_a_sample_is_spread_over_its_file_and_always_the_same(tmp_path: Path) -> None:
    write(tmp_path, big=1000)
    sample = take_sample([tmp_path], 1000)
    assert [int(text[1:]) // 10 for text in sample.texts] == list(range(100))  # one of every ten lines
    assert take_sample([tmp_path], 1000) == sample


def test_many_files_of_one_line_are_sampled_too(tmp_path: Path) -> None:
    write(tmp_path, **{f"f{number}": 1 for number in range(100)})
    sample = take_sample([tmp_path], 200)
    assert 180 <= sample.used <= 220


@given(sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=20), share=st.floats(0.01, 0.99))
def test_the_common_level_uses_what_is_given(sizes: list[int], share: float) -> None:
    most = max(1, int(sum(sizes) * share))
    if most < sum(sizes):
        level = common_level(sizes, most)
        assert sum(min(size, level) for size in sizes) == pytest.approx(most)


def test_bad_input(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(ElectraError, match=r"E-D112 .*no text \(dropped: empty documents: 1\)|E-D112 .*no text"):
        take_sample([tmp_path], 100)
    write(tmp_path, big=10)
    assert take_sample([tmp_path], 100).used == 100  # an empty file beside it is none of its sources
    for most in (0, 1):
        with pytest.raises(ElectraError, match="E-C130") as caught:
            take_sample([tmp_path], most)
        assert caught.value.exit_code == ExitCode.USAGE
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    with pytest.raises(ElectraError, match="E-D100"):
        take_sample([tmp_path], 100)
