"""Real or fake: two versions of a text that differ in words alone, the loss by hand, other fakes, the exported detector."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import electra
from electra.build.networks import read_fingerprints
from electra.contracts import Batch, Noise, Padded
from electra.errors import ElectraError, Preempted
from electra.models.encoder import GeneratorConfig
from electra.models.model_dir import load_model_dir
from electra.objectives.detection import corrupt
from electra.objectives.fakes import FakeCorpus, Piece, Shown, ThroughText, common_length
from electra.objectives.networks import Networks
from electra.objectives.real_or_fake import RealOrFake, RealOrFakeConfig
from electra.text import build as corpora
from electra.text.tokenizer import SPECIAL_TOKENS, Tokenizer, complete, load, wordpiece
from electra.train.checkpoint import Checkpoints, own_tensors
from electra.train.loop import Training, train
from electra.train.machine import StopFlag

Build = Callable[..., Training]
FAKES = ("phases.rtd.objective.type=real-or-fake", "phases.rtd.objective.masking.rate=0.5",
         "phases.rtd.objective.masking.mask_token_rate=1.0", "loop.log_steps=1")  # fmt: skip
CLASSIC = ("rows={type='packed',length=32}", "encoder.hidden_dropout_prob=0.0", "encoder.attention_probs_dropout_prob=0.0")
RECURRENT = "encoder={type='recurrent',embedding_size=16,hidden_size=32,hidden_dropout_prob=0.0}"


@pytest.fixture(params=["classic", "modern", "recurrent"])
def training(request: pytest.FixtureRequest, training_of: Build) -> Training:
    own = {"classic": CLASSIC, "modern": (), "recurrent": (RECURRENT,)}[request.param]
    return training_of(f"test-{'classic' if request.param == 'classic' else 'modern'}", *FAKES, *own)


def first(training: Training) -> tuple[RealOrFake, Batch, Noise]:
    [(batch, noise)] = training.loader.micro_batches(0, 0, 1)
    assert isinstance(training.objective, RealOrFake)
    training.objective.eval()  # the head has dropout
    return training.objective, batch, noise


def other_words(objective: RealOrFake, batch: Batch) -> Tensor:
    """Every drawn token becomes the next one of the vocabulary, specials left out."""
    original = batch.tokens.view(-1)[batch.targets["drawn"].view(-1)]
    return corrupt(batch, (original + 1).clamp(min=5, max=objective.detector.encoder.config.vocab_size - 1)).tokens


# -- two versions -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    words = [*SPECIAL_TOKENS, "play", "##ing", "playing", "the", "un", "##able", "."]
    return complete(wordpiece({word: number for number, word in enumerate(words)}, True, True), "here")


def test_tokens_that_no_tokenizer_would_write_become_those_it_does(tokenizer: Tokenizer) -> None:
    ids = {tokenizer.token_text(number): number for number in range(tokenizer.vocab_size)}

    def of(*words: str) -> npt.NDArray[np.int64]:
        return np.array([ids[word] for word in words], dtype=np.int64)

    found = ThroughText(tokenizer)([of("play", "##ing", "the"), of("##ing", "the", "un", "##able", "."), of("##ing")])
    assert [text.tolist() for text in found] == [
        of("playing", "the").tolist(), of("the", "un", "##able", ".").tolist(), []
    ]  # fmt: skip
    assert common_length(of("the", "."), of("play", "."), 9) == 2
    assert (
        common_length(
            of("the", "."),
            of(
                "play",
            ),
            9,
        )
        == 0
    ), "where lengths differ neither keeps its end"


def test_real_text_is_what_its_tokenizer_wrote(training: Training) -> None:
    """Whole words of a corpus come back as they are, so both versions look as a predicted text does."""
    objective, _, _ = first(training)
    tokenizer = objective.provenance.tokenizer
    ids = tokenizer.encode_documents(["the reader opens a heavy letter before breakfast."])[0].ids
    [again] = ThroughText(tokenizer)([np.array(ids)])
    assert again.tolist() == ids


class Coin(Noise):
    """The noise of a batch, with every coin showing one side."""

    def __init__(self, noise: Noise, side: float) -> None:
        super().__init__(noise.row_keys)
        self.side = side

    def uniform(self, name: str, width: int) -> npt.NDArray[np.float32]:
        drawn = super().uniform(name, width)
        return np.full_like(drawn, self.side) if name == "fake" else drawn


def shapes(shown: list[Shown]) -> list[tuple[int, int]]:
    return [(text.row, len(text.text.tokens)) for text in shown]


def test_whichever_version_is_shown_its_shape_is_the_same(training: Training) -> None:
    objective, batch, noise = first(training)
    tampered = other_words(objective, batch)
    real, pieces = objective.exhibition(batch, tampered, Coin(noise, 0.9))
    fake, _ = objective.exhibition(batch, tampered, Coin(noise, 0.1))
    assert {text.label for text in real} == {0}
    assert {text.label for text in fake} == {1}
    assert shapes(real) == shapes(fake)
    assert 8 <= len(real) <= pieces
    tokenizer = objective.provenance.tokenizer
    for own, other in zip(real, fake, strict=True):
        assert own.text.tokens.tolist() != other.text.tokens.tolist()
        for tokens in (own.text.tokens, other.text.tokens):
            assert (tokens[0], tokens[-1]) == (tokenizer.cls_id, tokenizer.sep_id)


def test_the_layout_changes_nothing(training: Training) -> None:
    objective, batch, noise = first(training)
    [(packed, _)] = dataclasses.replace(training.loader, packed=True).micro_batches(0, 0, 1)  # type: ignore[type-var]
    assert isinstance(batch.layout, Padded)
    one, count = objective.exhibition(batch, other_words(objective, batch), noise)
    two, again = objective.exhibition(packed, other_words(objective, packed), noise)
    assert (count, len(one)) == (again, len(two))
    for left, right in zip(one, two, strict=True):
        assert (left.row, left.label, left.text.tokens.tolist()) == (right.row, right.label, right.text.tokens.tolist())
    phase = objective.phases(0, 1)[0]
    padded, flat = (objective(given, noise, phase).terms for given in (batch, packed))
    torch.testing.assert_close(padded["detector"].total, flat["detector"].total, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded["mlm"].total, flat["mlm"].total, rtol=1e-4, atol=1e-5)


# -- the loss -----------------------------------------------------------------------------------------------------------


def test_the_term_is_the_cross_entropy_of_the_shown_texts_each_by_itself(training: Training) -> None:
    objective, batch, noise = first(training)
    seen = list[tuple[list[Shown], int]]()
    call = objective.exhibition
    objective.exhibition = lambda *given: seen.append(call(*given)) or seen[-1]  # type: ignore[assignment, func-returns-value]
    losses = objective(batch, noise, objective.phases(0, 1)[0])
    [(shown, pieces)] = seen
    expected = torch.zeros(())
    for text in shown:
        tokens = torch.from_numpy(text.text.tokens)[None]
        layout = Padded(segments=torch.zeros_like(tokens), whole=True)
        alone = Batch(tokens=tokens, positions=torch.arange(tokens.shape[1])[None], types=tokens * 0, layout=layout)
        hidden = objective.detector.encoder(alone.tokens, alone.positions, alone.types, layout)
        expected = expected + F.cross_entropy(objective.detector.head(hidden, alone), torch.tensor([text.label]))
    torch.testing.assert_close(losses.terms["detector"].total, expected, rtol=1e-4, atol=1e-5)
    assert (losses.terms["detector"].unit, losses.terms["mlm"].unit) == ("rows", "drawn")
    assert losses.terms["mlm"].weight == pytest.approx(2 / 1.2)
    figures = objective.summarise(losses.totals)
    assert figures["detector_loss"] == pytest.approx(float(expected.detach()) / len(shown), rel=1e-4)
    assert figures["left_out"] == pytest.approx(1 - len(shown) / pieces)
    assert figures["fake_share"] == pytest.approx(sum(text.label for text in shown) / len(shown))
    assert 0 < float(losses.totals["mlm_drawn"]) < batch.counts["drawn"], "a part of the drawn positions is filled"
    assert int(objective.longest) == max(len(text.text.tokens) for text in shown)


def test_micro_batches_change_nothing(training: Training) -> None:
    objective, batch, noise = first(training)
    phase = objective.phases(0, 1)[0]
    whole = objective(batch, noise, phase)
    parts = [objective(*part, phase) for part in dataclasses.replace(training.loader, micro_rows=3).micro_batches(0, 0, 1)]  # type: ignore[type-var]
    assert len(parts) == 3
    for name, term in whole.terms.items():
        together = sum(float(part.terms[name].total.detach()) for part in parts)
        assert together == pytest.approx(float(term.total.detach()), rel=1e-4)
    assert sum(part.totals["texts"] for part in parts).tolist() == whole.totals["texts"].tolist()  # type: ignore[union-attr]


def test_a_batch_without_a_text_to_show_has_the_loss_0(training: Training) -> None:
    objective, batch, noise = first(training)
    nothing = dict(batch.targets) | {"drawn_weight": torch.zeros_like(batch.targets["drawn_weight"])}
    losses = objective(dataclasses.replace(batch, targets=nothing), noise, objective.phases(0, 1)[0])
    losses.terms["detector"].total.backward()  # type: ignore[no-untyped-call]
    assert float(losses.terms["detector"].total.detach()) == 0.0
    assert objective.summarise(losses.totals) == {"loss": 0.0}


def test_a_resumed_run_equals_an_uninterrupted_one(training_of: Build, tmp_path: Path) -> None:
    def fresh() -> Training:
        training = training_of("test-modern", *FAKES, RECURRENT, steps=4)
        training.checkpoints = Checkpoints(tmp_path, keep=1)
        return training

    whole, begun, resumed, stop = fresh(), fresh(), fresh(), StopFlag()
    train(whole, None, StopFlag())
    calls = iter(range(9))

    def ask(*given: object) -> None:
        stop.requested = next(calls) == 1

    begun.module.register_forward_hook(ask)
    with pytest.raises(Preempted):
        train(begun, None, stop)
    assert resumed.checkpoints is not None
    found = resumed.checkpoints.newest_state(pytest.fail)
    assert found is not None
    assert found[1].step == 2
    resumed.checkpoints.load(found[0], resumed.module, resumed.optimizers)
    train(resumed, found[1], StopFlag())
    left, right = own_tensors(whole.module), own_tensors(resumed.module)
    assert left.keys() == right.keys()
    assert "longest" in left
    assert all(torch.equal(left[name], right[name]) for name in left)


# -- fakes from elsewhere -----------------------------------------------------------------------------------------------


def piece(size: int, opens: bool, closes: bool) -> Piece:
    return Piece(begin=0, end=size + 2, place=0, opens=opens, closes=closes)


def test_fakes_of_a_corpus_match_in_length_and_place(tmp_path: Path, tokenizer_dir: Path) -> None:
    tokenizer = load(tokenizer_dir)
    texts = ["the reader opens a letter", "the captain crosses the narrow bridge near the station", "a student"]
    (tmp_path / "fakes.txt").write_text("\n\n".join(texts), encoding="utf-8")
    corpora.build([tmp_path / "fakes.txt"], tokenizer, tmp_path / "fakes")
    fakes = FakeCorpus(tmp_path / "fakes", tokenizer)
    ids = {tuple(encoding.ids) for encoding in tokenizer.encode_documents(texts)}
    longest = max(ids, key=len)
    for text in ids:
        whole = fakes.matching(piece(len(text), True, True), 0.3, 0.3)
        assert whole is not None
        assert tuple(whole.tolist()) in {each for each in ids if len(each) == len(text)}
    size = len(longest) - 2
    places = {(True, False): longest[:size], (False, True): longest[-size:], (False, False): longest[1 : 1 + size]}
    for (opens, closes), expected in places.items():
        found = fakes.matching(piece(size, opens, closes), 0.999, 0.5)
        assert found is not None
        assert tuple(found.tolist()) == expected
    assert fakes.matching(piece(len(longest) + 1, False, False), 0.0, 0.0) is None
    assert fakes.matching(piece(size, True, True), 0.0, 0.0) is None, "no whole fake of this length"


def test_fakes_of_a_corpus_are_shown_and_counted(training_of: Build, corpus_dir: Path, tokenizer: Tokenizer) -> None:
    """The real corpus as its own fakes: every piece finds a match, none of them is tampered with."""
    own = (f"phases.rtd.objective.fakes={corpus_dir}", "phases.rtd.objective.fakes_share=1.0")
    objective, batch, noise = first(training_of("test-modern", *FAKES, *own))
    shown, _ = objective.exhibition(batch, batch.tokens, noise)
    assert shown
    assert all(text.from_corpus for text in shown), "what was not tampered with has no second version"
    with pytest.raises(ElectraError, match="E-D540"):
        FakeCorpus(corpus_dir, tokenizer)


def test_a_frozen_generator_is_not_trained(training_of: Build, tmp_path: Path) -> None:
    source = training_of("test-modern", *FAKES)
    assert isinstance(source.objective, RealOrFake)
    source.objective.export(tmp_path / "model")
    frozen = (f"phases.rtd.objective.frozen={tmp_path / 'model'}",)
    t = training_of("test-modern", *FAKES, *frozen, steps=2)
    assert list(t.objective.networks) == ["detector"]
    before = {name: tensor.clone() for name, tensor in own_tensors(t.module).items()}
    train(t, None, StopFlag())
    moved = {name.split(".")[0] for name, tensor in own_tensors(t.module).items() if not torch.equal(tensor, before[name])}
    assert moved == {"detector", "longest"}
    assert isinstance(t.objective, RealOrFake)
    assert not t.objective.generator.training
    t.objective.export(tmp_path / "detector")
    with pytest.raises(ElectraError, match="E-M510"):
        training_of("test-modern", *FAKES, f"phases.rtd.objective.frozen={tmp_path / 'detector'}")


def test_a_frozen_generator_has_room_for_the_rows(training_of: Build, tmp_path: Path) -> None:
    short = ("phases.rtd.objective.type=mlm", "encoder.max_position_embeddings=40", *CLASSIC)
    training_of("test-classic", *short).objective.export(tmp_path / "model")
    given = (*FAKES, *CLASSIC, f"phases.rtd.objective.frozen={tmp_path / 'model'}")
    with pytest.raises(ElectraError, match=r"E-M511.*encoder.max_position_embeddings=40"):
        training_of("test-classic", *given)


def test_other_fakes_are_another_run(tokenizer_dir: Path, tmp_path: Path) -> None:
    """What is compared when a run is resumed changes with the corpus of fakes."""
    found = []
    for number, text in enumerate(["the reader opens a letter", "a student opens a gate"]):
        (tmp_path / "fakes.txt").write_text(text, encoding="utf-8")
        corpora.build([tmp_path / "fakes.txt"], load(tokenizer_dir), tmp_path / f"fakes{number}")
        found.append(read_fingerprints({"rtd": RealOrFakeConfig(fakes=tmp_path / f"fakes{number}")}))
    assert found[0].keys() == found[1].keys() == {"fakes of rtd"}
    assert found[0] != found[1]


# -- the detector -------------------------------------------------------------------------------------------------------


def test_the_exported_detector_answers(training: Training, tmp_path: Path) -> None:
    objective, batch, noise = first(training)
    objective(batch, noise, objective.phases(0, 1)[0])
    objective.export(tmp_path / "model")
    found = electra.load(tmp_path / "model").predict(["the reader opens the wooden gate", ""])
    assert {str(prediction.output["label"]) for prediction in found} <= {"real", "fake"}
    assert all(0.5 <= float(str(prediction.output["score"])) <= 1 for prediction in found)


def test_a_detector_is_trained_further(training: Training, tmp_path: Path) -> None:
    """Its encoder, its head and the generator beside it are where a run that starts from it begins."""
    objective, _, _ = first(training)
    objective.export(tmp_path / "model")
    source = load_model_dir(tmp_path / "model")
    sizes = GeneratorConfig(width=0.5) if source.encoder.config.type == "classic" else GeneratorConfig(layers=1)
    networks = Networks(encoder=source.encoder.config, generator=sizes, source=source, init_generator="fresh",
                        provenance=objective.provenance)  # fmt: skip
    again = RealOrFakeConfig().build(networks)
    for ours, theirs in ((again.detector, objective.detector), (again.generator, objective.generator)):
        for name, tensor in ours.state_dict().items():
            torch.testing.assert_close(tensor, theirs.state_dict()[name], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("change", ["least_share=1.5", "temperature=0", "fakes_share=0.5"])
def test_settings_that_make_no_sense_are_refused(training_of: Build, change: str) -> None:
    with pytest.raises(ElectraError, match="E-C541"):
        training_of("test-modern", *FAKES, f"phases.rtd.objective.{change}")
