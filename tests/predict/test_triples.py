"""Text to knowledge graph: sentences, pairs, triples, what is merged, and the files that come out."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from electra.contracts import Batch, Encoded, Example, Mention, Prediction, Reading
from electra.errors import ElectraError
from electra.evaluate.triples import evaluate_triples, gold_of, scores
from electra.predict.graph import KnowledgeGraph
from electra.predict.predictor import Predictor
from electra.predict.triples import TripleFinder, sentences
from electra.tasks.readers import read_tags
from electra.tasks.relation import Relation, RelationConfig
from electra.text.train_tokenizer import train as train_tokenizer

TOKENIZER = train_tokenizer(["Ann met Bob in Paris. @ # * ^"] * 3, vocab_size=120)
UNDIRECTED, DIRECTED = ("likes", "none", "hates"), ("Owner(e1,e2)", "Owner(e2,e1)", "Other")


class Silent(nn.Module):
    """A network that says nothing: the tasks here answer by rules."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, batch: Batch) -> Tensor:
        return torch.zeros(len(batch.tokens), 3)


class Capitals:
    """A tagger by rule: capital words are persons, those of all capitals firms."""

    max_length, per_token, pad_id = 16, False, TOKENIZER.pad_id

    def read(self, path: Path) -> Reading:
        return read_tags(path)

    def encode(self, example: Example) -> list[Encoded]:
        two = np.array([TOKENIZER.cls_id, TOKENIZER.sep_id], dtype=np.int64)
        return [Encoded(tokens=two, types=np.zeros_like(two))]

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        entities = [
            {"entity_group": "ORG" if found[0].isupper() else "PER", "score": 1.0, "word": found[0], "start": found.start(),
             "end": found.end()}
            for found in re.finditer(r"\b[A-Z]\w+", example.text)
        ]  # fmt: skip
        return Prediction(text=example.text, output={"entities": entities})


class Verbs(Relation):
    """Says what the words between head and tail say, and 0.5 for every character of the sentence in hundredths."""

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        (head, end, _), (tail, _, _) = example.given["head"], example.given["tail"]
        self.asked = [*getattr(self, "asked", []), (example.text[head:end], example.text[tail:][:3], example.where)]
        between = example.text[end:tail] if head < tail else ""
        known = {"likes": "likes", "hates": "hates", "owns": "Owner(e1,e2)", "belongs to": "Owner(e2,e1)"}
        label = next((label for verb, label in known.items() if verb in between and label in self.labels), self.none)
        return Prediction(text=example.text, output={"label": label, "score": len(example.text) / 100})


def finder(*labels: str) -> TripleFinder:
    relation = Verbs(RelationConfig(labels=labels or UNDIRECTED, max_length=32), TOKENIZER)
    return TripleFinder(Predictor(Silent(), relation), Predictor(Silent(), Capitals()))


def graph_of(*texts: str, labels: Sequence[str] = ()) -> KnowledgeGraph:
    graph = KnowledgeGraph()
    for found in finder(*labels).find(Example(text=text, where=f"news.txt:{line}") for line, text in enumerate(texts, start=1)):
        graph.add(found)
    return graph


def said(graph: KnowledgeGraph) -> list[tuple[str, str, str]]:
    return [(one["subject"]["label"], one["relation"], one["object"]["label"]) for one in graph.triples()]


# -- sentences ----------------------------------------------------------------------------------------------------------


def test_sentences_end_at_full_stops_but_not_within_mentions_or_before_small_letters() -> None:
    text = "Ann met U.S. Steel. Apple Inc. bought it! 他走了。她来了"
    steel = Mention(start=8, end=18, label="ORG")
    parts = [text[start:end] for start, end in sentences(text, [steel])]
    assert parts == ["Ann met U.S. Steel.", " Apple Inc. bought it!", " 他走了。", "她来了"]
    assert next(text[start:end] for start, end in sentences(text, [])) == "Ann met U.S."


@given(st.text(alphabet="aA.。! \n", max_size=40), st.lists(st.tuples(st.integers(0, 39), st.integers(1, 9)), max_size=5))
def test_sentences_are_the_text_and_no_mention_lies_in_two(text: str, places: list[tuple[int, int]]) -> None:
    mentions = [
        Mention(start=start, end=min(len(text), start + size), label="X") for start, size in sorted(places) if start < len(text)
    ]
    found = sentences(text, mentions)
    assert "".join(text[start:end] for start, end in found) == text
    assert all(end == start for (_, end), (start, _) in pairwise(found))
    assert all(start < end for start, end in found)
    for one in mentions:
        assert sum(start <= one.start and one.end <= end for start, end in found) == 1


# -- pairs and triples --------------------------------------------------------------------------------------------------


