"""Sequence-to-sequence models of the classic family as transformers' `EncoderDecoderModel`.

Written: config.json with the configs of `ElectraModel` and of `ElectraForCausalLM` with cross attention, their weights, and
generation_config.json with what starts and ends an output and what is never written, so that transformers' `generate` gives the
same outputs. Names of weights stand in interchange.py. The modern family has no decoder in transformers: its weights lie in a
file of their own beside a bare encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from electra import storage
from electra.errors import ElectraError
from electra.models import hf_config
from electra.models.classic import ClassicConfig, ClassicEncoder
from electra.models.decoder import Decoder
from electra.models.encoder import Encoder, build_encoder
from electra.models.generation import GenerationHead
from electra.models.heads import MlmHead
from electra.models.interchange import ENCODER_DECODER, to_transformers
from electra.models.tying import plain_state

_CAUSAL = "ElectraForCausalLM"


def write(directory: Path, encoder: Encoder, head: GenerationHead) -> None:
    """config.json, generation_config.json and model.safetensors of a classic encoder and the decoder on it."""
    decoder, signs = head.decoder, head.signs
    config = decoder.encoder.config
    ids = {"pad_token_id": config.pad_token_id, "bos_token_id": signs.start, "eos_token_id": signs.end,
           "decoder_start_token_id": signs.start}  # fmt: skip
    reading = hf_config.to_json(encoder.config, "ElectraModel")
    writing = hf_config.to_json(config, _CAUSAL) | {"add_cross_attention": True}
    tree = {"architectures": [ENCODER_DECODER], "model_type": "encoder-decoder", "is_encoder_decoder": True, "dtype": "float32",
            "tie_word_embeddings": False, "encoder": reading, "decoder": writing, **ids}  # fmt: skip
    storage.write_json(directory / "config.json", tree)
    never = list(signs.never)
    storage.write_json(directory / "generation_config.json", {**ids, "suppress_tokens": never,
                       "max_new_tokens": head.decoding.max_new_tokens, "num_beams": head.decoding.num_beams})  # fmt: skip
    state = {f"encoder.{name}": tensor for name, tensor in plain_state(encoder).items()}
    state |= {f"decoder.{name}": tensor for name, tensor in decoder.state_dict().items()}
    plain = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in state.items()}
    save_file(to_transformers(plain, ENCODER_DECODER), directory / "model.safetensors", {"format": "pt"})


def decoder_of(tree: Mapping[str, Any], where: str, encoder: ClassicConfig) -> nn.Module:
    """An empty decoder as a config.json describes it.

    Raises:
        ElectraError: E-M220 another class, E-M221 no attention to the source; and those of `hf_config.from_json`.
    """
    part = tree.get("decoder")
    config, architecture = hf_config.from_json(part if isinstance(part, dict) else {}, f"{where}: decoder")
    if architecture != _CAUSAL:
        raise ElectraError("E-M220", where, f"its decoder is {architecture}", f"only {_CAUSAL} can be loaded")
    own = build_encoder(config)
    assert isinstance(own, ClassicEncoder), "what the class of transformers has"
    return Decoder(own, MlmHead(config), encoder.hidden_size)
