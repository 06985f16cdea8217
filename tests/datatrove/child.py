"""A corpus by datatrove's local executor, two tasks at a time; task 2 waits at a gate in the stage `shards`, to be killed.

python child.py TEXTS TOKENIZER PLACE
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor

from electra.text.datatrove import stages
from electra.text.filters import FilterOptions

WAITS, TASKS = 2, 4


@dataclass
class Gate:
    """Passes documents on; the task that waits stops behind the third until the gate is open."""

    place: Path

    def __call__(self, data: Iterable[Any], rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        for number, document in enumerate(data):
            if rank == WAITS and number == 3 and not (self.place / "open").exists():
                (self.place / "pid.new").write_text(str(os.getpid()))
                (self.place / "pid.new").rename(self.place / "pid")
                while True:
                    time.sleep(60)
            yield document


def main(texts: str, tokenizer: str, place: Path) -> None:
    executor = None
    for stage in stages(
        [texts], tokenizer=tokenizer, out=place / "corpus", work=place / "work", tasks=TASKS, shard_tokens=2000,
        filters=FilterOptions(duplicates="exact", min_characters=30),
    ):  # fmt: skip
        pipeline = [*stage.pipeline[:-1], Gate(place), stage.pipeline[-1]] if stage.name == "shards" else stage.pipeline
        executor = LocalPipelineExecutor(
            pipeline, tasks=stage.tasks, workers=2 if stage.name == "shards" else 1,
            logging_dir=str(place / "logs" / stage.name), depends=executor,
        )  # fmt: skip
    assert executor is not None
    executor.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
