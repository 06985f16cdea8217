"""Relations: labels and what they mean, loss, head, predictions, and scores as the official scorer computes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from electra.build.finetune import FinetuneRecipe
from electra.build.sweep import finetune
from electra.cli import app
from electra.config import load as load_recipe
from electra.contracts import Example, Judgement, Prediction
from electra.data.grid import collate
from electra.errors import ElectraError
from electra.evaluate.examine import confusion
from electra.evaluate.run import evaluate_file
from electra.metrics import directed_macro_f1, micro_f1
from electra.models.classic import ClassicConfig
from electra.models.encoder import build_encoder
from electra.models.heads import ClassificationHead, PairHead
from electra.models.model_dir import Provenance, load_model_dir, save_model_dir
from electra.models.modern import ModernConfig
from electra.predict.predictor import load
from electra.tasks import task_config
from electra.tasks.relation import Relation, RelationConfig, relation_of
from electra.text.train_tokenizer import train as train_tokenizer

TOKENIZER = train_tokenizer(["rain causes floods, and a wheel of the car @ # * ^"] * 3, vocab_size=120)
SIZES: dict[str, Any] = {
    "vocab_size": TOKENIZER.vocab_size, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24,
}  # fmt: skip
CLASSIC, MODERN = ClassicConfig(embedding_size=8, max_position_embeddings=64, **SIZES), ModernConfig(**SIZES)
DIRECTED = ("Cause(e1,e2)", "Cause(e2,e1)", "Other", "Part(e1,e2)", "Part(e2,e1)")


def relation(*labels: str, **settings: Any) -> Relation:
    return Relation(RelationConfig(labels=labels or None, max_length=32, **settings), TOKENIZER)


def example(target: str | None, kind: str | None = None, line: int = 1) -> Example:
    given = {"head": (0, 4, kind), "tail": (12, 18, kind)}
    return Example(text="rain causes floods", target=target, where=f"train.tsv:{line}", given=given)


def judgements(task: Relation, pairs: list[tuple[str, str]]) -> list[Judgement]:
    """Of (gold, predicted)."""
    return [task.judge(example(gold), Prediction(text="", output={"label": said, "score": 1.0})) for gold, said in pairs]


# -- labels -------------------------------------------------------------------------------------------------------------


def test_labels_types_and_the_label_for_nothing_come_from_the_training_file() -> None:
    task = relation().fit([example(label, kind) for label, kind in (("b", None), ("NA", None), ("a", "city"), ("b", None))])
    assert (task.labels, task.none, task.config.types, task.directed) == (("NA", "a", "b"), "NA", True, False)
    untyped = relation().fit([example("a"), example("b")])
    assert (untyped.none, untyped.config.none, untyped.config.types) == (None, "", False)
    assert untyped.fit([example("a")]).labels == ("a", "b"), "once fitted, it only checks"


@pytest.mark.parametrize(
    ("labels", "none"),
    [(("Other", "a"), "Other"), (("no_relation", "Other"), "no_relation"), (("unknown", "合并"), "unknown"), (("a", "b"), None),
     (("NONE", "a"), "NONE"), (("another", "mother"), None)],
)  # fmt: skip
def test_the_label_for_no_relation_is_known_by_its_name(labels: tuple[str, ...], none: str | None) -> None:
    assert relation(*labels).none == none
    assert relation(*labels, none=labels[1]).none == labels[1]
    assert relation(*labels, none="").none is None


def test_a_label_names_a_relation_and_its_subject() -> None:
    assert relation_of("Cause-Effect(e1,e2)") == ("Cause-Effect", False)
    assert relation_of("Cause-Effect (e2, e1)") == ("Cause-Effect", True)
    assert relation_of("f(x)") == ("f(x)", False)
    assert relation_of("Same(e1,e1)") == ("Same(e1,e1)", False)


@pytest.mark.parametrize(
    ("targets", "message"),
    [((), "E-D310 training data"), (("a", "a"), r"E-D310 train\.tsv"), (("a", None), r"E-D311 train\.tsv:2: has no label"),
     (("a", ""), "E-D311")],
)  # fmt: skip
def test_a_training_file_without_two_relations_is_refused(targets: tuple[str | None, ...], message: str) -> None:
    with pytest.raises(ElectraError, match=message):
        relation().fit([example(target, line=line) for line, target in enumerate(targets, start=1)])


def test_an_unknown_relation_is_named_with_its_neighbour() -> None:
    with pytest.raises(ElectraError, match=r"E-D312 train\.tsv:1: label 'causes' .*nearest is 'cause'"):
        relation("cause", "part").fit([example("causes")])
    with pytest.raises(ElectraError, match="E-D380"):
        relation("cause", "part").fit([Example(text="rain", target="part")])
    with pytest.raises(ElectraError, match="E-C302"):
        _ = relation().labels


@pytest.mark.parametrize(
    ("tree", "code"),
    [({"labels": ["a"]}, "E-C300"), ({"labels": ["a", "b"], "none": "c"}, "E-C331"), ({"max_length": 15}, "E-C301"),
     ({"head": "both"}, "E-C004"), ({"pooling": "cls"}, "E-C004")],
)  # fmt: skip
def test_settings_are_checked(tree: dict[str, object], code: str) -> None:
    with pytest.raises(ElectraError, match=code):
        task_config({"type": "relation", **tree})


def test_task_json_builds_the_same_task_again() -> None:
    task = relation().fit([example(label, "city") for label in DIRECTED])
    again = task_config(task.to_json()).build(TOKENIZER)
    assert isinstance(again, Relation)
    assert (again.config, again.none) == (task.config, "Other")


# -- numbers ------------------------------------------------------------------------------------------------------------


def test_types_are_shown_only_if_the_task_was_trained_with_them() -> None:
    def tokens(types: bool) -> list[int]:
        [row] = relation("a", "b", types=types).encode(example(None, "city"))
        return row.tokens.tolist()

    assert len(tokens(True)) > len(tokens(False))
    assert tokens(False) == relation("a", "b", types=True).encode(example(None))[0].tokens.tolist()


@pytest.mark.parametrize("config", [CLASSIC, MODERN], ids=lambda config: config.type)
def test_the_head_reads_both_markers_in_either_layout(config: ClassicConfig | ModernConfig) -> None:
    task = relation(*DIRECTED)
    torch.manual_seed(0)
    encoder = build_encoder(config)
    head = task.head(encoder).eval()
    assert isinstance(head, PairHead)
    other = Example(text="a wheel of the car", given={"head": (15, 18, None), "tail": (2, 7, None)})
    rows = [row for one in (example("Other"), other) for row in task.encode(one)]
    padded, packed = (collate(rows, 32, TOKENIZER.pad_id, packed=packed) for packed in (False, True))
    hidden_BLD = torch.randn(2, 32, 16)
    hidden_TD = torch.cat([hidden_BLD[number, : len(row.tokens)] for number, row in enumerate(rows)])
    scores = head(hidden_BLD, padded)
    torch.testing.assert_close(scores, head(hidden_TD, packed))
    places = [(int(row.targets["head"]), int(row.targets["tail"])) for row in rows]
    by_hand = torch.stack([torch.cat([hidden_BLD[n, first], hidden_BLD[n, last]]) for n, (first, last) in enumerate(places)])
    torch.testing.assert_close(scores, head.scores(by_hand))
    mark = TOKENIZER.encode("@").ids[1]
    assert [int(row.tokens[first]) for row, (first, _) in zip(rows, places, strict=True)] == [mark, mark]


def test_the_loss_is_the_sum_over_labelled_examples() -> None:
    task = relation("a", "b", "none")
    batch = collate([row for label in ("b", "none", None) for row in task.encode(example(label))], 32, TOKENIZER.pad_id)
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0], [9.0, 0.0, 0.0]], requires_grad=True)
    losses = task.loss(logits, batch)
    expected = -(torch.log_softmax(logits[0], 0)[1] + torch.log_softmax(logits[1], 0)[2])
    torch.testing.assert_close(losses.terms["relation"].total, expected)
    assert {name: float(total) for name, total in losses.totals.items()} == {
        "examples": 2.0, "accuracy": 1.0, "loss": pytest.approx(float(expected.detach())),
    }  # fmt: skip


def test_predictions_show_label_score_and_both_mentions() -> None:
    task = relation("a", "b")
    asked = example(None, "city")
    output = task.decode(asked, task.encode(asked), [torch.tensor([0.0, 1.0])]).output
    assert output == {
        "label": "b", "score": pytest.approx(1 / (1 + 2.718281828**-1)),
        "head": {"word": "rain", "start": 0, "end": 4, "type": "city"},
        "tail": {"word": "floods", "start": 12, "end": 18, "type": "city"},
    }  # fmt: skip


# -- scores -------------------------------------------------------------------------------------------------------------

#: gold, predicted, how often; worked out by hand below
CASE = [
    ("Cause(e1,e2)", "Cause(e1,e2)", 3), ("Cause(e1,e2)", "Cause(e2,e1)", 1), ("Cause(e2,e1)", "Other", 1),
    ("Part(e1,e2)", "Part(e1,e2)", 2), ("Part(e2,e1)", "Cause(e2,e1)", 1), ("Other", "Part(e1,e2)", 2), ("Other", "Other", 5),
]  # fmt: skip


def test_scores_are_those_of_the_official_scorer() -> None:
    """Cause: right 3, predicted 3 + 1 from Part, wrong direction 1, gold 5: P 3/5, R 3/5, F1 0.6.
    Part: right 2, predicted 2 + 2 from Other, gold 3: P 2/4, R 2/3, F1 4/7. Other does not count, nor does its absence."""
    task = relation(*DIRECTED)
    scores = task.score(judgements(task, [(gold, said) for gold, said, times in CASE for _ in range(times)]))
    assert list(scores) == ["macro_f1", "micro_f1", "accuracy"]
    assert scores["macro_f1"] == pytest.approx((0.6 + 4 / 7) / 2)
    assert scores["micro_f1"] == pytest.approx(2 * 5 / (9 + 8))
    assert scores["accuracy"] == pytest.approx(10 / 15)


def test_a_wrong_direction_hurts_precision_and_recall_and_relations_absent_from_gold_do_not_count() -> None:
    families = {label: relation_of(label)[0] for label in DIRECTED if label != "Other"}
    turned = directed_macro_f1(["Cause(e1,e2)"] * 4, ["Cause(e1,e2)"] * 3 + ["Cause(e2,e1)"], families)
    assert turned == pytest.approx(0.75), "precision 3/4, recall 3/4"
    assert directed_macro_f1(["Cause(e1,e2)"], ["Part(e1,e2)"], families) == 0.0
    assert directed_macro_f1(["Cause(e1,e2)", "Other"], ["Cause(e1,e2)", "Part(e1,e2)"], families) == 1.0
    assert directed_macro_f1(["Other"], ["Other"], families) == 0.0


def official(gold: list[str], predicted: list[str]) -> float:
    """The scorer's own way (v1.2): a confusion matrix of relations in which a wrong direction is a column of its own."""
    pairs = [(relation_of(is_), relation_of(said)) for is_, said in zip(gold, predicted, strict=True)]
    found = []
    for name in {is_ for (is_, _), _ in pairs} - {"Other"}:
        turned = sum(is_[0] == said[0] == name and is_ != said for is_, said in pairs)
        right = sum(is_[0] == name and is_ == said for is_, said in pairs)
        proposed = sum(said[0] == name for _, said in pairs) - turned
        precision = right / (proposed + turned) if proposed else 0.0
        recall = right / sum(is_[0] == name for is_, _ in pairs)
        found.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return sum(found) / len(found) if found else 0.0


