"""Corrections: planted errors are mended, clean text is left alone, places are right, thresholds decide.

The networks are rules.

The language: a colour is followed by its fruit (`red apple`, `yellow banana`, `green pear`); a fruit behind another colour is
odd, and nothing else is, but for `blob`, which is always a little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from electra.contracts import Batch, Prediction
from electra.errors import ElectraError
from electra.predict.predictor import RoundsPredictor
from electra.tasks import task_config
from electra.tasks.correct import Correct, CorrectConfig, tuned_suspicion
from electra.text.train_tokenizer import train as train_tokenizer

RULES = {"red": "apple", "yellow": "banana", "green": "pear", "红": "果"}
TOKENIZER = train_tokenizer(
    [" ".join([*RULES, *RULES.values(), "blob", "叶", "the", ",", "."])] * 5, vocab_size=150, lowercase=True
)
RULE = {TOKENIZER.encode(a).ids[1]: TOKENIZER.encode(b).ids[1] for a, b in RULES.items()}
BLOB, APPLE = TOKENIZER.encode("blob").ids[1], TOKENIZER.encode("apple").ids[1]
FRUIT = torch.tensor([*RULE.values(), TOKENIZER.encode("叶").ids[1]])


def logit(probability: float) -> float:
    return float(torch.logit(torch.tensor(probability)))


class Rule(nn.Module):
    """What both networks know: which token should follow each one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.asked = 0

    def wanted(self, tokens_BL: Tensor) -> Tensor:
        """[B, L], the fruit of the colour before each token; -1 where there is none. Rows must have one frame of specials."""
        for special in (TOKENIZER.cls_id, TOKENIZER.sep_id):
            assert ((tokens_BL == special).sum(dim=1) == 1).all()
        last = tokens_BL.shape[1] - 1 - (tokens_BL == TOKENIZER.pad_id).sum(dim=1)
        assert (tokens_BL[torch.arange(len(last)), last] == TOKENIZER.sep_id).all()
        before = tokens_BL.roll(1, dims=1)
        wanted = torch.full_like(tokens_BL, -1)
        for colour, fruit in RULE.items():
            wanted[before == colour] = fruit
        return wanted


class Detector(Rule):
    def forward(self, batch: Batch) -> Tensor:
        self.asked += len(batch.tokens)
        wanted = self.wanted(batch.tokens)
        odd = torch.isin(batch.tokens, FRUIT) & (wanted >= 0) & (batch.tokens != wanted)
        slight = torch.full(odd.shape, logit(0.02)).masked_fill(batch.tokens == BLOB, logit(0.6))
        return slight.masked_fill(odd, logit(0.9))


class Proposer(Rule):
    """Proposes, in this order: [SEP], the comma, `##` pieces, then what the rule wants (else `apple`), then `blob`."""

    def forward(self, batch: Batch) -> Tensor:
        self.asked += len(batch.tokens)
        assert ((batch.tokens == TOKENIZER.mask_id).sum(dim=1) == 1).all()
        best = self.wanted(batch.tokens)
        best[best < 0] = APPLE
        piece = next(token for token in range(TOKENIZER.vocab_size) if TOKENIZER.token_text(token).startswith("##"))
        fixed = [torch.full_like(best, token) for token in (TOKENIZER.sep_id, TOKENIZER.encode(",").ids[1], piece)]
        tokens = torch.stack([*fixed, best, torch.full_like(best, BLOB)], dim=-1).float()
        return torch.stack([torch.full_like(tokens, 0.1), tokens], dim=-1)


def corrector(**settings: Any) -> RoundsPredictor:
    networks = {"discriminator": Detector(), "generator": Proposer()}
    return RoundsPredictor(networks, Correct(CorrectConfig(**settings), TOKENIZER))


def said(texts: Sequence[str], **settings: Any) -> list[Any]:
    return [prediction.output for prediction in corrector(**settings).predict(texts)]


def test_planted_errors_are_mended_with_their_places() -> None:
    texts = [
        " the  red banana, the green pear .",
        "the yellow Pear",
        "一红叶，红果。\U0001f600",
        "the red pear and green apple",
    ]
    found = said(texts)
    assert [one["corrected"] for one in found] == [
        " the  red apple, the green pear .", "the yellow Banana", "一红果，红果。\U0001f600", "the red apple and green pear"
    ]  # fmt: skip
    for text, one in zip(texts, found, strict=True):
        for edit in one["edits"]:
            assert text[edit["start"] : edit["end"]] == edit["old"]
            assert (edit["before"], edit["after"]) == (pytest.approx(0.9), pytest.approx(0.02))
        assert one["token_count"] == len(TOKENIZER.encode(text).ids) - 2
    assert [[edit["round"] for edit in one["edits"]] for one in found] == [[1], [1], [1], [1, 2]]


def test_clean_text_is_left_alone_and_nothing_is_proposed_for_it() -> None:
    predictor = corrector()
    texts = ["the red apple, the green pear", "", "yellow banana [SEP]", "12 \x00 \ud800"]
    found = predictor.predict(texts)
    assert [one.text for one in found] == texts
    assert [(one.output["corrected"], one.output["edits"]) for one in found] == [(text, []) for text in texts]
    assert [network.asked for network in predictor.networks.values()] == [4, 0]


