"""What goes wrong at the command line gets one line that names place, cause and mend, and costs nobody a file."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

Verb = Callable[..., Any]

USAGE, DATA, RESOURCES = 2, 3, 4


def refused(outcome: Any, exit_code: int, code: str, *told: str) -> None:
    """One line: code, place, cause; mend."""
    assert outcome.code == exit_code, outcome.err
    (line,) = outcome.err.splitlines()
    assert re.fullmatch(r"error: E-[CDMTR]\d{3} [^:]+.*: .+; .+", line), line
    assert line.startswith(f"error: {code} ")
    for words in told:
        assert words in line


def contents(directory: Path) -> dict[str, bytes | None]:
    """Everything below a directory, folders too, hidden ones too."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() if path.is_file() else None for path in directory.rglob("*")
    }


def write(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.fixture
def build(electra: Verb, place: Any, tmp_path: Path) -> Callable[..., Any]:
    """`electra corpus build` of some bytes in `tmp_path`."""

    def run(data: bytes | str, *options: object) -> Any:
        text = write(tmp_path / "text.txt", data)
        return electra("corpus", "build", text, "--tokenizer", place.tokenizer, "--out", tmp_path / "out", *options)

    return run


@pytest.fixture
def pretrain(electra: Verb, place: Any, tmp_path: Path) -> Callable[..., Any]:
    """`electra pretrain test-classic` for a few steps into `tmp_path / "run"`; later settings win."""

    def run(*settings: object) -> Any:
        return electra("pretrain", "test-classic", f"corpus.path={place.corpus}", f"run.dir={tmp_path / 'run'}", "stop.steps=4",
                       *settings)  # fmt: skip

    return run


# -- text ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\n\n \n", b"\x00\x00\n"])
def test_text_without_text(build: Verb, tmp_path: Path, data: bytes) -> None:
    refused(build(data), DATA, "E-D120", "no document with text")
    assert set(contents(tmp_path)) == {"text.txt"}


def test_a_tokenizer_of_nothing(electra: Verb, tmp_path: Path) -> None:
    outcome = electra("tokenizer", "train", write(tmp_path / "empty.txt", ""), "--out", tmp_path / "tok")
    refused(outcome, DATA, "E-D112", "no text")
    assert set(contents(tmp_path)) == {"empty.txt"}


def test_bytes_that_are_not_utf_8(build: Verb, tmp_path: Path) -> None:
    data = b"good text\n\n" + b"bad \xff byte\n"
    refused(build(data), DATA, "E-D100", "text.txt", "byte 15 (0xff) is not UTF-8")
    assert set(contents(tmp_path)) == {"text.txt"}
    outcome = build(data, "--errors", "replace")
    assert outcome.code == 0
    assert "replaced: undecodable bytes: 1" in outcome.out


def test_another_encoding_is_proposed_and_not_guessed(build: Verb, tmp_path: Path) -> None:
    data = "今天天气很好，我们去公园散步。\n".encode("gb18030")
    refused(build(data), DATA, "E-D100", "text.txt:1: byte 0 (0xbd) is not UTF-8", '--encoding gb18030 "今天天气很好，')
    refused(build(data, "--encoding", "gb"), USAGE, "E-C107", "'gb' is not known")
    assert set(contents(tmp_path)) == {"text.txt"}
    outcome = build(data, "--encoding", "gb18030")
    assert outcome.code == 0
    assert "read: files in gb18030: 1" in outcome.out
    outcome = build("the dog is good".encode("utf-16"), "--overwrite")  # with its mark
    assert outcome.code == 0
    assert "read: files in utf-16-le: 1" in outcome.out


def test_bad_rows_are_left_out_on_demand_and_shown(electra: Verb, place: Any, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.mkdir()
    write(text / "a.csv", "id,text\n1,the dog is good\n2,the,dog\n3,a dog\n")
    write(text / "b.tsv", "body\tlabel\nthe dog\t1\n")
    try:
        write(text / os.fsdecode(b"c\xff.jsonl"), '{"text": "the dog"}\n{"text": 3}\n')
    except OSError:
        pytest.skip("the file system wants UTF-8")
    build = ["corpus", "build", text, "--tokenizer", place.tokenizer, "--out", tmp_path / "out"]
    refused(electra(*build), DATA, "E-D105", "b.tsv:1: no column 'text'", "this line has 2: body, label")
    (text / "b.tsv").unlink()
    refused(electra(*build), DATA, "E-D104", "a.csv:3: malformed CSV: 3 columns where the first row has 2")
    assert not (tmp_path / "out").exists()
    assert electra(*build, "--errors", "skip").code == 0
    outcome = electra("corpus", "inspect", tmp_path / "out")
    assert outcome.code == 0
    assert "3 documents" in outcome.out
    for told in ("dropped: rows that cannot be parsed: 1\n", "dropped: rows without the text field: 1\n",
                 "text/a.csv:3: malformed CSV: 3 columns", r"text/c\xff.jsonl:2: field 'text' is not a string"):  # fmt: skip
        assert told in outcome.out
    sources = [json.loads(line) for line in (tmp_path / "out" / "sources.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [source["counts"] for source in sources] == [
        {"dropped: rows that cannot be parsed": 1, "read: files in utf-8": 1},
        {"dropped: rows without the text field": 1, "read: files in utf-8": 1},
    ]


def test_nul_is_removed_and_counted(build: Verb) -> None:
    outcome = build("the dog\x00 is good\n")
    assert outcome.code == 0
    assert re.search(r"removed: .*: 1", outcome.out)


def test_other_line_ends_make_the_same_corpus(build: Verb, tmp_path: Path) -> None:
    text = "the dog is good.\nthe cat too.\n\nthe river\n"
    printed = []
    for data in (text, text.replace("\n", "\r\n"), "\ufeff" + text):
        outcome = build(data, "--overwrite")
        assert outcome.code == 0, outcome.err
        printed.append(outcome.out)
    assert printed[0] == printed[1] == printed[2]


def test_one_long_line_is_cut_and_nothing_of_it_is_lost(build: Verb) -> None:
    outcome = build("the dog is good 老师打开了 " * 100_000)
    assert outcome.code == 0, outcome.err
    told = re.search(r"split: documents too long for one: (\d+)", outcome.out)
    assert told
    assert int(told[1]) >= 2
    tokens = re.search(r"([\d,]+) tokens", outcome.out)
    assert tokens
    assert int(tokens[1].replace(",", "")) >= 9 * 100_000


def test_many_empty_documents_are_counted(build: Verb) -> None:
    outcome = build("\n" * 300_000 + "the dog is good\n", "--document", "line")
    assert outcome.code == 0
    assert "dropped: empty documents: 300,000" in outcome.out
    assert "1 documents" in outcome.out


def test_many_empty_rows_are_counted(electra: Verb, place: Any, tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", '{"text": " "}\n' * 100_000 + '{"text": "the dog is good"}\n')
    outcome = electra("corpus", "build", rows, "--tokenizer", place.tokenizer, "--out", tmp_path / "out")
    assert outcome.code == 0
    assert "dropped: empty documents: 100,000" in outcome.out
    assert "1 documents" in outcome.out


def test_rows_that_are_no_json_or_have_no_text(electra: Verb, place: Any, tmp_path: Path) -> None:
    for data, code in (('{"text": "a"}\nnope\n', "E-D102"), ('{"text": "a"}\n{"txt": "b"}\n', "E-D103")):
        rows = write(tmp_path / "rows.jsonl", data)
        outcome = electra("corpus", "build", rows, "--tokenizer", place.tokenizer, "--out", tmp_path / "out")
        refused(outcome, DATA, code, "rows.jsonl:2")
    assert set(contents(tmp_path)) == {"rows.jsonl"}


# -- places that hold something ------------------------------------------------------------------------------------------


def test_a_corpus_is_not_overwritten_without_asking(build: Verb, tmp_path: Path) -> None:
    assert build("the dog is good\n").code == 0
    before = contents(tmp_path / "out")
    refused(build("another text\n"), USAGE, "E-C102", "already there")
    assert contents(tmp_path / "out") == before
    assert build("another text\n", "--overwrite").code == 0
    assert contents(tmp_path / "out") != before


def test_a_failed_rebuild_leaves_the_old_corpus(build: Verb, tmp_path: Path) -> None:
    assert build("the dog is good\n").code == 0
    before = contents(tmp_path / "out")
    refused(build(b"\xff", "--overwrite"), DATA, "E-D100")
    assert contents(tmp_path / "out") == before


def test_foreign_files_are_never_touched(build: Verb, pretrain: Verb, electra: Verb, place: Any, tmp_path: Path) -> None:
    for name in ("out", "run"):
        (tmp_path / name / "model").mkdir(parents=True)
        write(tmp_path / name / "model" / "thesis.txt", "mine")
    before = contents(tmp_path / "out"), contents(tmp_path / "run")
    refused(build("the dog\n", "--overwrite"), USAGE, "E-C102", "no corpus")
    refused(pretrain(), USAGE, "E-C421", "holds no run")
    refused(pretrain("run.fresh=true"), USAGE, "E-C421", "holds no run")
    refused(electra("tokenizer", "train", place.text, "--out", tmp_path / "out"), USAGE, "E-C460", "not empty")
    refused(electra("import", place.run / "model", tmp_path / "out"), USAGE, "E-C211", "exists")
    assert (contents(tmp_path / "out"), contents(tmp_path / "run")) == before


def test_a_file_where_a_directory_should_be(pretrain: Verb, build: Verb, tmp_path: Path) -> None:
    for name in ("run", "out"):
        write(tmp_path / name, "mine")
    refused(pretrain(), USAGE, "E-C421", "is a file")
    refused(pretrain("run.fresh=true"), USAGE, "E-C421", "is a file")
    refused(build("the dog\n", "--overwrite"), USAGE, "E-C102")
    assert (tmp_path / "run").read_text() == (tmp_path / "out").read_text() == "mine"


def test_another_run_is_not_continued_by_mistake(electra: Verb, place: Any) -> None:
    before = contents(place.run)
    outcome = electra("pretrain", "test-modern", f"corpus.path={place.corpus}", f"run.dir={place.run}", "stop.steps=21")
    refused(outcome, USAGE, "E-C420", "stop.steps was 20, now 21", "run.fresh=true")
    outcome = electra("finetune", "task=classify", f"init.from={place.run}/model", f"data.train={place.train}",
                      f"run.dir={place.run}")  # fmt: skip
    refused(outcome, USAGE, "E-C420", "another recipe")
    assert contents(place.run) == before


def test_a_run_does_not_remove_the_model_it_starts_from(electra: Verb, place: Any) -> None:
    before = contents(place.run)
    settings = [f"init.from={place.run}/model", f"run.dir={place.run}", "run.fresh=true"]
    refused(electra("pretrain", "test-modern", f"corpus.path={place.corpus}", *settings), USAGE, "E-C422", "init.from")
    refused(electra("finetune", "task=classify", f"data.train={place.train}", *settings), USAGE, "E-C422", "init.from")
    assert contents(place.run) == before


def test_starting_over_with_a_mistake_keeps_the_old_run(pretrain: Verb, tmp_path: Path) -> None:
    assert pretrain().code == 0
    before = contents(tmp_path / "run")
    refused(pretrain("run.fresh=true", "batch.rows=100000"), DATA, "E-D240")
    refused(pretrain("run.fresh=true", f"init.from={tmp_path / 'nothing'}"), DATA, "E-M200")
    assert contents(tmp_path / "run") == before


# -- recipes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("stop.stepz=3", ("E-C004 stop.stepz: no such setting", "did you mean steps?")),
        ("phases.rtd.objective.tyling=all", ("phases.rtd.objective.tyling", "did you mean tying?")),
        ("stop.steps=many", ("stop.steps", "'many'")),
        ("phases.rtd.objective.tying=al", ("phases.rtd.objective.tying", "'all'")),
        ("encoder.rope_theta=3", ("encoder.rope_theta", "no such setting")),
        ("phases.rtd.objective=rdt", ("phases.rtd.objective.type", "did you mean rtd?")),
        ("nonsense.toml", ("E-C001 nonsense.toml",)),
    ],
)
def test_a_typo_in_a_recipe(pretrain: Verb, tmp_path: Path, setting: str, told: tuple[str, ...]) -> None:
    outcome = pretrain(setting)
    assert outcome.code == USAGE
    (line,) = outcome.err.splitlines()
    for words in told:
        assert words in line
    assert contents(tmp_path) == {}


def test_a_typo_in_a_recipe_file(pretrain: Verb, tmp_path: Path) -> None:
    recipe = write(tmp_path / "mine.toml", "[loop]\nlog_stepss = 3\n")
    refused(pretrain(recipe), USAGE, "E-C004", "loop.log_stepss", "did you mean log_steps?")
    write(recipe, "[loop\n")
    refused(pretrain(recipe), USAGE, "E-C002", "mine.toml")


def test_what_is_missing_is_named(electra: Verb) -> None:
    refused(electra("pretrain", "test-modern"), USAGE, "E-C004", "corpus", "add corpus.path=")
    refused(electra("finetune", "task=classify", "data.train=x.tsv", "run.dir=x"), USAGE, "E-C444", "init.from")


# -- corpora and models --------------------------------------------------------------------------------------------------


def test_a_corpus_smaller_than_one_batch(build: Verb, pretrain: Verb, tmp_path: Path) -> None:
    assert build("the dog is good\n").code == 0
    refused(pretrain(f"corpus.path={tmp_path / 'out'}"), DATA, "E-D240", "fewer than one batch of 8 rows")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("entries", [200, 400])
def test_a_corpus_of_another_tokenizer_than_the_models(electra: Verb, place: Any, tmp_path: Path, entries: int) -> None:
    options = ["--vocab-size", entries, "--lowercase"]
    assert electra("tokenizer", "train", place.text, *options, "--out", tmp_path / "tok").code == 0
    build = ["corpus", "build", place.text, "--tokenizer", tmp_path / "tok", "--out", tmp_path / "out"]
    assert electra(*build).code == 0
    outcome = electra("pretrain", "test-modern", f"corpus.path={tmp_path / 'out'}", f"run.dir={tmp_path / 'run'}",
                      f"init.from={place.run}/model")  # fmt: skip
    refused(outcome, DATA, "E-M451", "another tokenizer", "--tokenizer")
    assert not (tmp_path / "run").exists()


def test_a_model_of_other_sizes_says_which_settings_to_give(electra: Verb, place: Any, tmp_path: Path) -> None:
    start = ["pretrain", f"corpus.path={place.corpus}", f"run.dir={tmp_path / 'run'}", f"init.from={place.run}/model"]
    outcome = electra(*start, "test-modern", "encoder.hidden_size=16", "encoder.num_hidden_layers=2")
    refused(outcome, DATA, "E-M450", "add encoder.hidden_size=32 encoder.num_hidden_layers=3")
    refused(electra(*start, "test-classic"), DATA, "E-M450", "modern")
    assert not (tmp_path / "run").exists()


def test_a_corpus_that_was_changed_is_noticed_at_resume(pretrain: Verb, place: Any, tmp_path: Path) -> None:
    corpus = shutil.copytree(place.corpus, tmp_path / "corpus")
    assert pretrain(f"corpus.path={corpus}").code == 0
    shard = corpus / "shard-00000.arrow"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    before = contents(tmp_path / "run")
    refused(pretrain(f"corpus.path={corpus}"), DATA, "E-D123", "shard-00000.arrow", "hash")
    shard.write_bytes(data[:-100])
    refused(pretrain(f"corpus.path={corpus}"), DATA, "E-D123", "shard-00000.arrow")
    assert contents(tmp_path / "run") == before


def test_another_corpus_in_the_same_place_is_noticed_at_resume(
    pretrain: Verb, electra: Verb, place: Any, tmp_path: Path
) -> None:
    corpus = shutil.copytree(place.corpus, tmp_path / "corpus")
    assert pretrain(f"corpus.path={corpus}").code == 0
    rebuild = ["corpus", "build", place.text, "--tokenizer", place.tokenizer, "--out", corpus, "--seed", "7", "--overwrite"]
    assert electra(*rebuild).code == 0
    model = contents(tmp_path / "run" / "model")
    refused(pretrain(f"corpus.path={corpus}"), DATA, "E-D400", "corpus has changed")
    assert contents(tmp_path / "run" / "model") == model


@pytest.mark.parametrize(
    ("file", "data", "code"),
    [
        ("model.safetensors", b"\x00" * 64, "E-M201"),
        ("config.json", b"{}", "E-M201"),
        ("tokenizer.json", b"{}", "E-M201"),
        ("task.json", b"[]", "E-M201"),
    ],
)
def test_a_broken_model_directory(electra: Verb, place: Any, tmp_path: Path, file: str, data: bytes, code: str) -> None:
    model = shutil.copytree(place.classifier / "model", tmp_path / "model")
    write(model / file, data)
    refused(electra("predict", model, stdin=b"the dog\n"), DATA, code, file)
    (model / "manifest.json").unlink()  # as if transformers had written it: then the file itself must be read with care
    outcome = electra("predict", model, stdin=b"the dog\n")
    assert outcome.code in (USAGE, DATA), outcome.err
    assert re.fullmatch(r"error: E-[CDM]\d{3} .+: .+; .+\n", outcome.err)


def test_no_model_at_all(electra: Verb, place: Any, tmp_path: Path) -> None:
    refused(electra("predict", tmp_path / "nothing", stdin=b"a\n"), DATA, "E-M200", "config.json")
    refused(electra("evaluate", place.text, place.dev), DATA, "E-M200")
    refused(electra("report", place.text), DATA, "E-M300")
    refused(electra("report", place.run, place.text), DATA, "E-M300")
    refused(electra("plan", "test-modern", f"corpus.path={place.text}", f"run.dir={place.text}/run"), DATA, "E-D121")
    refused(electra("corpus", "inspect", place.text), DATA, "E-D121")
    refused(electra("predict", place.run / "model", stdin=b"a\n"), USAGE, "E-C306", "replaced")
    refused(
        electra("predict", place.run / "model", "--task", "replace", stdin=b"a\n"), USAGE, "E-C004", "did you mean replaced?"
    )


# -- labelled files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "dev", "code", "told"),
    [
        ("text\tlabel\na\tx\nb\ty\n", "text\tlabel\na\tz\n", "E-D312", ("dev.tsv:2", "'z' is not one of x, y")),
        ("text\tlabel\na\tx\nb\ty\n", "text\na\n", "E-D311", ("dev.tsv:2", "no label")),
        ("text\tlabel\na\tx\nb\ty\n", "text\tlabel\n", "E-D307", ("dev.tsv",)),
        ("body\tlabel\na\tx\nb\ty\n", None, "E-D332", ("train.tsv:1", "1 = 'body', 2 = 'label'; set columns.text")),
        ("text\tlabel\na\tx\nb\n", None, "E-D304", ("train.tsv:3",)),
        ("text\tlabel\na\tx\nb\tx\n", None, "E-D310", ("every row has the label 'x'",)),
        ("text\tlabel\na\tx\nb\t\n", None, "E-D311", ("train.tsv:3",)),
        ("", None, "E-D3", ("train.tsv",)),
        (b"text\tlabel\n\xff\tx\n", None, "E-D302", ("train.tsv:2",)),
    ],
)
def test_labelled_files_are_checked_before_the_first_step(
    electra: Verb, place: Any, tmp_path: Path, train: bytes | str, dev: str | None, code: str, told: tuple[str, ...]
) -> None:
    settings = [f"data.train={write(tmp_path / 'train.tsv', train)}"]
    if dev is not None:
        settings.append(f"data.dev={write(tmp_path / 'dev.tsv', dev)}")
    outcome = electra("finetune", "task=classify", f"init.from={place.run}/model", f"run.dir={tmp_path / 'run'}", *settings)
    assert outcome.code == DATA
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"error: {code}")
    for words in told:
        assert words in line
    assert not (tmp_path / "run").exists()