@given(st.lists(st.tuples(st.sampled_from(DIRECTED), st.sampled_from(DIRECTED)), max_size=30))
def test_macro_f1_is_that_of_the_scorer_for_any_answers(pairs: list[tuple[str, str]]) -> None:
    families = {label: relation_of(label)[0] for label in DIRECTED if label != "Other"}
    gold, predicted = [gold for gold, _ in pairs], [said for _, said in pairs]
    assert directed_macro_f1(gold, predicted, families) == pytest.approx(official(gold, predicted))


def test_micro_f1_leaves_out_what_is_no_relation() -> None:
    assert micro_f1(["a", "none", "b", "none"], ["a", "b", "none", "none"], {"a", "b"}) == pytest.approx(0.5)
    assert micro_f1(["none"], ["none"], {"a"}) == 0.0


@pytest.mark.parametrize(
    ("labels", "names"),
    [(DIRECTED, ["macro_f1", "micro_f1", "accuracy"]), (("a", "none"), ["micro_f1", "macro_f1", "accuracy"]),
     (("a", "b"), ["accuracy", "macro_f1", "micro_f1"])],
)  # fmt: skip
def test_the_main_score_depends_on_the_labels(labels: tuple[str, ...], names: list[str]) -> None:
    task = relation(*labels)
    assert list(task.score(judgements(task, [(labels[0], labels[0])]))) == names


