"""Answers from a folder of texts: passages, ranking, exact places, and a clear word where nothing is found."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from electra import cli
from electra.contracts import Example
from electra.data.grid import collate
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.encoder import build_encoder
from electra.models.heads import RtdHead
from electra.models.model_dir import Provenance, load_model_dir, save_model_dir
from electra.objectives.supervised import Supervised
from electra.predict.documents import Passage, _cut, answer, bm25, read_documents, terms
from electra.predict.predictor import Predictor, load
from electra.tasks.span import Span, SpanConfig
from electra.text.train_tokenizer import train as train_tokenizer

pytest.importorskip("bm25s")

TEXTS = {
    "bridge.txt": "The old bridge crosses the river.\r\n\r\nIt was opened in 1931 by the mayor.\r\n",
    "deep/letter.md": "# A letter\n\nThe captain wrote a letter from Paris.\n",
    "zh.txt": "\ufeff图书馆在湖边。\n\n馆长是王芳。\n",
    "empty.txt": " \n",
}
QUESTIONS = {"when was the bridge opened": "1931", "where was the letter wrote": "Paris", "谁是馆长": "王芳"}
PROVENANCE = Provenance(
    tokenizer=train_tokenizer([*TEXTS.values(), *QUESTIONS] * 3, vocab_size=200), card=lambda: "# Answers\n"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("documents")
    for name, text in TEXTS.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(text.encode())
    (place / "picture.png").write_bytes(b"\xff\xfe")
    (place / ".hidden.txt").write_bytes(b"\xff")
    return place


@pytest.fixture(scope="module")
def model(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt the three answers, and that the other texts have none, by heart."""
    torch.manual_seed(0)
    passages = read_documents(folder).passages
    examples = [
        Example(text=question, pair=one.text, target=((one.text.index(right), right),) if right in one.text else ())
        for question, right in QUESTIONS.items() for one in passages
    ]  # fmt: skip
    task = Span(SpanConfig(max_length=96), PROVENANCE.tokenizer).fit(examples)
    config = ClassicConfig(
        vocab_size=PROVENANCE.tokenizer.vocab_size, embedding_size=16, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=48, max_position_embeddings=96, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    objective = Supervised(build_encoder(config), task, PROVENANCE)
    rows = [row for example in examples for row in task.encode(example)]
    batch = collate(rows, max(len(row.tokens) for row in rows), PROVENANCE.tokenizer.pad_id)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=5e-3)
    for _ in range(60):
        task.loss(objective.model(batch), batch).terms["span"].total.backward()
        optimizer.step()
        optimizer.zero_grad()
    place = tmp_path_factory.mktemp("model") / "model"
    objective.export(place)
    return place


def test_passages_are_parts_of_their_files(folder: Path) -> None:
    documents = read_documents(folder)
    assert (documents.files, documents.others) == (4, 1)
    assert [passage.file.name for passage in documents.passages] == ["bridge.txt", "letter.md", "zh.txt"]
    for passage in documents.passages:
        whole = passage.file.read_bytes().decode()
        assert whole[passage.start :].startswith(passage.text)


@given(st.text(alphabet="ab 。.\n北京", max_size=60).map(lambda text: text * 60))
def test_texts_are_cut_without_gaps_and_no_part_is_too_long(text: str) -> None:
    parts = list(_cut(text))
    assert "".join(text[start:end] for start, end in parts) == text
    for start, end in parts:
        assert end - start <= 1000
        assert sum(3 if character in "北京" else 1 for character in text[start:end]) <= 1000


def test_texts_are_cut_at_paragraphs_before_lines_before_sentences() -> None:
    sentence, filler = "Some words. ", "x" * 700
    assert next(_cut(f"{filler}\n\nline\n{sentence * 40}"))[1] == 702
    assert next(_cut(f"{filler}\n{sentence * 40}"))[1] == 701
    assert next(_cut(sentence * 200))[1] == 83 * len(sentence)
    assert next(_cut("北京。" * 300))[1] % 3 == 0


