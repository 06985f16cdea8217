"""Blanks filled in rounds, and drafts rewritten: what changes, what stays, and that rounds and doubt do what they say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from electra.errors import ElectraError
from electra.models.encoder import build_encoder
from electra.models.heads import MlmHead, RtdHead
from electra.models.model_dir import Provenance, save_model_dir
from electra.models.modern import ModernConfig
from electra.predict.predictor import load
from electra.predict.refine import Page, Refiner, check_rounds, load_refiner
from electra.text.tokenizer import Tokenizer
from electra.text.train_tokenizer import train

TEXTS = ["the reader opens the wooden gate slowly , and leaves", "老师打开了木头的大门，没有说话。"]


def pair(tokenizer: Tokenizer, path: Path, bias: float = 0.0) -> Path:
    """Generator and discriminator that nobody has trained; `bias` is the doubt about every token."""
    torch.manual_seed(0)
    sizes = ModernConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        initializer_range=0.3,
    )  # fmt: skip
    head = MlmHead(sizes)
    with torch.no_grad():
        head.bias[list(tokenizer.special_ids)] = 50.0  # what must never be written is the most likely
    save_model_dir(
        path, encoder=build_encoder(sizes), head=RtdHead(sizes, bias), generator=(build_encoder(sizes), head),
        provenance=Provenance(tokenizer=tokenizer, card=lambda: "# A model\n"),
    )  # fmt: skip
    return path


@pytest.fixture(scope="module", params=["wordpiece", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return train(TEXTS * 4, 300, kind=request.param)


@pytest.fixture
def refiner(tokenizer: Tokenizer, tmp_path: Path) -> Refiner:
    return load_refiner(pair(tokenizer, tmp_path / "m"))


BLANKS = ["the reader [MASK] the [MASK] gate [MASK]", "老师[MASK]开了[MASK][MASK]的大门。", "[MASK]", "nothing here", ""]


def test_every_blank_is_filled_and_the_rest_stays_as_it_was_written(refiner: Refiner) -> None:
    for rounds in (1, 3):
        found = refiner.fill(BLANKS, rounds)
        assert [one.changed for one in found] == [3, 3, 1, 0, 0]
        assert [one.rounds for one in found[:2]] == [rounds, rounds]
        assert [one.sequence for one in found[3:]] == BLANKS[3:]
        assert found[0].sequence.startswith("the reader")
        assert " the" in found[0].sequence
        assert found[1].sequence.startswith("老师")
        assert found[1].sequence.endswith("的大门。")
        assert not any(special in one.sequence for one in found for special in ("[MASK]", "[PAD]", "[UNK]", "[SEP]", "[CLS]"))


def test_one_round_is_the_best_token_of_each_blank_that_is_not_special(refiner: Refiner, tokenizer: Tokenizer) -> None:
    text = BLANKS[0]
    found = refiner.generator.predict([text])[0].output["masks"]
    assert isinstance(found, list)
    best = [next(one["token"] for one in each if one["token"] not in tokenizer.special_ids) for each in found]
    ids = iter(best)
    encoding = tokenizer.encode(text).ids
    expected = [next(ids) if token == tokenizer.mask_id else token for token in encoding]
    # texts are compared, for whether spaces stand between words is a matter of the tokenizer
    squeezed = "".join(refiner.fill([text], 1)[0].sequence.split()).lower()
    assert squeezed == "".join(tokenizer.decode(expected).split()).lower().replace("##", "")


def test_each_round_fills_the_most_doubtful_anew_and_fewer_of_them(refiner: Refiner) -> None:
    seen: list[list[int]] = []

    class Last(Refiner):
        """Doubts the last tokens most, and writes down which are masked."""

        def doubts(self, pages: Sequence[Page]) -> list[npt.NDArray[np.float32]]:
            return [np.arange(len(page.tokens), dtype=np.float32) for page in pages]

        def _fill(self, pages: Sequence[Page]) -> None:
            seen.append(sorted(pages[0].masked.tolist()))
            super()._fill(pages)

    text = "[MASK]" * 8
    Last(refiner.generator, refiner.discriminator).fill([text], 4)
    assert seen == [list(range(1, 9)), [3, 4, 5, 6, 7, 8], [5, 6, 7, 8], [7, 8]]
    seen.clear()
    tokens = len(refiner.tokenizer.encode_literally("the gate " * 20).ids) - 2
    Last(refiner.generator, refiner.discriminator).rewrite(["the gate " * 20], 2)
    assert [len(masked) for masked in seen] == [round(0.15 * tokens), round(0.075 * tokens)]
    assert all(masked == list(range(tokens + 1 - len(masked), tokens + 1)) for masked in seen)


def test_a_discriminator_that_believes_everything_rewrites_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    text = "the reader [MASK] opens the gate " * 3
    believing = load_refiner(pair(tokenizer, tmp_path / "calm", bias=-50.0))
    assert believing.rewrite([text, ""], 3)[0].sequence == text
    doubting = load_refiner(pair(tokenizer, tmp_path / "doubt", bias=50.0))
    [found] = doubting.rewrite([text], 1)
    tokens = len(tokenizer.encode_literally(text).ids) - 2
    assert 0 < found.changed <= round(0.15 * tokens)
    assert doubting.rewrite([text], 4)[0].rounds == 4


def test_long_texts_are_read_in_windows(refiner: Refiner) -> None:
    text = "the reader opens [MASK] gate " * 60
    [found] = refiner.fill([text], 2)
    assert found.changed == 60
    assert "[MASK]" not in found.sequence


def test_what_is_missing_is_said(tokenizer: Tokenizer, tmp_path: Path) -> None:
    sizes = ModernConfig(vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                         intermediate_size=24)  # fmt: skip
    provenance = Provenance(tokenizer=tokenizer, card=lambda: "# A model\n")
    save_model_dir(tmp_path / "m", encoder=build_encoder(sizes), head=RtdHead(sizes), provenance=provenance)
    with pytest.raises(ElectraError, match=r"E-M310 .*generator"):
        load_refiner(tmp_path / "m")
    with pytest.raises(ElectraError, match="E-C627"):
        check_rounds(0)
    assert load(pair(tokenizer, tmp_path / "p"), "replaced")
