from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from electra.errors import ElectraError
from electra.models.classic import ClassicConfig
from electra.models.encoder import Encoder, EncoderConfig, GeneratorConfig, build_encoder, generator_config
from electra.models.heads import ClassificationHead, MlmHead, RtdHead
from electra.models.importing import import_model
from electra.models.model_dir import Provenance, load_model_dir, save_model_dir
from electra.models.modern import ModernConfig
from electra.models.tying import plain_state, tie
from electra.text.tokenizer import Tokenizer


@pytest.fixture
def provenance(tokenizer: Tokenizer) -> Provenance:
    return Provenance(tokenizer=tokenizer, card=lambda: "# A small model\n")


def shaken(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return network


def discriminator(config: EncoderConfig) -> tuple[Encoder, RtdHead, tuple[Encoder, MlmHead]]:
    """A GDES-tied pair as pre-training has it."""
    torch.manual_seed(0)
    small = generator_config(config, GeneratorConfig(layers=1))
    main, generator, head, mlm = build_encoder(config), build_encoder(small), RtdHead(config), MlmHead(small)
    tie(generator, main, "gdes")
    for network in (main, generator, head, mlm):
        shaken(network)
    return main, head, (generator, mlm)


def same(ours: nn.Module | None, theirs: nn.Module) -> None:
    assert ours is not None
    assert not ours.training
    expected = plain_state(theirs) if isinstance(theirs, Encoder) else theirs.state_dict()
    found = ours.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=0, rtol=0)


def test_a_discriminator_and_its_generator_come_back(config: EncoderConfig, provenance: Provenance, tmp_path: Path) -> None:
    main, head, (generator, mlm) = discriminator(config)
    save_model_dir(tmp_path / "model", encoder=main, head=head, generator=(generator, mlm), provenance=provenance)
    loaded = load_model_dir(tmp_path / "model")
    assert loaded.encoder.config == config
    same(loaded.encoder, main)
    same(loaded.rtd_head, head)
    assert loaded.generator is not None
    same(loaded.generator.encoder, generator)
    same(loaded.generator.mlm_head, mlm)
    assert (loaded.mlm_head, loaded.task_head, loaded.task, loaded.dropped) == (None, None, None, ())
    assert loaded.tokenizer().fingerprint == provenance.tokenizer.fingerprint
    assert (tmp_path / "model" / "README.md").read_text(encoding="utf-8").startswith("# A small model\n")
    assert all(parameter.requires_grad for parameter in loaded.encoder.parameters())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_modern_discriminators_main_weights_are_the_bare_encoder(
    modern: ModernConfig, provenance: Provenance, tmp_path: Path
) -> None:
    main, head, _ = discriminator(modern)
    save_model_dir(tmp_path / "model", encoder=main, head=head, provenance=provenance)
    assert all(name.startswith("model.") for name in load_file(tmp_path / "model" / "model.safetensors"))
    labels = json.loads((tmp_path / "model" / "discriminator" / "config.json").read_text())["id2label"]
    assert labels == {"0": "original", "1": "replaced"}


def test_a_masked_language_model_and_a_bare_encoder(config: EncoderConfig, provenance: Provenance, tmp_path: Path) -> None:
    torch.manual_seed(0)
    main, head = build_encoder(config), MlmHead(config)
    shaken(head)
    save_model_dir(tmp_path / "mlm", encoder=main, head=head, provenance=provenance)
    same(load_model_dir(tmp_path / "mlm").mlm_head, head)
    save_model_dir(tmp_path / "bare", encoder=main, provenance=provenance)
    bare = load_model_dir(tmp_path / "bare")
    same(bare.encoder, main)
    assert (bare.mlm_head, bare.rtd_head, bare.task_head) == (None, None, None)


