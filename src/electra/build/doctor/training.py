"""A short training, to see that everything works together: the public verbs on a made-up text, in a temporary directory.

In processes of their own, since a torch that does not suit the processor ends its process without a word. The training is ended
as schedulers end one, by SIGTERM, and has to say that it saved its state.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from electra.build.doctor.check import Check
from electra.errors import ExitCode
from electra.events import Event, read_events

_WORDS = (
    ("the reader", "a gardener", "the old captain", "my neighbour", "the teacher", "a student", "the river", "the night train"),
    ("opens", "carries", "remembers", "follows", "repairs", "crosses", "describes", "leaves"),
    ("the gate", "a heavy letter", "the narrow bridge", "the garden", "a silver lamp", "the quiet harbour", "an empty street"),
)
#: replaced token detection alone, and more steps than any machine makes in the time
_VERBS = (
    ("tokenizer", "train", "text.txt", "--document", "line", "--vocab-size", "200", "--out", "tokenizer"),
    ("corpus", "build", "text.txt", "--document", "line", "--tokenizer", "tokenizer", "--out", "corpus"),
    ("pretrain", "test-modern", "corpus.path=corpus", "run.dir=run", "stop.steps=10000000", "loop.log_steps=1",
     "phases.mlm.share=0", "phases.rtd.optimizer.warmup_ratio=0"),
)  # fmt: skip
#: seconds that a verb may take beside the training itself, on a machine that is slow or busy
_PATIENCE = 300
#: steps after which the loss is lower in any training that works
_ENOUGH = 40


def training(seconds: float) -> Check:
    """Train a tokenizer, build a corpus, pre-train the smallest pair of networks, end it with a signal.

    Args:
        seconds: of steps; what comes before the first one does not count.
    """
    with tempfile.TemporaryDirectory(prefix="electra-doctor-") as scratch:
        place = Path(scratch)
        (place / "text.txt").write_text("\n".join(_documents()), encoding="utf-8")
        for words in _VERBS:
            verb = _Verb(words, place)
            if wrong := verb.wrong(seconds):
                mend = f"see above what may be missing, then try `electra {words[0]}` yourself"
                return Check(name="training", state="fail", found=f"electra {words[0]} {wrong}", mend=mend)
        return _judged(place / "run" / "events.jsonl")


def _judged(log: Path) -> Check:
    """What the log of the run says."""
    steps = _steps(log)
    losses = [event["figures"]["mlm_loss"] for event in steps]
    tokens, seconds = sum(event["tokens"] for event in steps), sum(event["seconds"] for event in steps)
    first, last = losses[0], statistics.fmean(losses[-5:])
    found = f"{len(steps):,} steps, {tokens / seconds:,.0f} tokens/s, the generator's loss from {first:.2f} to {last:.2f}"
    if not math.isfinite(last) or (len(losses) >= _ENOUGH and last >= first):
        return Check(name="training", state="fail", found=f"{found}: nothing was learnt", mend="reinstall torch; report this")
    if len(losses) < _ENOUGH:
        mend = f"ask again when the machine is idle (its load is {os.getloadavg()[0]:.1f} now), or with more --seconds"
        return Check(name="training", state="warn", found=f"{found}: too slow to learn in this time", mend=mend)
    return Check(name="training", state="ok", found=f"{found}; stopped by a signal, and saved")


def _steps(log: Path) -> list[Event]:
    return [event for event in read_events(log)[0] if event["event"] == "step"] if log.is_file() else []


class _Verb:
    """A verb that runs in a directory; one that makes a run is sent SIGTERM when it has trained for long enough."""

    def __init__(self, words: Sequence[str], place: Path) -> None:
        self._log, self._trains = place / "run" / "events.jsonl", words[0] == "pretrain"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "electra", *words], cwd=place, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def wrong(self, seconds: float) -> str | None:
        """Wait for it: how it failed, or None."""
        with self._process:
            try:
                if self._trains:
                    self._end_after(seconds)
                told = self._process.communicate(timeout=_PATIENCE)[1].strip().splitlines()
            except subprocess.TimeoutExpired:
                return f"has not come to an end in {_PATIENCE} s"
            finally:
                self._process.kill()  # does nothing to one that has ended
        code, last = self._process.returncode, told[-1] if told else "without a word"
        if code == (ExitCode.PREEMPTED if self._trains else ExitCode.DONE):
            return None
        return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}: {last}"

    def _end_after(self, seconds: float) -> None:
        """Returns when it has ended by itself, too."""
        patience = time.monotonic() + _PATIENCE
        while self._process.poll() is None and not _steps(self._log):
            if time.monotonic() > patience:
                raise subprocess.TimeoutExpired("electra", _PATIENCE)
            time.sleep(0.1)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.terminate()


def _documents() -> list[str]:
    """500 documents of a few sentences; a verb has two objects that it likes, so that there is something to learn."""
    chance, subjects, verbs, objects = random.Random(0), *_WORDS
    documents = []
    for _ in range(500):
        sentences = []
        for _ in range(chance.randint(2, 8)):
            verb = chance.randrange(len(verbs))
            likes = objects[(verb + chance.randrange(2)) % len(objects)]
            sentences.append(f"{chance.choice(subjects)} {verbs[verb]} {likes} .")
        documents.append(" ".join(sentences))
    return documents
