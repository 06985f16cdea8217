"""Texts in, drafts out: what a model directory that can write says behind a prompt, or of a source text.

`load_writer(path)` takes a causal language model; its prompts are the beginnings of texts, and a prompt without a token is the
beginning of any. Or it takes a model of task `generate`: then the texts are sources, which its encoder reads (`Reader`), and
outputs may have a tokenizer of their own.

A prompt is text: `[SEP]` or `[MASK]` written in it are these characters. One that is too long for the positions that are left
beside the new tokens loses its beginning, which is counted. A stop string ends a draft as soon as it stands at its end, and is
not part of it. A character of which a byte-level tokenizer has not said all bytes is not part of a draft either.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from electra.contracts import Encoded, Example
from electra.data.grid import collate
from electra.dist import fold_seed
from electra.errors import ElectraError
from electra.models.decoder import Decoder, Memory
from electra.models.decoding import Ended, Hypothesis, Stop, generate, stream
from electra.models.decoding_config import DecodingConfig
from electra.models.generation import GenerationHead, signs_of
from electra.models.model_dir import ModelDir, load_model_dir
from electra.models.recurrent import RecurrentEncoder
from electra.predict.inference import Precision, ready
from electra.predict.predictor import Predictor, predictor_of, task_of
from electra.tasks.common import TaskNetwork
from electra.tasks.generate import Generate
from electra.text.tokenizer import Tokenizer, well_formed
from electra.text.written import UNFINISHED, Growing

#: hypotheses that are written at the same time, and tokens of their sources, padding included
_TOGETHER, _SOURCE_TOKENS = 64, 8192
_NOTHING = Hypothesis(tokens=(), log_probability=0.0, score=0.0, ended="end")


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One output.

    Args:
        prompt: the text that was given.
        text: what was written; behind the prompt, where that is its beginning.
        tokens: how many were generated, the end included.
        log_probability: summed over these, in nats.
        score: what drafts of one text are ranked by: of beams, `log_probability` over a power of the length; reranked,
            what `critic.rerank` says.
        ended: `end` by itself, `stop` by a stop string, `length` cut at the most tokens that were asked for.
        truncated: tokens of the prompt, from its beginning, or of the source, that were not seen.
        critic: what a critic says of the draft; None = none was asked.
    """

    prompt: str
    text: str
    tokens: int
    log_probability: float
    score: float
    ended: Ended
    truncated: int = 0
    critic: float | None = None


@dataclass(frozen=True, kw_only=True)
class Reader:
    """The encoder of a model that reads sources.

    Args:
        encode: makes a row of a text.
        read: what the decoder attends to, of the rows of some sources.
    """

    encode: Callable[[str], Encoded]
    read: Callable[[Sequence[Encoded]], Memory]


@dataclass(frozen=True, kw_only=True)
class _Given:
    """A text as the model gets it.

    Args:
        text: as it was given.
        prefix: the tokens that an output begins with.
        source: what the encoder reads; None = the text is a prompt.
        truncated: tokens that are not seen.
    """

    text: str
    prefix: list[int]
    source: Encoded | None
    truncated: int


