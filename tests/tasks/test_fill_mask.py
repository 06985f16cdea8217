"""Replaced probabilities and fill-mask: what a network's outputs become."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from electra.contracts import Batch, Encoded, Example, Prediction
from electra.data.grid import collate
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.encoder import build_encoder
from electra.models.heads import MlmHead
from electra.predict.predictor import RoundsPredictor
from electra.tasks import task_config
from electra.tasks.common import rows_of
from electra.tasks.fill_mask import FillMask, FillMaskConfig, FillMaskNetwork
from electra.tasks.replaced import Replaced, ReplacedConfig
from electra.text.train_tokenizer import Kind
from electra.text.train_tokenizer import train as train_tokenizer

TOKENIZER = train_tokenizer(["the good film was playing", "电影 很 好"] * 3, vocab_size=80)
REPLACED = Replaced(ReplacedConfig(), TOKENIZER)
FILL = FillMask(FillMaskConfig(top_k=3), TOKENIZER)


def batch_of(task: Replaced | FillMask, texts: Sequence[str], packed: bool) -> tuple[Batch, list[Encoded]]:
    """One row a text, none of them too long for it."""
    items = [row for text in texts for row in task.encode(Example(text=text))]
    assert len(items) == len(texts)
    return collate(items, max(len(item.tokens) for item in items), TOKENIZER.pad_id, packed), items


def decoded(
    task: Replaced | FillMask, texts: Sequence[str], items: Sequence[Encoded], outputs: Tensor, batch: Batch
) -> list[Prediction]:
    rows = rows_of(outputs, batch.layout)
    return [task.decode(Example(text=text), [item], [row]) for text, item, row in zip(texts, items, rows, strict=True)]


@pytest.mark.parametrize("packed", [False, True])
def test_each_token_gets_its_own_probability_and_place_in_the_text(packed: bool) -> None:
    texts = ["The film", "", "  电影\n很 good"]
    batch, items = batch_of(REPLACED, texts, packed)
    logits = torch.arange(batch.tokens.numel(), dtype=torch.float32).view(batch.tokens.shape) / 100
    predictions = decoded(REPLACED, texts, items, logits, batch)
    assert [prediction.text for prediction in predictions] == texts
    seen = [[text[t["start"] : t["end"]] for t in p.output["tokens"]] for text, p in zip(texts, predictions, strict=True)]
    assert seen == [_spelled(text) for text in texts]
    assert predictions[1].output == {"score": 0.0, "tokens": []}
    third = [token["score"] for token in predictions[2].output["tokens"]]
    assert third == sorted(third)
    assert predictions[2].output["score"] == pytest.approx(sum(third) / len(third))
    row = batch.layout.cu_seqlens[2] if packed else 2 * batch.tokens.shape[1]
    assert third[0] == pytest.approx(float(torch.sigmoid((row + 1) / torch.tensor(100.0))))


def _spelled(text: str) -> list[str]:
    return [text[start:end] for start, end in TOKENIZER.encode(text).offsets if end > start]


def test_candidates_fill_the_text_as_it_was_written() -> None:
    texts = ["The [MASK]  was play [MASK]!", "nothing"]
    batch, items = batch_of(FILL, texts, packed=False)
    film, ing = (TOKENIZER.backend.token_to_id(token) for token in ("film", "##ing"))
    outputs = torch.zeros(*batch.tokens.shape, 1, 2)
    masked = (batch.tokens == TOKENIZER.mask_id).nonzero()
    for (row, place), token in zip(masked.tolist(), (film, ing), strict=True):
        outputs[row, place, 0] = torch.tensor([0.5, token])
    first, second = decoded(FILL, texts, items, outputs, batch)
    assert first.output["masks"] == [
        [{"score": 0.5, "token": film, "token_str": "film", "sequence": "The film  was play [MASK]!"}],
        [{"score": 0.5, "token": ing, "token_str": "##ing", "sequence": "The [MASK]  was playing!"}],
    ]
    assert second.output == {"masks": []}


def test_the_network_ranks_the_vocabulary_at_masks_only() -> None:
    torch.manual_seed(0)
    config = ClassicConfig(
        vocab_size=TOKENIZER.vocab_size, embedding_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    encoder, head = build_encoder(config), MlmHead(config)
    network = FillMaskNetwork(encoder, head, TOKENIZER.mask_id, top_k=3).eval()
    batch, _ = batch_of(FILL, ["the [MASK] was", "[MASK]", "good"], packed=False)
    outputs = network(batch)
    assert outputs.shape == (*batch.tokens.shape, 3, 2)
    masked = batch.tokens == TOKENIZER.mask_id
    assert not outputs[~masked].any()
    everywhere = head(encoder(batch.tokens, batch.positions, batch.types, batch.layout), encoder.embeddings.table)
    scores, tokens = torch.softmax(everywhere[masked], dim=-1).topk(3, dim=-1)
    torch.testing.assert_close(outputs[masked][..., 0], scores)
    assert outputs[masked][..., 1].long().tolist() == tokens.tolist()
    assert FillMaskNetwork(encoder, head, TOKENIZER.mask_id, top_k=10_000).top_k == TOKENIZER.vocab_size


class Alphabet(nn.Module):
    """At a mask: the letter behind that of its left neighbour (`x` behind none), .9, behind `b` .95; behind a mask `x`, .3."""

    def __init__(self, tokens: Sequence[int], mask: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.tokens, self.mask, self.passes = torch.tensor(tokens), mask, 0

    def forward(self, batch: Batch) -> Tensor:
        self.passes += len(batch.tokens)
        before = batch.tokens.roll(1, dims=-1)
        after = torch.full_like(before, int(self.tokens[-1]))
        for one, following in itertools.pairwise(self.tokens.tolist()):
            after[before == one] = following
        score = torch.where(before == self.mask, 0.3, torch.where(before == self.tokens[1], 0.95, 0.9))
        return torch.stack([score, after.float()], dim=-1)[..., None, :]


@pytest.mark.parametrize("max_length", [8, 128])
def test_masks_are_filled_together_the_surest_first(max_length: int) -> None:
    tokenizer = train_tokenizer(["a b c d x"] * 3, vocab_size=80)
    network = Alphabet([tokenizer.encode(letter).ids[1] for letter in "abcdx"], tokenizer.mask_id)
    task = FillMask(FillMaskConfig(joint=True, max_length=max_length), tokenizer)
    texts = ["a [MASK] [MASK]  [MASK]!", "nothing", "[MASK] b", " ".join(["d"] * 30 + ["a", "[MASK]", "[MASK]"])]
    predictions = RoundsPredictor({"generator": network}, task).predict(texts)
    alone = [[mask[0]["token_str"] for mask in one.output["masks"]] for one in predictions]  # type: ignore[attr-defined]
    assert alone == [["b", "x", "x"], [], ["x"], ["b", "x"]]
    together: list[Any] = [one.output["joint"] for one in predictions]
    assert [one["sequence"] for one in together] == ["a b c  d!", "nothing", "x b", " ".join(["d"] * 30 + ["a", "b", "c"])]
    assert [fill["token_str"] for fill in together[0]["fills"]] == ["b", "c", "d"]
    assert [fill["order"] for fill in together[0]["fills"]] == [1, 2, 3]
    assert together[0]["score"] == pytest.approx(0.9 * 0.95 * 0.9)
    assert together[1] == {"sequence": "nothing", "score": 1, "fills": []}
    one_by_one = [RoundsPredictor({"generator": network}, task).predict([text])[0] for text in texts]
    assert [one.output for one in one_by_one] == [one.output for one in predictions]


def test_the_surest_mask_is_not_always_the_left_one() -> None:
    tokenizer = train_tokenizer(["a b c d x"] * 3, vocab_size=80)
    network = Alphabet([tokenizer.encode(letter).ids[1] for letter in "abcdx"], tokenizer.mask_id)
    task = FillMask(FillMaskConfig(joint=True), tokenizer)
    (prediction,) = RoundsPredictor({"generator": network}, task).predict(["[MASK] [MASK] b [MASK]"])
    joint: Any = prediction.output["joint"]
    assert [(fill["token_str"], fill["order"]) for fill in joint["fills"]] == [("x", 2), ("x", 3), ("c", 1)]
    assert network.passes == 3


@pytest.mark.parametrize(
    ("tree", "code"),
    [
        ({"type": "replaced", "max_length": 4}, "E-C303"),
        ({"type": "fill-mask", "max_length": 4}, "E-C303"),
        ({"type": "fill-mask", "top_k": 0}, "E-C304"),
        ({"type": "replaced", "top_k": 3}, "E-C004"),
    ],
)
def test_settings_are_checked(tree: dict[str, object], code: str) -> None:
    with pytest.raises(ElectraError, match=code):
        task_config(tree)


def test_scoring_tasks_are_built_by_name() -> None:
    assert isinstance(task_config("replaced").build(TOKENIZER), Replaced)
    assert isinstance(task_config("fill-mask").build(TOKENIZER), FillMask)
    with pytest.raises(ElectraError, match="did you mean replaced"):
        task_config("replacd")


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_a_filled_text_has_its_spaces_whatever_the_kind_of_tokenizer(kind: Kind) -> None:
    tokenizer = train_tokenizer(["the good film was playing", "good films"] * 9, vocab_size=300, kind=kind)
    fill = FillMask(FillMaskConfig(), tokenizer)
    for text, filled in (("the [MASK] was", "the film was"), ("[MASK] was", "film was"), ("the [MASK]", "the film")):
        (token,) = tokenizer.encode_documents(["the film"])[0].ids[1:]
        rows = fill.encode(Example(text=text))
        outputs = [torch.full((len(row.tokens), 1, 2), float(token)) for row in rows]
        (masks,) = fill.decode(Example(text=text), rows, outputs).output["masks"]
        assert [candidate["sequence"] for candidate in masks] == [filled]
