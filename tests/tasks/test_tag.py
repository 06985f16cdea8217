"""Labels, loss, spans and scores of tagging: what is learnt of a file, and what is found in a text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from electra.contracts import Encoded, Example, Judgement, Mention, Prediction, Unit
from electra.data.grid import collate
from electra.errors import ElectraError
from electra.evaluate.examine import confusion, figures
from electra.tasks import bio, task_config
from electra.tasks.tag import Tag, TagConfig
from electra.text.train_tokenizer import train as train_tokenizer

WORDS = ["Ada", "Lovelace", "met", "Charles", "Babbage", "in", "London"]
TOKENIZER = train_tokenizer([" ".join(WORDS), "北京的公园。"] * 4, vocab_size=120, min_frequency=1)
TEXT = "Ada Lovelace met Charles in London"
PER, LOC = Mention(start=0, end=12, label="PER"), Mention(start=28, end=34, label="LOC")
TASK = Tag(TagConfig(labels=("LOC", "PER"), tagged="spans", max_length=16), TOKENIZER)
POS = Tag(TagConfig(labels=("N", "V"), tagged="words", max_length=16), TOKENIZER)


def example(*mentions: Mention, text: str = TEXT, **given: object) -> Example:
    return Example(text=text, target=mentions, where="dev.jsonl:7", given=given)


def mention(surface: str, label: str, text: str = TEXT) -> Mention:
    start = text.index(surface)
    return Mention(start=start, end=start + len(surface), label=label)


def tagged(tags: str, text: str = "Ada met Charles") -> Example:
    """A word a letter: N N V."""
    mentions = [mention(word, tag, text) for word, tag in zip(text.split(), tags.split(), strict=True)]
    return example(*mentions, text=text, words=tuple((one.start, one.end) for one in mentions), tagged="words")


def classes(task: Tag, one: Example) -> dict[str, str | None]:
    """What each token that begins a word is to be learnt as, by the token; None where it is not learnt."""
    encoding = TOKENIZER.encode(one.text)
    [row] = task.encode(one)
    labels = row.targets["label"].tolist()
    grid = task._grid(one).tokens + 1
    assert all(label == -100 for place, label in enumerate(labels) if place not in grid)
    return {encoding.tokens[place]: None if labels[place] == -100 else task.labels[labels[place]] for place in grid}


# -- learning -------------------------------------------------------------------------------------------------------------


def test_labels_are_those_of_the_training_file_sorted_and_their_classes_are_bio() -> None:
    task = Tag(TagConfig(), TOKENIZER).fit([example(PER, LOC), example()])
    assert task.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert (task.config.labels, task.config.tagged) == (("LOC", "PER"), "spans")
    assert Tag(TagConfig(), TOKENIZER).fit([tagged("N V N")]).labels == ("N", "V")
    assert Tag(TagConfig(labels=("PER", "LOC")), TOKENIZER).fit([example(PER)]).config.labels == ("PER", "LOC")


def test_words_are_learnt_at_their_first_token() -> None:
    assert classes(TASK, example(PER, LOC)) == {
        "Ada": "B-PER", "Lovelace": "I-PER", "met": "O", "Charles": "O", "in": "O", "London": "B-LOC"
    }  # fmt: skip
    assert classes(POS, tagged("N V N")) == {"Ada": "N", "met": "V", "Charles": "N"}


def test_of_a_given_word_only_the_beginning_is_learnt() -> None:
    text = "Ada met-London-in London"

    def learnt(**given: object) -> dict[int, str]:
        [row] = TASK.encode(example(Mention(start=4, end=17, label="LOC"), text=text, **given))
        places = np.flatnonzero(row.targets["label"] != -100)
        return {int(row.targets["start"][place]): TASK.labels[row.targets["label"][place]] for place in places}

    assert learnt(words=((0, 3), (4, 17), (18, 24))) == {0: "O", 4: "B-LOC", 18: "O"}
    within = {7: "I-LOC", 8: "I-LOC", 14: "I-LOC", 15: "I-LOC"}
    assert learnt() == {0: "O", 4: "B-LOC", 18: "O"} | within


def test_neighbours_of_one_label_stay_apart() -> None:
    first, second = mention("Ada", "PER"), mention("Lovelace", "PER")
    assert [classes(TASK, example(first, second))[word] for word in ("Ada", "Lovelace")] == ["B-PER", "B-PER"]


def test_a_span_that_is_not_made_of_words_is_shown_and_not_learnt() -> None:
    odd = mention("da Lovelace", "PER")
    [misfit] = TASK.misfits(example(odd, LOC))
    assert (misfit.mention, misfit.cause, misfit.mend) == (odd, "not made of whole words", PER)
    found = classes(TASK, example(odd, LOC))
    assert (found["Ada"], found["Lovelace"], found["met"], found["London"]) == (None, None, "O", "B-LOC")


def test_of_spans_that_overlap_the_longest_is_learnt() -> None:
    inner = mention("Ada", "LOC")
    [misfit] = TASK.misfits(example(inner, PER))
    assert (misfit.mention, misfit.cause, misfit.mend) == (inner, "overlaps a longer span", None)
    assert classes(TASK, example(inner, PER))["Ada"] == "B-PER"


def test_what_cannot_be_learnt_is_counted_in_the_notes(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    rows = [[[0, 12, "PER"]], [[1, 12, "PER"], [12, 13, "PER"]], [[0, 12, "PER"], [0, 3, "LOC"]]]
    path.write_text("".join(json.dumps({"text": TEXT, "label": row}) + "\n" for row in rows), encoding="utf-8")
    reading = TASK.read(path)
    assert len(list(reading.examples)) == 3
    assert reading.notes[-2:] == [
        f"2 spans that are not made of whole words, neither learnt nor found, first at {path}:2: 'da Lovelace' at 1:12 "
        "(mend: 'Ada Lovelace' at 0:12)",
        f"1 spans that overlap a longer one, neither learnt nor found, first at {path}:3: 'Ada' at 0:3",
    ]


@pytest.mark.parametrize(
    ("task", "examples", "message"),
    [
        (TASK, [Example(text=TEXT, where="a.txt:1")], "E-D370 a.txt:1"),
        (TASK, [Example(text=TEXT, target="PER", where="a.txt:1")], "E-D370 a.txt:1"),
        (Tag(TagConfig(), TOKENIZER), [example(), example()], "E-D371 dev.jsonl: "),
        (Tag(TagConfig(), TOKENIZER), [], "E-D371 training data"),
        (Tag(TagConfig(), TOKENIZER), [tagged("N N N")], "E-D310 dev.jsonl: "),
        (TASK, [example(mention("Ada", "PES"))], r"E-D312 dev.jsonl:7: label 'PES' .* nearest is 'PER'"),
        (TASK, [example(Mention(start=30, end=35, label="LOC"))], r"E-D372 dev.jsonl:7: span 30:35 of 34"),
        (TASK, [example(Mention(start=3, end=3, label="LOC"))], "E-D372"),
        (Tag(TagConfig(labels=("N", "V"), tagged="spans"), TOKENIZER), [tagged("N V N")], "E-D373 .*every word"),
        (POS, [example(mention("Ada", "N"))], "E-D373 dev.jsonl:7: word 'Lovelace' has no tag"),
    ],
)
def test_examples_that_cannot_be_learnt_from_are_named(task: Tag, examples: list[Example], message: str) -> None:
    with pytest.raises(ElectraError, match=message):
        task.fit(examples)


def test_a_gold_answer_that_is_not_known_is_an_error_whenever_it_is_met() -> None:
    with pytest.raises(ElectraError, match="E-D312"):
        TASK.encode(example(mention("Ada", "PES")))


@pytest.mark.parametrize(
    ("tree", "code"),
    [
        ({"labels": []}, "E-C320"),
        ({"labels": ["PER", "PER"]}, "E-C320"),
        ({"labels": ["PER", ""]}, "E-C320"),
        ({"max_length": 7}, "E-C301"),
        ({"tagged": "letters"}, "E-C004"),
        ({"columns": {"text": 1}}, "E-C004"),
    ],
)
def test_settings_are_checked(tree: dict[str, object], code: str) -> None:
    with pytest.raises(ElectraError, match=code):
        task_config({"type": "tag", **tree})


def test_nothing_works_before_the_labels_are_known() -> None:
    with pytest.raises(ElectraError, match="E-C302"):
        _ = Tag(TagConfig(), TOKENIZER).labels


def test_task_json_builds_the_same_task_again() -> None:
    again = task_config(TASK.to_json()).build(TOKENIZER)
    assert isinstance(again, Tag)
    assert (again.config, again.labels) == (TASK.config, TASK.labels)


def test_the_loss_is_the_sum_over_labelled_tokens() -> None:
    items = [row for one in (example(PER, LOC), Example(text=TEXT)) for row in TASK.encode(one)]
    batch = collate(items, 16, TOKENIZER.pad_id)
    logits = torch.randn(2, 16, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    losses = TASK.loss(logits, batch)
    label = batch.targets["label"][0]
    places = [place for place in range(16) if label[place] >= 0]
    log = torch.log_softmax(logits[0], dim=-1)
    expected = -sum(log[place, label[place]] for place in places)
    term = losses.terms["tag"]
    assert (term.unit, batch.counts["label"], len(places)) == ("label", 6.0, 6)
    torch.testing.assert_close(term.total, expected)
    right = sum(int(logits[0, place].argmax() == label[place]) for place in places)
    assert {name: float(total) for name, total in losses.totals.items()} == {
        "examples": 6.0, "accuracy": right, "loss": pytest.approx(float(term.total.detach()))
    }  # fmt: skip


def test_windows_label_each_token_once() -> None:
    long = " ".join(WORDS * 6)
    starts = [place for place in range(len(long)) if long.startswith("Ada", place)]
    one = example(*(Mention(start=start, end=start + 3, label="PER") for start in starts), text=long)
    rows = TASK.encode(one)
    assert len(rows) > 2
    whole = Tag(TagConfig(labels=("LOC", "PER"), tagged="spans", max_length=512), TOKENIZER)
    [row] = whole.encode(one)
    learnt = [label for each in rows for label in each.targets["label"].tolist() if label != -100]
    assert learnt == [label for label in row.targets["label"].tolist() if label != -100]


# -- finding --------------------------------------------------------------------------------------------------------------


def logits_of(task: Tag, one: Example, said: dict[str, str]) -> list[Tensor]:
    """Outputs that are sure of a class for each token that is spelled so, of the first one elsewhere."""
    outputs = []
    for row in task.encode(one):
        output = torch.zeros(len(row.tokens), len(task.labels))
        for place, token in enumerate(row.tokens):
            output[place, task.labels.index(said.get(TOKENIZER.token_text(int(token)), task.labels[0]))] = 5.0
        outputs.append(output)
    return outputs


def predict(task: Tag, one: Example, said: dict[str, str]) -> Prediction:
    return task.decode(one, task.encode(one), logits_of(task, one, said))


def found(prediction: Prediction) -> list[tuple[str, str, int, int]]:
    entities = prediction.output["entities"]
    assert isinstance(entities, list)
    return [(one["entity_group"], one["word"], one["start"], one["end"]) for one in entities]


def test_spans_are_found_with_their_places_in_the_raw_text() -> None:
    prediction = predict(TASK, Example(text=f"\n {TEXT}."), {"Ada": "B-PER", "Lovelace": "I-PER", "London": "B-LOC"})
    assert found(prediction) == [("PER", "Ada Lovelace", 2, 14), ("LOC", "London", 30, 36)]
    sure = float(torch.softmax(torch.tensor([5.0, 0, 0, 0, 0]), dim=0)[0])
    unsure = (1 - sure) / 4
    [first, _] = prediction.output["entities"]  # type: ignore[misc]
    assert list(first) == ["entity_group", "score", "word", "start", "end"]  # type: ignore[has-type]
    assert first["score"] == pytest.approx(sure * sure * (1 - unsure))  # type: ignore[has-type]


def test_an_illegal_sequence_is_never_said() -> None:
    assert found(predict(TASK, Example(text=TEXT), {"Ada": "B-LOC", "Lovelace": "I-PER"})) in (
        [("LOC", "Ada", 0, 3)], [("PER", "Lovelace", 4, 12)], [("LOC", "Ada Lovelace", 0, 12)], [("PER", "Ada Lovelace", 0, 12)]
    )  # fmt: skip


def test_every_chinese_character_is_a_word() -> None:
    assert found(predict(TASK, Example(text="在北京。"), {"北": "B-LOC", "京": "I-LOC"})) == [("LOC", "北京", 1, 3)]


def test_given_words_are_never_cut() -> None:
    text = "Ada,Lovelace"
    one = Example(text=text, given={"words": [[0, 12]]})
    said = {"Ada": "B-PER", "Lovelace": "B-PER"}
    assert found(predict(TASK, one, said)) == [("PER", text, 0, 12)]
    assert found(predict(TASK, Example(text=text), said)) == [("PER", "Ada", 0, 3), ("PER", "Lovelace", 4, 12)]


def test_plain_tags_have_one_for_each_word() -> None:
    assert found(predict(POS, Example(text="Ada met Charles"), {"met": "V"})) == [
        ("N", "Ada", 0, 3), ("V", "met", 4, 7), ("N", "Charles", 8, 15)
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", " \n", "\u200b", "\ud800", "a\x00b", "\u202eAda"])
@pytest.mark.parametrize("task", [TASK, POS])
def test_any_text_is_decoded(task: Tag, text: str) -> None:
    for _, word, start, end in found(predict(task, Example(text=text), {})):
        assert text[start:end] == word


@given(
    words=st.lists(st.sampled_from([*WORDS, "北京的", "unknown,", "?"]), min_size=1, max_size=40),
    max_length=st.integers(8, 40), seed=st.integers(0, 9), task=st.sampled_from([TASK, POS]),
)  # fmt: skip
def test_windows_change_nothing_where_tokens_speak_for_themselves(
    words: list[str], max_length: int, seed: int, task: Tag
) -> None:
    """Entities across the borders of windows are found as they would be in one window."""
    one = Example(text=" ".join(words))
    said = torch.randn(TOKENIZER.vocab_size, len(task.labels), generator=torch.Generator().manual_seed(seed)) * 2

    def run(length: int) -> Prediction:
        config = TagConfig(labels=task.config.labels, tagged=task.config.tagged, max_length=length)
        windowed = Tag(config, TOKENIZER)
        rows: Sequence[Encoded] = windowed.encode(one)
        assert max(len(row.tokens) for row in rows) <= length
        return windowed.decode(one, rows, [said[torch.from_numpy(row.tokens)] for row in rows])

    assert run(max_length) == run(4096)


@given(text=st.text(st.sampled_from("Ada met 北京,.\n\u200b\u0301 "), max_size=25), data=st.data())
def test_what_is_learnt_by_heart_is_found_again(text: str, data: st.DataObject) -> None:
    """Gold spans of whole words -> classes -> spans: the same."""
    grid = TASK._grid(Example(text=text))
    borders = data.draw(st.lists(st.integers(0, len(grid)), unique=True, max_size=8).map(sorted))
    spans = [(borders[place], borders[place + 1]) for place in range(0, len(borders) - 1, data.draw(st.sampled_from([1, 2])))]
    gold = tuple(
        Mention(start=int(grid.starts[first]), end=int(grid.ends[behind - 1]), label=data.draw(st.sampled_from(["PER", "LOC"])))
        for first, behind in spans
    )
    one = Example(text=text, target=gold)
    assert TASK.misfits(one) == []
    rows = TASK.encode(one)
    outputs = [
        torch.nn.functional.one_hot(torch.from_numpy(np.maximum(row.targets["label"], 0)), len(TASK.labels)) * 9.0
        for row in rows
    ]
    entities = found(TASK.decode(one, rows, outputs))
    assert [(start, end, label) for label, _, start, end in entities] == [(m.start, m.end, m.label) for m in gold]


# -- judging --------------------------------------------------------------------------------------------------------------


def said(*mentions: Mention) -> Prediction:
    entities = [{"entity_group": one.label, "score": 0.5, "word": "", "start": one.start, "end": one.end} for one in mentions]
    return Prediction(text=TEXT, output={"entities": entities})


def test_spans_are_matched_by_their_characters() -> None:
    charles, longer = mention("Charles", "PER"), mention("Charles in", "PER")
    judgement = TASK.judge(example(PER, charles, LOC), said(PER, longer, mention("London", "PER")))
    assert judgement.units == (
        Unit(gold="PER", predicted="PER", score=0.5),
        Unit(gold="PER", predicted=None, score=0.0),
        Unit(gold="LOC", predicted="PER", score=0.5),
        Unit(gold=None, predicted="PER", score=0.5),
    )
    scores = figures(TASK, [judgement])
    assert scores == {"f1": 1 / 3, "precision": 1 / 3, "recall": 1 / 3, "macro_f1": 2 * 1 / (2 + 3) / 2, "collapsed": 0.0}
    assert next(iter(scores)) == "f1"
    assert confusion(["LOC", "PER"], [judgement])[1] == [[0, 1, 0], [0, 1, 1], [0, 1, 0]]


def test_a_tagger_that_finds_nothing_has_collapsed() -> None:
    nothing = TASK.judge(example(PER), said())
    assert figures(TASK, [nothing]) == {"f1": 0.0, "precision": 0.0, "recall": 0.0, "macro_f1": 0.0, "collapsed": 1.0}
    assert figures(TASK, [TASK.judge(example(PER), said(PER, LOC))])["collapsed"] == 0.0
    assert TASK.score([Judgement()])["f1"] == 0.0


def test_plain_tags_are_scored_by_accuracy() -> None:
    one = tagged("N V N")
    judgements = [POS.judge(one, predict(POS, one, {})), POS.judge(one, predict(POS, one, {"met": "V"}))]
    scores = figures(POS, judgements)
    assert next(iter(scores)) == "accuracy"
    assert scores == {"accuracy": 5 / 6, "macro_f1": pytest.approx((8 / 9 + 2 / 3) / 2), "collapsed": 0.0}


@given(st.data())
def test_f1_is_nervaluates_strict_one(data: st.DataObject) -> None:
    nervaluate = pytest.importorskip("nervaluate")

    def draw() -> list[Mention]:
        borders = data.draw(st.lists(st.integers(0, 12), unique=True, max_size=8).map(sorted))
        pairs = zip(borders[::2], borders[1::2], strict=False)
        return [Mention(start=start, end=end, label=data.draw(st.sampled_from(["PER", "LOC"]))) for start, end in pairs]

    def theirs(mentions: list[Mention]) -> list[dict[str, object]]:
        return [{"label": one.label, "start": one.start, "end": one.end} for one in mentions]

    gold, predicted = draw(), draw()
    scores = TASK.score([TASK.judge(example(*gold), said(*predicted))])
    evaluator = nervaluate.Evaluator([theirs(gold)], [theirs(predicted)], tags=["PER", "LOC"], loader="dict")
    strict = evaluator.evaluate()["overall"]["strict"]
    assert [scores[name] for name in ("precision", "recall", "f1")] == pytest.approx(
        [strict.precision, strict.recall, strict.f1]
    )


def test_classes_of_the_head_are_in_the_order_of_decoding() -> None:
    assert TASK.labels == bio.classes(["LOC", "PER"])
