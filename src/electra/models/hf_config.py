"""Our configs as transformers' config.json, and back.

Written: every field by transformers' 5.x name and, for ModernBERT, the older names beside them, which inference servers read.
Read: sizes and constants of Electra, BERT and ModernBERT; anything that our networks do not compute (another activation,
biases in ModernBERT, scaled rotary positions) is an error, and keys without a meaning here are ignored. Recurrent encoders,
which transformers does not have, are of the type `electra-recurrent`, with the names of our recipes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from electra import config as recipes
from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.encoder import EncoderConfig
from electra.models.heads import Pooling
from electra.models.interchange import ARCHITECTURES, ENCODER_DECODER, MODERN_DISCRIMINATOR
from electra.models.modern import ModernConfig
from electra.models.recurrent import RecurrentConfig

Json = dict[str, Any]

_MODEL_TYPES = {"electra": "ElectraModel", "bert": "BertModel", "modernbert": "ModernBertModel",
                "electra-recurrent": "RecurrentModel"}  # fmt: skip
_CLASSIC_SIZES = {"vocab_size": 30522, "hidden_size": 256, "num_hidden_layers": 12, "num_attention_heads": 4,
                  "intermediate_size": 1024, "max_position_embeddings": 512, "type_vocab_size": 2}  # fmt: skip
_BERT_SIZES = {**_CLASSIC_SIZES, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
_CLASSIC_CONSTANTS = {"layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
                      "initializer_range": 0.02}  # fmt: skip
_MODERN_SIZES = {"vocab_size": 50368, "hidden_size": 768, "num_hidden_layers": 22, "num_attention_heads": 12,
                 "intermediate_size": 1152, "max_position_embeddings": 8192, "local_attention": 128}  # fmt: skip
_MODERN_CONSTANTS = {"norm_eps": 1e-5, "attention_dropout": 0.0, "mlp_dropout": 0.0, "embedding_dropout": 0.0,
                     "initializer_range": 0.02}  # fmt: skip
#: what a foreign config must say, if it says anything, for our network to be the same
_CLASSIC_FIXED = {"hidden_act": "gelu", "position_embedding_type": "absolute", "tie_word_embeddings": True}
_MODERN_FIXED = {"hidden_activation": "gelu", "classifier_activation": "gelu", "norm_bias": False,
                 "attention_bias": False, "mlp_bias": False, "classifier_bias": False, "decoder_bias": True,
                 "tie_word_embeddings": True}  # fmt: skip
#: what transformers calls the kinds of classification, by the type of our task
PROBLEMS = {"classify": "single_label_classification", "multilabel": "multi_label_classification", "regression": "regression"}
RTD_LABELS = ("original", "replaced")
#: a discriminator with these labels has energies: minus log p^ of each token (objectives/electric.py)
ENERGY_LABELS = ("text", "noise")
_LAYER_TYPES = ("full_attention", "sliding_attention")


def to_json(
    config: EncoderConfig,
    architecture: str,
    labels: Sequence[str] = (),
    classifier_dropout: float = 0.0,
    pooling: Pooling = "cls",
) -> Json:
    """config.json of a model directory whose weights are those of transformers' class `architecture`.

    Args:
        labels: names of the outputs of a head that has such.
        classifier_dropout, pooling: of that head.
    """
    if architecture == MODERN_DISCRIMINATOR:
        architecture, labels = "ModernBertForTokenClassification", labels or RTD_LABELS
    tree: Json = {"architectures": [architecture], "dtype": "float32"}
    if labels:
        tree |= {
            "id2label": {str(index): label for index, label in enumerate(labels)},
            "label2id": {label: index for index, label in enumerate(labels)},
        }
        if not architecture.endswith("ForPreTraining"):
            tree["classifier_dropout"] = classifier_dropout
    fields = {name: value for name, value in recipes.to_tree(config).items() if name != "type"}
    if isinstance(config, ClassicConfig):
        return tree | fields | {"model_type": "electra"} | _CLASSIC_FIXED | {"is_decoder": is_causal(architecture)}
    if isinstance(config, RecurrentConfig):
        return tree | fields | {"model_type": "electra-recurrent", "classifier_pooling": pooling}
    thetas = zip(_LAYER_TYPES, (config.global_rope_theta, config.local_rope_theta), strict=True)
    every = config.global_attn_every_n_layers
    return tree | fields | _MODERN_FIXED | {
        "model_type": "modernbert",
        "classifier_pooling": pooling,
        "bos_token_id": config.cls_token_id,
        "eos_token_id": config.sep_token_id,
        "initializer_cutoff_factor": 2.0,
        "layer_types": _layer_types(every, config.num_hidden_layers),
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas},
    }  # fmt: skip


def from_json(tree: Mapping[str, Any], where: str) -> tuple[EncoderConfig, str]:
    """The encoder's config and the architecture that a config.json describes.

    Raises:
        ElectraError: E-M220 an unknown class, E-M221 something our networks do not compute, E-M222 a value that makes no sense.
    """
    given = tree.get("architectures") or [_MODEL_TYPES.get(str(tree.get("model_type")))]
    architecture = given[0] if isinstance(given, list) and given else None
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise ElectraError("E-M220", where, f"architecture {architecture or tree.get('model_type')!r} is not known",
                           f"use a model of one of {', '.join(set(ARCHITECTURES) - {MODERN_DISCRIMINATOR})}")  # fmt: skip
    if architecture == ENCODER_DECODER:
        part = tree.get("encoder")
        config, encoder = from_json(part if isinstance(part, dict) else {}, f"{where}: encoder")
        if encoder != "ElectraModel":
            raise ElectraError("E-M220", where, f"its encoder is {encoder}", "only ElectraModel can be loaded")
        return config, architecture
    if architecture == "ModernBertForTokenClassification" and _labels(tree) in (RTD_LABELS, ENERGY_LABELS):
        architecture = MODERN_DISCRIMINATOR
    if ARCHITECTURES[architecture].family == "recurrent":
        return _recurrent(tree, where), architecture
    bert = architecture.startswith("Bert")
    modern = ARCHITECTURES[architecture].family == "modern"
    fixed = _MODERN_FIXED if modern else _CLASSIC_FIXED | {"is_decoder": is_causal(architecture)}
    for name, value in fixed.items():
        if tree.get(name, value) != value:
            raise ElectraError("E-M221", where, f"{name} is {tree[name]!r}", f"only {value!r} can be loaded")
    sizes = _MODERN_SIZES if modern else _BERT_SIZES if bert else _CLASSIC_SIZES
    fields: Json = {"pad_token_id": 0} | sizes | (_MODERN_CONSTANTS if modern else _CLASSIC_CONSTANTS)
    fields |= {name: tree[name] for name in fields if tree.get(name) is not None}
    if modern:
        fields |= {name: tree.get(name) for name in ("cls_token_id", "sep_token_id")} | _attention_pattern(tree, where)
    else:
        fields["embedding_size"] = fields["hidden_size"] if bert else tree.get("embedding_size", 128)
    for name in (*sizes, *(() if modern else ("embedding_size",))):
        if type(fields[name]) is not int or fields[name] < (name not in ("num_hidden_layers", "local_attention")):
            raise ElectraError(
                "E-M222", where, f"{name} is {fields[name]!r}", "mend config.json: a positive number belongs there"
            )
    try:
        if modern:
            return recipes.build(ModernConfig, fields), architecture
        return recipes.build(ClassicConfig, fields), architecture
    except ElectraError as error:
        raise ElectraError("E-M222", where, f"{error.where}: {error.cause}", "mend config.json") from None


def is_causal(architecture: str) -> bool:
    """Whether its tokens see only those before them."""
    return architecture.endswith("ForCausalLM")


def has_energies(tree: Mapping[str, Any]) -> bool:
    """Whether the discriminator that a config.json describes is a model of energies."""
    return _labels(tree) == ENERGY_LABELS


def _labels(tree: Mapping[str, Any]) -> tuple[object, ...]:
    names = tree.get("id2label")
    return tuple(names.values()) if isinstance(names, dict) and list(names) == list("01") else ()


def _recurrent(tree: Mapping[str, Any], where: str) -> RecurrentConfig:
    """Our own format: the settings of the recipe by name."""
    names = {field.name for field in dataclasses.fields(RecurrentConfig)} - {"type"}
    try:
        config = recipes.build(RecurrentConfig, {name: value for name, value in tree.items() if name in names})
    except ElectraError as error:
        raise ElectraError("E-M222", where, f"{error.where}: {error.cause}", "mend config.json") from None
    for name in ("vocab_size", "embedding_size", "max_position_embeddings"):
        if getattr(config, name) < 1:
            raise ElectraError("E-M222", where, f"{name} is {tree.get(name)!r}",
                               "mend config.json: a positive number belongs there")  # fmt: skip
    return config


def pooling(tree: Mapping[str, Any], where: str) -> Pooling:
    """How a classification head reads its encoder; classic ones have no such key.

    Raises:
        ElectraError: E-M221 a way that is not known.
    """
    match tree.get("classifier_pooling", "cls"):
        case "cls":
            return "cls"
        case "mean":
            return "mean"
        case other:
            raise ElectraError("E-M221", where, f"classifier_pooling is {other!r}", "only 'cls' and 'mean' can be loaded")


def _layer_types(every: int, layers: int) -> list[str]:
    return [_LAYER_TYPES[index % every != 0] for index in range(layers)]


def _attention_pattern(tree: Mapping[str, Any], where: str) -> Json:
    """Thetas and the period of global layers, in the old names or the new ones."""
    types = tree.get("layer_types")
    every = tree.get("global_attn_every_n_layers", 3)
    if isinstance(types, list) and types:
        every = next((n for n in range(1, len(types) + 1) if types == _layer_types(n, len(types))), None)
        if every is None:
            raise ElectraError("E-M221", where, f"layer_types is {types}", "only a global layer every n layers can be loaded")
    rope = tree.get("rope_parameters") or {}
    thetas: Json = {}
    for kind, old, default in zip(_LAYER_TYPES, ("global_rope_theta", "local_rope_theta"), (160_000.0, 10_000.0), strict=True):
        parameters = (rope.get(kind) or {}) if isinstance(rope, dict) else rope
        if not isinstance(parameters, dict):
            raise ElectraError("E-M222", where, f"rope_parameters is {rope!r}", "mend config.json")
        if parameters.get("rope_type", "default") != "default" or tree.get("rope_scaling"):
            raise ElectraError("E-M221", where, "rotary positions are scaled", "only plain rotary positions can be loaded")
        thetas[old] = parameters.get("rope_theta") or tree.get(old) or default
    return thetas | {"global_attn_every_n_layers": every}
