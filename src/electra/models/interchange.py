"""Weights under our names and under transformers', by reversible tables.

Our state is that of one encoder and at most one head: `encoder.*` and `mlm_head.*`, `rtd_head.*`, ...,
or the decoder on it, `decoder.*`.
Theirs is the state dict of one of `ARCHITECTURES`. A table says for each of our modules which of theirs it is; where it is
several (our fused qkv), their tensors lie one above the other in ours. Three heads differ in shape and are converted:

    rtd, modern              one row (w, b) <-> a token classifier with two labels, rows 0 and (w, b): softmax = sigmoid
    classification, choice;  one layer <-> the two of ElectraForSequenceClassification and ElectraForMultipleChoice, see
        classic              `two_layers.py`; two of a classifier that were not made so are a `two_layer_head`
    output tables            tied to the token table: not written; accepted when they are equal to it

The recurrent family has no class there: its "classes" are names of our own format, and its tables leave names as they are.

What is not in a table is an error that lists it, except BERT's pooler and next-sentence head, which are dropped aloud.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from electra.errors import ElectraError
from electra.models.two_layers import TWO_LAYERS, one_layer, two_layers

State = dict[str, Tensor]
Family = Literal["classic", "modern", "recurrent"]
Table = dict[str, tuple[str, ...]]

_CLASSIC: Table = {
    "embeddings.word_embeddings": ("embeddings.word_embeddings",),
    "embeddings.position_embeddings": ("embeddings.position_embeddings",),
    "embeddings.token_type_embeddings": ("embeddings.token_type_embeddings",),
    "embeddings.norm": ("embeddings.LayerNorm",),
    "embeddings_project": ("embeddings_project",),
    "layers.*.qkv": tuple(f"encoder.layer.*.attention.self.{part}" for part in ("query", "key", "value")),
    "layers.*.attention_output": ("encoder.layer.*.attention.output.dense",),
    "layers.*.attention_norm": ("encoder.layer.*.attention.output.LayerNorm",),
    "layers.*.up": ("encoder.layer.*.intermediate.dense",),
    "layers.*.down": ("encoder.layer.*.output.dense",),
    "layers.*.norm": ("encoder.layer.*.output.LayerNorm",),
}
_MODERN: Table = {
    "embeddings.tok_embeddings": ("embeddings.tok_embeddings",),
    "embeddings.norm": ("embeddings.norm",),
    "final_norm": ("final_norm",),
    **{f"layers.*.{part}": (f"layers.*.{part}",)
       for part in ("attn_norm", "attn.Wqkv", "attn.Wo", "mlp_norm", "mlp.Wi", "mlp.Wo")},
}  # fmt: skip
_ELECTRA_MLM: Table = {
    "mlm_head.dense": ("generator_predictions.dense",),
    "mlm_head.norm": ("generator_predictions.LayerNorm",),
    "mlm_head": ("generator_lm_head",),
}
_ELECTRA_CAUSAL: Table = {name.replace("mlm", "causal"): theirs for name, theirs in _ELECTRA_MLM.items()}
_ELECTRA_DECODER: Table = {
    **{f"decoder.encoder.{ours}": tuple(f"decoder.electra.{name}" for name in theirs) for ours, theirs in _CLASSIC.items()},
    **{name.replace("mlm_head", "decoder.head"): (f"decoder.{theirs}",) for name, (theirs,) in _ELECTRA_MLM.items()},
    **{f"decoder.cross.*.{ours}": tuple(f"decoder.electra.encoder.layer.*.crossattention.{name}" for name in theirs)
       for ours, theirs in (("query", ("self.query",)), ("key_value", ("self.key", "self.value")),
                            ("Wo", ("output.dense",)), ("norm", ("output.LayerNorm",)))},
    "decoder.enc_to_dec_proj": ("enc_to_dec_proj",),
}  # fmt: skip
_ELECTRA_RTD: Table = {
    "rtd_head.dense": ("discriminator_predictions.dense",),
    "rtd_head.output": ("discriminator_predictions.dense_prediction",),
}
_ELECTRA_CLASSIFICATION: Table = {
    "two_layer_head.dense": ("classifier.dense",),
    "two_layer_head.classifier": ("classifier.out_proj",),
}
_ELECTRA_CHOICE: Table = {
    "choice_head.widened": ("sequence_summary.summary",),
    "choice_head.classifier": ("classifier",),
}
_TOKEN: Table = {"token_head.classifier": ("classifier",)}
_SPAN: Table = {"span_head.classifier": ("qa_outputs",)}
_BERT_MLM: Table = {
    "mlm_head.dense": ("cls.predictions.transform.dense",),
    "mlm_head.norm": ("cls.predictions.transform.LayerNorm",),
    "mlm_head": ("cls.predictions",),
}
_MODERN_MLM: Table = {"mlm_head.dense": ("head.dense",), "mlm_head.norm": ("head.norm",), "mlm_head": ("decoder",)}
_MODERN_CAUSAL: Table = {name.replace("mlm", "causal"): theirs for name, theirs in _MODERN_MLM.items()}
_MODERN_RTD: Table = {"rtd_head.dense": ("head.dense",), "rtd_head.norm": ("head.norm",), "rtd_head.output": ("classifier",)}
_MODERN_CLASSIFICATION: Table = {
    "classification_head.dense": ("head.dense",),
    "classification_head.norm": ("head.norm",),
    "classification_head.classifier": ("classifier",),
}
_MODERN_CHOICE: Table = {
    "choice_head.dense": ("head.dense",),
    "choice_head.norm": ("head.norm",),
    "choice_head.classifier": ("classifier",),
}
_MODERN_TOKEN: Table = {
    "token_head.dense": ("head.dense",),
    "token_head.norm": ("head.norm",),
    "token_head.classifier": ("classifier",),
}
_MODERN_SPAN: Table = {
    "span_head.dense": ("head.dense",),
    "span_head.norm": ("head.norm",),
    "span_head.classifier": ("classifier",),
}


def _as_they_are(prefix: str, *names: str) -> Table:
    whole = [f"{prefix}.{name}" if prefix and name else prefix + name for name in names]
    return {name: (name,) for name in whole}


_RECURRENT: Table = _as_they_are("", "embeddings.word_embeddings", "embeddings.norm", "convolution", "convolution_norm",
                                 "layers.*.left_to_right", "layers.*.right_to_left", "layers.*.norm")  # fmt: skip
_LABELS = ("dense", "norm", "classifier")
_RECURRENT_HEADS: Mapping[str, Table] = {
    "Model": {},
    "ForMaskedLM": _as_they_are("mlm_head", "dense", "norm", ""),
    "ForPreTraining": _as_they_are("rtd_head", "dense", "norm", "output"),
    "ForSequenceClassification": _as_they_are("classification_head", *_LABELS),
    "ForMultipleChoice": _as_they_are("choice_head", *_LABELS),
    "ForTokenClassification": _as_they_are("token_head", *_LABELS),
    "ForQuestionAnswering": _as_they_are("span_head", *_LABELS),
}


#: ModernBertForTokenClassification with the labels original and replaced: a discriminator, for which there is no class
MODERN_DISCRIMINATOR = "ModernBertForTokenClassification (discriminator)"
#: a causal language model of the modern family: transformers has no class for it, and this name says so
MODERN_CAUSAL = "ElectraModernForCausalLM"
#: an encoder and a decoder with cross attention, of ELECTRA both
ENCODER_DECODER = "EncoderDecoderModel"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One of transformers' classes.

    Args:
        family: which of our encoders it is.
        prefix: what its encoder's names begin with; the bare class's checkpoints may leave it out.
        head: table of its head.
        tied: names that repeat the token table or another tensor, which we hold once.
        dropped: beginnings of names that we have no place for and leave out, saying so.
    """

    family: Family
    prefix: str
    head: Table = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()

    @property
    def table(self) -> Table:
        """Our modules and theirs, encoder and head."""
        encoder = {"classic": _CLASSIC, "modern": _MODERN, "recurrent": _RECURRENT}[self.family]
        return {f"encoder.{ours}": tuple(self.prefix + name for name in theirs) for ours, theirs in encoder.items()} | self.head


