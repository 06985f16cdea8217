"""BLEU, chrF and ROUGE of sums are those of the packages; loops are found."""

from __future__ import annotations

import pytest

from electra.errors import ElectraError
from electra.tasks import overlap
from electra.tasks.answers import Pieces
from electra.tasks.overlap import Overlap, loops, require_packages

sacrebleu = pytest.importorskip("sacrebleu")

ENGLISH = [("The cat sat on a mat.", "The cat sat on the mat."), ("hello there", "Hello, world"), ("", "nothing was said"),
           ("a long sentence about the sea and the sky", "a long sentence on the sea and the sky above")]  # fmt: skip
CHINESE = [("我今天去北京。", "今天我去北京。"), ("他喜欢吃苹果", "他很喜欢吃 iPhone 15"), ("天气好", "天气很好")]


@pytest.mark.parametrize(("unit", "pairs", "tokenize"), [("words", ENGLISH, "13a"), ("characters", CHINESE, "zh")])
def test_bleu_and_chrf_of_a_set_are_sacrebleus(unit: Pieces, pairs: list[tuple[str, str]], tokenize: str) -> None:
    kind = Overlap(unit, lowercase=False)
    found = kind.scores([kind.counts(output, reference) for output, reference in pairs])
    outputs, references = [output for output, _ in pairs], [[reference for _, reference in pairs]]
    bleu = sacrebleu.corpus_bleu(outputs, references, tokenize=tokenize, force=True)
    assert found["bleu"] == pytest.approx(bleu.score)
    assert found["length_ratio"] == pytest.approx(bleu.sys_len / bleu.ref_len)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(outputs, references).score)
    for output, reference in pairs:
        counts = kind.counts(output, reference)
        own = sacrebleu.sentence_bleu(output, [reference], tokenize=tokenize).score
        assert kind.of_one(counts, "bleu") == pytest.approx(own / 100)
        assert kind.of_one(counts, "chrf") == pytest.approx(sacrebleu.sentence_chrf(output, [reference]).score / 100)


def test_rouge_is_that_of_words_or_characters() -> None:
    words = Overlap("words", lowercase=False).counts("the cat sat", "the cat sat down")
    assert (words["rouge1"], words["rouge2"], words["rougeL"]) == pytest.approx((6 / 7, 4 / 5, 6 / 7))
    characters = Overlap("characters", lowercase=False).counts("我去北京 now", "我不去北京 now")
    assert (characters["rouge1"], characters["rouge2"]) == pytest.approx((10 / 11, 2 * 3 / 9))


def test_capital_letters_count_unless_they_are_not_known() -> None:
    for lowercase, score in ((False, 0.0), (True, 1.0)):
        kind = Overlap("words", lowercase)
        assert kind.of_one(kind.counts("one two three four", "ONE TWO THREE FOUR"), "chrf") == pytest.approx(score)


@pytest.mark.parametrize(
    ("tokens", "found"),
    [([], False), ([1] * 4, False), ([1] * 5, True), ([1, 2] * 2, False), ([9, 1, 2, 1, 2, 1, 2, 8], True),
     ([1, 2, 3, 4] * 3, True), ([1, 2, 3, 1, 2, 4, 1, 2, 3], False), (list(range(30)), False)],
)  # fmt: skip
def test_loops(tokens: list[int], found: bool) -> None:
    assert loops(tokens) is found


def test_without_the_packages_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    require_packages()
    monkeypatch.setattr(overlap, "_PACKAGES", {"no_such_module": "no-such-package"})
    with pytest.raises(ElectraError, match=r"E-R610 .*no-such-package.*electra-toolkit\[text\]"):
        require_packages()
