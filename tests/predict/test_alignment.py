"""Where a model looked while it wrote: the weights are transformers', the lines and the page say them, others are refused."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from electra import cli
from electra.errors import ElectraError
from electra.evaluate.alignment_page import alignment_page, alignment_picture
from electra.models.classic import ClassicConfig
from electra.models.decoding_config import DecodingConfig
from electra.models.encoder import build_encoder
from electra.models.generation import GenerationHead
from electra.models.heads import RtdHead
from electra.models.model_dir import Provenance, save_model_dir
from electra.models.modern import ModernConfig
from electra.predict.alignment import AligningPredictor
from electra.predict.predictor import load
from electra.tasks.generate import Generate, GenerateConfig
from electra.text.train_tokenizer import train

SOURCES = ["The cat sat on the mat", "a dog", "", "the dog and the cat sat on a log and the mat sat on a dog <&>",
           "the dog sat on the cat and " * 9 + "a mat"]  # fmt: skip
TOKENIZER = train(["the cat sat on the mat", "a dog and the cat on a log"] * 4, 80, lowercase=True)
SIZES: dict[str, Any] = {
    "vocab_size": TOKENIZER.vocab_size, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "initializer_range": 0.5, "max_position_embeddings": 32,
}  # fmt: skip
CONFIGS = {"classic": ClassicConfig(embedding_size=16, **SIZES), "modern": ModernConfig(**SIZES)}
PROVENANCE = Provenance(tokenizer=TOKENIZER, card=lambda: "# Small\n")


def saved(place: Path, family: str, **decoding: Any) -> Path:
    """A model of random weights that writes, its sources read in two windows of 16 tokens at most."""
    torch.manual_seed(0)
    settings = DecodingConfig(max_new_tokens=12, **decoding)
    task = Generate(GenerateConfig(max_length=16, max_windows=2, target_length=12, decoding=settings), TOKENIZER)
    encoder = build_encoder(CONFIGS[family]).eval()
    head = task.head(encoder).eval()
    assert isinstance(head, GenerationHead)
    with torch.no_grad():
        head.decoder.head.bias.normal_()
        head.decoder.head.bias[TOKENIZER.sep_id] += 1.0  # so that outputs end
    save_model_dir(place, encoder=encoder, head=head, task=task.to_json(), provenance=PROVENANCE)
    return place


@pytest.fixture(scope="module")
def classic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("classic") / "model", "classic")


def aligned(path: Path) -> list[dict[str, Any]]:
    return [dict(one.output) for one in AligningPredictor(load(path)).predict(SOURCES)]


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("decoding", [{}, {"num_beams": 3, "num_return_sequences": 2}], ids=str)
def test_predictions_are_the_same_and_say_where_each_token_was_found(
    family: str, decoding: dict[str, Any], tmp_path: Path
) -> None:
    path = saved(tmp_path / "model", family, **decoding)
    plain, found = load(path).predict(SOURCES), AligningPredictor(load(path)).predict(SOURCES)
    for text, before, after in zip(SOURCES, plain, found, strict=True):
        output = dict(after.output)
        attention: Any = output.pop("attention")
        assert (output, after.truncated) == (before.output, before.truncated)
        source, target, weights = attention["source"], attention["target"], attention["weights"]
        assert (source[0], source[-1]) == ("[CLS]", "[SEP]")
        assert text.replace(" ", "").startswith("".join(source[1:-1]))
        if not text:
            assert (target, weights) == ([], [])
            continue
        assert len(target) == output["length"] + (output["ended"] == "end") == len(weights)
        for row in weights:
            assert len(row) == len(source)
            assert sum(row) == pytest.approx(1, abs=1e-4)
    lengths = [len(one.output["attention"]["source"]) for one in found]  # type: ignore[arg-type, index, call-overload]
    assert 16 < lengths[3] < lengths[4]  # in windows
    assert [one.truncated > 0 for one in found] == [False, False, False, False, True]


def test_in_whatever_company(classic: Path) -> None:
    predictor = AligningPredictor(load(classic))
    for text, together in zip(SOURCES, aligned(classic), strict=True):
        [alone] = predictor.predict([text])
        one: Any = alone.output["attention"]
        other = together["attention"]
        assert (one["source"], one["target"]) == (other["source"], other["target"])
        torch.testing.assert_close(torch.tensor(one["weights"]), torch.tensor(other["weights"]), atol=1e-4, rtol=0)


def test_another_model_has_no_attention_to_a_source(tmp_path: Path) -> None:
    encoder = build_encoder(CONFIGS["modern"])
    save_model_dir(tmp_path / "model", encoder=encoder, head=RtdHead(CONFIGS["modern"]), provenance=PROVENANCE)
    with pytest.raises(ElectraError, match=r"E-M890 .*no decoder that looks at a source.*task=generate"):
        AligningPredictor(load(tmp_path / "model", "replaced"))


# -- the verb and the page ----------------------------------------------------------------------------------------------


def call(monkeypatch: pytest.MonkeyPatch, *words: object, stdin: str = "") -> int:
    monkeypatch.setattr(sys, "argv", ["electra", "predict", *map(str, words)])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code


def test_the_verb_says_it_in_lines_and_draws_a_page(
    classic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "alignment.html"
    assert call(monkeypatch, classic, "--attention", "--html", page, stdin="\n".join(SOURCES)) == 0
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [{"text": line["text"], **line["attention"]} for line in lines] == [
        {"text": text, **output["attention"]} for text, output in zip(SOURCES, aligned(classic), strict=True)
    ]
    assert f"page: {page}" in said.err
    html = page.read_text(encoding="utf-8")
    assert (html.count("<figure>"), html.count("<svg"), html.count("Nothing was written")) == (5, 4, 1)
    assert "&lt;&amp;&gt;" in html
    assert not re.search(r"(src|href)=|url\(|@import", html), "nothing from anywhere else"
    assert call(monkeypatch, classic, "--attention", "--format", "text", stdin="a dog") == 0
    assert " < " in capsys.readouterr().out.splitlines()[2]


@pytest.mark.parametrize("options", [["--html", "page.html"], ["--attention", "--tagger", "tagger"]])
def test_options_that_would_be_ignored_are_refused(
    options: list[str], classic: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, classic, *options, stdin="a dog") == 2
    assert ("E-C890" if "--html" in options else "E-C334") in capsys.readouterr().err


def test_a_picture_has_a_field_for_every_weight_and_shows_hostile_tokens_as_text() -> None:
    attention = {"source": ["[CLS]", "<script>", "\x00", " "], "target": ["\ud800", "x" * 40],
                 "weights": [[0.5, 0.25, 0.25, 0.0], [0.0, 0.0, 0.002, 0.998]]}  # fmt: skip
    picture = alignment_picture("a <b> text", {"generated_text": "\ud800&", "attention": attention})
    assert picture.count('class="field"') == 4, "a weight of almost nothing is not drawn"
    assert 'fill-opacity="1.00"' in picture, "the greatest is the strongest"
    assert "&lt;script&gt; 0.25" in picture
    assert "<script" not in picture
    page = alignment_page("a <title>", [picture], left_out=3)
    page.encode()  # no lone surrogate is left
    assert "3 more texts have no picture" in page
    assert "prefers-color-scheme: dark" in page
    assert "x" * 40 not in page
