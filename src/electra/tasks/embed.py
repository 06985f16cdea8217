"""Task `embed`: texts as vectors of length 1 whose product, the cosine, says how close their meanings are.

In: pairs of texts that belong together, each perhaps with a text that does not (triplets); or pairs with a number that says how
similar they are. Out: `{"embedding"}` of a text; of a pair also `pair_embedding` and `score`, the cosine.

The texts of an example are segments of one row, so that a batch has them side by side. What is learnt follows from the file:

    pairs, triplets   each text is to find its pair among the pairs and negatives of the whole batch: cross entropy over
                      scale * cosine (InfoNCE; Henderson et al., 2017, with one direction). A text that is known to belong to
                      another, or is the same, is none of its negatives.
    with a score      the order of the cosines is to be that of the scores: log(1 + sum of exp(scale * (cos_i - cos_j)) over
                      all i, j with score_i < score_j) (CoSENT; Su, 2022). Scores may have any scale: Spearman, too, sees
                      their order only.

Both compare the examples of a batch with each other, so a batch is not cut into micro-batches (`whole_batch`), and each of
several processes compares those of its own share.

Figures: of scored pairs, Spearman's and Pearson's correlation of cosine and score; of others, how well each text finds its pair
among all other texts of the second column and all negatives. Their records hold the vectors, 4 * 2 * D bytes an example.

Shapes: B examples, K texts of an example at most, D size of a vector, C candidates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from electra import metrics
from electra.config import STRICT, to_tree
from electra.contracts import Batch, Encoded, Example, Judgement, Losses, Prediction, Reading, Term
from electra.errors import ElectraError
from electra.models.heads import EmbedHead, Pooling
from electra.tasks.common import encode_text, side_by_side
from electra.tasks.readers import Columns, PairColumns, read_pairs, read_texts
from electra.tasks.readers.source import LabelledFile, kind_of
from electra.text.tokenizer import Tokenizer

#: the texts of an example, in the order of its segments
_TEXTS = ("text", "pair", "negative")
#: queries that are compared with all documents at once
_QUERIES = 256


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Settings of `embed`.

    Args:
        max_length: tokens of a text with specials; what does not fit is cut and counted.
        pooling: a text's vector is the `mean` over its tokens, or its first one (`cls`).
        scale: factor of the cosines in the loss, 1 / temperature.
        columns: where a file has its texts and scores.
    """

    __pydantic_config__ = STRICT
    type: Literal["embed"] = "embed"
    max_length: int = 128
    pooling: Pooling = "mean"
    scale: float = 20.0
    columns: PairColumns = field(default_factory=PairColumns)

    def __post_init__(self) -> None:
        if self.max_length < 8:
            raise ElectraError(
                "E-C301", "task.max_length", f"{self.max_length} tokens leave no room for a text", "give 8 or more"
            )
        if not 0 < self.scale < float("inf"):
            raise ElectraError("E-C336", "task.scale", f"is {self.scale}", "give a positive number; 20 is usual")

    def build(self, tokenizer: Tokenizer) -> Embed:
        return Embed(self, tokenizer)


