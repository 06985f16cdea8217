"""Texts from texts: copying and reversing are learnt, the loss is what it says, bad rows are refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as Whole
from tokenizers import decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional as F

import electra
from electra.build import finetune
from electra.contracts import Example, Prediction
from electra.data.grid import collate
from electra.errors import ElectraError
from electra.evaluate.run import evaluate_file
from electra.models.classic import ClassicConfig
from electra.models.decoder import Memory
from electra.models.decoding import Hypothesis
from electra.models.decoding_config import DecodingConfig
from electra.models.encoder import build_encoder
from electra.models.generation import GenerationHead, packed, unpacked
from electra.models.model_dir import Provenance, load_model_dir, save_model_dir
from electra.models.modern import ModernConfig
from electra.models.warm_start import DecoderConfig
from electra.predict.alignment import AligningPredictor
from electra.predict.predictor import Predictor
from electra.predict.predictor import load as predictor_of
from electra.predict.writer import load_writer
from electra.tasks import task_config
from electra.tasks.common import TaskNetwork, saved_network
from electra.tasks.generate import Generate, GenerateConfig
from electra.text.tokenizer import Tokenizer, complete
from electra.text.train_tokenizer import train as train_tokenizer

LETTERS = "abcdefgh"


def letters() -> Tokenizer:
    """A token is a word."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, "copy", "reverse"]
    whole = Whole(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    whole.pre_tokenizer, whole.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    return complete(whole, "letters")


TOKENIZER = letters()
CONFIGS = {
    "classic": ClassicConfig(
        vocab_size=TOKENIZER.vocab_size, embedding_size=64, hidden_size=64, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=128, max_position_embeddings=16, initializer_range=0.1, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    ),
    "modern": ModernConfig(
        vocab_size=TOKENIZER.vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=16, initializer_range=0.1,
    ),
}  # fmt: skip
SIZES: dict[str, Any] = {"max_length": 16, "target_length": 8, "decoding": DecodingConfig(max_new_tokens=8)}
EXAMPLES = [
    Example(text=text, target=target) for text, target in (("copy a b", "a b"), ("copy c", "c"), ("a d e", "e d c b a"))
]


def network_of(family: str, task: Generate) -> TaskNetwork:
    torch.manual_seed(0)
    encoder = build_encoder(CONFIGS[family])
    return TaskNetwork(encoder, task.head(encoder))


# -- learning -----------------------------------------------------------------------------------------------------------


def table(path: Path, sequences: list[str]) -> str:
    rows = [f"{verb} {one}\t{one if verb == 'copy' else one[::-1]}\n" for one in sequences for verb in ("copy", "reverse")]
    path.write_text("source\ttarget\n" + "".join(rows), encoding="utf-8")
    return str(path)


def test_copying_and_reversing_are_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a table to figures: the sequences that are scored were never seen."""
    monkeypatch.setattr(finetune, "write_report", lambda directory: directory)  # pictures take longer than the run
    save_model_dir(tmp_path / "first", encoder=build_encoder(CONFIGS["classic"]),
                   provenance=Provenance(tokenizer=TOKENIZER, card=lambda: "# Tiny\n"))  # fmt: skip
    chance = random.Random(0)
    drawn = [" ".join(chance.choices(LETTERS, k=chance.randint(2, 4))) for _ in range(7500)]
    unseen = set(drawn[:100])
    train = table(tmp_path / "train.tsv", [one for one in drawn if one not in unseen])
    dev = table(tmp_path / "dev.tsv", sorted(unseen))
    electra.finetune([], [
        "task=generate", "task.max_length=16", "task.target_length=8", "task.decoding.max_new_tokens=8",
        "task.metric=exact_match", f"init.from={tmp_path / 'first'}", f"data.train={train}", f"data.dev={dev}",
        f"run.dir={tmp_path / 'run'}", "init.weights=fresh", "epochs=2.7", "batch.examples=128", "optimizer.lr=5e-3",
        "optimizer.betas=[0.9,0.98]", "optimizer.layer_decay=1.0", "precision=fp32", "evaluation.steps=1000",
    ])  # fmt: skip
    found = evaluate_file(tmp_path / "run" / "model", tmp_path / "dev.tsv", resamples=2)
    assert found["metrics"]["exact_match"] >= 0.99
    assert (found["metrics"]["hit_limit"], found["metrics"]["repeated"]) == (0, 0)
    assert all(set(error["values"]).isdisjoint({"bleu/right1", "chrf/right1"}) for error in found["errors"])
    predictor = predictor_of(tmp_path / "run" / "model")
    assert share_aligned(predictor, sorted(unseen)) > 0.5, "one in six by chance"
    [prediction] = predictor.predict(["reverse a b c e"])
    assert (prediction.output["generated_text"], prediction.output["ended"]) == ("e c b a", "end")
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any("columns: text = 'source', target = 'target'" in event.get("message", "") for event in events)
    task = json.loads((tmp_path / "run" / "model" / "task.json").read_text(encoding="utf-8"))
    assert (task["decoder"]["num_hidden_layers"], task["decoder"]["hidden_size"]) == (1, 64)


def share_aligned(predictor: Predictor, sequences: list[str]) -> float:
    """How often a letter that is copied was looked at most, of the whole source, when it was written."""
    right = list[bool]()
    for one in AligningPredictor(predictor).predict([f"copy {sequence}" for sequence in sequences]):
        attention: Any = one.output["attention"]
        looked_at = [weights.index(max(weights)) for weights in attention["weights"][:-1]]  # the end is nowhere
        right += [place == 2 + number for number, place in enumerate(looked_at)]
    return sum(right) / len(right)


# -- the loss -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_torchs_over_whole_logits(family: str, smoothing: float) -> None:
    task = Generate(GenerateConfig(**SIZES, label_smoothing=smoothing), TOKENIZER)
    network = network_of(family, task).train()
    head = network.head
    assert isinstance(head, GenerationHead)
    with torch.no_grad():
        head.decoder.head.bias.normal_()
    batch = collate([row for one in EXAMPLES for row in task.encode(one)], 8, TOKENIZER.pad_id)
    target = batch.targets["target"]
    assert target[0].tolist() == [*TOKENIZER.encode("a b").ids[1:], -100, -100, -100]
    assert batch.counts["target"] == 3 + 2 + 6
    losses = task.loss(network(batch), batch)
    memory = Memory.of(network.encoder(batch.tokens, batch.positions, batch.types, batch.layout), batch.layout)
    read = torch.cat([torch.full((3, 1), TOKENIZER.cls_id), target[:, :-1].clamp(min=0)], dim=1)
    hidden = head.decoder(read, target >= 0, memory)
    logits = head.decoder.head(hidden, head.decoder.encoder.embeddings.table)
    wanted = F.cross_entropy(logits.mT, target, label_smoothing=smoothing, reduction="sum")
    torch.testing.assert_close(losses.terms["generate"].total, wanted)
    assert losses.terms["generate"].unit == "target"
    table = head.decoder.encoder.embeddings.table
    gradients = [torch.autograd.grad(total, table)[0] for total in (losses.terms["generate"].total, wanted)]
    torch.testing.assert_close(*gradients)
    right = (logits.argmax(-1) == target).float().sum(1) / (target >= 0).sum(1)
    torch.testing.assert_close(losses.totals["token_accuracy"], right.sum())


@pytest.mark.parametrize("family", CONFIGS)
def test_micro_batches_and_packed_sources_change_nothing(family: str) -> None:
    task = Generate(GenerateConfig(**SIZES), TOKENIZER)
    network = network_of(family, task).train()
    rows = [row for one in EXAMPLES for row in task.encode(one)]

    def total(*numbers: int, packed: bool = False) -> Tensor:
        batch = collate([rows[number] for number in numbers], 8, TOKENIZER.pad_id, packed)
        return task.loss(network(batch), batch).terms["generate"].total

    whole = total(0, 1, 2)
    torch.testing.assert_close(total(0) + total(1, 2), whole)
    torch.testing.assert_close(total(0, 1, 2, packed=True), whole)


# -- from rows to outputs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", CONFIGS)
def test_saved_and_loaded_predictions_are_equal(family: str, tmp_path: Path) -> None:
    decoding = DecodingConfig(max_new_tokens=6, num_beams=3, num_return_sequences=2)
    task = Generate(GenerateConfig(**SIZES | {"decoding": decoding}), TOKENIZER)
    network = network_of(family, task).eval()
    provenance = Provenance(tokenizer=TOKENIZER, card=lambda: "# Tiny\n")
    save_model_dir(tmp_path / "model", encoder=network.encoder, head=network.head, task=task.to_json(), provenance=provenance)
    texts = ["copy a", "a b c d e a a e", ""]
    before, after = Predictor(network, task).predict(texts), predictor_of(tmp_path / "model").predict(texts)
    for one, other in zip(before, after, strict=True):
        left, right = ([dict(each) for each in _sequences(prediction)] for prediction in (one, other))
        for figure in ("score", "log_probability"):  # sums in another order, where weights are laid out for reading
            assert [each.pop(figure) for each in left] == pytest.approx([each.pop(figure) for each in right], abs=1e-5)
        assert left == right
    assert [set(one) for one in before[0].output["sequences"]] == [set(before[0].output) - {"sequences"}] * 2  # type: ignore[attr-defined]
    assert before[0].output["log_probability"] != before[1].output["log_probability"]
    assert before[2].output["generated_text"] == "", "of nothing, nothing is written"
    written = load_writer(tmp_path / "model").write(texts, decoding)  # what the verb `generate` does
    for drafts, prediction in zip(written, before, strict=True):
        assert drafts[0].text == prediction.output["generated_text"]
        assert drafts[0].log_probability == pytest.approx(prediction.output["log_probability"], abs=1e-4)
    rounded = predictor_of(tmp_path / "model", precision="bf16")
    assert rounded.precision == load_writer(tmp_path / "model", precision="bf16").precision == "bf16"
    assert isinstance(rounded.network, TaskNetwork)
    assert isinstance(rounded.network.head, GenerationHead)
    memory = Memory(hidden_BSD=torch.zeros(1, 3, network.encoder.hidden_size), real_BS=torch.ones(1, 3, dtype=torch.bool))
    with torch.inference_mode():
        assert rounded.network.head.decoder.start(memory, 1, 4).own.dtype == torch.bfloat16
    for exact, prediction in zip(after, rounded.predict(texts), strict=True):
        left, right = (max(each["log_probability"] for each in _sequences(one)) for one in (exact, prediction))
        assert left == pytest.approx(right, abs=0.2)
    assert after != rounded.predict(texts)
    other = Generate(GenerateConfig(**SIZES, decoder=DecoderConfig(hidden_size=16)), TOKENIZER)
    saved = load_model_dir(tmp_path / "model")
    with pytest.raises(ElectraError, match="E-M311"):
        saved_network(other, saved)


def _sequences(prediction: Prediction) -> list[dict[str, Any]]:
    output: Any = prediction.output
    return output.get("sequences", [output])


def test_outputs_survive_packing() -> None:
    one = Hypothesis(tokens=(7, 2**24 - 1), log_probability=-1.5, score=-0.5, ended="stop")
    other = Hypothesis(tokens=(), log_probability=0.0, score=0.0, ended="length")
    assert [unpacked(row) for row in packed([[one, other], [other, one]], 3)] == [[one, other], [other, one]]


def test_special_tokens_in_a_text_are_text_and_are_never_written() -> None:
    task = Generate(GenerateConfig(**SIZES), TOKENIZER)
    [row] = task.encode(Example(text="a [SEP] b", target="[SEP] a"))
    assert (row.tokens == TOKENIZER.sep_id).sum() == 1
    assert row.targets["target"][0].tolist().index(TOKENIZER.sep_id) == row.targets["target"].shape[1] - 1
    network = network_of("classic", task).eval()
    assert isinstance(network.head, GenerationHead)
    with torch.no_grad():
        network.head.decoder.head.bias[[TOKENIZER.mask_id, TOKENIZER.cls_id, TOKENIZER.pad_id, TOKENIZER.unk_id]] = 100.0
    batch = collate([row], 16, TOKENIZER.pad_id)
    assert set(unpacked(network(batch)[0])[0].tokens).isdisjoint(TOKENIZER.special_ids)


def test_long_targets_are_learnt_without_their_end_and_counted(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("a\ta b c d e d a\nb\ta b c d e d a b\n", encoding="utf-8")
    task = Generate(GenerateConfig(**SIZES), TOKENIZER)
    reading = task.read(tmp_path / "train.tsv")
    fits, long = [task.encode(one)[0].targets["target"][0].tolist() for one in reading.examples]
    assert len(fits) == len(long) == 8
    assert (fits[-1] == TOKENIZER.sep_id, long[-1] == TOKENIZER.sep_id) == (True, False)
    assert f"1 targets are longer than task.target_length = 8 tokens, first at {tmp_path / 'train.tsv'}:2" in reading.notes


@pytest.mark.parametrize(
    ("example", "code"),
    [(Example(text=" ", target="a", where="t:2"), "E-D610 t:2"), (Example(text="a", target=" ", where="t:3"), "E-D611 t:3"),
     (Example(text="a", where="t:4"), "E-D611 t:4"), (Example(text="a", target=3.5), "E-D611")],
)  # fmt: skip
def test_rows_that_cannot_be_learnt_are_refused(example: Example, code: str) -> None:
    with pytest.raises(ElectraError, match=code):
        Generate(GenerateConfig(), TOKENIZER).fit([*EXAMPLES, example])


@pytest.mark.parametrize(
    ("tree", "code"),
    [({"max_length": 4}, "E-C301"), ({"target_length": 1}, "E-C612"), ({"label_smoothing": 1.0}, "E-C613"),
     ({"metric": "accuracy"}, "E-C004"), ({"decoder": {"hidden_size": 0}}, "E-C610"),
     ({"decoding": {"num_beams": 0}}, "E-C600"),
     ({"decoder": {"init": "fresh", "cross_attention": "self-attention"}}, "E-C611"), ({"columns": {"target": "t"}}, "E-C315")],
)  # fmt: skip
def test_settings_are_checked(tree: dict[str, object], code: str) -> None:
    with pytest.raises(ElectraError, match=code):
        task_config({"type": "generate", **tree})


def test_outputs_longer_than_the_positions_are_refused() -> None:
    for settings in ({"target_length": 17}, {"target_length": 8, "decoding": DecodingConfig(max_new_tokens=17)}):
        task = Generate(GenerateConfig(max_length=16, **settings), TOKENIZER)  # type: ignore[arg-type]
        with pytest.raises(ElectraError, match="E-C614"):
            task.head(build_encoder(CONFIGS["classic"]))


def test_the_unit_is_that_of_most_targets_and_small_letters_are_known() -> None:
    chinese = [Example(text="a", target="我爱你"), Example(text="b", target="今天下雨。"), Example(text="c", target="yes")]
    tokenizer = train_tokenizer(["我爱你 今天下雨。 yes"] * 4, 80, lowercase=True)
    task = Generate(GenerateConfig(metric="exact_match"), tokenizer).fit(chinese)
    assert task.config.unit == "characters"
    assert Generate(GenerateConfig(), tokenizer).fit(chinese[2:]).config.unit == "words"
    for target, error in (("YES", 0), ("no", 1)):
        said = task.decode(chinese[0], [], [packed([[written(tokenizer, "yes")]], 64)[0]])
        assert task.judge(Example(text="a", target=target), said).values["error"] == error
    assert tokenizer.decode(tokenizer.encode("今天下雨。").ids) == "今天下雨。"


def written(tokenizer: Tokenizer, text: str) -> Hypothesis:
    return Hypothesis(tokens=tuple(tokenizer.encode(text).ids[1:-1]), log_probability=-1.0, score=-1.0, ended="end")
