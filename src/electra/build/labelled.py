"""The labelled files of a fine-tuning run, read as a whole and checked before step 0.

In: a task and the paths. Out: the task fitted to the training examples, and the examples. The files are also checked against
one another, for a score on examples that were trained on says nothing: a development file that is the training file is an
error, single examples that stand in both are counted and told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from electra.config import STRICT, fingerprint
from electra.contracts import Example, TrainableTask
from electra.errors import ElectraError
from electra.objectives.latent_adversarial import one_label
from electra.storage import file_hash
from electra.tasks.common import learnt
from electra.tasks.labelled_text import LabelledText


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Labelled files, and files of texts.

    Args:
        train: examples to learn from.
        dev: examples to score while training, by which the model is chosen; None = no evaluation, the last model is kept.
        unlabelled: a file, or several, of texts to learn from without labels; for objectives that do.
        swap_pairs: learn from each pair of texts in the other order, too: for relations that are the same in both.
    """

    __pydantic_config__ = STRICT
    train: Path
    dev: Path | None = None
    unlabelled: Path | tuple[Path, ...] | None = None
    swap_pairs: bool = False


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How many of the `whole` examples of the development file stand in the training file as well, and the first of them."""

    count: int
    whole: int
    first: str

    def __str__(self) -> str:
        return (f"{self.count:,} of {self.whole:,} examples of data.dev ({self.count / self.whole:.1%}) stand in data.train as "
                f"well, the first in {self.first}: what was learnt by heart is scored there")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What a run learns from and is scored on.

    Args:
        task: fitted to `train`; every example of both was checked.
        notes: what the readers inferred or mended, a sentence each.
        overlap: None = the two have no example in common.
        train_hash: of the training file.
    """

    task: TrainableTask
    train: list[Example]
    dev: list[Example]
    notes: list[str]
    overlap: Overlap | None
    train_hash: str


def read_labelled(task: TrainableTask, config: DataConfig) -> Labelled:
    """Read and check the files of `config`.

    Raises:
        ElectraError: E-D360 the development file is the training file, E-D362 two examples of a file have one id; those of
            `both_orders`, and those of the task for what it cannot read or learn from.
    """
    train_hash = file_hash(config.train) if config.train.is_file() else ""
    if config.dev is not None and train_hash and config.dev.is_file() and file_hash(config.dev) == train_hash:
        cause = "it is the training file" if config.dev.samefile(config.train) else f"it has the content of {config.train}"
        raise ElectraError("E-D360", f"data.dev={config.dev}", cause,
                           "give examples that are not trained on, or leave data.dev out")  # fmt: skip
    notes: list[str] = []
    train, inferred = _read(task, config.train, notes)
    if inferred and isinstance(task, LabelledText):
        task = task.with_columns(inferred)
    fitted = task.fit(train)
    notes += learnt(task, fitted)
    dev = _read(fitted, config.dev, notes)[0] if config.dev is not None else []
    if dev:
        fitted.fit(dev)  # a label that the task does not know is an error now, not after an epoch
    overlap = _overlap(train, dev)
    if config.swap_pairs:
        notes.append(f"{len(train):,} pairs are learnt from in both orders")
        train += both_orders(train)
    return Labelled(task=fitted, train=train, dev=dev, notes=notes, overlap=overlap, train_hash=train_hash)


def read_unlabelled(task: TrainableTask, config: DataConfig, dev: Sequence[Example]) -> tuple[list[Example], str, list[str]]:
    """The texts of `config.unlabelled`, without their labels; a hash of the files; and notes, a sentence each.

    Args:
        task: fitted to the training examples.
        dev: examples of the development file; how many of the texts stand there is among the notes.

    Raises:
        ElectraError: E-C531 the task does not give one label to each text; those of the readers and of `both_orders`.
    """
    one_label(task)
    given = config.unlabelled
    files = (given,) if isinstance(given, Path) else given or ()
    texts, hashes, notes = list[Example](), list[str](), list[str]()
    for path in files:
        found, _ = _read(task, path, notes)
        labels = sum(example.target is not None for example in found)
        if labels:
            notes.append(f"{path}: {labels:,} labels are not looked at, as the file is data.unlabelled")
        texts += [replace(example, target=None) for example in found]
        hashes.append(file_hash(path))
    shared = _overlap(texts, dev)
    if shared is not None:
        notes.append(f"{shared.count:,} texts of data.dev are learnt from without their labels: they stand in data.unlabelled")
    if config.swap_pairs:
        texts += both_orders(texts)
    return texts, fingerprint(hashes), notes


def both_orders(examples: Sequence[Example]) -> list[Example]:
    """Each pair of texts the other way round.

    Raises:
        ElectraError: E-D398 an example without a second text.
    """
    swapped = []
    for example in examples:
        if example.pair is None:
            raise ElectraError("E-D398", example.where or "example", "has no second text to swap with",
                               "name its column with task.columns.pair, or leave data.swap_pairs out")  # fmt: skip
        swapped.append(replace(example, text=example.pair, pair=example.text))
    return swapped


def _read(task: TrainableTask, path: Path, notes: list[str]) -> tuple[list[Example], Mapping[str, int]]:
    """The examples of a file, and the columns that were inferred of it."""
    reading = task.read(path)
    examples = list(_with_own_ids(reading.examples))
    notes += [f"{path}: {note}" for note in reading.notes]
    return examples, reading.inferred


def _with_own_ids(examples: Iterable[Example]) -> Iterator[Example]:
    seen: dict[str, str] = {}
    for example in examples:
        if (given := example.given.get("id")) is not None:
            name = json.dumps(given, ensure_ascii=False)
            if name in seen:
                cause = f"its id {name} is also that of {seen[name] or 'an earlier example'}"
                raise ElectraError("E-D362", example.where or "example", cause,
                                   "give each example an id of its own, or leave ids out")  # fmt: skip
            seen[name] = example.where
        yield example


def _overlap(train: Sequence[Example], dev: Sequence[Example]) -> Overlap | None:
    known = {_content(example) for example in train} if dev else set()
    shared = [example for example in dev if _content(example) in known]
    return Overlap(count=len(shared), whole=len(dev), first=shared[0].where or "data.dev") if shared else None


def _content(example: Example) -> bytes:
    """What a task is given of an example, but for its id, in 16 bytes."""
    given = {name: value for name, value in example.given.items() if name != "id"}
    content = json.dumps([example.text, example.pair, given], sort_keys=True, default=str)
    return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).digest()
