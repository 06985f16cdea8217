"""How far the building of a corpus is: written after every shard, read when the same command is given again.

The journal lies beside the shards that are finished. It names the command (files with their sizes and times, options, tokenizer
and versions), so that no corpus is ever made by two commands; the place in the input up to which documents are in these shards;
and the sums for the manifest up to there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from electra.config import STRICT
from electra.errors import ElectraError
from electra.storage import sync
from electra.text.drops import Losses
from electra.text.manifest import Shard, shard_name

_NAME = "journal.json"
_ALWAYS_USED = ("electra-toolkit", "pyarrow", "tokenizers")


@dataclass(kw_only=True)
class Begun:
    """A file that is being read.

    Args:
        file: its name; empty before the first one.
        documents, text_bytes: of those that went to the tokenizer.
        losses: those among them of which it left nothing; what was lost before is found again when the file is read again.
    """

    __pydantic_config__ = STRICT
    file: str = ""
    documents: int = 0
    text_bytes: int = 0
    losses: Losses = field(default_factory=Losses)


@dataclass(kw_only=True)
class Journal:
    """What a build has done.

    Args:
        command: what makes the corpus what it is, by name; compared when it goes on.
        shards: those that are finished.
        documents, tokens, unknown, text_bytes: as in the manifest, of these shards.
        lengths: documents by length, as in the manifest.
        losses: what was left out while files were looked for, and in those that are done.
        sources: how many these are.
        sources_bytes: size of `sources.jsonl`, which lists them.
        source: the file that is being read.
    """

    __pydantic_config__ = STRICT
    command: dict[str, str]
    shards: tuple[Shard, ...] = ()
    documents: int = 0
    tokens: int = 0
    unknown: int = 0
    text_bytes: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    losses: Losses = field(default_factory=Losses)
    sources: int = 0
    sources_bytes: int = 0
    source: Begun = field(default_factory=Begun)

    def add(self, later: Journal) -> None:
        """The sums of what came later and is done are added; shards are numbered on."""
        shards = [replace(shard, file=shard_name(number)) for number, shard in enumerate(later.shards, len(self.shards))]
        self.shards += tuple(shards)
        self.documents += later.documents
        self.tokens += later.tokens
        self.unknown += later.unknown
        self.text_bytes += later.text_bytes
        self.lengths.update(later.lengths)
        self.losses.update(later.losses)
        self.sources += later.sources
        self.sources_bytes += later.sources_bytes

    def save(self, directory: Path) -> None:
        """In place of the last one, all at once."""
        new = directory / f"{_NAME}.new"
        new.write_bytes(_JOURNAL.dump_json(self))
        sync(new)
        new.replace(directory / _NAME)
        sync(directory)


_JOURNAL = TypeAdapter(Journal)


def command_of(files: Iterable[Path], tokenizer: str, options: dict[str, object], packages: Iterable[str]) -> dict[str, str]:
    """What a corpus depends on, by name.

    Args:
        files: those that are read, told with their sizes and times.
        tokenizer: its fingerprint.
        options: by name.
        packages: optional ones that are used; their versions are told with those of what is always used.
    """
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        status = file.stat()
        digest.update(os.fsencode(file) + f"\n{status.st_size} {status.st_mtime_ns}\n".encode())
    versions = {f"version of {package}": version(package) for package in (*_ALWAYS_USED, *packages)}
    versions["version of Unicode"] = unicodedata.unidata_version
    return {"input files": digest.hexdigest(), "tokenizer": tokenizer, **{k: str(v) for k, v in options.items()}, **versions}


def open_journal(directory: Path, command: dict[str, str], found: Losses, *, start_over: bool) -> Journal:
    """The journal of a build of this command that was stopped, or a new one and nothing else in the directory.

    Args:
        directory: journal and, in `made`, shards.
        command: as `command_of` tells it.
        found: what was left out while files were looked for.
        start_over: forget a build of another command.

    Raises:
        ElectraError: E-C150 a build of another command lies there.
    """
    journal = read_journal(directory)
    if journal is not None and journal.command != command and not start_over:
        names = [name for name in command | journal.command if command.get(name) != journal.command.get(name)]
        raise ElectraError(
            "E-C150", str(directory), f"an unfinished corpus of another command lies there (other: {', '.join(names)})",
            "repeat that command to go on, or start over with --overwrite",
        )  # fmt: skip
    if journal is not None and journal.command == command:
        return journal
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (directory / "made").mkdir()
    return Journal(command=command, losses=found)


def read_journal(directory: Path) -> Journal | None:
    """The journal that lies there, if it can be read and its shards are what it says."""
    try:
        journal = _JOURNAL.validate_json((directory / _NAME).read_bytes())
        sizes = [(directory / "made" / shard.file).stat().st_size for shard in journal.shards]
    except (OSError, ValidationError):
        return None
    return journal if sizes == [shard.bytes for shard in journal.shards] else None
