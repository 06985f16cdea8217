"""Task `generate`: a text is written from a text: translation, summary, title, question, paraphrase, correction.

In: a source and its target a row. Out: `{"generated_text"}`, with how likely it is and why it ended. The encoder reads,
a decoder that attends to it writes (`models/generation.py`); what the decoder is like and starts from, `models/warm_start.py`.

A source is one row. One that is longer than `max_length` tokens is read in windows (`cut_windows`), segments of that row, and
the decoder attends to the states of all, each token's once, from the window that shows most around it (fusion in the decoder,
Izacard & Grave, 2021). What `max_windows` of them do not show is cut and counted.

A target is learnt up to `target_length` tokens; one that is longer is learnt
without its end, so that nothing false is taught, and counted. The loss is the mean cross entropy of a token of the targets, the
end included. Training sees the right tokens before each (teacher forcing); evaluation writes on its own.

Figures are of whole texts (`overlap.py`), with how long the outputs are, how many hit the limit, and how many repeat themselves
where the reference does not. Where the tokenizer knows small letters only, capitals do not count.

Shapes: B examples, T target tokens, R outputs of a source, M tokens of an output.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from electra.config import STRICT, to_tree
from electra.contracts import Batch, Encoded, Example, Judgement, Losses, Prediction, Reading, Term
from electra.errors import ElectraError
from electra.models.classic import ClassicEncoder
from electra.models.decoder import Decoder
from electra.models.decoding import Hypothesis
from electra.models.decoding_config import DecodingConfig
from electra.models.encoder import build_encoder
from electra.models.generation import GenerationHead, signs_of, unpacked
from electra.models.heads import MlmHead
from electra.models.model_dir import ModelDir
from electra.models.modern import ModernEncoder
from electra.models.warm_start import DecoderConfig
from electra.tasks.answers import Pieces, written_in
from electra.tasks.common import cut_windows, encode_text, shown_by, side_by_side
from electra.tasks.overlap import Overlap, loops, require_packages
from electra.tasks.readers import TargetColumns, read_targets
from electra.tasks.readers.reading import Mended
from electra.text.tokenizer import Tokenizer
from electra.text.tokenizer import load as load_tokenizer

Metric = Literal["chrf", "bleu", "rouge1", "rouge2", "rougeL", "exact_match"]


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Settings of `generate`.

    Args:
        max_length: tokens of a window of a source, specials included.
        max_windows: windows of a source; what they do not show is cut and counted.
        target_length: tokens of a target that are learnt, its end included.
        target_tokenizer: the tokenizer of targets and outputs, its directory or that of a model; None = that of `init.from`.
            Fine-tuning puts it into the model directory, whose task.json names none.
        label_smoothing: share of the loss that is its mean over the vocabulary.
        metric: the main metric.
        unit: what BLEU and ROUGE compare; None = what most training targets are written in.
        decoder: what the decoder is like, and starts from.
        decoding: how outputs are written, in evaluation and prediction.
        columns: where a file has sources and targets.
    """

    __pydantic_config__ = STRICT
    type: Literal["generate"] = "generate"
    max_length: int = 128
    max_windows: int = 8
    target_length: int = 64
    target_tokenizer: Path | None = None
    label_smoothing: float = 0.0
    metric: Metric = "chrf"
    unit: Pieces | None = None
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    columns: TargetColumns = field(default_factory=TargetColumns)

    def __post_init__(self) -> None:
        if self.max_length < 8:
            raise ElectraError(
                "E-C301", "task.max_length", f"{self.max_length} tokens leave no room for a text", "give 8 or more"
            )
        if self.max_windows < 1:
            raise ElectraError("E-C881", "task.max_windows", f"is {self.max_windows}", "give 1 or more; 1 cuts long sources")
        if self.target_length < 2:
            raise ElectraError("E-C612", "task.target_length", f"{self.target_length} leaves no room for a token and the end",
                               "give 2 or more")  # fmt: skip
        if not 0 <= self.label_smoothing < 1:
            raise ElectraError(
                "E-C613", "task.label_smoothing", f"{self.label_smoothing} is not a share below 1", "0.1 is usual"
            )

    def build(self, tokenizer: Tokenizer) -> Generate:
        return Generate(self, tokenizer)


