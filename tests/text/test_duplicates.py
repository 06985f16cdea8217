from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra.errors import ElectraError, ExitCode
from electra.text import duplicates
from electra.text.duplicates import (
    EXACT,
    KEEP,
    NEAR,
    SLOTS,
    UNCOMPARED,
    Group,
    NearSignatures,
    agreement,
    bands_of,
    bytes_per_document,
    find_duplicates,
)
from electra.text.readers import Document

#: of which texts without spaces are made
CHARACTERS = "".join(map(chr, range(0x4E00, 0x4E00 + 3000)))


def verdicts(texts: Sequence[str], directory: Path, similarity: float | None = 0.8) -> list[int]:
    directory.mkdir()
    documents = (Document(text, "a.txt", number) for number, text in enumerate(texts, start=1))
    near = None if similarity is None else NearSignatures(similarity)
    return list(find_duplicates(documents, near, directory).read_bytes())


def pair(similarity: float, shingles: int, chance: random.Random, spaced: bool) -> tuple[str, str, float]:
    """Two texts of `shingles` shingles each, and the Jaccard similarity that they have, as near to the one given as can be."""
    shared = round(2 * shingles * similarity / (1 + similarity))
    units = 2 * shingles + 4 - shared
    all_units = [f"w{chance.randrange(10**9)}" for _ in range(units)] if spaced else chance.sample(CHARACTERS, units)
    beginning, rest = all_units[: shared + 4], all_units[shared + 4 :]
    one, other = beginning + rest[: shingles - shared], beginning + rest[shingles - shared :]
    glue = " " if spaced else ""
    return glue.join(one), glue.join(other), shared / (2 * shingles - shared)


# -- how many are found ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spaced", [True, False])
@pytest.mark.parametrize(
    ("similarity", "least", "most"), [(1, 1, 1), (0.9, 0.99, 1), (0.8, 0.3, 0.7), (0.7, 0, 0.02), (0.5, 0, 0)]
)
def test_precision_and_recall_at_known_similarities(
    tmp_path: Path, spaced: bool, similarity: float, least: float, most: float
) -> None:
    chance = random.Random(0)
    pairs = [pair(similarity, 200, chance, spaced)[:2] for _ in range(200)]
    texts = [text for two in pairs for text in two]
    found = verdicts([text + "." * (number % 2) for number, text in enumerate(texts)], tmp_path / "a")
    assert set(found[::2]) == {KEEP}
    assert least <= found[1::2].count(NEAR) / len(pairs) <= most


@pytest.mark.parametrize("similarity", [0.6, 0.8, 0.95])
def test_signatures_estimate_the_similarity(similarity: float) -> None:
    chance = random.Random(1)
    pairs = [pair(similarity, 150, chance, spaced=True) for _ in range(150)]
    rows, comparable, _ = NearSignatures(0.8).of([text for one, other, _ in pairs for text in (one, other)])
    errors = [agreement(rows[2 * n], rows[2 * n + 1 : 2 * n + 2])[0] - pair[2] for n, pair in enumerate(pairs)]
    assert comparable.all()
    assert abs(np.mean(errors)) < 0.01  # no bias
    assert np.std(errors) < 1.2 * (similarity * (1 - similarity) / SLOTS) ** 0.5  # that of independent numbers


@pytest.mark.parametrize("similarity", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99])
def test_a_pair_at_the_threshold_shares_a_band(similarity: float) -> None:
    bands, rows = bands_of(similarity)
    assert bands * rows <= SLOTS
    assert 1 - (1 - similarity**rows) ** bands >= 0.98
    chance = random.Random(2)
    pairs = [pair(similarity, 300, chance, spaced=False)[:2] for _ in range(200)]
    _, _, keys = NearSignatures(similarity).of([text for two in pairs for text in two])
    assert np.mean((keys[::2] == keys[1::2]).any(axis=1)) > 0.95


def test_bytes_per_document_are_those_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = list[int]()

    def measure(*_: object) -> None:
        sizes.append(sum(path.stat().st_size for path in (tmp_path / "a").iterdir()))

    monkeypatch.setattr(duplicates, "_mark_exact", measure)
    monkeypatch.setattr(duplicates, "_mark_near", lambda *_: None)
    verdicts([f"some text with words and the number {number}" for number in range(3000)], tmp_path / "a")
    assert sizes[0] == pytest.approx(3000 * bytes_per_document(0.8), abs=1 << 17)  # a buffer may wait to be written
    assert (bytes_per_document(None), bytes_per_document(0.8)) == (17, 433)


# -- which are dropped ------------------------------------------------------------------------------------------------------


