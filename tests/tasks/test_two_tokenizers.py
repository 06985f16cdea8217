"""Outputs with a tokenizer of their own: fine-tuned, evaluated, saved and read back; transformers is in tests/parity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import electra
from electra.build import finetune
from electra.contracts import Example
from electra.errors import ElectraError
from electra.evaluate.run import evaluate_file
from electra.models.classic import ClassicConfig
from electra.models.encoder import build_encoder
from electra.models.generation import GenerationHead
from electra.models.heads import MlmHead
from electra.models.importing import import_model
from electra.models.model_dir import Generator, ModelDir, Provenance, load_model_dir, save_model_dir
from electra.models.modern import ModernConfig
from electra.models.warm_start import DecoderConfig, warm_start, writing_network
from electra.predict.alignment import AligningPredictor
from electra.predict.predictor import Predictor
from electra.predict.predictor import load as predictor_of
from electra.predict.writer import load_writer
from electra.tasks.common import TaskNetwork
from electra.tasks.generate import Generate, GenerateConfig
from electra.text.tokenizer import TARGET, Tokenizer
from electra.text.train_tokenizer import train

ENGLISH = ["the cat sat on the mat", "a dog and a log", "the dog sat on the log"]
CHINESE = ["猫坐在垫子上。", "狗和木头。", "狗坐在木头上，没有说话。"]
SOURCE, OTHER = train(ENGLISH * 4, 80, min_frequency=1), train(CHINESE * 4, 64, min_frequency=1)
TWO = Tokenizer(**{**vars(SOURCE), "target": OTHER})


def sizes(tokenizer: Tokenizer, family: str = "classic", **changes: Any) -> ClassicConfig | ModernConfig:
    given = {"vocab_size": tokenizer.vocab_size + 3, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 24, "max_position_embeddings": 64, "initializer_range": 0.5, **changes}  # fmt: skip
    if family == "modern":
        return ModernConfig(**given)
    return ClassicConfig(**{"embedding_size": 8, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, **given})


def saved(path: Path, tokenizer: Tokenizer, generator: bool = False, **changes: Any) -> Path:
    """A pre-trained model."""
    config = sizes(tokenizer, **changes)
    beside = (build_encoder(config), MlmHead(config)) if generator else None
    provenance = Provenance(tokenizer=tokenizer, card=lambda: "# Tiny\n")
    save_model_dir(path, encoder=build_encoder(config), generator=beside, provenance=provenance)
    return path


def recipe(folder: Path, target: Path, *more: str) -> list[str]:
    rows = "".join(f"{source}\t{written}\n" for source, written in zip(ENGLISH, CHINESE, strict=True))
    (folder / "train.tsv").write_text("source\ttarget\n" + rows, encoding="utf-8")
    (folder / "dev.tsv").write_text("source\ttarget\na cat on a log\t猫坐在木头上。\n", encoding="utf-8")
    return ["task=generate", "task.max_length=16", "task.target_length=16", "task.decoding.max_new_tokens=16",
            f"task.target_tokenizer={target}", f"data.train={folder / 'train.tsv'}", f"data.dev={folder / 'dev.tsv'}",
            f"run.dir={folder / 'run'}", "batch.examples=3", "precision=fp32", *more]  # fmt: skip


def test_from_a_table_to_a_model_that_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three pairs are learnt by heart; the directory is moved, the tokenizer that it was made from is gone."""
    monkeypatch.setattr(finetune, "write_report", lambda directory: directory)
    torch.manual_seed(0)
    first = saved(tmp_path / "first", SOURCE, initializer_range=0.1)
    OTHER.save(tmp_path / "other")
    electra.finetune([], [*recipe(tmp_path, tmp_path / "other"), f"init.from={first}", "epochs=60", "optimizer.lr=2e-2",
                          "optimizer.layer_decay=1.0", "evaluation.steps=60"])  # fmt: skip
    events = (tmp_path / "run" / "events.jsonl").read_text(encoding="utf-8")
    assert "the decoder's token table starts fresh" in events
    task = json.loads((tmp_path / "run" / "model" / "task.json").read_text(encoding="utf-8"))
    assert task["target_tokenizer"] is None
    resumed = json.loads((tmp_path / "run" / "recipe.json").read_text(encoding="utf-8"))
    assert OTHER.fingerprint in json.dumps(resumed)
    for file in (tmp_path / "other").iterdir():
        file.unlink()
    model = (tmp_path / "run" / "model").rename(tmp_path / "moved")
    assert f"DIR/{TARGET}" in (model / "README.md").read_text(encoding="utf-8")
    found = evaluate_file(model, tmp_path / "train.tsv", resamples=2)
    assert (found["metrics"]["exact_match"], found["metrics"]["hit_limit"]) == (1, 0)
    written = [one.output["generated_text"] for one in predictor_of(model).predict(ENGLISH)]
    assert written == CHINESE
    writer = load_writer(model)
    assert [drafts[0].text for drafts in writer.write(ENGLISH, writer_config(model))] == CHINESE
    assert "".join(writer.stream(ENGLISH[0], writer_config(model))) == CHINESE[0]


