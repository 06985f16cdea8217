"""Inputs of the size that people have: slow, so `make soak` runs them and `make test` does not."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from electra.text.corpus import Corpus
from electra.text.train_tokenizer import train

WORDS = ["".join(random.Random(number).choices("abcdefghijklmnop", k=1 + number % 9)) for number in range(3000)]


def built(text: Path, tmp_path: Path, *options: str) -> tuple[Corpus, int]:
    """The corpus that the command line builds, and the peak memory of that process in bytes."""
    train([" ".join(WORDS)] * 3, 2000).save(tmp_path / "tok")
    command = [sys.executable, "-m", "electra", "corpus", "build", str(text), "--tokenizer", str(tmp_path / "tok"), *options]
    # started by a small process: until it begins, a child counts the memory of the process that made it as its own
    told = subprocess.run(
        [sys.executable, "-c", _MEASURE, *command, "--out", str(tmp_path / "corpus")], stdout=subprocess.PIPE, check=True
    )
    return Corpus(tmp_path / "corpus"), 1024 * int(told.stdout)


_MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.soak
def test_one_line_of_200_megabytes(tmp_path: Path) -> None:
    chooser, path = random.Random(0), tmp_path / "line.txt"
    piece = " ".join(chooser.choices(WORDS, k=200_000))
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < 200_000_000:
            file.write(piece + " ")
    corpus, peak = built(path, tmp_path)
    assert corpus.manifest.text_bytes > 0.99 * path.stat().st_size
    assert corpus.manifest.counts["split: documents too long for one"] > 1000
    assert peak < 600_000_000


@pytest.mark.soak
def test_a_million_empty_documents(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text('{"text": ""}\n' * 1_000_000 + '{"text": "' + " ".join(WORDS) + '"}\n', encoding="utf-8")
    corpus, peak = built(path, tmp_path)
    assert corpus.manifest.documents == 1
    assert 1_000_000 in corpus.manifest.counts.values()
    assert peak < 200_000_000


@pytest.mark.soak
def test_looking_for_duplicates_in_100_megabytes_takes_little_memory(tmp_path: Path) -> None:
    chooser, path, documents = random.Random(0), tmp_path / "text.txt", 0
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < 100_000_000:
            text = chooser.choices(WORDS, k=100)
            file.write(" ".join(text) + "\n\n" + " ".join([*text[1:], "end"]) + "\n\n")
            documents += 1
    _, without = built(path, tmp_path / "without")
    corpus, peak = built(path, tmp_path / "with", "--duplicates", "near", "--max-line-documents", "5")
    assert corpus.manifest.counts["dropped: near duplicates"] > 0.99 * documents
    assert peak - without < 30_000_000
