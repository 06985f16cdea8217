"""How fast a model answers on this machine.

In: a model directory, and texts: a file's, or made of words of the vocabulary, most of them short, some as long as a row. Out:
`Speed`. All texts are predicted together, again and again for some seconds, of which the median pass counts; then one by one.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from electra.contracts import Example, Task
from electra.errors import ElectraError
from electra.predict.inference import Precision
from electra.predict.predictor import Predictor, load
from electra.tasks.fill_mask import FillMask
from electra.text.tokenizer import Tokenizer
from electra.train import machine

#: texts at most, of a file too; requests one by one at most
_TEXTS, _REQUESTS = 1024, 200
#: tokens of the shortest and the longest text that is made
_SHORTEST, _LONGEST = 5, 384
#: entries of the vocabulary that are tried as words
_WORDS = 4096


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured.

    Args:
        texts, tokens: that were predicted together, special tokens and those that windows share included.
        median_tokens, longest_tokens: of a text.
        load_seconds: from the path to the predictor, the hashes of all files included, the import of torch not.
        texts_per_second, tokens_per_second: of the median of `passes`.
        p50_ms, p99_ms: of `requests` single texts.
        model_mb: more resident memory after loading than before; None where the system does not say.
        peak_mb: the most that the process had while predicting.
        threads, cores: threads that compute, cores that may be used.
    """

    model: str
    task: str
    source: str
    texts: int
    tokens: int
    median_tokens: int
    longest_tokens: int
    load_seconds: float
    texts_per_second: float
    tokens_per_second: float
    passes: int
    p50_ms: float
    p99_ms: float
    requests: int
    model_mb: float | None
    peak_mb: float | None
    precision: str
    threads: int
    cores: int
    cpu_capability: str
    torch: str


def bench(
    model: Path, file: Path | None = None, task: str | None = None, precision: Precision = "fp32", seconds: float = 5.0
) -> Speed:
    """Measure; `seconds` each for texts together and one by one, a pass and 20 requests at least.

    Raises:
        ElectraError: E-C702 the task takes more than texts and there is no file; those of `predictor.load` and the task's `read`.
    """
    before, began = machine.used_memory(), time.perf_counter()
    predictor = load(model, task, precision=precision)
    load_seconds, after = time.perf_counter() - began, machine.used_memory()
    examples = _made(predictor) if file is None else [*islice(predictor.task.read(file).examples, _TEXTS)]
    lengths = [sum(len(row.tokens) for row in predictor.task.encode(example)) for example in examples]
    machine.restart_peak_memory()
    predictor.predict(examples[:32])  # kernels are made when they are first needed
    passes = _timed(predictor, [examples], 3, seconds)
    # singles go through the lengths evenly, and not through one that a kernel was not made for
    chosen = [examples[number] for number in np.linspace(0, len(examples) - 1, _REQUESTS).astype(int)]
    _timed(predictor, [[example] for example in chosen[:20]], 20, 0)
    singles = [1000 * taken for taken in _timed(predictor, [[example] for example in chosen], 20, seconds)]
    taken, peak = statistics.median(passes), machine.peak_memory()
    return Speed(
        model=str(model), task=_name(predictor.task), source="vocabulary" if file is None else str(file),
        texts=len(examples), tokens=sum(lengths), median_tokens=round(statistics.median(lengths)), longest_tokens=max(lengths),
        load_seconds=load_seconds, texts_per_second=len(examples) / taken, tokens_per_second=sum(lengths) / taken,
        passes=len(passes), p50_ms=float(np.percentile(singles, 50)), p99_ms=float(np.percentile(singles, 99)),
        requests=len(singles), model_mb=None if before is None or after is None else (after - before) / 2**20,
        peak_mb=None if peak is None else peak / 2**20, precision=predictor.precision, threads=torch.get_num_threads(),
        cores=machine.available_cores(), cpu_capability=torch.backends.cpu.get_cpu_capability(), torch=torch.__version__,
    )  # fmt: skip