def test_the_first_of_several_stays(tmp_path: Path) -> None:
    text = "The bridges held, but the rivers rose by three metres, and nobody slept that night."
    texts = ["Another text.", text, "Something else.", text.upper(), text, "Another text."]
    assert verdicts(texts, tmp_path / "a") == [KEEP, KEEP, KEEP, NEAR, EXACT, EXACT]
    assert verdicts(texts, tmp_path / "b", None) == [KEEP, KEEP, KEEP, KEEP, EXACT, EXACT]


def test_what_has_no_letters_is_no_near_duplicate(tmp_path: Path) -> None:
    assert verdicts(["。", "!!!", "?", "。"], tmp_path / "a") == [KEEP, KEEP, KEEP, EXACT]


def test_no_document_at_all(tmp_path: Path) -> None:
    assert verdicts([], tmp_path / "a") == []


def test_only_verdicts_are_left(tmp_path: Path) -> None:
    verdicts(["a b c", "a b c d"], tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["signatures", "verdicts"]


def related_texts(chance: random.Random) -> list[str]:
    """Texts of which some are edited copies of others, and copies of copies."""
    texts = [[f"w{chance.randrange(10**6)}" for _ in range(60)] for _ in range(15)]
    for _ in range(45):
        copy = list(chance.choice(texts))
        for _ in range(chance.randrange(4)):
            copy[chance.randrange(60)] = f"w{chance.randrange(10**6)}"
        texts.append(copy)
    return [" ".join(words) for words in texts]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_nothing_is_found_in_what_was_kept(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    directory, texts = tmp_path_factory.mktemp("a"), related_texts(random.Random(seed))
    found = verdicts(texts, directory / "first")
    kept = [text for text, verdict in zip(texts, found, strict=True) if verdict == KEEP]
    assert 15 <= len(kept) < len(texts)
    assert set(verdicts(kept, directory / "second")) == {KEEP}


def test_which_pairs_are_found_does_not_depend_on_the_order(tmp_path: Path) -> None:
    chance = random.Random(3)
    pairs = [pair(chance.uniform(0.6, 1), 60, chance, spaced=True)[:2] for _ in range(150)]
    texts = [(text, number) for number, two in enumerate(pairs) for text in two]
    found = list[set[int]]()
    for order in range(3):
        shuffled = random.Random(order).sample(texts, len(texts))
        judged = zip(shuffled, verdicts([text for text, _ in shuffled], tmp_path / str(order)), strict=True)
        found.append({number for (_, number), verdict in judged if verdict != KEEP})
    assert found[0] == found[1] == found[2]
    assert 30 < len(found[0]) < 120


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), max_size=25), st.integers(1, 9))
def test_of_a_group_the_different_ones_stay(rows: list[list[int]], piece: int) -> None:
    signatures = np.repeat(np.array(rows, np.uint8).reshape(-1, 4), SLOTS // 4, axis=1)
    group = Group(0.7)
    judged = [verdict for start in range(0, len(rows), piece) for verdict in group.judge(signatures[start : start + piece])]
    kept = list[int]()
    for number, verdict in enumerate(judged):
        alike = bool(kept) and max(agreement(signatures[number], signatures[kept])) >= 0.7
        assert verdict == (NEAR if alike else KEEP)
        kept += [] if alike else [number]


def test_a_group_of_too_many_different_ones_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MOST_COMPARED", 2)
    rows = np.repeat(np.array([[1], [2], [3], [3], [2]], np.uint8), SLOTS, axis=1)
    assert Group(0.8).judge(rows).tolist() == [KEEP, KEEP, UNCOMPARED, UNCOMPARED, NEAR]


def test_without_the_extra_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(ElectraError, match=r"E-R120 .*pip install 'electra-toolkit\[dedup\]'") as caught:
        NearSignatures(0.8)
    assert caught.value.exit_code == ExitCode.RESOURCES


# -- memory ---------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak includes that of the parent process")
def test_memory_does_not_grow_with_the_documents(tmp_path: Path) -> None:
    program = """
import pathlib, random, re, sys
from electra.text import disksort, duplicates
from electra.text.readers import Document
disksort.DiskSort.__init__.__defaults__ = (20_000,)
def documents(count):
    chance = random.Random(0)
    for number in range(count):
        yield Document(" ".join(map(str, chance.choices(range(count), k=12))), "a.txt", number)
duplicates.find_duplicates(documents(int(sys.argv[1])), duplicates.NearSignatures(0.8), pathlib.Path(sys.argv[2]))
print(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read()).group(1))
"""
    peaks = []
    for count in (3_000, 30_000):
        (tmp_path / str(count)).mkdir()
        command = [sys.executable, "-c", program, str(count), str(tmp_path / str(count))]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(run.stdout) * 1024)
    assert peaks[1] - peaks[0] < 3 << 20  # bytes; 27,000 more documents take 12 MB on disk
