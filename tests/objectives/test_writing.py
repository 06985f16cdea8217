"""What is learnt from the grammar is written: a causal model ends sentences by the rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from electra.models.decoding_config import DecodingConfig
from electra.predict.writer import load_writer

if TYPE_CHECKING:
    from electra.train.loop import Training


class Grammar(Protocol):
    """The fixture: `corpus` is a directory."""

    corpus: Path


TrainOn = Callable[..., "tuple[Training, dict[str, float]]"]


def test_a_causal_model_writes_the_sentence_that_a_noun_begins(grammar: Grammar, train_on: TrainOn, tmp_path: Path) -> None:
    training, _ = train_on(grammar.corpus, "modern", "objective.type=causal", steps=120)
    training.objective.export(tmp_path / "m")
    drafts = load_writer(tmp_path / "m").write(
        [f"the noun{kind}" for kind in range(8)], DecodingConfig(max_new_tokens=20), ["."]
    )
    assert [draft.text for [draft] in drafts] == [f" verb{kind} the object{kind}" for kind in range(8)]
    assert {draft.ended for [draft] in drafts} == {"stop"}