_POOLER = ("bert.pooler.", "cls.seq_relationship.")
_BERT_TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
ARCHITECTURES: Mapping[str, Architecture] = {
    "ElectraModel": Architecture(family="classic", prefix="electra."),
    "ElectraForPreTraining": Architecture(family="classic", prefix="electra.", head=_ELECTRA_RTD),
    "ElectraForMaskedLM": Architecture(
        family="classic", prefix="electra.", head=_ELECTRA_MLM,
        tied={"generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"},
    ),
    "ElectraForCausalLM": Architecture(
        family="classic", prefix="electra.", head=_ELECTRA_CAUSAL,
        tied={"generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"},
    ),
    ENCODER_DECODER: Architecture(
        family="classic", prefix="encoder.", head=_ELECTRA_DECODER,
        tied={"decoder.generator_lm_head.weight": "decoder.electra.embeddings.word_embeddings.weight"},
    ),
    "ElectraForSequenceClassification": Architecture(family="classic", prefix="electra.", head=_ELECTRA_CLASSIFICATION),
    "ElectraForMultipleChoice": Architecture(family="classic", prefix="electra.", head=_ELECTRA_CHOICE),
    "ElectraForTokenClassification": Architecture(family="classic", prefix="electra.", head=_TOKEN),
    "ElectraForQuestionAnswering": Architecture(family="classic", prefix="electra.", head=_SPAN),
    "BertModel": Architecture(family="classic", prefix="bert.", dropped=_POOLER),
    "BertForTokenClassification": Architecture(family="classic", prefix="bert.", head=_TOKEN, dropped=_POOLER),
    "BertForMaskedLM": Architecture(family="classic", prefix="bert.", head=_BERT_MLM, tied=_BERT_TIED, dropped=_POOLER),
    "BertForPreTraining": Architecture(family="classic", prefix="bert.", head=_BERT_MLM, tied=_BERT_TIED, dropped=_POOLER),
    "BertForQuestionAnswering": Architecture(family="classic", prefix="bert.", head=_SPAN, dropped=_POOLER),
    "ModernBertModel": Architecture(family="modern", prefix="model."),
    "ModernBertForMaskedLM": Architecture(
        family="modern", prefix="model.", head=_MODERN_MLM, tied={"decoder.weight": "model.embeddings.tok_embeddings.weight"}
    ),
    MODERN_CAUSAL: Architecture(
        family="modern", prefix="model.", head=_MODERN_CAUSAL, tied={"decoder.weight": "model.embeddings.tok_embeddings.weight"}
    ),
    "ModernBertForTokenClassification": Architecture(family="modern", prefix="model.", head=_MODERN_TOKEN),
    MODERN_DISCRIMINATOR: Architecture(family="modern", prefix="model.", head=_MODERN_RTD),
    "ModernBertForSequenceClassification": Architecture(family="modern", prefix="model.", head=_MODERN_CLASSIFICATION),
    "ModernBertForQuestionAnswering": Architecture(family="modern", prefix="model.", head=_MODERN_SPAN),
    "ModernBertForMultipleChoice": Architecture(family="modern", prefix="model.", head=_MODERN_CHOICE),
} | {
    f"Recurrent{ending}": Architecture(family="recurrent", prefix="encoder.", head=head)
    for ending, head in _RECURRENT_HEADS.items()
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Tensors under our names, and the foreign names that were left out."""

    state: State
    dropped: tuple[str, ...]


def to_transformers(state: Mapping[str, Tensor], architecture: str) -> State:
    """Our state under the names of `architecture`; tied output tables are not written.

    Args:
        state: `encoder.*` and the names of the architecture's head.

    Raises:
        KeyError: a name that the architecture has no place for.
    """
    kind = ARCHITECTURES[architecture]
    converted: State = {}
    for name, tensor in _reshape_heads(dict(state), architecture).items():
        theirs = their_names(name, architecture)
        converted |= zip(theirs, (part.contiguous() for part in tensor.chunk(len(theirs))), strict=True)
    return {name: tensor for name, tensor in converted.items() if name not in kind.tied}


def from_transformers(tensors: Mapping[str, Tensor], architecture: str, where: str = "weights") -> Imported:
    """A checkpoint of `architecture` under our names.

    Args:
        tensors: with or without the prefix of the encoder; old names (gamma, beta) and saved buffers are understood.
        where: the file, for errors.

    Raises:
        ElectraError: E-M210 unexpected or missing names, E-M211 a tied tensor that differs, E-M212 a head of another shape.
    """
    kind = ARCHITECTURES[architecture]
    tensors = _normalised(tensors, kind.prefix)
    for copy, original in kind.tied.items():
        repeated, held = tensors.pop(copy, None), tensors.get(original)
        if repeated is not None and (held is None or not torch.equal(repeated, held)):
            raise ElectraError("E-M211", where, f"{copy} is not tied to {original}", "only tied output layers can be loaded")
    dropped = tuple(sorted(name for name in tensors if name.startswith(kind.dropped)))
    ours_of = {theirs[0]: ours for ours, theirs in kind.table.items()}
    state: State = {}
    remaining = {name: tensor for name, tensor in tensors.items() if name not in dropped}
    for name in list(remaining):
        module, _, leaf = name.rpartition(".")
        template, number = _template(module)
        if template not in ours_of:
            continue
        ours = ours_of[template].replace("*", number) + f".{leaf}"
        parts = [part for part in their_names(ours, architecture) if part in remaining]
        if len(parts) == len(kind.table[ours_of[template]]):
            state[ours] = _stacked([remaining.pop(part) for part in parts], name, where)
    if remaining:
        raise ElectraError("E-M210", where, f"unexpected weights for {architecture}: {_some(remaining)}",
                           "name the right class in config.json, or leave these weights out")  # fmt: skip
    return Imported(state=_restore_heads(state, architecture, where), dropped=dropped)


def head_of(state: Mapping[str, Tensor], architecture: str) -> str | None:
    """What our names of the head of `architecture` begin with; `state`, imported, says which of two it is."""
    prefixes = {ours.split(".")[0] for ours in ARCHITECTURES[architecture].head}
    one = TWO_LAYERS["ElectraForSequenceClassification"].one
    return "classification_head" if f"{one}.weight" in state else next(iter(prefixes), None)


def require_names(state: Mapping[str, Tensor], expected: Iterable[str], architecture: str, where: str) -> None:
    """Raises ElectraError E-M210 unless `state` has exactly the names that a network of ours expects, in their terms."""
    expected = set(expected)
    missing = [their for name in sorted(expected - set(state)) for their in their_names(name, architecture)]
    unexpected = [their for name in sorted(set(state) - expected) for their in their_names(name, architecture)]
    for kind, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            raise ElectraError("E-M210", where, f"{kind} weights for {architecture}: {_some(names)}",
                               "the file is incomplete, or config.json describes another network")  # fmt: skip


def their_names(name: str, architecture: str) -> list[str]:
    """The name, or names, of one of our tensors in `architecture`."""
    module, _, leaf = name.rpartition(".")
    template, number = _template(module)
    return [f"{theirs.replace('*', number)}.{leaf}" for theirs in ARCHITECTURES[architecture].table[template]]


def _template(module: str) -> tuple[str, str]:
    """A module's name with its layer number replaced by `*`, and the number."""
    found = re.search(r"(?<=\.)\d+(?=\.)", module)
    return (module[: found.start()] + "*" + module[found.end() :], found[0]) if found else (module, "")


def _normalised(tensors: Mapping[str, Tensor], prefix: str) -> State:
    bare = any(name.startswith("embeddings.") for name in tensors)
    named = {f"{prefix}{name}" if bare else name: tensor for name, tensor in tensors.items()}
    old_names = {"gamma": "weight", "beta": "bias"}
    renamed: State = {}
    for name, tensor in named.items():
        module, _, leaf = name.rpartition(".")
        if leaf not in ("position_ids", "token_type_ids"):  # buffers of older versions: 0, 1, 2 ...
            renamed[f"{module}.{old_names.get(leaf, leaf)}"] = tensor
    return renamed


def _stacked(parts: list[Tensor], name: str, where: str) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    if parts[0].ndim == 0 or len({part.shape for part in parts}) > 1:
        raise ElectraError("E-M212", where, f"{name} has another shape than its neighbours", "copy or save the model again")
    return torch.cat(parts)


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")


# -- heads of another shape ---------------------------------------------------------------------------------------------


def _reshape_heads(state: State, architecture: str) -> State:
    if architecture == MODERN_DISCRIMINATOR:
        for name in ("rtd_head.output.weight", "rtd_head.output.bias"):
            state[name] = torch.cat([torch.zeros_like(state[name]), state[name]])
    if architecture in TWO_LAYERS and f"{(names := TWO_LAYERS[architecture]).one}.weight" in state:
        two = two_layers(state, names)
        state = {name: tensor for name, tensor in state.items() if not name.startswith(names.one)} | two
    return state


def _restore_heads(state: State, architecture: str, where: str) -> State:
    if architecture == MODERN_DISCRIMINATOR:
        for name in ("rtd_head.output.weight", "rtd_head.output.bias"):
            rows = state.get(name)
            if rows is None or len(rows) != 2:
                raise ElectraError("E-M212", where, f"{name} is not that of a classifier with two labels",
                                   "of this class, only discriminators (original, replaced) can be loaded")  # fmt: skip
            state[name] = rows[1:] - rows[:1]  # a softmax over two is a sigmoid of the difference
    if architecture in TWO_LAYERS:
        names = TWO_LAYERS[architecture]
        head = {f"{module}.{leaf}" for module in (names.dense, names.output) for leaf in ("weight", "bias")}
        require_names({name: tensor for name, tensor in state.items() if name in head}, head, architecture, where)
        one = one_layer(state, names)
        if one is not None:
            state = {name: tensor for name, tensor in state.items() if name not in head} | one
        elif names.one == names.output:
            raise ElectraError("E-M212", where, "its head has two layers of its own",
                               "of this class, only heads that electra exported can be loaded")  # fmt: skip
    return state
