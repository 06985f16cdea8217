"""What a causal model has been told and has said so far, within what it can read.

In: what a person writes, turn after turn. Out: the text that the model continues next: the turns one behind the other, a line
each, without the oldest where they do not fit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from electra.models.decoding_config import DecodingConfig
from electra.predict.writer import Writer


@dataclass(kw_only=True)
class Turns:
    """The turns that are remembered.

    Args:
        writer: whose positions they have to fit into.
        config: whose new tokens need room behind them.
        texts: the turns, the oldest first.
        forgotten: how many have been left out so far.
    """

    writer: Writer
    config: DecodingConfig
    texts: list[str] = field(default_factory=list)
    forgotten: int = 0

    def prompt(self, said: str) -> str:
        """What is to be continued now that a person has `said` this; a turn that is too long for itself stays."""
        self.texts.append(said)
        while len(self.texts) > 1 and self.writer.excess(self._whole, self.config):
            del self.texts[0]
            self.forgotten += 1
        return self._whole

    def answered(self, text: str) -> None:
        """The model's continuation belongs to the turn that it continues."""
        self.texts[-1] += text

    @property
    def _whole(self) -> str:
        return "\n".join(self.texts)
