"""README's commands are executed, one after the other, as a reader would who has made the files it speaks of.

`_SMALLER` lists all that is changed in them; `_ELSEWHERE` what is not executed here, and why.
"""

from __future__ import annotations

import random
import shlex
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

Blocks = Callable[[Path, str], list[str]]

#: a network that trains in seconds takes the place of one that trains for half an hour
_SMALLER = {"modern-tiny": "test-modern"}
#: installation needs a network; make's targets are called by .ci/run, and this test is a part of one of them
_ELSEWHERE = ["python3 -m venv .venv && . .venv/bin/activate", "pip install -c constraints.txt -e .", "make demo", "make test"]
_WORDS = {"positive": ["warm", "clever", "lovely"], "negative": ["cold", "dull", "dreadful"]}


def _commands(page: Path, blocks: Blocks) -> list[str]:
    return [line for block in blocks(page, "console") for line in block.splitlines()]


def _text(label: str, chance: random.Random) -> str:
    noun, word = chance.choice(["book", "film", "room", "song"]), chance.choice(_WORDS[label])
    return f"The {noun} was {word} from the beginning to the end."


def _write_files(place: Path) -> None:
    """What README says that a reader has."""
    chance = random.Random(0)
    labels = ["positive", "negative"] * 8
    (place / "text").mkdir()
    documents = [" ".join(_text(chance.choice(labels), chance) for _ in range(8)) for _ in range(30)]
    (place / "text" / "reviews.txt").write_text("\n\n".join(documents), encoding="utf-8")
    for name in ("train.tsv", "dev.tsv"):
        rows = "".join(f"{_text(label, chance)}\t{label}\n" for label in labels)
        (place / name).write_text(f"text\tlabel\n{rows}", encoding="utf-8")
    (place / "reviews.txt").write_text("".join(f"{_text(label, chance)}\n" for label in labels[:3]), encoding="utf-8")


def _smaller(code: str) -> str:
    for name, other in _SMALLER.items():
        code = code.replace(name, other)
    return code


def _run(command: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """What the installed `electra` does with a line, in this process: torch is loaded once."""
    (script,) = entry_points(group="console_scripts", name="electra")
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    with pytest.raises(SystemExit) as ended:
        script.load()()
    return int(str(ended.value.code))


def test_its_commands_and_its_python_do_what_it_says(
    root: Path, tmp_path: Path, blocks: Blocks, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    commands = [line for line in _commands(root / "README.md", blocks) if line not in _ELSEWHERE]
    assert [line.split()[1] for line in commands] == ["tokenizer", "corpus", "pretrain", "report", "finetune", "predict"]
    for line in commands:
        capsys.readouterr()
        assert _run(_smaller(line), monkeypatch) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.count('"label"') == 3  # of the last one: a line for each review
    promised = ["runs/first/report.html", "runs/first/events.jsonl", "runs/first/model/README.md"]
    promised += ["runs/first/model/generator/config.json", "runs/sentiment/model/task.json"]
    assert [name for name in promised if not Path(name).is_file()] == []

    (code,) = blocks(root / "README.md", "python")
    before = Path("runs/sentiment/recipe.json").read_bytes()
    exec(compile(_smaller(code), "README.md", "exec"), {})  # the same runs: they are resumed, not made again
    assert Path("runs/sentiment/recipe.json").read_bytes() == before
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] in _WORDS for line in printed[-2:]] == [True, True]


def test_both_languages_have_the_same_commands(root: Path, blocks: Blocks) -> None:
    english, chinese = (_commands(root / name, blocks) for name in ("README.md", "README.zh.md"))
    assert english == chinese
    assert [line for line in english if not line.startswith("electra ")] == _ELSEWHERE


def test_both_languages_have_the_same_python(root: Path, blocks: Blocks) -> None:
    english, chinese = (blocks(root / name, "python")[0].splitlines() for name in ("README.md", "README.zh.md"))
    different = [one for one, other in zip(english, chinese, strict=True) if one != other]
    assert [line.startswith("for prediction in") for line in different] == [True]  # the texts that are judged
