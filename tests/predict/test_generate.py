"""The verb: what it prints and writes, what it says of what was cut, how it ends, and which options do not go together."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from electra import cli
from electra.models.encoder import build_encoder
from electra.models.heads import CausalHead, MlmHead, RtdHead
from electra.models.model_dir import Provenance, save_model_dir
from electra.models.modern import ModernConfig
from electra.text.train_tokenizer import train

TOKENIZER = train(["the reader opens the wooden gate slowly"] * 4, 80)
SIZES = ModernConfig(
    vocab_size=TOKENIZER.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
    max_position_embeddings=32, initializer_range=0.5,
)  # fmt: skip
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`causal` and `pair`."""
    torch.manual_seed(0)
    place, provenance = tmp_path_factory.mktemp("models"), Provenance(tokenizer=TOKENIZER, card=lambda: "# A model\n")
    save_model_dir(place / "causal", encoder=build_encoder(SIZES), head=CausalHead(SIZES), provenance=provenance)
    save_model_dir(
        place / "pair", encoder=build_encoder(SIZES), head=RtdHead(SIZES), generator=(build_encoder(SIZES), MlmHead(SIZES)),
        provenance=provenance,
    )  # fmt: skip
    return place


@pytest.fixture
def run(models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`electra generate causal|pair words...`: exit code and both streams."""

    def call(model: str, *words: object, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["electra", "generate", str(models / model), *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return int(end.value.code), said.out, said.err

    return call


def test_a_causal_model_scores_a_file_and_says_its_perplexity(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["electra", "score", str(models / "causal"), "--method", "causal"]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the reader opens\n\nthe gate")))
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    tokens = [token["score"] for line in lines for token in line["tokens"]]
    perplexity = math.exp(-sum(tokens) / len(tokens))
    assert f"perplexity {perplexity:,.2f} of {len(tokens)} tokens" in said.err


def test_samples_are_json_lines_and_the_same_again(run: Run) -> None:
    words = ["--prompt", "the reader", "--prompt", "", "--samples", 3, "--max-new-tokens", 6, "--top-k", 5]
    code, out, _ = run("causal", *words)
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(line["prompt"], line["rank"]) for line in lines] == [(p, r) for p in ("the reader", "") for r in (1, 2, 3)]
    assert set(lines[0]) == {"prompt", "rank", "text", "tokens", "log_probability", "score", "ended", "truncated"}
    assert run("causal", *words)[1] == out
    assert run("causal", *words, "--seed", 1)[1] != out


def test_a_file_is_read_and_another_written_and_cuts_are_counted(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("the gate\n" + "the reader " * 40 + "\n", encoding="utf-8")
    words = [tmp_path / "in.txt", "--max-new-tokens", 4, "--min-new-tokens", 4, "--beams", 2, "--output", tmp_path / "out"]
    code, out, err = run("causal", *words)
    assert (code, out) == (0, "")
    lines = [json.loads(line) for line in (tmp_path / "out").read_text(encoding="utf-8").splitlines()]
    assert [line["truncated"] for line in lines] == [0, 80 - (32 - 1 - 4)]
    assert "1 prompts do not fit beside 4 new tokens" in err
    assert ("outputs were cut at 4 tokens" in err) == any(line["ended"] == "length" for line in lines)


def test_drafts_are_streamed_for_people(run: Run) -> None:
    words = ["--prompt", "the reader", "--max-new-tokens", 6, "--min-new-tokens", 6]
    draft = json.loads(run("causal", *words)[1])
    _, out, _ = run("causal", *words, "--format", "text")
    assert draft["ended"] == "length"
    assert out == f"the reader{draft['text']} [cut at 6 tokens]\n"


def test_a_critic_sorts_all_drafts(run: Run, models: Path) -> None:
    for choice in (["--samples", 4], ["--beams", 4]):
        words = ["--prompt", "the", "--max-new-tokens", 6, *choice, "--rerank", models / "pair", "--weight", 3]
        lines: list[dict[str, Any]] = [json.loads(line) for line in run("causal", *words)[1].splitlines()]
        assert len(lines) == 4
        for line in lines:
            assert line["score"] == pytest.approx(line["log_probability"] / line["tokens"] + 3 * line["critic"])
        assert [line["score"] for line in lines] == sorted((line["score"] for line in lines), reverse=True)


def test_a_talk_ends_with_its_input_and_says_what_is_forgotten(run: Run) -> None:
    turns = "the reader opens the gate\n" * 6
    code, out, err = run("causal", "--interactive", "--max-new-tokens", 5, "--min-new-tokens", 5, "--seed", 1, stdin=turns)
    assert code == 0
    assert out.count("[cut at 5 tokens]") == 6
    assert "A small language model continues" in err
    assert "(the oldest 1 turns no longer fit into the 32 tokens that are read)" in err


def test_ctrl_c_ends_a_talk(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(prompt: str = "") -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    code, out, err = run("causal", "--interactive")
    assert (code, out) == (0, "\n")
    assert "Traceback" not in err


def test_blanks_are_filled_and_drafts_rewritten(run: Run) -> None:
    _, out, err = run("pair", "--refine", 2, stdin="the [MASK] opens [MASK]\nthe gate\n")
    first, second = [json.loads(line) for line in out.splitlines()]
    assert (first["changed"], first["rounds"]) == (2, 2)
    assert (second["sequence"], second["changed"]) == ("the gate", 0)
    assert "1 texts stayed as they were: they have no [MASK]" in err
    code, out, _ = run("pair", "--refine", 1, "--rewrite", "--format", "text", "--prompt", "the reader opens the gate")
    assert code == 0
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--beams", "0"], "E-C600"),
        (["--temperature", "0"], "E-C601"),
        (["--beams", "2", "--samples", "2"], "E-C602"),
        (["--stop", ""], "E-C625"),
        (["--max-new-tokens", "31"], "E-C626"),
        (["--refine", "0"], "E-C627"),
        (["--weight", "0"], "E-C628"),
        (["--rewrite"], "E-C628"),
        (["--refine", "2", "--stop", "a"], "E-C628"),
        (["--interactive"], "E-C628"),
        (["--rerank", "nowhere"], "E-C629"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_one_error(run: Run, words: list[str], code: str) -> None:
    exit_code, out, err = run("causal", "--prompt", "the", *words)
    assert exit_code == 2
    assert f"error: {code} " in err
    assert not out


def test_a_model_of_another_kind_is_named(run: Run) -> None:
    exit_code, _, err = run("pair", "--prompt", "the")
    assert exit_code == 3
    assert "E-M625" in err
    assert "--task replaced" in err
