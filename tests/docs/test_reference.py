"""What the reference pages list is what the code has: settings with their defaults, error codes, commands, recipes."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from electra import config
from electra.build.finetune import FinetuneRecipe
from electra.build.pretrain import PretrainRecipe
from electra.cli import app
from electra.events import FIGURES
from electra.tasks import UntrainedTaskConfig
from electra.train.verdicts import State

Blocks = Callable[[Path, str], list[str]]
_COMMANDS: Any = typer.main.get_command(app)
_RECIPES = {"Pre-training": PretrainRecipe, "Fine-tuning": FinetuneRecipe}
_GIVEN = {
    "pretrain": ["corpus.path=corpus", "run.dir=run"],
    "finetune": ["task=classify", "init.from=m", "data.train=t", "run.dir=r"],
}


# -- settings -----------------------------------------------------------------------------------------------------------


def _tables(hint: Any) -> list[type[Any]]:
    """The dataclasses that a setting may be: through Annotated, unions, dictionaries and lists."""
    if dataclasses.is_dataclass(hint):
        return [typing.cast(type[Any], hint)]
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Annotated:
        parts = parts[:1]
    elif typing.get_origin(hint) not in (typing.Union, types.UnionType, dict, tuple):
        parts = ()
    return [table for part in parts for table in _tables(part)]


def _settings(table: type[Any], prefix: str, value: object = None) -> Iterator[tuple[str, str]]:
    """(dotted path, default as it is written in the page) of every setting below `table`; `value` holds its defaults."""
    hints = typing.get_type_hints(table, include_extras=True)
    for field in dataclasses.fields(table):
        path, hint = prefix + field.name.rstrip("_"), hints[field.name]
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if isinstance(value, table):
            default = getattr(value, field.name)
        name = f"{path}.NAME" if typing.get_origin(hint) is dict else path
        for inner in _tables(hint):
            yield from _settings(inner, f"{name}.", default)
        if not _tables(hint):
            yield path, _written(default)


def _written(default: object) -> str:
    if default is dataclasses.MISSING:
        return "required"
    return "none" if default is None else f"`{json.dumps(default)}`"


@pytest.mark.parametrize("section", _RECIPES)
def test_every_setting_is_documented_with_its_default(root: Path, section: str) -> None:
    page = (root / "docs" / "recipes.md").read_text(encoding="utf-8")
    part = page.split(f"\n## {section}\n")[1].split("\n## ")[0]
    documented = set(re.findall(r"^\| `([\w.]+)` \| (.+?) \| .*\|$", part, re.MULTILINE))
    assert documented == set(_settings(_RECIPES[section], ""))


def test_every_setting_of_a_task_without_training_is_documented_with_its_default(root: Path) -> None:
    part = (root / "docs" / "recipes.md").read_text(encoding="utf-8").split("\n## Tasks without training\n")[1]
    documented = {
        task: re.findall(r"^\| `([\w.]+)` \| (.+?) \| .*\|$", table, re.MULTILINE)
        for task, table in re.findall(r"### task=([\w-]+)\n(.*?)(?=\n### |\Z)", part, re.DOTALL)
    }
    configs = {config.type: config for config in typing.get_args(UntrainedTaskConfig)}
    assert sorted(documented) == sorted(configs)
    for task, config_of_task in configs.items():
        assert sorted(documented[task]) == sorted(_settings(config_of_task, ""))


def test_every_shipped_recipe_is_named(root: Path) -> None:
    page = (root / "docs" / "recipes.md").read_text(encoding="utf-8")
    table = page.split("**Shipped.**")[1].split("\n\nThe learning rate")[0]
    named = re.findall(r"`([a-z0-9-]+)`", "".join(line.split(" | ")[0] for line in table.splitlines()))
    assert sorted(named) == sorted(config.shipped())


# -- error codes --------------------------------------------------------------------------------------------------------


def test_every_error_code_is_listed_once_and_no_other(root: Path) -> None:
    sources = [path.read_text(encoding="utf-8") for path in (root / "src").rglob("*") if path.suffix in (".py", ".js")]
    used = {code for text in sources for code in re.findall(r"E-[A-Z]\d{3}", text)}
    listed = re.findall(r"^\| `(E-[A-Z]\d{3})` \|", (root / "docs" / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(used) == listed


# -- figures, verdicts, counts ------------------------------------------------------------------------------------------


def test_every_figure_and_every_verdict_is_explained(root: Path) -> None:
    page = (root / "docs" / "pretraining.md").read_text(encoding="utf-8")
    assert [name for name in (*FIGURES, *State) if f"`{name}`" not in page] == []


def test_everything_that_is_dropped_is_named(root: Path) -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (root / "src" / "electra" / "text").rglob("*.py"))
    causes = re.findall(r'"((?:skipped|dropped|split|removed|replaced): [a-zA-Z0-9 -]+)"', sources)
    assert len(causes) > 10
    page = (root / "docs" / "corpus.md").read_text(encoding="utf-8")
    assert [cause for cause in causes if f"`{cause}`" not in page] == []


# -- commands and recipes in the pages ----------------------------------------------------------------------------------


def _check(command: str) -> None:
    """The verb, its options and its settings exist. Raises what the command line would."""
    words = shlex.split(command)[1:]
    node: Any = _COMMANDS
    while hasattr(node, "commands"):
        node = node.commands[words.pop(0)]
    node.make_context(node.name, list(words))
    if node.name in _GIVEN:
        cls: type[Any] = PretrainRecipe if node.name == "pretrain" else FinetuneRecipe
        recipes = [word for word in words if "=" not in word and word in config.shipped()]
        config.load(cls, recipes, _GIVEN[node.name] + [word for word in words if "=" in word])


def test_commands_in_the_docs_name_verbs_options_and_settings_that_exist(pages: list[Path], blocks: Blocks) -> None:
    commands = [line for page in pages for block in blocks(page, "console") for line in block.splitlines()]
    ours = [line for line in commands if line.startswith("electra ")]
    assert len(ours) > 15
    for line in ours:
        _check(line)


def test_the_check_of_commands_finds_what_is_wrong() -> None:
    for wrong in ("electra predict m --task", "electra corpus build t --tokenizer t --output o", "electra train x"):
        with pytest.raises(Exception, match=r"requires an argument|[Nn]o such option|train"):
            _check(wrong)
    with pytest.raises(Exception, match=r"stop\.hour: no such setting"):
        _check("electra pretrain modern-tiny stop.hour=1")


def test_recipes_in_the_docs_load(pages: list[Path], blocks: Blocks, tmp_path: Path) -> None:
    shown = [block for page in pages for block in blocks(page, "toml")]
    assert shown
    for block in shown:
        (tmp_path / "shown.toml").write_text(block, encoding="utf-8")
        given = [setting for setting in _GIVEN["pretrain"] if "[[corpus" not in block or not setting.startswith("corpus")]
        config.load(PretrainRecipe, [tmp_path / "shown.toml"], given)
