from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from electra.cli import app
from electra.errors import ElectraError
from electra.text import filters
from electra.text.against import Against, evaluation_texts
from electra.text.build import build
from electra.text.corpus import Corpus
from electra.text.drops import Drops
from electra.text.filters import FilterOptions, filtered, letter_share, repeated_share
from electra.text.readers import Document
from electra.text.tokenizer import Tokenizer

WORDS = [f"w{number}" for number in range(1000)]
Read = Callable[[Drops], Iterator[Document]]


def reading(texts: list[str], file: str = "a.txt") -> Read:
    def read(drops: Drops) -> Iterator[Document]:
        drops.begin(file)
        return (Document(text, file, line) for line, text in enumerate(texts, start=1))

    return read


def kept(texts: list[str], directory: Path, **options: object) -> tuple[list[str], dict[str, int]]:
    """The texts that stay, and the counts."""
    drops = Drops()
    documents = list(filtered(reading(texts), FilterOptions(**options), directory / "filters", drops))  # type: ignore[arg-type]
    shutil.rmtree(directory / "filters", ignore_errors=True)
    return [document.text for document in documents], dict(drops.total.counts)


def words(count: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


# -- one document ----------------------------------------------------------------------------------------------------------

CHINESE = "今天天气很好，我们去公园散步。孩子们在湖边喂鸭子！\n他说：“明天会下雨。”但是谁也不相信。"
HINDI = "आज मौसम बहुत अच्छा है, हम पार्क में टहलने गए।"


@pytest.mark.parametrize(
    ("options", "good", "bad", "cause"),
    [
        ({"min_characters": 20}, "x" * 20, "x" * 19, "dropped: documents with too few characters"),
        ({"max_characters": 20}, "x" * 20, "x" * 21, "dropped: documents with too many characters"),
        ({"min_letters": 0.5}, "ab 12", "ab 123", "dropped: documents with too few letters"),
        ({"max_repeated": 0.5}, "ab\ncd\nab\ncd", "ab\nab\nab", "dropped: documents that repeat their lines"),
    ],
)
def test_a_bound_drops_what_lies_beyond_it(tmp_path: Path, options: dict[str, object], good: str, bad: str, cause: str) -> None:
    assert kept([good, bad, good], tmp_path, **options) == ([good, good], {cause: 1})
    assert kept([good, bad], tmp_path) == ([good, bad], {})


@pytest.mark.parametrize("text", [CHINESE, HINDI, "The café on the corner opens at seven.", "Ηλίθιοι; καλημέρα κόσμε."])
def test_text_of_any_script_is_made_of_letters(text: str) -> None:
    assert letter_share(text) > 0.75


def test_tables_and_rulers_are_not() -> None:
    assert letter_share("12 345 6 | 78.9 | 2026-11-25 | km") < 0.1
    assert letter_share("-" * 40) == 0


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("ab"), min_size=1), min_size=1))
def test_repeated_share(lines: list[str]) -> None:
    again = sum(len(line) for number, line in enumerate(lines) if line in lines[:number])
    assert repeated_share("\n".join(lines)) == pytest.approx(again / sum(map(len, lines)))


# -- lines of many documents -----------------------------------------------------------------------------------------------


def test_lines_of_more_documents_than_allowed_are_removed_from_all(tmp_path: Path) -> None:
    texts = ["one\nMenu\ntwice", "Menu", "two\nMenu\nMenu", "three\ntwice", "我们\n菜单", "菜单\n你们", "菜单\n他们"]
    assert kept(texts, tmp_path, max_line_documents=2) == (
        ["one\ntwice", "two", "three\ntwice", "我们", "你们", "他们"],
        {"removed: lines that stand in many documents": 7, "dropped: documents with nothing but such lines": 1},
    )


def test_a_line_that_stands_often_in_one_document_stays(tmp_path: Path) -> None:
    assert kept(["la\nla\nla\nla", "la"], tmp_path, max_line_documents=2)[0] == ["la\nla\nla\nla", "la"]


def test_lines_are_counted_over_all_blocks_of_the_sort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("electra.text.disksort.DiskSort.__init__.__defaults__", (3,))
    texts = [f"Menu\n{number}" for number in range(20)]
    assert kept(texts, tmp_path, max_line_documents=19)[0] == [str(number) for number in range(20)]
    assert kept(texts, tmp_path, max_line_documents=20)[0] == texts


# -- evaluation text ---------------------------------------------------------------------------------------------------------


