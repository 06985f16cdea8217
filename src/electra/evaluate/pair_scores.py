"""How likely a model finds each of many texts: one number a text, higher is better.

In: a model directory and texts. Out: scores, by one of three formulas over the tokens t of a text, specials left out:

    rtd   log sigmoid(-z_t) of the discriminator, summed (`rtd`), as the mean (`rtd-mean`) or the least (`rtd-min`); one pass
    pll   log p(t | the text with t masked) of a masked language model, summed; as many passes as tokens (Salazar et al., 2020)

The score of a text depends on the text alone: rows of one batch have the same length, so there is no padding, everything is
fp32, texts of the same tokens are scored once, and tokens are summed in double precision.

Shapes: B rows, L positions, M masked positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from electra.contracts import Padded
from electra.errors import ElectraError
from electra.models.encoder import Encoder
from electra.models.heads import MlmHead
from electra.models.model_dir import ModelDir
from electra.text.tokenizer import Tokenizer

Method = Literal["rtd", "rtd-mean", "rtd-min", "pll"]
#: tokens of a batch
_BATCH_TOKENS = 4096
Tokens = tuple[int, ...]
_OTHER_MODEL = "use another scorer, or a model that has one"


def text_scores(model: ModelDir, texts: Sequence[str], method: Method) -> list[float]:
    """The score of each text, in order; a text without tokens has 0.

    Raises:
        ElectraError: E-M582 the model lacks the head, E-D584 a text is longer than the network's positions.
    """
    tokenizer = model.tokenizer()
    rows = [tuple(tokenizer.encode_literally(text).ids) for text in texts]
    longest = max(map(len, rows), default=0)
    if longest > model.encoder.config.max_position_embeddings:
        raise ElectraError("E-D584", str(model.path), f"a text of {longest} tokens is longer than the network's "
                           f"{model.encoder.config.max_position_embeddings} positions", "leave it out")  # fmt: skip
    different = sorted(set(rows), key=lambda row: (len(row), row))
    with torch.inference_mode():
        scores = _pll(model, different, tokenizer) if method == "pll" else _rtd(model, different, method)
    found = dict(zip(different, scores, strict=True))
    return [found[row] for row in rows]


def _rtd(model: ModelDir, rows: Sequence[Tokens], method: Method) -> list[float]:
    if model.rtd_head is None:
        raise ElectraError("E-M582", str(model.path), f"has no discriminator head, which {method} needs", _OTHER_MODEL)
    found = list[float]()
    for some in _batches(rows, len):
        hidden = _hidden(model.encoder, torch.tensor(some))
        log_original_BL = torch.nn.functional.logsigmoid(-model.rtd_head(hidden).float()).double()[:, 1:-1]
        if not log_original_BL.shape[1]:
            found += [0.0] * len(some)
        elif method == "rtd-min":
            found += log_original_BL.amin(1).tolist()
        else:
            found += (log_original_BL.mean(1) if method == "rtd-mean" else log_original_BL.sum(1)).tolist()
    return found


def _pll(model: ModelDir, rows: Sequence[Tokens], tokenizer: Tokenizer) -> list[float]:
    encoder, head = _language_model(model)
    found = list[float]()
    for some in _batches(rows, lambda row: len(row) * max(1, len(row) - 2)):
        length, inner = len(some[0]), len(some[0]) - 2
        if not inner:
            found += [0.0] * len(some)
            continue
        tokens_BL = torch.tensor(some).repeat_interleave(inner, 0)
        row_M = torch.arange(len(tokens_BL))
        place_M = torch.arange(1, inner + 1).repeat(len(some))
        true_M = tokens_BL[row_M, place_M].clone()
        tokens_BL[row_M, place_M] = tokenizer.mask_id
        logits_MV = head(_hidden(encoder, tokens_BL, row_M * length + place_M), encoder.embeddings.table).float()
        log_M = logits_MV.gather(1, true_M[:, None])[:, 0] - logits_MV.logsumexp(1)
        found += log_M.double().view(len(some), inner).sum(1).tolist()
    return found


def _language_model(model: ModelDir) -> tuple[Encoder, MlmHead]:
    """The main network where it is one, else the generator beside it."""
    if model.mlm_head is not None:
        return model.encoder, model.mlm_head
    if model.generator is not None:
        return model.generator.encoder, model.generator.mlm_head
    raise ElectraError("E-M582", str(model.path), "has no masked language model, which pll needs", _OTHER_MODEL)


def _hidden(encoder: Encoder, tokens_BL: Tensor, at: Tensor | None = None) -> Tensor:
    layout = Padded(segments=torch.zeros_like(tokens_BL), whole=True)
    positions_BL = torch.arange(tokens_BL.shape[1]).expand_as(tokens_BL)
    found: Tensor = encoder(tokens_BL, positions_BL, torch.zeros_like(tokens_BL), layout, at=at)
    return found


def _batches(rows: Sequence[Tokens], cost: object) -> Iterator[list[Tokens]]:
    """Rows of one length at a time, few enough for the budget; `rows` are sorted by length."""
    assert callable(cost)
    some = list[Tokens]()
    for row in rows:
        if some and (len(row) != len(some[0]) or (len(some) + 1) * cost(row) > _BATCH_TOKENS):
            yield some
            some = []
        some.append(row)
    if some:
        yield some
