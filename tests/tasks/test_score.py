"""Scores of tokens and texts: against plain loops, by hand, in windows, in any batch; models that lack what a method needs."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from electra.contracts import Batch, Encoded, Example, Padded
from electra.data.grid import collate
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.decoder import Decoder
from electra.models.encoder import build_encoder
from electra.models.heads import CausalHead, EnergyHead, MlmHead, RtdHead
from electra.models.model_dir import Provenance, load_model_dir, save_model_dir
from electra.models.modern import ModernConfig
from electra.predict.predictor import Predictor, load
from electra.tasks import task_config
from electra.tasks.score import METHODS, MaskedTokenNetwork, NextTokenNetwork, Score, ScoreConfig
from electra.text.train_tokenizer import train as train_tokenizer

TOKENIZER = train_tokenizer(["the good film was playing", "电影 很 好"] * 3, vocab_size=80)
CLASSIC = ClassicConfig(
    vocab_size=TOKENIZER.vocab_size, embedding_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=64,
)  # fmt: skip
MODERN = ModernConfig(
    vocab_size=TOKENIZER.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
)
TEXT = "The film  was playing，电影 [MASK] goodness"


def masked_model(config: ClassicConfig | ModernConfig) -> MaskedTokenNetwork:
    torch.manual_seed(0)
    network = MaskedTokenNetwork(build_encoder(config), MlmHead(config))
    with torch.no_grad():  # far from the uniform distribution
        for parameter in network.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    return network.eval()


def log_probabilities(network: MaskedTokenNetwork, ids: list[int]) -> Tensor:
    """[n, V] of one text, on its own."""
    tokens = torch.tensor([ids])
    hidden = network.encoder(tokens, torch.arange(len(ids))[None], tokens * 0, Padded(segments=tokens * 0, whole=True))
    return torch.log_softmax(network.head(hidden, network.encoder.embeddings.table), dim=-1)[0]


def scores_of(network: torch.nn.Module, text: str, **settings: object) -> list[float]:
    task = ScoreConfig(**settings).build(TOKENIZER)  # type: ignore[arg-type]
    (prediction,) = Predictor(network, task).predict([text])
    tokens = prediction.output["tokens"]
    assert isinstance(tokens, list)
    return [token["score"] for token in tokens]


@pytest.mark.parametrize("config", [CLASSIC, MODERN], ids=lambda config: config.type)
@torch.no_grad()
def test_pll_is_the_plain_loop_over_masks(config: ClassicConfig | ModernConfig) -> None:
    network, ids = masked_model(config), TOKENIZER.encode_literally(TEXT).ids
    expected = []
    for place in range(1, len(ids) - 1):
        masked = [*ids[:place], TOKENIZER.mask_id, *ids[place + 1 :]]
        expected.append(float(log_probabilities(network, masked)[place, ids[place]]))
    assert scores_of(network, TEXT, method="pll") == pytest.approx(expected, abs=1e-5)
    assert len({round(value, 2) for value in expected}) > 6, "the places do not tell the scores apart"


@torch.no_grad()
def test_word_l2r_masks_the_rest_of_the_word_by_hand() -> None:
    network = masked_model(CLASSIC)
    encoding = TOKENIZER.encode_literally("was playwas 好")
    assert [TOKENIZER.token_text(token) for token in encoding.ids[1:-1]][:2] == ["was", "play"]
    cls, was, play, *rest, good, sep = encoding.ids
    assert len(rest) >= 2
    mask = TOKENIZER.mask_id
    seen = [
        [cls, mask, play, *rest, good, sep],
        *([cls, was, play, *rest, good, sep][: 2 + done] + [mask] * (1 + len(rest) - done) + [good, sep]
          for done in range(1 + len(rest))),
        [cls, was, play, *rest, mask, sep],
    ]  # fmt: skip
    expected = [
        float(log_probabilities(network, masked)[place, encoding.ids[place]]) for place, masked in enumerate(seen, start=1)
    ]
    assert scores_of(network, "was playwas 好", method="pll-word-l2r") == pytest.approx(expected, abs=1e-5)
    single = scores_of(network, "was 好", method="pll-word-l2r")
    assert single == pytest.approx(scores_of(network, "was 好", method="pll"), abs=1e-5)


@pytest.mark.parametrize("config", [CLASSIC, MODERN], ids=lambda config: config.type)
@torch.no_grad()
def test_causal_scores_are_those_of_the_plain_loop_over_prefixes(config: ClassicConfig | ModernConfig) -> None:
    masked = masked_model(config)
    network = NextTokenNetwork(masked.encoder, masked.head).eval()
    decoder, ids = Decoder(masked.encoder, masked.head).eval(), TOKENIZER.encode_literally(TEXT).ids
    expected = []
    for place in range(1, len(ids) - 1):  # what generation says behind each beginning
        logits = decoder.prefill(torch.tensor([ids[:place]]), decoder.start(None, 1, place))
        expected.append(float(torch.log_softmax(logits[0], dim=-1)[ids[place]]))
    assert scores_of(network, TEXT, method="causal") == pytest.approx(expected, abs=1e-4)
    assert sum(expected) < -20


def saved(
    folder: Path, *, discriminator: bool = True, generator: bool = True, energies: bool = False, causal: bool = False
) -> Path:
    torch.manual_seed(0)
    if causal:
        head, generator = CausalHead(CLASSIC), False
        provenance = Provenance(tokenizer=TOKENIZER, card=lambda: "# A model\n")
        save_model_dir(folder, encoder=build_encoder(CLASSIC), head=head, provenance=provenance)
        return folder
    head = EnergyHead(CLASSIC) if energies else RtdHead(CLASSIC) if discriminator else MlmHead(CLASSIC)
    save_model_dir(
        folder, encoder=build_encoder(CLASSIC), head=head,
        generator=(build_encoder(CLASSIC), MlmHead(CLASSIC)) if generator else None,
        provenance=Provenance(tokenizer=TOKENIZER, card=lambda: "# A model\n"),
    )  # fmt: skip
    return folder


def test_rtd_scores_are_log_probabilities_and_their_sum_mean_and_minimum(tmp_path: Path) -> None:
    path = saved(tmp_path / "model")
    replaced = load(path, "replaced").predict(["the good film"])[0].output["tokens"]
    assert isinstance(replaced, list)
    expected = [math.log1p(-token["score"]) for token in replaced]
    reductions = {"sum": sum(expected), "mean": sum(expected) / 3, "min": min(expected)}
    for reduce, score in reductions.items():
        (found,) = load(path, "score", settings={"reduce": reduce}).predict(["the good film"])
        assert found.output["score"] == pytest.approx(score, abs=1e-6)
        tokens = found.output["tokens"]
        assert isinstance(tokens, list)
        assert [token["score"] for token in tokens] == pytest.approx(expected, abs=1e-6)
        assert [token["doubt"] for token in tokens] == pytest.approx([token["score"] for token in replaced], abs=1e-6)
        assert [token["token"] for token in tokens] == ["the", "good", "film"]
        assert load(path, "score", settings={"reduce": reduce}).predict([""])[0].output["score"] == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_scores_do_not_depend_on_the_batch(method: str, tmp_path: Path) -> None:
    chance = random.Random(0)
    texts = [" ".join(chance.choices(["the", "good", "film", "playing", "好"], k=chance.randint(0, 24))) for _ in range(12)]
    path = saved(tmp_path / "model", energies=method == "electric", causal=method == "causal")
    predictor = load(path, "score", settings={"method": method, "max_length": 32})
    together = predictor.predict(texts)
    assert [prediction.text for prediction in together] == texts
    for text, prediction in zip(texts, together, strict=True):
        (alone,) = Predictor(predictor.network, predictor.task, batch_tokens=40).predict([text])
        assert alone.output["score"] == pytest.approx(prediction.output["score"], abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("packed", [False, True])
def test_layouts_agree_and_the_vocabulary_is_scored_at_one_place(packed: bool) -> None:
    network, task = masked_model(MODERN), Score(ScoreConfig(method="pll"), TOKENIZER)
    rows = [row for text in ("the film", "good") for row in task.encode(Example(text=text))]
    seen: list[tuple[int, ...]] = []
    network.head.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
    scores = network(collate(rows, 4, TOKENIZER.pad_id, packed))
    assert seen == [(3, 16)]
    assert scores.tolist() == pytest.approx([*scores_of(network, "the film", method="pll"),
                                             *scores_of(network, "good", method="pll")], abs=1e-5)  # fmt: skip


def test_of_a_long_text_every_token_is_masked_once_in_the_window_that_keeps_it() -> None:
    task = Score(ScoreConfig(method="pll", max_length=16), TOKENIZER)
    text = " ".join(random.Random(1).choices(["the", "good", "film", "was"], k=100))
    rows, encoding = task.encode(Example(text=text)), TOKENIZER.encode_literally(text)
    assert [int(row.targets["original"]) for row in rows] == encoding.ids[1:-1]
    assert [(int(row.targets["start"]), int(row.targets["end"])) for row in rows] == encoding.offsets[1:-1]
    for number, row in enumerate(rows, start=1):
        (place,) = (row.tokens == TOKENIZER.mask_id).nonzero()[0]
        assert place == row.targets["place"]
        assert len(row.tokens) == 16
        around = row.tokens.copy()
        around[place] = row.targets["original"]
        begin = number - int(place) + 1
        assert around[1:-1].tolist() == encoding.ids[begin : begin + 14]
        assert 4 <= place <= 11 or number < 4 or number > 97


def test_a_score_needs_what_its_method_reads(tmp_path: Path) -> None:
    only_discriminator = saved(tmp_path / "rtd", generator=False)
    with pytest.raises(ElectraError, match=r"E-M310 .* no generator or masked language model, which score by pll needs"):
        load(only_discriminator, "score", settings={"method": "pll"})
    only_masked = saved(tmp_path / "mlm", discriminator=False, generator=False)
    with pytest.raises(ElectraError, match=r"E-M310 .* no discriminator \(RTD\) head, which score by rtd needs"):
        load(only_masked, "score")
    assert load(only_masked, ScoreConfig(method="pll")).predict(["the film"])[0].output["method"] == "pll"
    assert load_model_dir(only_masked).mlm_head is not None


@pytest.mark.parametrize(
    ("tree", "code"),
    [
        ({"type": "score", "max_length": 4}, "E-C303"),
        ({"type": "score", "method": "plll"}, "E-C004"),
        ({"type": "score", "reduce": "max"}, "E-C004"),
    ],
)
def test_settings_are_checked(tree: dict[str, object], code: str) -> None:
    with pytest.raises(ElectraError, match=code):
        task_config(tree)


def test_settings_belong_to_a_task_that_is_named(tmp_path: Path) -> None:
    with pytest.raises(ElectraError, match="E-C570"):
        load(saved(tmp_path / "model"), settings={"top_k": 2})


def test_a_text_is_text_and_any_string_is_one(tmp_path: Path) -> None:
    texts = ["", " \n", "\x00", "\ud800 good", "e\u0301", "\U0001f469\U0001f3fd\u200d\U0001f680", "[SEP]"]
    for method in METHODS:
        path = saved(tmp_path / method, energies=method == "electric", causal=method == "causal")
        found = load(path, "score", settings={"method": method}).predict(texts)
        assert [prediction.text for prediction in found] == texts
        tokens = found[-1].output["tokens"]
        assert isinstance(tokens, list)
        assert "".join("[SEP]"[token["start"] : token["end"]] for token in tokens) == "[SEP]"
        assert len(tokens) > 1


def test_a_row_holds_what_the_network_needs() -> None:
    (row,) = Score(ScoreConfig(method="pll"), TOKENIZER).encode(Example(text="film"))
    assert isinstance(row, Encoded)
    batch: Batch = collate([row], 3, TOKENIZER.pad_id)
    assert batch.targets["place"].tolist() == [1]
    assert batch.targets["original"].tolist() == TOKENIZER.encode("film").ids[1:-1]
