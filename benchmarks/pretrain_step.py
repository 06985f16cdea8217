"""One RTD training step of ELECTRA-Small: ours against transformers' classes as users write it, interleaved in one run.

    python benchmarks/pretrain_step.py [--rounds 3] [--steps 6] [--no-save]

Both sides: 32 rows of 128 tokens, vocabulary 30,522, generator of a quarter of the width, shared tables, forward, backward,
clipping and AdamW. Ours runs in the precision that its probe chooses; the peer in fp32 and under bf16 autocast. Every variant
lives in a process of its own and takes its steps in turn, so that all meet the same noise; medians over all timed steps, but
for the first of each turn, which finds the data of another process in the caches, as no step of a training run does.
Peak memory is that of the process. Prints the ratios and writes benchmarks/results/pretrain_step-DATE.json.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import statistics
import time
from pathlib import Path

from turns import Take, serve, take_turns

ROWS, LENGTH, VOCABULARY, MASK = 32, 128, 30_522, 103
VARIANTS = [(side, precision, dropout) for dropout in (0.0, 0.1) for side, precision in (
    ("ours", "auto"), ("peer", "fp32"), ("peer", "bf16"))]  # fmt: skip


def ours(dropout: float, micro_rows: int | None = None) -> Take:
    """Steps as a run takes them: the package's loop, loader, objective and optimisers, on rows that are whole documents."""
    import numpy as np
    import torch

    from electra.build.pretrain import MICRO_TOKENS
    from electra.contracts import Encoded
    from electra.data.loader import PretrainLoader
    from electra.data.mixture import Mixture, Source
    from electra.events import EventLog
    from electra.models.classic import ClassicConfig
    from electra.models.encoder import GeneratorConfig, build_encoder, generator_config
    from electra.models.heads import MlmHead, RtdHead
    from electra.models.tying import tie
    from electra.objectives.detection import Discriminator
    from electra.objectives.masked import MaskedLanguageModel
    from electra.objectives.rtd import Rtd, RtdConfig
    from electra.train.loop import LoopConfig, Span, Training, train
    from electra.train.machine import StopFlag, faster_precision, keep_large_buffers
    from electra.train.optim import AdamWConfig, Optimizers

    class Rows:
        length, tokens_per_row, lengths = LENGTH, float(LENGTH), np.full(10_000, LENGTH)

        def __len__(self) -> int:
            return 10_000

        def __getitem__(self, index: int) -> Encoded:
            tokens = np.random.default_rng(index).integers(1000, VOCABULARY, LENGTH)
            return Encoded(tokens=tokens, types=np.zeros_like(tokens))

    keep_large_buffers()
    config = ClassicConfig(
        vocab_size=VOCABULARY, embedding_size=128, hidden_size=256, num_hidden_layers=12, num_attention_heads=4,
        intermediate_size=1024, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    small = generator_config(config, GeneratorConfig(width=0.25))
    generator = MaskedLanguageModel(build_encoder(small), MlmHead(small))
    discriminator = Discriminator(build_encoder(config), RtdHead(config))
    tie(generator.encoder, discriminator.encoder, "embeddings")
    objective = Rtd(generator, discriminator, RtdConfig(), MASK, provenance=None)  # type: ignore[arg-type]  # nothing is exported
    steps: list[float] = []
    loader = PretrainLoader(
        mixture=Mixture([Source(name="rows", rows=Rows(), seed=0)]), cls_id=101, sep_id=102, mask_id=MASK, pad_id=0,
        batch_rows=ROWS, micro_rows=micro_rows or min(ROWS, MICRO_TOKENS // LENGTH), steps=1_000_000,
    )  # fmt: skip
    training = Training(
        objective=objective, loader=loader, span=Span(name="rtd", first=0, steps=0), total_steps=1_000_000, seed=0,
        optimizers=Optimizers(objective.networks, AdamWConfig(lr=5e-4, bias_correction=False), 1_000_000),
        device=torch.device("cpu"), bf16=faster_precision() == "bf16", settings=LoopConfig(log_steps=1),
        log=EventLog(None, [lambda event: steps.append(event["seconds"]) if event["event"] == "step" else None]),
    )  # fmt: skip

    def take(count: int) -> list[float]:
        training.span = Span(name="rtd", first=training.span.end, steps=count)
        train(training, None, StopFlag())
        taken = list(steps)
        steps.clear()
        return taken

    return take


def peer(precision: str, dropout: float) -> Take:
    """The step with transformers' classes: vocabulary logits everywhere, torch.multinomial, one AdamW."""
    import torch
    from torch.nn import functional as F
    from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    common = {"vocab_size": VOCABULARY, "embedding_size": 128, "num_hidden_layers": 12, **rates}
    big = ElectraForPreTraining(ElectraConfig(hidden_size=256, num_attention_heads=4, intermediate_size=1024, **common)).train()
    small = ElectraForMaskedLM(ElectraConfig(hidden_size=64, num_attention_heads=1, intermediate_size=256, **common)).train()
    for table in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        setattr(big.electra.embeddings, table, getattr(small.electra.embeddings, table))
    small.tie_weights()
    parameters = list({id(p): p for model in (small, big) for p in model.parameters()}.values())
    optimizer = torch.optim.AdamW(parameters, lr=5e-4, fused=precision == "bf16")
    tokens = torch.randint(1000, VOCABULARY, (ROWS, LENGTH))
    attention = torch.ones_like(tokens)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            drawn = torch.rand(ROWS, LENGTH) < 0.15
            logits = small(input_ids=tokens.masked_fill(drawn, MASK), attention_mask=attention).logits[drawn].float()
            mlm = F.cross_entropy(logits, tokens[drawn])
            with torch.no_grad():
                corrupted = tokens.clone()
                corrupted[drawn] = torch.multinomial(logits.softmax(-1), 1)[:, 0]
            scores = big(input_ids=corrupted, attention_mask=attention).logits.float()
            loss = mlm + 50 * F.binary_cross_entropy_with_logits(scores, (corrupted != tokens).float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def take(count: int) -> list[float]:
        seconds = []
        for _ in range(count):
            began = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - began)
        return seconds

    return take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--no-save", action="store_true")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        side, precision, dropout = given.worker[0], given.worker[1], float(given.worker[2])
        serve(ours(dropout) if side == "ours" else peer(precision, dropout))
        return
    taken = take_turns(__file__, [("--worker", *variant) for variant in VARIANTS], given.rounds, given.steps)
    seconds = {variant: list(itertools.chain(*found.rounds)) for variant, found in zip(VARIANTS, taken, strict=True)}
    peaks = {variant: found.peak_mb for variant, found in zip(VARIANTS, taken, strict=True)}
    report(seconds, peaks, given)


def report(
    seconds: dict[tuple[str, str, float], list[float]], peaks: dict[tuple[str, str, float], int], given: argparse.Namespace
) -> None:
    """Print the comparison, and write it down."""
    from electra.train.machine import describe

    medians = {variant: statistics.median(times) for variant, times in seconds.items()}
    rows = []
    for variant in VARIANTS:
        side, precision, dropout = variant
        rows.append({
            "side": side, "precision": precision, "dropout": dropout, "median_ms": round(1000 * medians[variant]),
            "tokens_per_second": round(ROWS * LENGTH / medians[variant]), "peak_mb": peaks[variant],
            "milliseconds": [round(1000 * value) for value in seconds[variant]],
        })  # fmt: skip
    ratios = {
        f"{precision}, dropout {dropout}": {
            "speed": round(medians["peer", precision, dropout] / medians["ours", "auto", dropout], 2),
            "memory": round(peaks["ours", "auto", dropout] / peaks["peer", precision, dropout], 2),
        }
        for dropout in (0.0, 0.1)
        for precision in ("fp32", "bf16")
    }
    for row in rows:
        print(f"{row['side']} {row['precision']:5} dropout {row['dropout']}: {row['median_ms']:6} ms/step, "
              f"{row['tokens_per_second']:6} tokens/s, peak {row['peak_mb']} MB")  # fmt: skip
    for name, ratio in ratios.items():
        precision, _, rest = name.partition(", ")
        print(f"{precision} {ratio['speed']}x ({rest}; peak memory {ratio['memory']:.0%} of the peer's)")
    if not given.no_save:
        date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        path = Path(__file__).parent / "results" / f"pretrain_step-{date}.json"
        result = {"date": date, "machine": describe() | {"cores": os.cpu_count()}, "load_average": os.getloadavg(),
                  "rows": ROWS, "length": LENGTH, "vocabulary": VOCABULARY, "ratios": ratios, "variants": rows}  # fmt: skip
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"written: {path}")


if __name__ == "__main__":
    main()
