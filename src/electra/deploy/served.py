"""Model directories as what a server can be asked: names, tasks, abilities.

In: `NAME=DIR` or `DIR`. Out: a `ServedModel`: its own task first, or, of a model that was not fine-tuned, the tasks that its
networks allow, all of them over the same weights. A `Skill` is one task with its settings: how inputs become rows, how these
are cut into pieces for batches, and what a caller is told.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from electra.contracts import Batch, Encoded, Example, TrainableTask
from electra.deploy.inputs import fields_of
from electra.deploy.refusal import Refusal
from electra.deploy.settings import ANSWER_CHARACTERS, REQUEST_TOKENS
from electra.errors import ElectraError
from electra.models.model_dir import ModelDir
from electra.predict.inference import Precision
from electra.predict.predictor import Predictor, predictor_of, task_of
from electra.predict.predictor import open_model as open_parts
from electra.predict.writer import Writer, causal_writer, writer_of
from electra.tasks import task_config
from electra.tasks.classify import Classify
from electra.tasks.embed import Embed
from electra.tasks.fill_mask import FillMask
from electra.tasks.generate import Generate
from electra.tasks.regression import Regression
from electra.tasks.score import METHODS, Score
from electra.text.tokenizer import Tokenizer
from electra.train.machine import give_back_memory

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: settings of a task that a caller may name
SETTINGS: Mapping[str, frozenset[str]] = {
    "fill-mask": frozenset({"top_k", "joint"}),
    "score": frozenset({"method", "reduce"}),
    "correct": frozenset({"top_k", "suspicion"}),
}
#: predictors of a model with other settings than its own that are kept
_KEPT = 16
#: tokens of a character, before any were counted: English has a quarter, Chinese one
_TOKENS_OF_A_CHARACTER = 0.5


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a task says about one input.

    Args:
        output: JSON-ready.
        tokens: of its rows.
        truncated: tokens of the input that were not seen.
    """

    output: Mapping[str, Any]
    tokens: int
    truncated: int


class Skill:
    """One task of a model with its settings.

    Args:
        name: the task's.
        predictor: answers.
    """

    def __init__(self, name: str, predictor: Predictor) -> None:
        self.name, self.predictor, self.task = name, predictor, predictor.task
        predictor.network.eval()  # for good: several tasks share networks
        self._rate: float | None = None
        # others ask their networks in rounds, or in ways of their own, and take inputs whole
        self._by_row = type(predictor).answer is Predictor.answer
        self._read = 0
        for network in () if self._by_row else predictor.network.children():
            network.register_forward_pre_hook(self._count)

    def estimate(self, characters: int) -> int:
        """About how many tokens some text will be."""
        return 1 + int((_TOKENS_OF_A_CHARACTER if self._rate is None else self._rate) * characters)

    def encode(self, examples: Sequence[Example]) -> list[tuple[Example, list[Encoded]]]:
        """The examples with their rows; what is wrong with one is a refusal that names it.

        Raises:
            Refusal: 422 E-S745 more tokens than one request may have, or more to say; or what the task says of an example.
        """
        found, tokens, said = [], 0, 0
        for example in examples:
            said += self._said(example)
            if said > ANSWER_CHARACTERS or tokens + self._masked(example) > REQUEST_TOKENS:
                raise _too_much(example.where)
            try:
                rows = self.task.encode(example)
            except ElectraError as error:
                raise Refusal(422, error.code, error.cause, error.fix, example.where) from None
            found.append((example, rows))
            tokens += sum(len(row.tokens) for row in rows)
            if tokens > REQUEST_TOKENS:
                raise _too_much(example.where)
        characters = sum(len(example.text) + len(example.pair or "") for example in examples)
        if characters:
            self._rate = tokens / characters if self._rate is None else 0.9 * self._rate + 0.1 * tokens / characters
        return found

    def _masked(self, example: Example) -> int:
        """Tokens of the rows of a method that masks each token in turn, known before there are too many of them."""
        task = self.task
        if not isinstance(task, Score) or task.method.masks is None:
            return 0
        tokens = len(task.tokenizer.encode_literally(example.text).ids)
        return tokens * min(tokens, task.max_length)

    def _said(self, example: Example) -> int:
        """Characters of an answer that repeats the whole text for each proposal."""
        task = self.task
        if not isinstance(task, FillMask):
            return 0
        masks = example.text.count(task.tokenizer.token_text(task.tokenizer.mask_id))
        return masks * task.config.top_k * len(example.text)

    def pieces(self, inputs: Sequence[tuple[Example, list[Encoded]]]) -> Sequence[Any]:
        """What may be computed apart: rows, or whole inputs."""
        return [row for _, rows in inputs for row in rows] if self._by_row else inputs

    def weight(self, piece: Any) -> int:
        """Tokens of a piece."""
        return len(piece.tokens) if self._by_row else sum(len(row.tokens) for row in piece[1])

    def compute(self, pieces: Sequence[Any]) -> list[Any]:
        """What the network says of each piece. Raises Refusal 422 E-S745: it would be asked too much in rounds."""
        self._read = 0
        return self.predictor.outputs(pieces) if self._by_row else list(self.predictor.answer(pieces))

    def _count(self, _: nn.Module, given: tuple[Batch, ...]) -> None:
        """How much is read in rounds is known when it is asked for."""
        self._read += given[0].tokens.numel()
        if self._read > REQUEST_TOKENS:
            raise _too_much(None)

    def finish(self, inputs: Sequence[tuple[Example, list[Encoded]]], found: Sequence[Any]) -> list[Answer]:
        """The answers of a request from what was computed of all its pieces."""
        given, answers = iter(found), []
        for example, rows in inputs:
            if self._by_row:
                outputs = [next(given) for _ in rows]
                output = {**self.task.decode(example, rows, outputs).output, **_more(self.task, outputs)}
            else:
                output = dict(next(given).output)
            answers.append(Answer(output=output, tokens=sum(len(row.tokens) for row in rows),
                                  truncated=sum(row.truncated for row in rows)))  # fmt: skip
        return answers


