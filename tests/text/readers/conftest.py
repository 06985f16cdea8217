from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from electra.text.drops import Drops
from electra.text.readers import ReadOptions, read


@dataclass
class Reading:
    """What came of files: the documents, and what was lost."""

    texts: list[str]
    places: list[tuple[str, int]]
    drops: Drops

    @property
    def lost(self) -> dict[str, int]:
        return {cause: count for cause, count in self.drops.total.counts.items() if not cause.startswith("read: ")}


@pytest.fixture(scope="session")
def reading() -> Callable[..., Reading]:
    """(path or paths, options) -> the documents and what was lost."""

    def call(paths: Any, **options: Any) -> Reading:
        drops = Drops()
        found = list(read(paths if isinstance(paths, list) else [paths], drops, ReadOptions(**options)))
        return Reading([one.text for one in found], [(Path(one.file).name, one.line) for one in found], drops)

    return call
