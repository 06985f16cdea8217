"""Tokens per second of a causal model: ours against transformers' `generate` on the directory that we export.

    python benchmarks/generation.py [--layers 8] [--hidden 256] [--vocabulary 8000] [--tokens 192] [--batches 1 16]
        [--repeats 5] [--out results.json]

A classic model with random weights is saved and loaded by both. Greedy, with the end forbidden, so that both write as many
tokens; whether ours in fp32 (`ours`) writes what theirs does is shown. `ours-auto` has the precision that `--precision auto`
chooses. All take turns in one process, with the same number of threads. The second figure is the cost of a token as
the text grows, in fp32: milliseconds per token in each eighth of one output.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from electra.models.classic import ClassicConfig
from electra.models.decoding import generate, stream
from electra.models.decoding_config import DecodingConfig
from electra.models.encoder import build_encoder
from electra.models.heads import CausalHead
from electra.models.model_dir import Provenance, save_model_dir
from electra.predict.writer import Writer, load_writer
from electra.text.train_tokenizer import train
from electra.train import machine

PROMPT = 16


def saved(place: Path, layers: int, hidden: int, vocabulary: int, positions: int) -> Path:
    """A causal model with random weights, and a tokenizer that is not used."""
    torch.manual_seed(0)
    config = ClassicConfig(
        vocab_size=vocabulary, embedding_size=hidden // 2, hidden_size=hidden, num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 64), intermediate_size=4 * hidden, max_position_embeddings=positions,
        initializer_range=0.1,
    )  # fmt: skip
    provenance = Provenance(tokenizer=train(["not used"] * 2, 64), card=lambda: "# Random\n")
    save_model_dir(place, encoder=build_encoder(config), head=CausalHead(config), provenance=provenance)
    return place


def measured(run: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    found = run()
    return time.perf_counter() - begin, found


def eighths(writer: Writer, prompt: list[int], config: DecodingConfig) -> list[float]:
    """Milliseconds per token in each eighth of an output."""
    times = [time.perf_counter()]
    times += [time.perf_counter() for _ in stream(writer.decoder, None, prompt, config, writer.signs)]
    bounds = [round(part * (len(times) - 1) / 8) for part in range(9)]
    return [1000 * (times[b] - times[a]) / (b - a) for a, b in itertools.pairwise(bounds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in {"layers": 8, "hidden": 256, "vocabulary": 8000, "tokens": 192, "repeats": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        path = saved(Path(place) / "m", given.layers, given.hidden, given.vocabulary, 1 + PROMPT + given.tokens)
        writer, auto = load_writer(path), load_writer(path, "auto")
        theirs = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    signs, found = writer.signs, dict[str, Any]()
    config = DecodingConfig(max_new_tokens=given.tokens, min_new_tokens=given.tokens)
    never = [[token] for token in signs.never if token < 5]  # the rest are entries that the small tokenizer lacks
    allowed = type(signs)(start=signs.start, end=signs.end, never=tuple(token for token in signs.never if token < 5))
    writer.signs = auto.signs = allowed
    for batch in given.batches:
        prompts = torch.randint(5, given.vocabulary, (batch, PROMPT)).tolist()
        inputs = torch.tensor([[signs.start, *prompt] for prompt in prompts])
        runs: dict[str, Callable[[], Any]] = {
            "ours": lambda prompts=prompts: generate(writer.decoder, None, prompts, config, writer.signs),
            "ours-auto": lambda prompts=prompts: generate(auto.decoder, None, prompts, config, auto.signs),
            "transformers": lambda inputs=inputs: theirs.generate(
                inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=given.tokens, min_new_tokens=given.tokens,
                do_sample=False, eos_token_id=signs.end, pad_token_id=0, bad_words_ids=never,
            ),
        }  # fmt: skip
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(given.repeats + 1):
            outputs = {name: measured(run) for name, run in runs.items()}
            for name, (taken, _) in outputs.items():
                seconds[name].append(taken)
        same = [list(one.tokens) for [one] in outputs["ours"][1]] == outputs["transformers"][1][:, 1:].tolist()
        rates = {name: batch * given.tokens / statistics.median(taken[1:]) for name, taken in seconds.items()}
        rates["ratio"], rates["ratio-auto"] = (rates[name] / rates["transformers"] for name in ("ours", "ours-auto"))
        found[f"batch {batch}"] = {name: round(rate, 2) for name, rate in rates.items()} | {"same output": same}
        print(f"batch {batch}: " + "  ".join(f"{name} {value}" for name, value in found[f"batch {batch}"].items()))
    with torch.inference_mode():
        parts = [eighths(writer, prompts[0], config) for _ in range(given.repeats)]
    found["ms per token in each eighth"] = [round(statistics.median(column), 3) for column in zip(*parts, strict=True)]
    print("ms per token in each eighth:", *found["ms per token in each eighth"])
    if given.out:
        date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        sizes = {name: getattr(given, name) for name in ("layers", "hidden", "vocabulary", "tokens", "repeats")}
        result = {
            "date": date,
            "machine": machine.describe(),
            "auto": auto.precision,
            "sizes": sizes,
            "tokens per second": found,
        }
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
