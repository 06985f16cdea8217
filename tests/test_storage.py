"""A sealed directory is whole or not there, and every later change of it is found and named."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from electra.errors import ElectraError, ExitCode
from electra.storage import MANIFEST, file_hash, is_full_disk, problem, read_manifest, sealed_directory, write_json

CONTENT = {"a.bin": bytes(range(256)) * 20, "b.txt": b"two\n", "inner/c.txt": b"three\n", "empty": b""}


def write(directory: Path, content: dict[str, bytes] = CONTENT) -> None:
    with sealed_directory(directory, {"format_version": 1}) as temporary:
        for name, data in content.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_bytes(data)


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    write(tmp_path / "sealed")
    return tmp_path / "sealed"


def alone(directory: Path) -> bool:
    """Nothing else lies beside it, hidden names included."""
    return [path.name for path in directory.parent.iterdir()] == [directory.name]


def test_round_trip(sealed: Path) -> None:
    assert problem(sealed) is None
    manifest = read_manifest(sealed)
    assert manifest["format_version"] == 1
    assert {name: entry["size"] for name, entry in manifest["files"].items()} == {n: len(d) for n, d in CONTENT.items()}
    assert all((sealed / name).read_bytes() == data for name, data in CONTENT.items())
    assert alone(sealed)


@pytest.mark.parametrize("name", CONTENT)
def test_every_file_that_goes_missing_is_named(sealed: Path, name: str) -> None:
    (sealed / name).unlink()
    assert problem(sealed) == f"{name} is missing"


@pytest.mark.parametrize("name", [name for name in CONTENT if CONTENT[name]])
def test_every_cut_and_every_flipped_bit_is_found(sealed: Path, name: str) -> None:
    data = CONTENT[name]
    for place in {0, len(data) // 2, len(data) - 1}:
        (sealed / name).write_bytes(data[:place])
        assert problem(sealed) == f"{name} has {place} bytes instead of {len(data)}"
        flipped = bytearray(data)
        flipped[place] ^= 1
        (sealed / name).write_bytes(flipped)
        assert problem(sealed) == f"{name} has another hash than when it was written"
    (sealed / name).write_bytes(data)
    assert problem(sealed) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"files": 3}', '{"files": {"a.bin": 1}}', '{"files": {"a.bin": {}}}']
)
def test_a_manifest_that_says_nothing(sealed: Path, text: str) -> None:
    (sealed / MANIFEST).write_text(text, encoding="utf-8")
    assert str(problem(sealed)).startswith(f"{MANIFEST} cannot be read")


def test_no_manifest(sealed: Path) -> None:
    (sealed / MANIFEST).unlink()
    assert str(problem(sealed)).startswith(f"{MANIFEST} cannot be read")
    (sealed / MANIFEST).write_bytes(b"\xff\xfe")
    assert str(problem(sealed)).startswith(f"{MANIFEST} cannot be read")


def test_what_stands_there_is_replaced_whole(sealed: Path) -> None:
    write(sealed, {"new": b"1"})
    assert problem(sealed) is None
    assert sorted(path.name for path in sealed.iterdir()) == [MANIFEST, "new"]
    assert alone(sealed)


def test_an_error_leaves_everything_as_it_was(sealed: Path) -> None:
    def fail(temporary: Path) -> None:
        (temporary / "new").write_bytes(b"1")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), sealed_directory(sealed, {}) as temporary:
        fail(temporary)
    assert problem(sealed) is None
    assert (sealed / "a.bin").read_bytes() == CONTENT["a.bin"]
    assert alone(sealed)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("while_sealing", [False, True])
def test_a_full_disk_is_one_clear_error(
    sealed: Path, number: int, while_sealing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    def fill(temporary: Path) -> None:
        (temporary / "new").write_bytes(b"1")
        monkeypatch.setattr(os, "fsync", refuse)
        if not while_sealing:
            refuse(0)

    with pytest.raises(ElectraError, match="E-R001") as caught, sealed_directory(sealed, {}) as temporary:
        fill(temporary)
    assert caught.value.exit_code is ExitCode.RESOURCES
    assert problem(sealed) is None
    assert alone(sealed)


def test_what_a_full_disk_is() -> None:
    assert is_full_disk(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert is_full_disk(RuntimeError("File too large (os error 27)"))
    assert not is_full_disk(RuntimeError("something (os error 2)"))
    assert not is_full_disk(OSError(errno.EACCES, "denied"))


def test_all_files_and_folders_are_synced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def synced(descriptor: int) -> None:
        happened.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        happened.append("rename")
        return rename(path, target)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to name an open file")
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    write(tmp_path / "sealed")
    before, after = happened[: happened.index("rename")], happened[happened.index("rename") + 1 :]
    assert {"a.bin", "b.txt", "c.txt", "empty", "inner", MANIFEST} < set(before)
    assert after == [tmp_path.name]


def test_any_string_can_be_written_as_json(tmp_path: Path) -> None:
    value = {"text": 'a\ud800b 😀 \x00 "'}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value


def test_hash_of_a_file_longer_than_a_piece(tmp_path: Path) -> None:
    data = bytes(range(251)) * 20_000
    (tmp_path / "one").write_bytes(data)
    (tmp_path / "two").write_bytes(data[:-1] + b"\0")
    assert file_hash(tmp_path / "one") != file_hash(tmp_path / "two")
    assert json.dumps(file_hash(tmp_path / "one"))[1:-1].isalnum()
