"""A discriminator reads the drafts of a writer and says which is the most like a real text.

In: drafts. Out: the same drafts in another order, by

    score = log p(draft | prompt) / tokens + weight * critic(draft)

which is the residual energy model of Deng et al. (2020), p(x) exp(-E(x)), per token. The critic is either

- a discriminator of replaced tokens: the mean of log sigmoid(-z) over the tokens of the draft, z its logit of "replaced"; the
  prompt is read, but not judged; or
- a classifier of the labels `real` and `fake`: log p(real) of prompt and draft as one text.

Both are at most 0 and in nats, as log p / tokens is. A draft without a token says nothing real and gets `_NOTHING`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional as F

from electra.contracts import Encoded, Example, Prediction
from electra.errors import ElectraError
from electra.models.model_dir import load_model_dir
from electra.predict.predictor import Predictor, load
from electra.predict.writer import Draft
from electra.tasks.classify import Classify
from electra.tasks.common import characters_of, cut_windows, joined, whole_text
from electra.tasks.replaced import Replaced

#: in nats: what is said of a draft without a token
_NOTHING = -20.0
#: what a classifier calls the texts that nobody generated, and its other label
REAL, FAKE = "real", "fake"


class _Genuine(Replaced):
    """`replaced`, whose output is log p(original) of each token, and the character behind it."""

    def encode(self, example: Example) -> list[Encoded]:
        return cut_windows(whole_text(self.tokenizer.encode_literally(example.text)), self.max_length)

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        logs = F.logsigmoid(-joined(rows, outputs).float())[1:-1].tolist()
        ends = [end for _, end in characters_of(rows)[1:-1]]
        return Prediction(text=example.text, output={"tokens": list(zip(ends, logs, strict=True))})


class _Real(Classify):
    """`classify`, whose output is log p(real)."""

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        [logits_N] = outputs
        log = torch.log_softmax(logits_N.float(), dim=-1)[self.labels.index(REAL)]
        return Prediction(text=example.text, output={"real": float(log)})


class Critic:
    """See the module's docstring.

    Args:
        predictor: of a discriminator of replaced tokens, or of a classifier of `real` and `fake`.
    """

    def __init__(self, predictor: Predictor) -> None:
        task = predictor.task
        assert isinstance(task, Replaced | Classify)
        judge = _Genuine(task.config, task.tokenizer) if isinstance(task, Replaced) else _Real(task.config, task.tokenizer)
        self._predictor = Predictor(predictor.network, judge, packed=predictor.packed)

    def judge(self, drafts: Sequence[Draft]) -> list[float]:
        """What the critic says of each draft, at most 0, in nats."""
        predictions = self._predictor.predict([draft.prompt + draft.text for draft in drafts])
        return [_of(draft, prediction) for draft, prediction in zip(drafts, predictions, strict=True)]

    def rerank(self, drafts: Sequence[Draft], weight: float = 1.0) -> list[Draft]:
        """Drafts of one text, the best first, with their new score and what the critic says."""
        said = self.judge(drafts)
        judged = [replace(draft, critic=one, score=_score(draft, one, weight)) for draft, one in zip(drafts, said, strict=True)]
        return sorted(judged, key=lambda draft: -draft.score)


def load_critic(path: str | Path) -> Critic:
    """The critic of a model directory.

    Raises:
        ElectraError: E-M626 it is neither kind of critic; and those of `predictor.load`.
    """
    model = load_model_dir(Path(path))
    if model.rtd_head is not None:
        return Critic(load(path, "replaced"))
    if model.task is not None and model.task.get("type") == "classify":
        predictor = load(path)
        if isinstance(predictor.task, Classify) and set(predictor.task.labels) == {REAL, FAKE}:
            return Critic(predictor)
    raise ElectraError("E-M626", str(path), "is no critic: neither a discriminator of replaced tokens nor a classifier with "
                       f"the labels {REAL} and {FAKE}", "give the directory of one, say of a run of modern-tiny")  # fmt: skip


def _score(draft: Draft, critic: float, weight: float) -> float:
    return draft.log_probability / max(1, draft.tokens) + weight * critic


def _of(draft: Draft, prediction: Prediction) -> float:
    output = prediction.output
    if "real" in output:
        return float(str(output["real"]))
    tokens = output["tokens"]
    assert isinstance(tokens, list)
    logs = [log for end, log in tokens if end > len(draft.prompt)]
    return fmean(logs) if logs else _NOTHING


def tune_weight(
    drafts: Sequence[Sequence[Draft]],
    references: Sequence[str],
    agreement: Callable[[str, str], float],
    weights: Sequence[float] = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
) -> float:
    """The weight whose first drafts agree best with the references of development data; the smallest of several.

    Args:
        drafts: of each text, all judged by the critic (`rerank`).
        references: what should have been written, one a text.
        agreement: of a draft's text and a reference, say BLEU; higher is better.
        weights: to choose from.
    """

    def first(some: Sequence[Draft], weight: float) -> str:
        return max(some, key=lambda one: _score(one, one.critic or 0.0, weight)).text

    reached = {
        weight: fmean(agreement(first(some, weight), wanted) for some, wanted in zip(drafts, references, strict=True))
        for weight in sorted(weights)
    }
    return max(reached, key=lambda weight: reached[weight])
