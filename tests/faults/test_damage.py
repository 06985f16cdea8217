"""Files of a run that were flipped, cut or lost on the disk are named, passed over or made again; the run ends as it should."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import electra
from electra.errors import ElectraError
from electra.storage import problem

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")
DAMAGES = ("flip", "truncate", "delete")


def damage(file: Path, how: str) -> None:
    data = file.read_bytes()
    if how == "delete":
        file.unlink()
    elif how == "truncate":
        file.write_bytes(data[:-3])
    else:
        # within a hash of the manifest: what is flipped elsewhere may mean the same
        place = data.index(b'"blake2b": "') + 15 if file.name == "manifest.json" else len(data) // 2
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])


@pytest.fixture
def copied(trial: Any, whole: dict[str, Any]) -> Any:
    """A run that has ended, to be damaged."""
    shutil.copytree(whole[trial.kind].directory, trial.directory)
    return trial


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_named_and_the_run_goes_on_from_the_one_before(
    copied: Any, whole: dict[str, Any], name: str
) -> None:
    for number, how in enumerate(DAMAGES, 1):
        newest = copied.checkpoints.paths()[-1]
        damage(newest / name, how)
        copied.run()
        warnings = [event for event in copied.events("warning") if event["code"] == "E-M401"]
        assert len(warnings) == number
        warning = warnings[-1]
        assert newest.name in warning["message"]
        assert name in warning["message"] or name == "manifest.json"
        assert copied.left() == whole[copied.kind].left()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "README.md", "manifest.json"])
def test_a_damaged_model_is_exported_again(copied: Any, whole: dict[str, Any], name: str) -> None:
    for how in DAMAGES:
        damage(copied.directory / "model" / name, how)
        copied.run()
        assert problem(copied.directory / "model") is None
        assert copied.left() == whole[copied.kind].left()


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_recipe_is_refused(copied: Any, how: str) -> None:
    damage(copied.directory / "recipe.json", how)
    if how == "flip":  # a letter of a name or a value
        with pytest.raises(ElectraError, match=r"E-M42|E-C420|E-D400"):
            copied.run()
    else:
        with pytest.raises(ElectraError, match=r"E-M420|E-C421"):
            copied.run()


def test_counts(counted: Callable[[str, int], None]) -> None:
    counted("damaged files", 2 * len(DAMAGES) * (len(FILES) + 5 + 1))


# -- the model between two phases -----------------------------------------------------------------------------------------


@pytest.fixture
def two_phases(corpus_dir: Path, tmp_path: Path, quiet: None) -> Callable[..., list[Any]]:
    """Runs 3 steps of one phase and 2 of the next, again with the same result; returns the phases that were trained."""
    settings = [f"corpus.path={corpus_dir}", f"run.dir={tmp_path / 'run'}", "stop.steps=5", "precision=fp32"]

    def run() -> list[Any]:
        before = read_phases(tmp_path / "run")
        electra.pretrain(["test-modern"], settings)
        return read_phases(tmp_path / "run")[len(before) :]

    return run


def read_phases(run: Path) -> list[tuple[str, int]]:
    from electra.events import read_events

    return [(event["name"], event["step"]) for event in read_events(run / "events.jsonl")[0] if event["event"] == "phase"]


@pytest.mark.parametrize("how", DAMAGES)
def test_the_model_of_an_earlier_phase_is_made_again_where_it_is_needed(
    two_phases: Callable[..., list[Any]], tmp_path: Path, how: str
) -> None:
    assert two_phases() == [("mlm", 0), ("rtd", 3)]
    run = tmp_path / "run"
    expected = (run / "model" / "model.safetensors").read_bytes()
    file = run / "phases" / "mlm" / "model.safetensors"
    damage(file, how)
    assert two_phases() == [], "a later phase has its own checkpoint"
    shutil.rmtree(run / "checkpoints" / "step-00000005")
    assert two_phases() == [("mlm", 3), ("rtd", 3)], "exported again, not trained again"
    assert problem(file.parent) is None
    assert (run / "model" / "model.safetensors").read_bytes() == expected
