"""Lists of candidates: their order, weights, ties, what is wrong with a line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from electra.contracts import Batch
from electra.errors import ElectraError
from electra.predict.predictor import Predictor
from electra.predict.rerank import read_nbest, rerank
from electra.tasks.score import ScoreConfig
from electra.text.train_tokenizer import train as train_tokenizer

TOKENIZER = train_tokenizer(["a b c"] * 3, vocab_size=80)


class MinusId(nn.Module):
    """The score of a token is minus its number in the alphabet."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, batch: Batch) -> Tensor:
        return -(batch.tokens - TOKENIZER.encode("a").ids[1]).float()


PREDICTOR = Predictor(MinusId(), ScoreConfig().build(TOKENIZER))


def written(folder: Path, *lines: object) -> Path:
    path = folder / "nbest.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def test_candidates_come_best_first_with_their_scores(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"candidates": []},
        {"id": 7, "candidates": ["b c", "a", {"text": "b", "score": -9, "source": "x"}, "b"]},
        {"candidates": []},
        {"candidates": []},
        {"candidates": ["c"], "reference": "c"},
        {"candidates": []},
    )
    first, found, *empty, one, last = rerank(PREDICTOR, read_nbest(path))
    assert first == last == empty[0] == empty[1] == {"candidates": []}
    assert [candidate["text"] for candidate in found["candidates"]] == ["a", "b", "b", "b c"]
    assert [candidate["total"] for candidate in found["candidates"]] == [0.0, -1.0, -1.0, -3.0]
    assert found["candidates"][1] == {"text": "b", "score": -9, "source": "x", "model_score": -1.0, "total": -1.0}
    assert found["id"] == 7
    assert one == {"candidates": [{"text": "c", "model_score": -2.0, "total": -2.0}], "reference": "c"}


def test_own_scores_count_by_their_weight(tmp_path: Path) -> None:
    path = written(tmp_path, {"candidates": [{"text": "a", "score": -4}, {"text": "c", "score": -1.0}]})
    order = {
        weight: [candidate["text"] for candidate in next(rerank(PREDICTOR, read_nbest(path, True), weight))["candidates"]]
        for weight in (0.0, 0.5, 1.0)
    }
    assert order == {0.0: ["a", "c"], 0.5: ["a", "c"], 1.0: ["c", "a"]}


@pytest.mark.parametrize(
    ("line", "weighted", "code"),
    [
        ("{", False, "E-D306"),
        ("[]", False, "E-D306"),
        ("{}", False, "E-D570"),
        ('{"candidates": "a"}', False, "E-D570"),
        ('{"candidates": ["a", 3]}', False, "E-D570"),
        ('{"candidates": [{"texts": "a"}]}', False, "E-D570"),
        ('{"candidates": ["a"]}', True, "E-D571"),
        ('{"candidates": [{"text": "a", "score": "1"}]}', True, "E-D571"),
        ('{"candidates": [{"text": "a", "score": true}]}', True, "E-D571"),
        ('{"candidates": [{"text": "a", "score": NaN}]}', True, "E-D571"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, weighted: bool, code: str) -> None:
    path = tmp_path / "nbest.jsonl"
    path.write_text(f'{{"candidates": []}}\n{line}\n', encoding="utf-8")
    with pytest.raises(ElectraError, match=f"{code} .*nbest.jsonl:2"):
        list(read_nbest(path, weighted))