def _more(task: object, outputs: Sequence[torch.Tensor]) -> dict[str, Any]:
    """Of a classifier, the probability of every label too, as `multilabel` says them, the best first."""
    if not isinstance(task, Classify):
        return {}
    scores = zip(task.labels, torch.softmax(outputs[0].float(), dim=-1).tolist(), strict=True)
    return {"scores": dict(sorted(scores, key=lambda one: -one[1]))}


def _compares(task: object) -> bool:
    return isinstance(task, Regression) and bool(task.config.pairs)


def _too_much(where: str | None) -> Refusal:
    return Refusal(422, "E-S745", f"for this request the network would have to read more than {REQUEST_TOKENS:,} tokens, or "
                   f"the answer have more than {ANSWER_CHARACTERS:,} characters", "send less text at once", where)  # fmt: skip


class ServedModel:
    """A model by name; see the module.

    Args:
        name: what callers call it.
        own: the predictor of the task that it was fine-tuned for.
        parts: of a model that was not, its networks.
        writer: of a model that writes.
        precision: of the predictors that are made of `parts`.
    """

    def __init__(
        self, name: str, own: Predictor | None, parts: ModelDir | None, writer: Writer | None, precision: Precision = "fp32"
    ) -> None:
        self.name, self.writer, self._parts, self._precision = name, writer, parts, precision
        self.methods = [] if parts is None else [name for name, method in METHODS.items() if method.network(parts) is not None]
        self._skills: dict[str, Skill] = {}
        if own is not None:
            task = str(own.task.to_json()["type"]) if isinstance(own.task, TrainableTask) else "predict"
            self._skills[task] = Skill(task, own)
        elif parts is not None:
            self._skills = {task: self._skill_of(task, {}) for task in self._untrained(parts)}
        self._others = OrderedDict[tuple[str, frozenset[tuple[str, Any]]], Skill]()

    def _untrained(self, parts: ModelDir) -> list[str]:
        """Tasks that need no training, which the networks allow."""
        masked, detects = parts.masked_model is not None, parts.rtd_head is not None
        found = {"replaced": detects, "fill-mask": masked, "score": bool(self.methods), "correct": detects and masked}
        heads = (parts.rtd_head, parts.mlm_head, parts.energy_head, parts.causal_head)
        return [task for task, there in found.items() if there] or ["embed"] * all(head is None for head in heads)

    def _skill_of(self, task: str, settings: Mapping[str, Any]) -> Skill:
        assert self._parts is not None
        method = {"method": self.methods[0]} if task == "score" else {}
        return Skill(task, predictor_of(self._parts, task_config({"type": task, **method, **settings}), self._precision))

    @property
    def tasks(self) -> list[str]:
        return [*self._skills] or ["generate"]

    @property
    def abilities(self) -> list[str]:
        found = ["predict"] * bool(self._skills) + ["score"] * ("score" in self._skills)
        found += ["generate"] * (self.writer is not None)
        return found + ["embed"] * (self.embedder is not None) + ["rerank"] * (self.reranker is not None)

    @property
    def embedder(self) -> Skill | None:
        return next((skill for skill in self._skills.values() if isinstance(skill.task, Embed)), None)

    @property
    def reranker(self) -> Skill | None:
        """What says how well a text answers another: a number for a pair, or vectors."""
        return next((skill for skill in self._skills.values() if _compares(skill.task)), self.embedder)

    @property
    def classifier(self) -> Skill | None:
        return next((skill for skill in self._skills.values() if skill.name in ("classify", "multilabel")), None)

    def skill(self, task: str | None = None, settings: Mapping[str, Any] | None = None) -> Skill:
        """A task with settings of the caller's own, those of `SETTINGS`.

        Raises:
            Refusal: 422 E-S743, the model has no such task, the task no such setting, or the networks not this method.
        """
        name = self.tasks[0] if task is None else task
        if name not in self._skills:
            known = f"ask for one of: {', '.join(self._skills)}" if self._skills else f"POST /v1/{self.name}/generate"
            raise Refusal(422, "E-S743", f"model {self.name!r} cannot be asked for {name:.40}", known, "task")
        for setting in settings or {}:
            if setting not in SETTINGS.get(name, ()) or self._parts is None:
                raise Refusal(422, "E-S743", f"task {name} has no such setting", "leave it out", f"settings.{setting}")
        if not settings:
            return self._skills[name]
        if (method := settings.get("method")) is not None and method not in self.methods:
            raise Refusal(422, "E-S743", f"model {self.name!r} lacks the network of this method",
                          f"use one of: {', '.join(self.methods)}", "settings.method")  # fmt: skip
        key = name, frozenset(settings.items())
        skill = self._others.get(key) or self._skill_of(name, settings)
        self._others[key] = skill
        self._others.move_to_end(key)
        while len(self._others) > _KEPT:
            self._others.popitem(last=False)
        return skill

    def describe(self) -> dict[str, Any]:
        """As in `GET /v1/models`, without `ready`."""
        skill = next(iter(self._skills.values()), None)
        task = None if skill is None else skill.task
        labels = list(task.labels) if isinstance(task, TrainableTask) else []
        length = self.writer.positions if task is None and self.writer is not None else getattr(task, "max_length", 0)
        pair = "pair" in (fields_of(task)[0] if task is not None else ())
        return {"name": self.name, "task": self.tasks[0], "abilities": self.abilities, "tasks": self.tasks, "labels": labels,
                "max_length": length, "pair": pair, "methods": self.methods}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Opened(ModelDir):
    """A model directory whose tokenizer is read once, however many tasks are asked of it."""

    opened: Tokenizer

    def tokenizer(self) -> Tokenizer:
        return self.opened


