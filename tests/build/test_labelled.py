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


def test_single_texts_and_pairs_are_not_mixed(tmp_path: Path) -> None:
    single, pairs = written(tmp_path / "single.tsv", ROWS), tmp_path / "pairs.tsv"
    pairs.write_text("sentence1\tsentence2\tlabel\ngood\tfilm\tpos\nbad\tfilm\tneg\n", encoding="utf-8")
    with pytest.raises(ElectraError, match=r"E-D367 .*single.tsv:2: has one text, but pairs were learnt"):
        read_labelled(TASK, DataConfig(train=pairs, dev=single))
    with pytest.raises(ElectraError, match=r"E-D367 .*pairs.tsv:2: has two texts, but single ones were learnt"):
        read_labelled(TASK, DataConfig(train=single, dev=pairs))
    task = read_labelled(TASK, DataConfig(train=pairs)).task
    with pytest.raises(ElectraError, match="E-D367 example: has one text"):
        task.encode(Example(text="good"))


def test_other_files_without_header_are_read_like_the_training_file(tmp_path: Path) -> None:
    train, dev, asked, alone = (tmp_path / f"{name}.tsv" for name in ("train", "dev", "asked", "alone"))
    train.write_text("".join(f"{i % 2}\tfirst text {i}\tsecond text {i}\n" for i in range(20)), encoding="utf-8")
    dev.write_text("1\ta good film\ta bad film\n", encoding="utf-8")  # too short to tell a label
    asked.write_text("sentence2\tsentence1\nb\ta\n", encoding="utf-8")  # a header of its own
    found = read_labelled(TASK, DataConfig(train=train, dev=dev))
    assert [(one.text, one.pair, one.target) for one in found.dev] == [("a good film", "a bad film", "1")]
    assert [(one.text, one.pair, one.target) for one in found.task.read(asked).examples] == [("a", "b", None)]
    alone.write_text("one column\n", encoding="utf-8")
    assert [one.text for one in found.task.read(alone).examples] == ["one column"]
    alone.write_text("two\tcolumns\n", encoding="utf-8")
    with pytest.raises(ElectraError, match="E-D303"):
        list(found.task.read(alone).examples)


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
