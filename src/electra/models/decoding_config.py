"""How texts are generated: the settings of `decoding`, under transformers' names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from electra.config import STRICT
from electra.errors import ElectraError


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """How texts are generated; names and meaning as in transformers' `GenerationConfig`.

    Args:
        max_new_tokens: tokens of an output at most, its end included.
        min_new_tokens: tokens before an output may end.
        num_beams: hypotheses of beam search; 1 = greedy, or sampling.
        length_penalty: exponent of the length that a beam's sum is divided by; above 0 favours long outputs.
        early_stopping: of beam search: True ends with `num_beams` finished hypotheses; False when the best running one, at the
            length it has, is worse than these; "never" when it cannot become better.
        no_repeat_ngram_size: n-grams that occur once at most; 0 = any may repeat.
        do_sample: draw tokens instead of taking the most likely.
        temperature: divides the logits before sampling.
        top_k: the most likely tokens that are sampled from; 0 = all.
        top_p: the fewest most likely tokens with this probability are sampled from.
        num_return_sequences: outputs of one source: samples, or the best beams.
        seed: of sampling.
    """

    __pydantic_config__ = STRICT
    max_new_tokens: int = 64
    min_new_tokens: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    no_repeat_ngram_size: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    num_return_sequences: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "num_beams", "num_return_sequences"):
            if getattr(self, name) < 1:
                raise ElectraError("E-C600", name, f"is {getattr(self, name)}", "give 1 or more")
        for name in ("min_new_tokens", "no_repeat_ngram_size", "top_k"):
            if getattr(self, name) < 0:
                raise ElectraError("E-C600", name, f"is {getattr(self, name)}", "give 0 or more")
        if self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise ElectraError("E-C601", "temperature" if self.temperature <= 0 else "top_p",
                               f"is {self.temperature if self.temperature <= 0 else self.top_p}",
                               "give a temperature above 0 (greedy: do_sample=false) and top_p in (0, 1]")  # fmt: skip
        if self.do_sample and self.num_beams > 1:
            raise ElectraError("E-C602", "num_beams", "beams are searched, not sampled", "leave out do_sample or num_beams")
        if not self.do_sample and self.num_return_sequences > self.num_beams:
            cause = f"{self.num_return_sequences} outputs of {self.num_beams} beams"
            raise ElectraError("E-C602", "num_return_sequences", cause, "raise num_beams, or set do_sample=true")
