"""Writing: prompts, stop strings, streams, what is cut, a source, a memory of turns, and models that do not write."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from electra.cli import app
from electra.contracts import Encoded, Example
from electra.data.grid import collate
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.decoder import Decoder, Memory
from electra.models.decoding_config import DecodingConfig
from electra.models.encoder import build_encoder
from electra.models.heads import CausalHead, ClassificationHead, MlmHead, RtdHead
from electra.models.model_dir import Provenance, save_model_dir
from electra.models.modern import ModernConfig
from electra.predict.turns import Turns
from electra.predict.writer import Draft, Reader, Writer, load_writer
from electra.tasks.common import encode_text
from electra.text.tokenizer import Tokenizer
from electra.text.train_tokenizer import train

TEXTS = ["the reader opens the wooden gate, slowly.", "老师打开了木头的大门，没有说话。"]
TOKENIZERS = {"wordpiece": train(TEXTS * 4, 120), "bpe": train(TEXTS * 4, 300, kind="bpe")}
GREEDY = DecodingConfig(max_new_tokens=12)
SAMPLED = DecodingConfig(max_new_tokens=12, do_sample=True, seed=5)


def config(tokenizer: Tokenizer, family: str) -> ClassicConfig | ModernConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    # a vocabulary with entries that the tokenizer does not have: they must never be written
    common = {"vocab_size": tokenizer.vocab_size + 5, "max_position_embeddings": 32, "initializer_range": 0.5}
    if family == "classic":
        return ClassicConfig(embedding_size=8, **common, **sizes)  # type: ignore[arg-type]
    return ModernConfig(**common, **sizes)  # type: ignore[arg-type]


def decoder(tokenizer: Tokenizer, family: str, source_size: int | None = None) -> Decoder:
    torch.manual_seed(1)
    sizes = config(tokenizer, family)
    made = Decoder(build_encoder(sizes), CausalHead(sizes), source_size).eval()
    with torch.no_grad():
        made.head.bias.normal_()
    return made


@pytest.fixture(scope="module", params=[("wordpiece", "classic"), ("bpe", "modern")], ids=lambda one: one[0])
def writer(request: pytest.FixtureRequest) -> Writer:
    tokenizer = TOKENIZERS[request.param[0]]
    return Writer(decoder(tokenizer, request.param[1]), tokenizer)


def streamed(writer: Writer, text: str, config: DecodingConfig, stop: Sequence[str] = ()) -> tuple[str, str]:
    pieces, found = writer.stream(text, config, stop), ""
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            return found, end.value
        assert piece
        found += piece


@pytest.mark.parametrize("text", ["", "the reader", "the reader ", "老师打开", "[SEP] [MASK]"])
def test_a_stream_says_what_is_written(writer: Writer, text: str) -> None:
    for settings in (GREEDY, *(DecodingConfig(max_new_tokens=12, do_sample=True, seed=seed) for seed in range(4))):
        [[draft]] = writer.write([text], settings)
        assert streamed(writer, text, settings) == (draft.text, draft.ended)
        assert (draft.tokens == 12) >= (draft.ended == "length")
        assert not text.endswith(" ") or not draft.text.startswith(" ")


def test_a_prompt_is_text_and_nothing_special_is_written(writer: Writer) -> None:
    ids = writer.tokenizer.encode_documents(["[SEP]"])[0].ids
    assert writer.tokenizer.sep_id not in ids
    [drafts] = writer.write(["[SEP]"], DecodingConfig(max_new_tokens=20, do_sample=True, num_return_sequences=20))
    assert len({draft.text for draft in drafts}) > 10
    assert not any(special in draft.text for draft in drafts for special in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED, DecodingConfig(max_new_tokens=12, num_beams=3)])
def test_a_stop_string_ends_a_draft_and_is_not_in_it(writer: Writer, settings: DecodingConfig) -> None:
    [[free]] = writer.write(["the"], settings)
    whole = "the" + free.text
    for stop in (free.text[3:5], free.text[0], free.text[-2:]):
        if "\ufffd" in stop:
            continue
        [[draft]] = writer.write(["the"], settings, [stop])
        if settings.num_beams == 1:
            place = next(end for end in range(4, len(whole) + 1) if whole[:end].endswith(stop)) - len(stop)
            assert draft.text == whole[3 : max(3, place)]
            assert draft.ended == "stop"
            assert streamed(writer, "the", settings, [stop, "never there"]) == (draft.text, "stop")
        assert stop not in draft.text
        assert draft.tokens <= 12


def test_drafts_of_many_prompts_are_in_order_and_differ(writer: Writer) -> None:
    prompts = ["the", "", "老师", "the"] * 5
    together = writer.write(prompts, DecodingConfig(max_new_tokens=6, do_sample=True, num_return_sequences=30))
    assert [drafts[0].prompt for drafts in together] == prompts
    assert all(len(drafts) == 30 for drafts in together)
    assert together[0] != together[4] != together[16]
    alone = writer.write(prompts[:3], DecodingConfig(max_new_tokens=6))
    for prompt, [draft] in zip(prompts, alone, strict=False):
        [[again]] = writer.write([prompt], DecodingConfig(max_new_tokens=6))
        assert again.text == draft.text
        assert again.log_probability == pytest.approx(draft.log_probability, abs=1e-4)


def test_a_long_prompt_loses_its_beginning(writer: Writer) -> None:
    text = "the reader " * 30
    count, room = len(writer.tokenizer.encode_documents([text])[0].ids), 32 - 1 - 12
    [[draft]] = writer.write([text], GREEDY)
    assert draft.truncated == writer.excess(text, GREEDY) == count - room
    with pytest.raises(ElectraError, match="E-C626"):
        writer.write(["the"], DecodingConfig(max_new_tokens=31))
    with pytest.raises(ElectraError, match="E-C625"):
        writer.write(["the"], GREEDY, [""])


def test_a_source_is_read_by_an_encoder_of_its_own() -> None:
    tokenizer = TOKENIZERS["wordpiece"]
    encoder = build_encoder(config(tokenizer, "modern")).eval()

    def read(rows: Sequence[Encoded]) -> Memory:
        batch = collate(rows, 5, tokenizer.pad_id)
        return Memory.of(encoder(batch.tokens, batch.positions, batch.types, batch.layout), batch.layout)

    def encode(text: str) -> Encoded:
        return encode_text(tokenizer, Example(text=text), 5)

    writer = Writer(decoder(tokenizer, "classic", source_size=16), tokenizer, Reader(encode=encode, read=read))
    with torch.inference_mode():
        one, other = writer.write(["the reader", "the wooden gate, slowly."], DecodingConfig(max_new_tokens=6, num_beams=2))
    assert one[0].log_probability != other[0].log_probability
    assert one[0].truncated == 0
    assert other[0].truncated == writer.excess("the wooden gate, slowly.", GREEDY) > 0


def test_turns_are_remembered_as_long_as_they_fit(writer: Writer) -> None:
    turns = Turns(writer=writer, config=GREEDY)
    assert turns.prompt("the gate") == "the gate"
    turns.answered(", slowly")
    assert turns.prompt("the reader") == "the gate, slowly\nthe reader"
    turns.prompt("the wooden gate " * 5)
    assert turns.forgotten
    assert not writer.excess(turns.prompt("slowly"), GREEDY)
    assert turns.prompt("the reader " * 30) == "the reader " * 30  # too long by itself: it stays, and what is cut is counted


@torch.inference_mode()
@pytest.mark.parametrize("family", ["classic", "modern"])
def test_bf16_is_chosen_seen_and_close(family: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS["wordpiece"]
    made = decoder(tokenizer, family)
    provenance = Provenance(tokenizer=tokenizer, card=lambda: "# A model\n")
    path = tmp_path / "model"
    save_model_dir(path, encoder=made.encoder, head=made.head, provenance=provenance)
    exact, rounded = load_writer(path), load_writer(path, precision="bf16")
    assert (exact.precision, rounded.precision) == ("fp32", "bf16")
    assert load_writer(path, precision="auto").precision in ("fp32", "bf16")
    tokens = torch.randint(5, tokenizer.vocab_size, (3, 12), generator=torch.Generator().manual_seed(3))
    logs, states = [], []
    for writer in (exact, rounded):
        state = writer.decoder.start(None, 3, 12)
        steps = [writer.decoder.prefill(tokens[:, :4], state)]
        steps += [writer.decoder.next_logits(tokens[:, place], state) for place in range(4, 12)]
        assert {step.dtype for step in steps} == {torch.float32}
        logs.append(torch.log_softmax(torch.stack(steps), dim=-1))
        states.append(state.own.dtype)
    assert states == [torch.float32, torch.bfloat16]
    moved = (logs[0] - logs[1]).abs()
    assert 0 < moved.max() < 0.3
    assert moved.mean() < 0.04
    assert not torch.equal(logs[1], logs[1].bfloat16().float()), "logits are not rounded"
    for settings in (GREEDY, DecodingConfig(max_new_tokens=12, num_beams=3), SAMPLED):
        [[one]], [[other]] = (writer.write(["the reader"], settings) for writer in (exact, rounded))
        assert one.log_probability != other.log_probability
    said = CliRunner().invoke(
        app, ["generate", str(path), "--prompt", "the reader", "--max-new-tokens=9", "--precision=bf16"], catch_exceptions=False
    )
    [[draft]] = rounded.write(["the reader"], DecodingConfig(max_new_tokens=9))
    assert json.loads(said.stdout)["log_probability"] == pytest.approx(draft.log_probability)
    with pytest.raises(ElectraError, match="E-C700"):
        load_writer(path, precision="int8")  # type: ignore[arg-type]


HEADS = {"discriminator": RtdHead, "masked language model": MlmHead, "encoder without a head": None}


@pytest.mark.parametrize("what", [*HEADS, "classifier", "task 'tag'"])
def test_a_model_that_does_not_write_says_what_it_is(what: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS["wordpiece"]
    sizes = config(tokenizer, "classic")
    kind = HEADS.get(what)
    head = ClassificationHead(sizes, 2) if what == "classifier" else None if kind is None else kind(sizes)
    task = {"type": "tag"} if what == "task 'tag'" else None
    provenance = Provenance(tokenizer=tokenizer, card=lambda: "# A model\n")
    save_model_dir(tmp_path / "model", encoder=build_encoder(sizes), head=head, task=task, provenance=provenance)
    with pytest.raises(ElectraError, match=f"E-M625 .*{what}.*electra "):
        load_writer(tmp_path / "model")


def test_figures_of_a_draft(writer: Writer) -> None:
    [[draft]] = writer.write(["the"], GREEDY)
    assert isinstance(draft, Draft)
    assert draft.score == draft.log_probability < 0
    assert math.isfinite(draft.score)
