"""Directories that are whole or not there: what every stage writes (corpus, checkpoint, model directory).

`sealed_directory` yields a temporary sibling to write into. When the block ends well, every file is hashed, synced and
listed with its size in `manifest.json`, which is written last; then the directory is renamed into place and its parent
synced. When it ends badly nothing is left, and a full disk is one clear error. `problem` tells whether a directory is still
as it was sealed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from electra.errors import ElectraError

MANIFEST = "manifest.json"


def file_hash(path: Path) -> str:
    """blake2b (128 bits) of a file, read in pieces."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def sealed_directory(final: Path, manifest: dict[str, Any]) -> Iterator[Path]:
    """A directory to write into that becomes `final` when the block ends without an error.

    Args:
        final: where it will be; what stands there is replaced, so the caller asks before.
        manifest: written to `manifest.json` with `files` added; the block may fill it.

    Raises:
        ElectraError: E-R001 when the disk is full or a quota is reached; nothing is left behind then, and what stood at
            `final` before is untouched.
    """
    temporary = final.parent / f".{final.name}.{os.getpid()}.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _seal(temporary, manifest)
        _replace(temporary, final)
    except Exception as error:
        if is_full_disk(error):
            shutil.rmtree(temporary, ignore_errors=True)
            raise ElectraError("E-R001", str(final), f"it could not be written: {error}",
                               "free space and try again; nothing that was there before is lost") from None  # fmt: skip
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a sealed directory.

    Raises:
        OSError, ValueError: there is none, or it is not JSON.
    """
    manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def problem(directory: Path) -> str | None:
    """What is no longer as it was sealed, by size and hash of every file; None if nothing is."""
    try:
        for name, entry in read_manifest(directory)["files"].items():
            file = directory / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != entry["size"]:
                return f"{name} has {file.stat().st_size} bytes instead of {entry['size']}"
            if file_hash(file) != entry["blake2b"]:
                return f"{name} has another hash than when it was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    return None


def write_json(path: Path, value: Any) -> None:
    """`value` as indented UTF-8 JSON with sorted keys."""
    path.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def is_full_disk(error: BaseException) -> bool:
    """Whether the operating system refused a write for want of space; safetensors passes its number on as text only."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, OSError) and error.errno in numbers:
        return True
    return any(f"os error {number}" in str(error) for number in numbers)


def _seal(directory: Path, manifest: dict[str, Any]) -> None:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    manifest["files"] = {
        path.relative_to(directory).as_posix(): {"size": path.stat().st_size, "blake2b": file_hash(path)} for path in files
    }
    write_json(directory / MANIFEST, manifest)
    folders = [path for path in directory.rglob("*") if path.is_dir()]
    for path in [*files, directory / MANIFEST, *folders, directory]:
        _sync(path)


def _replace(temporary: Path, final: Path) -> None:
    """Rename into place; a directory that stands there is moved aside first and removed last."""
    aside = final.parent / f".{final.name}.{os.getpid()}.old"
    if final.exists():
        final.rename(aside)
    temporary.rename(final)
    _sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
