"""A run is a directory: the resolved recipe, the event log, the checkpoints, the model.

`open_run` decides what a command means: an empty place starts, the same recipe resumes, another recipe is an error that names
what differs, and `run.fresh=true` starts over. What was probed (precision, micro-batch, steps) stands in `recipe.json` from
the first start on, and a resumed run reads it there instead of probing again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra.config import STRICT, fingerprint
from electra.dist import first, gather
from electra.errors import ElectraError
from electra.storage import json_text, write_whole

RECIPE_FILE = "recipe.json"
#: Settings of a recipe that say where and how often, not what is learnt: they may differ at a resume.
_FREE = ("run", "loop", "parallel")
_OURS = (
    RECIPE_FILE, "events.jsonl", "tensorboard", "checkpoints", "phases", "model", "evaluation.json", "report.html",
    "summary.json", "lr-*", "seed-*", "retry",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where a run lives and what its randomness is folded from.

    Args:
        dir: the directory; made if missing.
        fresh: remove an earlier run in `dir` first.
        seed: initial weights, order, masks, noise and dropout.
    """

    __pydantic_config__ = STRICT
    dir: Path
    fresh: bool = False
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An opened run: the directory, what was resolved at its first start, and whether it is being resumed."""

    directory: Path
    resolved: dict[str, Any]
    resuming: bool

    @property
    def checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    @property
    def events(self) -> Path:
        return self.directory / "events.jsonl"

    @property
    def model(self) -> Path:
        return self.directory / "model"

    def phase_model(self, phase: str) -> Path:
        """The ModelDir that one phase hands to the next."""
        return self.directory / "phases" / phase


def open_run(config: RunConfig, tree: Mapping[str, Any], resolve: Callable[[], dict[str, Any]]) -> Opened:
    """Start or resume the run of recipe `tree` in `config.dir`; of several processes, the first one looks and writes.

    Args:
        config: where.
        tree: the recipe as JSON-ready tables, every field explicit.
        resolve: probes and derives what is not in the recipe (JSON-ready); called for a new run only, by all processes, of
            which the first one is right.

    Raises:
        ElectraError: E-C420 another recipe has run here, E-C421 the directory holds other files or is none, E-C422 starting
            over would remove the model that `init.from` names, E-R803 the processes do not share the directory.
    """

    def look() -> dict[str, Any] | None:
        found = run_to_resume(config, tree)
        return None if found is None else found.resolved

    def start() -> dict[str, Any]:
        _start(config.dir, tree, own)
        return own

    known = first(look)
    own = {} if known is not None else resolve()  # before anything is removed: most of what can go wrong goes wrong here
    resolved = known if known is not None else first(start)
    seen = gather((config.dir / RECIPE_FILE).is_file())
    if not all(seen):
        raise ElectraError("E-R803", str(config.dir), f"process {seen.index(False)} does not see what process 0 has written "
                           "there", "put run.dir on a file system that all machines share")  # fmt: skip
    return Opened(directory=config.dir, resolved=resolved, resuming=known is not None)


def _start(directory: Path, tree: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
    """Empty the place of what an earlier run has left, and make it the run of recipe `tree`."""
    for name in reversed(_OURS):  # the recipe last: until then the directory is known as a run
        for path in directory.glob(name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    directory.mkdir(parents=True, exist_ok=True)
    stored = {"format_version": 1, "recipe": tree, "resolved": resolved, "fingerprint": recipe_fingerprint(tree)}
    write_whole(directory / RECIPE_FILE, json_text(stored))  # it makes the directory a run


def run_to_resume(config: RunConfig, tree: Mapping[str, Any]) -> Opened | None:
    """The run that recipe `tree` resumes in `config.dir`; None = it starts one there. Nothing is written.

    Raises:
        ElectraError: neither is possible; see `open_run`.
    """
    directory, file = config.dir, config.dir / RECIPE_FILE
    if file.is_file() and not config.fresh:
        return Opened(directory=directory, resolved=_matching(file, tree), resuming=True)
    if directory.exists() and not directory.is_dir():
        raise ElectraError("E-C421", str(directory), "is a file, not a directory", "choose another run.dir")
    partial = f".{RECIPE_FILE}.partial"  # of a start that was killed
    if not file.is_file() and directory.is_dir() and any(path.name != partial for path in directory.iterdir()):
        raise ElectraError("E-C421", str(directory), "the directory is not empty and holds no run",
                           "choose another run.dir, or empty it")  # fmt: skip
    _refuse_own_source(directory, (tree.get("init") or {}).get("from"))
    return None


def _refuse_own_source(directory: Path, source: str | None) -> None:
    """A run that starts over in `directory` must not remove the model that it starts from."""
    if source is not None and Path(source).resolve().is_relative_to(directory.resolve()):
        raise ElectraError("E-C422", "init.from", f"{source} lies in run.dir, which this run would replace",
                           "choose another run.dir")  # fmt: skip


def recipe_fingerprint(tree: Mapping[str, Any]) -> str:
    """Of what is learnt: the recipe without places and intervals."""
    return fingerprint({key: value for key, value in tree.items() if key not in _FREE} | {"seed": tree["run"]["seed"]})


def _matching(file: Path, tree: Mapping[str, Any]) -> dict[str, Any]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        version, recipe, resolved = stored["format_version"], stored["recipe"], stored["resolved"]
    except (ValueError, KeyError, TypeError) as error:
        raise ElectraError("E-M420", str(file), f"not a recipe of a run: {error}", "start over with run.fresh=true") from None
    if version != 1:
        raise ElectraError("E-M421", str(file), f"format_version {version} is not known", "use the version that wrote it")
    if recipe_fingerprint(recipe) != recipe_fingerprint(tree):
        paths = [
            path for path in _differences("", recipe, tree) if path.split(".")[0] not in _FREE or path.startswith("run.seed ")
        ]
        raise ElectraError("E-C420", str(file.parent), f"it holds a run with another recipe; different: {', '.join(paths[:6])}",
                           "give the same settings to resume, another run.dir, or run.fresh=true to replace it")  # fmt: skip
    return dict(resolved)


def _differences(path: str, left: Any, right: Any) -> Iterator[str]:
    """Dotted paths at which two trees differ, with both values."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for key in sorted(set(left) | set(right)):
            yield from _differences(f"{path}.{key}" if path else key, left.get(key), right.get(key))
    elif left != right:
        yield f"{path} was {left!r}, now {right!r}" if not isinstance(left, Mapping | list) else path
