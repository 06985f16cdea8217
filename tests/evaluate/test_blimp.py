"""Minimal pairs: ties are wrong and counted, permutations are found, and a score belongs to its sentence alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from electra.cli import app
from electra.config import load
from electra.contracts import Padded
from electra.errors import ElectraError
from electra.evaluate.blimp import BlimpConfig, compared, evaluate_blimp, read_pairs, text_scores
from electra.models.classic import ClassicConfig
from electra.models.encoder import Encoder, build_encoder
from electra.models.heads import EnergyHead, MlmHead, RtdHead
from electra.models.model_dir import ModelDir, Provenance, load_model_dir, save_model_dir
from electra.models.modern import ModernConfig
from electra.text.train_tokenizer import train as train_tokenizer

TOKENIZER = train_tokenizer(["the dog barks at a cat .", "dogs bark", "A cat sleeps ."] * 3, vocab_size=90)
SIZES = {"vocab_size": TOKENIZER.vocab_size, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "classic": ClassicConfig(**SIZES, embedding_size=16, intermediate_size=32, max_position_embeddings=40),
    "modern": ModernConfig(**SIZES, intermediate_size=24, max_position_embeddings=40),
}
PAIRS = {
    "agreement": [("the dog barks", "the dog bark"), ("dogs bark", "dogs barks"), ("a cat sleeps .", "a cat sleep .")],
    "order": [("the dog barks at a cat", "barks the dog at a cat"), ("A cat sleeps", "sleeps a cat")],
    "same": [("the  dog barks", "the dog barks")],
}


def write(folder: Path, pairs: dict[str, list[tuple[str, str]]]) -> Path:
    folder.mkdir()
    for name, some in pairs.items():
        rows = [{"sentence_good": good, "sentence_bad": bad, "linguistics_term": f"{name} of words", "UID": name, "field": "x"}
                for good, bad in some]  # fmt: skip
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return folder


def model_dir(family: str, place: Path) -> ModelDir:
    """A discriminator and a generator with random weights."""
    torch.manual_seed(3)
    config = CONFIGS[family]
    save_model_dir(
        place, encoder=build_encoder(config), head=RtdHead(config), generator=(build_encoder(config), MlmHead(config)),
        provenance=Provenance(tokenizer=TOKENIZER, card=lambda: "# A model\n"),
    )  # fmt: skip
    return load_model_dir(place)


def test_only_strictly_better_counts() -> None:
    scores = np.array([[-1.0, -2.0], [-2.0, -1.0], [-3.0, -3.0], [-10.0, -10.000001], [np.nan, -1.0], [0.0, 0.0]])
    assert compared(scores).tolist() == [1, -1, 0, 0, 0, 0]


def test_floors_accuracies_and_permutations(tmp_path: Path) -> None:
    data = write(tmp_path / "pairs", PAIRS)
    (tmp_path / "text.txt").write_text("the dog barks. the dog barks at a cat. a cat sleeps. dogs bark.", encoding="utf-8")
    frequency = evaluate_blimp(None, BlimpConfig(data=data, scorer="unigram", text=tmp_path / "text.txt"))
    assert frequency["scorer"] == "1-gram of text.txt"
    assert {name: each["permutation"] for name, each in frequency["sets"].items()} == {
        "agreement": False, "order": True, "same": True,
    }  # fmt: skip
    assert frequency["sets"]["order"]["ties"] == 2
    assert frequency["all"]["ties"] == 3  # and the pair that differs in a space
    assert frequency["all"]["accuracy"] == pytest.approx((2 / 3 + 0 + 0) / 3)  # a mean over sets
    assert frequency["without_permutations"]["accuracy"] == pytest.approx(2 / 3)
    low, high = frequency["without_permutations"]["interval"]
    assert low <= 2 / 3 <= high
    assert set(frequency["phenomena"]) == {"agreement of words", "order of words", "same of words"}
    words = ["suite=blimp", f"data={data}", "scorer=unigram", f"text={tmp_path / 'text.txt'}"]
    assert json.loads(CliRunner().invoke(app, ["evaluate", *words]).stdout) == frequency
    trigrams = evaluate_blimp(None, BlimpConfig(data=data, scorer="ngram", text=tmp_path / "text.txt", resamples=0))
    assert trigrams["sets"]["order"]["accuracy"] == 1
    assert "interval" not in trigrams["all"]


def hidden_of(encoder: Encoder, tokens: Tensor) -> Tensor:
    layout = Padded(segments=torch.zeros_like(tokens), whole=True)
    found: Tensor = encoder(tokens, torch.arange(tokens.shape[1])[None], torch.zeros_like(tokens), layout)
    return found


@pytest.mark.parametrize("family", ["classic", "modern"])
def test_the_formulas(family: str, tmp_path: Path) -> None:
    model, text = model_dir(family, tmp_path / "model"), "the dog barks"
    ids = TOKENIZER.encode(text).ids
    assert model.rtd_head is not None
    assert model.generator is not None
    with torch.inference_mode():
        z = model.rtd_head(hidden_of(model.encoder, torch.tensor([ids])))[0, 1:-1]
        original = torch.log(1 - torch.sigmoid(z.double()))
        total = 0.0
        for place in range(1, len(ids) - 1):
            masked = torch.tensor([ids])
            masked[0, place] = TOKENIZER.mask_id
            generator = model.generator
            hidden = hidden_of(generator.encoder, masked)[0]
            logits = generator.mlm_head(hidden, generator.encoder.embeddings.table)
            total += float(torch.log_softmax(logits, -1)[place, ids[place]])
    for reduce, expected in (("sum", original.sum()), ("mean", original.mean()), ("min", original.min())):
        assert text_scores(model, [text], "rtd", reduce) == pytest.approx([float(expected)], rel=1e-5)  # type: ignore[arg-type]
    assert text_scores(model, [text], "pll") == pytest.approx([total], rel=1e-5)


@pytest.mark.parametrize("family", ["classic", "modern"])
def test_a_score_belongs_to_its_sentence_alone(family: str, tmp_path: Path) -> None:
    """Whatever is scored beside it, and in whatever order; far closer than what counts as a tie."""
    model = model_dir(family, tmp_path / "model")
    texts = [text for some in PAIRS.values() for pair in some for text in pair] + ["", "the dog barks at the dog . " * 2]

    def scores(texts: Sequence[str]) -> list[list[float]]:
        return [text_scores(model, texts, "rtd"), text_scores(model, texts, "pll"), text_scores(model, texts, "pll-word-l2r")]

    together = scores(texts)
    assert [list(reversed(each)) for each in scores(texts[::-1])] == together
    alone = [[score for [score] in each] for each in zip(*(scores([text]) for text in texts), strict=True)]
    for one, other in zip(together, alone, strict=True):
        assert other == pytest.approx(one, rel=1e-6, abs=1e-6)
    assert together[0][len(PAIRS["agreement"]) * 2 + 4] == together[0][len(PAIRS["agreement"]) * 2 + 5]  # same tokens
    assert [each[-2] for each in together] == [0, 0, 0]


def test_the_scorer_follows_the_model(tmp_path: Path) -> None:
    data = write(tmp_path / "pairs", PAIRS)
    model_dir("modern", tmp_path / "both")
    assert evaluate_blimp(tmp_path / "both", BlimpConfig(data=data))["scorer"] == "rtd"
    assert evaluate_blimp(tmp_path / "both" / "generator", BlimpConfig(data=data))["scorer"] == "pll"
    by_word = evaluate_blimp(tmp_path / "both", BlimpConfig(data=data, scorer="pll-word-l2r", reduce="mean"))
    assert by_word["scorer"] == "pll-word-l2r-mean"
    with pytest.raises(ElectraError, match="E-M310"):
        evaluate_blimp(tmp_path / "both" / "generator", BlimpConfig(data=data, scorer="rtd"))
    limited = evaluate_blimp(tmp_path / "both", BlimpConfig(data=data, limit=1))
    assert limited["all"]["pairs"] == 3


def test_energies_score_sentences(tmp_path: Path) -> None:
    torch.manual_seed(3)
    encoder, head = build_encoder(CONFIGS["modern"]), EnergyHead(CONFIGS["modern"])
    save_model_dir(
        tmp_path / "model", encoder=encoder, head=head, provenance=Provenance(tokenizer=TOKENIZER, card=lambda: "# A model\n")
    )
    found = evaluate_blimp(tmp_path / "model", BlimpConfig(data=write(tmp_path / "pairs", PAIRS)))
    assert found["scorer"] == "electric"
    with torch.inference_mode():
        energies = head(hidden_of(encoder.eval(), torch.tensor([TOKENIZER.encode("a cat sleeps .").ids])))[0, 1:-1]
    [score] = text_scores(load_model_dir(tmp_path / "model"), ["a cat sleeps ."], "electric")
    assert score == pytest.approx(-float(energies.sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        (["data=pairs", "scorer=ngram"], "E-C581 text: .* add text=FILE"),
        (["data=pairs", "scorer=pll", "text=t.txt"], "E-C581 text: .* leave it out"),
        (["data=pairs", "scorer=ngram", "text=t.txt", "order=1"], "E-C581"),
        (["data=pairs", "scorer=ngram", "text=t.txt", "reduce=mean"], "E-C581"),
        (["data=pairs", "scores=rtd"], "E-C004"),
    ],
)
def test_settings_that_do_not_go_together(settings: list[str], code: str) -> None:
    with pytest.raises(ElectraError, match=code):
        load(BlimpConfig, [], settings)


def test_bad_data(tmp_path: Path) -> None:
    data = write(tmp_path / "pairs", PAIRS)
    with pytest.raises(ElectraError, match="E-C581"):
        evaluate_blimp(None, BlimpConfig(data=data))
    with pytest.raises(ElectraError, match=r"E-C581 .*scorer=ngram counts words and asks no model; leave it out"):
        evaluate_blimp(tmp_path, BlimpConfig(data=data, scorer="ngram", text=tmp_path))
    (data / "agreement.jsonl").write_text('{"sentence_good": "a", "linguistics_term": "x", "UID": "y"}\n', encoding="utf-8")
    with pytest.raises(ElectraError, match=r"E-D583 .*agreement.jsonl:1.*sentence_bad"):
        read_pairs(data)
    with pytest.raises(ElectraError, match="E-D583"):
        read_pairs(tmp_path)


def test_a_long_sentence_is_read_in_windows(tmp_path: Path) -> None:
    model = model_dir("classic", tmp_path / "model")
    one, other = text_scores(model, ["dog " * 60, "dog " * 59 + "cat"], "rtd")
    assert one != other