def test_an_edit_needs_suspicion_and_a_fall_and_a_round() -> None:
    assert said(["red pear"], suspicion=0.95)[0]["edits"] == []
    assert said(["red pear"], fall=0.89)[0]["edits"] == []
    (edit,) = said(["red pear"], fall=0.87)[0]["edits"]
    assert (edit["old"], edit["new"]) == ("pear", "apple")
    assert said(["red pear, green apple"], rounds=1)[0]["corrected"] == "red apple, green apple"
    assert said(["red blob"])[0]["corrected"] == "red apple"
    assert said(["the blob"], top_k=3)[0]["corrected"] == "the apple"
    assert said(["the blob"], fall=0.59)[0]["edits"] == []


def test_what_is_less_probable_than_the_old_word_is_not_tried() -> None:
    """`apple` is the generator's best behind `the`, so `apple` is not exchanged for `blob` however odd it is."""

    class Odd(Detector):
        def forward(self, batch: Batch) -> Tensor:
            return torch.where(batch.tokens == APPLE, logit(0.95), logit(0.01))

    networks = {"discriminator": Odd(), "generator": Proposer()}
    (prediction,) = RoundsPredictor(networks, Correct(CorrectConfig(), TOKENIZER)).predict(["the apple"])
    assert prediction.output["edits"] == []


def test_what_the_generator_would_hardly_put_there_does_not_win_by_the_discriminators_blindness() -> None:
    class Two(Proposer):
        """Proposes `apple`, then what is right, with these probabilities."""

        def __init__(self, *sure: float) -> None:
            super().__init__()
            self.sure = sure

        def forward(self, batch: Batch) -> Tensor:
            right = self.wanted(batch.tokens).clamp(min=0).float()
            tokens = torch.stack([torch.full_like(right, APPLE), right], dim=-1)
            return torch.stack([torch.tensor(self.sure).expand(tokens.shape), tokens], dim=-1)

    task = Correct(CorrectConfig(), TOKENIZER)
    for first, second, expected in ((0.9, 0.01, "green banana"), (0.5, 0.4, "green pear")):
        networks = {"discriminator": Detector(), "generator": Two(first, second)}
        (prediction,) = RoundsPredictor(networks, task).predict(["green banana"])  # `apple` is 10 % original there
        assert prediction.output["corrected"] == expected


def test_a_long_text_is_mended_throughout_and_in_few_rounds() -> None:
    text = ", ".join(["the red apple", "yellow banana"] * 40)
    wrong = text.replace("red apple", "red pear", 1)
    wrong = wrong[: len(wrong) // 2] + wrong[len(wrong) // 2 :].replace("yellow banana", "yellow pear", 1)
    for length in (16, 32, 512):
        (one,) = said([wrong], max_length=length)
        assert one["corrected"] == text
        assert [edit["round"] for edit in one["edits"]] == ([1, 1] if length < 100 else [1, 2])
    (one,) = said(["red pear " * 30], max_length=16, rounds=30)
    assert one["corrected"] == "red apple " * 30


def test_texts_do_not_disturb_each_other() -> None:
    texts = ["red pear", "the red pear and green apple", "the", "green banana, " * 3, "blob"]
    together = said(texts)
    assert together == [said([text])[0] for text in texts]


def edited(tokens: int, *edits: tuple[int, float]) -> Prediction:
    made = [{"round": number, "before": before} for number, before in edits]
    return Prediction(text="", output={"corrected": "", "edits": made, "token_count": tokens})


def test_the_suspicion_that_leaves_clean_text_alone() -> None:
    clean = [edited(900, (1, 0.8), (2, 0.9)), edited(1000, (1, 0.7)), edited(200)]
    assert tuned_suspicion(clean, 2) == 0.0  # 4 are allowed, 3 are there
    assert 0.7 < tuned_suspicion(clean, 1) < 0.7001  # 2 are allowed: the second one of the first text is made with the first
    assert 0.8 < tuned_suspicion(clean, 0.5) < 0.8001  # 1 is allowed, but .8 lets two through
    assert tuned_suspicion([edited(10)]) == 0.0


def test_tuning_leaves_the_allowed_edits() -> None:
    clean = ["the blob"] * 3 + ["the red apple"] * 300
    predictor = corrector(suspicion=0.95)
    task = predictor.task
    assert isinstance(task, Correct)
    predictor.task = task.boldest()
    assert sum(len(str(one.output["edits"])) > 2 for one in predictor.predict(clean)) == 3
    predictor.task = task.tuned(predictor.predict(clean), per_thousand=1)
    assert sum(len(str(one.output["edits"])) > 2 for one in predictor.predict(clean)) == 0
    assert said(["red pear"], suspicion=predictor.task.config.suspicion)[0]["corrected"] == "red apple"  # type: ignore[attr-defined]


@pytest.mark.parametrize("setting", [{"suspicion": 0.0}, {"fall": -0.1}, {"top_k": 0}, {"rounds": 0}])
def test_settings_are_checked(setting: dict[str, object]) -> None:
    with pytest.raises(ElectraError, match="E-C571"):
        task_config({"type": "correct", **setting})