# -- files and models ---------------------------------------------------------------------------------------------------

SEMEVAL = """1\t"The <e1>rain</e1> causes <e2>floods</e2>."
Cause(e1,e2)
Comment:

2\t"The <e1>floods</e1> and the <e2>rain</e2>."
{}

3\t"A <e1>wheel</e1> of the <e2>car</e2>."
Other
"""


def test_the_notes_of_a_training_file_say_what_its_labels_mean(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text(SEMEVAL.format("Cause(e2,e1)"), encoding="utf-8")
    reading = relation().read(path)
    examples = list(reading.examples)
    assert "3 labels, directed; 'Other' means no relation; mentions have no types; main metric macro_f1" in reading.notes
    fitted = relation().fit(examples).read(path)
    assert len(list(fitted.examples)) == 3
    assert not any("means" in note for note in fitted.notes), "nothing was inferred"


def _sentences(path: Path) -> Path:
    """Whoever stands first has a relation that the word between them tells."""
    people, verbs = ["rain", "wheel", "car", "floods"], {"causes": "Cause(e1,e2)", "of": "Cause(e2,e1)", "and": "Other"}
    lines = [
        f'{number}\t"the <e1>{first}</e1> {verb} <e2>{second}</e2>"\n{label}\n'
        for number, (first, second, (verb, label)) in enumerate(
            (first, second, item) for first in people for second in people if first != second for item in verbs.items()
        )
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("head", ["mentions", "cls"])
def test_a_small_file_is_learnt_and_the_saved_model_says_the_same(head: str, tmp_path: Path) -> None:
    data, source = _sentences(tmp_path / "train.txt"), tmp_path / "source"
    torch.manual_seed(0)
    save_model_dir(source, encoder=build_encoder(CLASSIC), provenance=Provenance(tokenizer=TOKENIZER, card=str))
    settings = ["task=relation", f"task.head={head}", "task.max_length=32", f"init.from={source}", f"data.train={data}",
                f"run.dir={tmp_path / 'run'}", "epochs=25", "optimizer.lr=1e-2", "optimizer.layer_decay=1.0",
                "batch.examples=12"]  # fmt: skip
    model = finetune(load_recipe(FinetuneRecipe, [], settings))
    found = evaluate_file(model, data)
    assert found["metrics"]["macro_f1"] > 0.9, found  # type: ignore[index]
    assert (model / "head.safetensors").is_file() == (head == "mentions")
    card = (model / "README.md").read_text(encoding="utf-8")
    assert ("No class of transformers has this head" in card) == (head == "mentions")
    saved = load_model_dir(model)
    assert (saved.task_head is None) == (head == "mentions")
    assert type(load(model).network.head) is (PairHead if head == "mentions" else ClassificationHead)
    shown = CliRunner().invoke(app, ["predict", str(model), str(data), "--format", "text"], catch_exceptions=False).stdout
    assert [line.split(" | ")[0] for line in shown.splitlines()][::9] == ["rain", "wheel", "car", "floods"]
    right = [found["confusion"][number][number] for number in range(3)]  # type: ignore[index]
    assert sum(right) >= 32


def test_confusion_counts_no_relation_under_its_name() -> None:
    task = relation("a", "none")
    assert confusion(task.labels, judgements(task, [("none", "a"), ("a", "a")]))[1] == [[1, 0], [1, 0]]