def _name(task: Task) -> str:
    return str(getattr(getattr(task, "config", None), "type", type(task).__name__))


def _timed(predictor: Predictor, inputs: Sequence[Sequence[Example]], least: int, seconds: float) -> list[float]:
    """Seconds of each call, through `inputs` in turn: `least`, and more until the time is over or all of several were there."""
    taken: list[float] = []
    begun = time.perf_counter()
    while len(taken) < least or (time.perf_counter() - begun < seconds and (len(inputs) == 1 or len(taken) < len(inputs))):
        before = time.perf_counter()
        predictor.predict(inputs[len(taken) % len(inputs)])
        taken.append(time.perf_counter() - before)
    return taken


# -- texts of words that the tokenizer knows ------------------------------------------------------------------------------


def _made(predictor: Predictor) -> list[Example]:
    """Inputs of the predictor's task, always the same ones.

    Raises:
        ElectraError: E-C702.
    """
    task: Task = predictor.task
    tokenizer = getattr(task, "tokenizer", None)
    assert isinstance(tokenizer, Tokenizer)
    texts = made_texts(tokenizer, _TEXTS // 2, min(_LONGEST, task.max_length))
    if isinstance(task, FillMask):
        texts = [f"{text} {tokenizer.token_text(tokenizer.mask_id)}" for text in texts]
    given = {"head": (0, 1, None), "tail": (1, 2, None), "choices": texts[:2]}
    alone, asked = ([Example(text=text, given=given) for text in texts], [Example(text=texts[0], pair=text) for text in texts])
    for examples in (alone, asked):
        try:
            task.encode(examples[0])
        except ElectraError as error:
            trouble = error
        else:
            return examples
    raise ElectraError("E-C702", "bench", f"this task takes more than texts ({trouble.cause})", "give --file FILE")


def made_texts(tokenizer: Tokenizer, count: int, longest: int) -> list[str]:
    """Texts of random words of the vocabulary: about 5 to `longest` tokens, as many of 10 to 20 as of 20 to 40; repeatable."""
    chance = random.Random(0)
    surfaces = (tokenizer.surface(token).strip() for token in range(tokenizer.vocab_size))
    special = {tokenizer.token_text(token) for token in tokenizer.special_ids}
    found = sorted({word for word in surfaces if word.isalpha() and word not in special})
    some = chance.sample(found, min(_WORDS, len(found)))
    words = [word for word, whole in zip(some, tokenizer.encode_documents(some), strict=True) if len(whole.ids) == 1]
    words = words or [tokenizer.token_text(tokenizer.unk_id)]
    room = max(_SHORTEST, longest - 2)
    lengths = [round(math.exp(chance.uniform(math.log(_SHORTEST), math.log(room)))) for _ in range(count)]
    return [" ".join(chance.choices(words, k=length)) for length in lengths]


def lines(found: Speed) -> list[str]:
    """The figures for a person."""
    source = "words of the vocabulary" if found.source == "vocabulary" else found.source
    memory = "not known here" if found.model_mb is None else f"{found.model_mb:,.0f} MB for the model"
    peak = "" if found.peak_mb is None else f", {found.peak_mb:,.0f} MB of the process at the peak"
    chosen = "" if "OMP_NUM_THREADS" not in os.environ else " (OMP_NUM_THREADS)"
    rows = {
        "model": f"{found.model}, task {found.task}, {found.precision}",
        "machine": f"{found.threads} threads{chosen} on {found.cores} cores, {found.cpu_capability}, torch {found.torch}",
        "texts": f"{found.texts:,} of {source}; {found.median_tokens} tokens in the median, {found.longest_tokens} at most",
        "load": f"{found.load_seconds:.2f} s",
        "memory": memory + peak,
        "together": f"{found.texts_per_second:,.0f} texts/s, {found.tokens_per_second:,.0f} tokens/s ({found.passes} passes)",
        "one by one": f"p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms ({found.requests} requests)",
    }
    return [f"{name:12}{told}" for name, told in rows.items()]
