"""Paths -> the files that are read: folders and globs expanded, each file once, of kinds that are known."""

from __future__ import annotations

import glob
import stat
from collections.abc import Sequence
from pathlib import Path

from electra.errors import ElectraError
from electra.text.drops import Drops
from electra.text.readers.options import FileKind, ReadOptions
from electra.text.readers.source import UNREADABLE, reason, shown

#: compressions by the end of a name, as Arrow calls them
COMPRESSION = {".gz": "gzip", ".zst": "zstd"}

_KINDS: dict[str, FileKind] = {".txt": "txt", ".jsonl": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
_KNOWN = "known: .txt .jsonl .csv .tsv (each also with .gz or .zst behind it) .parquet; --format says what another name holds"


def kind_of(path: Path, options: ReadOptions) -> FileKind | None:
    """The kind that all files have, else that of the name, whatever the compression; None for other kinds."""
    if options.format is not None:
        return options.format
    compressed = path.suffix.lower() in COMPRESSION
    kind = _KINDS.get((path.with_suffix("") if compressed else path).suffix.lower())
    return None if kind == "parquet" and compressed else kind


def find_files(paths: Sequence[str | Path], drops: Drops, options: ReadOptions) -> list[Path]:
    """The files among `paths`, each once, folders and globs expanded in sorted order.

    In folders and globs, files of other kinds and hidden files are skipped and counted; a file that is named itself must be of
    a known kind. Symbolic links are followed, each folder and file once, so that loops end.

    Raises:
        ElectraError: E-C100 nothing at a path, E-C101 a kind of file that is not known, E-D101 cannot be read.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for path in paths:
        named = Path(path)
        try:
            exists, usable = named.exists(), named.is_dir() or (named.is_file() and kind_of(named, options) is not None)
        except OSError as error:
            raise _unreadable(named, error) from None
        if exists and not usable:
            raise ElectraError("E-C101", shown(path), "a name of no kind that is known here", _KNOWN)
        matches = [str(path)] if exists else sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (may be absolute)
        if not matches:
            raise ElectraError("E-C100", shown(path), "no such file or folder, and no file matches", "check the path")
        for match in matches:
            _collect(Path(match), found, seen, drops, options)
    return found


def _collect(path: Path, found: list[Path], seen: set[tuple[int, int]], drops: Drops, options: ReadOptions) -> None:
    """Adds `path`, or all that is below it, to `found`. `seen` holds (device, inode) of what was met before."""
    pending = [path]
    while pending:
        path = pending.pop()
        try:
            status = path.stat()
            folder = stat.S_ISDIR(status.st_mode)
            below = sorted(path.iterdir(), reverse=True) if folder else []
        except OSError as error:
            if options.errors != "skip":
                raise _unreadable(path, error) from None
            drops.add(UNREADABLE, shown(path), text=reason(error))
            continue
        identity = (status.st_dev, status.st_ino)
        if not folder and (kind_of(path, options) is None or not stat.S_ISREG(status.st_mode)):
            drops.add("skipped: files of another kind", shown(path))
        elif identity in seen:
            drops.add("skipped: files and folders met a second time", shown(path))
        elif folder:
            seen.add(identity)
            hidden = [child for child in below if child.name.startswith(".")]
            for child in hidden:
                drops.add("skipped: hidden files and folders", shown(child))
            pending += [child for child in below if not child.name.startswith(".")]
        else:
            seen.add(identity)
            found.append(path)


def _unreadable(path: Path, error: OSError) -> ElectraError:
    return ElectraError("E-D101", shown(path), f"cannot be read: {reason(error)}", "mend or remove it, or --errors skip")