def test_every_ordered_pair_of_a_sentence_is_asked_and_no_other() -> None:
    asked = finder()
    [found] = asked.find([Example(text="Ann likes Bob and Cid. Dan hates Eve.", where="x:7")])
    assert (found.sentences, found.pairs, len(found.mentions)) == (2, 6 + 2, 5)
    pairs = {(head, tail) for head, tail, _ in asked.task.asked}  # type: ignore[attr-defined]
    assert pairs == {(a, b) for a in ("Ann", "Bob", "Cid") for b in ("Ann", "Bob", "Cid") if a != b} | {
        ("Dan", "Eve"),
        ("Eve", "Dan"),
    }


def test_directed_labels_are_asked_once_in_the_order_of_the_text_and_name_the_subject() -> None:
    graph = graph_of("Ann owns ACME.", "BIGCO belongs to Bob.", "Cid met Dan.", labels=DIRECTED)
    assert said(graph) == [("Ann", "Owner", "ACME"), ("Bob", "Owner", "BIGCO")]
    assert graph.summary()["pairs"] == 3


def test_texts_are_answered_in_order_however_many_there_are() -> None:
    names = ["Ann", "Bob", "Cid"]
    texts = [f"{names[number % 3]} likes Dan." if number % 2 else "nothing here" for number in range(700)]
    found = list(finder().find(Example(text=text, where=f"f:{number}") for number, text in enumerate(texts)))
    assert [one.example.text for one in found] == texts
    assert [len(one.triples) for one in found] == [number % 2 for number in range(700)]
    subjects = [one.triples[0].subject for one in found if one.triples]
    assert all((mention.start, mention.end) == (0, 3) for mention in subjects)


def test_offsets_are_those_of_the_text_not_of_the_sentence() -> None:
    graph = graph_of("It rained. Ann likes Bob.")
    [triple] = graph.triples()
    [evidence] = triple["evidence"]
    assert evidence == {
        "file": "news.txt", "line": 1, "sentence": "Ann likes Bob.", "score": 0.15,
        "subject": {"word": "Ann", "start": 11, "end": 14}, "object": {"word": "Bob", "start": 21, "end": 24},
    }  # fmt: skip


# -- merging and files --------------------------------------------------------------------------------------------------


def test_mentions_with_one_surface_and_type_are_one_node_and_equal_triples_one_with_all_their_evidence() -> None:
    graph = graph_of("Ann likes Bob.", "Yesterday it was Ann who hates BOB.", "Bob hates Ann.", "Today Ann likes Bob.")
    assert [(node.label, node.type, node.mentions) for node in graph.nodes.values()][:2] == [
        ("Ann", "PER", 4),
        ("Bob", "PER", 3),
    ]
    assert ("BOB", "ORG") in [(node.label, node.type) for node in graph.nodes.values()], "another type is another node"
    assert said(graph)[0] == ("Ann", "likes", "Bob")
    first = next(graph.triples())
    assert [one["line"] for one in first["evidence"]] == [1, 4]
    assert first["score"] == max(one["score"] for one in first["evidence"]) == 0.2
    summary = graph.summary()
    assert (summary["texts"], summary["relations"], summary["triples"]) == (
        4,
        len([1 for one in graph.triples() for _ in one["evidence"]]),
        len(said(graph)),
    )
    assert summary["mentions"] == sum(node.mentions for node in graph.nodes.values())


def test_the_graph_loads_in_networkx_and_has_the_same_bytes_every_time(tmp_path: Path) -> None:
    texts = ["Ann likes Bob & <Cid>.", "Ann hates Bob.", "Zoe \x00\ud800 likes Bob.", "Alone stood Max."]
    graph_of(*texts).write_graphml(tmp_path / "one.graphml")
    graph_of(*texts).write_graphml(tmp_path / "two.graphml")
    assert (tmp_path / "one.graphml").read_bytes() == (tmp_path / "two.graphml").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.graphml", "two.graphml"]
    loaded = nx.read_graphml(tmp_path / "one.graphml", force_multigraph=True)
    labels = nx.get_node_attributes(loaded, "label")
    assert set(labels.values()) == {"Ann", "Bob", "Cid", "Zoe", "Alone", "Max"}, "whoever was mentioned"
    edges = {(labels[a], data["relation"], labels[b]): data for a, b, data in loaded.edges(data=True)}
    assert {("Ann", "likes", "Bob"), ("Ann", "hates", "Bob"), ("Zoe", "likes", "Bob")} <= set(edges)
    evidence = json.loads(edges[("Zoe", "likes", "Bob")]["evidence"])
    assert (evidence[0]["line"], edges[("Zoe", "likes", "Bob")]["count"]) == (3, 1)
    with pytest.raises(ElectraError, match="E-R002"):
        graph_of(*texts).write_graphml(tmp_path / "one.graphml" / "below")


def test_models_of_other_kinds_are_refused() -> None:
    tagger = Predictor(Silent(), Capitals())
    with pytest.raises(ElectraError, match="E-M326"):
        TripleFinder(tagger, tagger)
    relation = finder().relation
    example = Example(text="Ann", given={"head": (0, 1, None), "tail": (1, 2, None)})
    with pytest.raises(ElectraError, match="E-M327 tagger: finds no entities, only label, score"):
        list(TripleFinder(relation, relation).find([example]))