def test_documents_with_thirteen_words_of_evaluation_text_go(tmp_path: Path) -> None:
    (tmp_path / "dev.txt").write_text(words(40, 1) + "\n" + "A short one\n", encoding="utf-8")
    run = words(40, 1).split()[10:23]
    texts = [
        "Before " + ", ".join(run).upper() + "! After.",  # 13 words
        "Before " + " ".join(run[:12]) + " after.",  # 12
        words(40, 2),
        "A short one!",  # a text of evaluation as a whole
        "Not only a short one.",
    ]
    assert kept(texts, tmp_path, against=(str(tmp_path / "dev.txt"),)) == (
        [texts[1], texts[2], texts[4]],
        {"dropped: documents with evaluation text": 2},
    )


def test_of_chinese_it_takes_26_characters(tmp_path: Path) -> None:
    (tmp_path / "dev.txt").write_text(CHINESE.replace("\n", ""), encoding="utf-8")
    characters = "".join(character for character in CHINESE if character.isalpha())
    texts = ["你看过这本书吗" + characters[5:31], "你看过这本书吗" + characters[5:30]]
    assert kept(texts, tmp_path, against=(str(tmp_path / "dev.txt"),))[0] == [texts[1]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "one\ntwo\n"),
        ("a.tsv", "one\ttwo\n"),
        ("a.csv", '"one","two"\n'),
        ("a.jsonl", '{"a": "one", "n": 1}\n\n{"b": [{"c": "two"}, null]}\n'),
        ("a.json", '{"data": [{"a": "one"}, ["two"]]}'),
    ],
)
def test_every_cell_and_string_is_a_text_of_evaluation(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text("\ufeff" + content, encoding="utf-8")
    assert [text.strip() for text in evaluation_texts(tmp_path / name) if text.strip()] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.doc", b"", "E-C121"),
        ("none.txt", None, "E-D101"),
        ("a.txt", b"\xff\xfe", "E-D100"),
        ("a.jsonl", b"{", "E-D126"),
        ("a.csv", b'a,"never closed', "E-D126"),
        ("a.txt", b" \n...\n", "E-D125"),
    ],
)
def test_evaluation_files_that_cannot_be_used(tmp_path: Path, name: str, content: bytes | None, code: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ElectraError, match=name) as caught:
        Against([tmp_path / name])
    assert caught.value.code == code


# -- together ----------------------------------------------------------------------------------------------------------------


def test_what_is_dropped_for_another_reason_makes_no_duplicate(tmp_path: Path) -> None:
    # the short one is gone before the long one would be its duplicate, and after its line is
    texts = ["Menu\nshort", "Menu\n" + words(30, 1), "short", words(30, 1), "Menu\n" + words(30, 2)]
    found, counts = kept(texts, tmp_path, max_line_documents=2, min_characters=10, duplicates="exact")
    assert found == [words(30, 1), words(30, 2)]
    assert counts["dropped: documents with too few characters"] == 2
    assert counts["dropped: exact duplicates"] == 1


def test_every_drop_is_counted_by_file_and_some_are_shown(tmp_path: Path) -> None:
    drops = Drops()

    def read(drops: Drops) -> Iterator[Document]:
        for file in ("a.txt", "b.txt"):
            yield from reading([words(30, 1), "x", words(30, 1) + "."], file)(drops)

    documents = list(filtered(read, FilterOptions(min_characters=2, duplicates="near"), tmp_path / "filters", drops))
    assert [(document.file, document.line) for document in documents] == [("a.txt", 1)]
    few, exact, near = "dropped: documents with too few characters", "dropped: exact duplicates", "dropped: near duplicates"
    assert drops.total.samples[few] == ["a.txt:2: x", "b.txt:2: x"]
    assert [sample[:8] for sample in drops.total.samples[near]] == ["a.txt:3:"]
    assert [(file, dict(losses.counts)) for file, losses in drops.take()] == [
        ("a.txt", {few: 1, near: 1}), ("b.txt", {few: 1, exact: 2}),
    ]  # fmt: skip


def test_an_interrupted_build_does_not_look_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [words(30, number % 7) for number in range(20)]
    options = FilterOptions(duplicates="near", max_line_documents=10)
    whole = list(filtered(reading(texts), options, tmp_path / "whole", Drops()))
    begun = filtered(reading(texts), options, tmp_path / "filters", Drops())
    assert [next(begun) for _ in range(3)] == whole[:3]
    begun.close()
    assert sorted(path.name for path in (tmp_path / "filters").iterdir()) == ["lines", "verdicts"]
    monkeypatch.setattr(filters, "find_duplicates", None)
    monkeypatch.setattr(filters, "find_frequent_lines", None)
    assert list(filtered(reading(texts), options, tmp_path / "filters", Drops())) == whole


