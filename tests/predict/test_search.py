"""Search and summaries on a small encoder: exact neighbours, an index that is kept and noticed to be old, the verbs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from electra import cli
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.encoder import build_encoder
from electra.models.model_dir import Provenance, save_model_dir
from electra.predict.predictor import load
from electra.predict.search import closest, embed, load_embedder, open_index, rank
from electra.predict.summary import summarise, texts_of
from electra.text.train_tokenizer import train as train_tokenizer

LINES = ["the river is wide", "a red apple", "", "green apples and red apples", "the bridge over the river", "music"]
TOKENIZER = train_tokenizer(LINES * 3, vocab_size=120)
Run = Callable[..., tuple[list[dict[str, object]], str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that nobody has trained: equal texts are closest all the same."""
    torch.manual_seed(0)
    config = ClassicConfig(
        vocab_size=TOKENIZER.vocab_size, embedding_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=16, initializer_range=0.5,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "model"
    save_model_dir(path, encoder=build_encoder(config), provenance=Provenance(tokenizer=TOKENIZER, card=lambda: "# A model\n"))
    return path


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A verb: its JSON lines, and what it noted."""

    def call(*words: object) -> tuple[list[dict[str, object]], str]:
        monkeypatch.setattr("sys.argv", ["electra", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        assert ended.value.code == 0, printed.err
        return [json.loads(line) for line in printed.out.splitlines()], printed.err

    return call


def test_any_encoder_embeds_with_rows_that_it_has_positions_for(model: Path) -> None:
    predictor = load_embedder(model)
    assert predictor.task.max_length == 16
    vectors, cut = embed(predictor, ["music", "red " * 20])
    assert vectors.shape == (2, 16)
    assert cut == [0, 6]
    with pytest.raises(ElectraError, match="E-C306"):
        load(model)


def test_the_closest_are_found_exactly_and_ties_go_to_the_earlier() -> None:
    chance = np.random.default_rng(0)  # whole numbers, so that products are exact and many are equal
    vectors, questions = (chance.integers(-3, 4, size=(count, 8)).astype(np.float32) for count in (200, 100))
    for question, hits in zip(questions, closest(vectors, questions, 10), strict=True):
        expected = np.argsort(-(vectors @ question), kind="stable")[:10]
        assert [hit.number for hit in hits] == expected.tolist()
    assert len(next(closest(vectors[:3], questions[:1], 10))) == 3


def test_ranking_passages_for_a_question(model: Path) -> None:
    predictor = load_embedder(model)
    hits = rank(predictor, ["music", "a red apple", "the river"], "a red apple")
    assert (hits[0].number, len(hits)) == (1, 3)
    assert hits[0].score == pytest.approx(1.0, abs=1e-5)
    assert rank(predictor, [], "a red apple") == []


def test_an_index_is_kept_until_file_or_model_change(model: Path, notes: Path, tmp_path: Path) -> None:
    predictor = load_embedder(model)
    first = open_index(predictor, model, notes)
    assert first.rebuilt
    assert [(passage.line, passage.text) for passage in first.passages][2] == (4, "green apples and red apples")
    assert first.drops["dropped: empty documents"] == 1
    again = open_index(predictor, model, notes)
    assert not again.rebuilt
    np.testing.assert_array_equal(again.vectors, first.vectors)
    notes.write_text("music\n", encoding="utf-8")
    assert open_index(predictor, model, notes).rebuilt
    other = tmp_path / "other"
    other.mkdir()
    for file in model.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    (other / "config.json").write_text((other / "config.json").read_text().replace("0.1", "0.0"))
    assert open_index(predictor, other, notes).rebuilt
    (tmp_path / "notes.txt.index" / "vectors.safetensors").write_bytes(b"broken")
    assert open_index(predictor, other, notes).rebuilt


def test_what_is_no_index_is_not_overwritten(model: Path, notes: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ElectraError, match="E-C338"):
        open_index(load_embedder(model), model, notes, tmp_path / "mine")
    notes.write_text("\n\n", encoding="utf-8")
    with pytest.raises(ElectraError, match="E-D392"):
        open_index(load_embedder(model), model, notes)


def test_the_verb_search(model: Path, notes: Path, run: Run) -> None:
    lines, notes_told = run("search", model, notes, "--query", "a red apple", "--query", "music", "--top", 2)
    assert [(line["query"], line["rank"]) for line in lines] == [
        ("a red apple", 1),
        ("a red apple", 2),
        ("music", 1),
        ("music", 2),
    ]
    assert (lines[0]["text"], lines[0]["line"], lines[0]["file"]) == ("a red apple", 2, str(notes))
    assert "5 passages, vectors computed" in notes_told
    assert "vectors as they were" in run("search", model, notes, "--query", "music")[1]


TEXT = "The river is wide. A bridge is over the river.\nThe river is wide and red. Music! The river is green."


def test_a_summary_has_the_central_sentences_in_the_order_of_the_text(model: Path) -> None:
    predictor = load_embedder(model)
    summary = summarise(predictor, TEXT, 2)
    assert (summary.of, summary.truncated, len(summary.sentences)) == (5, 0, 2)
    assert all(TEXT[one.start : one.end] == one.text for one in summary.sentences)
    assert summary.sentences[0].start < summary.sentences[1].start
    everything = summarise(predictor, TEXT, 9).sentences
    vectors, _ = embed(predictor, [one.text for one in everything])
    cosines = vectors @ vectors.T
    np.testing.assert_allclose([one.score for one in everything], (cosines.sum(0) - 1) / 4, atol=1e-5)
    best = sorted(sorted(everything, key=lambda one: -one.score)[:2], key=lambda one: one.start)
    assert [one.start for one in summary.sentences] == [one.start for one in best]


def test_texts_without_or_with_one_sentence(model: Path) -> None:
    predictor = load_embedder(model)
    assert summarise(predictor, " \n", 3).sentences == ()
    [only] = summarise(predictor, " Music", 3).sentences
    assert (only.start, only.end) == (1, 6)


def test_the_verb_summarize(model: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "a.txt").write_text(TEXT + "\r\n", encoding="utf-8", newline="")
    [line], _ = run("summarize", model, tmp_path / "a.txt", "--sentences", 3)
    assert set(line) == {"sentences", "of", "truncated"}
    assert len(run("summarize", model, tmp_path / "a.txt", "--document", "line")[0]) == 2
    (tmp_path / "b.jsonl").write_text('{"text": "Music. A red apple."}\n', encoding="utf-8")
    assert list(texts_of(tmp_path / "b.jsonl", "file")) == ["Music. A red apple."]


@pytest.mark.parametrize(
    ("words", "code"), [(["search", "--top", "0"], "E-C339"), (["summarize", "--sentences", "0"], "E-C340")]
)
def test_numbers_below_one(words: list[str], code: str, model: Path, notes: Path, monkeypatch: pytest.MonkeyPatch,
                           capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setattr("sys.argv", ["electra", words[0], str(model), str(notes), *words[1:]])
    with pytest.raises(SystemExit):
        cli.main()
    assert code in capsys.readouterr().err