def test_standard_input_that_is_not_utf_8(electra: Verb, place: Any) -> None:
    outcome = electra("predict", place.classifier / "model", stdin=b"good\nb\xffd\n")
    refused(outcome, DATA, "E-D460", "standard input:2", "byte 6")


# -- a full disk ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def run_with_room_for(process: Callable[..., Any]) -> Verb:
    """A verb in a process that cannot write a file beyond so many bytes, as on a full disk."""

    def run(size: int, *words: object) -> Any:
        done = process(*words, file_limit=size)
        return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr)

    return run


def test_a_full_disk_while_a_corpus_is_rebuilt(build: Verb, run_with_room_for: Verb, place: Any, tmp_path: Path) -> None:
    assert build("the dog is good\n").code == 0
    before = contents(tmp_path)
    words = ["corpus", "build", place.text, "--tokenizer", place.tokenizer, "--out", tmp_path / "out", "--overwrite"]
    refused(run_with_room_for(10_000, *words), RESOURCES, "E-R001", "out")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("size", [1_000, 150_000])
def test_a_full_disk_while_a_run_is_saved(
    electra: Verb, run_with_room_for: Verb, place: Any, tmp_path: Path, size: int
) -> None:
    run = tmp_path / "run"
    words = ["pretrain", "test-modern", f"corpus.path={place.corpus}", f"run.dir={run}", "stop.steps=4"]
    outcome = run_with_room_for(size, *words)
    assert outcome.code == RESOURCES, outcome.err
    assert re.fullmatch(r"error: E-R\d{3} .+: .+; .+", outcome.err.splitlines()[-1])
    assert "Traceback" not in outcome.err
    assert not [path for path in contents(tmp_path) if ".partial" in path]
    again = electra(*words)
    assert again.code == 0, again.err
    assert json.loads((run / "recipe.json").read_text(encoding="utf-8"))["recipe"]["stop"]["steps"] == 4
