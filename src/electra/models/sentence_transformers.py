"""What sentence-transformers needs beside an encoder, so that `SentenceTransformer(directory)` gives our vectors; and back.

    modules.json                the encoder, a pooling, vectors of length 1
    sentence_bert_config.json   the length that texts are cut to
    1_Pooling/config.json       the mean over a text's tokens, or its first one
    2_Normalize/                nothing, but there

In: task.json of an `embed` model. The classes are called as in version 2, which later versions understand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from electra import storage
from electra.errors import ElectraError

_MODULES = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
T = TypeVar("T")
_POOLINGS = {"cls": "cls_token", "mean": "mean_tokens"}


def write(directory: Path, task: Mapping[str, Any], size: int) -> None:
    """The files, if `task`, as task.json has it, is `embed`.

    Args:
        size: of the encoder's hidden states.
    """
    if task.get("type") != "embed":
        return
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(_MODULES)
    ]
    pooling = {f"pooling_mode_{mode}": task["pooling"] == ours for ours, mode in _POOLINGS.items()}
    _write(directory / "modules.json", modules)
    _write(directory / "sentence_bert_config.json", {"max_seq_length": task["max_length"], "do_lower_case": False})
    _write(directory / "1_Pooling" / "config.json", {"word_embedding_dimension": size, **pooling})
    _write(directory / "2_Normalize" / "config.json", {})


def _write(file: Path, value: object) -> None:
    file.parent.mkdir(exist_ok=True)
    storage.write_json(file, value)


def read(directory: Path, positions: int) -> dict[str, Any] | None:
    """task.json of a directory that sentence-transformers wrote; None where it did not.

    Args:
        positions: tokens that the encoder can take at most.

    Raises:
        ElectraError: E-M330 a file that cannot be read, E-M331 a module or a pooling that there is none of here.
    """
    if not (directory / "modules.json").is_file():
        return None
    listed = [module.get("type") if isinstance(module, dict) else module for module in _read(directory / "modules.json", list)]
    modules = [str(kind).rpartition(".")[2] for kind in listed]
    if modules not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ElectraError("E-M331", str(directory / "modules.json"), f"the modules are {', '.join(modules)}",
                           "only Transformer, Pooling, Normalize are known; remove the file to take the encoder")  # fmt: skip
    file = directory / "1_Pooling" / "config.json"
    said = _read(file, dict)
    chosen = [ours for ours, mode in _POOLINGS.items() if said.get(f"pooling_mode_{mode}") or said.get("pooling_mode") == ours]
    others = {name for name, value in said.items() if name.startswith("pooling_mode_") and value}
    if len(chosen) != 1 or others - {f"pooling_mode_{_POOLINGS[chosen[0]]}"}:
        raise ElectraError("E-M331", str(file), f"the pooling {json.dumps(said)}", "only cls or mean can be loaded")
    # until version 5 the length stands in a file of its own, then with the tokenizer, whose default is a huge number
    lengths = [positions]
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        if (directory / name).is_file() and type(length := _read(directory / name, dict).get(key)) is int:
            lengths.append(length)
    return {"type": "embed", "pooling": chosen[0], "max_length": min(lengths)}


def _read(file: Path, kind: type[T]) -> T:
    try:
        return storage.read_small_json(file, kind)
    except (OSError, ValueError) as error:
        raise ElectraError("E-M330", str(file), f"cannot be read: {error}", "save the model again") from None
