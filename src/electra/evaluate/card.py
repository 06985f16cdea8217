"""The card of a model directory (README.md): what it is, how it is used, what it was trained on, how it fared.

In: a run directory while or after it runs. Out: Markdown with the front matter that model hubs read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from electra.evaluate.history import Run, read
from electra.events import in_order, number

_USE = """```console
electra predict DIR{option} texts.txt
```

```python
{python}
```

`DIR` is this directory."""
_USE_PRETRAINED = _USE.format(
    option=" --task replaced",
    python="""from transformers import AutoModel, AutoTokenizer

model, tokenizer = AutoModel.from_pretrained("DIR"), AutoTokenizer.from_pretrained("DIR")""",
)
_USE_ENERGIES = """```console
electra score DIR --method electric texts.txt
```

`DIR` is this directory. A token's score is its log probability given all others; in transformers the logit is minus it."""
_USE_PRETRAINED_HERE = _USE.format(
    option=" --task replaced",
    python="""import electra

electra.load("DIR", "replaced").predict(["a text"])""",
)
_USE_CAUSAL = """```console
electra generate DIR --prompt "..." --samples 4
```

`DIR` is this directory. {transformers}

It continues text by what it has seen in its corpus, and knows nothing else: what it writes may be wrong or rude."""
_CAUSAL_CLASS = {
    "classic": "Its class in transformers is `AutoModelForCausalLM`.",
    "modern": "This is a format of `electra`: transformers has no causal class of this family. `AutoModel` and "
              "`AutoModelForMaskedLM` load the weights, but let every token see those behind it, which this model never learnt "
              "unless some of its steps were masked.",
    "recurrent": "This is a format of `electra`.",
}  # fmt: skip
_USE_FINETUNED = _USE.format(
    option="",
    python="""import electra

electra.load("DIR").predict(["a text"])""",
)

_USE_ANSWERS = """```console
electra predict DIR questions.jsonl
electra predict DIR questions.txt --documents FOLDER
```

```python
import electra
from electra.contracts import Example

electra.load("DIR").predict([Example(text="a question", pair="a text with the answer")])
```

`DIR` is this directory. {transformers}"""
_PORTABLE = "Its class in transformers is `AutoModelForQuestionAnswering`."
_NOT_PORTABLE = ("transformers has no class for its joint head, which lies in `head.safetensors`: `AutoModel` loads the "
                 "encoder alone. `task.head=plain` trains a head that transformers has.")  # fmt: skip

#: by the objective of the last phase, where it is not that of a generator, an encoder or a discriminator
_USE_BY_OBJECTIVE = {"electric": _USE_ENERGIES, "real-or-fake": _USE_FINETUNED}


def write_card(run_dir: Path) -> str:
    """The card for the model that the run in `run_dir` exports now."""
    run = read(run_dir)
    recipe, resolved = run.recipe["recipe"], run.recipe["resolved"]
    figures = {**run.last("step").get("figures", {}), **run.best.get("figures", {})}
    settings = json.dumps(recipe, indent=1, ensure_ascii=False)
    now, earlier = run.verdicts
    health = [f"- {event['network']}: **{event['verdict']}**: {event['reason']}" for event in now]
    health += [f"- {event['network']} (earlier phase): **{event['verdict']}**: {event['reason']}" for event in earlier]
    parts = [
        f"---\nlibrary_name: {'electra' if _encoder(run) == 'recurrent' else 'transformers'}\ntags:\n- electra\n---",
        f"# {run_dir.resolve().name}",
        _what(run),
        "## Use\n\n" + _use(run),
        "## Data\n\n" + _data(run),
        "## Health\n\n" + ("\n".join(health) or "No verdict yet."),
        "## Figures\n\n" + _table({name: number(value) for name, value in in_order(figures).items()}),
        f"## Recipe\n\nFingerprint `{run.recipe['fingerprint']}`.\n\n<details><summary>All settings</summary>\n\n"
        f"```json\n{settings}\n```\n\n</details>",
        "## Machine\n\n" + _table(resolved.get("machine", {})),
    ]
    return "\n\n".join(parts) + "\n"


def _encoder(run: Run) -> str:
    """The family of the encoder that the run pre-trained."""
    return str(run.recipe["resolved"].get("encoder", {}).get("type", ""))


def _use(run: Run) -> str:
    """How the model is called: by its task, or by the objective of its last phase."""
    recipe = run.recipe["recipe"]
    task: Mapping[str, Any] | None = recipe.get("task")
    if task is None:
        last = [phase for phase in recipe["phases"].values() if phase["share"]][-1]["objective"]["type"]
        if last == "causal":
            return _USE_CAUSAL.format(transformers=_CAUSAL_CLASS[_encoder(run)])
        if last in _USE_BY_OBJECTIVE:
            return _USE_BY_OBJECTIVE[last]
        return _USE_PRETRAINED_HERE if _encoder(run) == "recurrent" else _USE_PRETRAINED
    if task["type"] == "span":
        return _USE_ANSWERS.format(transformers=_PORTABLE if task["head"] == "plain" else _NOT_PORTABLE)
    return _USE_FINETUNED


def _what(run: Run) -> str:
    """One sentence: what was trained, from what, how far."""
    recipe, step = run.recipe["recipe"], run.last("step")
    if "task" in recipe:
        what = f"Fine-tuned for `{recipe['task']['type']}` from `{recipe['init']['from']}`"
    else:
        encoder = run.recipe["resolved"]["encoder"]
        what = (f"A `{encoder['type']}` encoder, {encoder['num_hidden_layers']} layers of {encoder['hidden_size']}, "
                f"{encoder['vocab_size']:,} entries, pre-trained")  # fmt: skip
    if run.best:
        what = f"{what}, the model of step {run.best['step']:,}, which was the best of {len(run.named('evaluate'))} evaluations"
    return f"{what}: step {step.get('step', 0):,} of {step.get('steps', 0):,}, phase `{step.get('phase', '')}`."


def _data(run: Run) -> str:
    """The corpora of a pre-training run, or the number of examples of a fine-tuning run, and how often they were seen."""
    resolved, epochs = run.recipe["resolved"], run.epochs
    seen = number(sum(event.get("tokens", 0) for event in run.named("step")))
    if "corpus" not in resolved:
        counts = {"examples": number(resolved["examples"]), "epochs": number(epochs.get("examples", 0.0)), "tokens seen": seen}
        return _table(counts)
    head = ("source", "documents", "tokens", "share of rows", "epochs", "fingerprint")
    lines = [head, ("---",) * len(head)] + [
        (
            source["name"], number(source["documents"]), number(source["tokens"]), f"{source['share']:.2%}",
            number(epochs.get(source["name"], 0.0)), f"`{source['fingerprint']}`",
        )
        for source in resolved["corpus"]
    ]  # fmt: skip
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{rows}\n\nTokens seen: {seen}. Tokenizer `{resolved['tokenizer']}`."


def _table(values: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name.replace('_', ' ')} | {value} |" for name, value in values.items())])
