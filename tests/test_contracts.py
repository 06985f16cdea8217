"""The promises to other code: signatures of `electra.contracts`, the public names, and an import that loads no torch."""

from __future__ import annotations

import dataclasses
import inspect
import resource
import subprocess
import sys
import typing

import pytest

import electra
from electra import contracts

FIELDS = {
    contracts.Padded: {"segments": "Tensor", "whole": "bool", "order": "Order"},
    contracts.Packed: {"cu_seqlens": "Tensor", "max_seqlen": "int", "order": "Order"},
    contracts.Batch: {
        "tokens": "Tensor",
        "positions": "Tensor",
        "types": "Tensor",
        "layout": "Layout",
        "targets": "Mapping[str, Tensor]",
        "counts": "Mapping[str, float]",
    },
    contracts.Term: {"total": "Tensor", "unit": "str", "weight": "float"},
    contracts.Losses: {"terms": "Mapping[str, Term]", "totals": "Mapping[str, Tensor]"},
    contracts.Phase: {"name": "str", "networks": "tuple[str, ...]", "progress": "float"},
    contracts.Encoded: {
        "tokens": "npt.NDArray[np.int64]",
        "types": "npt.NDArray[np.int64]",
        "segments": "npt.NDArray[np.int64] | None",
        "targets": "Mapping[str, npt.NDArray[np.generic]]",
        "truncated": "int",
    },
    contracts.Example: {
        "text": "str",
        "pair": "str | None",
        "target": "object",
        "where": "str",
        "given": "Mapping[str, Any]",
    },
    contracts.Mention: {"start": "int", "end": "int", "label": "str"},
    contracts.Reading: {"examples": "Iterator[Example]", "notes": "list[str]", "inferred": "Mapping[str, int]"},
    contracts.Unit: {"gold": "str | None", "predicted": "str | None", "score": "float"},
    contracts.Judgement: {
        "units": "tuple[Unit, ...]",
        "values": "Mapping[str, float]",
        "vectors": "npt.NDArray[np.float32] | None",
    },
    contracts.Prediction: {"text": "str", "output": "Mapping[str, object]", "truncated": "int"},
}

METHODS = {
    contracts.Noise: {
        "__init__": "(self, row_keys: 'npt.NDArray[np.uint64]') -> 'None'",
        "uniform": "(self, name: 'str', width: 'int') -> 'npt.NDArray[np.float32]'",
    },
    contracts.Objective: {
        "networks": "(self) -> 'Mapping[str, nn.Module]'",
        "phases": "(self, step: 'int', steps: 'int') -> 'Sequence[Phase]'",
        "updated": "(self) -> 'None'",
        "forward": "(self, batch: 'Batch', noise: 'Noise', phase: 'Phase') -> 'Losses'",
        "summarise": "(self, totals: 'Mapping[str, Tensor]') -> 'dict[str, float]'",
        "export": "(self, directory: 'Path') -> 'None'",
    },
    contracts.Loader: {
        "micro_batches": "(self, step: 'int', rank: 'int', world_size: 'int') -> 'Iterator[tuple[Batch, Noise]]'",
        "epochs": "(self, step: 'int') -> 'Mapping[str, float]'",
    },
    contracts.Examples: {
        "__len__": "(self) -> 'int'",
        "lengths": "(self) -> 'npt.NDArray[np.int64]'",
        "__getitem__": "(self, index: 'int') -> 'Encoded'",
    },
    contracts.Task: {
        "pad_id": "(self) -> 'int'",
        "read": "(self, path: 'Path') -> 'Reading'",
        "encode": "(self, example: 'Example') -> 'list[Encoded]'",
        "decode": "(self, example: 'Example', rows: 'Sequence[Encoded]', outputs: 'Sequence[Tensor]') -> 'Prediction'",
    },
    contracts.TrainableTask: {
        "labels": "(self) -> 'tuple[str, ...]'",
        "fit": "(self, examples: 'Sequence[Example]') -> 'TrainableTask'",
        "head": "(self, encoder: 'nn.Module') -> 'nn.Module'",
        "loss": "(self, outputs: 'Tensor', batch: 'Batch') -> 'Losses'",
        "judge": "(self, example: 'Example', prediction: 'Prediction') -> 'Judgement'",
        "score": "(self, judgements: 'Sequence[Judgement]') -> 'dict[str, float]'",
        "tune": "(self, judgements: 'Sequence[Judgement]') -> 'Self'",
        "to_json": "(self) -> 'dict[str, object]'",
    },
}