def test_terms_are_words_or_characters_with_their_pairs() -> None:
    assert terms("The ＣＰＵ's clock, 3.5 GHz") == ["the", "cpu", "s", "clock", "3", "5", "ghz"]
    assert terms("在北京2008年") == ["在", "北", "京", "在北", "北京", "2008", "年"]
    assert terms("?! ") == []


def test_the_ranking_prefers_rare_words_and_leaves_out_what_shares_none() -> None:
    texts = ["the cat", "the dog and the cat", "a bird", "图书馆在湖边", "湖"]
    rank = bm25([Passage(file=Path("a"), start=0, text=text) for text in texts])
    assert rank("the dog", 5)[0] == 1
    assert set(rank("cat", 5)) == {0, 1}
    assert rank("图书馆", 5) == [3]
    assert rank("cat", 1) == [0]
    assert rank("nothing of it", 5) == rank("", 5) == []


def test_answers_stand_where_they_are_said_to_stand(folder: Path, model: Path) -> None:
    passages = read_documents(folder).passages
    said = list(answer(load(model), passages, bm25(passages), [*QUESTIONS, "xylophone", "mayor"], 3))
    for prediction, right in zip(said, QUESTIONS.values(), strict=False):
        output = prediction.output
        assert output["answer"] == right
        text = Path(str(output["file"])).read_bytes().decode()
        assert text[slice(output["start"], output["end"])] == right
        assert isinstance(output["n_best"], list)
        assert output["n_best"][0] == {name: output[name] for name in ("answer", "score", "file", "start", "end")}
    assert said[3].output == {"answer": "", "score": 0.0, "file": None, "start": None, "end": None, "n_best": [],
                              "note": "no passage shares a word with the question"}  # fmt: skip


def test_any_function_that_ranks_will_do(folder: Path, model: Path) -> None:
    passages = read_documents(folder).passages
    [said] = answer(load(model), passages, lambda question, number: [1, 0], ["when was the bridge opened"], 2)
    assert said.output["answer"] == "1931"
    [nothing] = answer(load(model), passages, lambda question, number: [1], ["when was the bridge opened"], 1)
    assert nothing.output["note"] == "none of the 1 passages that were read answers it"


def test_what_is_wrong_with_the_folder_or_the_model_is_said(folder: Path, model: Path, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(ElectraError, match="E-C327"):
            read_documents(place)
    (tmp_path / "latin.txt").write_bytes(b"a\nb\xe9")
    with pytest.raises(ElectraError, match=r"E-D377 .*latin\.txt:2"):
        read_documents(tmp_path)
    with pytest.raises(ElectraError, match="E-C329"):
        answer(load(model), [], lambda question, number: [], [], 0)
    encoder = load_model_dir(model).encoder
    save_model_dir(tmp_path / "rtd", encoder=encoder, head=RtdHead(encoder.config), provenance=PROVENANCE)
    with pytest.raises(ElectraError, match="E-C328"):
        answer(load(tmp_path / "rtd", "replaced"), [], lambda question, number: [], [], 5)
    assert isinstance(load(model), Predictor)


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["electra", "predict", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return (int(str(ended.value.code)), *capsys.readouterr())


def test_on_the_command_line(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = tmp_path / "questions.txt"
    questions.write_text("\n".join(QUESTIONS) + "\n", encoding="utf-8")
    code, out, err = run(monkeypatch, capsys, str(model), str(questions), "--documents", str(folder), "--top", "2")
    assert code == 0
    assert [json.loads(line)["answer"] for line in out.splitlines()] == list(QUESTIONS.values())
    assert "4 files in 3 passages; 1 files of other kinds left out" in err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("谁是馆长\n".encode())))
    code, out, _ = run(monkeypatch, capsys, str(model), "--documents", str(folder), "--format", "text")
    assert code == 0
    assert "王芳" in out
    assert "zh.txt, characters 13 to 15" in out
    code, _, err = run(monkeypatch, capsys, str(model), str(questions), "--top", "2")
    assert (code, "E-C329" in err) == (2, True)
    code, _, err = run(monkeypatch, capsys, str(model), str(questions))
    assert (code, "E-D376" in err) == (3, True)
