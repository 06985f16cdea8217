"""Sources longer than a row: read in windows, each token attended to once, in training, evaluation and by the verb alike."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from electra.contracts import Example
from electra.data.grid import collate
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.decoder import Memory
from electra.models.decoding_config import DecodingConfig
from electra.models.encoder import build_encoder
from electra.models.generation import GenerationHead
from electra.models.model_dir import Provenance, save_model_dir
from electra.models.modern import ModernConfig
from electra.predict.alignment import AligningPredictor
from electra.predict.predictor import Predictor
from electra.predict.predictor import load as predictor_of
from electra.predict.writer import load_writer
from electra.tasks.common import TaskNetwork, shown_by
from electra.tasks.generate import Generate, GenerateConfig
from electra.text.train_tokenizer import train

WORDS = "one two three four five six seven eight nine ten"
TOKENIZER = train([WORDS] * 4, 90, min_frequency=1)
CONFIGS = {
    "classic": ClassicConfig(
        vocab_size=TOKENIZER.vocab_size, embedding_size=16, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=16, initializer_range=0.5, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    ),
    "modern": ModernConfig(
        vocab_size=TOKENIZER.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=16, initializer_range=0.5, global_attn_every_n_layers=2, local_attention=4,
    ),
}  # fmt: skip
DECODING = DecodingConfig(max_new_tokens=8)


def task_of(windows: int = 3, max_length: int = 12) -> Generate:
    return Generate(GenerateConfig(max_length=max_length, max_windows=windows, target_length=8, decoding=DECODING), TOKENIZER)


def network_of(family: str, task: Generate) -> TaskNetwork:
    torch.manual_seed(0)
    encoder = build_encoder(CONFIGS[family])
    return TaskNetwork(encoder, task.head(encoder))


def text_of(tokens: int) -> str:
    """Of so many tokens with specials; every word is one."""
    words = WORDS.split()
    return " ".join(words[place % len(words)] for place in range(tokens - 2))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(2, 40), min_size=1, max_size=4), st.integers(1, 4), st.integers(8, 14), st.booleans())
def test_every_token_that_is_shown_is_attended_to_once_in_its_order(
    lengths: list[int], windows: int, max_length: int, packed: bool
) -> None:
    """Of an encoder whose state is the token itself."""
    task = task_of(windows, max_length)
    whole = [TOKENIZER.encode_literally(text_of(length)).ids for length in lengths]
    rows = [task.encode(Example(text=text_of(length)))[0] for length in lengths]
    batch = collate(rows, max(len(row.tokens) for row in rows) + 3, TOKENIZER.pad_id, packed)
    memory = Memory.joined(batch.tokens[..., None].float(), batch)
    room = shown_by(windows, max_length)
    for ids, row, hidden, real in zip(whole, rows, memory.hidden_BSD, memory.real_BS, strict=True):
        shown = ids if len(ids) <= room else [*ids[: room - 1], ids[-1]]
        assert hidden[real, 0].tolist() == shown
        assert row.truncated == len(ids) - len(shown)
        assert 1 <= row.targets["texts"] <= windows
        assert (row.targets["texts"] == 1) == (len(shown) <= max_length)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_source_that_fits_is_read_as_one_row(family: str) -> None:
    task = task_of()
    network = network_of(family, task)
    rows = [task.encode(Example(text=text_of(length)))[0] for length in (5, 12)]
    batch = collate(rows, 12, TOKENIZER.pad_id)
    hidden = network.encoder(batch.tokens, batch.positions, batch.types, batch.layout)
    joined, before = Memory.joined(hidden, batch), Memory.of(hidden, batch.layout)
    assert torch.equal(joined.real_BS, before.real_BS)
    assert torch.equal(joined.hidden_BSD[joined.real_BS], before.hidden_BSD[before.real_BS])


@pytest.mark.parametrize("family", CONFIGS)
def test_windows_padded_packed_and_in_parts_have_one_loss(family: str) -> None:
    task = task_of()
    network = network_of(family, task).train()
    examples = [Example(text=text_of(length), target="two five") for length in (26, 6, 17)]
    rows = [row for example in examples for row in task.encode(example)]

    def total(*numbers: int, packed: bool = False) -> Tensor:
        batch = collate([rows[number] for number in numbers], 48, TOKENIZER.pad_id, packed)
        return task.loss(network(batch), batch).terms["generate"].total

    whole = total(0, 1, 2)
    torch.testing.assert_close(total(0) + total(1, 2), whole)
    torch.testing.assert_close(total(0, 1, 2, packed=True), whole)
    gradients = [torch.autograd.grad(one, network.encoder.embeddings.table)[0] for one in (whole, total(0, 1, 2, packed=True))]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3 * float(gradients[0].abs().max()))


@pytest.mark.parametrize("family", CONFIGS)
def test_what_is_read_of_a_long_source_is_one_thing_in_all_verbs(family: str, tmp_path: Path) -> None:
    task = task_of()
    network = network_of(family, task).eval()
    assert isinstance(network.head, GenerationHead)
    provenance = Provenance(tokenizer=TOKENIZER, card=lambda: "# Tiny\n")
    save_model_dir(tmp_path / "model", encoder=network.encoder, head=network.head, task=task.to_json(), provenance=provenance)
    texts = [text_of(40), text_of(20) + " ten", text_of(20) + " two", text_of(6)]
    before, after = Predictor(network, task).predict(texts), predictor_of(tmp_path / "model").predict(texts)
    for one, again in zip(before, after, strict=True):
        assert (one.truncated, one.output["generated_text"]) == (again.truncated, again.output["generated_text"])
        assert one.output["log_probability"] == pytest.approx(again.output["log_probability"], abs=1e-4)
    assert [one.truncated for one in before] == [40 - shown_by(3, 12), 0, 0, 0]
    assert before[1].output["log_probability"] != before[2].output["log_probability"], "the end of a source is seen"
    writer = load_writer(tmp_path / "model")
    for [draft], one in zip(writer.write(texts, DECODING), before, strict=True):
        assert (draft.text, draft.truncated) == (one.output["generated_text"], one.truncated)
        assert draft.log_probability == pytest.approx(one.output["log_probability"], abs=1e-4)
    assert "".join(writer.stream(texts[0], DECODING)) == before[0].output["generated_text"]
    assert (writer.excess(texts[0], DECODING), "".join(writer.stream(" ", DECODING))) == (40 - shown_by(3, 12), "")
    for one, plain, text in zip(AligningPredictor(predictor_of(tmp_path / "model")).predict(texts), before, texts, strict=True):
        looked: Any = one.output["attention"]
        assert text.startswith(" ".join(looked["source"][1:-1]))
        assert len(looked["source"]) == len(TOKENIZER.encode(text).ids) - one.truncated
        assert all(len(row) == len(looked["source"]) and sum(row) == pytest.approx(1, abs=1e-3) for row in looked["weights"])
        assert len(looked["target"]) == plain.output["length"] + (plain.output["ended"] == "end")
    cut = Predictor(network, task_of(windows=1)).predict(texts[1:3])
    assert cut[0].output == cut[1].output, "one window is what is cut"


def test_no_window_is_refused() -> None:
    with pytest.raises(ElectraError, match=r"E-C881 task\.max_windows"):
        GenerateConfig(max_windows=0)


@pytest.mark.soak
def test_what_stands_behind_the_first_window_is_learnt() -> None:
    """The answer is the word behind `ten`, wherever that stands: what is left of a source that is cut seldom has it."""
    right = {}
    for windows in (4, 1):
        task, chance = task_of(windows), random.Random(0)
        torch.manual_seed(0)
        encoder = build_encoder(replace(CONFIGS["classic"], hidden_size=64, embedding_size=64, initializer_range=0.1))
        network = TaskNetwork(encoder, task.head(encoder)).train()
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        for _ in range(600):
            rows = [task.encode(asked(chance))[0] for _ in range(64)]
            batch = collate(rows, max(len(row.tokens) for row in rows), TOKENIZER.pad_id, packed=True)
            loss = task.loss(network(batch), batch).terms["generate"].total / batch.counts["target"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        examples = [asked(chance) for _ in range(200)]
        said = Predictor(network, task).predict(examples)
        right[windows] = sum(
            one.output["generated_text"] == example.target for one, example in zip(said, examples, strict=True)
        )
    assert right[4] >= 190
    assert right[1] <= 120


def asked(chance: random.Random) -> Example:
    words = chance.choices(WORDS.split()[:-1], k=chance.randint(20, 24))
    place = chance.randrange(len(words) - 1)
    return Example(text=" ".join([*words[:place], "ten", *words[place:]]), target=words[place])
