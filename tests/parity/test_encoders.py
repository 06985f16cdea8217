"""Our encoders and heads against transformers' on tiny random weights: the same numbers, through the name tables."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from electra.contracts import Batch, Packed, Padded
from electra.models import hf_config
from electra.models.classic import ClassicConfig
from electra.models.encoder import build_encoder
from electra.models.heads import ClassificationHead, MlmHead, RtdHead, TokenHead
from electra.models.interchange import MODERN_DISCRIMINATOR, from_transformers, to_transformers
from electra.models.modern import ModernConfig

transformers = pytest.importorskip("transformers")

VOCAB, LABELS = 53, 3


@dataclass
class Rows:
    """Two rows, the second with padding, as both sides take them."""

    tokens: Tensor
    types: Tensor
    attention_mask: Tensor

    @property
    def positions(self) -> Tensor:
        return torch.arange(self.tokens.shape[1]).expand_as(self.tokens)

    @property
    def layout(self) -> Padded:
        return Padded(segments=self.attention_mask - 1)

    @property
    def batch(self) -> Batch:
        return Batch(tokens=self.tokens, positions=self.positions, types=self.types, layout=self.layout)


def rows(length: int = 21, padding: int = 6) -> Rows:
    mask = torch.ones(2, length, dtype=torch.long)
    mask[1, length - padding :] = 0
    return Rows(torch.randint(3, VOCAB, (2, length)), torch.randint(0, 2, (2, length)), mask)


def classic(**changes: Any) -> ClassicConfig:
    sizes = {"embedding_size": 12, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40}
    return ClassicConfig(**{"vocab_size": VOCAB, "max_position_embeddings": 64, **sizes, **changes})


def modern(**changes: Any) -> ModernConfig:
    sizes = {"hidden_size": 24, "num_hidden_layers": 5, "num_attention_heads": 2, "intermediate_size": 20}
    ids = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2}
    rotary = {"global_rope_theta": 5_000.0, "local_rope_theta": 300.0, "global_attn_every_n_layers": 3, "local_attention": 6}
    return ModernConfig(**{"vocab_size": VOCAB, **sizes, **ids, **rotary, **changes})


CONFIGS = {
    "classic": classic(),
    "classic without projection": classic(embedding_size=24),
    "modern": modern(),
    "modern, global only": modern(global_attn_every_n_layers=1),
    "modern, narrow window": modern(local_attention=3),
}
ARCHITECTURES = {
    "classic": {None: "ElectraModel", "mlm_head": "ElectraForMaskedLM", "rtd_head": "ElectraForPreTraining",
                "classification_head": "ElectraForSequenceClassification", "token_head": "ElectraForTokenClassification"},
    "modern": {None: "ModernBertModel", "mlm_head": "ModernBertForMaskedLM", "rtd_head": MODERN_DISCRIMINATOR,
               "classification_head": "ModernBertForSequenceClassification",
               "token_head": "ModernBertForTokenClassification"},
}  # fmt: skip
HEADS = [None, "mlm_head", "rtd_head", "classification_head", "token_head"]


def ours(config: ClassicConfig | ModernConfig, head: str | None) -> nn.ModuleDict:
    network = nn.ModuleDict({"encoder": build_encoder(config)})
    if head == "mlm_head":
        network[head] = MlmHead(config)
    elif head == "rtd_head":
        network[head] = RtdHead(config, 0.3)
    elif head == "classification_head":
        network[head] = ClassificationHead(config, LABELS)
    elif head == "token_head":
        network[head] = TokenHead(config, LABELS)
    return network.eval()


def theirs(config: ClassicConfig | ModernConfig, architecture: str, labels: int) -> nn.Module:
    tree = hf_config.to_json(config, architecture, [f"label {index}" for index in range(labels)])
    cls = getattr(transformers, tree["architectures"][0])
    network: nn.Module = cls(cls.config_class.from_dict(tree))
    return network.eval()


def shake(network: nn.Module) -> None:
    """Random values everywhere: initial ones leave biases at 0 and norms at 1, where a swap would not show."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)


def our_outputs(network: nn.ModuleDict, data: Rows) -> Tensor:
    encoder = network["encoder"]
    hidden: Tensor = encoder(data.tokens, data.positions, data.types, data.layout)
    if "mlm_head" in network:
        hidden = network["mlm_head"](hidden, encoder.embeddings.table)
    elif "rtd_head" in network:
        hidden = network["rtd_head"](hidden)
    elif "classification_head" in network:
        hidden = network["classification_head"](hidden, data.batch)
    elif "token_head" in network:
        hidden = network["token_head"](hidden, data.batch)
    return hidden


def their_outputs(network: nn.Module, architecture: str, data: Rows) -> Tensor:
    types = {"token_type_ids": data.types} if architecture.startswith("Electra") else {}
    outputs: Tensor = network(input_ids=data.tokens, attention_mask=data.attention_mask, **types)[0]
    if architecture == MODERN_DISCRIMINATOR:
        probability = outputs.softmax(-1)[..., 1]
        return torch.logit(probability.double()).float()
    return outputs


def compare(ours: Tensor, theirs: Tensor, data: Rows) -> None:
    if ours.shape[:2] == data.tokens.shape:  # per token: what stands at padding is nobody's business
        ours, theirs = ours[data.attention_mask.bool()], theirs[data.attention_mask.bool()]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@torch.no_grad()
def test_our_weights_in_their_classes(config: ClassicConfig | ModernConfig, head: str | None) -> None:
    torch.manual_seed(0)
    network, architecture = ours(config, head), ARCHITECTURES[config.type][head]
    shake(network)
    target = theirs(config, architecture, 2 if head == "rtd_head" else LABELS)
    state = to_transformers(network.state_dict(), architecture)
    if head is None:
        state = {name.split(".", 1)[1]: tensor for name, tensor in state.items()}
    loaded = target.load_state_dict(state, strict=False)
    tied = {"generator_lm_head.weight", "decoder.weight"}
    assert not loaded.unexpected_keys
    assert set(loaded.missing_keys) <= tied
    data = rows()
    compare(our_outputs(network, data), their_outputs(target, architecture, data), data)