@pytest.mark.parametrize("cls", FIELDS, ids=lambda cls: cls.__name__)
def test_the_fields_of_what_is_handed_over_are_pinned(cls: type[typing.Any]) -> None:
    assert {field.name: field.type for field in dataclasses.fields(cls)} == FIELDS[cls]
    assert all(field.kw_only for field in dataclasses.fields(cls))
    assert cls.__dataclass_params__.frozen


@pytest.mark.parametrize(
    ("cls", "name"),
    [(cls, name) for cls, methods in METHODS.items() for name in methods],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_signatures_of_the_protocols_are_pinned(cls: type[typing.Any], name: str) -> None:
    member = vars(cls)[name]
    function = member.fget if isinstance(member, property) else member
    assert callable(function)
    assert str(inspect.signature(function)) == METHODS[cls][name]


def test_the_protocols_ask_for_nothing_else() -> None:
    for cls in (contracts.Objective, contracts.Loader, contracts.Examples, contracts.Task, contracts.TrainableTask):
        own = {name for name, value in vars(cls).items() if inspect.isfunction(value) or isinstance(value, property)}
        assert own - {"__init__", "__subclasshook__"} == set(METHODS[cls])


def test_the_public_names_of_the_package() -> None:
    assert electra.__all__ == ["ElectraError", "finetune", "load", "pretrain"]
    signatures = {name: str(inspect.signature(getattr(electra, name))) for name in ("pretrain", "finetune", "load")}
    assert signatures == {
        "pretrain": "(sources: 'Sequence[str | Path]', assignments: 'Sequence[str]' = ()) -> 'Path'",
        "finetune": "(sources: 'Sequence[str | Path]' = (), assignments: 'Sequence[str]' = ()) -> 'Path'",
        "load": "(model: 'str | Path', task: 'str | None' = None, precision: \"Literal['fp32', 'bf16', 'auto']\" = 'fp32') "
        "-> 'Predictor'",
    }


@pytest.mark.parametrize(
    "statement",
    [
        "import electra",
        "import electra.cli",
        "import electra.text.corpus",
        "import electra.text.build",
        "import sys, electra.cli as c\nsys.argv = ['electra', 'pretrain', '--help']\ntry: c.main()\nexcept SystemExit: pass",
    ],
)
def test_torch_is_loaded_by_the_verbs_that_need_it_only(statement: str) -> None:
    check = f"{statement}\nimport sys\nassert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_run_loads_no_pictures_before_it_draws_one() -> None:
    check = "import electra.build.pretrain, electra.build.finetune, sys\nassert 'matplotlib' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


def test_help_answers_in_half_a_second() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-m", "electra", "--help"], capture_output=True, text=True, timeout=60, check=False)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert done.returncode == 0
    assert "pretrain" in done.stdout
    assert spent < 0.5  # seconds of computing, which other programs do not stretch as they do wall-clock time


def test_errors_have_the_exit_code_of_their_letter() -> None:
    from electra.errors import ElectraError, ExitCode

    codes = {letter: ElectraError(f"E-{letter}001", "here", "wrong", "mend").exit_code for letter in "CDMTR"}
    assert codes == {
        "C": ExitCode.USAGE,
        "D": ExitCode.DATA,
        "M": ExitCode.DATA,
        "T": ExitCode.DATA,
        "R": ExitCode.RESOURCES,
    }
    assert [int(code) for code in ExitCode] == [0, 1, 2, 3, 4, 75]
    assert str(ElectraError("E-D012", "train.tsv:4", "no label", "add one")) == "E-D012 train.tsv:4: no label; add one"