class Embed:
    """`contracts.TrainableTask` for vectors of texts; see the module.

    Args:
        config: the settings.
        tokenizer: the encoder's.
    """

    def __init__(self, config: EmbedConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.max_length, self.pad_id = config.max_length, tokenizer.pad_id
        self.per_token, self.whole_batch = False, True

    @property
    def labels(self) -> tuple[str, ...]:
        """None: the outputs are vectors."""
        return ()

    def read(self, path: Path) -> Reading:
        """Pairs, triplets or scored pairs; or single texts, to be embedded: `.txt` without tabs, a table without a second text.

        The target of a pair without a score is True: that it belongs together is all that is known.

        Raises:
            ElectraError: E-D386 rows with a score among rows without; and as `readers.read_pairs`.
        """
        columns = self.config.columns
        file = LabelledFile(path, columns.encoding)
        if kind_of(file) == "lines" and "\t" not in next((line for _, line in file.lines()), ""):
            return read_texts(path, Columns(format="txt", encoding=columns.encoding))
        reading = read_pairs(path, columns)
        return Reading(examples=_alike(reading.examples), notes=reading.notes)

    def fit(self, examples: Sequence[Example]) -> Embed:
        """This task: it has nothing to learn from them before training.

        Raises:
            ElectraError: E-D385 a row without a second text, E-D386 rows with a score among rows without, E-D387 a score that
                is no number, E-D388 a negative that is the text or its pair, E-D389 only one score in all rows.
        """
        scores = set()
        for example in _alike(examples):
            where = example.where or "example"
            if example.pair is None:
                raise ElectraError("E-D385", where, "has no second text", "give pairs of texts that belong together")
            if example.given.get("negative") in (example.text, example.pair):
                raise ElectraError("E-D388", where, "the negative is the text itself or its pair", "mend or remove the row")
            scores.add(_score(example))
        if len(scores) == 1 and None not in scores and len(examples) > 1:
            raise ElectraError("E-D389", examples[0].where or "examples", f"every pair has the score {scores.pop():g}",
                               "give scores that differ, or pairs that belong together without a column of scores")  # fmt: skip
        return self

    def encode(self, example: Example) -> list[Encoded]:
        """The texts side by side. Targets of a row, []: `texts`; `score`, if there is one; the `keys` of its texts, int64."""
        texts = _texts(example)
        parts = [encode_text(self.tokenizer, Example(text=text), self.max_length) for text in texts]
        targets = {f"{name}_key": np.array(0, dtype=np.int64) for name in _TEXTS}
        targets |= {f"{name}_key": np.array(_key(text)) for name, text in zip(_TEXTS, texts, strict=False)}
        score = _score(example)
        return [side_by_side(parts, **targets, **({} if score is None else {"score": np.array(score, dtype=np.float32)}))]

    def head(self, encoder: nn.Module) -> EmbedHead:
        """(hidden, batch) -> vectors [B, K, D]; without parameters, so that it fits any encoder."""
        return EmbedHead(self.config.pooling)

    def loss(self, outputs: Tensor, batch: Batch) -> Losses:
        """CoSENT where the batch has scores, else InfoNCE; in fp32. The sum over examples is B times the loss of the batch.

        Args:
            outputs: float [B, K, D], of length 1.
            batch: with the targets of `encode`, and the count `examples`.
        """
        if "score" in batch.targets:
            cosine_B = (outputs[:, 0] * outputs[:, 1]).sum(dim=-1).float()
            total = len(cosine_B) * cosent(self.config.scale * cosine_B, batch.targets["score"])
            totals: dict[str, Tensor] = {}
        else:
            with torch.autocast(outputs.device.type, enabled=False):
                logits_BC = self.config.scale * _cosines(outputs.float(), batch)
            own_B = torch.arange(len(logits_BC), device=logits_BC.device)
            total = F.cross_entropy(logits_BC, own_B, reduction="sum")
            totals = {"accuracy": (logits_BC.detach().argmax(dim=-1) == own_B).sum()}
        totals |= {"examples": torch.tensor(len(outputs)), "loss": total.detach()}
        return Losses(terms={"embed": Term(total=total, unit="examples")}, totals=totals)

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        """The vectors of the example's texts, and the cosine of the first two."""
        vectors_KD = outputs[0].float()[: len(_texts(example))]
        names = ("embedding", "pair_embedding", "negative_embedding")
        output: dict[str, object] = dict(zip(names, vectors_KD.tolist(), strict=False))
        if len(vectors_KD) > 1:
            output["score"] = float(vectors_KD[0] @ vectors_KD[1])
        return Prediction(text=example.text, output=output)

    def judge(self, example: Example, prediction: Prediction) -> Judgement:
        """`values`: of a scored pair `cosine` and `gold`; of others the keys of the texts, whose `vectors` are kept, too."""
        gold = _score(example)
        if gold is not None:
            return Judgement(values={"cosine": cast(float, prediction.output["score"]), "gold": gold})
        keys = {name: float(_key(text)) for name, text in zip(_TEXTS, _texts(example), strict=False)}
        vectors = [value for name, value in prediction.output.items() if name.endswith("embedding")]
        return Judgement(values=keys, vectors=np.array(vectors, dtype=np.float32))

    def score(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """Of scored pairs spearman (main), pearson; of others ndcg_at_10 (main), mrr_at_10, recall_at_1, recall_at_10."""
        if "gold" in judgements[0].values:
            cosines, gold = ([judgement.values[name] for judgement in judgements] for name in ("cosine", "gold"))
            return {"spearman": metrics.spearman(cosines, gold), "pearson": metrics.pearson(cosines, gold)}
        ranks = _ranks(judgements)
        return {
            "ndcg_at_10": float(np.mean([metrics.ndcg(own, 10) for own in ranks])),
            "mrr_at_10": float(np.mean([metrics.reciprocal_rank(own, 10) for own in ranks])),
            "recall_at_1": float(np.mean([metrics.recall(own, 1) for own in ranks])),
            "recall_at_10": float(np.mean([metrics.recall(own, 10) for own in ranks])),
        }

    def tune(self, judgements: Sequence[Judgement]) -> Embed:
        """Nothing to choose."""
        return self

    def to_json(self) -> dict[str, object]:
        return to_tree(self.config)


# -- losses -------------------------------------------------------------------------------------------------------------


def cosent(scaled_B: Tensor, score_B: Tensor) -> Tensor:
    """log(1 + sum of exp(s_i - s_j) over all i, j with score_i < score_j), a scalar; 0 where no two scores differ.

    Args:
        scaled_B: scale * cosine of each pair.
        score_B: how similar they are.
    """
    wrong_BB = (scaled_B[:, None] - scaled_B[None, :]).masked_fill(score_B[:, None] >= score_B[None, :], float("-inf"))
    return torch.logsumexp(torch.cat([wrong_BB.new_zeros(1), wrong_BB.flatten()]), dim=0)


def _cosines(vectors_BKD: Tensor, batch: Batch) -> Tensor:
    """[B, C]: each text's cosine with the pairs of all examples, its own at [i, i], and with all negatives.

    -inf where a candidate is no wrong answer: it is the text or its pair again, or the pair of the same text elsewhere.
    """
    text_B, pair_B, negative_B = (batch.targets[f"{name}_key"] for name in _TEXTS)
    same_text_BB = text_B[:, None] == text_B[None, :]
    cosine_BB = vectors_BKD[:, 0] @ vectors_BKD[:, 1].T
    no_answer_BB = same_text_BB | (text_B[:, None] == pair_B) | (pair_B[:, None] == pair_B)
    cosine_BB = cosine_BB.masked_fill(no_answer_BB.fill_diagonal_(False), float("-inf"))
    if vectors_BKD.shape[1] == 2:
        return cosine_BB
    absent_B = batch.targets["texts"] < 3
    no_answer_BB = absent_B | (text_B[:, None] == negative_B) | (pair_B[:, None] == negative_B)
    harder_BB = (vectors_BKD[:, 0] @ vectors_BKD[:, 2].T).masked_fill(no_answer_BB, float("-inf"))
    return torch.cat([cosine_BB, harder_BB], dim=1)


# -- retrieval ----------------------------------------------------------------------------------------------------------


def _ranks(judgements: Sequence[Judgement]) -> list[list[int]]:
    """For each different text, the ranks of its pairs among all different pairs and negatives, itself left out."""
    queries, documents = dict[float, npt.NDArray[np.float32]](), dict[float, npt.NDArray[np.float32]]()
    relevant = dict[float, set[float]]()
    for judgement in judgements:
        assert judgement.vectors is not None
        (text, first), (pair, second), *rest = zip(judgement.values.values(), judgement.vectors, strict=True)
        queries.setdefault(text, first)
        documents.setdefault(pair, second)
        relevant.setdefault(text, set()).add(pair)
        for negative, vector in rest:
            documents.setdefault(negative, vector)
    places = {key: place for place, key in enumerate(documents)}
    query_QD, document_ND = np.stack(list(queries.values())), np.stack(list(documents.values()))
    wanted = [[places[key] for key in sorted(relevant[text])] for text in queries]
    itself = [places[key] if key in places and key not in relevant[key] else None for key in queries]
    ranks = []
    for begin in range(0, len(wanted), _QUERIES):
        scores_QN = query_QD[begin : begin + _QUERIES] @ document_ND.T
        for row, number in zip(scores_QN, range(begin, len(wanted)), strict=False):
            if (place := itself[number]) is not None:
                row[place] = -np.inf
            ranks.append(metrics.ranks(row, wanted[number]))
    return ranks


# -- examples -----------------------------------------------------------------------------------------------------------


def _texts(example: Example) -> list[str]:
    negative = example.given.get("negative")
    return [text for text in (example.text, example.pair, negative) if text is not None]


def _key(text: str) -> int:
    """A number that tells texts apart, exact as a float, too."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).digest())


def _alike(examples: Iterable[Example]) -> Iterator[Example]:
    """The examples, all with a score or all without; then their target is True, if they are pairs."""
    first: bool | None = None
    for example in examples:
        scored = _score(example) is not None
        first = scored if first is None else first
        if scored != first:
            raise ElectraError("E-D386", example.where or "example", f"has {'a' if scored else 'no'} score, unlike the first",
                               "give every row a score, or none")  # fmt: skip
        yield example if scored or example.pair is None else replace(example, target=True)


def _score(example: Example) -> float | None:
    """How similar the pair is; None where that is not said, or there is no pair."""
    if example.pair is None or example.target is None or example.target is True:
        return None
    try:
        score = float(example.target)  # type: ignore[arg-type]
        if not abs(score) < float("inf"):
            raise ValueError
    except (TypeError, ValueError):
        raise ElectraError("E-D387", example.where or "example", f"score {example.target!r:.80} is no finite number",
                           "mend the row, or set task.columns.score to the column of the scores") from None  # fmt: skip
    return score
