"""Numbers: the range, the loss in it, predictions in the units of the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from electra.contracts import Example
from electra.data.grid import collate
from electra.errors import ElectraError
from electra.evaluate.examine import figures
from electra.evaluate.run import evaluate_file
from electra.tasks import task_config
from electra.tasks.classify import Classify, ClassifyConfig
from electra.tasks.common import learnt
from electra.tasks.regression import Regression, RegressionConfig
from electra.text.train_tokenizer import train as train_tokenizer

TOKENIZER = train_tokenizer(["a good film", "a bad film"] * 3, vocab_size=80)
TASK = Regression(RegressionConfig(range=(1.0, 5.0), max_length=16), TOKENIZER)


def rated(*numbers: object) -> list[Example]:
    return [Example(text="a good film", target=number, where=f"train.tsv:{n}") for n, number in enumerate(numbers, start=2)]


@pytest.mark.parametrize(
    ("targets", "kind"),
    [
        (["3.800", "5.000", "0.500"], "regression"),  # STS-B
        ([3.5, "4", 1.25], "regression"),  # JSON's 3.5, 4, 1.25
        (["-1.5e0", "2"], "regression"),
        (["0", "1", "1"], "classify"),
        (["1", "2", "3", "4", "5"], "classify"),
        (["1.0", "0.0", "1.0"], "classify"),  # labels that went through a table of floats
        (["3.8", "good"], "classify"),
        (["0.5", "nan"], "classify"),
    ],
)
def test_numbers_with_fractions_make_it_a_regression(targets: list[object], kind: str) -> None:
    fitted = Classify(ClassifyConfig(max_length=16), TOKENIZER).fit(rated(*targets))
    assert fitted.to_json()["type"] == kind
    assert fitted.max_length == 16


def test_what_was_inferred_is_said() -> None:
    before = Classify(ClassifyConfig(), TOKENIZER)
    [note] = learnt(before, before.fit(rated("0.5", "4.5")))
    assert 'task.type = "regression"' in note
    assert "task.range = [0.5, 4.5]" in note
    assert learnt(TASK, TASK.fit(rated("2"))) == ["from the training file: task.pairs = false"]
    assert learnt(TASK.fit(rated("2")), TASK.fit(rated("2"))) == []


def test_named_labels_stay_labels() -> None:
    fitted = Classify(ClassifyConfig(labels=("0.5", "1.5")), TOKENIZER).fit(rated("0.5", 1.5))
    assert fitted.labels == ("0.5", "1.5")


def test_the_range_is_that_of_the_training_file_or_of_the_setting() -> None:
    fresh = Regression(RegressionConfig(), TOKENIZER)
    assert fresh.fit(rated("2", "3.5", "-1")).config.range == (-1.0, 3.5)
    assert TASK.fit(rated("2", "7")).config.range == (1.0, 5.0)
    with pytest.raises(ElectraError, match="E-C302"):
        fresh.encode(Example(text="x"))


@pytest.mark.parametrize(
    ("targets", "code"),
    [(["1", "bad"], r"E-D395 train\.tsv:3: label 'bad'"), (["1", "inf"], "E-D395"), (["1", None], r"E-D311 train\.tsv:3"),
     (["1", ""], "E-D311"), (["2", "2.0"], "E-D396"), ([], "E-D396"), (["1", ("a",)], "E-D395")],
)  # fmt: skip
def test_what_cannot_be_learnt_is_refused(targets: list[object], code: str) -> None:
    with pytest.raises(ElectraError, match=code):
        Regression(RegressionConfig(), TOKENIZER).fit(rated(*targets))


@pytest.mark.parametrize("tree", [{"range": [2, 2]}, {"range": [3, 1]}, {"labels": ["a"]}, {"metric": "accuracy"}])
def test_settings_are_checked(tree: dict[str, object]) -> None:
    with pytest.raises(ElectraError, match=r"E-C346|E-C004"):
        task_config({"type": "regression", **tree})


def test_the_loss_is_the_squared_error_within_the_range() -> None:
    rows = [row for one in rated("1", "3", 5.0) for row in TASK.encode(one)]
    batch = collate(rows, 16, TOKENIZER.pad_id)
    assert batch.targets["number"].tolist() == [0.0, 0.5, 1.0]
    losses = TASK.loss(torch.tensor([[0.5], [0.5], [0.0]]), batch)
    assert float(losses.terms["regression"].total) == 0.25 + 0 + 1
    assert losses.terms["regression"].unit == "examples"


def test_predictions_and_scores_are_in_the_units_of_the_file() -> None:
    examples = rated("1", "2", "5")
    outputs = [torch.tensor([out]) for out in (0.0, 0.5, 1.1)]
    predictions = [TASK.decode(one, TASK.encode(one), [out]) for one, out in zip(examples, outputs, strict=True)]
    assert [prediction.output for prediction in predictions] == [{"score": pytest.approx(score)} for score in (1.0, 3.0, 5.4)]
    scores = figures(TASK, [TASK.judge(one, said) for one, said in zip(examples, predictions, strict=True)])
    assert list(scores) == ["spearman", "pearson", "mean_absolute_error", "collapsed"]
    assert scores["spearman"] == pytest.approx(1.0)
    assert scores["mean_absolute_error"] == pytest.approx((0 + 1 + 0.4) / 3)


def test_task_json_builds_the_same_task_again() -> None:
    again = task_config(json.loads(json.dumps(TASK.to_json()))).build(TOKENIZER)
    assert isinstance(again, Regression)
    assert again.config == TASK.config


def test_from_file_to_figures(tmp_path: Path) -> None:
    """Fine-tuned as `classify`, exported, evaluated and loaded by transformers as a regression."""
    from electra import finetune
    from electra.models.classic import ClassicConfig
    from electra.models.encoder import build_encoder
    from electra.models.model_dir import Provenance, save_model_dir

    config = ClassicConfig(
        vocab_size=TOKENIZER.vocab_size, embedding_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    provenance = Provenance(tokenizer=TOKENIZER, card=lambda: "# Tiny\n")
    save_model_dir(tmp_path / "first", encoder=build_encoder(config), provenance=provenance)
    rows = "".join(f"a good film\ta {word} film\t{number}\n" for word, number in (("good", 4.5), ("bad", 1)) for _ in range(8))
    for name, cut in (("pairs", 0), ("dev", 1)):
        lines = rows.splitlines(keepends=True)[cut:]
        (tmp_path / f"{name}.tsv").write_text("text\tpair\tlabel\n" + "".join(lines), encoding="utf-8")
    settings = ["task=classify", "task.max_length=32", "task.columns.text=text", "task.columns.pair=pair",
                "task.columns.label=label", f"data.train={tmp_path}/pairs.tsv", f"data.dev={tmp_path}/dev.tsv",
                "data.swap_pairs=true", f"init.from={tmp_path}/first", f"run.dir={tmp_path}/run", "epochs=20",
                "batch.examples=8", "optimizer.lr=1e-2", "optimizer.layer_decay=1.0",
                "evaluation.steps=80"]  # fmt: skip  # once, at the end: the order is right long before the numbers are
    finetune([], settings)
    found = evaluate_file(tmp_path / "run" / "model", tmp_path / "pairs.tsv")
    metrics, worst = found["metrics"], found["errors"][0]["values"]
    assert worst["error"] == abs(worst["predicted"] - worst["gold"])
    assert isinstance(metrics, dict)
    assert metrics["spearman"] > 0.99
    assert metrics["mean_absolute_error"] < 3.5  # the first order of the ranks was kept, whatever the distances
    assert (found["labels"], found["confusion"]) == ([], [])
    tree = json.loads((tmp_path / "run" / "model" / "config.json").read_text(encoding="utf-8"))
    assert (tree["problem_type"], len(tree["id2label"])) == ("regression", 1)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any("task.range = [1.0, 4.5]" in event.get("message", "") for event in events)
    assert any("16 pairs" in event.get("message", "") for event in events)
    (tmp_path / "texts.tsv").write_text("text\tlabel\ngood\t1.5\nbad\t2\n", encoding="utf-8")
    with pytest.raises(ElectraError, match="E-D398"):
        finetune([], ["task=classify", f"data.train={tmp_path}/texts.tsv", "data.swap_pairs=true", "task.max_length=16",
                      f"init.from={tmp_path}/first", f"run.dir={tmp_path}/other"])  # fmt: skip
