"""Trains both test recipes for 100 steps and writes their losses in full digits: `python tests/golden/record.py`.

test_losses.py compares with the recorded files. Record again only when a change is meant to change numbers, and say so in
the change. Everything is made here: the vocabulary, the text (from a linear congruential generator) and the corpus, so that
nothing but the library's arithmetic stands behind the numbers.
"""

from __future__ import annotations

import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch

import electra
from electra.build import pretrain
from electra.text import build
from electra.text.tokenizer import load

STEPS = 100
RECIPES = ("test-classic", "test-modern")
FIGURES = ("loss", "mlm_loss", "rtd_loss")
SYLLABLES = ["ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "te", "vi", "wo", "zu"]


def machine() -> dict[str, str]:
    """What has to be equal for equal digits."""
    info = Path("/proc/cpuinfo")
    models = (
        [line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        if info.is_file()
        else []
    )
    return {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu": models[0].partition(":")[2].strip() if models else platform.processor(),
        "architecture": platform.machine(),
    }


def make_corpus(folder: Path) -> Path:
    """300 documents of words of one to three syllables; the next word depends on the one before it."""
    state, documents = 1, []
    for _ in range(300):
        words, word = [], 0
        for _ in range(60):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            word = (word * 7 + (state >> 60) + 1) % len(SYLLABLES)
            words.append(SYLLABLES[word] + (SYLLABLES[-word] if state >> 59 & 1 else ""))
        documents.append(" ".join(words) + ".")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *SYLLABLES, *(f"##{syllable}" for syllable in SYLLABLES)]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (folder / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")
    build.build([folder / "text.txt"], load(folder / "vocab.txt"), folder / "corpus")
    return folder / "corpus"


def losses(recipe: str, folder: Path) -> list[dict[str, Any]]:
    """Step by step, the losses of 100 steps on one thread in fp32."""
    torch.set_num_threads(1)
    settings = [f"corpus.path={make_corpus(folder)}", f"run.dir={folder / 'run'}", "run.seed=7", "precision=fp32"]
    electra.pretrain([recipe], [*settings, f"stop.steps={STEPS}", "loop.log_steps=1"])
    lines = (folder / "run" / "events.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [event for event in map(json.loads, lines) if event["event"] == "step"]
    return [
        {"step": event["step"]} | {name: event["figures"][name] for name in FIGURES if name in event["figures"]}
        for event in steps
    ]


def file_of(recipe: str) -> Path:
    return Path(__file__).with_name(f"{recipe}.json")


if __name__ == "__main__":
    pretrain._PROBE_SECONDS = 0.0
    for name in RECIPES:
        with tempfile.TemporaryDirectory() as temporary:
            recorded = losses(name, Path(temporary))
        lines = ",\n  ".join(json.dumps(step) for step in recorded)
        file_of(name).write_text(f'{{"machine": {json.dumps(machine())},\n "steps": [\n  {lines}\n]}}\n', encoding="utf-8")
        print(f"{name}: {recorded[0]} ... {recorded[-1]}")