def writer_config(model: Path) -> Any:
    task = predictor_of(model).task
    assert isinstance(task, Generate)
    return task.config.decoding


@pytest.mark.parametrize("family", ["classic", "modern"])
def test_saved_and_loaded_predictions_are_equal(family: str, tmp_path: Path) -> None:
    task, network = writing(family)
    before = Predictor(network, task).predict(ENGLISH)
    save_model_dir(tmp_path / "model", encoder=network.encoder, head=network.head, task=task.to_json(),
                   provenance=Provenance(tokenizer=TWO, card=lambda: "# Tiny\n"))  # fmt: skip
    after = predictor_of(tmp_path / "model").predict(ENGLISH)
    for one, again in zip(before, after, strict=True):
        assert one.output["generated_text"] == again.output["generated_text"]
        assert one.output["log_probability"] == pytest.approx(again.output["log_probability"], abs=1e-4)
    [aligned] = AligningPredictor(predictor_of(tmp_path / "model")).predict(ENGLISH[:1])
    looked: Any = aligned.output["attention"]
    written = "".join(token for token in looked["target"] if token != "[SEP]")
    assert written == str(before[0].output["generated_text"]).replace(" ", "")
    loaded = load_model_dir(tmp_path / "model").tokenizer()
    assert loaded.target is not None
    assert (loaded.fingerprint, loaded.target.fingerprint) == (SOURCE.fingerprint, OTHER.fingerprint)
    again = import_model(tmp_path / "model", tmp_path / "again").tokenizer()
    assert again.target is not None and again.target.fingerprint == OTHER.fingerprint  # noqa: PT018


def writing(family: str) -> tuple[Generate, TaskNetwork]:
    torch.manual_seed(0)
    config = GenerateConfig(max_length=16, target_length=12, decoder=DecoderConfig(num_hidden_layers=1))
    task = Generate(config, TWO)
    encoder = build_encoder(sizes(SOURCE, family))
    network = TaskNetwork(encoder, task.head(encoder)).eval()
    assert isinstance(network.head, GenerationHead)
    with torch.no_grad():
        network.head.decoder.head.bias.normal_()
        network.head.decoder.head.bias[OTHER.sep_id] += 1.0
    return task, network


def test_targets_are_tokens_of_their_own_tokenizer() -> None:
    task, network = writing("classic")
    assert isinstance(network.head, GenerationHead)
    [row] = task.encode(Example(text=ENGLISH[0], target=CHINESE[0]))
    assert row.tokens.tolist() == SOURCE.encode(ENGLISH[0]).ids
    assert row.targets["target"][0].tolist() == OTHER.encode(CHINESE[0]).ids[1:]
    assert network.head.decoder.encoder.embeddings.table.shape == (OTHER.vocab_size, 8)
    assert network.head.signs.end == OTHER.sep_id


# -- first weights ------------------------------------------------------------------------------------------------------


