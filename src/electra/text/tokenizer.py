"""Tokenizers: load any `tokenizer.json` or BERT `vocab.txt`, save one that transformers loads.

In: files of a tokenizer. Out: a frozen `Tokenizer` around the Rust tokenizer of Hugging Face, which always adds
[CLS] A [SEP] (B [SEP]), never truncates and never pads: lengths are the business of those who make batches. New ones are
trained in train_tokenizer.py and extended in extend_tokenizer.py. A model that writes in another vocabulary than it reads has
two: the second is the `target` of the first, and lies in a directory below its own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import tokenizers as hf
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from electra.errors import ElectraError
from electra.storage import unwritable
from electra.text.scripts import IDEOGRAPHS_AND_KANA

#: the five tokens with a meaning of their own, in BERT's order; a trained vocabulary begins with them
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
#: the directory below a tokenizer's that has the tokenizer of what is written
TARGET = "target_tokenizer"

_SURROGATES = re.compile("[\ud800-\udfff]")
_WIDE = f"{IDEOGRAPHS_AND_KANA}\u3000-\u303f\uff00-\uffef\U00020000-\U000323af"
#: a space beside a character of Chinese or Japanese, unless a letter of an alphabet is on its other side
_NO_SPACE = re.compile(rf"(?<=[{_WIDE}]) (?=[{_WIDE}\W\d_])|(?<=[{_WIDE}\W\d_]) (?=[{_WIDE}])")


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A tokenizer and the numbers of its special tokens. Make one with `load` or `train_tokenizer.train`.

    Args:
        target: of what is written from the texts that this one reads; None = this one.
    """

    backend: hf.Tokenizer
    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    target: Tokenizer | None = None

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included: one more than the greatest id."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @property
    def model(self) -> str:
        """The library's name of its kind: WordPiece, BPE, Unigram or WordLevel."""
        return type(self.backend.model).__name__

    @property
    def special_ids(self) -> tuple[int, ...]:
        """[PAD] [UNK] [CLS] [SEP] [MASK]."""
        return (self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id)

    @cached_property
    def fingerprint(self) -> str:
        """blake2b of the tokenizer's canonical JSON: vocabulary, merges, normaliser, everything; not of its target."""
        canonical = json.dumps(json.loads(self.backend.to_str()), sort_keys=True)
        return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()

    @cached_property
    def _plain(self) -> hf.Tokenizer:
        """The same tokenizer, blind to special tokens that are written out in a text."""
        plain = hf.Tokenizer.from_str(self.backend.to_str())
        plain.encode_special_tokens = True
        return plain

    def encode_documents(self, texts: Sequence[str]) -> list[hf.Encoding]:
        """Each text without specials; `[SEP]` written in a text is text. Runs on all cores.

        Offsets of the encodings count characters of the text.
        """
        return self._plain.encode_batch(list(texts), add_special_tokens=False)

    def encode(self, text: str, pair: str | None = None) -> hf.Encoding:
        """[CLS] text [SEP] or [CLS] text [SEP] pair [SEP], with ids, type ids, offsets and word numbers.

        Here `[MASK]` written in a text is the mask. A lone surrogate counts as U+FFFD, so that offsets stay right.
        """
        return self.backend.encode(well_formed(text), None if pair is None else well_formed(pair))

    def encode_literally(self, text: str, pair: str | None = None) -> hf.Encoding:
        """As `encode`, but `[MASK]`, `[SEP]` and their like written in a text are text: nobody's words end a segment."""
        return self._plain.encode(well_formed(text), None if pair is None else well_formed(pair))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, without specials and with words put together again.

        WordPiece does not know where spaces were: one stands between its words, but none between two characters of Chinese or
        Japanese, nor between one of these and a digit or a punctuation mark.
        """
        text = self.backend.decode([int(token) for token in ids])
        return _NO_SPACE.sub("", text) if isinstance(self.backend.decoder, decoders.WordPiece) else text

    def token_text(self, token_id: int) -> str:
        """One token as it stands in the vocabulary. Raises IndexError for an id outside of it."""
        text = self.backend.id_to_token(token_id)
        if text is None:
            raise IndexError(f"token {token_id} of {self.vocab_size}")
        return text

    def surface(self, token_id: int) -> str:
        """What a token stands for in a text: without `##`; with the space before a word where the token brings it."""
        text = self.token_text(token_id)
        match self.backend.decoder:
            case decoders.WordPiece():
                return text.removeprefix("##")
            case decoders.Metaspace():
                return text.replace("\u2581", " ")
            case _:
                return self.backend.decode([token_id], skip_special_tokens=False)

    def save(self, directory: str | Path) -> None:
        """Write the three files from which transformers' `AutoTokenizer` makes the same tokenizer; those of its target below.

        Raises:
            ElectraError: E-R001 the disk is full, E-R002 the directory cannot be written.
        """
        directory = Path(directory)
        specials = {f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS}
        try:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "tokenizer.json").write_text(self.backend.to_str(pretty=True), encoding="utf-8")
            _write_json(directory / "tokenizer_config.json", {**_transformers_class(self.backend), **specials})
            _write_json(directory / "special_tokens_map.json", specials)
        except OSError as error:
            raise unwritable(directory, error) from None
        if self.target is not None:
            self.target.save(directory / TARGET)


def well_formed(text: str) -> str:
    """`text` with U+FFFD for each lone surrogate."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def _write_json(path: Path, tree: dict[str, Any]) -> None:
    path.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _transformers_class(backend: hf.Tokenizer) -> dict[str, object]:
    """The class of transformers that behaves like `backend`, and the settings it would otherwise guess."""
    tree = json.loads(backend.to_str())
    normalizer = tree["normalizer"] or {}
    parts = (tree["model"].get("type"), normalizer.get("type"), (tree["pre_tokenizer"] or {}).get("type"))
    if parts != ("WordPiece", "BertNormalizer", "BertPreTokenizer"):
        inputs = ["input_ids", "token_type_ids", "attention_mask"]  # without it, pairs would have no types
        return {
            "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, "model_input_names": inputs
        }  # fmt: skip
    return {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": normalizer["lowercase"],
        "strip_accents": normalizer["strip_accents"],
        "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
    }


