"""Batches of texts -> their rows, on all cores, in the order of the batches.

A short input is encoded here. For a longer one processes are started (`python -m electra.text.workers`), each an `Encoder` that
reads record batches of texts from its standard input and answers with record batches of rows, as Arrow streams. While they
work, the next batches are read and those that are done are written. The result does not depend on how many there are. A worker
whose standard input ends, ends: if this process is killed, none is left.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import pyarrow as pa

from electra.errors import ElectraError
from electra.text.encode import Encoder
from electra.text.tokenizer import Tokenizer, load
from electra.text.words import SegmenterName

#: an input of fewer characters is done before a worker has started
_SHORT = 1 << 20
_TEXTS = pa.schema([("text", pa.string())])

Batch = TypeVar("Batch")


def encode_in_order(
    batches: Iterator[Batch],
    texts: Callable[[Batch], list[str]],
    tokenizer: Tokenizer,
    saved: Path,
    *,
    segmenter: SegmenterName | None,
    workers: int,
) -> Iterator[tuple[Batch, pa.RecordBatch]]:
    """Each batch with its rows.

    Args:
        batches: of at least one text.
        texts: those of a batch.
        tokenizer: what encodes.
        saved: a directory that holds it.
        segmenter: says where words begin.
        workers: processes; with one, everything happens in this one.

    Raises:
        ElectraError: E-R110 the segmenter is not installed, E-R150 a worker died.
    """
    encode = Encoder(tokenizer, segmenter)
    first, characters = list[Batch](), 0
    while characters < _SHORT and (batch := next(batches, None)) is not None:
        first.append(batch)
        characters += sum(map(len, texts(batch)))
    if workers == 1 or characters < _SHORT:
        for batch in chain(first, batches):
            yield batch, encode(texts(batch))
        return
    waiting = chain(iter(first), batches)
    del first  # or its texts would stay to the end
    with _Pool(workers, [str(saved), *([segmenter] if segmenter else [])]) as pool:
        begun = deque[tuple[Batch, Future[pa.RecordBatch]]]()
        for batch in waiting:
            begun.append((batch, pool.submit(texts(batch))))
            if len(begun) > 2 * workers:  # one at work and one waiting for each, so that nobody waits for this process
                batch, rows = begun.popleft()
                yield batch, rows.result()
        for batch, rows in begun:
            yield batch, rows.result()


class _Pool:
    """Workers, each with a thread of this process that waits for it.

    While there are any, Arrow takes memory from the system: its own allocator keeps some for each thread, and what the threads
    hand over to the writer piles up to 60 MB.
    """

    def __init__(self, workers: int, arguments: Sequence[str]) -> None:
        self._workers = [_Worker(arguments) for _ in range(workers)]
        self._idle = SimpleQueue[_Worker]()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(workers)

    def __enter__(self) -> _Pool:
        self._memory = pa.default_memory_pool()
        pa.set_memory_pool(pa.system_memory_pool())
        return self

    def __exit__(self, *_: object) -> None:
        pa.set_memory_pool(self._memory)
        for worker in self._workers:
            worker.kill()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.close()

    def submit(self, texts: list[str]) -> Future[pa.RecordBatch]:
        return self._threads.submit(self._encode, texts)

    def _encode(self, texts: list[str]) -> pa.RecordBatch:
        worker = self._idle.get()
        try:
            return worker.encode(texts)
        finally:
            self._idle.put(worker)


class _Worker:
    """A process, as seen from here."""

    def __init__(self, arguments: Sequence[str]) -> None:
        # a group of its own, since Ctrl-C is for this process, which then ends the workers; one thread each
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "electra.text.workers", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, process_group=0,
        )  # fmt: skip
        self._answers: pa.RecordBatchReader | None = None
        self._requests: pa.RecordBatchWriter | None = None

    def encode(self, texts: list[str]) -> pa.RecordBatch:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            self._requests = self._requests or pa.ipc.new_stream(stdin, _TEXTS)
            self._requests.write_batch(pa.record_batch([pa.array(texts, pa.string())], schema=_TEXTS))
            stdin.flush()
            self._answers = self._answers or pa.ipc.open_stream(stdout)
            return self._answers.read_next_batch()
        except (OSError, ValueError, StopIteration, pa.ArrowException):
            code = self._process.wait()
            raise ElectraError("E-R150", "corpus build", f"a worker process ended with code {code}",
                               "the same command goes on; with fewer --workers it takes less memory") from None  # fmt: skip

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Gives back what a killed worker leaves."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # of what was still to be sent
                pipe.close()  # type: ignore[union-attr]  # both were asked for
        self._process.wait()


def serve(saved: str, segmenter: SegmenterName | None = None) -> None:
    """What a worker does."""
    encode = Encoder(load(saved), segmenter)
    requests = pa.ipc.open_stream(sys.stdin.buffer)
    with pa.ipc.new_stream(sys.stdout.buffer, encode.schema) as answers:
        sys.stdout.buffer.flush()
        for request in requests:
            answers.write_batch(encode(request.column("text").to_pylist()))
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # whoever asked was killed
        serve(*sys.argv[1:])  # type: ignore[arg-type]  # as `encode_in_order` gives them
