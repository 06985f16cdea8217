"""Several blanks at once: filled in one shot, and refined in rounds with the discriminator as judge.

    python benchmarks/refine.py MODEL_DIR TEXT_FILE [--shares .15 .3 .5] [--rounds 2 4 8] [--limit N] [--out results.json]

MODEL_DIR has a generator and a discriminator; TEXT_FILE has a text a line that it was not trained on. Of each text a share of
the tokens is masked, the same for all arms. Accuracy: the share of masked tokens that are filled with what stood there. The arm
`chance` refines as often, but masks again at random: what it gains is gained by filling twice, and what the discriminator gains
beyond is its judgement.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from electra.contracts import Encoded
from electra.predict.refine import Page, Refiner, load_refiner
from electra.tasks.common import whole_text


class Chance(Refiner):
    """Doubts at random."""

    def doubts(self, pages: Sequence[Page]) -> list[npt.NDArray[np.float32]]:
        draw = np.random.default_rng(0)
        return [draw.random(len(page.tokens), dtype=np.float32) for page in pages]


def masked(texts: Sequence[Encoded], share: float, mask: int) -> list[Encoded]:
    """`texts` with a share of their tokens masked, at least one."""
    draw, found = np.random.default_rng(0), []
    for text in texts:
        tokens = text.tokens.copy()
        inner = len(tokens) - 2
        tokens[1 + draw.permutation(inner)[: max(1, round(share * inner))]] = mask
        found.append(replace(text, tokens=tokens))
    return found


def accuracy(filled: Sequence[npt.NDArray[np.int64]], blanks: Sequence[Encoded], texts: Sequence[Encoded], mask: int) -> float:
    right = [(said == text.tokens)[blank.tokens == mask] for said, blank, text in zip(filled, blanks, texts, strict=True)]
    return float(np.concatenate(right).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.15, 0.3, 0.5])
    parser.add_argument("--rounds", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    refiner = load_refiner(given.model)
    chance = Chance(refiner.generator, refiner.discriminator)
    with given.text.open(encoding="utf-8") as lines:
        some = list(itertools.islice((line.strip() for line in lines if line.strip()), given.limit))
    texts = [whole_text(refiner.tokenizer.encode_literally(text)) for text in some]
    mask, found = refiner.tokenizer.mask_id, {}
    for share in given.shares:
        blanks = masked(texts, share, mask)
        row = {"one shot": accuracy(refiner.fill_tokens(blanks, 1), blanks, texts, mask)}
        for rounds in given.rounds:
            row[f"discriminator, {rounds} rounds"] = accuracy(refiner.fill_tokens(blanks, rounds), blanks, texts, mask)
            row[f"chance, {rounds} rounds"] = accuracy(chance.fill_tokens(blanks, rounds), blanks, texts, mask)
        found[f"{share:g} masked"] = {name: round(value, 4) for name, value in row.items()}
        print(f"{share:g} masked: " + "  ".join(f"{name} {value:.4f}" for name, value in row.items()))
    if given.out:
        date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        result = {"date": date, "model": given.model.name, "texts": len(texts), "accuracy": found}
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