# -- the verbs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models by name."""
    made = finder()
    models = {"relation": made.relation, "tagger": made.tagger}
    monkeypatch.setattr("electra.predict.triples.load", lambda path: models[str(path)])


@pytest.mark.usefixtures("loaded")
def test_predict_with_a_tagger_prints_triples_and_writes_the_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from electra.cli import app

    text, graph = tmp_path / "news.txt", tmp_path / "out.graphml"
    text.write_text("Ann likes Bob.\nBob hates Ann. Ann hates Cid.\n", encoding="utf-8")
    command = ["predict", "relation", str(text), "--tagger", "tagger", "--graph", str(graph)]
    outcome = CliRunner().invoke(app, command, catch_exceptions=False)
    lines = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert [(one["subject"]["label"], one["relation"], one["object"]["label"]) for one in lines] == [
        ("Ann", "likes", "Bob"), ("Bob", "hates", "Ann"), ("Ann", "hates", "Cid"),
    ]  # fmt: skip
    assert lines[2]["evidence"][0]["line"] == 2
    assert text.read_text(encoding="utf-8").splitlines()[1][15:][:3] == lines[2]["evidence"][0]["subject"]["word"]
    assert "texts 2, sentences 3, mentions 6, pairs 6, relations 3" in outcome.stderr
    assert nx.read_graphml(graph).number_of_edges() == 3
    people = CliRunner().invoke(app, [*command[:5], "--format", "text"], catch_exceptions=False)
    assert people.stdout.splitlines()[0] == f"Ann | likes | Bob  0.140  {text}:1"
    for wrong in (["predict", "m", "--graph", "g"], ["predict", "m", "--tagger", "t", "--task", "replaced"]):
        with pytest.raises(ElectraError, match="E-C334"):
            CliRunner().invoke(app, wrong, catch_exceptions=False)


# -- scores -------------------------------------------------------------------------------------------------------------


def relation_file(path: Path, rows: list[tuple[str, str, str, str]]) -> Path:
    """JSON lines of (head, relation, tail, sentence)."""
    lines = []
    for head, relation, tail, text in rows:
        places = {
            role: {"start": text.index(word), "end": text.index(word) + len(word)}
            for role, word in (("head", head), ("tail", tail))
        }
        lines.append(json.dumps({"text": text, **places, "relation": relation}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.usefixtures("loaded")
def test_triples_are_scored_strictly_against_relation_data(tmp_path: Path) -> None:
    rows = [
        ("Ann", "likes", "Bob", "Ann likes Bob."),  # found
        ("Cid", "likes", "Dan", "Cid hates Dan."),  # another relation is found
        ("Eve", "none", "Fay", "Eve likes Fay."),  # one is found where there is none
        ("Gus", "hates", "ivy", "Gus hates ivy."),  # a mention is missed
        ("Bob", "none", "Ann", "Ann likes Bob."),  # a second row of the first sentence
    ]
    found: Any = evaluate_triples(Path("relation"), Path("tagger"), relation_file(tmp_path / "test.jsonl", rows))
    assert found["sentences"] == 4
    counts = {name: found["counts"][name] for name in ("gold_triples", "predicted_triples", "right_triples", "pairs")}
    assert counts == {"gold_triples": 3, "predicted_triples": 3, "right_triples": 1, "pairs": 6}
    assert next(iter(found["metrics"])) == "triple_f1"
    assert found["metrics"]["triple_f1"] == found["metrics"]["triple_precision"] == pytest.approx(1 / 3)
    assert found["metrics"]["mention_recall"] == pytest.approx(7 / 8)
    assert found["metrics"]["mention_precision"] == 1.0


def test_types_count_where_the_data_has_them() -> None:
    example = Example(text="Ann likes Bob.", target="likes", given={"head": (0, 3, "PER"), "tail": (10, 13, "ORG")})
    right = Example(text="Ann likes Cid.", target="likes", given={"head": (0, 3, "PER"), "tail": (10, 13, "PER")})
    asked = finder()
    found = scores(asked, gold_of(asked.task, [example, right]))
    assert found["metrics"]["triple_f1"] == 0.5
    assert found["metrics"]["mention_f1"] == 0.75


def test_a_turned_label_makes_the_tail_the_subject() -> None:
    asked = finder(*DIRECTED)
    given_ = {"head": (0, 5, None), "tail": (17, 20, None)}
    gold = gold_of(asked.task, [Example(text="BIGCO belongs to Bob.", target="Owner(e2,e1)", given=given_)])
    assert gold["BIGCO belongs to Bob."].triples == {((17, 20, None), "Owner", (0, 5, None))}
    assert scores(asked, gold)["metrics"]["triple_f1"] == 1.0