# -- loading -------------------------------------------------------------------------------------------------------------


def load(path: str | Path) -> Tokenizer:
    """The tokenizer in a directory, with its target if there is one, a `tokenizer.json` or a BERT `vocab.txt`.

    A directory's `tokenizer.json` goes before its `vocab.txt`. Beside a `vocab.txt`, `tokenizer_config.json` may say
    `do_lower_case` and `strip_accents`; without it, a vocabulary with upper-case letters is cased, any other lower-cases and
    strips accents, as BERT's do.

    Raises:
        ElectraError: E-C104 nothing there, E-D110 a broken file, E-D111 a special token is missing.
    """
    path = Path(path)
    below = path / TARGET / "tokenizer.json"
    return replace(_load(path), target=_load(below)) if path.is_dir() and below.is_file() else _load(path)


def _load(path: Path) -> Tokenizer:
    candidates = [path / "tokenizer.json", path / "vocab.txt"] if path.is_dir() else [path]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise ElectraError("E-C104", str(path), "no tokenizer.json or vocab.txt", "give a tokenizer's directory or file")
    if file.suffix == ".txt":
        return complete(_from_vocabulary(file), str(file))
    try:
        backend = hf.Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises plain Exceptions
        raise ElectraError("E-D110", str(file), f"not a tokenizer: {error}", "save the tokenizer again") from None
    return complete(backend, str(file))


def complete(backend: hf.Tokenizer, where: str) -> Tokenizer:
    """`backend` with special tokens known, [CLS] A [SEP] B [SEP] around texts, no truncation and no padding."""
    missing = [token for token in SPECIAL_TOKENS if backend.token_to_id(token) is None]
    if missing:
        raise ElectraError(
            "E-D111", where, f"no {' '.join(missing)} in the vocabulary", "use a tokenizer with BERT's special tokens"
        )
    known = {str(token.content) for token in backend.get_added_tokens_decoder().values()}
    backend.add_special_tokens([token for token in SPECIAL_TOKENS if token not in known])
    pad, unk, cls, sep, mask = (cast(int, backend.token_to_id(token)) for token in SPECIAL_TOKENS)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    )
    backend.no_truncation()
    backend.no_padding()
    return Tokenizer(backend, pad_id=pad, unk_id=unk, cls_id=cls, sep_id=sep, mask_id=mask)


def _from_vocabulary(file: Path) -> hf.Tokenizer:
    config_file = file.with_name("tokenizer_config.json")
    try:
        lines = file.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
        config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
    except (OSError, ValueError) as error:
        raise ElectraError("E-D110", str(file.parent), f"not a tokenizer: {error}", "save the tokenizer again") from None
    tokens = [line.rstrip("\r") for line in lines]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens):
        token, count = Counter(tokens).most_common(1)[0]
        raise ElectraError("E-D110", str(file), f"token {token!r} stands there {count} times", "write one token a line")
    cased = any(token != token.lower() for token in tokens if token not in SPECIAL_TOKENS and not token.startswith("[unused"))
    lowercase = bool(config.get("do_lower_case", not cased))
    strip_accents = config.get("strip_accents")
    return wordpiece(vocabulary, lowercase, lowercase if strip_accents is None else bool(strip_accents))


def wordpiece(vocabulary: dict[str, int], lowercase: bool, strip_accents: bool) -> hf.Tokenizer:
    backend = hf.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=strip_accents, lowercase=lowercase
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend
