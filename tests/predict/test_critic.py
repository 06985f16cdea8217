"""Reranking: what both kinds of critic say, by hand; the order; the weight."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from electra.contracts import Packed
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.encoder import build_encoder
from electra.models.heads import ClassificationHead, MlmHead, RtdHead
from electra.models.model_dir import Provenance, load_model_dir, save_model_dir
from electra.predict.critic import load_critic, tune_weight
from electra.predict.predictor import load
from electra.predict.writer import Draft
from electra.text.train_tokenizer import train

TOKENIZER = train(["the reader opens the wooden gate slowly"] * 4, 80)
SIZES = ClassicConfig(
    vocab_size=TOKENIZER.vocab_size, embedding_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=24, max_position_embeddings=32, initializer_range=0.5,
)  # fmt: skip
PROVENANCE = Provenance(tokenizer=TOKENIZER, card=lambda: "# A model\n")


def draft(text: str, log_probability: float = -4.0, tokens: int = 2) -> Draft:
    return Draft(prompt="the reader", text=text, tokens=tokens, log_probability=log_probability, score=0.0, ended="end")


DRAFTS = [draft(" opens the gate"), draft(" slowly [MASK] the", -1.0), draft("", -1.0, 1)]


def test_a_discriminator_judges_the_tokens_of_the_draft_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_model_dir(tmp_path / "m", encoder=build_encoder(SIZES), head=RtdHead(SIZES), provenance=PROVENANCE)
    model = load_model_dir(tmp_path / "m")
    assert model.rtd_head is not None
    for one, said in zip(DRAFTS[:2], load_critic(tmp_path / "m").judge(DRAFTS), strict=False):
        ids = torch.tensor(TOKENIZER.encode_literally(one.prompt + one.text).ids)
        assert TOKENIZER.mask_id not in ids
        layout = Packed(cu_seqlens=torch.tensor([0, len(ids)], dtype=torch.int32), max_seqlen=len(ids))
        with torch.inference_mode():
            logits = model.rtd_head(model.encoder(ids, torch.arange(len(ids)), torch.zeros_like(ids), layout))
        first = 1 + len(TOKENIZER.encode_documents([one.prompt])[0].ids)
        assert said == pytest.approx(float(F.logsigmoid(-logits[first:-1]).mean()), abs=1e-5)


def test_a_classifier_says_how_real_prompt_and_draft_are(tmp_path: Path) -> None:
    torch.manual_seed(0)
    labels, task = ("fake", "real"), {"type": "classify", "labels": ["fake", "real"], "max_length": 32}
    head = ClassificationHead(SIZES, 2)
    save_model_dir(tmp_path / "m", encoder=build_encoder(SIZES), head=head, labels=labels, task=task, provenance=PROVENANCE)
    [found] = load(tmp_path / "m").predict([DRAFTS[0].prompt + DRAFTS[0].text])
    score = float(str(found.output["score"]))
    said = load_critic(tmp_path / "m").judge(DRAFTS)[0]
    assert math.exp(said) == pytest.approx(score if found.output["label"] == "real" else 1 - score, abs=1e-5)


def test_drafts_are_ranked_by_likelihood_and_critic(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_model_dir(tmp_path / "m", encoder=build_encoder(SIZES), head=RtdHead(SIZES), provenance=PROVENANCE)
    critic = load_critic(tmp_path / "m")
    likely = critic.rerank(DRAFTS, weight=0.0)
    assert [one.score for one in likely] == [-0.5, -1.0, -2.0]
    judged = critic.rerank(DRAFTS, weight=100.0)
    assert [one.critic for one in judged] == sorted((one.critic for one in judged if one.critic), reverse=True)
    assert judged[-1].text == "", "nothing at all is no real text"


def test_the_weight_is_that_whose_first_drafts_agree_best() -> None:
    some = [[replace(draft("a", -2.0), critic=-3.0), replace(draft("b", -4.0), critic=-1.5)]]
    # b overtakes a where -2 - 1.5 w > -1 - 3 w, at w = 2/3
    assert tune_weight(some, ["b"], lambda said, wanted: float(said == wanted)) == 1.0
    assert tune_weight(some, ["a"], lambda said, wanted: float(said == wanted)) == 0.0


@pytest.mark.parametrize("labels", [None, ("bad", "good")])
def test_what_is_no_critic_is_refused(labels: tuple[str, ...] | None, tmp_path: Path) -> None:
    head = MlmHead(SIZES) if labels is None else ClassificationHead(SIZES, 2)
    task = None if labels is None else {"type": "classify", "labels": list(labels), "max_length": 32}
    save_model_dir(
        tmp_path / "m", encoder=build_encoder(SIZES), head=head, labels=labels or (), task=task, provenance=PROVENANCE
    )
    with pytest.raises(ElectraError, match="E-M626"):
        load_critic(tmp_path / "m")
