"""What ladder.py asks of a model: minimal pairs, fine-tuning, losses on held-out text, and these along the way."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from electra.events import read_events
from small_budgets import electra

#: pairs of each BLiMP set, the same for all scorers; and along the way, where one scorer alone is asked
PAIRS, PAIRS_COURSE = 200, 40
#: steps of held-out rows
HELD_OUT_STEPS = 40
_SST_ROWS, _SST_HELD_OUT, _TRIAL_ROWS = 10_000, 2_000, 400
#: training file, scored file (below DATA or the working directory), settings; the same for all arms
TASKS: dict[str, tuple[str, str, list[str]]] = {
    "sst2": ("sst2-10k.tsv", "sst2-dev.tsv", ["task=classify", "epochs=3"]),
    "cola": ("cola-train.tsv", "cola-dev.tsv", ["task=classify", "task.metric=matthews", "epochs=3"]),
    "trec": ("trec-train.all", "trec-test.all", ["task=classify", "epochs=5", "task.columns.encoding=latin-1",
                                                 "task.columns.format=labelled-lines"]),
}  # fmt: skip
_FILES = {"sst2-dev.tsv": "sst2/dev.tsv", "cola-train.tsv": "cola/train.tsv", "cola-dev.tsv": "cola/dev.tsv",
          "trec-train.all": "trec/TREC.train.all", "trec-test.all": "trec/TREC.test.all"}  # fmt: skip


def write_files(data: Path, work: Path, limit: int | None) -> None:
    """The labelled files below WORK_DIR/tasks; SST-2's 10,000 rows, and 2,000 more that are held out. `limit`: a few rows."""
    place = work / "tasks"
    place.mkdir(exist_ok=True)
    few = None if limit is None else _TRIAL_ROWS
    head, *rows = (data / "sst2/train.tsv").read_bytes().splitlines(keepends=True)
    held = rows[_SST_ROWS : _SST_ROWS + _SST_HELD_OUT]
    (place / "sst2-10k.tsv").write_bytes(b"".join([head, *rows[:_SST_ROWS][:few]]))
    (place / "sst2-held-out.tsv").write_bytes(b"".join([head, *held[:few]]))
    for name, source in _FILES.items():
        lines = (data / source).read_bytes().splitlines(keepends=True)
        if few is not None:
            lines = lines[:1] + lines[1 :: len(lines) // few]  # from all over the file, for its labels
        (place / name).write_bytes(b"".join(lines))


def fine_tuned(
    model: Path, work: Path, run: Path, task: str, seed: int, *, scored: str | None = None, fresh: bool = False,
    recipe: str = "finetune-demo",
) -> Any:  # fmt: skip
    """The metrics of a fine-tuned model, the task's own first.

    Args:
        scored: a file in the place of the task's test file.
        fresh: train the same network without its weights.
    """
    train, test, settings = TASKS[task]
    electra("finetune", recipe, *settings, f"init.from={model}", f"init.weights={'fresh' if fresh else 'loaded'}",
            f"data.train={work / 'tasks' / train}", f"run.dir={run}", f"run.seed={seed}")  # fmt: skip
    return json.loads(electra("evaluate", run / "model", work / "tasks" / (scored or test)))["metrics"]


def tuned(model: Path, work: Path, place: Path, seed: int, fresh: bool = False) -> dict[str, Any]:
    """Every fine-tuning probe, by name."""
    return {"tasks": {task: fine_tuned(model, work, place / task, task, seed, fresh=fresh) for task in TASKS}}


def held_out_rows(model: Path, work: Path, place: Path) -> float:
    """Mean accuracy over two fine-tuning seeds, on rows of SST-2's training file that no other probe uses: chooses the rate."""
    values = [fine_tuned(model, work, place / f"sst2-held-out-{seed}", "sst2", seed, scored="sst2-held-out.tsv")["accuracy"]
              for seed in (0, 1)]  # fmt: skip
    return sum(values) / len(values)


def blimp(model: Path, data: Path, limit: int | None, pairs: int = PAIRS, twice: bool = False) -> dict[str, Any]:
    """By scorer: `rtd` or `electric`, whichever head the model has, else `pll`.

    Args:
        pairs: of each set.
        twice: also `pll` of the generator, and `passes`, how many it takes for a sentence on average, one for each token.
    """
    from electra.evaluate.blimp import BlimpConfig, evaluate_blimp, read_pairs
    from electra.models.model_dir import load_model_dir

    loaded, count = load_model_dir(model), min(pairs, limit or pairs)
    own = "rtd" if loaded.rtd_head is not None else "electric" if loaded.energy_head is not None else "pll"
    found: dict[str, Any] = {}
    for scorer in dict.fromkeys((own, "pll") if twice and loaded.masked_model is not None else (own,)):
        found[scorer] = evaluate_blimp(model, BlimpConfig(data=data / "blimp", scorer=scorer, limit=count))  # type: ignore[arg-type]
    if twice and "pll" in found:
        tokenizer = loaded.tokenizer()
        texts = [text for each in read_pairs(data / "blimp", count) for pair in each.pairs for text in pair]
        found["passes"] = sum(len(tokenizer.encode_literally(text).ids) - 2 for text in texts) / len(texts)
    return found


def floors(data: Path, text: Path, limit: int | None) -> dict[str, Any]:
    """Word frequency and n-grams of the training text, on BLiMP."""
    from electra.evaluate.blimp import BlimpConfig, evaluate_blimp

    asked = {"unigram": 3, "ngram-3": 3, "ngram-5": 5}
    return {"blimp": {
        name: evaluate_blimp(None, BlimpConfig(data=data / "blimp", scorer=name.split("-")[0], text=text, order=order,  # type: ignore[arg-type]
                                               limit=limit))
        for name, order in asked.items()
    }}  # fmt: skip


def pace(run: Path) -> dict[str, Any]:
    """Steps of the run, and seconds a step of each phase took, checkpoints included."""
    events, _ = read_events(run / "events.jsonl")
    steps = [event for event in events if event["event"] == "step"]
    seconds: dict[str, float] = {}
    for event in steps:
        seconds[event["phase"]] = seconds.get(event["phase"], 0.0) + event["seconds"]
    spans = json.loads((run / "recipe.json").read_text(encoding="utf-8"))["resolved"]["spans"]
    return {"steps": steps[-1]["step"],
            "seconds_per_step": {span["name"]: seconds[span["name"]] / span["steps"] for span in spans}}  # fmt: skip


def course(run: Path, held_out: Path, data: Path, limit: int | None) -> list[dict[str, Any]]:
    """Each checkpoint: step, phase, tokens and seconds so far, figures on held-out text, accuracy on BLiMP."""
    events, _ = read_events(run / "events.jsonl")
    steps = [event for event in events if event["event"] == "step"]
    found = []
    for path in sorted((run / "checkpoints").glob("step-*")):
        step = int(path.name.removeprefix("step-"))
        phase = json.loads((path / "state.json").read_text(encoding="utf-8"))["phase"]
        before = [event for event in steps if event["step"] <= step]
        with tempfile.TemporaryDirectory() as folder:
            figures = held_out_figures(run, step, phase, held_out, Path(folder) / "model")
            told = blimp(Path(folder) / "model", data, limit, PAIRS_COURSE)
        [(scorer, accuracies)] = told.items()
        found.append({
            "step": step, "phase": phase, "tokens": sum(event["tokens"] for event in before),
            "seconds": round(sum(event["seconds"] for event in before), 1), "held_out": figures, "scorer": scorer,
            "blimp": accuracies["all"], "blimp_without_permutations": accuracies["without_permutations"],
        })  # fmt: skip
    return found


def held_out_figures(run: Path, step: int, phase: str, corpus: Path, out: Path) -> dict[str, float]:
    """Figures of the objective on held-out rows, with the weights after `step` steps, which are exported to `out`."""
    import torch

    from electra.build.pretrain import PretrainRecipe, Setting
    from electra.config import build
    from electra.train.checkpoint import Checkpoints
    from electra.train.loop import Span, forward

    tree = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    recipe = tree["recipe"] | {"corpus": {"path": str(corpus)}}
    recipe["run"] = recipe["run"] | {"seed": 0}  # the same rows and masks for all arms and phases
    setting, resolved = Setting(build(PretrainRecipe, recipe)), tree["resolved"]
    [steps] = [span["steps"] for span in resolved["spans"] if span["name"] == phase]
    span = Span(name=phase, first=0, steps=steps)
    t = setting.training(span, None, resolved["micro_rows"], resolved["bf16"], card=str)
    Checkpoints(run / "checkpoints", 1000).load_weights(step, t.module)
    t.module.eval()
    totals: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for number in range(HELD_OUT_STEPS):
            [part] = t.objective.phases(span.steps - 1, span.steps)[:1]
            for batch, noise in t.loader.micro_batches(number, 0, 1):
                for name, total in forward(t, batch, noise, part).totals.items():
                    totals[name] = totals.get(name, torch.zeros_like(total)) + total
    t.objective.export(out)
    figures = t.objective.summarise(totals)
    return {name: value for name, value in figures.items() if not name.startswith("drawn_at")}