class Writer:
    """A decoder, and all it needs to write.

    Args:
        decoder: in evaluation mode.
        tokenizer: of what is written.
        reader: reads sources; None = the texts are prompts.
        precision: what the decoder computes in, `fp32` or `bf16`; said, not set.
    """

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, reader: Reader | None = None, precision: str = "fp32") -> None:
        self.decoder, self.tokenizer, self.reader, self.precision = decoder, tokenizer, reader, precision
        self.signs = signs_of(tokenizer, decoder.encoder.config.vocab_size)

    @property
    def positions(self) -> int:
        """Tokens of a text at most, with start and end."""
        return self.decoder.encoder.config.max_position_embeddings

    def write(self, texts: Sequence[str], config: DecodingConfig, stop: Sequence[str] = ()) -> list[list[Draft]]:
        """As `drafts`, all at once."""
        return list(self.drafts(texts, config, stop))

    def drafts(self, texts: Sequence[str], config: DecodingConfig, stop: Sequence[str] = ()) -> Iterator[list[Draft]]:
        """Drafts of each text, in order, the best first: `config.num_return_sequences` of them.

        Raises:
            ElectraError: E-C625 an empty stop string, E-C626 the new tokens leave no room for a prompt.
        """
        stops, together = self._stops(stop), max(1, _TOGETHER // max(config.num_beams, config.num_return_sequences))
        first = 0
        for some in _portions((self._given(text, config) for text in texts), together):
            prefixes = [given.prefix for given in some]
            found = generate(self.decoder, self._memory(some), prefixes, _seeded(config, first), self.signs, stops)
            for given, hypotheses in zip(some, found, strict=True):
                if given.source is not None and not given.text.strip():
                    hypotheses = [_NOTHING]  # from a source without text, as task `generate` has it
                yield [self._draft(given, one, stop) for one in hypotheses]
            first += len(some)

    def stream(self, text: str, config: DecodingConfig, stop: Sequence[str] = ()) -> Generator[str, None, Ended]:
        """One draft in pieces as they are decided, whole characters all; together they are what `write` says of `[text]`.

        Returns:
            Why it ended, as the generator's value.

        Raises:
            ElectraError: as `write`; E-C603 beams, or several drafts.
        """
        given = self._given(text, config)
        if given.source is not None and not text.strip():
            return "end"
        memory, prefix = self._memory([given]), given.prefix
        stops, growing, tokens = self._stops(stop), Growing(self.tokenizer, prefix), list(prefix)
        # a stop string may have begun in the prompt
        whole = self.tokenizer.decode(prefix)[-max(map(len, stop), default=1) :]
        begin = said = len(whole)
        for token in stream(self.decoder, memory, prefix, _seeded(config, 0), self.signs, stops):
            tokens.append(token)
            piece = growing.add(token)
            whole += _behind(text, piece) if len(whole) == begin else piece
            end = _stop_at(whole, begin, stop)
            sure = len(whole) - _may_begin(whole, stop) if end is None else end
            if sure > said:
                yield whole[said:sure]
                said = sure
        if len(tokens) > len(prefix) and stops(tokens):
            return "stop"
        if len(whole) > said:
            yield whole[said:]
        return "length" if len(tokens) - len(prefix) == config.max_new_tokens else "end"

    def excess(self, text: str, config: DecodingConfig) -> int:
        """Tokens of a prompt for which there is no room beside the new ones, from its beginning; of a source, that its encoder
        does not read, from its end."""
        return self._given(text, config).truncated

    def _given(self, text: str, config: DecodingConfig) -> _Given:
        """What the model gets of a text."""
        room = self.positions - 1 - config.max_new_tokens
        if room < 1:
            raise ElectraError("E-C626", "max_new_tokens", f"{config.max_new_tokens} of the {self.positions} tokens that the "
                               "model reads leave no room for a prompt", f"give at most {self.positions - 2}")  # fmt: skip
        if self.reader is not None:
            row = self.reader.encode(text)
            return _Given(text=text, prefix=[], source=row, truncated=row.truncated)
        [whole] = self.tokenizer.encode_documents([well_formed(text)])
        return _Given(text=text, prefix=whole.ids[-room:], source=None, truncated=max(0, len(whole.ids) - room))

    def _memory(self, some: Sequence[_Given]) -> Memory | None:
        """What the decoder attends to; None for prompts."""
        return None if self.reader is None else self.reader.read([given.source for given in some if given.source is not None])

    def _stops(self, stop: Sequence[str]) -> Stop:
        """Whether the last of some tokens completed a stop string."""
        if "" in stop:
            raise ElectraError("E-C625", "stop", "an empty text stands everywhere", "give the characters that end an output")
        # a character has up to four tokens, and a token may have no character at all
        reach = 4 * max(map(len, stop), default=0) + 4

        def ends(tokens: Sequence[int]) -> bool:
            if not stop:
                return False
            tail = tokens[-reach:]
            before = self.tokenizer.decode(tail[:-1]).rstrip(UNFINISHED)
            return _stop_at(self.tokenizer.decode(tail), len(before), stop) is not None

        return ends

    def _draft(self, given: _Given, found: Hypothesis, stop: Sequence[str]) -> Draft:
        begin = len(self.tokenizer.decode(given.prefix))
        whole = self.tokenizer.decode(found.tokens)
        end = _stop_at(whole, begin, stop) if found.ended == "stop" else None
        new = whole[begin:].rstrip(UNFINISHED) if end is None else whole[begin : max(begin, end)]
        generated = len(found.tokens) - len(given.prefix) + (found.ended == "end")
        return Draft(prompt=given.text, text=_behind(given.text, new), tokens=generated, score=found.score, ended=found.ended,
                     log_probability=found.log_probability, truncated=given.truncated)  # fmt: skip


def load_writer(path: str | Path, precision: Precision = "fp32") -> Writer:
    """The writer of a model directory.

    Args:
        path: of a causal language model, or of a model of task `generate`.
        precision: as of `predictor.load`; `Writer.precision` says what was chosen.

    Raises:
        ElectraError: E-M625 the model does not write, with what it is and which verb asks it, E-M311 the tokenizer does not fit
            the weights; and those of `load_model_dir` and `inference.ready`.
    """
    model = load_model_dir(Path(path))
    if model.task is not None and model.task.get("type") == "generate":
        return writer_of(predictor_of(model, task_of(model, None), precision))
    return causal_writer(model, precision)


def causal_writer(model: ModelDir, precision: Precision = "fp32") -> Writer:
    """The writer of a loaded causal language model.

    Raises:
        ElectraError: E-M625, E-M311 as `load_writer`; those of `inference.ready`.
    """
    if model.causal_head is None:
        what, mend = _other(model)
        raise ElectraError("E-M625", str(model.path), f"is {what}, which does not write", mend)
    if isinstance(model.encoder, RecurrentEncoder):
        raise ElectraError("E-M625", str(model.path), "is a recurrent language model, which does not write",
                           "train a causal model with a classic or modern encoder")  # fmt: skip
    tokenizer, entries = model.tokenizer(), model.encoder.config.vocab_size
    if tokenizer.vocab_size > entries:
        raise ElectraError("E-M311", str(model.path), f"the tokenizer has {tokenizer.vocab_size} tokens, the network {entries}",
                           "bring the tokenizer that belongs to the weights")  # fmt: skip
    decoder = Decoder(model.encoder, model.causal_head).eval()
    return Writer(decoder, tokenizer, precision=ready(decoder, precision))


def writer_of(predictor: Predictor) -> Writer:
    """The writer of a model of task `generate`, over the predictor's own network."""
    task, network = predictor.task, predictor.network
    assert isinstance(task, Generate)
    assert isinstance(network, TaskNetwork)
    assert isinstance(network.head, GenerationHead)

    def encode(text: str) -> Encoded:
        return task.encode(Example(text=text))[0]

    @torch.inference_mode()
    def read(rows: Sequence[Encoded]) -> Memory:
        batch = collate(rows, max(len(row.tokens) for row in rows), task.pad_id, packed=True)
        batch = batch.to(next(network.head.parameters()).device)
        hidden = network.encoder(batch.tokens, batch.positions, batch.types, batch.layout)
        return Memory.joined(hidden, batch)

    return Writer(network.head.decoder.eval(), task.target_tokenizer, Reader(encode=encode, read=read), predictor.precision)


def _portions(texts: Iterable[_Given], most: int) -> Iterator[list[_Given]]:
    """What is written together: so many texts at most, whose sources are not too long together."""
    some, longest = list[_Given](), 0
    for given in texts:
        length = 0 if given.source is None else len(given.source.tokens)
        if some and (len(some) == most or max(longest, length) * (len(some) + 1) > _SOURCE_TOKENS):
            yield some
            some, longest = [], 0
        some.append(given)
        longest = max(longest, length)
    if some:
        yield some


def _other(model: ModelDir) -> tuple[str, str]:
    """What a model is that does not write, and what to do with it."""
    ask = f"`electra predict {model.path}"
    if model.task is not None:
        return f"a model of task {model.task.get('type')!r}", f"ask it with {ask}`"
    if model.rtd_head is not None:
        return "a discriminator", f"ask it with {ask} --task replaced`, or fill [MASK]s with --refine if it has a generator"
    if model.mlm_head is not None:
        return "a masked language model", f"ask it with {ask} --task fill-mask`"
    if model.task_head is not None:
        return "a classifier", f"ask it with {ask}`"
    if model.energy_head is not None:
        return "an energy model", f"ask it with `electra score {model.path} --method electric`"
    return "an encoder without a head", "train a causal model: electra pretrain causal-tiny ..."


def _seeded(config: DecodingConfig, first: int) -> DecodingConfig:
    """Texts that are not written together have random numbers of their own."""
    return replace(config, seed=fold_seed(config.seed, "drafts", first))


def _behind(prompt: str, text: str) -> str:
    """`text` without the space that the end of the prompt has already."""
    return text.removeprefix(" ") if prompt.endswith((" ", "\n", "\t")) else text


def _stop_at(whole: str, begin: int, stop: Sequence[str]) -> int | None:
    """Where the first stop string begins that ends behind the first `begin` characters."""
    found = (whole.find(one, max(0, begin - len(one) + 1)) for one in stop)
    return min((place for place in found if place >= 0), default=None)


def _may_begin(whole: str, stop: Sequence[str]) -> int:
    """How many characters at the end of `whole` may be the beginning of a stop string."""
    return max((size for one in stop for size in range(1, len(one)) if whole.endswith(one[:size])), default=0)
