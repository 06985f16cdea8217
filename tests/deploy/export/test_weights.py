"""Exports with weights: transformers and sentence-transformers load them, and `electra import` brings them back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from electra.contracts import Prediction
from electra.deploy.export import Quality, export_model
from electra.errors import ElectraError
from electra.models.importing import import_model
from electra.models.model_dir import load_model_dir
from electra.predict.predictor import load
from electra.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

Model = Callable[[str, str], Path]
Same = Callable[[Sequence[Prediction], Sequence[Prediction]], None]


@pytest.mark.parametrize("family", ["classic", "modern"])
@torch.no_grad()
def test_both_halves_load_in_transformers_and_come_back(
    family: str, model: Model, texts: list[str], same: Same, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    source, out = model(family, "replaced"), tmp_path / "out"
    assert export_model(source, out, "huggingface").left_out == ()
    given = transformers.AutoTokenizer.from_pretrained(out / "generator")(texts[2], return_tensors="pt")
    assert given["input_ids"][0].tolist() == tokenizer.encode(texts[2]).ids
    if family == "classic":
        logits = transformers.AutoModelForPreTraining.from_pretrained(out)(**given).logits[0]
    else:
        found = transformers.AutoModelForTokenClassification.from_pretrained(out / "discriminator")(**_of(given)).logits[0]
        logits = found[:, 1] - found[:, 0]
    ours = [token["score"] for token in _tokens(load(source, "replaced").predict([texts[2]]))]
    torch.testing.assert_close(logits.sigmoid()[1:-1], torch.tensor(ours), atol=1e-5, rtol=1e-4)
    generator = transformers.AutoModelForMaskedLM.from_pretrained(out / "generator")
    likely = generator(**(given if family == "classic" else _of(given))).logits[0].softmax(-1)
    [[best, *_]] = _masks(load(source, "fill-mask").predict([texts[2]]))
    place = given["input_ids"][0].tolist().index(tokenizer.mask_id)
    assert best["score"] == pytest.approx(float(likely[place].max()), abs=1e-5)
    import_model(out, tmp_path / "back")
    for task in ("replaced", "fill-mask"):
        same(load(source, task).predict(texts), load(tmp_path / "back", task).predict(texts))


def _of(given: Any) -> dict[str, torch.Tensor]:
    """Without types, which ModernBERT does not take."""
    return {name: given[name] for name in ("input_ids", "attention_mask")}


def _tokens(predictions: Sequence[Prediction]) -> Any:
    return predictions[0].output["tokens"]


def _masks(predictions: Sequence[Prediction]) -> Any:
    return predictions[0].output["masks"]


def test_a_classifier_runs_in_a_pipeline_and_comes_back_with_its_task(
    model: Model, texts: list[str], same: Same, tmp_path: Path
) -> None:
    source, out = model("classic", "classify"), tmp_path / "out"
    export_model(source, out, "huggingface")
    pipeline = transformers.pipeline("text-classification", model=str(out), device="cpu")
    plain = [text for text in texts if "[MASK]" not in text]  # which is text here, and a token there
    for ours, theirs in zip(load(source).predict(plain), pipeline(plain), strict=True):
        assert (ours.output["label"], ours.output["score"]) == (theirs["label"], pytest.approx(theirs["score"], abs=1e-5))
    import_model(out, tmp_path / "back")
    same(load(source).predict(texts), load(tmp_path / "back").predict(texts))


@pytest.mark.parametrize(("family", "name"), [("classic", "embed by cls"), ("modern", "replaced")])
def test_sentence_transformers_gives_our_vectors_and_they_come_back(
    family: str, name: str, model: Model, texts: list[str], same: Same, tmp_path: Path
) -> None:
    library = pytest.importorskip("sentence_transformers")
    source, out = model(family, name), tmp_path / "out"
    found = export_model(source, out, "sentence-transformers")
    assert set(found.left_out) == ({"generator", "discriminator"} if name == "replaced" else set())
    plain = [text for text in texts if "[MASK]" not in text]  # which is text here, and a token there
    ours = load(source, "embed").predict(plain)
    vectors = library.SentenceTransformer(str(out), device="cpu").encode(plain)
    expected = torch.tensor([one.output["embedding"] for one in ours])
    torch.testing.assert_close(torch.from_numpy(vectors), expected, atol=1e-5, rtol=1e-4)
    import_model(out, tmp_path / "back")
    assert (load_model_dir(tmp_path / "back").task or {})["type"] == "embed"
    same(ours, load(tmp_path / "back").predict(plain))


REFUSED: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "E-C713 .*no head like that": ("classic", "relation", "huggingface", {}),
    "E-C713 .*no encoder, a convolution": ("recurrent", "classify", "huggingface", {}),
    "E-C713 .*fine-tuned for classify": ("classic", "classify", "sentence-transformers", {}),
    "E-C713 .*LSTM": ("recurrent", "embed", "sentence-transformers", {}),
    "E-C712 --task: huggingface": ("classic", "classify", "huggingface", {"task": "embed"}),
    "E-C712 --task: sentence": ("classic", "embed", "sentence-transformers", {"task": "replaced"}),
    "E-C712 --quantize": ("classic", "classify", "huggingface", {"int8": Quality(data=Path("dev.tsv"))}),
}


@pytest.mark.parametrize("expected", REFUSED)
def test_what_a_package_has_no_class_for_is_refused(expected: str, model: Model, tmp_path: Path) -> None:
    family, name, target, options = REFUSED[expected]
    with pytest.raises(ElectraError, match=expected):
        export_model(model(family, name), tmp_path / "out", target, **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    with pytest.raises(ElectraError, match="E-C211"):
        export_model(model(family, name), tmp_path / "out", "huggingface")