class Generate:
    """`contracts.TrainableTask` for writing texts; see the module.

    Args:
        config: the settings.
        tokenizer: the encoder's; outputs have its target, or the same.
    """

    def __init__(self, config: GenerateConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer, self.target_tokenizer = tokenizer, tokenizer.target or tokenizer
        self.max_length, self.pad_id = config.max_length, tokenizer.pad_id
        self.per_token = self.whole_batch = False

    @property
    def labels(self) -> tuple[str, ...]:
        """None: the outputs are texts."""
        return ()

    def sized(self, source: ModelDir) -> Generate:
        """This task with the sizes of a decoder that starts from `source`, and the tokenizer that `target_tokenizer` names.

        Raises:
            ElectraError: E-M610 see `DecoderConfig`; and those of `tokenizer.load`.
        """
        config, tokenizer = self.config, self.tokenizer
        if config.target_tokenizer is not None:
            target = dataclasses.replace(load_tokenizer(config.target_tokenizer), target=None)
            tokenizer = dataclasses.replace(tokenizer, target=target)
        return Generate(dataclasses.replace(config, decoder=config.decoder.sized(source), target_tokenizer=None), tokenizer)

    def read(self, path: Path) -> Reading:
        """Sources with their targets, or alone; targets that are too long to be written are counted in the notes."""
        found, long = read_targets(path, self.config.columns), Mended(what="targets are longer than task.target_length = "
                                                                          f"{self.config.target_length} tokens")  # fmt: skip

        def looked_at() -> Iterator[Example]:
            for example in found.examples:
                if example.target is not None and len(self._tokens(cast(str, example.target))) >= self.config.target_length:
                    long.add(example.where)
                yield example
            found.notes.extend(long.notes())

        return dataclasses.replace(found, examples=looked_at())

    def fit(self, examples: Sequence[Example]) -> Generate:
        """This task with what most targets are written in; every example is checked.

        Raises:
            ElectraError: E-D610 a source without text, E-D611 an example without target, E-R610 a package of the figures is not
                installed.
        """
        require_packages()
        targets = []
        for example in examples:
            if not example.text.strip():
                raise ElectraError("E-D610", example.where or "example", "the source is empty", "mend or remove the row")
            targets.append(_gold(example))
        return self if self.config.unit is not None else self._with(unit=_most(targets))

    def encode(self, example: Example) -> list[Encoded]:
        """The source as one row, its windows side by side; targets: `keep`, bool [n], which tokens are attended to; `target`,
        int64 [1, n], the tokens that are to be written and the end, if it has one."""
        text = encode_text(self.tokenizer, example, shown_by(self.config.max_windows, self.max_length))
        windows = cut_windows(text, self.max_length)
        targets = {"keep": np.concatenate([window.targets["keep"] for window in windows])}
        if example.target is not None:
            tokens = [*self._tokens(_gold(example)), self.target_tokenizer.sep_id][: self.config.target_length]
            targets["target"] = np.array([tokens], dtype=np.int64)
        return [dataclasses.replace(side_by_side(windows, **targets), truncated=text.truncated)]

    def head(self, encoder: nn.Module) -> GenerationHead:
        """A fresh decoder beside `encoder`.

        Raises:
            ElectraError: E-C614 outputs longer than its positions, E-C615 a recurrent encoder, E-C200 sizes that contradict
                each other, E-C880 a tokenizer outside of the model directory.
        """
        if self.config.target_tokenizer is not None:
            raise ElectraError("E-C880", "task.target_tokenizer", "only fine-tuning takes a tokenizer from elsewhere",
                               "restore task.json, where it is null: a model directory has its own")  # fmt: skip
        if not isinstance(encoder, ClassicEncoder | ModernEncoder):
            raise ElectraError("E-C615", "init.from", "a recurrent encoder has no decoder", "take a classic or modern encoder")
        config = self.config.decoder.of(encoder.config, self.tokenizer.target)
        for name, length in (("target_length", self.config.target_length),
                             ("decoding.max_new_tokens", self.config.decoding.max_new_tokens)):  # fmt: skip
            if length > config.max_position_embeddings:
                raise ElectraError("E-C614", f"task.{name}", f"{length} tokens, but the decoder has "
                                   f"{config.max_position_embeddings} positions", "give at most as many")  # fmt: skip
        own = build_encoder(config)
        assert isinstance(own, ClassicEncoder | ModernEncoder), "the family of the encoder"
        decoder = Decoder(own, MlmHead(config), encoder.config.hidden_size)
        signs = signs_of(self.target_tokenizer, config.vocab_size)
        return GenerationHead(decoder, self.config.decoding, signs, self.config.label_smoothing)

    def loss(self, outputs: Tensor, batch: Batch) -> Losses:
        """Loss summed over the tokens of the targets. Totals are means over the tokens of an example, summed over examples.

        Args:
            outputs: fp32 [B, T, 3], see `GenerationHead`.
            batch: with target and count `target`.
        """
        real_BT = (batch.targets["target"] >= 0).float()
        total = (outputs[..., 0] * real_BT).sum()
        mean_B3 = (outputs.detach() * real_BT[..., None]).sum(1) / real_BT.sum(1, keepdim=True)
        loss, nll, correct = mean_B3.sum(0)
        totals = {"examples": torch.tensor(len(real_BT)), "loss": loss, "cross_entropy": nll, "token_accuracy": correct}
        return Losses(terms={"generate": Term(total=total, unit="target")}, totals=totals)

    def decode(self, example: Example, rows: Sequence[Encoded], outputs: Sequence[Tensor]) -> Prediction:
        """The text, and of several also `sequences`. Nothing is written from a source without text.

        `score` is the probability of a token, in the geometric mean; `ended` is `end`, or `length` at the limit; `repeated`
        says whether a part of it stands there several times in a row.
        """
        if not example.text.strip():
            nothing = Hypothesis(tokens=(), log_probability=0.0, score=0.0, ended="end")
            return Prediction(text=example.text, output=self._told(nothing))
        told = [self._told(one) for one in unpacked(outputs[0])]
        several = {"sequences": told} if len(told) > 1 else {}
        return Prediction(text=example.text, output={**told[0], **several})

    def judge(self, example: Example, prediction: Prediction) -> Judgement:
        """`values`: counts and ROUGE (`Overlap`), `exact_match`, `length` in tokens, `hit_limit`, `repeated`, and `error`, what
        the main metric of this text lacks to 1."""
        reference, output = _gold(example), cast(dict[str, Any], prediction.output)
        text = output["generated_text"]
        alike = (reference.lower() == text.lower()) if self._lowercase else reference == text
        counts = self._overlap.counts(text, reference)
        metric = self.config.metric
        own = float(alike) if metric == "exact_match" else self._overlap.of_one(counts, metric)
        repeated = output["repeated"] and not loops(self._tokens(reference))
        return Judgement(values={"error": 1 - own, "exact_match": float(alike), "length": float(output["length"]),
                                 "hit_limit": float(output["ended"] == "length"), "repeated": float(repeated),
                                 **counts})  # fmt: skip

    def score(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        """The main metric, then all: bleu, chrf, rouge1, rouge2, rougeL, length_ratio (`Overlap.scores`), exact_match, length
        (tokens of an output), and the shares hit_limit and repeated."""
        values = [judgement.values for judgement in judgements]
        found = self._overlap.scores(values)
        means = {name: sum(one[name] for one in values) / len(values)
                 for name in ("exact_match", "length", "hit_limit", "repeated")}  # fmt: skip
        whole = {**found, **means}
        return {self.config.metric: whole[self.config.metric], **whole}

    def tune(self, judgements: Sequence[Judgement]) -> Generate:
        """Nothing to choose."""
        return self

    def to_json(self) -> dict[str, object]:
        return to_tree(self.config)

    def _with(self, **changes: Any) -> Generate:
        return Generate(dataclasses.replace(self.config, **changes), self.tokenizer)

    def _tokens(self, text: str) -> list[int]:
        """Without specials; a special token that is written out is text."""
        return self.target_tokenizer.encode_literally(text).ids[1:-1]

    def _told(self, one: Hypothesis) -> dict[str, object]:
        written = len(one.tokens) + (one.ended == "end")
        return {
            "generated_text": self.target_tokenizer.decode(one.tokens),
            "score": math.exp(one.log_probability / max(1, written)),
            "log_probability": one.log_probability,
            "length": len(one.tokens),
            "ended": one.ended,
            "repeated": loops(one.tokens),
        }

    @cached_property
    def _lowercase(self) -> bool:
        normalizer = self.target_tokenizer.backend.normalizer
        return normalizer is not None and normalizer.normalize_str("A") == "a"

    @cached_property
    def _overlap(self) -> Overlap:
        require_packages()
        return Overlap(self.config.unit or "words", self._lowercase)


def _gold(example: Example) -> str:
    """The target of an example, which must have one."""
    if not isinstance(example.target, str) or not example.target.strip():
        raise ElectraError("E-D611", example.where or "example", "nothing is to be written: the target is empty or missing",
                           "mend the row, or set task.columns.text and task.columns.target")  # fmt: skip
    return example.target.strip()


def _most(texts: Iterable[str]) -> Pieces:
    """What most of the texts are written in."""
    found = [written_in(text) for text in texts]
    return "characters" if 2 * found.count("characters") > len(found) else "words"