def test_a_look_that_was_interrupted_begins_again(tmp_path: Path) -> None:
    def broken(drops: Drops) -> Iterator[Document]:
        yield from reading([words(30, 1)] * 3)(drops)
        raise KeyboardInterrupt

    options = FilterOptions(duplicates="exact")
    with pytest.raises(KeyboardInterrupt):
        list(filtered(broken, options, tmp_path / "filters", Drops()))
    texts = [words(30, 1), words(30, 2), words(30, 1)]
    assert [d.text for d in filtered(reading(texts), options, tmp_path / "filters", Drops())] == texts[:2]


@pytest.mark.parametrize("second", [["a"], ["a", "b", "c"]])
def test_text_that_changes_meanwhile_is_noticed(tmp_path: Path, second: list[str]) -> None:
    versions = iter([["a", "b"], second])
    with pytest.raises(ElectraError, match="E-D127"):
        list(filtered(lambda drops: reading(next(versions))(drops), FilterOptions(duplicates="exact"), tmp_path / "f", Drops()))


@pytest.mark.parametrize(
    "options",
    [
        {"min_characters": 0}, {"min_characters": 5, "max_characters": 4}, {"min_letters": 1.1}, {"max_repeated": -0.1},
        {"max_line_documents": 0}, {"duplicates": "near", "similarity": 0.4}, {"duplicates": "near", "similarity": 1.0},
        {"similarity": 0.8}, {"min_letters": float("nan")},
    ],
)  # fmt: skip
def test_options_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(ElectraError, match="E-C120"):
        FilterOptions(**options)  # type: ignore[arg-type]


# -- in a build --------------------------------------------------------------------------------------------------------------


def test_a_corpus_is_that_of_the_documents_that_stay(texts: list[str], tokenizer: Tokenizer, tmp_path: Path) -> None:
    good = [text for text in texts if len(text) > 40]
    rows = [*good, "short", *good, good[0].upper() + "!!"]
    for name, some in (("all", rows), ("good", good)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in some))
    options = FilterOptions(min_characters=10, duplicates="near")
    first = build([tmp_path / "all.jsonl"], tokenizer, tmp_path / "first", filters=options)
    second = build([tmp_path / "good.jsonl"], tokenizer, tmp_path / "second", filters=options)
    assert first.fingerprint == second.fingerprint
    assert first.counts == {
        "dropped: documents with too few characters": 1, "dropped: exact duplicates": len(good), "dropped: near duplicates": 1,
        "read: files in utf-8": 1,
    }  # fmt: skip
    assert second.counts == {"read: files in utf-8": 1}
    assert Corpus(tmp_path / "first").manifest.filters == options
    assert {path.name for path in (tmp_path / "first").iterdir()} == {
        "manifest.json", "sources.jsonl", "tokenizer", "shard-00000.arrow",
    }  # fmt: skip


def test_the_command_line_shows_what_was_dropped(texts: list[str], tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tok")
    (tmp_path / "a.txt").write_text("\n\n".join([*texts, texts[0], texts[1] + "!"]), encoding="utf-8")
    (tmp_path / "dev.tsv").write_text(f"{texts[2]}\t1\n", encoding="utf-8")
    command = ["corpus", "build", str(tmp_path / "a.txt"), "--tokenizer", str(tmp_path / "tok"), "--out", str(tmp_path / "c")]
    command += ["--duplicates", "near", "--similarity", "0.9", "--against", str(tmp_path / "dev.tsv")]
    built = CliRunner().invoke(app, command, catch_exceptions=False)
    assert "looking for duplicates takes 321 bytes of disk a document" in built.stdout
    shown = CliRunner().invoke(app, ["corpus", "inspect", str(tmp_path / "c")], catch_exceptions=False)
    for output in (built.stdout, shown.stdout):
        assert f"  dropped: exact duplicates: 1\n    {tmp_path / 'a.txt'}:" in output
        assert "  dropped: near duplicates: 1\n" in output
        assert f"filters: against {tmp_path / 'dev.tsv'}, duplicates near, similarity 0.9" in output


def test_a_manifest_of_before_there_were_filters_is_read(texts: list[str], tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(texts), encoding="utf-8")
    manifest = build([tmp_path / "a.txt"], tokenizer, tmp_path / "c")
    file = tmp_path / "c" / "manifest.json"
    tree = json.loads(file.read_text())
    del tree["filters"]
    file.write_text(json.dumps(tree))
    assert Corpus(tmp_path / "c").manifest == dataclasses.replace(manifest, filters=FilterOptions())
