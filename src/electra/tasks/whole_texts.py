"""What the tasks share that say something about every token of a text, however long: reading files, and cutting windows."""

from __future__ import annotations

from pathlib import Path
from typing import Generic, Protocol, TypeVar

from electra.contracts import Encoded, Example, Reading
from electra.tasks.common import cut_windows, whole_text
from electra.tasks.readers import Columns, read_texts
from electra.text.tokenizer import Tokenizer


class WindowConfig(Protocol):
    """Settings that these tasks share.

    Attributes:
        max_length: tokens of a window, with specials.
        text: column of a file that holds the text.
    """

    @property
    def max_length(self) -> int: ...

    @property
    def text(self) -> str | int: ...


Config = TypeVar("Config", bound=WindowConfig)


class WholeTexts(Generic[Config]):
    """The shared part of a `contracts.Task`: reading and rows.

    Args:
        config: the settings.
        tokenizer: the encoder's.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.max_length, self.pad_id = config.max_length, tokenizer.pad_id
        self.per_token = True

    def read(self, path: Path) -> Reading:
        return read_texts(path, Columns(text=self.config.text))

    def encode(self, example: Example) -> list[Encoded]:
        """The whole text, in windows, with the character offsets `start` and `end`, int64 [n]."""
        return cut_windows(whole_text(self.tokenizer.encode(example.text)), self.max_length)
