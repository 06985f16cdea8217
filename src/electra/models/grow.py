"""A model for an extended tokenizer: more rows in its tables, nothing else.

In: a loaded model directory, and for each new token the old tokens that stood for it (text/extend_tokenizer.py). Out: the
same model with one row more for each new token, in the token table of the encoder, in the bias of the masked language
modelling head, and in those of the generator, or of the noise model, beside it. A new row is the mean of its pieces' rows,
so a new word begins where its pieces stand together; old rows are what they were.

Shapes: V tokens, E embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from electra.models.encoder import Encoder, build_encoder
from electra.models.heads import MlmHead
from electra.models.model_dir import Generator, ModelDir
from electra.models.two_tower import TwoTower
from electra.nn.layers import shapes_alone


def grown(model: ModelDir, tokens: int, pieces: Sequence[Sequence[int]]) -> ModelDir:
    """`model` with the tokens 0 ... `tokens` - 1 that it has and one for each entry of `pieces`.

    Args:
        tokens: size of its tokenizer; rows behind them, which padded tables have, are left out.
        pieces: old tokens, at least one, of each new one.
    """
    generator, noise = model.generator, model.noise
    return replace(
        model,
        encoder=_grown_encoder(model.encoder, tokens, pieces),
        mlm_head=model.mlm_head and _grown_head(model.mlm_head, model.encoder, tokens, pieces),
        generator=generator
        and Generator(
            encoder=_grown_encoder(generator.encoder, tokens, pieces),
            mlm_head=_grown_head(generator.mlm_head, generator.encoder, tokens, pieces),
        ),
        noise=noise
        and TwoTower(
            _grown_encoder(noise.ltr, tokens, pieces),
            _grown_encoder(noise.rtl, tokens, pieces),
            _grown_head(noise.head, noise.ltr, tokens, pieces, states=2),
        ).eval(),
    )


def _grown_encoder(encoder: Encoder, tokens: int, pieces: Sequence[Sequence[int]]) -> Encoder:
    (table,) = (name for name, parameter in encoder.named_parameters() if parameter is encoder.embeddings.table)
    state = encoder.state_dict()
    state[table] = _with_means(state[table], tokens, pieces)
    with shapes_alone():
        larger = build_encoder(replace(encoder.config, vocab_size=tokens + len(pieces)))
    larger.load_state_dict(state, assign=True)
    return larger.eval()


def _grown_head(head: MlmHead, encoder: Encoder, tokens: int, pieces: Sequence[Sequence[int]], states: int = 1) -> MlmHead:
    state = head.state_dict()
    state["bias"] = _with_means(state["bias"], tokens, pieces)
    with shapes_alone():
        larger = MlmHead(replace(encoder.config, vocab_size=tokens + len(pieces)), states)
    larger.load_state_dict(state, assign=True)
    return larger.eval()


def _with_means(rows_V: Tensor, tokens: int, pieces: Sequence[Sequence[int]]) -> Tensor:
    """[V] or [V, E], cut to `tokens` rows, with a mean of them for each of `pieces` behind them."""
    means = [rows_V[list(own)].mean(dim=0) for own in pieces]
    return torch.cat([rows_V[:tokens], torch.stack(means)])