def test_the_table_is_that_of_a_named_model_where_it_fits(tmp_path: Path) -> None:
    source, named = load_model_dir(saved(tmp_path / "source", SOURCE)), load_model_dir(saved(tmp_path / "named", OTHER, True))
    decoder = started(source, named)
    assert named.generator is not None
    theirs = named.generator
    assert torch.equal(decoder.encoder.embeddings.table, theirs.encoder.embeddings.table[: OTHER.vocab_size])
    assert torch.equal(decoder.head.dense.weight, theirs.mlm_head.dense.weight)
    assert torch.equal(decoder.head.bias, theirs.mlm_head.bias[: OTHER.vocab_size])
    assert torch.equal(decoder.encoder.layers[0].up.weight, source.encoder.layers[0].up.weight)
    longer = load_model_dir(saved(tmp_path / "longer", OTHER, True, max_position_embeddings=80))
    decoder = started(source, longer)
    assert longer.generator is not None
    assert torch.equal(decoder.encoder.embeddings.table, longer.generator.encoder.embeddings.table[: OTHER.vocab_size])
    positions = source.encoder.embeddings.state_dict()["position_embeddings.weight"]
    assert torch.equal(decoder.encoder.embeddings.state_dict()["position_embeddings.weight"], positions)


def started(source: ModelDir, named: ModelDir) -> Any:
    settings = DecoderConfig().sized(source)
    decoder: Any = Generate(GenerateConfig(target_length=8, max_length=16, decoder=settings), TWO).head(source.encoder)
    decoder = decoder.decoder
    words = writing_network(named, decoder.encoder.config)
    assert isinstance(words, Generator)
    warm_start(decoder, settings, source, words, shared=False)
    return decoder


def test_a_table_that_does_not_fit_is_fresh_and_the_rest_is_the_encoders(tmp_path: Path) -> None:
    source = load_model_dir(saved(tmp_path / "source", SOURCE))
    settings = DecoderConfig().sized(source)
    head: Any = Generate(GenerateConfig(max_length=16, target_length=8, decoder=settings), TWO).head(source.encoder)
    config, fresh = head.decoder.encoder.config, head.decoder.encoder.embeddings.table.clone()
    wide = load_model_dir(saved(tmp_path / "wide", OTHER, True, embedding_size=12))
    assert writing_network(wide, config) is None
    assert writing_network(load_model_dir(saved(tmp_path / "mute", OTHER)), config) is None
    warm_start(head.decoder, settings, source, None, shared=False)
    assert torch.equal(head.decoder.encoder.embeddings.table, fresh)
    assert torch.equal(head.decoder.encoder.embeddings.norm.weight, source.encoder.embeddings.norm.weight)


def test_a_run_says_where_its_table_comes_from(tmp_path: Path) -> None:
    first = saved(tmp_path / "first", SOURCE)
    named = saved(tmp_path / "named", OTHER, True)
    setting = finetune.Setting(finetune.load_recipe([], [*recipe(tmp_path, named), f"init.from={first}"]))
    assert any(note.endswith("as that of the network which writes there") for note in setting.notes)
    head: Any = setting._objective(card=str).model.head
    theirs = load_model_dir(named).generator
    assert theirs is not None
    assert torch.equal(head.decoder.encoder.embeddings.table, theirs.encoder.embeddings.table[: OTHER.vocab_size])
    fresh = finetune.Setting(finetune.load_recipe([], [*recipe(tmp_path, named / "tokenizer.json"), f"init.from={first}"]))
    assert any(note.endswith("starts fresh") for note in fresh.notes)
    assert fresh.words is None


# -- a directory that is wrong ------------------------------------------------------------------------------------------


def test_a_task_that_names_a_tokenizer_elsewhere_is_refused(tmp_path: Path) -> None:
    task, network = writing("classic")
    tree = {**task.to_json(), "target_tokenizer": "/somewhere/else"}
    provenance = Provenance(tokenizer=TWO, card=lambda: "# Tiny\n")
    save_model_dir(tmp_path / "model", encoder=network.encoder, head=network.head, task=tree, provenance=provenance)
    with pytest.raises(ElectraError, match=r"E-C880 task\.target_tokenizer"):
        predictor_of(tmp_path / "model")


def test_a_model_whose_second_tokenizer_is_lost_is_refused(tmp_path: Path) -> None:
    task, network = writing("classic")
    provenance = Provenance(tokenizer=SOURCE, card=lambda: "# Tiny\n")
    save_model_dir(tmp_path / "model", encoder=network.encoder, head=network.head, task=task.to_json(), provenance=provenance)
    with pytest.raises(ElectraError, match="E-M311"):
        predictor_of(tmp_path / "model")
