"""Directories that are whole or not there: what every stage writes (corpus, checkpoint, model directory).

`published` yields a temporary sibling to write into, which is renamed into place when the block ends well; when it ends badly
nothing is left, and a full disk is one clear error; `clear_leftovers` tidies up behind a process that was killed. `write_whole`
does the same for a single file. `workshop` is for work of hours that goes on where it was stopped: what was
made until then stays. `sealed_directory` also hashes and syncs every file and lists it with its size in `manifest.json`, which
is written last. `problem` tells whether a directory is still as it was sealed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from electra.errors import ElectraError

MANIFEST = "manifest.json"

_LARGEST_JSON = 1 << 20

T = TypeVar("T")


def file_hash(path: Path) -> str:
    """blake2b (128 bits) of a file, read in pieces."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def published(final: Path) -> Iterator[Path]:
    """A temporary sibling of `final` that takes its place when the block ends without an error, and vanishes if it does not.

    Args:
        final: where it will be; what stands there is replaced, so the caller asks before.

    Raises:
        ElectraError: E-R001 the disk is full or a quota is reached, E-R002 the place cannot be written. What stood at `final`
            is untouched then.
    """
    final = final.absolute()
    temporary = final.with_name(f".{final.name}.partial-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed and had the same number
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _replace(temporary, final, final.with_name(f".{final.name}.old-{os.getpid()}"))
    except Exception as error:
        if is_full_disk(error) or isinstance(error, OSError):
            raise unwritable(final, error) from None
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def clear_leftovers(folder: Path) -> None:
    """Tidy up what a process left in `folder` that was killed in `published`: what stood there before goes back, if it was just
    being replaced; the rest is removed. For a folder in which no other process is at work."""
    for aside in folder.glob(".*.old-*"):
        final = folder / aside.name[1:].rpartition(".old-")[0]
        if not final.exists():
            aside.rename(final)
    for left in (*folder.glob(".*.old-*"), *folder.glob(".*.partial-*")):
        shutil.rmtree(left)


def write_whole(path: Path, text: str) -> Path:
    """Put `text` at `path` in UTF-8 (a lone surrogate as an escape). Whoever reads it, meanwhile or after a crash, finds what
    stood there before or all of it.

    Raises:
        ElectraError: as `published`.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        with suppress(OSError):
            partial.unlink()
    return path


@contextmanager
def workshop(final: Path) -> Iterator[Path]:
    """A sibling of `final` to make it in, in more than one sitting: what was made stays there if the block ends badly.

    The block makes the subdirectory `made`, which takes the place of `final` when it ends well; whatever else lies there
    vanishes then. Only one process at a time has the workshop of a place.

    Args:
        final: where it will be; what stands there is replaced, so the caller asks before, inside of the block.

    Raises:
        ElectraError: E-R001, E-R002 as in `published`, E-R003 another process is at it.
    """
    final = final.absolute()
    shop = final.with_name(f".{final.name}.partial")
    try:
        shop.mkdir(parents=True, exist_ok=True)
        with _locked(shop):
            if (shop / "replaced").exists() and not final.exists():
                (shop / "replaced").rename(final)  # killed between two renamings
            try:
                yield shop
                _replace(shop / "made", final, shop / "replaced")
                shutil.rmtree(shop)
            finally:
                with suppress(OSError):
                    shop.rmdir()  # nothing was made
    except Exception as error:
        if is_full_disk(error) or isinstance(error, OSError):
            raise unwritable(shop, error) from None
        raise


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Holds a lock on a directory, which goes with the process that holds it."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ElectraError("E-R003", str(directory), "another process is at work there", "wait until it has ended") from None
    finally:
        os.close(descriptor)


@contextmanager
def sealed_directory(final: Path, manifest: dict[str, Any]) -> Iterator[Path]:
    """`published`, with every file of the directory hashed, synced and listed in its manifest.

    Args:
        final: where it will be.
        manifest: written to `manifest.json` with `files` added; the block may fill it.

    Raises:
        ElectraError: as `published`.
    """
    with published(final) as temporary:
        yield temporary
        _seal(temporary, manifest)


def standing(directory: Path) -> Path:
    """The directory, absolute, or the nearest one above it that exists: where it would be made."""
    return next(path for path in (directory.absolute(), *directory.absolute().parents) if path.is_dir())


def require_folder(file: Path) -> None:
    """Raises E-R002 where a file cannot be made because its folder is not there: to be asked before hours of work."""
    if not file.absolute().parent.is_dir():
        raise ElectraError("E-R002", str(file), "cannot be written: its folder is not there", "make the folder first")


def unwritable(place: Path, error: Exception) -> ElectraError:
    """What a user is told when `place` cannot be written: E-R001 for a full disk, E-R002 for anything else."""
    reason = getattr(error, "strerror", None) or error
    if is_full_disk(error):
        return ElectraError("E-R001", str(place), f"no room for it: {reason}",
                            "free space and run the same command again; nothing that was there before is lost")  # fmt: skip
    return ElectraError("E-R002", str(place), f"cannot be written: {reason}", "choose a directory you may write to")


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


def read_small_json(path: Path, kind: type[T]) -> T:
    """The JSON value of a file that others may have written, if it is a `kind` and no larger than a settings file is.

    Raises:
        OSError, ValueError: it is not.
    """
    if path.stat().st_size > _LARGEST_JSON:
        raise ValueError(f"larger than {_LARGEST_JSON} bytes")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(str(error)) from None
    if not isinstance(value, kind):
        raise ValueError("not an object" if kind is dict else f"not a {kind.__name__}")
    return value


def write_json(path: Path, value: Any) -> None:
    """`value` as indented UTF-8 JSON with sorted keys; a lone surrogate, which UTF-8 has no bytes for, as JSON's escape."""
    path.write_text(json_text(value), encoding="utf-8", errors="backslashreplace")


def json_text(value: Any) -> str:
    """What `write_json` writes."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def is_full_disk(error: BaseException) -> bool:
    """Whether the operating system refused a write for want of space; safetensors passes its number on as text only."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, OSError) and error.errno in numbers:
        return True
    return any(f"os error {number}" in str(error) for number in numbers)


def _seal(directory: Path, manifest: dict[str, Any]) -> None:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    mask = os.umask(0)
    os.umask(mask)
    for path in files:
        path.chmod(0o666 & ~mask)  # safetensors writes for the owner alone, whatever the umask says
    manifest["files"] = {
        path.relative_to(directory).as_posix(): {"size": path.stat().st_size, "blake2b": file_hash(path)} for path in files
    }
    write_json(directory / MANIFEST, manifest)
    folders = [path for path in directory.rglob("*") if path.is_dir()]
    for path in [*files, directory / MANIFEST, *folders, directory]:
        sync(path)


def _replace(temporary: Path, final: Path, aside: Path) -> None:
    """Rename into place; a directory that stands there is moved `aside` first, put back if that fails, and removed last."""
    shutil.rmtree(aside, ignore_errors=True)
    if final.exists():
        final.rename(aside)
    try:
        temporary.rename(final)
    except OSError:
        if aside.exists():
            aside.rename(final)
        raise
    sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def sync(path: Path) -> None:
    """fsync of a file or directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
