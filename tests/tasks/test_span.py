"""Questions answered from a text: windows, offsets, heads, "no answer", figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from electra.contracts import Batch, Encoded, Example, Judgement, Packed
from electra.data.grid import collate
from electra.errors import ElectraError
from electra.evaluate.run import examination
from electra.models.classic import ClassicConfig
from electra.models.encoder import build_encoder
from electra.models.joint_span import BEAM, JointSpanHead
from electra.models.model_dir import Provenance, load_model_dir
from electra.models.modern import ModernConfig
from electra.objectives.supervised import Supervised
from electra.predict.predictor import Predictor, load
from electra.tasks import task_config
from electra.tasks.span import Span, SpanConfig
from electra.tasks.windows import shown_best, windows_of
from electra.text.train_tokenizer import train as train_tokenizer

WORDS = ["the", "reader", "opens", "a", "letter", "from", "Paris", "in", "May", "，北京", "大学"]
TOKENIZER = train_tokenizer([" ".join(WORDS), "who what where when"] * 4, vocab_size=120)
PROVENANCE = Provenance(tokenizer=TOKENIZER, card=lambda: "# Answers\n")
CLASSIC = ClassicConfig(
    vocab_size=TOKENIZER.vocab_size, embedding_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=48, max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
MODERN = ModernConfig(
    vocab_size=TOKENIZER.vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
)
EXAMPLES = [
    Example(text="who opens", pair="the reader opens a letter", target=((4, "reader"),), where="a.json#1"),
    Example(text="what opens", pair="the reader opens a letter", target=((17, "a letter"), (19, "letter")), where="a.json#2"),
    Example(text="where from", pair="a letter from Paris in May", target=((14, "Paris"),), where="a.json#3"),
    Example(text="when", pair="a letter from Paris in May", target=((23, "May"),), where="a.json#4"),
    Example(text="where", pair="the reader opens a letter", target=(), where="a.json#5"),
    Example(text="when", pair="the reader opens a letter", target=(), where="a.json#6"),
]


def span(**settings_: object) -> Span:
    built = task_config({"type": "span", "max_length": 32, "question_tokens": 8, **settings_}).build(TOKENIZER)
    assert isinstance(built, Span)
    return built


def batch_of(rows: list[Encoded], packed: bool = False) -> Batch:
    return collate(rows, max(len(row.tokens) for row in rows), TOKENIZER.pad_id, packed)


# -- windows and offsets ------------------------------------------------------------------------------------------------


@given(length=st.integers(1, 300), room=st.integers(16, 60), data=st.data())
def test_windows_cover_everything_and_each_token_is_shown_best_by_one(length: int, room: int, data: st.DataObject) -> None:
    windows = windows_of(length, room, data.draw(st.integers(1, room // 2)))
    assert {place for window in windows for place in range(length)[window]} == set(range(length))
    assert all(window.stop - window.start <= room for window in windows)
    for token, owner in enumerate(shown_best(windows).tolist()):
        around = [
            min(token - window.start, window.stop - 1 - token) + 0.01 * (window.stop - window.start)
            if token in range(length)[window] else -1.0
            for window in windows
        ]  # fmt: skip
        assert owner == int(np.argmax(around))


@settings(max_examples=60)
@given(
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=60),
    gap=st.sampled_from([" ", "  ", "\n"]),
    stride=st.integers(1, 40),
    question=st.sampled_from(["who", "what where when who what where when who what where"]),
    data=st.data(),
)
def test_a_perfect_network_finds_the_answer_wherever_windows_fall(
    words: list[str], gap: str, stride: int, question: str, data: st.DataObject
) -> None:
    context = gap.join(words)
    first = data.draw(st.integers(0, len(words) - 1))
    last = min(first + data.draw(st.integers(0, 1)), len(words) - 1)
    start = len(gap.join(words[:first])) + (len(gap) if first else 0)
    answer = gap.join(words[first : last + 1])
    task = span(stride=stride, unanswerable=True)
    example = Example(text=question, pair=context, target=((start, answer),))
    rows = task.encode(example)
    assert sum(int(row.targets["keep"].sum()) for row in rows) == len(TOKENIZER.encode(context).ids) - 2
    assert sum(row.truncated for row in rows) == max(0, len(TOKENIZER.encode(question).ids) - 2 - 8)
    outputs = []
    for row in rows:
        assert len(row.tokens) <= 32
        inside = row.targets["context"]
        assert set(row.tokens[~inside]) <= {TOKENIZER.cls_id, TOKENIZER.sep_id, *TOKENIZER.encode(question).ids}
        for token, begin, end in zip(row.tokens[inside], row.targets["char_start"][inside], row.targets["char_end"][inside],
                                     strict=True):  # fmt: skip
            assert TOKENIZER.surface(int(token)) in (context[begin:end].lower(), context[begin:end], "[UNK]")
        scores = torch.zeros(len(row.tokens), 2)
        scores[int(row.targets["start"]), 0] = scores[int(row.targets["end"]), 1] = 50.0
        outputs.append(scores)
    prediction = task.decode(replace(example, target=None), rows, outputs)
    if any(int(row.targets["start"]) and row.targets["keep"][int(row.targets["start"])] for row in rows):
        expected = {"answer": answer, "score": pytest.approx(1.0), "start": start, "end": start + len(answer)}
        assert {name: prediction.output[name] for name in expected} == expected
    else:  # the window that shows most around the first token does not show the last one
        assert len(rows) > 1


def test_an_answer_that_a_window_cuts_is_none_there() -> None:
    context = " ".join(["the"] * 26 + ["letter", "from", "Paris"] + ["a"] * 12)
    rows = span(stride=8).encode(Example(text="who", pair=context, target=((context.index("letter"), "letter from Paris"),)))
    found = [(int(row.targets["start"]), int(row.targets["end"])) for row in rows]
    assert all((start == 0) == (end == 0) for start, end in found)
    assert 0 < sum(start > 0 for start, _ in found) < len(rows)
    for row, (start, end) in zip(rows, found, strict=True):
        if start:
            assert context[row.targets["char_start"][start] : row.targets["char_end"][end]] == "letter from Paris"


# -- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "code"),
    [
        ({"stride": 0}, "E-C325"),
        ({"answer_tokens": 0}, "E-C325"),
        ({"n_best": -1}, "E-C325"),
        ({"max_length": 82}, "E-C326"),
        ({"head": "joined"}, "E-C004"),
        ({"compare": "letters"}, "E-C004"),
    ],
)
def test_settings_are_checked(tree: dict[str, object], code: str) -> None:
    with pytest.raises(ElectraError, match=code):
        task_config({"type": "span", **tree})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"pair": None}, "E-D376"),
        ({"pair": " \n"}, "E-D376"),
        ({"text": ""}, "E-D376"),
        ({"target": None}, "E-D378"),
        ({"target": "reader"}, "E-D378"),
        ({"pair": "the reader \x01 opens", "target": ((11, "\x01"),)}, "E-D375"),
    ],
)
def test_what_cannot_be_learnt_is_named_with_its_place(change: dict[str, object], code: str) -> None:
    with pytest.raises(ElectraError, match=code) as caught:
        span().fit([*EXAMPLES, replace(EXAMPLES[0], where="b.json#9", **change)])  # type: ignore[arg-type]
    assert caught.value.where == "b.json#9"


def test_fitting_sees_whether_questions_can_be_unanswerable() -> None:
    assert span().fit(EXAMPLES).config.unanswerable is True
    assert span().fit(EXAMPLES[:4]).config.unanswerable is False
    assert span(unanswerable=True).fit(EXAMPLES[:4]).config.unanswerable is True
    with pytest.raises(ElectraError, match=r"E-D379 a\.json#5"):
        span().fit(EXAMPLES[4:])


# -- heads and losses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [CLASSIC, MODERN], ids=lambda config: config.type)
@torch.no_grad()
def test_the_joint_head_by_its_definition(config: ClassicConfig | ModernConfig) -> None:
    torch.manual_seed(0)
    head = JointSpanHead(config)
    rows = [row for example in EXAMPLES[1:4] for row in span().encode(example)]
    batch = batch_of(rows)
    hidden = torch.randn(*batch.tokens.shape, config.hidden_size)
    trained, served = head.train()(hidden, batch), head.eval()(hidden, batch)

    def pair(name: str, left: Tensor, right: Tensor) -> Tensor:
        part = getattr(head, name)
        result: Tensor = part.output(F.gelu(part.dense(torch.cat([left, right], dim=-1)))).squeeze(-1)
        return result

    for number, row in enumerate(rows):
        own, size = hidden[number], len(row.tokens)
        start = head.start(own).squeeze(-1)
        allowed = torch.from_numpy(row.targets["context"].copy())
        allowed[0] = True
        torch.testing.assert_close(served[number, :size, 0][allowed], start[:size][allowed])
        assert torch.isinf(served[number, :size, 0][~allowed]).all()
        likely = torch.softmax(start[:size].masked_fill(~allowed, -torch.inf), 0) @ own[:size]
        torch.testing.assert_close(served[number, 0, 1], pair("null", own[0], likely))
        gold = int(row.targets["start"])
        torch.testing.assert_close(trained[number, :, 3], pair("end", own[gold].expand_as(own), own))
        order = start[:size].masked_fill(~allowed, -torch.inf).argsort(descending=True)[: int(allowed.sum())]
        assert served[number, order, 2].tolist() == list(range(len(order)))
        for rank in (0, len(order) - 1):
            torch.testing.assert_close(served[number, :, 3 + rank], pair("end", own[order[rank]].expand_as(own), own))
    assert served.shape[-1] == 3 + BEAM
    packed = batch_of(rows, packed=True)
    assert isinstance(packed.layout, Packed)
    real = batch.layout.real
    torch.testing.assert_close(head(hidden[real], packed), served[real])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("head", ["plain", "joint"])
def test_the_loss_is_the_sum_over_windows(head: str, packed: bool) -> None:
    torch.manual_seed(0)
    rows = [row for example in EXAMPLES[3:5] for row in span().encode(example)]
    batch = batch_of(rows, packed)
    outputs = torch.randn(*batch.tokens.shape, 2 if head == "plain" else 4)
    losses = span(head=head).loss(outputs, batch)
    per_row = outputs.split([len(row.tokens) for row in rows]) if packed else outputs
    expected = 0.0
    for row, values in zip(rows, per_row, strict=True):
        allowed = np.flatnonzero(row.targets["context"]).tolist()
        for name, channel in (("start", 0), ("end", 1 if head == "plain" else 3)):
            place = int(row.targets[name])
            logits = values[[0, *allowed], channel]
            expected -= 0.5 * float(torch.log_softmax(logits, 0)[0 if place == 0 else 1 + allowed.index(place)])
        if head == "joint":
            none = torch.tensor(float(int(row.targets["start"]) == 0))
            expected += 0.5 * float(F.binary_cross_entropy_with_logits(values[0, 1], none))
    assert float(losses.terms["span"].total) == pytest.approx(expected, rel=1e-5)
    assert (losses.terms["span"].unit, float(losses.totals["examples"])) == ("examples", batch.counts["examples"])


@pytest.mark.parametrize(("config", "head"), [(CLASSIC, "plain"), (CLASSIC, "joint"), (MODERN, "plain")])
def test_a_few_questions_are_learnt_by_heart_and_served_from_disk(
    config: ClassicConfig | ModernConfig, head: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    task = span(head=head).fit(EXAMPLES)
    objective = Supervised(build_encoder(config), task, PROVENANCE)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=5e-3)
    batch = batch_of([row for example in EXAMPLES for row in task.encode(example)])
    for _ in range(60):
        task.loss(objective.model(batch), batch).terms["span"].total.backward()
        optimizer.step()
        optimizer.zero_grad()
    predictor = Predictor(objective.model, task)
    figures = examination(predictor, EXAMPLES).figures()
    assert next(iter(figures)) == "f1"
    assert (figures["exact"], figures["f1"], figures["best_f1"], figures["no_answer_f1"]) == (1.0, 1.0, 1.0, 1.0)
    objective.task = task.tune([task.judge(one, said) for one, said in zip(EXAMPLES, predictor.stream(EXAMPLES), strict=True)])
    objective.export(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert isinstance(loaded.task, Span)
    assert loaded.task.config.null_threshold is not None
    said = [prediction.output for prediction in loaded.predict(EXAMPLES)]
    assert [output["answer"] for output in said] == ["reader", "a letter", "Paris", "May", "", ""]
    before = [prediction.output for prediction in predictor.predict(EXAMPLES)]
    assert [output["score"] for output in said] == pytest.approx([output["score"] for output in before], abs=1e-5)
    assert (tmp_path / "model" / "head.safetensors").is_file() == (head == "joint")
    other = json.loads((tmp_path / "model" / "task.json").read_text(encoding="utf-8"))
    wrong = task_config({**other, "head": "plain" if head == "joint" else "joint"})
    assert load_model_dir(tmp_path / "model").task == other
    with pytest.raises(ElectraError, match="E-M31"):
        load(tmp_path / "model", wrong)


# -- answers and figures ------------------------------------------------------------------------------------------------


def plain_outputs(task: Span, example: Example, start: dict[int, float], end: dict[int, float]) -> tuple[list[Encoded], Tensor]:
    """Rows of one window, and scores by the place in the context; -1 is [CLS]."""
    [row] = rows = task.encode(example)
    first = int(np.flatnonzero(row.targets["context"])[0])
    scores = torch.full((len(row.tokens), 2), -20.0)
    for channel, given_ in enumerate((start, end)):
        for place, score in given_.items():
            scores[0 if place < 0 else first + place, channel] = score
    return rows, scores


def test_answers_have_the_keys_of_the_pipeline_and_n_best_differ_as_texts() -> None:
    example = Example(text="who", pair="Paris in Paris")
    task = span(n_best=2)
    rows, scores = plain_outputs(task, example, {0: 2.0, 2: 1.0, 1: 0.0}, {0: 2.0, 2: 2.0, 1: 0.0})
    output = task.decode(example, rows, [scores]).output
    start, end = torch.softmax(torch.tensor([2.0, 1.0, 0.0]), 0), torch.softmax(torch.tensor([2.0, 2.0, 0.0]), 0)
    best = {"answer": "Paris", "score": pytest.approx(float(start[0] * end[0]), abs=1e-5), "start": 0, "end": 5}
    second = {"answer": "Paris in Paris", "score": pytest.approx(float(start[0] * end[1]), abs=1e-5), "start": 0, "end": 14}
    assert output == {**best, "n_best": [best, second]}


def test_answers_are_no_longer_than_allowed_and_stay_in_the_context() -> None:
    example = Example(text="who", pair="the reader opens a letter")
    task = span(answer_tokens=2)
    rows, scores = plain_outputs(task, example, {0: 5.0, 3: 1.0}, {4: 5.0, 1: 0.0})
    scores[1] = 99.0  # the question
    assert task.decode(example, rows, [scores]).output["answer"] == "a letter"


@pytest.mark.parametrize(("threshold", "answer"), [(None, ""), (2.9, ""), (3.1, "Paris")])
def test_the_threshold_decides_on_no_answer(threshold: float | None, answer: str) -> None:
    example = Example(text="who", pair="from Paris in May")
    task = span(unanswerable=True, null_threshold=threshold)
    rows, scores = plain_outputs(task, example, {-1: 3.0, 1: 1.0}, {-1: 2.0, 1: 1.0})
    output = task.decode(example, rows, [scores]).output
    assert output["answer"] == answer
    assert output["null_score"] == pytest.approx(3.0)
    if not answer:
        assert (output["start"], output["end"]) == (0, 0)


def test_no_answer_counts_from_the_window_where_it_is_least_likely() -> None:
    context = " ".join(["the"] * 40 + ["Paris"])
    task = span(unanswerable=True, stride=8)
    rows = task.encode(example := Example(text="who", pair=context))
    outputs = []
    for row in rows:
        scores = torch.full((len(row.tokens), 2), -20.0)
        scores[0] = 5.0
        outputs.append(scores)
    outputs[-1][-2] = 7.0
    assert len(rows) > 2
    output = task.decode(example, rows, outputs).output
    assert (output["answer"], output["null_score"]) == ("Paris", pytest.approx(-4.0))


def test_figures_of_both_kinds_of_questions() -> None:
    def record(exact: float, f1: float, answerable: bool, null: float) -> Judgement:
        values = {"exact": exact, "f1": f1, "answerable": float(answerable), "null_score": null, "by_characters": 0.0}
        return Judgement(values=values)

    records = [record(1, 1, True, -2), record(0, 0, False, 1), record(0, 0.5, True, 2), record(0, 0, False, 3)]
    task = span(unanswerable=True)
    tuned = task.tune(records)
    assert tuned.config.null_threshold == -0.5
    assert span(unanswerable=True, null_threshold=-2.75).tune(records).config.null_threshold == -2.75
    assert span(unanswerable=False).tune(records).config.null_threshold is None
    assert task.score(records) == {
        "f1": 0.75, "has_answer_f1": 0.5, "no_answer_f1": 1.0, "best_f1": 0.75, "best_f1_threshold": -0.5,
        "exact": 0.75, "has_answer_exact": 0.5, "no_answer_exact": 1.0, "best_exact": 0.75, "best_exact_threshold": -0.5,
        "by_characters": 0.0,
    }  # fmt: skip
    assert span(unanswerable=False).score(records[:1]) == {"f1": 1.0, "exact": 1.0, "by_characters": 0.0}


def test_chinese_is_compared_by_characters_unless_told_otherwise() -> None:
    example = Example(text="who", pair="北京大学在北京", target=((0, "北京大学"),))
    for compare, f1 in ((None, 2 / 3), ("characters", 2 / 3), ("words", 0.0)):
        task = span(compare=compare)
        rows, scores = plain_outputs(task, example, {0: 5.0}, {1: 5.0})
        prediction = task.decode(example, rows, [scores])
        assert prediction.output["answer"] == "北京"
        judgement = task.judge(example, prediction)
        assert judgement.values["f1"] == pytest.approx(f1)
        assert judgement.values["by_characters"] == float(compare != "words")


def test_questions_are_read_from_json_and_from_tables(tmp_path: Path) -> None:
    table, flat = tmp_path / "q.tsv", tmp_path / "q.jsonl"
    table.write_text("question\tcontext\nwho\tthe reader\n", encoding="utf-8")
    flat.write_text('{"question": "who", "context": "the reader", "answers": {"text": ["reader"], "answer_start": [4]}}\n')
    for path, target in ((table, None), (flat, ((4, "reader"),))):
        [example] = span().read(path).examples
        assert (example.text, example.pair, example.target) == ("who", "the reader", target)


def test_task_json_builds_the_same_task_again() -> None:
    task = span(head="joint", null_threshold=-1.5)
    again = task_config(task.to_json())
    assert isinstance(again, SpanConfig)
    assert again == task.config
