"""From text to a classifier by the verbs of the README, and the other ways in: imported models, resumed runs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Done = Callable[..., str]

SIZES = [
    "encoder.embedding_size=16", "encoder.hidden_size=32", "encoder.num_hidden_layers=2", "encoder.num_attention_heads=2",
    "encoder.intermediate_size=64",
]  # fmt: skip


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def contents(directory: Path) -> dict[str, bytes]:
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# -- the way through -----------------------------------------------------------------------------------------------------


def test_every_verb_leaves_what_the_next_one_takes(place: Any) -> None:
    assert {"tokenizer.json", "tokenizer_config.json"} <= set(contents(place.tokenizer))
    assert {"manifest.json", "shard-00000.arrow"} <= set(contents(place.corpus))
    assert {"recipe.json", "events.jsonl", "report.html", "model/config.json"} <= set(contents(place.run))
    assert {"model/task.json", "model/model.safetensors", "report.html"} <= set(contents(place.classifier))


def test_a_corpus_and_a_tokenizer_can_be_looked_at(place: Any, done: Done) -> None:
    told = done("corpus", "inspect", place.corpus)
    assert re.search(r"410 documents, [\d,]+ tokens in 1 shard; \d+ unknown", told)
    assert "sample 1: " in told
    assert "[CLS] the dog" in done("tokenizer", "inspect", place.tokenizer, "--text", "the dog")


def test_a_run_tells_how_it_is_doing(place: Any, done: Done) -> None:
    told = done("report", place.run)
    assert "finished after 20 steps" in told
    assert "discriminator: " in told
    assert "generator: " in told
    page = (place.run / "report.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script src" not in page


def test_several_runs_stand_side_by_side(place: Any, done: Done, tmp_path: Path) -> None:
    told = done("report", place.run, place.classifier, "--out", tmp_path / "both.html")
    assert "first: finished after 20 steps" in told
    assert "sentiment: finished after" in told
    assert "<svg" in (tmp_path / "both.html").read_text(encoding="utf-8")


def test_a_plan_can_be_read_by_people_and_programs_and_starts_nothing(place: Any, done: Done, tmp_path: Path) -> None:
    command = ["plan", "test-modern", f"corpus.path={place.corpus}", f"run.dir={tmp_path / 'run'}", "stop.steps=2"]
    assert "electra pretrain starts" in done(*command)
    assert json.loads(done(*command, "--json"))["steps"] == 2
    assert list(tmp_path.iterdir()) == []
    assert "it is finished" in done("plan", "test-modern", f"corpus.path={place.corpus}", f"run.dir={place.run}")


def test_a_card_says_what_the_model_is_and_how_it_is_used(place: Any) -> None:
    cards = [(run / "model" / "README.md").read_text(encoding="utf-8") for run in (place.run, place.classifier)]
    assert "A `modern` encoder, 3 layers of 32" in cards[0]
    assert "--task replaced" in cards[0]
    assert "| epochs |" in cards[0]
    assert "Fine-tuned for `classify` from" in cards[1]
    assert "electra.load(" in cards[1]


def test_the_second_phase_starts_from_what_the_first_one_learnt(place: Any) -> None:
    assert [event["name"] for event in events(place.run, "phase")] == ["mlm", "rtd"]
    assert (place.run / "phases" / "mlm" / "config.json").is_file()
    resolved = json.loads((place.run / "recipe.json").read_text(encoding="utf-8"))["resolved"]
    assert sum(span["steps"] for span in resolved["spans"]) == 20


def test_the_classifier_has_learnt_its_labels(place: Any, done: Done) -> None:
    printed = done("evaluate", place.classifier / "model", place.dev)
    assert '"confusion": [\n  [ ' in printed  # a row of numbers takes one line
    figures = json.loads(printed)
    assert figures["examples"] == 60
    assert figures["labels"] == ["neg", "pos"]
    assert figures["metrics"]["accuracy"] > 0.9
    assert figures["warnings"] == []


def test_predictions_come_one_a_line_in_order_from_a_file_or_standard_input(place: Any, done: Done, tmp_path: Path) -> None:
    texts = ["the dog is good and fine", "the book is awful and poor", "", "在车站旁边"]
    file = tmp_path / "reviews.txt"
    file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    printed = done("predict", place.classifier / "model", file)
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [row["text"] for row in rows] == texts
    assert [row["label"] for row in rows[:2]] == ["pos", "neg"]
    assert all(0.5 <= row["score"] <= 1 and row["truncated"] == 0 for row in rows)
    assert done("predict", place.classifier / "model", stdin=file.read_bytes()) == printed
    assert done("predict", place.classifier / "model", stdin=file.read_bytes().replace(b"\n", b"\r\n")) == printed
    assert done("predict", place.classifier / "model", stdin=b"") == ""
    assert "pos" in done("predict", place.classifier / "model", file, "--format", "text")
    assert done("predict", place.classifier / "model", file, "--output", tmp_path / "said.jsonl") == ""
    assert (tmp_path / "said.jsonl").read_text(encoding="utf-8") == printed
    (tmp_path / "said.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in texts), encoding="utf-8")
    assert done("predict", place.classifier / "model", tmp_path / "said.jsonl", "--column", "text=body") == printed


def test_scoring_tasks_need_no_training(place: Any, done: Done) -> None:
    given = b"the old captain opens the wooden [MASK] before breakfast.\n"
    filled = json.loads(done("predict", place.run / "model", "--task", "fill-mask", stdin=given))
    (candidates,) = filled["masks"]
    assert all(candidate["token_str"] for candidate in candidates)
    row = json.loads(done("predict", place.run / "model", "--task", "replaced", stdin="the reader opens 打开了\n".encode()))
    tokens = row["tokens"]
    assert all(0 <= token["score"] <= 1 for token in tokens)
    assert [row["text"][token["start"] : token["end"]] for token in tokens][:3] == ["the", "reader", "opens"]


def test_the_public_functions_do_what_the_verbs_do(place: Any, done: Done) -> None:
    import electra

    model = place.classifier / "model"
    (prediction,) = electra.load(model).predict(["the song is lovely and fine"])
    printed = json.loads(done("predict", model, stdin=b"the song is lovely and fine\n"))
    assert prediction.output["label"] == printed["label"] == "pos"
    assert electra.pretrain(["test-modern"], [f"corpus.path={place.corpus}", f"run.dir={place.run}"]) == place.run / "model"


# -- the same command again ----------------------------------------------------------------------------------------------


def test_the_same_command_again_changes_nothing_that_was_learnt(place: Any, done: Done) -> None:
    before = contents(place.run / "model")
    told = done("pretrain", "test-modern", f"corpus.path={place.corpus}", f"run.dir={place.run}")
    assert "done: 20 steps" in told
    assert contents(place.run / "model") == before
    steps = [event["step"] for event in events(place.run, "step")]
    assert steps == sorted(set(steps))


def test_a_run_that_lost_its_last_steps_goes_on_to_the_same_end(place: Any, done: Done, tmp_path: Path) -> None:
    command = ["pretrain", "test-modern", f"corpus.path={place.corpus}", f"run.dir={tmp_path / 'run'}", "phases.mlm.share=0",
               "loop.save_minutes=0"]  # fmt: skip
    done(*command)
    before = contents(tmp_path / "run" / "model")
    shutil.rmtree(tmp_path / "run" / "model")
    shutil.rmtree(max((tmp_path / "run" / "checkpoints").iterdir()))
    done(*command)
    after = contents(tmp_path / "run" / "model")
    assert after["model.safetensors"] == before["model.safetensors"]
    assert after["generator/model.safetensors"] == before["generator/model.safetensors"]
    assert events(tmp_path / "run", "start")[-1]["resumed"] is True


def test_fresh_starts_over(place: Any, done: Done, tmp_path: Path) -> None:
    command = ["pretrain", "test-classic", f"corpus.path={place.corpus}", f"run.dir={tmp_path / 'run'}", "stop.steps=4"]
    done(*command)
    done(*command, "run.seed=1", "run.fresh=true")
    (start,) = events(tmp_path / "run", "start")
    assert start["resumed"] is False
    assert json.loads((tmp_path / "run" / "recipe.json").read_text(encoding="utf-8"))["recipe"]["run"]["seed"] == 1


def test_another_interval_of_logs_is_no_other_run(place: Any, done: Done, tmp_path: Path) -> None:
    command = ["pretrain", "test-classic", f"corpus.path={place.corpus}", f"run.dir={tmp_path / 'run'}", "stop.steps=4"]
    done(*command)
    done(*command, "loop.log_steps=2")


# -- to and from transformers --------------------------------------------------------------------------------------------


def foreign(directory: Path, tokenizer: Path, name: str, **sizes: Any) -> Path:
    """A tiny model that transformers made, with a tokenizer beside it."""
    transformers = pytest.importorskip("transformers")
    family = "Bert" if name.startswith("Bert") else "Electra"
    entries = len(json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
    common = {"vocab_size": entries, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
              "intermediate_size": 64, "embedding_size": 16}  # fmt: skip
    values = {key: value for key, value in (common | sizes).items() if family == "Electra" or key != "embedding_size"}
    torch.manual_seed(0)
    getattr(transformers, name)(getattr(transformers, f"{family}Config")(**values)).save_pretrained(directory)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / file, directory / file)
    return directory


def test_a_pair_of_transformers_can_be_trained_further(place: Any, done: Done, tmp_path: Path) -> None:
    big = foreign(tmp_path / "big", place.tokenizer, "ElectraForPreTraining")
    small = foreign(tmp_path / "small", place.tokenizer, "ElectraForMaskedLM", hidden_size=16, num_attention_heads=1,
                    intermediate_size=32)  # fmt: skip
    model, run = tmp_path / "imported", tmp_path / "run"
    told = done("import", big, model, "--generator", small)
    assert "classic encoder, 2 layers of 32" in told
    assert "discriminator, generator beside it" in told
    done("pretrain", "test-classic", *SIZES, f"corpus.path={place.corpus}", f"run.dir={run}", f"init.from={model}",
         "stop.steps=4", "phases.rtd.optimizer.lr=1e-9")  # fmt: skip
    assert events(run, "warning") == []
    assert close(run / "model", model)
    # the tables are one, as the recipe says, though these two were not trained together
    assert close(run / "model" / "generator", model / "generator", but="electra.embeddings.")


def close(one: Path, other: Path, but: str = "nothing") -> bool:
    """Whether two directories hold the same weights, up to a training that moved them next to nothing; `but` begins others."""
    from safetensors.torch import load_file

    left, right = (load_file(path / "model.safetensors") for path in (one, other))
    compared = [name for name in left if not name.startswith(but)]
    return set(left) == set(right) and all(torch.allclose(left[name], right[name], atol=1e-5) for name in compared)


def test_an_encoder_without_generator_can_be_trained_further_and_it_is_said(place: Any, done: Done, tmp_path: Path) -> None:
    bert = foreign(tmp_path / "bert", place.tokenizer, "BertModel")
    model, run = tmp_path / "imported", tmp_path / "run"
    told = done("import", bert, model)
    assert "no head" in told
    command = ["pretrain", "test-classic", *SIZES, "encoder.embedding_size=32", f"corpus.path={place.corpus}",
               f"init.from={model}", "stop.steps=4"]  # fmt: skip
    told = done(*command, f"run.dir={run}", "init.generator=fresh")
    assert "no generator" in told
    assert "fresh" in told
    assert [event["code"] for event in events(run, "warning")] == ["E-M454", "E-M455"]
    assert (run / "model" / "generator" / "config.json").is_file()


def test_what_classic_pretraining_leaves_is_an_electra_of_transformers(place: Any, done: Done, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    done("pretrain", "test-classic", f"corpus.path={place.corpus}", f"run.dir={tmp_path / 'run'}", "stop.steps=4")
    model = tmp_path / "run" / "model"
    theirs, loading = transformers.AutoModelForPreTraining.from_pretrained(model, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    text = "the reader opens the wooden gate, 老师打开了木头的大门。"
    with torch.no_grad():
        logits = theirs.eval()(**tokenizer(text, return_tensors="pt")).logits[0]
    row = json.loads(done("predict", model, "--task", "replaced", stdin=f"{text}\n".encode()))
    ours = torch.tensor([token["score"] for token in row["tokens"]])
    torch.testing.assert_close(ours, torch.sigmoid(logits[1:-1]), atol=1e-5, rtol=0)
    generator, loading = transformers.AutoModelForMaskedLM.from_pretrained(model / "generator", output_loading_info=True)
    assert not loading["missing_keys"]
    assert generator.config.vocab_size == theirs.config.vocab_size


def test_what_modern_pretraining_leaves_is_a_modernbert_of_transformers(place: Any, done: Done) -> None:
    transformers = pytest.importorskip("transformers")
    from electra.contracts import Padded
    from electra.models.model_dir import load_model_dir

    model = place.run / "model"
    theirs, loading = transformers.AutoModel.from_pretrained(model, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    text = "my neighbour carries a heavy letter. 船长离开安静的港口"
    encoded = tokenizer(text, return_tensors="pt")
    tokens = encoded["input_ids"]
    with torch.no_grad():
        expected = theirs.eval()(input_ids=tokens, attention_mask=encoded["attention_mask"]).last_hidden_state
        places = torch.arange(tokens.shape[1])[None]
        layout = Padded(segments=torch.zeros_like(tokens), whole=True)
        ours = load_model_dir(model).encoder.eval()(tokens, places, torch.zeros_like(tokens), layout)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    discriminator = transformers.AutoModelForTokenClassification.from_pretrained(model / "discriminator").eval()
    with torch.no_grad():
        probability = discriminator(input_ids=tokens, attention_mask=encoded["attention_mask"]).logits.softmax(-1)[0, 1:-1, 1]
    row = json.loads(done("predict", model, "--task", "replaced", stdin=f"{text}\n".encode()))
    torch.testing.assert_close(torch.tensor([token["score"] for token in row["tokens"]]), probability, atol=1e-5, rtol=0)
