from __future__ import annotations

import pytest
import torch
from torch import Tensor

from electra.errors import ElectraError
from electra.models import hf_config
from electra.models.classic import ClassicConfig
from electra.models.decoder import Decoder
from electra.models.encoder import EncoderConfig, build_encoder
from electra.models.heads import (
    CausalHead,
    ChoiceHead,
    ClassificationHead,
    MlmHead,
    RtdHead,
    SpanHead,
    TokenHead,
    TwoLayerHead,
)  # fmt: skip
from electra.models.interchange import ARCHITECTURES, MODERN_DISCRIMINATOR, from_transformers, head_of, to_transformers
from electra.models.modern import ModernConfig
from electra.models.recurrent import RecurrentConfig

RECURRENT = RecurrentConfig(vocab_size=20, embedding_size=4, hidden_size=8, num_hidden_layers=2)


def state_for(architecture: str, classic: ClassicConfig, modern: ModernConfig) -> dict[str, Tensor]:
    """Random weights of an encoder and the head that `architecture` has."""
    torch.manual_seed(0)
    config: EncoderConfig = {"classic": classic, "modern": modern, "recurrent": RECURRENT}[ARCHITECTURES[architecture].family]
    state = {f"encoder.{name}": torch.randn_like(tensor) for name, tensor in build_encoder(config).state_dict().items()}
    kinds = {ours.split(".")[0] for ours in ARCHITECTURES[architecture].head}
    heads = {"mlm_head": MlmHead(config), "causal_head": CausalHead(config),
             "rtd_head": RtdHead(config), "token_head": TokenHead(config, 5),
             "classification_head": ClassificationHead(config, 5), "choice_head": ChoiceHead(config),
             "span_head": SpanHead(config)}  # fmt: skip
    if not isinstance(config, RecurrentConfig):
        heads["decoder"] = Decoder(build_encoder(config), MlmHead(config), config.hidden_size + 1)  # type: ignore[arg-type]
    if isinstance(config, ClassicConfig):
        heads["two_layer_head"] = TwoLayerHead(config, 5)
    for kind in kinds:
        state |= {f"{kind}.{name}": torch.randn_like(tensor) for name, tensor in heads[kind].state_dict().items()}
    return state


def exported(classic: ClassicConfig) -> dict[str, Tensor]:
    """An encoder under our head of one layer."""
    state = state_for("ElectraModel", classic, ModernConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1,
                                                            num_attention_heads=2, intermediate_size=8))  # fmt: skip
    head = ClassificationHead(classic, 5).state_dict()
    return state | {f"classification_head.{name}": torch.randn_like(tensor) for name, tensor in head.items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_names_go_there_and_back(architecture: str, classic: ClassicConfig, modern: ModernConfig) -> None:
    state = state_for(architecture, classic, modern)
    foreign = to_transformers(state, architecture)
    assert not set(foreign) & set(ARCHITECTURES[architecture].tied)
    imported = from_transformers(foreign, architecture)
    assert imported.dropped == ()
    assert imported.state.keys() == state.keys()
    assert all(torch.equal(imported.state[name], tensor) for name, tensor in state.items())


def test_bare_old_and_repeated_names_are_understood(classic: ClassicConfig, modern: ModernConfig) -> None:
    state = state_for("BertModel", classic, modern)
    foreign = to_transformers(state, "BertModel")
    bare = {name.removeprefix("bert."): tensor for name, tensor in foreign.items()}
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
           for name, tensor in foreign.items()}  # fmt: skip
    buffer = foreign | {"bert.embeddings.position_ids": torch.arange(32)[None]}
    for variant in (bare, old, buffer):
        imported = from_transformers(variant, "BertModel").state
        assert imported.keys() == state.keys()
        assert all(torch.equal(imported[name], tensor) for name, tensor in state.items())


