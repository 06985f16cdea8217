"""Training and development file against one another, before anything is trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra.build.labelled import DataConfig, read_labelled
from electra.contracts import Example, Reading
from electra.errors import ElectraError
from electra.tasks.classify import Classify, ClassifyConfig
from electra.text.train_tokenizer import train as train_tokenizer

TASK = Classify(ClassifyConfig(), train_tokenizer(["good bad film"] * 3, vocab_size=80))
ROWS = ["good\tpos", "bad\tneg", "a film\tpos", "no film\tneg"]


def written(path: Path, rows: list[str]) -> Path:
    path.write_text("text\tlabel\n" + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def test_the_task_knows_the_labels_and_nothing_is_shared(tmp_path: Path) -> None:
    train, dev = written(tmp_path / "train.tsv", ROWS), written(tmp_path / "dev.tsv", ["the film\tneg"])
    found = read_labelled(TASK, DataConfig(train=train, dev=dev))
    assert (found.task.labels, len(found.train), len(found.dev), found.overlap) == (("neg", "pos"), 4, 1, None)


def test_the_training_file_is_no_development_file(tmp_path: Path) -> None:
    train = written(tmp_path / "train.tsv", ROWS)
    (tmp_path / "link.tsv").symlink_to(train)
    shutil.copy(train, tmp_path / "copy.tsv")
    for name, cause in (
        ("train", "it is the training file"),
        ("link", "it is the"),
        ("copy", "it has the content of .*train.tsv"),
    ):
        with pytest.raises(ElectraError, match=rf"E-D360 data.dev=.*{name}.tsv: {cause}"):
            read_labelled(TASK, DataConfig(train=train, dev=tmp_path / f"{name}.tsv"))


def test_what_stands_in_both_is_counted_whatever_its_label(tmp_path: Path) -> None:
    train = written(tmp_path / "train.tsv", ROWS)
    dev = written(tmp_path / "dev.tsv", ["the film\tneg", "good\tneg", "no film\tneg", "good\tpos"])
    overlap = read_labelled(TASK, DataConfig(train=train, dev=dev)).overlap
    assert overlap is not None
    assert (overlap.count, overlap.whole) == (3, 4)
    assert str(overlap).startswith("3 of 4 examples of data.dev (75.0%) stand in data.train as well, the first in ")
    assert "dev.tsv:3:" in str(overlap)


def test_files_that_are_missing_are_named_by_the_reader(tmp_path: Path) -> None:
    with pytest.raises(ElectraError, match=r"nowhere\.tsv"):
        read_labelled(TASK, DataConfig(train=tmp_path / "nowhere.tsv", dev=tmp_path / "nowhere.tsv"))


class Given(Classify):
    """Files of examples that are made, by the name of the file."""

    files: dict[str, list[Example]]

    def read(self, path: Path) -> Reading:
        return Reading(examples=iter(self.files[path.name]), notes=[f"{len(self.files[path.name])} rows"])

    def fit(self, examples: object) -> Given:
        return self


ids = st.none() | st.integers(0, 3) | st.sampled_from(["a", "b", "0"])


@given(st.lists(st.tuples(st.sampled_from(["x", "y"]), ids), max_size=6), st.lists(st.sampled_from(["x", "y"]), max_size=4))
def test_ids_are_told_apart_and_are_no_content(train: list[tuple[str, object]], dev: list[str]) -> None:
    task = Given(TASK.config, TASK.tokenizer)
    named = [
        Example(text=text, target="t", where=f"train:{n}", given={} if id_ is None else {"id": id_})
        for n, (text, id_) in enumerate(train)
    ]
    task.files = {"train": named, "dev": [Example(text=text, given={"id": n}) for n, text in enumerate(dev)]}
    config = DataConfig(train=Path("train"), dev=Path("dev"))
    known = [(type(id_), id_) for _, id_ in train if id_ is not None]
    if len(set(known)) < len(known):
        with pytest.raises(ElectraError, match=r"E-D362 train:\d: its id .* is also that of train:\d"):
            read_labelled(task, config)
        return
    found = read_labelled(task, config)
    shared = [text for text in dev if text in {text for text, _ in train}]
    assert (0 if found.overlap is None else found.overlap.count) == len(shared)
    assert found.notes == [f"train: {len(train)} rows", f"dev: {len(dev)} rows"]


def test_what_else_an_example_is_given_is_content() -> None:
    task = Given(TASK.config, TASK.tokenizer)
    task.files = {
        "train": [Example(text="x", given={"entities": [[0, 1]]})],
        "dev": [Example(text="x", given={"entities": [[0, 2]]}), Example(text="x", pair="y"), Example(text="x")],
    }
    assert read_labelled(task, DataConfig(train=Path("train"), dev=Path("dev"))).overlap is None
