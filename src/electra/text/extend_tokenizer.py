"""Words of a domain for an existing tokenizer, and what an extension is made of.

In: a tokenizer and texts. Out: the same tokenizer with new tokens behind the old ones, whose numbers stay. The words that are
chosen are those that save the most tokens: how often a word occurs, times how many pieces less it would be. A piece that is
[UNK] counts twice, since a word that cannot be read costs more than its length.

How a word is added depends on the kind, and touches other words as little as it can:

    WordPiece       an entry of the vocabulary; it also serves as the beginning of longer words
    byte-level BPE  an entry that is used where it is the whole word (`ignore_merges`)
    unigram         a piece whose probability is its share of the words, but at least a little more than that of its spelling

`pieces_of_new_tokens` tells what the new tokens of any such extension were before: the embedding rows of a model are made
of them (models/grow.py).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers as hf
from tokenizers import decoders

from electra.errors import ElectraError
from electra.text.scripts import SCRIPTS, WITHOUT_SPACES, code_points, script_table
from electra.text.tokenizer import Tokenizer, complete

#: a word that occurs less often is not added: a row of the embedding table could not be learnt from it
_LEAST_COUNT = 5
#: natural logarithm of how much more probable a unigram word is than its spelling, at least
_MARGIN = 0.01
_UNSPACED = [SCRIPTS.index(name) for name in WITHOUT_SPACES]


@dataclass(frozen=True, kw_only=True)
class NewWord:
    """A token that was added, how often it occurs in the texts, and the tokens that stood for it before."""

    token: str
    count: int
    pieces: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Extended:
    """The new tokenizer, its new words in the order of their numbers, and the tokens of the texts before and after."""

    tokenizer: Tokenizer
    words: tuple[NewWord, ...]
    tokens_before: int
    tokens_after: int


def extend(tokenizer: Tokenizer, texts: Iterable[str], words: int) -> Extended:
    """`tokenizer` with at most `words` words of `texts` added.

    Raises:
        ElectraError: E-C131 `words` is below 1, E-D113 no word is frequent and cut into pieces, E-D114 the tokenizer is of a
            kind that cannot be extended.
    """
    if words < 1:
        raise ElectraError("E-C131", "words", f"{words} words to add", "give 1 or more")
    _require_flexible(tokenizer)
    texts = list(texts)
    counts = _count_words(tokenizer, texts)
    chosen = _choose(tokenizer, counts, words)
    tree = json.loads(tokenizer.backend.to_str())
    _add(tree["model"], tokenizer, chosen, sum(counts.values()))
    extended = complete(hf.Tokenizer.from_str(json.dumps(tree)), "extension")
    if pieces_of_new_tokens(tokenizer, extended) is None:
        raise _rigid("the numbers of its tokens would change")
    before, after = (sum(map(len, each.encode_documents(texts))) for each in (tokenizer, extended))
    return Extended(tokenizer=extended, words=chosen, tokens_before=before, tokens_after=after)


def _require_flexible(tokenizer: Tokenizer) -> None:
    """Raises E-D114 where a new entry could not be added, or would change how old ones are used."""
    backend = tokenizer.backend
    if tokenizer.model not in ("WordPiece", "BPE", "Unigram"):
        raise _rigid(f"it is a {tokenizer.model} model")
    if tokenizer.model == "BPE":
        if not isinstance(backend.decoder, decoders.ByteLevel):
            raise _rigid("its BPE is not byte-level")
        entries = (token for token, number in backend.get_vocab(False).items() if number not in tokenizer.special_ids)
        if any(len(backend.model.tokenize(token)) > 1 for token in entries):  # `ignore_merges` would reach them
            raise _rigid("its merges do not lead to all of its entries")
    if backend.pre_tokenizer is None:
        raise _rigid("it does not cut text into words")


def _rigid(cause: str) -> ElectraError:
    return ElectraError("E-D114", "tokenizer", f"cannot be extended: {cause}", "train another one: electra tokenizer train")


def _count_words(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[str]:
    """How often each word of `texts` occurs, as the model is given it."""
    normalizer, pre_tokenizer = tokenizer.backend.normalizer, tokenizer.backend.pre_tokenizer
    assert pre_tokenizer is not None
    counts = Counter[str]()
    for text in texts:
        normal = text if normalizer is None else normalizer.normalize_str(text)
        counts.update(word for word, _ in pre_tokenizer.pre_tokenize_str(normal))
    return counts


def _choose(tokenizer: Tokenizer, counts: Counter[str], most: int) -> tuple[NewWord, ...]:
    """The words that save the most tokens, in that order."""
    vocabulary, found = tokenizer.backend.get_vocab(), list[tuple[int, NewWord]]()
    for word, count in counts.items():
        if count < _LEAST_COUNT or word in vocabulary or not _is_word(tokenizer, word):
            continue
        pieces = tokenizer.backend.model.tokenize(word)
        saved = len(pieces) - 1 + sum(piece.id == tokenizer.unk_id for piece in pieces)
        if saved > 0:
            found.append((count * saved, NewWord(token=word, count=count, pieces=tuple(piece.value for piece in pieces))))
    if not found:
        raise ElectraError("E-D113", "tokenizer extension", f"no word occurs {_LEAST_COUNT} times and is cut into pieces",
                           "give more text of the domain; words of scripts without spaces are not found")  # fmt: skip
    found.sort(key=lambda entry: (-entry[0], entry[1].token))
    return tuple(word for _, word in found[:most])


def _is_word(tokenizer: Tokenizer, word: str) -> bool:
    """Has a letter, and is no run of a script without spaces, which is not one word; a single character of it is."""
    text = decoders.ByteLevel().decode([word]) if tokenizer.model == "BPE" else word
    if not any(character.isalpha() for character in text):
        return False
    codes = code_points(text)
    table = script_table()
    unspaced = sum(int(table[code]) in _UNSPACED for code in codes if code < len(table))
    return unspaced == 0 or len(text) == 1


def _add(model: dict[str, Any], tokenizer: Tokenizer, words: Sequence[NewWord], total: int) -> None:
    """Puts the words behind the vocabulary of a model as it stands in tokenizer.json.

    Args:
        total: words of the texts, for their shares.
    """
    size = tokenizer.vocab_size
    if model["type"] == "Unigram":
        scores = dict(model["vocab"])
        unknown = min(scores.values()) - 10.0  # as the library has it
        for word in words:
            spelled = sum(scores.get(piece, unknown) for piece in word.pieces)
            model["vocab"].append([word.token, round(max(math.log(word.count / total), spelled + _MARGIN), 6)])
        return
    # tokens that stand beside the vocabulary would be numbered behind the new ones
    model["vocab"].update(
        {str(token.content): number for number, token in tokenizer.backend.get_added_tokens_decoder().items()}
    )
    model["vocab"].update({word.token: size + number for number, word in enumerate(words)})
    if model["type"] == "BPE":
        model["ignore_merges"] = True


def pieces_of_new_tokens(old: Tokenizer, new: Tokenizer) -> list[list[int]] | None:
    """The tokens of `old` that stand for each token that `new` has more, in the order of their numbers.

    None unless `new` is `old` extended: the same rules, every old token with its old number, the new ones behind them.
    """
    ours, theirs = (json.loads(tokenizer.backend.to_str()) for tokenizer in (old, new))
    given, extended = old.backend.get_vocab(), new.backend.get_vocab()
    listed, longer = ours["model"].pop("vocab", None), theirs["model"].pop("vocab", None)
    for tree in (ours, theirs):
        tree["model"].pop("ignore_merges", None)
    same_rules = ours == theirs and (old.model != "Unigram" or longer[: len(listed)] == listed)
    same_numbers = given.items() <= extended.items()
    added = sorted(extended.keys() - given.keys(), key=extended.__getitem__)
    behind = [extended[token] for token in added] == list(range(len(given), len(extended)))
    if not (added and same_rules and same_numbers and behind):
        return None
    pieces = [[piece.id for piece in old.backend.model.tokenize(token)] for token in added]
    return pieces if all(pieces) else None