@pytest.mark.parametrize("labels", [("no", "yes"), tuple(f"class {n}" for n in range(11)), ()])
def test_a_classifier_comes_back_with_its_task(
    config: EncoderConfig, labels: tuple[str, ...], provenance: Provenance, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    main, head = build_encoder(config), ClassificationHead(config, len(labels) or 3, dropout=0.25)
    shaken(head)
    task = {"type": "classify", "labels": list(labels)}
    save_model_dir(tmp_path / "m", encoder=main, head=head, labels=labels, task=task, provenance=provenance)
    loaded = load_model_dir(tmp_path / "m")
    assert loaded.task == task
    assert loaded.labels == (labels or ("LABEL_0", "LABEL_1", "LABEL_2"))
    assert loaded.task_head is not None
    assert loaded.task_head.dropout == 0.25
    for name, tensor in head.state_dict().items():
        torch.testing.assert_close(loaded.task_head.state_dict()[name], tensor, atol=1e-5, rtol=1e-5)


def test_saving_replaces_as_a_whole_and_a_failure_leaves_what_was(
    classic: ClassicConfig, provenance: Provenance, tmp_path: Path
) -> None:
    first, second = shaken(build_encoder(classic)), shaken(build_encoder(classic))
    assert isinstance(first, Encoder)
    assert isinstance(second, Encoder)
    save_model_dir(tmp_path / "m", encoder=first, provenance=provenance)

    def broken() -> str:
        raise RuntimeError("no card")

    with pytest.raises(RuntimeError, match="no card"):
        save_model_dir(tmp_path / "m", encoder=second, provenance=Provenance(tokenizer=provenance.tokenizer, card=broken))
    same(load_model_dir(tmp_path / "m").encoder, first)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    save_model_dir(tmp_path / "m", encoder=second, provenance=provenance)
    same(load_model_dir(tmp_path / "m").encoder, second)


# -- what is wrong with a directory -------------------------------------------------------------------------------------


@pytest.fixture
def saved(classic: ClassicConfig, provenance: Provenance, tmp_path: Path) -> Path:
    main, head, generator = discriminator(classic)
    save_model_dir(tmp_path / "m", encoder=main, head=head, generator=generator, provenance=provenance)
    return tmp_path / "m"


def test_every_damaged_file_is_named(saved: Path, tmp_path: Path) -> None:
    files = [path.relative_to(saved) for path in saved.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert Path("generator/model.safetensors") in files
    for name in files:
        for damage in (_flip, _truncate, Path.unlink):
            copy = tmp_path / "copy"
            shutil.copytree(saved, copy)
            damage(copy / name)
            with pytest.raises(ElectraError, match=rf"E-M20[01] .*{'config.json' if name.name == 'config.json' else name}"):
                load_model_dir(copy)
            shutil.rmtree(copy)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def _weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        tensors = load_file(path / "model.safetensors")
        change(tensors)
        save_file(tensors, path / "model.safetensors")

    return damage


def _to_pickle(path: Path) -> None:
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


BAD = {
    "E-M200": lambda path: (path / "config.json").unlink(),
    "E-M203.*pytorch_model.bin": _to_pickle,
    "E-M203.*none": lambda path: (path / "model.safetensors").unlink(),
    "E-M204.*model.safetensors": lambda path: (path / "model.safetensors").write_bytes(b"\xff" * 64),
    "E-M204.*config.json.*larger": lambda path: (path / "config.json").write_text(" " * (1 << 21)),
    "E-M204.*config.json.*object": lambda path: (path / "config.json").write_text("[]"),
    "E-M204.*config.json": lambda path: (path / "config.json").write_text("[" * 100_000),
    "E-M204.*generator": lambda path: (shutil.copy(path / "config.json", path / "generator" / "config.json"),
                                       shutil.copy(path / "model.safetensors", path / "generator" / "model.safetensors")),
    "E-M205.*layers": lambda path: _edit(path / "config.json", num_hidden_layers=10**9),
    "E-M205.*word_embeddings": lambda path: _edit(path / "config.json", vocab_size=10**12),
    "E-M210.*missing.*discriminator_predictions.dense.bias": _weights(lambda t: t.pop("discriminator_predictions.dense.bias")),
    "E-M210.*missing.*embeddings_project": _weights(lambda t: t.pop("electra.embeddings_project.weight")),
    "E-M210.*unexpected.*surplus": _weights(lambda t: t.update({"surplus.weight": torch.zeros(1)})),
    "E-M212": _weights(lambda t: t.update({"electra.encoder.layer.0.attention.self.key.bias": torch.zeros(())})),
    "E-M220": lambda path: _edit(path / "config.json", architectures=["Custom"], auto_map={"AutoModel": "code.Custom"}),
}  # fmt: skip


@pytest.mark.parametrize("expected", BAD)
def test_a_foreign_directory_is_checked_by_content(saved: Path, expected: str) -> None:
    (saved / "manifest.json").unlink()
    load_model_dir(saved)
    BAD[expected](saved)
    with pytest.raises(ElectraError, match=expected):
        load_model_dir(saved)


def test_a_newer_format_is_refused_by_name(saved: Path) -> None:
    _edit(saved / "manifest.json", format_version=2)
    with pytest.raises(ElectraError, match=r"E-M202 .* 2 is not known"):
        load_model_dir(saved)


def test_half_precision_weights_are_widened(saved: Path) -> None:
    (saved / "manifest.json").unlink()
    _weights(lambda t: t.update({name: tensor.half() for name, tensor in t.items()}))(saved)
    assert {parameter.dtype for parameter in load_model_dir(saved).encoder.parameters()} == {torch.float32}


# -- importing ----------------------------------------------------------------------------------------------------------


def foreign(path: Path, encoder: Encoder, provenance: Provenance, **heads: nn.Module) -> Path:
    """A directory as transformers writes it: no manifest, no generator beside it."""
    save_model_dir(path, encoder=encoder, provenance=provenance, **heads)  # type: ignore[arg-type]
    (path / "manifest.json").unlink()
    return path


@pytest.mark.parametrize("width", [0.25, 1.0], ids=["narrow generator", "full width, as the released Small"])
def test_a_pair_is_imported(classic: ClassicConfig, width: float, provenance: Provenance, tmp_path: Path) -> None:
    small = generator_config(classic, GeneratorConfig(width=width))
    main, generator, head, mlm = build_encoder(classic), build_encoder(small), RtdHead(classic), MlmHead(small)
    source = foreign(tmp_path / "discriminator", main, provenance, head=head)
    beside = foreign(tmp_path / "generator", generator, provenance, head=mlm)
    imported = import_model(source, tmp_path / "out", beside)
    same(imported.encoder, main)
    same(imported.rtd_head, head)
    assert imported.generator is not None
    assert imported.generator.encoder.hidden_size == round(16 * width)
    same(imported.generator.encoder, generator)
    same(imported.generator.mlm_head, mlm)
    assert (tmp_path / "out" / "manifest.json").is_file()
    same(load_model_dir(tmp_path / "out").encoder, main)


def test_what_cannot_be_imported(classic: ClassicConfig, tokenizer: Tokenizer, provenance: Provenance, tmp_path: Path) -> None:
    source = foreign(tmp_path / "d", build_encoder(classic), provenance, head=RtdHead(classic))
    with pytest.raises(ElectraError, match="E-C211"):
        import_model(source, source)
    for missing in ("hf://google/electra-small-discriminator", tmp_path / "nowhere"):
        with pytest.raises(ElectraError, match="E-C210"):
            import_model(missing, tmp_path / "out")
    with pytest.raises(ElectraError, match="E-M207"):
        import_model(source, tmp_path / "out", source)
    few = ClassicConfig(**{**{name: getattr(classic, name) for name in classic.__dataclass_fields__}, "vocab_size": 20})
    small = foreign(tmp_path / "few", build_encoder(few), provenance)
    with pytest.raises(ElectraError, match=f"E-M206.*{tokenizer.vocab_size}"):
        import_model(small, tmp_path / "out")
    narrow = foreign(tmp_path / "narrow", build_encoder(few), provenance, head=MlmHead(few))
    with pytest.raises(ElectraError, match=f"E-M206.*narrow.*{tokenizer.vocab_size}"):
        import_model(source, tmp_path / "out", narrow)
    assert not (tmp_path / "out").exists()
    padded = ClassicConfig(**{**{name: getattr(classic, name) for name in classic.__dataclass_fields__}, "vocab_size": 4096})
    assert import_model(foreign(tmp_path / "padded", build_encoder(padded), provenance), tmp_path / "out").encoder


class _Bilinear(nn.Module):
    """A head that no class of transformers has."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))


def test_a_head_without_a_class_is_kept_beside_a_bare_encoder(
    config: EncoderConfig, provenance: Provenance, tmp_path: Path
) -> None:
    main, head = build_encoder(config), _Bilinear()
    save_model_dir(tmp_path / "m", encoder=main, head=head, task={"type": "own"}, provenance=provenance)
    loaded = load_model_dir(tmp_path / "m")
    assert loaded.task_head is None
    assert loaded.own_head is not None
    assert torch.equal(loaded.own_head["weight"], head.weight)
    assert json.loads((tmp_path / "m" / "config.json").read_text())["architectures"][0].endswith("Model")
    again = import_model(tmp_path / "m", tmp_path / "again")
    assert again.own_head is not None
    assert again.task == {"type": "own"}