def test_berts_pooler_is_dropped_aloud_and_nothing_else(classic: ClassicConfig, modern: ModernConfig) -> None:
    foreign = to_transformers(state_for("BertModel", classic, modern), "BertModel")
    imported = from_transformers(foreign | {"bert.pooler.dense.weight": torch.zeros(16, 16)}, "BertModel")
    assert imported.dropped == ("bert.pooler.dense.weight",)
    with pytest.raises(ElectraError, match=r"E-M210.*unexpected.*qa_outputs.bias"):
        from_transformers(foreign | {"qa_outputs.bias": torch.zeros(2)}, "BertModel", "model.safetensors")


@pytest.mark.parametrize("architecture", ["ElectraForMaskedLM", "BertForMaskedLM", "ModernBertForMaskedLM"])
def test_an_output_layer_must_be_tied(architecture: str, classic: ClassicConfig, modern: ModernConfig) -> None:
    foreign = to_transformers(state_for(architecture, classic, modern), architecture)
    for copied, original in ARCHITECTURES[architecture].tied.items():
        tied = from_transformers(foreign | {copied: foreign[original].clone()}, architecture)
        assert "mlm_head.bias" in tied.state
        with pytest.raises(ElectraError, match="E-M211"):
            from_transformers(foreign | {copied: foreign[original] + 1}, architecture)
        with pytest.raises(ElectraError, match="E-M211"):
            from_transformers({copied: foreign[original]}, architecture)


def test_part_of_a_fused_weight_is_unexpected(classic: ClassicConfig, modern: ModernConfig) -> None:
    foreign = to_transformers(state_for("ElectraModel", classic, modern), "ElectraModel")
    del foreign["electra.encoder.layer.1.attention.self.key.weight"]
    with pytest.raises(ElectraError, match=r"layer\.1\.attention\.self\.query\.weight"):
        from_transformers(foreign, "ElectraModel")


def test_one_layer_is_told_from_two(classic: ClassicConfig) -> None:
    architecture = "ElectraForSequenceClassification"
    state = exported(classic)
    foreign = to_transformers(state, architecture)
    again = from_transformers(foreign, architecture).state
    assert again.keys() == state.keys()
    assert all(torch.allclose(again[name], tensor, atol=1e-5) for name, tensor in state.items())
    assert head_of(again, architecture) == "classification_head"
    tuned = from_transformers(foreign | {"classifier.dense.weight": torch.randn(16, 16)}, architecture).state
    assert head_of(tuned, architecture) == "two_layer_head"
    assert to_transformers(tuned, architecture).keys() == foreign.keys()


def test_heads_of_another_make_are_refused(classic: ClassicConfig, modern: ModernConfig) -> None:
    architecture = "ElectraForSequenceClassification"
    foreign = to_transformers(exported(classic), architecture)
    with pytest.raises(ElectraError, match=r"E-M210.*missing.*classifier\.dense\.bias"):
        from_transformers({name: t for name, t in foreign.items() if name != "classifier.dense.bias"}, architecture)
    tagger = to_transformers(state_for(MODERN_DISCRIMINATOR, classic, modern), MODERN_DISCRIMINATOR)
    with pytest.raises(ElectraError, match="E-M212"):
        from_transformers(tagger | {"classifier.bias": torch.zeros(9)}, MODERN_DISCRIMINATOR)


def test_a_token_classifier_with_two_rows_is_read_as_their_difference(classic: ClassicConfig, modern: ModernConfig) -> None:
    name = MODERN_DISCRIMINATOR
    foreign = to_transformers(state_for(name, classic, modern), name)
    assert (foreign["classifier.weight"][0] == 0).all()
    moved = foreign | {"classifier.weight": foreign["classifier.weight"] + 3.0}  # both rows: the softmax is the same
    torch.testing.assert_close(from_transformers(moved, name).state, from_transformers(foreign, name).state)


# -- config.json --------------------------------------------------------------------------------------------------------


