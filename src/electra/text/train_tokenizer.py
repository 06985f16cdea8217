"""Training of tokenizers: WordPiece, byte-level BPE, unigram.

In: texts. Out: a `Tokenizer` whose vocabulary begins with BERT's five special tokens, the same for the same texts.

    wordpiece  the words of BERT, `##` before pieces inside of a word; what its alphabet lacks becomes [UNK]
    bpe        GPT-2's words as bytes, a space belonging to the word behind it; nothing is ever unknown, nothing is lost
    unigram    words as in SentencePiece, `▁` for the space before one, punctuation apart; a word's cut is the most probable

The library's own trainers give the same result every time for BPE alone, whose bytes have fixed numbers. For WordPiece, the
numbers of `##x` pieces and the cut of the alphabet follow the order of a hash table, and ties between merges follow these
numbers. So the texts are read twice: once to choose the alphabet (characters by frequency until 99.99 % of the text is
covered), once to count words; the alphabet and its `##` forms are handed to the trainer in a fixed order. For unigram, sums
follow that order, too, so its trainer is our own (unigram.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import tokenizers as hf
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from electra.errors import ElectraError
from electra.text.tokenizer import SPECIAL_TOKENS, Tokenizer, complete, wordpiece
from electra.text.unigram import unigram_pieces

Kind = Literal["wordpiece", "bpe", "unigram"]

#: a vocabulary below this cannot hold an alphabet; byte-level, it holds 256 bytes
SMALLEST_VOCABULARY: Mapping[Kind, int] = {"wordpiece": 64, "bpe": 256 + len(SPECIAL_TOKENS), "unigram": 64}

#: share of all characters that the alphabet covers; the rest becomes [UNK]
_COVERAGE = 0.9999
#: share of the vocabulary that the alphabet may take; Chinese needs most of it for single characters
_ALPHABET_SHARE = 0.75
#: a mark of BERT's punctuation, with the space before it
_PUNCTUATION = "▁?[\\p{P}$+<=>^`|~]"
#: absorbs the space before it, as the word did in whose place it stands
_MASK = hf.AddedToken(SPECIAL_TOKENS[-1], lstrip=True, special=True)


def train(
    texts: Iterable[str],
    vocab_size: int,
    *,
    kind: Kind = "wordpiece",
    lowercase: bool = False,
    strip_accents: bool = False,
    min_frequency: int = 2,
) -> Tokenizer:
    """A tokenizer of `vocab_size` tokens, or fewer if the texts have no more. Same texts, same tokenizer.

    Args:
        texts: clean texts; iterated more than once, so a list or any other iterable that can begin again.
        vocab_size: all tokens, specials and alphabet included.
        kind: see the module's docstring.
        lowercase: "The" and "the" are one word.
        strip_accents: "café" and "cafe" are one word.
        min_frequency: how often a character, a pair or a piece must occur to get a token.

    Raises:
        ElectraError: E-C103 `vocab_size` is too small, E-C105 `texts` cannot be iterated twice, E-D112 no text.
    """
    smallest = SMALLEST_VOCABULARY[kind]
    if vocab_size < smallest:
        why = f"; 256 bytes and {len(SPECIAL_TOKENS)} special tokens are the least" if kind == "bpe" else ""
        raise ElectraError("E-C103", "vocab_size", f"{vocab_size} is too few tokens{why}", f"use {smallest} or more")
    if iter(texts) is texts:
        raise ElectraError("E-C105", "texts", "an iterator runs once, training reads twice", "give a list or an iterable class")
    if not any(text.strip() for text in texts):
        raise ElectraError("E-D112", "tokenizer training", "there is no text", "give files with text")
    match kind:
        case "wordpiece":
            vocabulary = _wordpiece_vocabulary(texts, vocab_size, lowercase, strip_accents, min_frequency)
            backend = wordpiece(vocabulary, lowercase, strip_accents)
        case "bpe":
            backend = _train_bpe(texts, vocab_size, _folding(lowercase, strip_accents), min_frequency)
        case "unigram":
            backend = _train_unigram(texts, vocab_size, _folding(lowercase, strip_accents), min_frequency)
    return complete(backend, "training")


def _folding(lowercase: bool, strip_accents: bool) -> list[normalizers.Normalizer]:
    """What happens to texts before they are cut: composed characters (NFC), and what was asked for."""
    if not lowercase and not strip_accents:
        return [normalizers.NFC()]
    folded = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=False, strip_accents=strip_accents, lowercase=lowercase
    )
    return [normalizers.NFC(), folded, normalizers.NFC()]  # removing accents leaves characters taken apart


# -- byte-level BPE ------------------------------------------------------------------------------------------------------


def _train_bpe(
    texts: Iterable[str], vocab_size: int, folding: list[normalizers.Normalizer], min_frequency: int
) -> hf.Tokenizer:
    backend = hf.Tokenizer(models.BPE())
    backend.normalizer = normalizers.Sequence(folding)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[*SPECIAL_TOKENS[:-1], _MASK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


# -- unigram -------------------------------------------------------------------------------------------------------------


def _train_unigram(
    texts: Iterable[str], vocab_size: int, folding: list[normalizers.Normalizer], min_frequency: int
) -> hf.Tokenizer:
    normalizer = normalizers.Sequence([*folding, normalizers.Replace(hf.Regex(r"\s+"), " ")])
    pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="first"),
            pre_tokenizers.Split(hf.Regex(_PUNCTUATION), behavior="isolated"),
        ]
    )
    words = Counter[str]()
    for text in texts:
        words.update(word for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text)))
    count = vocab_size - len(SPECIAL_TOKENS)
    alphabet = _characters(words, int(_ALPHABET_SHARE * count), min_frequency)
    if not alphabet:
        raise ElectraError("E-D112", "tokenizer training", f"no character occurs {min_frequency} times", "give more text")
    pieces = unigram_pieces(words, alphabet, count, min_frequency)
    specials = [(token, 0.0) for token in SPECIAL_TOKENS]
    backend = hf.Tokenizer(models.Unigram([*specials, *pieces], unk_id=SPECIAL_TOKENS.index("[UNK]"), byte_fallback=False))
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    backend.add_special_tokens([_MASK])
    return backend


def _characters(words: Mapping[str, int], most: int, min_frequency: int) -> list[str]:
    """The characters that get a piece: the most frequent ones until `_COVERAGE` is reached or there are `most`."""
    frequency = Counter[str]()
    for word, count in words.items():
        for character in word:
            frequency[character] += count
    total, covered, chosen = sum(frequency.values()), 0, list[str]()
    for character, count in sorted(frequency.items(), key=lambda item: (-item[1], item[0])):
        if covered >= _COVERAGE * total or count < min_frequency or len(chosen) == most:
            break
        covered += count
        chosen.append(character)
    return chosen


# -- WordPiece -----------------------------------------------------------------------------------------------------------


def _wordpiece_vocabulary(
    texts: Iterable[str], vocab_size: int, lowercase: bool, strip_accents: bool, min_frequency: int
) -> dict[str, int]:
    backend = wordpiece({token: number for number, token in enumerate(SPECIAL_TOKENS)}, lowercase, strip_accents)
    budget = int(_ALPHABET_SHARE * (vocab_size - len(SPECIAL_TOKENS)))
    alphabet, continuing = _alphabet(texts, backend, budget, min_frequency)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[*SPECIAL_TOKENS, *(f"##{character}" for character in continuing)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    # the vocabulary alone, because the trainer's "special tokens" are ordinary ones in it
    return backend.get_vocab()


def _alphabet(texts: Iterable[str], backend: hf.Tokenizer, budget: int, min_frequency: int) -> tuple[list[str], list[str]]:
    """The characters that get a token, and those of them that can stand inside a word and get a `##` token too.

    The most frequent ones until `_COVERAGE` of the normalised text is reached or `budget` tokens are spent.
    """
    normalizer, pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    assert normalizer is not None
    assert pre_tokenizer is not None
    frequency = Counter[str]()
    for code, count in _code_points(texts):
        for character in normalizer.normalize_str(chr(code)).split():
            frequency.update(dict.fromkeys(character, count))
    total, covered = sum(frequency.values()), 0
    alphabet, continuing = list[str](), list[str]()
    for character, count in sorted(frequency.items(), key=lambda item: (-item[1], item[0])):
        inside = len(pre_tokenizer.pre_tokenize_str(f"a{character}")) == 1 and not _stands_alone(normalizer, character)
        if covered >= _COVERAGE * total or count < min_frequency or len(alphabet) + len(continuing) + 1 + inside > budget:
            break
        covered += count
        alphabet.append(character)
        continuing += [character] if inside else []
    return alphabet, continuing


def _stands_alone(normalizer: Any, character: str) -> bool:
    """Whether the normaliser puts spaces around it, as it does around Chinese characters."""
    return " " in normalizer.normalize_str(f"a{character}")


def _code_points(texts: Iterable[str]) -> Iterator[tuple[int, int]]:
    """(code point, occurrences) of all characters of `texts`."""
    occurrences = np.zeros(0x110000, dtype=np.int64)
    pending, size = list[str](), 0
    for text in texts:
        pending.append(text)
        size += len(text)
        if size >= 1 << 20:
            occurrences += _histogram(pending)
            pending, size = [], 0
    occurrences += _histogram(pending)
    return ((int(code), int(occurrences[code])) for code in np.flatnonzero(occurrences))


def _histogram(texts: list[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "ignore"), dtype=np.uint32)
    return np.bincount(codes, minlength=0x110000)
