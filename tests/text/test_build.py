"""How a build stops and goes on, and what does not change its bytes."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from electra.errors import ElectraError
from electra.storage import workshop
from electra.text import build as module
from electra.text import journal
from electra.text.build import Progress, build
from electra.text.drops import Drops
from electra.text.filters import NO_FILTERS, FilterOptions
from electra.text.manifest import Manifest
from electra.text.readers import Document, ReadOptions, read_files
from electra.text.tokenizer import Tokenizer, load


class Stop(Exception):
    """As a signal or a kill would."""


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


@pytest.fixture
def source(texts: list[str], tmp_path: Path) -> Path:
    """Six files of different documents, one of them empty; some documents are dropped or cleaned."""
    folder = tmp_path / "text"
    folder.mkdir()
    for number in range(6):
        documents = [f"{text} {number} {turn}\x00" for turn in range(3) for text in [*texts, "\u200d"]]
        (folder / f"{number}.txt").write_text("\n\n".join(documents) if number != 3 else "", encoding="utf-8")
    return folder


def stop_after(documents: int) -> Callable[[Progress], None]:
    def stop(progress: Progress) -> None:
        if progress.documents >= documents:
            raise Stop

    return stop


def in_sittings(source: Path, tokenizer: Tokenizer, out: Path, documents: int, **settings: object) -> list[int]:
    """A build that is stopped whenever so many documents more are stored; what each sitting began with."""
    begun: list[int] = []

    def stop(progress: Progress) -> None:
        if len(begun) == turn:
            begun.append(progress.resumed)
        if progress.documents >= progress.resumed + documents:
            raise Stop

    for turn in range(1000):  # noqa: B007 (used above)
        try:
            build([source], tokenizer, out, progress=stop, **settings)  # type: ignore[arg-type]
        except Stop:
            assert not out.exists()
        else:
            return begun
    raise AssertionError("it never ends")


# -- going on ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filters", [NO_FILTERS, FilterOptions(min_characters=2), FilterOptions(duplicates="exact")])
@pytest.mark.parametrize("documents", [9, 40, 1000])
def test_many_sittings_give_the_bytes_of_one(
    source: Path, tokenizer: Tokenizer, tmp_path: Path, filters: FilterOptions, documents: int
) -> None:
    shutil.copy(source / "1.txt", source / "8.txt")
    manifest = build([source], tokenizer, tmp_path / "one", filters=filters, shard_tokens=150)
    begun = in_sittings(source, tokenizer, tmp_path / "out", documents, filters=filters, shard_tokens=150)
    assert begun == sorted(set(begun))
    assert len(begun) >= (3 if documents < 100 else 1)
    assert content(tmp_path / "out") == content(tmp_path / "one")
    assert manifest.counts["removed: nul characters"] == 180
    assert manifest.counts.get("dropped: exact duplicates", 0) == (30 if filters.looks_ahead else 0)
    assert len((tmp_path / "one" / "sources.jsonl").read_text().splitlines()) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "out", "text"]


def test_killed_at_any_moment_it_goes_on(source: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    script = Path(__file__).with_name("kill_builds.py")
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, str(script), str(tmp_path), "100"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 20


def test_files_that_are_done_are_not_read_again(
    source: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def watched(paths: list[Path], drops: Drops, options: ReadOptions) -> Iterator[Document]:
        opened.extend(path.name for path in paths)
        return read_files(paths, drops, options)

    monkeypatch.setattr(module, "read_files", watched)
    with pytest.raises(Stop):
        build([source], tokenizer, tmp_path / "out", shard_tokens=300, progress=stop_after(110))
    assert opened[0] == "0.txt"
    opened.clear()
    build([source], tokenizer, tmp_path / "out", shard_tokens=300)
    assert opened in (["4.txt", "5.txt"], ["5.txt"])


@pytest.mark.parametrize(
    ("settings", "named"), [({"seed": 1}, "seed"), ({"options": ReadOptions(document="line")}, "document")]
)
def test_another_command_is_an_error_and_starts_over_only_when_asked(
    source: Path, tokenizer: Tokenizer, tmp_path: Path, settings: dict[str, object], named: str
) -> None:
    with pytest.raises(Stop):
        build([source], tokenizer, tmp_path / "out", shard_tokens=300, progress=stop_after(100))
    before = content(tmp_path / ".out.partial")
    with pytest.raises(ElectraError, match=f"other: {named}\\)") as caught:
        build([source], tokenizer, tmp_path / "out", shard_tokens=300, **settings)  # type: ignore[arg-type]
    assert caught.value.code == "E-C150"
    assert content(tmp_path / ".out.partial") == before
    build([source], tokenizer, tmp_path / "other", shard_tokens=300, **settings)  # type: ignore[arg-type]
    begun: list[Progress] = []
    build([source], tokenizer, tmp_path / "out", shard_tokens=300, overwrite=True, progress=begun.append, **settings)  # type: ignore[arg-type]
    assert begun[0].resumed == 0
    assert content(tmp_path / "out") == content(tmp_path / "other")


@pytest.mark.parametrize("change", ["text", "one file more", "tokenizer"])
def test_another_input_is_noticed(source: Path, texts: list[str], tokenizer: Tokenizer, tmp_path: Path, change: str) -> None:
    with pytest.raises(Stop):
        build([source], tokenizer, tmp_path / "out", shard_tokens=300, progress=stop_after(100))
    if change == "text":
        file = source / "5.txt"
        file.write_text(file.read_text(encoding="utf-8").replace("café", "cafe"), encoding="utf-8")
    elif change == "one file more":
        (source / "9.txt").write_text("The")
    else:
        tokenizer.save(tmp_path / "tokenizer")
        file = tmp_path / "tokenizer" / "tokenizer.json"
        file.write_text(file.read_text().replace('"lowercase": false', '"lowercase": true'))
        tokenizer = load(tmp_path / "tokenizer")
    with pytest.raises(ElectraError, match=r"other: (input files|tokenizer)\)") as caught:
        build([source], tokenizer, tmp_path / "out", shard_tokens=300)
    assert caught.value.code == "E-C150"


@pytest.mark.parametrize(
    ("package", "settings"),
    [("tokenizers", {}), ("rjieba", {"segmenter": "jieba"}), ("rensa", {"filters": FilterOptions(duplicates="near")})],
)
def test_another_version_of_what_is_used_is_noticed(
    source: Path,
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    settings: dict[str, object],
) -> None:
    pytest.importorskip(package)
    with pytest.raises(Stop):
        build([source], tokenizer, tmp_path / "out", shard_tokens=300, progress=stop_after(30), **settings)  # type: ignore[arg-type]
    monkeypatch.setattr(journal, "version", lambda name: "another" if name == package else version(name))
    with pytest.raises(ElectraError, match=rf"E-C150 .*other: version of {package}\)"):
        build([source], tokenizer, tmp_path / "out", shard_tokens=300, **settings)  # type: ignore[arg-type]


def test_the_version_of_what_is_not_used_does_not_matter(tokenizer: Tokenizer) -> None:
    told = journal.command_of([], tokenizer.fingerprint, {}, FilterOptions(duplicates="exact").packages)
    assert not {"version of rjieba", "version of rensa"} & told.keys()


@pytest.mark.parametrize("damage", ["journal", "shard"])
def test_a_damaged_beginning_is_made_again(source: Path, tokenizer: Tokenizer, tmp_path: Path, damage: str) -> None:
    build([source], tokenizer, tmp_path / "one", shard_tokens=300)
    with pytest.raises(Stop):
        build([source], tokenizer, tmp_path / "out", shard_tokens=300, progress=stop_after(100))
    shop = tmp_path / ".out.partial"
    (shop / "journal.json" if damage == "journal" else shop / "made" / "shard-00001.arrow").write_bytes(b"{")
    build([source], tokenizer, tmp_path / "out", shard_tokens=300)
    assert content(tmp_path / "out") == content(tmp_path / "one")


def test_a_finished_corpus_is_never_touched(source: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    build([source], tokenizer, tmp_path / "out", shard_tokens=300)
    before = content(tmp_path / "out")
    with pytest.raises(Stop):
        build([source], tokenizer, tmp_path / "out", shard_tokens=300, seed=1, overwrite=True, progress=stop_after(100))
    assert content(tmp_path / "out") == before
    with pytest.raises(ElectraError, match="E-C102"):
        build([source], tokenizer, tmp_path / "out", shard_tokens=300, seed=1)
    begun: list[Progress] = []
    build([source], tokenizer, tmp_path / "out", shard_tokens=300, seed=1, overwrite=True, progress=begun.append)
    assert begun[0].resumed > 50


def test_a_crash_between_two_renamings_loses_nothing(
    source: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build([source], tokenizer, tmp_path / "out", shard_tokens=300)
    before, rename = content(tmp_path / "out"), Path.rename

    def crash(self: Path, target: Path) -> Path:
        if self.name in ("made", "replaced"):
            raise Stop
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", crash)
    with pytest.raises(Stop):
        build([source], tokenizer, tmp_path / "out", shard_tokens=300, seed=1, overwrite=True)
    monkeypatch.undo()
    assert not (tmp_path / "out").exists()
    with pytest.raises(ElectraError, match="E-C102"):
        build([source], tokenizer, tmp_path / "out", shard_tokens=300, seed=2)
    assert content(tmp_path / "out") == before


def test_two_processes_do_not_build_one_corpus(source: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    with workshop(tmp_path / "out") as shop:
        with pytest.raises(ElectraError, match="another process") as caught:
            build([source], tokenizer, tmp_path / "out")
        (shop / "made").mkdir()
    assert caught.value.code == "E-R003"
    assert (tmp_path / "out").is_dir()


# -- workers -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def always_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("electra.text.workers._SHORT", 1)


@pytest.mark.usefixtures("always_workers")
def test_workers_do_not_change_the_bytes(source: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    build([source], tokenizer, tmp_path / "one", shard_tokens=300, workers=1)
    for workers in (2, 3):
        build([source], tokenizer, tmp_path / f"by-{workers}", shard_tokens=300, workers=workers)
        assert content(tmp_path / f"by-{workers}") == content(tmp_path / "one")


@pytest.mark.usefixtures("always_workers")
def test_a_worker_that_dies_is_told_and_the_build_goes_on(source: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    def kill_workers(progress: Progress) -> None:
        if progress.documents > 60:
            for worker in children(os.getpid()):
                os.kill(worker, signal.SIGKILL)

    with pytest.raises(ElectraError, match="code -9") as caught:
        build([source], tokenizer, tmp_path / "out", shard_tokens=300, workers=2, progress=kill_workers)
    assert caught.value.code == "E-R150"
    begun: list[Progress] = []
    build([source], tokenizer, tmp_path / "out", shard_tokens=300, workers=1, progress=begun.append)
    assert begun[0].resumed > 50


@pytest.mark.parametrize("workers", [0, -1])
def test_impossible_workers(source: Path, tokenizer: Tokenizer, tmp_path: Path, workers: int) -> None:
    with pytest.raises(ElectraError, match="E-C151"):
        build([source], tokenizer, tmp_path / "out", workers=workers)


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


# -- the command line ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_stops_the_command_and_it_goes_on(
    texts: list[str], tokenizer: Tokenizer, tmp_path: Path, number: signal.Signals
) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    text = "\n\n".join(f"{document} {turn}" for turn in range(400) for document in texts)
    for name in "abcde":
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    program = """
import sys
from electra import cli
from electra.text import workers
from electra.text.build import build
build.__kwdefaults__["shard_tokens"] = 10_000
workers._SHORT = 1
sys.argv[0] = "electra"
cli.main()
"""
    places = [str(tmp_path / "*.txt"), "--tokenizer", str(tmp_path / "tokenizer"), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-c", program, "corpus", "build", *places, "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        workers: list[int] = []
        while not workers or not (tmp_path / ".out.partial" / "journal.json").exists():
            assert running.poll() is None
            workers = children(running.pid)
            time.sleep(0.002)
        running.send_signal(number)
        told = running.stderr.read() if running.stderr is not None else ""
    assert running.returncode == (-number if number == signal.SIGKILL else 75)
    assert number == signal.SIGKILL or "run the same command again" in told
    until = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < until, "a worker outlives the build"
        time.sleep(0.01)
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "going on behind" in again.stderr
    assert not (tmp_path / ".out.partial").exists()


# -- resources -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shard-00002.arrow", "sources.jsonl", "manifest.json", "journal.json.new"])
def test_after_a_full_disk_the_same_command_goes_on(
    source: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    expected: Manifest = build([source], tokenizer, tmp_path / "one", shard_tokens=300)
    open_path = Path.open

    def full(self: Path, *args: object, **kwargs: object) -> object:
        if self.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return open_path(self, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ElectraError, match="No space left") as caught:
        build([source], tokenizer, tmp_path / "out", shard_tokens=300)
    assert caught.value.code == "E-R001"
    monkeypatch.undo()
    assert not (tmp_path / "out").exists()
    assert build([source], tokenizer, tmp_path / "out", shard_tokens=300) == expected
    assert content(tmp_path / "out") == content(tmp_path / "one")