@pytest.mark.parametrize("head", [None, "mlm_head", "rtd_head"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@torch.no_grad()
def test_their_weights_in_ours(config: ClassicConfig | ModernConfig, head: str | None) -> None:
    torch.manual_seed(1)
    architecture = ARCHITECTURES[config.type][head]
    source = theirs(config, architecture, 2)
    shake(source)
    network = ours(config, head)
    network.load_state_dict(from_transformers(source.state_dict(), architecture).state)
    data = rows()
    compare(our_outputs(network, data), their_outputs(source, architecture, data), data)


@torch.no_grad()
def test_their_modern_classifier_in_ours() -> None:
    torch.manual_seed(1)
    source = theirs(modern(), "ModernBertForSequenceClassification", LABELS)
    shake(source)
    network = ours(modern(), "classification_head")
    network.load_state_dict(from_transformers(source.state_dict(), "ModernBertForSequenceClassification").state)
    data = rows()
    torch.testing.assert_close(our_outputs(network, data), their_outputs(source, "", data), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("labels", [2, 12, 13, 40], ids=lambda n: f"{n} labels")
@torch.no_grad()
def test_one_output_layer_in_electras_two(labels: int) -> None:
    """12 labels just fit beside their negatives into a hidden size of 24; more take the shifted form."""
    torch.manual_seed(2)
    network = ours(classic(), None)
    network["classification_head"] = ClassificationHead(classic(), labels).eval()
    shake(network)
    architecture = "ElectraForSequenceClassification"
    target = theirs(classic(), architecture, labels)
    state = to_transformers(network.state_dict(), architecture)
    target.load_state_dict(state)
    data = rows()
    compare(our_outputs(network, data), their_outputs(target, architecture, data), data)
    again = from_transformers(state, architecture).state
    assert again.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(again[name], tensor, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 7, 33])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@torch.no_grad()
def test_odd_lengths(config: ClassicConfig | ModernConfig, length: int) -> None:
    torch.manual_seed(3)
    network, architecture = ours(config, None), ARCHITECTURES[config.type][None]
    shake(network)
    target = theirs(config, architecture, 2)
    state = to_transformers(network.state_dict(), architecture)
    target.load_state_dict({name.split(".", 1)[1]: tensor for name, tensor in state.items()})
    data = rows(length, padding=length // 2)
    compare(our_outputs(network, data), their_outputs(target, architecture, data), data)


DOCUMENTS = [9, 1, 14]
PACKED = Packed(cu_seqlens=torch.tensor([0, 9, 10, 24], dtype=torch.int32), max_seqlen=14)
ONE_ROW = Padded(segments=torch.repeat_interleave(torch.arange(3), torch.tensor(DOCUMENTS))[None])


def documents() -> list[Rows]:
    return [rows(length, padding=0) for length in DOCUMENTS]


def joined(parts: list[Rows]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, positions from 0 in each document, types, all [T]."""
    tokens, types = torch.cat([part.tokens[0] for part in parts]), torch.cat([part.types[0] for part in parts])
    return tokens, torch.cat([part.positions[0] for part in parts]), types


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_documents_alone_in_one_row_and_packed_are_the_same(config: ClassicConfig | ModernConfig) -> None:
    """Every layout gives what each document gives alone, and the same gradients."""
    torch.manual_seed(4)
    encoder = build_encoder(config).eval()
    shake(encoder)
    parts = documents()
    inputs = joined(parts)
    hidden = {
        "packed": encoder(*inputs, PACKED),
        "row": encoder(*(x[None] for x in inputs), ONE_ROW)[0],
        "alone": torch.cat(
            [encoder(p.tokens, p.positions, p.types, Padded(segments=p.types * 0, whole=True))[0] for p in parts]
        ),
    }
    parameters = list(encoder.parameters())
    gradients = {name: torch.autograd.grad(h.sin().sum(), parameters, allow_unused=True) for name, h in hidden.items()}
    for name in ("row", "alone"):
        torch.testing.assert_close(hidden["packed"], hidden[name], atol=1e-5, rtol=1e-5)
        for packed, other in zip(gradients["packed"], gradients[name], strict=True):
            torch.testing.assert_close(packed, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("config", [classic(), modern()], ids=["classic", "modern"])
@torch.no_grad()
def test_a_packed_batch_is_classified_by_the_first_token_of_each_document(config: ClassicConfig | ModernConfig) -> None:
    torch.manual_seed(5)
    network, parts = ours(config, "classification_head"), documents()
    shake(network)
    tokens, positions, types = joined(parts)
    batch = Batch(tokens=tokens, positions=positions, types=types, layout=PACKED)
    packed = network["classification_head"](network["encoder"](tokens, positions, types, PACKED), batch)
    alone = torch.cat([our_outputs(network, part)[:1] for part in parts])
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", [classic(), modern()], ids=["classic", "modern"])
@torch.no_grad()
def test_given_embeddings_take_the_place_of_looked_up_ones(config: ClassicConfig | ModernConfig) -> None:
    encoder, data = build_encoder(config).eval(), rows()
    inputs = (data.tokens, data.positions, data.types)
    given = encoder(*inputs, data.layout, encoder.embeddings(*inputs))
    assert torch.equal(given, encoder(*inputs, data.layout))
    assert not torch.allclose(given, encoder(*inputs, data.layout, 2 * encoder.embeddings(*inputs) + 1), atol=1e-3)
