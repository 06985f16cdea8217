"""Tasks of installed packages: found by the name that a caller gives, and every way in which a package can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from electra.config import to_tree
from electra.errors import ElectraError
from electra.tasks import BUILT_IN, task_config
from electra.tasks.own import checked, name_of, own_task
from electra.text.train_tokenizer import train as train_tokenizer

GOOD = """
from dataclasses import dataclass, field
from typing import Literal
from electra.config import STRICT

@dataclass(frozen=True, kw_only=True)
class Inner:
    depth: int = 1

@dataclass(frozen=True, kw_only=True)
class Config:
    __pydantic_config__ = STRICT
    type: Literal["mine"] = "mine"
    size: int = 3
    inner: Inner = field(default_factory=Inner)
    def build(self, tokenizer):
        return Half()

class Half:
    max_length, per_token, pad_id = 8, False, 0
    def read(self, path): ...
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """A package with one module and one entry point."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(package: str, code: str, point: str = "mine") -> None:
        module = f"module_of_{package}_{abs(hash(code))}"  # one that no other test has imported
        (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[electra.tasks]\n{point} = {module}:Config\n", encoding="utf-8")

    return make


def test_a_task_is_found_by_its_name_and_its_settings_are_checked(install: Install) -> None:
    install("good", GOOD)
    config = task_config({"type": "mine", "size": 4, "inner": {"depth": 2}}, own="mine")
    assert to_tree(config) == {"type": "mine", "size": 4, "inner": {"depth": 2}}
    with pytest.raises(ElectraError, match=r"E-C004 siz: no such setting; did you mean size\?"):
        task_config({"type": "mine", "siz": 4}, own="mine")
    with pytest.raises(ElectraError, match=r"E-C004 inner\.dept: no such setting"):
        task_config({"type": "mine", "inner": {"dept": 4}}, own="mine")
    assert own_task("another", BUILT_IN) is None


def test_data_alone_enables_nothing(install: Install) -> None:
    install("good", "raise SystemExit('this code must not run')")
    with pytest.raises(ElectraError, match="E-C004"):
        task_config({"type": "mine"})
    with pytest.raises(ElectraError, match="E-C004"):
        task_config({"type": "mine"}, own="classify")


def test_names_that_are_taken_are_refused(install: Install) -> None:
    install("greedy", GOOD, point="classify")
    with pytest.raises(ElectraError, match=r"E-C349 task 'classify': is built in, and the package 'greedy'"):
        own_task("classify", BUILT_IN)
    install("one", GOOD)
    install("other", GOOD)
    with pytest.raises(ElectraError, match=r"E-C349 task 'mine': the package 'one' and the package 'other' have"):
        own_task("mine", BUILT_IN)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import no_such_module_anywhere", "E-M336 .*package 'broken'.*ModuleNotFoundError: .*no_such_module_anywhere"),
        ("1 / 0", "E-M336 .*package 'broken'.*ZeroDivisionError"),
        ("Other = 1", "E-M336 .*has no attribute 'Config'"),
        ("Config = 3", "E-M337 .*package 'broken'.*is no dataclass"),
        (GOOD.replace("frozen=True, ", ""), "E-M337 .*not frozen"),
        (GOOD.replace("    __pydantic_config__ = STRICT\n", ""), "E-M337 .*__pydantic_config__ = STRICT"),
        (GOOD.replace('Literal["mine"] = "mine"', 'str = "mine"'), r"E-M337 .*has no field type: Literal\['mine'\]"),
        (GOOD.replace('"mine"', '"yours"'), "E-M337 .*has no field type"),
        (GOOD.replace("size: int", "size: 'Nothing'"), "E-M337 .*cannot be resolved"),
        (GOOD.replace("def build", "def make"), "E-M337 .*has no method build"),
    ],
)
def test_a_broken_package_is_named_in_one_line(install: Install, code: str, problem: str) -> None:
    install("broken", code)
    with pytest.raises(ElectraError, match=problem) as caught:
        own_task("mine", BUILT_IN)
    assert "\n" not in str(caught.value)


def test_a_task_that_lacks_methods_is_told_which(install: Install) -> None:
    install("good", GOOD)
    task = task_config("mine", own="mine").build(train_tokenizer(["a b"] * 4, vocab_size=64))
    with pytest.raises(
        ElectraError, match=r"E-M338 Half: a task needs whole_batch, encode, decode, labels, fit, head, loss, judge, score, "
    ):
        checked(task)  # type: ignore[arg-type]


def test_the_name_in_a_recipe_has_two_forms() -> None:
    assert [name_of(given) for given in ("mine", {"type": "mine"}, {}, None, 3)] == ["mine", "mine", None, None, None]