def test_configs_go_there_and_back(config: EncoderConfig) -> None:
    names = {"classic": "ElectraForPreTraining", "modern": "ModernBertForMaskedLM", "recurrent": "RecurrentForMaskedLM"}
    architecture = names[config.type]
    tree = hf_config.to_json(config, architecture)
    assert hf_config.from_json(tree, "config.json") == (config, architecture)


def test_old_and_new_names_of_modernberts_config(modern: ModernConfig) -> None:
    tree = hf_config.to_json(modern, "ModernBertModel")
    old = {name: value for name, value in tree.items() if name not in ("layer_types", "rope_parameters")}
    new = {name: value for name, value in tree.items() if name not in (
        "global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")}  # fmt: skip
    assert hf_config.from_json(old, "") == hf_config.from_json(new, "") == (modern, "ModernBertModel")


def test_transformers_defaults_are_filled_in() -> None:
    electra, _ = hf_config.from_json({"model_type": "electra", "hidden_size": 768, "num_attention_heads": 12}, "")
    assert isinstance(electra, ClassicConfig)
    assert (electra.embedding_size, electra.vocab_size, electra.layer_norm_eps) == (128, 30522, 1e-12)
    bert, architecture = hf_config.from_json({"model_type": "bert"}, "")
    assert isinstance(bert, ClassicConfig)
    assert (bert.embedding_size, bert.hidden_size, architecture) == (768, 768, "BertModel")
    modern, _ = hf_config.from_json({"model_type": "modernbert"}, "")
    assert isinstance(modern, ModernConfig)
    assert (modern.global_attn_every_n_layers, modern.global_rope_theta, modern.local_rope_theta) == (3, 160_000.0, 10_000.0)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "E-M220"),
        ({"architectures": None, "model_type": "gpt2"}, "E-M220"),
        ({"architectures": "ElectraModel"}, "E-M220"),
        ({"architectures": [["ElectraModel"]]}, "E-M220"),
        ({"hidden_act": "gelu_new"}, "E-M221"),
        ({"position_embedding_type": "relative_key"}, "E-M221"),
        ({"hidden_size": "16"}, "E-M222"),
        ({"hidden_size": True}, "E-M222"),
        ({"hidden_size": -16}, "E-M222"),
        ({"num_attention_heads": 5}, "E-M222"),
        ({"layer_norm_eps": "small"}, "E-M222"),
        ({"embedding_size": 0}, "E-M222"),
    ],
)
def test_bad_classic_configs(classic: ClassicConfig, change: dict[str, object], code: str) -> None:
    tree = hf_config.to_json(classic, "ElectraModel") | change
    with pytest.raises(ElectraError, match=f"{code} there/config.json"):
        hf_config.from_json(tree, "there/config.json")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"norm_bias": True}, "E-M221"),
        ({"hidden_activation": "silu"}, "E-M221"),
        ({"hidden_activation": "relu"}, "E-M221"),
        ({"layer_types": ["full_attention", "full_attention", "sliding_attention"]}, "E-M221"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn", "rope_theta": 1e4}}}, "E-M221"),
        ({"rope_parameters": ["full_attention"]}, "E-M222"),
        ({"rope_parameters": {"full_attention": 10_000}}, "E-M222"),
        ({"rope_parameters": {"full_attention": {"rope_theta": "ten"}}}, "E-M222"),
        ({"layer_types": None, "global_attn_every_n_layers": 0}, "E-M222"),
        ({"layer_types": None, "global_attn_every_n_layers": "all"}, "E-M222"),
        ({"local_attention": -1}, "E-M222"),
        ({"cls_token_id": "one"}, "E-M222"),
    ],
)
def test_bad_modern_configs(modern: ModernConfig, change: dict[str, object], code: str) -> None:
    tree = hf_config.to_json(modern, "ModernBertModel") | change
    with pytest.raises(ElectraError, match=f"{code} there/config.json"):
        hf_config.from_json(tree, "there/config.json")
