"""What requests may hold, as pydantic models; every bound here stands in the OpenAPI schema too.

A text alone stands for an object with that text, and one input for a list of one; the rest is strict: no unknown field, no
number for a text, no number that is not finite.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from electra.deploy.settings import TEXTS

#: texts of a request that writes, and choices of one input
PROMPTS, CHOICES = 8, 32


class Body(BaseModel):
    """Shared: strict, and nothing unknown."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Place = Annotated[
    list[Annotated[int, Field(ge=0)] | str],
    Field(min_length=2, max_length=3, description="start and end, in characters, end exclusive; perhaps the mention's type"),
]


class InputFields(Body):
    """One input; which fields it needs is the task's."""

    text: str | None = None
    pair: str | None = Field(default=None, description="the second text, of tasks on two")
    question: str | None = Field(default=None, description="task span, beside `context`")
    context: str | None = None
    head: Place | None = Field(default=None, description="task relation, beside `text` and `tail`")
    tail: Place | None = None
    choices: Annotated[list[str], Field(min_length=2, max_length=CHOICES)] | None = None


def _as_fields(given: Any) -> Any:
    return {"text": given} if isinstance(given, str) else given


def _as_list(given: Any) -> Any:
    return given if isinstance(given, list) else [given]


Input = Annotated[InputFields, BeforeValidator(_as_fields, json_schema_input_type=str | InputFields)]
_Bounded = Field(min_length=1, max_length=TEXTS)
Inputs = Annotated[
    list[Input],
    _Bounded,
    BeforeValidator(_as_list, json_schema_input_type=str | InputFields | Annotated[list[str | InputFields], _Bounded]),
]
Texts = Annotated[list[str], _Bounded, BeforeValidator(_as_list, json_schema_input_type=str | Annotated[list[str], _Bounded])]


class TaskSettings(Body):
    """Settings of tasks that were not fine-tuned; each task has its own few."""

    top_k: Annotated[int, Field(ge=1, le=50)] | None = Field(default=None, description="fill-mask, correct: candidates")
    joint: bool | None = Field(default=None, description="fill-mask: fill all masks together, too")
    method: Literal["rtd", "electric", "causal", "pll", "pll-word-l2r"] | None = Field(default=None, description="score")
    reduce: Literal["sum", "mean", "min"] | None = Field(default=None, description="score")
    suspicion: Annotated[float, Field(gt=0, le=1)] | None = Field(default=None, description="correct")


class PredictBody(Body):
    inputs: Inputs
    task: str | None = Field(default=None, description="one of the model's `tasks`; none = the first")
    settings: TaskSettings | None = None


class ScoreBody(Body):
    inputs: Inputs
    method: Literal["rtd", "electric", "causal", "pll", "pll-word-l2r"] | None = None
    reduce: Literal["sum", "mean", "min"] | None = None


Prompts = Annotated[
    list[str],
    Field(min_length=1, max_length=PROMPTS),
    BeforeValidator(_as_list, json_schema_input_type=str | Annotated[list[str], Field(min_length=1, max_length=PROMPTS)]),
]


class GenerateBody(Body):
    """Names and meaning as in transformers' `GenerationConfig`; either `prompt` or `inputs`."""

    prompt: Prompts | None = None
    inputs: Prompts | None = None
    stream: bool = Field(default=False, description="server-sent events, of one text and one output")
    max_new_tokens: int = Field(64, ge=1, le=256)
    num_beams: int = Field(1, ge=1, le=8)
    num_return_sequences: int = Field(1, ge=1, le=8)
    do_sample: bool = False
    temperature: float = Field(1.0, gt=0, le=10)
    top_k: int = Field(0, ge=0, le=1000)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int = Field(0, ge=0, le=2**31 - 1)
    stop: list[Annotated[str, Field(min_length=1, max_length=100)]] = Field([], max_length=4)


class EmbeddingsBody(Body):
    """OpenAI's."""

    model: str
    input: Texts
    encoding_format: Literal["float", "base64"] = "float"


class EmbedBody(Body):
    """text-embeddings-inference's; vectors have length 1, so `normalize` cannot be false."""

    inputs: Texts
    normalize: Literal[True] = True
    truncate: bool = Field(default=False, description="false: a text that does not fit is refused")


class TextPredictBody(Body):
    """text-embeddings-inference's: a text, `[text, pair]`, or a list of such lists."""

    inputs: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=2)]
        | Annotated[list[Annotated[list[str], Field(min_length=1, max_length=2)]], _Bounded]
    )
    raw_scores: Literal[False] = False
    truncate: bool = False


class RerankBody(Body):
    """text-embeddings-inference's."""

    query: str
    texts: Annotated[list[str], Field(min_length=1, max_length=TEXTS - 1)]
    raw_scores: Literal[False] = False
    return_text: bool = False
    truncate: bool = False
