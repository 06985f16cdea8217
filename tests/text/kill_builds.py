"""Kills builds of a corpus at random moments until they are done; each must give the bytes of one that was never disturbed.

Run by test_build.py in a process of its own: `kill_builds.py DIRECTORY KILLS`. Forks children from a warm process, prints how
many were killed with a shard finished and the corpus not yet, and ends with 0 if nothing was wrong.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from electra.text.build import build
from electra.text.tokenizer import load

SHARD_TOKENS = 150


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def stored(out: Path) -> int:
    """Documents of the journal of an unfinished corpus, which must never become fewer."""
    journal = out.with_name(f".{out.name}.partial") / "journal.json"
    return int(json.loads(journal.read_text())["documents"]) if journal.is_file() else 0


def main(directory: Path, kills: int) -> None:
    chance, tokenizer = random.Random(0), load(directory / "tokenizer")
    began = time.perf_counter()
    manifest = build([directory / "text"], tokenizer, directory / "undisturbed", shard_tokens=SHARD_TOKENS, workers=1)
    a_few_shards = 5 * (time.perf_counter() - began) / len(manifest.shards)
    expected = content(directory / "undisturbed")
    killed = in_between = finished = 0
    while killed < kills or not finished:
        out, done = directory / f"out-{finished}", 0
        while not out.exists():
            child = os.fork()
            if child == 0:
                build([directory / "text"], tokenizer, out, shard_tokens=SHARD_TOKENS, workers=1)
                os._exit(0)
            time.sleep(chance.uniform(0.0, a_few_shards))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            killed += os.WIFSIGNALED(status)
            assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
            if not out.exists():
                assert stored(out) >= done, f"{stored(out)} documents, there were {done}"
                done = stored(out)
                in_between += done > 0
        assert content(out) == expected, f"corpus {finished} differs"
        finished += 1
    print(in_between)


main(Path(sys.argv[1]), int(sys.argv[2]))