def open_model(name: str, path: Path, precision: Precision = "fp32") -> ServedModel:
    """Load a model directory; `precision` as of `predictor.load`.

    Raises:
        ElectraError: those of `load_model_dir` and `predictor.load`.
    """
    model = open_parts(path)
    try:
        config = task_of(model, None)
    except ElectraError as error:
        if error.code != "E-C306" or not isinstance(model, ModelDir):
            raise
    else:
        own = predictor_of(model, config, precision)
        return ServedModel(name, own, None, writer_of(own) if isinstance(own.task, Generate) else None)
    if model.causal_head is not None:  # it was not fine-tuned
        return ServedModel(name, None, None, causal_writer(model, precision))
    return ServedModel(name, None, _Opened(**vars(model), opened=model.tokenizer()), None, precision)


def named(argument: str) -> tuple[str, Path]:
    """Name and directory of `NAME=DIR`, or of `DIR`: its name, or, of a `model`, that of the run around it.

    Raises:
        ElectraError: E-C731 a name that no address can hold.
    """
    name, equals, path = argument.partition("=")
    if not equals:
        path = argument
        whole = Path(path).resolve()
        name = whole.parent.name if whole.name == "model" else whole.name
    if not _NAME.fullmatch(name):
        raise ElectraError("E-C731", argument, f"{name!r} is no name for a model: letters, digits and . _ - are",
                           "name it: NAME=DIR")  # fmt: skip
    return name, Path(path)


def open_models(arguments: Sequence[str], precision: Precision = "fp32") -> list[ServedModel]:
    """Load the models of a command line.

    Raises:
        ElectraError: E-C731 two models of one name, or none; and those of `named` and `open_model`.
    """
    places = [named(argument) for argument in arguments]
    for place, (name, path) in enumerate(places):
        if name in [other for other, _ in places[:place]]:
            raise ElectraError("E-C731", str(path), f"another model is called {name!r} too", "name it: NAME=DIR")
    models = []
    for name, path in places:
        models.append(open_model(name, path, precision))
        give_back_memory()
    return models
